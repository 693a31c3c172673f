//! One example of each format, always; and the real logs of other systems, where their folder is there.

use std::path::PathBuf;

use clap::ValueEnum;
use jiff::Timestamp;
use keyledger_proto::{Actor, NewEvent, actor, parse};

use super::{Format, Import, Source, expected};

/// One record of each format, written for this test.
const EXAMPLES: [(Format, &str); 12] = [
    (
        Format::Auditd,
        r#"type=USER_LOGIN msg=audit(1795330800.404:17): auid=1000 msg='acct="alice" addr=203.0.113.7 res=success'"#,
    ),
    (Format::Journald, r#"{"MESSAGE":"started","PRIORITY":"6","SYSLOG_IDENTIFIER":"systemd"}"#),
    (
        Format::Kubernetes,
        r#"{"auditID":"a1","verb":"get","user":{"username":"alice"},"requestURI":"/api"}"#,
    ),
    (
        Format::Cloudtrail,
        r#"{"Records":[{"eventID":"e1","eventName":"CreateUser","eventSource":"iam.amazonaws.com","userIdentity":{"type":"IAMUser","userName":"alice"}}]}"#,
    ),
    (
        Format::Gcp,
        r#"{"insertId":"i1","logName":"projects/p/logs/l","protoPayload":{"methodName":"buckets.list"}}"#,
    ),
    (Format::Azuread, r#"{"Id":"D1","ActivityDisplayName":"Add group","Result":"success"}"#),
    (Format::Github, r#"{"action":"repo.create","actor":"alice","org":"acme","repo":"acme/shop"}"#),
    (
        Format::Okta,
        r#"{"uuid":"u1","eventType":"user.session.start","actor":{"alternateId":"alice@example.com"}}"#,
    ),
    (
        Format::Vault,
        r#"{"type":"request","request":{"id":"r1","operation":"read","path":"kv/shop"}}"#,
    ),
    (Format::Teleport, r#"{"uid":"t1","event":"user.login","code":"T1000I","user":"alice"}"#),
    (
        Format::Ocsf,
        r#"{"class_name":"API Activity","activity_name":"Read","actor":{"user":{"name":"alice"}}}"#,
    ),
    (
        Format::Cloudevents,
        r#"{"specversion":"1.0","id":"1","type":"invoice.paid","source":"/shop"}"#,
    ),
];

/// The real logs, and how many records each holds: the 106 lines of auditd belong to 81 events.
const SAMPLES: [(Format, &str, u64); 14] = [
    (Format::Auditd, "auditd.log", 81),
    (Format::Journald, "journald.jsonl", 461),
    (Format::Kubernetes, "k8s-audit.jsonl", 27),
    (Format::Kubernetes, "k8s-audit-old.jsonl", 51),
    (Format::Cloudtrail, "cloudtrail.json", 196),
    (Format::Gcp, "gcp-logging.jsonl", 11),
    (Format::Azuread, "azuread-audit.jsonl", 4),
    (Format::Github, "github-audit.jsonl", 36),
    (Format::Okta, "okta.jsonl", 38),
    (Format::Vault, "vault-audit.jsonl", 108),
    (Format::Teleport, "teleport.jsonl", 165),
    (Format::Ocsf, "ocsf.jsonl", 34),
    (Format::Cloudevents, "cloudevents.jsonl", 25),
    (Format::Cloudevents, "cloudevents-invalid.jsonl", 6),
];

fn map(format: Format, file: &[u8]) -> Source {
    let import = Import { format, file: "-".into(), category: None, dry_run: false };
    import.map(file)
}

/// What the server would say to it.
fn check(event: &NewEvent) {
    let checked = parse::event(event.clone());
    assert!(checked.is_ok(), "{:?} in {event:?}", checked.err());
}

/// `None` where the folder isn't there.
fn folder() -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/samples");
    let folder = std::env::var_os("KEYLEDGER_SAMPLES").map_or(beside.into(), PathBuf::from);
    folder.is_dir().then_some(folder)
}

#[test]
fn an_example_of_each_format_becomes_an_event_that_the_ledger_takes() {
    let formats: Vec<Format> = EXAMPLES.iter().map(|(format, _)| *format).collect();
    assert_eq!(formats, Format::value_variants());
    for (format, example) in EXAMPLES {
        let source = map(format, example.as_bytes());
        assert_eq!((source.mapped.len(), source.report.unmapped), (1, 0), "{format:?}");
        let event = &source.mapped[0].event;
        check(event);
        assert_eq!(event.category, format.category());
        assert!(event.event_id.starts_with(format.name()));
        let again = map(format, example.as_bytes());
        assert_eq!(&again.mapped[0].event, event, "the same again");
    }
}

#[test]
fn every_real_record_becomes_an_event_and_every_invalid_one_is_told_why() {
    let Some(folder) = folder() else {
        println!("The folder of samples isn't there: only our own examples are checked.");
        return;
    };
    for (format, name, records) in SAMPLES {
        let source = map(format, &std::fs::read(folder.join(name)).unwrap());
        let report = &source.report;
        println!("{name}: {} of {} mapped", source.mapped.len(), report.read);
        assert_eq!(report.read, records, "{name}");
        let invalid = if name.contains("invalid") { report.read } else { 0 };
        assert_eq!(report.unmapped, invalid, "{name}: {:?}", report.named);
        source.mapped.iter().for_each(|m| check(&m.event));
    }
}

#[test]
fn three_real_records_of_each_format_say_what_a_person_reads_in_them() {
    let Some(folder) = folder() else {
        println!("The folder of samples isn't there: only our own examples are checked.");
        return;
    };
    for e in expected::all() {
        let source = map(e.format, &std::fs::read(folder.join(e.file)).unwrap());
        let at = format!("{} {}", e.file, e.place);
        let found = source.mapped.iter().find(|m| m.place == e.place).expect(&at);
        let event = &found.event;
        let actors = event.actor.iter().chain(&event.on_behalf_of);
        let who: Vec<String> = actors.map(name).collect();
        assert_eq!(who.join(" "), e.who, "{at}");
        assert_eq!(
            (event.action.as_str(), event.resource.as_str()),
            (e.action, e.resource),
            "{at}"
        );
        assert_eq!(event.outcome(), e.outcome, "{at}");
        assert_eq!(event.client.as_ref().unwrap().address, e.address, "{at}");
        let time =
            event.occur_time.map(|t| Timestamp::new(t.seconds, t.nanos).unwrap().to_string());
        assert_eq!(time.unwrap_or_default(), e.time, "{at}");
    }
}

fn name(actor: &Actor) -> String {
    match actor.actor.as_ref().unwrap() {
        actor::Actor::User(name) => format!("user:{name}"),
        actor::Actor::Service(name) => format!("service:{name}"),
    }
}
