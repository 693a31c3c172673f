//! Forwarders: the server sends events on, at least once and in order, and nothing waits for them.

mod elsewhere;
mod notices;
pub(crate) mod receiver;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use keyledger_proto::*;
use serde_json::Value;
use tonic::Code;

use crate::harness::*;
use receiver::{Answer, Receiver, SECRET, fixture};

/// Forwarders try again soon, and leases are short.
const QUICK: &str = "lease_seconds = 1\nretry_initial_ms = 10\nretry_max_ms = 50\n";

/// A configuration in a folder of its own, with the secret of the receivers.
pub(crate) struct Configured {
    folder: tempfile::TempDir,
}

impl Configured {
    pub(crate) fn new(forwarders: &[String]) -> Configured {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("forwarders.toml"), forwarders.concat()).unwrap();
        let configured = Configured { folder };
        configured.private_file("secret", SECRET);
        configured
    }

    /// A file beside it that nobody else can read.
    pub(crate) fn private_file(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// A server that forwards.
    pub(crate) async fn replica(&self, d: &Deployment) -> Arc<Replica> {
        d.secrets.text("the secret of a webhook", SECRET);
        d.replica_with("KEYLEDGER_FORWARDERS", &self.path("forwarders.toml")).await
    }
}

/// A forwarder of the first ledger, from its beginning.
pub(crate) fn forwarder(name: &str, lines: &str) -> String {
    format!(
        "[[forwarder]]\nname = \"{name}\"\nledger = \"default\"\nstart = \"beginning\"\n{QUICK}{lines}\n"
    )
}

/// A webhook to a receiver without TLS.
pub(crate) fn hook(name: &str, receiver: &Receiver, lines: &str) -> String {
    let url = format!("http://127.0.0.1:{}/hook?a=b", receiver.port);
    let webhook =
        format!("webhook = {{ url = \"{url}\", secret_file = \"secret\", allow_private = true }}");
    forwarder(name, &format!("{lines}\n{webhook}"))
}

pub(crate) fn only(category: &str) -> String {
    format!("filter = {{ categories = [\"{category}\"] }}")
}

/// Records events of a category: their resources end with their numbers. Tells these in the order in which they were recorded.
pub(crate) async fn record(
    caller: &Caller,
    category: &str,
    numbers: std::ops::Range<usize>,
) -> Vec<String> {
    let mut recorded = vec![];
    for chunk in numbers.collect::<Vec<_>>().chunks(50) {
        let resources: Vec<String> = chunk.iter().map(|n| format!("{category}/{n}")).collect();
        let event = |resource: &String| NewEvent {
            resource: resource.clone(),
            ..login("alice@example.com", category)
        };
        let events = resources.iter().map(event).collect();
        let outcomes =
            caller.call(RecordEventsRequest { events, atomic: false }).await.unwrap().outcomes;
        let position = |o: &EventOutcome| o.position.expect("a good event is recorded");
        recorded.extend(outcomes.iter().map(position).zip(resources));
    }
    recorded.sort();
    recorded.into_iter().map(|(_, resource)| resource).collect()
}

fn resource(event: &Value) -> &str {
    event["resource"].as_str().unwrap_or_default()
}

fn position(event: &Value) -> (u64, u64) {
    let position = event["position"].as_str().expect("a position").parse().unwrap();
    (position, event["index"].as_u64().unwrap_or(0))
}

/// Asks until a forwarder is as it is expected to be.
pub(crate) async fn until(
    caller: &Caller,
    name: &str,
    expected: impl Fn(&Forwarder) -> bool,
) -> Forwarder {
    let mut last = None;
    for _ in 0..3_000 {
        let listed = caller.call(ListForwardersRequest {}).await.unwrap().forwarders;
        match listed.into_iter().find(|f| f.name == name) {
            Some(found) if expected(&found) => return found,
            other => last = other,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("forwarder {name} stays {last:?}");
}

/// Takes requests until the events of some numbers have come, and tells their resources in the order in which each came first.
async fn firsts(receiver: &mut Receiver, count: usize) -> Vec<String> {
    let (mut seen, mut order) = (BTreeSet::new(), vec![]);
    while order.len() < count {
        for event in receiver.next().await.events() {
            if seen.insert(position(&event)) {
                order.push(resource(&event).to_string());
            }
        }
    }
    order
}

#[test]
fn a_receiver_gets_every_event_of_its_filter_in_order_signed_over_tls_and_none_of_another() {
    scenario(async |d| {
        let mut receiver = Receiver::new(true).await;
        let target = format!(
            "webhook = {{ url = \"https://localhost:{}/in\", secret_file = \"secret\", ca_file = \"{}\", allow_private = true }}",
            receiver.port,
            fixture("authority.pem")
        );
        let lines = format!("{}\n{target}", only("security/login"));
        let configured = Configured::new(&[forwarder("siem", &lines)]);
        let replica = configured.replica(d).await;
        let mut recorded = vec![];
        for round in 0..10 {
            record(&replica.admin(), "user-activity", 0..20).await;
            let numbers = round * 25..(round + 1) * 25;
            recorded.extend(record(&replica.admin(), "security/login", numbers).await);
        }
        let (mut events, mut ids) = (vec![], BTreeSet::new());
        while events.len() < 250 {
            let got = receiver.next().await;
            assert_eq!(got.line, "POST /in HTTP/1.1");
            assert_eq!(got.header("host"), format!("localhost:{}", receiver.port));
            assert!(ids.insert(got.header("webhook-id").to_string()), "nothing was sent twice");
            events.extend(got.events());
        }
        assert!(events.is_sorted_by(|a, b| position(a) < position(b)));
        let resources: Vec<&str> = events.iter().map(resource).collect();
        assert_eq!(resources, recorded);
        for event in &events {
            assert_eq!(event["category"], "security/login");
            assert_eq!(event["type"], "event.recorded");
            assert_eq!(event["actor"]["user"], "alice@example.com", "sealed texts are opened");
            assert_eq!(event["reason"], "password and second factor");
        }
        let done = until(&replica.admin(), "siem", |f| {
            f.state() == ForwarderState::Running && f.last_sent_time.is_some()
        })
        .await;
        assert_eq!((done.kind(), &*done.ledger), (ForwarderKind::Webhook, "default"));
        assert_eq!((done.consecutive_failures, &*done.last_error), (0, ""));
        assert!(receiver.waiting().is_none());
    });
}

#[test]
fn all_events_of_a_ledger_are_sent_in_order_also_those_of_one_page() {
    scenario(async |d| {
        let mut receiver = Receiver::new(false).await;
        let plain = d.replica().await;
        let made = plain.admin().call(user_key("alice@example.com")).await.unwrap();
        for _ in 0..3 {
            let requests = vec![check(&made.token); 90];
            plain.admin().call(BatchVerifyKeysRequest { requests }).await.unwrap();
        }
        let expected: Vec<(u64, u64)> = d
            .records(1)
            .await
            .iter()
            .map(|r| (r.address().0, r.address().1.unwrap_or(0).into()))
            .collect();
        let configured = Configured::new(&[hook("all", &receiver, "")]);
        configured.replica(d).await;
        let mut sent = vec![];
        while sent.len() < expected.len() {
            sent.extend(receiver.next().await.events().iter().map(position));
        }
        assert_eq!(sent, expected, "each once, since nothing failed");
    });
}

#[test]
fn a_batch_that_was_refused_comes_again_the_same_and_redirects_are_not_followed() {
    scenario(async |d| {
        let (mut receiver, mut other) = (Receiver::new(false).await, Receiver::new(false).await);
        receiver.answers(Answer::status("500 Internal Server Error"));
        let configured = Configured::new(&[hook("siem", &receiver, &only("login"))]);
        let replica = configured.replica(d).await;
        let admin = replica.admin();
        let mut recorded = record(&admin, "login", 0..3).await;
        let first = receiver.next().await;
        let failing = until(&admin, "siem", |f| f.consecutive_failures >= 2).await;
        assert_eq!(failing.state(), ForwarderState::Failing);
        assert_eq!(failing.last_error, "the receiver answered 500");
        assert!(failing.last_error_time.is_some() && failing.last_sent_time.is_none());
        assert!(failing.lag_entries >= 3);
        // More events don't change a batch that may have arrived.
        recorded.extend(record(&admin, "login", 3..5).await);
        let location = format!("location: http://127.0.0.1:{}/\r\n", other.port);
        receiver.answers(Answer::Status("307 Temporary Redirect", location));
        let redirected = until(&admin, "siem", |f| f.last_error.contains("307")).await;
        let why = "the receiver answered 307, and redirects are not followed";
        assert_eq!(redirected.last_error, why);
        receiver.answers(Answer::good());
        let mut resources = vec![];
        let mut repeats = 0;
        while resources.len() < 5 {
            let got = receiver.next().await;
            let again = got.header("webhook-id") == first.header("webhook-id");
            assert_eq!(again, got.body == first.body);
            if again {
                repeats += 1;
                resources.clear();
            }
            resources.extend(got.events().iter().map(|e| resource(e).to_string()));
        }
        assert!(repeats >= 2);
        assert_eq!(resources, recorded);
        assert!(other.waiting().is_none(), "nothing was sent to where the redirect points");
        let good = until(&admin, "siem", |f| f.consecutive_failures == 0).await;
        assert_eq!(good.state(), ForwarderState::Running);
    });
}

#[test]
fn a_private_address_is_refused_unless_it_is_allowed() {
    scenario(async |d| {
        let mut receiver = Receiver::new(true).await;
        let target = |host: &str| {
            format!(
                "webhook = {{ url = \"https://{host}:{}/\", secret_file = \"secret\", ca_file = \"{}\" }}",
                receiver.port,
                fixture("authority.pem")
            )
        };
        let hosts = ["localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "2130706433"];
        let forwarders: Vec<String> = hosts
            .iter()
            .enumerate()
            .map(|(n, host)| forwarder(&format!("f-{n}"), &target(host)))
            .collect();
        let replica = Configured::new(&forwarders).replica(d).await;
        for (n, host) in hosts.iter().enumerate() {
            let refused = until(&replica.admin(), &format!("f-{n}"), |f| {
                f.state() == ForwarderState::Failing && f.consecutive_failures >= 2
            })
            .await;
            let why = refused.last_error;
            assert!(why.contains("is refused without allow_private"), "{host}: {why}");
        }
        assert!(receiver.waiting().is_none(), "nobody has connected");
    });
}

#[test]
fn a_receiver_that_hangs_holds_nothing_up_and_what_waits_for_it_is_shown() {
    scenario(async |d| {
        let mut stuck = Receiver::new(false).await;
        let mut good = Receiver::new(false).await;
        stuck.answers(Answer::Nothing);
        let configured = Configured::new(&[
            hook("stuck", &stuck, "timeout_ms = 120000"),
            hook("good", &good, &only("login")),
        ]);
        let replica = configured.replica(d).await;
        stuck.next().await;
        let before = until(&replica.admin(), "stuck", |f| !f.holder.is_empty()).await;
        let recorded = record(&replica.admin(), "login", 0..300).await;
        assert_eq!(firsts(&mut good, 300).await, recorded);
        let made = replica.admin().call(user_key("alice@example.com")).await.unwrap();
        replica.admin().call(revoke(&made.key.unwrap().key_id)).await.unwrap();
        let after = until(&replica.admin(), "stuck", |f| f.lag_entries >= 300).await;
        assert_eq!(after.next_position, before.next_position);
        assert!(after.lag.is_some_and(|lag| (lag.seconds, lag.nanos) > (0, 0)));
        until(&replica.admin(), "good", |f| f.lag_entries < 50).await;
        // Stopping doesn't wait for it either.
        assert!(replica.stop().await.success());
    });
}

#[test]
fn another_replica_goes_on_without_a_gap_and_repeats_the_same_batch() {
    scenario(async |d| {
        let mut receiver = Receiver::new(false).await;
        let configured = Configured::new(&[hook("siem", &receiver, &only("login"))]);
        let replicas = [configured.replica(d).await, configured.replica(d).await];
        let mut recorded = record(&replicas[0].admin(), "login", 0..40).await;
        let mut order = firsts(&mut receiver, 40).await;
        let admin = replicas[0].admin();
        let held = until(&admin, "siem", |f| f.lag_entries < 40 && !f.holder.is_empty()).await;
        let mut replicas = replicas.to_vec();
        replicas.sort_by_key(|replica| !replica.log().contains(&held.holder));
        let [holder, other] = &replicas[..] else { unreachable!() };
        assert!(!other.log().contains(&held.holder), "replicas have names of their own");
        // The receiver has a batch, and the sender dies before it knows.
        receiver.answers(Answer::Nothing);
        recorded.extend(record(&other.admin(), "login", 40..60).await);
        let unanswered = receiver.next().await;
        holder.kill().await;
        recorded.extend(record(&other.admin(), "login", 60..90).await);
        receiver.answers(Answer::good());
        let again = receiver.next().await;
        assert_eq!(again.header("webhook-id"), unanswered.header("webhook-id"));
        assert_eq!(again.body, unanswered.body);
        order.extend(again.events().iter().map(|e| resource(e).to_string()));
        let left = 90 - order.len();
        order.extend(firsts(&mut receiver, left).await);
        assert_eq!(order, recorded);
        let now = until(&other.admin(), "siem", |f| f.state() == ForwarderState::Running).await;
        assert_ne!(now.holder, held.holder);
    });
}

#[test]
fn a_replica_that_was_frozen_finds_that_another_has_its_forwarder() {
    scenario(async |d| {
        let mut receiver = Receiver::new(false).await;
        let configured = Configured::new(&[hook("siem", &receiver, &only("login"))]);
        let (frozen, plain) = (configured.replica(d).await, d.replica().await);
        let mut recorded = record(&plain.admin(), "login", 0..10).await;
        let mut order = firsts(&mut receiver, 10).await;
        let before = until(&plain.admin(), "siem", |f| !f.holder.is_empty()).await;
        frozen.freeze();
        let left = until(&plain.admin(), "siem", |f| f.state() == ForwarderState::Unheld).await;
        assert_eq!(left.holder, "");
        let other = configured.replica(d).await;
        recorded.extend(record(&plain.admin(), "login", 10..20).await);
        order.extend(firsts(&mut receiver, 10).await);
        let taken = until(&other.admin(), "siem", |f| !f.holder.is_empty()).await;
        assert_ne!(taken.holder, before.holder);
        frozen.thaw();
        recorded.extend(record(&frozen.admin(), "login", 20..30).await);
        order.extend(firsts(&mut receiver, 10).await);
        assert_eq!(order, recorded);
        let still = until(&frozen.admin(), "siem", |f| !f.holder.is_empty()).await;
        assert_eq!(still.holder, taken.holder);
    });
}

#[test]
fn a_replica_that_is_told_to_stop_leaves_its_forwarders_at_once() {
    scenario(async |d| {
        let mut receiver = Receiver::new(false).await;
        // Nobody would wait for such a lease in a test.
        let long =
            hook("siem", &receiver, &only("login")).replace("_seconds = 1", "_seconds = 600");
        let configured = Configured::new(&[long]);
        let first = configured.replica(d).await;
        record(&first.admin(), "login", 0..10).await;
        let last = d.records(1).await.last().map(|record| record.address().0);
        firsts(&mut receiver, 10).await;
        // What a stop falls into may be sent again.
        until(&first.admin(), "siem", |f| f.next_position > last).await;
        assert!(first.stop().await.success());
        let second = configured.replica(d).await;
        let recorded = record(&second.admin(), "login", 10..20).await;
        assert_eq!(firsts(&mut receiver, 10).await, recorded);
    });
}

#[test]
fn a_new_forwarder_that_starts_now_sends_nothing_of_the_past() {
    scenario(async |d| {
        let mut receiver = Receiver::new(false).await;
        let now = hook("siem", &receiver, &only("login")).replace("\"beginning\"", "\"now\"");
        let plain = d.replica().await;
        record(&plain.admin(), "login", 0..10).await;
        let replica = Configured::new(&[now]).replica(d).await;
        until(&replica.admin(), "siem", |f| !f.holder.is_empty()).await;
        let recorded = record(&replica.admin(), "login", 10..20).await;
        assert_eq!(firsts(&mut receiver, 10).await, recorded);
    });
}

#[test]
fn forwarders_are_listed_for_those_who_may_see_them_and_of_their_own_ledger_alone() {
    scenario(async |d| {
        let receiver = Receiver::new(false).await;
        let system = hook("system-log", &receiver, "").replace("\"default\"", "\"system\"");
        let configured = Configured::new(&[hook("siem", &receiver, ""), system]);
        let replica = configured.replica(d).await;
        until(&replica.admin(), "siem", |_| true).await;
        until(&replica.system_admin(), "system-log", |_| true).await;
        for (caller, name) in [(replica.admin(), "siem"), (replica.system_admin(), "system-log")] {
            let listed = caller.call(ListForwardersRequest {}).await.unwrap().forwarders;
            assert_eq!(listed.iter().map(|f| &*f.name).collect::<Vec<_>>(), [name]);
        }
        let reader = service_key("reader", vec![grant("audit.read", "logs/**")]);
        let reader = replica.admin().call(reader).await.unwrap();
        refused(replica.caller(&reader.token).call(ListForwardersRequest {}).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        let auditor =
            CreateKeyRequest { roles: vec!["auditor".into()], ..service_key("auditor", vec![]) };
        let auditor = replica.admin().call(auditor).await.unwrap();
        replica.caller(&auditor.token).call(ListForwardersRequest {}).await.unwrap();
        // And by the command.
        let token = tempfile::NamedTempFile::new().unwrap();
        fs::write(token.path(), &auditor.token).unwrap();
        let endpoint = format!("http://{}", replica.address);
        let token = token.path().display().to_string();
        let arguments = ["audit", "--endpoint", &endpoint, "--token-file", &token, "forwarders"];
        let output = d.run(arguments.map(String::from)).await;
        assert!(output.status.success(), "{}", output.text);
        let words: Vec<&str> = output.text.split_whitespace().collect();
        assert!(words.windows(2).any(|w| w == ["siem", "webhook"]), "{}", output.text);
    });
}

#[test]
fn a_server_with_a_wrong_configuration_says_what_is_wrong_and_does_not_start() {
    scenario(async |d| {
        let receiver = Receiver::new(false).await;
        let good = hook("siem", &receiver, "");
        let mark = d.mark().await;
        for (text, expected) in [
            (good.replace("start", "begin"), "forwarder siem: start is missing"),
            (good.replace("url", "uri"), "forwarder siem: webhook.url is missing"),
            (good.replace("a=b", "a=b#c"), "forwarder siem: webhook.url must have no fragment"),
            (
                good.replace("\"default\"", "\"nowhere\""),
                "forwarder siem: ledger names \"nowhere\", and there is no such ledger",
            ),
        ] {
            let configured = Configured::new(&[good.replace("siem", "other"), text]);
            let path = configured.path("forwarders.toml");
            let serve = ["serve", "--listen", "127.0.0.1:0", "--forwarders", &path];
            let output = d.run(serve.map(String::from)).await;
            assert!(!output.status.success());
            assert!(output.text.contains(expected), "{}", output.text);
        }
        assert!(d.since(&mark).await.values().all(|left| left.is_empty()), "nothing was written");
        let client = d.superuser().await;
        assert!(client.query("SELECT FROM forwarders", &[]).await.unwrap().is_empty());
    });
}
