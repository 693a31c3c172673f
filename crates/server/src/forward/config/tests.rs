//! What a configuration may hold, and what is said of one that is wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A folder with a good secret, one that everybody can read, and one that is no secret.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder =
            std::env::temp_dir().join(format!("keyledger-config-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        for (file, text, mode) in [
            ("good", SECRET, 0o600),
            ("open", SECRET, 0o644),
            ("bad", "secret", 0o600),
            ("headers", "authorization: Bearer x\n", 0o600),
        ] {
            fs::write(folder.join(file), text).unwrap();
            fs::set_permissions(folder.join(file), fs::Permissions::from_mode(mode)).unwrap();
        }
        Folder(folder)
    }

    fn parse(&self, text: &str) -> Result<Vec<Forwarder>, String> {
        parse(text, &self.0).map_err(|e| e.to_string())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A forwarder with some more lines.
fn siem(lines: &str) -> String {
    format!("[[forwarder]]\nname = \"siem\"\nledger = \"default\"\nstart = \"now\"\n{lines}\n")
}

/// A notice with some more lines.
fn notice(lines: &str) -> String {
    let webhook = "webhook = { url = \"https://chat.example.com/\", secret_file = \"good\" }";
    format!(
        "[[notice]]\nname = \"team\"\nledger = \"default\"\nstart = \"now\"\n{lines}\n{webhook}\n"
    )
}

const TO_FILE: &str = "file = { path = \"events.jsonl\" }";

#[test]
fn a_configuration_is_read_with_all_that_may_stand_in_it() {
    let folder = Folder::new("good");
    let text = r#"
        [[forwarder]]
        name = "siem"
        ledger = "default"
        start = "beginning"
        lease_seconds = 5
        retry_initial_ms = 20
        retry_max_ms = 40
        timeout_ms = 500
        [forwarder.filter]
        categories = ["security/login", "keyledger/use"]
        min_severity = "medium"
        outcome = "denied"
        action = "user.session.start"
        resource_prefix = "portal/"
        [forwarder.webhook]
        url = "http://localhost:8080/hook?tenant=1"
        secret_file = "good"
        allow_private = true

        [[forwarder]]
        name = "copy"
        ledger = "default"
        start = "now"
        file = { path = "events.jsonl" }

        [[forwarder]]
        name = "logs-2"
        ledger = "default"
        start = "now"
        syslog = { address = "[::1]:6514", tls = false, allow_private = true, hostname = "keys-1" }

        [[forwarder]]
        name = "otel"
        ledger = "default"
        start = "now"
        otlp = { endpoint = "https://[::1]:4317", headers_file = "headers", compression = "gzip", allow_private = true }
    "#;
    let [siem, copy, logs, otel] = &folder.parse(text).unwrap()[..] else {
        panic!("four are expected")
    };
    assert_eq!(otel.target.kind(), ForwarderKind::Otlp);
    assert!(siem.from_beginning && !copy.from_beginning);
    assert_eq!(siem.categories, ["keyledger/use", "security/login"]);
    assert_eq!(siem.filter.min_severity, Some(keyledger_ledger::body::Severity::Medium));
    assert_eq!(siem.filter.outcome, Some(keyledger_ledger::body::Outcome::Denied));
    assert_eq!(siem.pace.retry_max, Duration::from_millis(40));
    let Target::Webhook(webhook) = &siem.target else { panic!("a webhook is expected") };
    assert_eq!((&*webhook.authority, &*webhook.path), ("localhost:8080", "/hook?tenant=1"));
    assert_eq!((&*webhook.destination.host, webhook.destination.port), ("localhost", 8080));
    assert!(webhook.destination.tls.is_none());
    let Target::Syslog(syslog) = &logs.target else { panic!("syslog is expected") };
    assert_eq!((&*syslog.destination.host, syslog.destination.port), ("::1", 6514));
    assert_eq!(copy.pace.lease, Duration::from_secs(30));
    assert!(folder.parse("").unwrap().is_empty());
}

#[test]
fn a_notice_is_about_all_kinds_unless_it_says_otherwise() {
    let folder = Folder::new("notices");
    let of_team = notice("owner = { service = \"billing\" }\nlabels = { team = \"b\" }");
    let parsed = folder.parse(&(siem(TO_FILE) + &of_team)).unwrap();
    let [siem, team] = &parsed[..] else { panic!("two are expected") };
    assert!(siem.notice.is_none());
    let notice = team.notice.as_ref().expect("it is a notice");
    assert_eq!((notice.kinds.len(), notice.labels.len()), (4, 1));
    assert!(team.filter.owner.is_some());
    assert_eq!(team.categories, ["keyledger/lifecycle", "keyledger/anomaly"]);
}

#[test]
fn what_is_wrong_is_said_with_the_names_of_forwarder_and_field() {
    let folder = Folder::new("bad");
    let webhook = |rest: &str| siem(&format!("webhook = {{ {rest} }}"));
    let syslog = |rest: &str| siem(&format!("syslog = {{ {rest} }}"));
    let otlp = |rest: &str| siem(&format!("otlp = {{ {rest} }}"));
    let collector = "endpoint = \"https://otel.example.com\"";
    let good_url = "url = \"https://siem.example.com/\"";
    let twice = siem(TO_FILE) + &siem(TO_FILE);
    let same_file = siem(TO_FILE) + &siem(TO_FILE).replace("siem", "other");
    let table: Vec<(String, &str)> = vec![
        ("forwarder = 1".into(), "forwarder must be written as [[forwarder]]"),
        ("forwarders = []".into(), "forwarders is no field that is known here"),
        ("notice = {}".into(), "notice must be written as [[notice]]"),
        (notice("kinds = [\"key.created\"]"), "notice team: kinds must be some of anomaly.raised"),
        (notice("labels = { a = 1 }"), "notice team: labels must be a table of 1 to 8 texts"),
        (notice("owner = {}"), "notice team: owner.user or service: exactly one"),
        (notice("owner = { user = \"\" }"), "notice team: owner.user must be a text"),
        (notice("filter = {}"), "notice team: filter is no field"),
        (
            siem(TO_FILE).replace("forwarder", "notice"),
            "notice siem: webhook: must be given: notices go nowhere else",
        ),
        ("[[forwarder]]".into(), "forwarder number 1: name is missing"),
        (
            siem(TO_FILE).replace("siem", "The SIEM"),
            "forwarder number 1: name must have 1 to 64 bytes of a-z 0-9 -",
        ),
        (siem(TO_FILE).replace("ledger", "legder"), "forwarder siem: ledger is missing"),
        (siem(TO_FILE).replace("now", "then"), "forwarder siem: start must be"),
        (twice, "forwarder siem: name is that of an earlier forwarder too"),
        (same_file, "forwarder other: file.path is that of an earlier forwarder too"),
        (siem(&format!("{TO_FILE}\nkind = \"file\"")), "forwarder siem: kind is no field"),
        (siem(""), "forwarder siem: webhook, syslog, file or otlp: exactly one"),
        (
            siem(&format!("{TO_FILE}\nsyslog = {{ address = \"a:1\" }}")),
            "forwarder siem: webhook, syslog, file or otlp: exactly one",
        ),
        (siem("file = \"x\""), "forwarder siem: file must be a table"),
        (siem("file = { path = \"a/b\" }"), "forwarder siem: file.path must be a file in a folder"),
        (siem("file = { path = \"x\", mode = 1 }"), "forwarder siem: file.mode is no field"),
        (
            siem(&format!("{TO_FILE}\nlease_seconds = 0")),
            "forwarder siem: lease_seconds must be a whole number from 1 to 600",
        ),
        (
            siem(&format!("{TO_FILE}\nretry_max_ms = 300001")),
            "forwarder siem: retry_max_ms must be a whole number from 10 to 300000",
        ),
        (
            siem(&format!("{TO_FILE}\nfilter = {{ categories = [] }}")),
            "forwarder siem: filter.categories must be a list of 1 to 64 different texts",
        ),
        (
            siem(&format!("{TO_FILE}\nfilter = {{ categories = [\"a b\"] }}")),
            "forwarder siem: filter.categories must hold categories",
        ),
        (
            siem(&format!("{TO_FILE}\nfilter = {{ min_severity = \"bad\" }}")),
            "forwarder siem: filter.min_severity must be one of informational, low, medium, high, critical, fatal",
        ),
        (
            siem(&format!("{TO_FILE}\nfilter = {{ action = \"a\\nb\" }}")),
            "forwarder siem: filter.action ",
        ),
        (
            siem(&format!("{TO_FILE}\nfilter = {{ actor = \"alice\" }}")),
            "forwarder siem: filter.actor is no field that is known here",
        ),
        (webhook("secret_file = \"good\""), "forwarder siem: webhook.url is missing"),
        (webhook(good_url), "forwarder siem: webhook.secret_file is missing"),
        (
            webhook(&format!("{good_url}, secret_file = \"none\"")),
            "forwarder siem: webhook.secret_file: ",
        ),
        (webhook(&format!("{good_url}, secret_file = \"open\"")), "is open to everybody"),
        (webhook(&format!("{good_url}, secret_file = \"bad\"")), "must hold secrets of the form"),
        (
            webhook(&format!("{good_url}, secret_file = \"good\", ca_file = \"good\"")),
            "forwarder siem: webhook.ca_file: ",
        ),
        (
            webhook(&format!("{good_url}, secret_file = \"good\", allow_private = 1")),
            "forwarder siem: webhook.allow_private must be true or false",
        ),
        (
            webhook("url = \"http://127.0.0.1/\", secret_file = \"good\""),
            "forwarder siem: webhook.url must begin with https:// without allow_private",
        ),
        (
            webhook("url = \"ftp://a/\", secret_file = \"good\""),
            "forwarder siem: webhook.url must begin with https://",
        ),
        (
            webhook("url = \"https://a:b@c/\", secret_file = \"good\""),
            "forwarder siem: webhook.url must hold no user or password",
        ),
        (
            webhook("url = \"https://a/#b\", secret_file = \"good\""),
            "forwarder siem: webhook.url must have no fragment",
        ),
        (otlp(""), "forwarder siem: otlp.endpoint is missing"),
        (
            otlp("endpoint = \"http://127.0.0.1:4317\""),
            "forwarder siem: otlp.endpoint must begin with https:// without allow_private",
        ),
        (
            otlp("endpoint = \"https://otel.example.com/v1/logs\""),
            "forwarder siem: otlp.endpoint must have no path: this is OTLP over gRPC",
        ),
        (
            otlp(&format!("{collector}, compression = \"zstd\"")),
            "forwarder siem: otlp.compression must be \"gzip\" or \"none\"",
        ),
        (
            otlp(&format!("{collector}, headers_file = \"bad\"")),
            "must hold headers of the form `name: value`",
        ),
        (otlp(&format!("{collector}, headers_file = \"open\"")), "is open to everybody"),
        (otlp(&format!("{collector}, ca = \"x\"")), "forwarder siem: otlp.ca is no field"),
        (
            syslog("address = \"logs.example.com\""),
            "forwarder siem: syslog.address must be a host and a port",
        ),
        (
            syslog("address = \"127.0.0.1:514\", tls = false"),
            "forwarder siem: syslog.tls must not be false without allow_private",
        ),
        (
            syslog("address = \"a:1\", hostname = \"two words\""),
            "forwarder siem: syslog.hostname must be visible ASCII",
        ),
    ];
    for (text, expected) in table {
        let why = folder.parse(&text).err().unwrap_or_else(|| panic!("taken: {text}"));
        assert!(why.contains(expected), "{text}\n{why}\n{expected}");
    }
    let many: String = (0..33).map(|n| siem(TO_FILE).replace("siem", &format!("f-{n}"))).collect();
    assert!(folder.parse(&many).err().unwrap().contains("more than 32 forwarders"));
    assert!(folder.parse("[[forwarder]]\nname = \n").err().unwrap().contains("line 2"));
}

#[test]
fn the_example_of_the_readme_is_good() {
    let folder = Folder::new("readme");
    let authority = include_str!("../../../../../tests/fixtures/tls/authority.pem");
    fs::write(folder.0.join("siem-ca.pem"), authority).unwrap();
    fs::rename(folder.0.join("good"), folder.0.join("siem.secret")).unwrap();
    fs::rename(folder.0.join("headers"), folder.0.join("otel.headers")).unwrap();
    let readme = include_str!("../../../../../README.md");
    let example = readme.split("```toml").nth(1).expect("the README has an example");
    let example = example.split("```").next().unwrap_or_default();
    let here = example.replace("/etc/keyledger/", "").replace("/var/log/keyledger/", "");
    assert_eq!(folder.parse(&here).unwrap().len(), 4);
}
