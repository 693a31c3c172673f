//! Notices: whoever is responsible for keys hears of what is due, and that they did is in the ledger.

use keyledger_ledger::body::{self, Kind};
use keyledger_proto::*;
use sha2::{Digest, Sha256};

use super::receiver::{Answer, Receiver};
use super::{Configured, QUICK, until};
use crate::harness::*;

fn notice(name: &str, receiver: &Receiver, lines: &str) -> String {
    let url = format!("http://127.0.0.1:{}/{name}", receiver.port);
    format!(
        "[[notice]]\nname = \"{name}\"\nledger = \"default\"\nstart = \"beginning\"\n{QUICK}{lines}\n\
         webhook = {{ url = \"{url}\", secret_file = \"secret\", allow_private = true }}\n"
    )
}

/// A key whose rotation is due after a second.
fn aging(request: CreateKeyRequest, labels: &[(&str, &str)]) -> CreateKeyRequest {
    let label = |(name, value): &(&str, &str)| body::Label {
        name: name.to_string(),
        value: value.to_string(),
    };
    let rotation = RotationPolicy { max_age: Some(seconds(1)), suspend_after: None };
    let labels = labels.iter().map(label).collect();
    CreateKeyRequest { rotation: Some(rotation), labels, ..request }
}

/// What the ledger says that receivers have, in order, once there are so many such entries.
async fn delivered(admin: &Caller, count: usize) -> Vec<body::NoticeDelivered> {
    let from = StreamEventsRequest {
        from_position: Some(0),
        category: "keyledger/lifecycle".into(),
        ..Default::default()
    };
    let mut events = admin.stream(from).await.unwrap();
    let mut found = vec![];
    while found.len() < count {
        let event = events.message().await.unwrap().expect("the stream goes on").event;
        let kind = event.and_then(|event| event.body).and_then(|body| body.kind);
        if let Some(Kind::NoticeDelivered(delivered)) = kind {
            found.push(delivered);
        }
    }
    found
}

#[test]
fn whoever_owns_a_key_or_its_label_is_told_until_they_have_it_and_the_ledger_says_so() {
    scenario(async |d| {
        let mut billing = Receiver::new(false).await;
        let (mut alice, mut other) = (Receiver::new(false).await, Receiver::new(false).await);
        billing.answers(Answer::status("503 Service Unavailable"));
        let configured = Configured::new(&[
            notice("billing", &billing, "labels = { team = \"billing\" }"),
            notice("alice", &alice, "owner = { user = \"alice@example.com\" }"),
            notice("other", &other, "kinds = [\"key.expiring\"]\nowner = { service = \"other\" }"),
        ]);
        let replica = configured.replica(d).await;
        let admin = replica.admin();
        let of_team = aging(service_key("invoices", vec![]), &[("team", "billing"), ("a", "b")]);
        let of_team = admin.call(of_team).await.unwrap().key.unwrap().key_id;
        let of_alice = aging(user_key("alice@example.com"), &[("team", "sales")]);
        let of_alice = admin.call(of_alice).await.unwrap().key.unwrap().key_id;
        admin.call(aging(service_key("other", vec![]), &[])).await.unwrap();

        let first = billing.next().await;
        assert_eq!(first.line, "POST /billing HTTP/1.1");
        billing.next().await;
        billing.answers(Answer::good());
        let told = alice.next().await;
        let [event] = &told.events()[..] else { panic!("one event is expected") };
        assert_eq!(
            (&event["type"], &event["keyId"]),
            (&"key.rotation-due".into(), &of_alice.into())
        );

        let said = delivered(&admin, 2).await;
        let of = |name: &str| said.iter().find(|d| d.receiver == name).expect("it was told");
        assert_eq!(of("alice").failures, 0);
        assert_eq!(of("alice").body_sha256, Sha256::digest(&told.body).to_vec());
        let position: u64 = event["position"].as_str().unwrap().parse().unwrap();
        assert_eq!(of("alice").positions, [position]);
        assert!(of("billing").failures >= 2, "{:?}", of("billing"));
        assert_eq!(of("billing").body_sha256, Sha256::digest(&first.body).to_vec());
        let [event] = &first.events()[..] else { panic!("one event is expected") };
        assert_eq!(event["keyId"], of_team.as_str());
        while let Some(again) = billing.waiting() {
            assert_eq!(again.body, first.body, "what failed comes again, the same");
        }
        assert!(alice.waiting().is_none() && other.waiting().is_none());

        // Whoever comes after goes on where it ended: nothing is told twice.
        for name in ["alice", "billing"] {
            until(&admin, name, |f| f.last_sent_time.is_some()).await;
        }
        replica.kill().await;
        let replica = configured.replica(d).await;
        let more = aging(user_key("alice@example.com"), &[]);
        let more = replica.admin().call(more).await.unwrap().key.unwrap().key_id;
        let [event] = &alice.next().await.events()[..] else { panic!("one event is expected") };
        assert_eq!(event["keyId"], more.as_str());
        let said = delivered(&replica.admin(), 3).await;
        assert_eq!(said.iter().filter(|d| d.receiver == "alice").count(), 2);
    });
}

#[test]
fn what_is_to_be_tidied_up_is_counted_once_by_two_replicas_and_told() {
    scenario(async |d| {
        let mut receiver = Receiver::new(false).await;
        let configured =
            Configured::new(&[notice("team", &receiver, "kinds = [\"findings.digested\"]")]);
        let (a, b) = (configured.replica(d).await, configured.replica(d).await);
        for name in ["invoices", "payments", "reports"] {
            a.admin().call(service_key(name, vec![])).await.unwrap();
        }
        let policy = LedgerPolicy { digest_days: 1, ..Default::default() };
        a.admin().call(update_policy(&["digest_days"], policy)).await.unwrap();
        let told = receiver.next().await;
        let [event] = &told.events()[..] else { panic!("one event is expected") };
        let findings = event["body"]["findingsDigested"]["findings"].as_array().unwrap().clone();
        let of = |name: &str| findings.iter().find(|f| f["finding"] == name).cloned();
        // Theirs, and that of the admin.
        let expected = serde_json::json!({"finding": "key-without-responsible", "count": "4"});
        assert_eq!(of("key-without-responsible"), Some(expected), "{findings:?}");
        delivered(&b.admin(), 1).await;
        let digests = d.records(1).await;
        let digests = digests.iter().filter(|record| match record {
            Record::Change { event, .. } => {
                matches!(event.kind, Some(Kind::FindingsDigested(_)))
            }
            _ => false,
        });
        assert_eq!(digests.count(), 1);
        assert!(receiver.waiting().is_none());
    });
}
