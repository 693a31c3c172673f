//! Syslog and files.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use keyledger_proto::entry::Severity;
use keyledger_proto::*;
use serde_json::Value;

use super::receiver::{SyslogServer, fixture};
use super::{Configured, forwarder, only, position, record, resource, until};
use crate::harness::*;

#[test]
fn syslog_over_tls_is_read_back_by_another_parser() {
    scenario(async |d| {
        let mut server = SyslogServer::new(true).await;
        let target = format!(
            "syslog = {{ address = \"localhost:{}\", ca_file = \"{}\", hostname = \"keys-1\", allow_private = true }}",
            server.port,
            fixture("authority.pem")
        );
        let lines = format!("{}\n{target}", only("login"));
        let replica = Configured::new(&[forwarder("siem", &lines)]).replica(d).await;
        let recorded = record(&replica.admin(), "login", 0..120).await;
        // Texts may hold line breaks and all that ends a message elsewhere; some are long.
        let text = event_attribute::Value::Text("<13>1 - - -\n\"]\\ [x \u{202e}€".repeat(600));
        let nasty = NewEvent {
            action: "a\"]\\b".into(),
            severity: Severity::Critical as i32,
            attributes: vec![EventAttribute {
                name: "note".into(),
                value: Some(text),
                personal: false,
            }],
            ..login("alice@example.com", "login")
        };
        let request = RecordEventsRequest { events: vec![nasty], atomic: false };
        let outcome = replica.admin().call(request).await.unwrap().outcomes.remove(0);
        assert_eq!(outcome.refusal, None);
        for recorded in recorded {
            let message = server.next().await;
            let event: Value = serde_json::from_str(&message.text).expect("the message is JSON");
            assert_eq!(resource(&event), recorded);
            assert_eq!(message.data["position"], event["position"].as_str().unwrap());
            assert_eq!(message.data["category"], "login");
            assert_eq!(message.data["leaf"].len(), 64);
            assert_eq!((message.priority, &*message.msgid), (13 * 8 + 6, "event.recorded"));
            assert_eq!(message.hostname, "keys-1");
        }
        let cut = server.next().await;
        assert_eq!(cut.data["position"], outcome.position.unwrap().to_string());
        assert_eq!((cut.data["cut"].as_str(), cut.priority), ("true", 13 * 8 + 2));
        assert!(cut.text.ends_with('…') && cut.text.len() > 7_000);
        assert!(!cut.text.contains(['\n', '\u{202e}']), "controls are escaped");
        let done = until(&replica.admin(), "siem", |f| f.lag_entries < 100).await;
        assert_eq!(done.kind(), ForwarderKind::Syslog);
    });
}

#[test]
fn on_one_machine_syslog_goes_without_tls_and_a_connection_that_breaks_is_made_again() {
    scenario(async |d| {
        let mut server = SyslogServer::new(false).await;
        let address = format!("127.0.0.1:{}", server.port);
        let target =
            format!("syslog = {{ address = \"{address}\", tls = false, allow_private = true }}");
        let lines = format!("{}\n{target}", only("login"));
        server.breaks(true);
        let replica = Configured::new(&[forwarder("siem", &lines)]).replica(d).await;
        let recorded = record(&replica.admin(), "login", 0..30).await;
        let failing = until(&replica.admin(), "siem", |f| f.consecutive_failures >= 2).await;
        assert!(failing.last_error.starts_with("the connection broke"), "{failing:?}");
        server.breaks(false);
        for recorded in recorded {
            let event: Value = serde_json::from_str(&server.next().await.text).unwrap();
            assert_eq!(resource(&event), recorded);
        }
    });
}

#[test]
fn a_file_has_every_event_in_order_also_when_its_server_was_killed_in_the_middle() {
    scenario(async |d| {
        let target = format!("{}\nfile = {{ path = \"events.jsonl\" }}", only("login"));
        let configured = Configured::new(&[forwarder("copy", &target)]);
        let file = configured.path("events.jsonl");
        let plain = d.replica().await;
        let mut recorded = vec![];
        for round in 0..4 {
            let forwarding = configured.replica(d).await;
            let length = || fs::metadata(&file).map_or(0, |m| m.len());
            let (admin, before) = (plain.admin(), length());
            let writing = record(&admin, "login", round * 200..(round + 1) * 200);
            // It dies at some moment while events are recorded and sent.
            let killed = async {
                until(&plain.admin(), "copy", |_| length() > before).await;
                forwarding.kill().await;
            };
            recorded.extend(tokio::join!(writing, killed).0);
            if round == 2 {
                let mut file = fs::OpenOptions::new().append(true).open(&file).unwrap();
                file.write_all(b"{\"position\":\"half a li").unwrap();
            }
        }
        let last = configured.replica(d).await;
        recorded.extend(record(&last.admin(), "login", 1_000..1_001).await);
        until(&last.admin(), "copy", |_| {
            fs::read_to_string(&file).is_ok_and(|text| text.contains("\"login/1000\""))
        })
        .await;
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.ends_with('\n'));
        let (mut seen, mut order) = (BTreeSet::new(), vec![]);
        for line in text.lines() {
            let event: Value = serde_json::from_str(line).expect("each line is a whole event");
            assert_eq!(event["category"], "login");
            if seen.insert(position(&event)) {
                order.push(resource(&event).to_string());
            }
        }
        assert_eq!(order, recorded);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    });
}

#[test]
fn a_file_that_was_rotated_away_is_begun_anew() {
    scenario(async |d| {
        let target = format!("{}\nfile = {{ path = \"events.jsonl\" }}", only("login"));
        let configured = Configured::new(&[forwarder("copy", &target)]);
        let (file, old) = (configured.path("events.jsonl"), configured.path("events.jsonl.1"));
        let replica = configured.replica(d).await;
        let lines =
            |file: &str| fs::read_to_string(file).map_or(0, |text| text.matches('\n').count());
        record(&replica.admin(), "login", 0..10).await;
        until(&replica.admin(), "copy", |_| lines(&file) == 10).await;
        fs::rename(&file, &old).unwrap();
        record(&replica.admin(), "login", 10..30).await;
        until(&replica.admin(), "copy", |_| lines(&file) == 20).await;
        assert_eq!(lines(&old), 10);
    });
}
