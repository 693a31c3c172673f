//! The session of the README: a key is made, checked, rotated and revoked, and the trail read back.

use keyledger_ledger::note::{self, NoteKey};
use keyledger_proto::entry::{Decision, DecisionReason};
use keyledger_proto::*;
use serde_json::{Value, json};

use crate::harness::*;
use crate::past::without_uses;

const CREATE: &str = r#"{"owner":{"user":"alice@example.com"},"purpose":"export error logs",
    "grants":[{"permissions":["audit.read"],"resource":"logs/error"}],"ttl":"3600s","reason":"ticket 4711"}"#;

/// VerifyKey, with a token.
fn verify(token: &Value) -> String {
    json!({
        "token": token, "permission": "audit.read", "resource": "logs/error",
        "client": {"address": "203.0.113.7", "user_agent": "curl"}, "audience": "", "reason": "nightly export",
    })
    .to_string()
}

/// A number as JSON shows 64 bits of it.
fn number(value: &Value) -> u64 {
    value
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("a number, not {value}"))
}

#[test]
fn a_key_is_made_checked_rotated_and_revoked_as_the_session_says() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let made = admin.json("KeyService/CreateKey", CREATE).await.unwrap();
        let (key_id, token) = (&made["key"]["keyId"], &made["token"]);
        assert_eq!(made["key"]["state"], "KEY_STATE_ACTIVE");
        assert_eq!(made["key"]["owner"], json!({"user": "alice@example.com"}));
        assert_eq!(made["key"]["purpose"], "export error logs");
        assert!(token.as_str().unwrap().starts_with("klk_"));
        assert_eq!(token.as_str().unwrap().len(), 76);

        let allowed = admin.json("KeyService/VerifyKey", &verify(token)).await.unwrap();
        assert_eq!(allowed["decision"], "DECISION_ALLOW");
        assert_eq!(allowed["reason"], "DECISION_REASON_GRANTED");
        assert_eq!(&allowed["keyId"], key_id);
        let grant = json!({"permissions": ["audit.read"], "resource": "logs/error"});
        assert_eq!(allowed["matchedGrant"], grant);
        assert_eq!(allowed["index"], 0, "the first index is shown, although it is 0");
        assert!(number(&allowed["position"]) > number(&made["position"]));

        let rotate = json!({"key_id": key_id, "overlap": "600s", "reason": "monthly"});
        let rotated = admin.json("KeyService/RotateKey", &rotate.to_string()).await.unwrap();
        assert_eq!(&rotated["key"]["keyId"], key_id);
        assert_ne!(&rotated["token"], token);
        for token in [token, &rotated["token"]] {
            let verdict = admin.json("KeyService/VerifyKey", &verify(token)).await.unwrap();
            assert_eq!(verdict["decision"], "DECISION_ALLOW", "both are good while they overlap");
        }

        let revoke = json!({"key_id": key_id, "kind": "REVOCATION_KIND_OWNER_LEFT", "reason": "left the company"});
        let revoked = admin.json("KeyService/RevokeKey", &revoke.to_string()).await.unwrap();
        assert_eq!(revoked["key"]["state"], "KEY_STATE_REVOKED");
        assert_eq!(revoked["key"]["revocation"]["kind"], "REVOCATION_KIND_OWNER_LEFT");
        for token in [token, &rotated["token"]] {
            let verdict = admin.json("KeyService/VerifyKey", &verify(token)).await.unwrap();
            assert_eq!(verdict["decision"], "DECISION_DENY");
            assert_eq!(verdict["reason"], "DECISION_REASON_REVOKED");
        }

        let list = json!({"key_id": key_id, "page_size": 50}).to_string();
        let listed = admin.json("AuditService/ListEvents", &list).await.unwrap();
        let types: Vec<&str> = listed["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["type"].as_str().unwrap())
            .collect();
        let newest_first = [
            "key.used",
            "key.used",
            "key.revoked",
            "key.used",
            "key.used",
            "key.rotated",
            "key.used",
            "key.created",
        ];
        assert_eq!(types, newest_first);
        let first =
            admin.json("AuditService/StreamEvents", r#"{"from_position":"0"}"#).await.unwrap();
        assert_eq!(first["event"]["type"], "ledger.opened");
        assert_eq!(
            first["event"]["position"], "0",
            "the first position is shown, although it is 0"
        );
        let checkpoint = admin.json("AuditService/GetCheckpoint", "{}").await.unwrap();
        assert!(number(&checkpoint["size"]) > number(&revoked["position"]));
        assert!(checkpoint["note"].as_str().unwrap().starts_with("keys.example.test/default\n"));
    });
}

#[test]
fn the_trail_tells_who_did_what_when_and_why() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let me = admin.call(WhoAmIRequest {}).await.unwrap().key.unwrap().key_id;
        let traced = admin
            .with_header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let made = traced.call(user_key("alice@example.com")).await.unwrap();
        let key = made.key.unwrap();
        admin.call(check(&made.token)).await.unwrap();
        admin.call(rotate(&key.key_id, 0)).await.unwrap();
        admin.call(check(&made.token)).await.unwrap();
        admin.call(revoke(&key.key_id)).await.unwrap();

        let request = ListEventsRequest { key_id: key.key_id.clone(), ..Default::default() };
        let events = admin.call(request).await.unwrap().events;
        let [revoked, refused, rotated, used, created] = &events[..] else { panic!("{events:?}") };
        assert!(events.iter().all(|e| e.key_id == key.key_id && e.caller_key_id == me));
        assert!(events.windows(2).all(|pair| time_of(&pair[0]) >= time_of(&pair[1])));
        assert!(events.iter().all(|e| e.leaf_hash.len() == 32 && e.position.is_some()));

        assert_eq!(
            (created.r#type.as_str(), created.reason.as_str()),
            ("key.created", "ticket 4711")
        );
        assert_eq!(created.purpose, "export error logs");
        assert_eq!(created.owner, key.owner);
        assert_eq!(created.address, "127.0.0.1", "where the caller sat");
        assert_eq!(created.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(created.span_id, "00f067aa0ba902b7");
        assert_eq!((used.r#type.as_str(), used.reason.as_str()), ("key.used", "nightly export"));
        assert_eq!(
            (used.decision(), used.decision_reason()),
            (Decision::Allow, DecisionReason::Granted)
        );
        assert_eq!(
            (used.address.as_str(), used.user_agent.as_str()),
            ("203.0.113.7", "exporter/1.2")
        );
        assert_eq!(
            (used.permission.as_str(), used.resource.as_str()),
            ("audit.read", "logs/error")
        );
        assert_eq!((used.method.as_str(), used.key_version), ("KeyService/VerifyKey", 1));
        assert_eq!(
            (rotated.r#type.as_str(), rotated.reason.as_str()),
            ("key.rotated", "monthly rotation")
        );
        assert_eq!(refused.decision(), Decision::Deny);
        assert_eq!(refused.decision_reason(), DecisionReason::Superseded);
        assert_eq!(
            (revoked.r#type.as_str(), revoked.reason.as_str()),
            ("key.revoked", "left the company")
        );
    });
}

fn time_of(event: &AuditEvent) -> (i64, i32) {
    event.time.map(|t| (t.seconds, t.nanos)).expect("each event has its time")
}

#[test]
fn a_stream_gives_every_event_once_and_in_order() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let made = admin.call(user_key("alice@example.com")).await.unwrap();
        for _ in 0..3 {
            admin.call(check(&made.token)).await.unwrap();
        }
        let request = StreamEventsRequest { from_position: Some(0), ..Default::default() };
        let mut stream = admin.stream(request).await.unwrap();
        let mut seen: Vec<(u64, Option<u32>)> = vec![];
        // The stream's own use is the newest when it begins; one more check comes while it runs.
        let later = admin.call(check(&made.token)).await.unwrap();
        while seen.last().is_none_or(|(position, _)| *position < later.position.unwrap()) {
            let reply = stream.message().await.unwrap().expect("it doesn't end by itself");
            seen.extend(reply.event.map(|e| (e.position.unwrap(), e.index)));
        }
        let recorded: Vec<(u64, Option<u32>)> =
            d.records(1).await.iter().map(Record::address).collect();
        assert_eq!(seen, recorded);
    });
}

#[test]
fn a_stream_ends_with_the_key_that_reads_it() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let reads = vec![grant("audit.read", "logs/**")];
        let made = admin.call(service_key("reader", reads)).await.unwrap();
        let mut stream =
            replica.caller(&made.token).stream(StreamEventsRequest::default()).await.unwrap();
        let revoked = admin.call(revoke(&made.key.unwrap().key_id)).await.unwrap();
        let end = loop {
            match stream.message().await {
                Ok(reply) => {
                    let position =
                        reply.expect("it ends with a status").event.and_then(|e| e.position);
                    assert!(
                        position.is_none_or(|p| p < revoked.position.unwrap()),
                        "nothing after the revocation"
                    );
                }
                Err(status) => break status,
            }
        };
        refused(Err::<(), _>(end)).with(tonic::Code::Unauthenticated, ErrorReason::KeyEnded);
    });
}

#[test]
fn a_checkpoint_is_a_signed_note_of_the_ledger() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let reply = admin.call(GetCheckpointRequest {}).await.unwrap();
        let key = NoteKey::parse_vkey(&reply.verifier_key).unwrap();
        let opened = note::open(&reply.note, &key).unwrap();
        assert_eq!(opened.origin, "keys.example.test/default");
        assert_eq!((opened.size, opened.root.as_slice()), (reply.size, reply.root_hash.as_slice()));
    });
}

#[test]
fn a_replica_that_is_started_again_finds_the_same_keys() {
    scenario(async |d| {
        let first = d.replica().await;
        let made = first.admin().call(user_key("alice@example.com")).await.unwrap();
        let ended = first.admin().call(user_key("bob@example.com")).await.unwrap();
        let ended_id = ended.key.clone().unwrap().key_id;
        first.admin().call(revoke(&ended_id)).await.unwrap();
        let before = first.admin().call(ListKeysRequest::default()).await.unwrap().keys;
        first.kill().await;

        let second = d.replica().await;
        let after = second.admin().call(ListKeysRequest::default()).await.unwrap().keys;
        // Each list is a use of the admin's key.
        let before = without_uses(before);
        assert_eq!(without_uses(after), before);
        let verdict = second.admin().call(check(&made.token)).await.unwrap();
        assert_eq!(verdict.decision(), Decision::Allow);
        let verdict = second.admin().call(check(&ended.token)).await.unwrap();
        assert_eq!(verdict.decision(), Decision::Deny);
        assert!(second.stop().await.success());

        let third = d.replica().await;
        let after = third.admin().call(ListKeysRequest::default()).await.unwrap().keys;
        assert_eq!(without_uses(after), before);
    });
}

#[test]
fn a_caller_learns_its_own_key_and_ledger() {
    scenario(async |d| {
        let replica = d.replica().await;
        let made = replica.admin().call(user_key("alice@example.com")).await.unwrap();
        let me = replica.caller(&made.token).call(WhoAmIRequest {}).await.unwrap();
        assert_eq!(me.key, made.key, "a key that may do nothing else may ask who it is");
        let ledger = me.ledger.unwrap();
        assert_eq!((ledger.name.as_str(), ledger.number), ("default", 1));
        assert_eq!(ledger.origin, "keys.example.test/default");
        let system = replica.system_admin().call(WhoAmIRequest {}).await.unwrap();
        assert_eq!(system.ledger.unwrap().number, 0);
    });
}

#[test]
fn a_server_that_logs_all_it_can_logs_no_secret() {
    scenario(async |d| {
        let replica = d.replica_with("RUST_LOG", "trace").await;
        let admin = replica.admin();
        let made = admin.call(user_key("alice@example.com")).await.unwrap();
        admin.call(check(&made.token)).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        admin.call(rotate(&key_id, 60)).await.unwrap();
        admin.call(revoke(&key_id)).await.unwrap();
        admin.call(ListEventsRequest { key_id, ..Default::default() }).await.unwrap();
        refused(replica.caller(&made.token).call(WhoAmIRequest {}).await)
            .with(tonic::Code::Unauthenticated, ErrorReason::CredentialInvalid);
        // What is looked through when this ends is really all.
        assert!(replica.log().contains("\"TRACE\""), "{}", replica.log());
    });
}
