//! WatchKeys: every change once and in order, whoever made it, and on from the cursor at any replica; nothing after the end
//! of the watcher's key; no secrets and no texts about people; heartbeats that write nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keyledger_ledger::body::{Event, Kind};
use keyledger_ledger::token::Token;
use keyledger_proto::*;
use prost::Message;
use tonic::{Code, Streaming};

use crate::harness::*;

fn from(position: u64) -> WatchKeysRequest {
    WatchKeysRequest { from_position: Some(position) }
}

/// A key that may watch, and nothing else.
async fn watcher_key(replica: &Replica) -> CreateKeyResponse {
    let request = service_key("cache", vec![grant("keys.read", "keys")]);
    replica.admin().call(request).await.unwrap()
}

fn watcher(replica: &Replica, key: &CreateKeyResponse) -> Caller {
    replica.caller_on_new_connection(&key.token)
}

/// What a watcher has heard.
#[derive(Default)]
struct Heard {
    changes: Vec<KeyChange>,
    next: u64,
}

impl Heard {
    #[track_caller]
    fn hear(&mut self, reply: WatchKeysResponse) {
        let next = reply.next_position.expect("every reply tells the cursor");
        assert!(next >= self.next, "the cursor never moves back");
        if let Some(change) = reply.change {
            assert_eq!(change.position, Some(next - 1), "the cursor moves past a change with it");
            self.changes.push(change);
        }
        self.next = next;
    }

    async fn hear_up_to(&mut self, stream: &mut Streaming<WatchKeysResponse>, position: u64) {
        while self.next <= position {
            self.hear(stream.message().await.unwrap().expect("it goes on for ever"));
        }
    }

    fn told(&self) -> Vec<(u64, &str)> {
        self.changes.iter().map(|c| (c.position.unwrap(), c.r#type.as_str())).collect()
    }
}

/// All changes of the first ledger, as it holds them.
async fn changes(d: &Deployment) -> Vec<(u64, Event)> {
    let change = |record: Record| match record {
        Record::Change { position, event } => Some((position, *event)),
        Record::Use { .. } => None,
    };
    d.records(1).await.into_iter().filter_map(change).collect()
}

fn named(changes: &[(u64, Event)]) -> Vec<(u64, &str)> {
    changes.iter().map(|(at, event)| (*at, event.kind.as_ref().unwrap().name())).collect()
}

/// Changes of every sort, and uses among them.
async fn write(replica: &Replica, round: usize) {
    let admin = replica.admin();
    let made = admin.call(user_key("alice@example.com")).await.unwrap();
    let key_id = made.key.unwrap().key_id;
    for _ in 0..3 {
        admin.call(check(&made.token)).await.unwrap();
    }
    admin.call(rotate(&key_id, 60)).await.unwrap();
    match round % 4 {
        0 => drop(admin.call(suspend(&key_id)).await.unwrap()),
        1 => drop(admin.call(revoke(&key_id)).await.unwrap()),
        2 => drop(admin.call(register("billing", &["billing.read"])).await.unwrap()),
        _ => {
            // Two writers may choose the same name: one of them is refused.
            let name = format!("role-{round}");
            let _ = admin.call(role(&name, vec![grant("audit.read", "logs/*")])).await;
        }
    }
}

#[test]
fn a_watcher_sees_each_change_once_and_in_order_also_across_a_break_and_on_another_replica() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let key = watcher_key(&a).await;
        let writing = [&a, &b].map(|replica| {
            let replica = replica.clone();
            tokio::spawn(async move {
                for round in 0..12 {
                    write(&replica, round).await;
                }
            })
        });
        let mut heard = Heard::default();
        // On and on, at one replica and at the other, from where it was.
        for replica in [&a, &b, &a, &b] {
            let mut stream = watcher(replica, &key).stream(from(heard.next)).await.unwrap();
            let enough = heard.changes.len() + 12;
            while heard.changes.len() < enough {
                heard.hear(stream.message().await.unwrap().expect("it goes on for ever"));
            }
        }
        for writer in writing {
            writer.await.expect("no writer panics");
        }
        let all = changes(d).await;
        let mut stream = watcher(&b, &key).stream(from(heard.next)).await.unwrap();
        heard.hear_up_to(&mut stream, all.last().unwrap().0).await;
        assert_eq!(heard.told(), named(&all));
        for (told, (_, event)) in heard.changes.iter().zip(&all) {
            let link = event.kind.as_ref().and_then(Kind::key_link);
            assert_eq!(told.key.is_some(), link.is_some());
            assert_eq!(told.key_id, told.key.as_ref().map_or("", |k| k.key_id.as_str()));
            assert!(told.time.is_some());
        }
    });
}

#[test]
fn a_watcher_hears_nothing_of_what_was_before_unless_it_asks() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let key = watcher_key(&a).await;
        let mut stream = watcher(&a, &key).stream(WatchKeysRequest::default()).await.unwrap();
        let mark = d.mark().await;
        let made = b.admin().call(role("readers", vec![grant("audit.read", "logs/*")])).await;
        let made = made.unwrap().role.unwrap().position.unwrap();
        let updated = update_role("readers", vec![grant("audit.read", "logs/error")]);
        let updated = b.admin().call(updated).await.unwrap().position.unwrap();
        let retired = a.admin().call(retire_role("readers")).await.unwrap().position.unwrap();
        let registered = register("billing", &["billing.read"]);
        let registered = a.admin().call(registered).await.unwrap().position.unwrap();
        let mut heard = Heard::default();
        heard.hear_up_to(&mut stream, registered).await;
        let expected = [
            (made, "role.created"),
            (updated, "role.updated"),
            (retired, "role.retired"),
            (registered, "permissions.registered"),
        ];
        assert_eq!(heard.told(), expected);
        let roles: Vec<&str> = heard.changes.iter().map(|c| c.role.as_str()).collect();
        assert_eq!(roles, ["readers", "readers", "readers", ""]);
        assert!(heard.changes.iter().all(|c| c.key.is_none() && c.key_id.is_empty()));
        assert_eq!(d.since(&mark).await[&1].len(), expected.len());
    });
}

#[test]
fn a_watch_ends_when_its_key_is_revoked_through_another_replica_and_tells_nothing_later() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        for _ in 0..5 {
            let key = watcher_key(&a).await;
            let watcher = watcher(&a, &key);
            let mut stream = watcher.stream(from(0)).await.unwrap();
            let done = Arc::new(AtomicBool::new(false));
            let writers = [&a, &b].map(|replica| {
                let (replica, done) = (replica.clone(), done.clone());
                tokio::spawn(async move {
                    while !done.load(Ordering::Relaxed) {
                        replica.admin().call(user_key("alice@example.com")).await.unwrap();
                    }
                })
            });
            let mut heard = Heard::default();
            heard.hear(stream.message().await.unwrap().expect("there is something to hear"));
            let revoked = b.admin().call(revoke(&key.key.unwrap().key_id)).await.unwrap();
            let end = end_of(&mut stream, &mut heard, revoked.position.unwrap()).await;
            refused::<()>(Err(end)).with(Code::Unauthenticated, ErrorReason::KeyEnded);
            refused(watcher.stream(from(0)).await)
                .with(Code::Unauthenticated, ErrorReason::CredentialInvalid);
            done.store(true, Ordering::Relaxed);
            for writer in writers {
                writer.await.expect("no writer panics");
            }
        }
    });
}

/// Why it ends. Neither what ended it, at `last`, nor anything later is told.
async fn end_of(
    stream: &mut Streaming<WatchKeysResponse>,
    heard: &mut Heard,
    last: u64,
) -> tonic::Status {
    loop {
        match stream.message().await {
            Ok(reply) => heard.hear(reply.expect("it ends with why")),
            Err(status) => return status,
        }
        assert!(heard.next <= last, "{} is told after {last}", heard.next);
    }
}

#[test]
fn a_watch_ends_when_its_key_loses_the_permission_by_itself_or_by_a_role() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let admin = b.admin();
        let reads = || vec![grant("keys.read", "keys")];
        admin.call(role("caches", reads())).await.unwrap();
        let by_itself = watcher_key(&b).await;
        let by_role =
            CreateKeyRequest { roles: vec!["caches".into()], ..service_key("cache", vec![]) };
        let by_role = admin.call(by_role).await.unwrap();
        let mut streams = vec![];
        for key in [&by_itself, &by_role] {
            streams.push(watcher(&a, key).stream(from(0)).await.unwrap());
        }
        let taken = update(&by_itself.key.unwrap().key_id, &["grants"]);
        let taken = [
            admin.call(taken).await.unwrap().position.unwrap(),
            admin.call(retire_role("caches")).await.unwrap().position.unwrap(),
        ];
        for (mut stream, taken) in streams.into_iter().zip(taken) {
            let mut heard = Heard::default();
            let end = refused::<()>(Err(end_of(&mut stream, &mut heard, taken).await));
            assert_eq!(
                (&*end.metadata["permission"], &*end.metadata["resource"]),
                ("keys.read", "keys")
            );
            end.with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        }
    });
}

#[test]
fn a_watcher_gets_keys_as_they_are_now_without_secrets_and_without_words_about_people() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let request = CreateKeyRequest {
            responsible: "carol@example.com".into(),
            ..service_key("robot/export", vec![grant("audit.read", "logs/error")])
        };
        let robot = admin.call(request).await.unwrap();
        let alice = admin.call(user_key("alice@example.com")).await.unwrap();
        let alice_id = alice.key.unwrap().key_id;
        let rotated = admin.call(rotate(&alice_id, 60)).await.unwrap();
        admin.call(revoke(&alice_id)).await.unwrap();
        admin.call(register("billing", &["billing.read"])).await.unwrap();
        let key = watcher_key(&replica).await;
        let mut stream = watcher(&replica, &key).stream(from(0)).await.unwrap();
        let (mut heard, mut bytes) = (Heard::default(), vec![]);
        while heard.next <= key.position.unwrap() {
            let reply = stream.message().await.unwrap().expect("it goes on for ever");
            bytes.extend(reply.encode_to_vec());
            heard.hear(reply);
        }

        let of_alice: Vec<&KeyChange> =
            heard.changes.iter().filter(|c| c.key_id == alice_id).collect();
        let types: Vec<&str> = of_alice.iter().map(|c| c.r#type.as_str()).collect();
        assert_eq!(types, ["key.created", "key.rotated", "key.revoked"]);
        let now = admin
            .call(GetKeyRequest { key_id: alice_id, as_of: None, include_traces: false })
            .await
            .unwrap();
        let nobody = Some(Owner { owner: Some(owner::Owner::User(String::new())) });
        let now = Key { owner: nobody, purpose: String::new(), ..now.key.unwrap() };
        assert!(of_alice.iter().all(|c| c.key.as_ref() == Some(&now)), "as it is now");
        let robot_id = robot.key.as_ref().unwrap().key_id.clone();
        let told = heard.changes.iter().find(|c| c.key_id == robot_id).unwrap();
        let words = (String::new(), String::new());
        let bare = Key { purpose: words.0, responsible: words.1, ..robot.key.unwrap() };
        assert_eq!(told.key.as_ref(), Some(&bare), "a service is named");

        let mut secrets: Vec<Vec<u8>> = ["alice@example", "carol@example", "nightly", "4711"]
            .map(|text| text.as_bytes().to_vec())
            .to_vec();
        for token in [&robot.token, &alice.token, &rotated.token, &key.token] {
            secrets.push(token.as_bytes()[27..70].to_vec());
            secrets.push(Token::parse(token).unwrap().secret.expose().to_vec());
        }
        for (_, event) in changes(d).await {
            secrets.extend(event.texts.iter().map(|text| text.commitment.clone()));
            let version = match event.kind.unwrap() {
                Kind::KeyCreated(created) => created.version,
                Kind::KeyRotated(rotated) => rotated.version,
                _ => None,
            };
            secrets.extend(version.map(|v| v.verifier_commitment));
        }
        let client = d.superuser().await;
        for row in client.query("SELECT verifier FROM key_secrets", &[]).await.unwrap() {
            secrets.push(row.get(0));
        }
        for secret in secrets {
            assert!(!bytes.windows(secret.len()).any(|w| w == secret), "{secret:?}");
        }
    });
}

#[test]
fn heartbeats_tell_the_cursor_and_write_nothing() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let made = a.admin().call(user_key("alice@example.com")).await.unwrap();
        let key = watcher_key(&a).await;
        let mut stream = watcher(&a, &key).stream(WatchKeysRequest::default()).await.unwrap();
        let mark = d.mark().await;
        let mut quiet = async || {
            let reply = stream.message().await.unwrap().expect("it goes on for ever");
            assert_eq!(reply.change, None);
            reply.next_position.expect("a heartbeat tells the cursor")
        };
        let first = quiet().await;
        for _ in 0..3 {
            assert_eq!(quiet().await, first);
        }
        assert!(d.since(&mark).await.is_empty(), "heartbeats write nothing");

        // Uses are passed over, and the cursor moves past them.
        let mut used = 0;
        for _ in 0..5 {
            used = b.admin().call(check(&made.token)).await.unwrap().position.unwrap();
        }
        while quiet().await <= used {}
        let (ledger, left) = d.since_in_one(&mark).await;
        assert_eq!((ledger, left.len()), (1, 5));
    });
}
