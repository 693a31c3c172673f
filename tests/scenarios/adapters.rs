//! Logs of other systems, imported with the program: each record once, and found where it was put.

use std::path::PathBuf;

use keyledger_proto::entry::Outcome;
use keyledger_proto::*;

use crate::harness::*;
use crate::offline::connection;

/// The same record twice, one without a time, and one that is no event.
const OKTA: &str = r#"{"uuid":"u1","eventType":"user.account.lock","published":"2026-09-22T07:00:00Z","actor":{"alternateId":"alice@example.com","type":"User"},"outcome":{"result":"DENY","reason":"too many tries"},"client":{"ipAddress":"203.0.113.7"},"target":[{"type":"User","alternateId":"bob@example.com"}]}
{"uuid":"u1","eventType":"user.account.lock","published":"2026-09-22T07:00:00Z","actor":{"alternateId":"alice@example.com","type":"User"},"outcome":{"result":"DENY","reason":"too many tries"},"client":{"ipAddress":"203.0.113.7"},"target":[{"type":"User","alternateId":"bob@example.com"}]}
{"eventType":"system.api_token.create","actor":{"alternateId":"carol@example.com"}}
{"uuid":"u3"}
"#;
const AUDITD: &str = r#"type=SYSCALL msg=audit(1790060400.404:18): syscall=59 success=yes auid=1000 exe="/bin/cat"
type=USER_LOGIN msg=audit(1790060401.000:19): auid=4294967295 msg='acct="dave" addr=203.0.113.8 res=failed'
type=PATH msg=audit(1790060400.404:18): item=0 name="/etc/shadow" nametype=NORMAL
"#;

/// Runs an import; its exit code and last line.
async fn import(d: &Deployment, replica: &Replica, format: &str, text: &str) -> (i32, String) {
    let file = d.key_dir().parent().expect("it lies in the scenario's folder").join(format);
    std::fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    let words = ["audit", "import", "--format", format, "--file", &file].map(String::from);
    let output = d.run(words.into_iter().chain(connection(d, replica))).await;
    let last = output.text.lines().last().unwrap_or_default().to_string();
    (output.status.code().expect("it ends by itself"), last)
}

async fn events(replica: &Replica, category: &str) -> Vec<AuditEvent> {
    let request = ListEventsRequest { category: category.into(), ..Default::default() };
    replica.admin().call(request).await.unwrap().events
}

#[test]
fn logs_of_two_systems_go_in_once_however_often_they_are_imported() {
    scenario(async |d| {
        let replica = d.replica().await;
        let report = import(d, &replica, "okta", OKTA).await;
        assert_eq!(report.1, "4 read: 2 recorded, 1 repeated, 0 refused, 1 unmapped");
        assert_eq!(report.0, 10, "something didn't go in");
        let report = import(d, &replica, "auditd", AUDITD).await;
        assert_eq!(report, (0, "2 read: 2 recorded, 0 repeated, 0 refused, 0 unmapped".into()));
        for (format, text, again) in [
            ("okta", OKTA, "4 read: 0 recorded, 3 repeated, 0 refused, 1 unmapped"),
            ("auditd", AUDITD, "2 read: 0 recorded, 2 repeated, 0 refused, 0 unmapped"),
        ] {
            assert_eq!(import(d, &replica, format, text).await.1, again);
        }

        let okta = events(&replica, "identity/okta").await;
        assert_eq!(okta.len(), 2);
        let lock = okta.iter().find(|e| e.action == "user.account.lock").unwrap();
        let alice = actor::Actor::User("alice@example.com".into());
        assert_eq!(lock.actor.as_ref().unwrap().actor, Some(alice));
        assert_eq!((lock.action.as_str(), lock.resource.as_str()), ("user.account.lock", "users"));
        assert_eq!((lock.outcome(), lock.reason.as_str()), (Outcome::Denied, "too many tries"));
        assert_eq!(lock.address, "203.0.113.7");
        let original = lock.attributes.iter().find(|a| a.name == "original").unwrap();
        let text = event_attribute::Value::Text(OKTA.lines().next().unwrap().into());
        assert_eq!((original.personal, original.value.as_ref()), (true, Some(&text)));
        let body = format!("{:?}", lock.body);
        assert!(!body.contains("alice") && !body.contains("bob"), "{body}");

        let auditd = events(&replica, "os/audit").await;
        assert_eq!(auditd.len(), 2);
        let find = |action: &str| auditd.iter().find(|e| e.action == action).unwrap();
        let (login, call) = (find("auditd.user_login"), find("auditd.syscall.59"));
        assert_eq!(
            (login.action.as_str(), login.outcome()),
            ("auditd.user_login", Outcome::Failure)
        );
        assert_eq!(call.resource, "/etc/shadow");
    });
}

/// Real logs, and how many records each holds; no two of a file are the same.
const SAMPLES: [(&str, &str, u32); 13] = [
    ("auditd", "auditd.log", 81),
    ("journald", "journald.jsonl", 461),
    ("kubernetes", "k8s-audit.jsonl", 27),
    ("kubernetes", "k8s-audit-old.jsonl", 51),
    ("cloudtrail", "cloudtrail.json", 196),
    ("gcp", "gcp-logging.jsonl", 11),
    ("azuread", "azuread-audit.jsonl", 4),
    ("github", "github-audit.jsonl", 36),
    ("okta", "okta.jsonl", 38),
    ("vault", "vault-audit.jsonl", 108),
    ("teleport", "teleport.jsonl", 165),
    ("ocsf", "ocsf.jsonl", 34),
    ("cloudevents", "cloudevents.jsonl", 25),
];

#[test]
fn real_logs_go_in_through_a_real_server_where_their_folder_is_there() {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/samples");
    let folder = std::env::var_os("KEYLEDGER_SAMPLES").map_or(beside.into(), PathBuf::from);
    if !folder.is_dir() {
        println!("The folder of samples isn't there: only our own examples are imported.");
        return;
    }
    scenario(async |d| {
        let replica = d.replica().await;
        for (format, name, records) in SAMPLES {
            let text = std::fs::read_to_string(folder.join(name)).unwrap();
            let (code, report) = import(d, &replica, format, &text).await;
            let all =
                format!("{records} read: {records} recorded, 0 repeated, 0 refused, 0 unmapped");
            assert_eq!((code, report), (0, all), "{name}");
            let (code, report) = import(d, &replica, format, &text).await;
            let all =
                format!("{records} read: 0 recorded, {records} repeated, 0 refused, 0 unmapped");
            assert_eq!((code, report), (0, all), "{name} again");
        }
        let invalid = std::fs::read_to_string(folder.join("cloudevents-invalid.jsonl")).unwrap();
        let report = import(d, &replica, "cloudevents", &invalid).await;
        let none = "6 read: 0 recorded, 0 repeated, 0 refused, 6 unmapped";
        assert_eq!(report, (10, none.into()));
    });
}
