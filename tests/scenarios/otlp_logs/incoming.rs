//! Log records of other services, as a collector sends them: each an event of the ledger, recorded once.

use keyledger_proto::entry::{DecisionReason, Outcome, Severity};
use keyledger_proto::event_attribute::Value;
use keyledger_proto::*;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::harness::*;

/// A collector with a key, which sends what it has compressed.
struct Sender {
    client: LogsServiceClient<Channel>,
    token: String,
}

impl Sender {
    fn new(replica: &Replica, token: &str) -> Sender {
        let endpoint = Endpoint::try_from(format!("http://{}", replica.address)).unwrap();
        let client = LogsServiceClient::new(endpoint.connect_lazy());
        let client = client.send_compressed(CompressionEncoding::Gzip);
        Sender { client, token: token.into() }
    }

    async fn send(
        &self,
        export: ExportLogsServiceRequest,
    ) -> Result<Option<ExportLogsPartialSuccess>, Status> {
        let mut request = Request::new(export);
        let bearer = format!("Bearer {}", self.token).parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        let answer = self.client.clone().export(request).await;
        answer.map(|answer| answer.into_inner().partial_success)
    }
}

/// A key that may write some categories.
async fn writer(replica: &Replica, resource: &str) -> Sender {
    let grants = vec![grant("audit.write", resource)];
    let made = replica.admin().call(service_key("collector", grants)).await.unwrap();
    Sender::new(replica, &made.token)
}

fn of_category(category: &str) -> ListEventsRequest {
    ListEventsRequest { category: category.into(), ..Default::default() }
}

async fn listed(replica: &Replica, category: &str) -> Vec<AuditEvent> {
    replica.admin().call(of_category(category)).await.unwrap().events
}

fn body(text: &str) -> Option<AnyValue> {
    Some(AnyValue { value: Some(any_value::Value::StringValue(text.into())) })
}

#[test]
fn a_log_record_becomes_an_event_with_all_that_it_says_and_what_is_not_named_is_sealed() {
    scenario(async |d| {
        let replica = d.replica().await;
        for personal in ["alice@example.com", "carol asked for it", "203.0.113.9", "carol@home"] {
            d.secrets.text("what a log record says of a person", personal);
        }
        let record = LogRecord {
            severity_number: SeverityNumber::Warn as i32,
            body: body("carol asked for it"),
            trace_id: vec![0x0a; 16],
            span_id: vec![0x0b; 8],
            ..log_record(
                "invoice.export",
                &[
                    ("keyledger.category", "user-activity"),
                    ("keyledger.resource", "invoices/2026"),
                    ("keyledger.outcome", "denied"),
                    ("enduser.id", "alice@example.com"),
                    ("client.address", "203.0.113.9"),
                    ("log.record.uid", "01JD"),
                    ("mail", "carol@home"),
                ],
            )
        };
        let export = export_of(&[("service.name", "portal"), ("host.name", "web-1")], vec![record]);
        let sender = writer(&replica, "logs/**").await;
        assert_eq!(sender.send(export).await.unwrap(), None);
        let filter = Some(EventFilter { trace_id: "0a".repeat(16), ..Default::default() });
        let found = ListEventsRequest { filter, ..Default::default() };
        let found = replica.admin().call(found).await.unwrap().events;
        let [event] = &found[..] else { panic!("found by its trace: {found:?}") };
        let actor = event.actor.as_ref().and_then(|a| a.actor.clone());
        assert_eq!(actor, Some(actor::Actor::User("alice@example.com".into())));
        assert_eq!((&*event.action, &*event.resource), ("invoice.export", "invoices/2026"));
        assert_eq!(&*event.category, "user-activity");
        assert_eq!((event.outcome(), event.severity()), (Outcome::Denied, Severity::Medium));
        assert_eq!((&*event.address, event.span_id.clone()), ("203.0.113.9", "0b".repeat(8)));
        let time = event.occur_time.unwrap();
        assert_eq!((time.seconds, time.nanos), (1_790_000_000, 5_000));
        let mut attributes: Vec<(&str, &Value, bool)> = event
            .attributes
            .iter()
            .map(|a| (a.name.as_str(), a.value.as_ref().unwrap(), a.personal))
            .collect();
        attributes.sort_by_key(|(name, ..)| *name);
        let text = |text: &str| Value::Text(text.into());
        assert_eq!(
            attributes,
            [
                ("body", &text("carol asked for it"), true),
                ("host.name", &text("web-1"), true),
                ("mail", &text("carol@home"), true),
                ("service.name", &text("portal"), false),
            ]
        );
    });
}

#[test]
fn a_record_without_more_than_its_service_is_recorded_as_that_services() {
    scenario(async |d| {
        let replica = d.replica().await;
        let export = export_of(&[("service.name", "cron")], vec![log_record("", &[])]);
        let sender = writer(&replica, "logs/otlp").await;
        assert_eq!(sender.send(export).await.unwrap(), None);
        let events = listed(&replica, "otlp").await;
        let actor = events[0].actor.as_ref().and_then(|a| a.actor.clone());
        assert_eq!(actor, Some(actor::Actor::Service("cron".into())));
        assert_eq!((&*events[0].action, events[0].attributes.len()), ("log", 0));
    });
}

#[test]
fn a_collector_that_repeats_itself_records_nothing_twice() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let made = service_key("collector", vec![grant("audit.write", "logs/**")]);
        let token = a.admin().call(made).await.unwrap().token;
        let uid = [("log.record.uid", "4711"), ("user.id", "alice@example.com")];
        let records = vec![
            log_record("login", &uid),
            log_record("login", &[("user.id", "alice@example.com")]),
            log_record("login", &[("user.id", "bob@example.com")]),
        ];
        let export = export_of(&[("service.name", "portal")], records);
        for replica in [&a, &a, &b] {
            let sender = Sender::new(replica, &token);
            assert_eq!(sender.send(export.clone()).await.unwrap(), None);
        }
        assert_eq!(listed(&a, "otlp").await.len(), 3);
        // Another record with the same id is a mistake, and told.
        let other = export_of(&[("service.name", "portal")], vec![log_record("logout", &uid)]);
        let partial = Sender::new(&a, &token).send(other).await.unwrap().unwrap();
        assert_eq!(partial.rejected_log_records, 1);
        assert!(partial.error_message.contains("ERROR_REASON_REQUEST_ID_REUSED"));
    });
}

#[test]
fn records_that_say_the_same_are_each_recorded_and_a_repeated_export_records_none_of_them_again() {
    scenario(async |d| {
        let replica = d.replica().await;
        let sender = writer(&replica, "logs/**").await;
        let records = vec![log_record("tick", &[]); 3];
        let export = export_of(&[("service.name", "cron")], records);
        for _ in 0..2 {
            assert_eq!(sender.send(export.clone()).await.unwrap(), None);
        }
        assert_eq!(listed(&replica, "otlp").await.len(), 3);
    });
}

#[test]
fn our_own_log_records_are_not_taken_back_and_leave_nothing_that_could_come_back() {
    scenario(async |d| {
        let replica = d.replica().await;
        let sender = writer(&replica, "logs/**").await;
        assert_eq!(
            sender.send(export_of(&[("service.name", "cron")], vec![])).await.unwrap(),
            None
        );
        let ours = |count| {
            let records = vec![log_record("keyledger.key.used", &[]); count];
            let mut export = export_of(&[("service.name", "keyledger")], records);
            let scope = InstrumentationScope { name: "keyledger".into(), ..Default::default() };
            export.resource_logs[0].scope_logs[0].scope = Some(scope);
            export
        };
        let mark = d.mark().await;
        let partial = sender.send(ours(2)).await.unwrap().unwrap();
        assert_eq!(partial.rejected_log_records, 2);
        let why = "; number 1: scope must not be Keyledger's own";
        assert!(partial.error_message.contains(why), "{}", partial.error_message);
        assert!(d.since(&mark).await.values().all(Vec::is_empty), "it leaves nothing");
        let mut mixed = export_of(&[("service.name", "cron")], vec![log_record("tick", &[])]);
        mixed.resource_logs.splice(0..0, ours(1).resource_logs);
        let partial = sender.send(mixed).await.unwrap().unwrap();
        assert_eq!(partial.rejected_log_records, 1);
        assert_eq!(listed(&replica, "otlp").await.len(), 1, "that of another is recorded");
    });
}

#[test]
fn a_large_resource_around_very_many_records_is_cut_and_each_of_them_is_recorded() {
    scenario(async |d| {
        let replica = d.replica().await;
        let sender = writer(&replica, "logs/**").await;
        let large = "x".repeat(900_000);
        let resource = [("service.name", "cron"), ("large", large.as_str())];
        let export = export_of(&resource, vec![log_record("tick", &[]); 300]);
        assert_eq!(sender.send(export).await.unwrap(), None);
        let events = listed(&replica, "otlp").await;
        let attributes = &events[0].attributes;
        let large = attributes.iter().find(|a| a.name == "large").and_then(|a| a.value.clone());
        let Some(Value::Text(large)) = large else { panic!("it is text: {large:?}") };
        assert!(large.ends_with("x… [cut]") && large.len() <= 16_384, "{}", large.len());
    });
}

#[test]
fn what_can_not_be_recorded_is_counted_and_named_and_the_others_are_recorded() {
    scenario(async |d| {
        let replica = d.replica().await;
        let sender = writer(&replica, "logs/security/*").await;
        let person = ("user.id", "alice@example.com");
        let of = |category: &'static str| ("keyledger.category", category);
        let mut records: Vec<LogRecord> = (0..120)
            .map(|n| {
                let n = n.to_string();
                log_record("login", &[person, of("security/login"), ("n", &n)])
            })
            .collect();
        records[1] = log_record("login", &[of("security/login")]);
        records[110] = log_record("login", &[person, of("payroll")]);
        records[111] = log_record("two\nlines", &[person, of("security/login")]);
        let partial = sender.send(export_of(&[], records)).await.unwrap().unwrap();
        assert_eq!(partial.rejected_log_records, 3);
        let text = partial.error_message;
        assert!(text.starts_with("3 of 120 log records are not recorded"), "{text}");
        assert!(text.contains("; number 2: actor must name a user or a service"), "{text}");
        assert!(text.contains("; number 111: the key lacks audit.write on logs/payroll"), "{text}");
        assert!(text.contains("; number 112: action "), "{text}");
        let recorded = ListEventsRequest { page_size: 1_000, ..of_category("security/login") };
        let recorded = replica.admin().call(recorded).await.unwrap().events;
        assert_eq!(recorded.len(), 117);
        assert!(listed(&replica, "payroll").await.is_empty());
    });
}

#[test]
fn a_call_that_can_not_be_taken_is_refused_as_a_whole_and_leaves_a_refused_use() {
    scenario(async |d| {
        let replica = d.replica().await;
        let one = || export_of(&[("service.name", "cron")], vec![log_record("tick", &[])]);
        let wrong = Sender::new(&replica, "klk_4711").send(one()).await;
        refused(wrong).with(Code::Unauthenticated, ErrorReason::CredentialInvalid);
        let weak = replica.admin().call(service_key("weak", vec![])).await.unwrap();
        let mark = d.mark().await;
        let denied = Sender::new(&replica, &weak.token).send(one()).await;
        refused(denied).with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        let (ledger, left) = d.since_in_one(&mark).await;
        assert_eq!((ledger, left.len()), (1, 1));
        assert_eq!(left[0].as_use().method, "LogsService/Export");
        assert_eq!(verdict(left[0].as_use()).1, DecisionReason::NoGrant);

        let sender = writer(&replica, "logs/**").await;
        let many = export_of(&[], vec![LogRecord::default(); 4_097]);
        let many = sender.send(many).await;
        refused(many).with(Code::InvalidArgument, ErrorReason::InvalidField);
        // Small on its way, and larger than a message may be once it is inflated.
        let long = LogRecord { body: body(&"x".repeat(2 << 20)), ..LogRecord::default() };
        let long = sender.send(export_of(&[], vec![long])).await;
        refused(long).with(Code::ResourceExhausted, ErrorReason::MessageTooLarge);
        let mark = d.mark().await;
        let none = ExportLogsServiceRequest::default();
        assert_eq!(sender.send(none).await.unwrap(), None, "nothing to record is no mistake");
        assert_eq!(d.since_in_one(&mark).await.1.len(), 1, "and leaves its use");
    });
}
