//! Metrics leave by OTLP and for Prometheus: named as the conventions say, and without anything of keys or people.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use keyledger_proto::*;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::forwarders::receiver::Receiver;
use crate::forwarders::{Configured, hook};
use crate::harness::*;

const README: &str = include_str!("../../README.md");

/// All labels that metrics may have.
const LABELS: [&str; 20] = [
    "db_client_connection_pool_name",
    "db_client_connection_state",
    "db_collection_name",
    "db_namespace",
    "db_operation_name",
    "db_response_status_code",
    "db_system_name",
    "error_type",
    "keyledger_anomaly_rule",
    "keyledger_decision",
    "keyledger_forwarder_name",
    "keyledger_ledger_id",
    "keyledger_reason_code",
    "le",
    "otel_scope_name",
    "otel_scope_schema_url",
    "otel_scope_version",
    "rpc_method",
    "rpc_response_status_code",
    "rpc_system_name",
];

/// A line of what Prometheus reads.
#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// A server that Prometheus can ask, and where.
async fn scraped(d: &Deployment, more: &[(&str, &str)]) -> (Arc<Replica>, String) {
    let variables = [
        ("OTEL_METRICS_EXPORTER", "prometheus"),
        ("OTEL_EXPORTER_PROMETHEUS_HOST", "127.0.0.1"),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", "0"),
    ];
    let variables = [&variables, more].concat();
    let replica = d.replica_with_all(&variables).await;
    let log = replica.log();
    let line = log.lines().find(|line| line.contains("/metrics")).expect("it says where");
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    (replica, line["address"].as_str().unwrap().to_string())
}

/// Head and body of an answer.
async fn get(address: &str, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    (head.into(), body.into())
}

async fn metrics(address: &str) -> String {
    let request = "GET /metrics HTTP/1.1\r\nhost: keyledger\r\n\r\n";
    let (head, body) = get(address, request).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    body
}

fn samples(text: &str) -> Vec<Sample> {
    text.lines().filter(|line| !line.starts_with('#')).map(sample).collect()
}

/// None of our values holds a quotation mark.
fn sample(line: &str) -> Sample {
    let (name, rest) = line.split_once('{').expect("each has labels");
    let (labels, value) = rest.rsplit_once("} ").expect("each has a value");
    let label = |label: &str| {
        let (name, value) = label.split_once("=\"").expect("a name and a value");
        (name.to_string(), value.to_string())
    };
    let labels = labels.trim_end_matches('"').split("\",").map(label).collect();
    Sample { name: name.into(), labels, value: value.parse().unwrap() }
}

/// The sum of the samples of a name that have some labels; `None` if there is none.
fn sum(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let has = |s: &Sample| {
        labels.iter().all(|(name, value)| s.labels.get(*name).is_some_and(|v| v == value))
    };
    let found: Vec<f64> =
        samples.iter().filter(|s| s.name == name && has(s)).map(|s| s.value).collect();
    (!found.is_empty()).then(|| found.iter().sum())
}

#[test]
fn prometheus_reads_what_the_server_did_and_no_label_names_a_key_or_a_person() {
    scenario(async |d| {
        let (replica, address) = scraped(d, &[]).await;
        let admin = replica.admin();
        let made = admin.call(user_key("alice@example.com")).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        for _ in 0..3 {
            admin.call(check(&made.token)).await.unwrap();
        }
        admin.call(revoke(&key_id)).await.unwrap();
        admin.call(check(&made.token)).await.unwrap();
        replica.caller("klk_not-a-token").call(WhoAmIRequest {}).await.unwrap_err();

        // A call is counted when its answer has left.
        let of_calls = "rpc_server_call_duration_seconds_count";
        let verify = [("rpc_method", "keyledger.v1.KeyService/VerifyKey")];
        let refused = [("rpc_response_status_code", "UNAUTHENTICATED")];
        let (mut text, mut all);
        loop {
            text = metrics(&address).await;
            all = samples(&text);
            let counted = sum(&all, of_calls, &verify) == Some(4.0);
            if counted && sum(&all, of_calls, &refused) == Some(1.0) {
                break;
            }
        }
        let verdicts = |decision, reason| {
            let labels = [("keyledger_decision", decision), ("keyledger_reason_code", reason)];
            sum(&all, "keyledger_verdicts_total", &labels)
        };
        assert_eq!(verdicts("allow", "GRANTED"), Some(3.0), "{text}");
        assert_eq!(verdicts("deny", "REVOKED"), Some(1.0), "{text}");
        for pool in ["readers", "writers", "sealing"] {
            let pool = [("db_client_connection_pool_name", pool)];
            assert_eq!(sum(&all, "db_client_connection_max", &pool), Some(8.0), "{text}");
        }
        for statement in [("INSERT", "entries"), ("SELECT", "ledgers")] {
            let labels = [("db_operation_name", statement.0), ("db_collection_name", statement.1)];
            let count = sum(&all, "db_client_operation_duration_seconds_count", &labels);
            assert!(count > Some(0.0), "{statement:?}: {text}");
        }
        let appended = sum(&all, "keyledger_entries_appended_total", &[]);
        assert!(appended >= Some(6.0), "{text}");
        assert_eq!(sum(&all, "keyledger_ledgers_stopped", &[]), Some(0.0), "{text}");
        assert_eq!(sum(&all, "keyledger_streams_open", &[]), Some(0.0), "{text}");
        assert_eq!(sum(&all, "target_info", &[("service_name", "keyledger")]), Some(1.0));

        let of_samples = all.iter().filter(|s| s.name != "target_info");
        let labels: BTreeSet<&str> =
            of_samples.flat_map(|s| s.labels.keys()).map(String::as_str).collect();
        let unknown: Vec<_> = labels.iter().filter(|l| !LABELS.contains(l)).collect();
        assert!(unknown.is_empty(), "labels that nobody has judged: {unknown:?}");
        assert!(!text.contains(&key_id), "a label names a key: {text}");
        let mut scanner = d.secrets.scanner();
        scanner.look_into("metrics", text.as_bytes());
        scanner.finish();
    });
}

#[test]
fn a_forwarder_that_cannot_send_is_seen_to_be_behind_by_its_name() {
    scenario(async |d| {
        let receiver = Receiver::new(false).await;
        let configured = Configured::new(&[hook("audit", &receiver, "")]);
        receiver.refuse();
        let file = configured.path("forwarders.toml");
        let (_replica, address) = scraped(d, &[("KEYLEDGER_FORWARDERS", &file)]).await;
        let of = [("keyledger_forwarder_name", "audit")];
        loop {
            let all = samples(&metrics(&address).await);
            let entries = sum(&all, "keyledger_forwarder_lag_entries", &of);
            let seconds = sum(&all, "keyledger_forwarder_lag_duration_seconds", &of);
            if entries > Some(0.0) && seconds > Some(0.0) {
                break;
            }
        }
    });
}

#[test]
fn forwarders_of_the_same_name_are_told_apart_by_their_ledgers() {
    scenario(async |d| {
        // Nobody listens there.
        let variables = [("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://127.0.0.1:1")];
        let (replica, address) = scraped(d, &variables).await;
        let mut ledgers = vec![];
        for caller in [replica.admin(), replica.system_admin()] {
            let me = caller.call(WhoAmIRequest {}).await.unwrap();
            ledgers.push(me.ledger.unwrap().ledger_id);
        }
        loop {
            let all = samples(&metrics(&address).await);
            let is_behind = |ledger: &String| {
                let of = [("keyledger_forwarder_name", "otlp"), ("keyledger_ledger_id", ledger)];
                sum(&all, "keyledger_forwarder_lag_entries", &of) > Some(0.0)
                    && sum(&all, "keyledger_forwarder_lag_duration_seconds", &of) > Some(0.0)
            };
            if ledgers.iter().all(is_behind) {
                break;
            }
        }
    });
}

#[test]
fn the_endpoint_answers_one_path_and_speaks_open_metrics_to_whoever_asks_for_it() {
    scenario(async |d| {
        let (_replica, address) = scraped(d, &[]).await;
        let (head, _) = get(&address, "GET / HTTP/1.1\r\nhost: keyledger\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
        let (head, _) =
            get(&address, "POST /metrics HTTP/1.1\r\nhost: keyledger\r\ncontent-length: 0\r\n\r\n")
                .await;
        assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
        let accept = "accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
        let request = format!("GET /metrics HTTP/1.1\r\nhost: keyledger\r\n{accept}\r\n\r\n");
        let (head, body) = get(&address, &request).await;
        assert!(head.contains("content-type: application/openmetrics-text"), "{head}");
        assert!(body.contains("# TYPE keyledger_entries_appended counter\n"), "{body}");
        assert!(body.ends_with("# EOF\n"), "{body}");
    });
}

#[test]
fn metrics_leave_by_otlp_and_the_readme_lists_each_with_its_unit() {
    scenario(async |d| {
        let collector = Collector::start().await;
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str()),
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_LOGS_EXPORTER", "none"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "100"),
        ];
        let replica = d.replica_with_all(&variables).await;
        let made = replica.admin().call(user_key("alice@example.com")).await.unwrap();
        replica.admin().call(check(&made.token)).await.unwrap();
        let exported = loop {
            let export = collector.metrics().await.into_inner();
            let metrics = of(&export.resource_metrics);
            if metrics.iter().any(|m| m.name == "rpc.server.call.duration") {
                break metrics;
            }
        };
        let calls = exported.iter().find(|m| m.name == "rpc.server.call.duration").unwrap();
        let Some(Data::Histogram(calls)) = &calls.data else { panic!("{calls:?}") };
        let bounds = &calls.data_points[0].explicit_bounds;
        assert_eq!((bounds.first(), bounds.last()), (Some(&0.005), Some(&10.0)));
        for metric in &exported {
            let line = format!("| `{}` | `{}` |", metric.name, metric.unit);
            assert!(README.contains(&line), "the README lacks {line}");
        }
    });
}

fn of(resources: &[ResourceMetrics]) -> Vec<Metric> {
    let scopes = resources.iter().flat_map(|resource| &resource.scope_metrics);
    scopes.flat_map(|scope| scope.metrics.clone()).collect()
}
