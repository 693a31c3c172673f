//! StreamEvents: every entry once and in order, whoever wrote it; nothing after the end of the reader's key; and on from
//! `next_position` after a break, without loss or repeat.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keyledger_ledger::note::{self, NoteKey};
use keyledger_proto::*;
use tonic::{Code, Streaming};

use crate::harness::*;

/// Where an event stands: position, and index if it is a use.
pub(crate) type Address = (u64, Option<u32>);

#[test]
fn a_stream_from_position_0_gets_every_event_once_and_in_order_whichever_replica_wrote_it() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let reader = a.caller_on_new_connection(&reader_key(&a).await.token);
        let mut stream = reader.stream(from(0)).await.unwrap();
        let writing = [&a, &b].map(|replica| tokio::spawn(write(replica.clone(), 40)));
        for writer in writing {
            writer.await.expect("no writer panics");
        }
        let written = addresses(&d.records(1).await);
        let mut heard = Heard::default();
        while heard.next < written.last().unwrap().0 + 1 {
            heard.hear(stream.message().await.unwrap().expect("it goes on for ever"));
        }
        assert_eq!(heard.events, written);

        // A second reader that wants only what is there now gets the same, and its own reading, and the end.
        let to_the_head = StreamEventsRequest { stop_at_head: true, ..from(0) };
        let mut stream = reader.stream(to_the_head).await.unwrap();
        let mut again = Heard::default();
        while let Some(reply) = stream.message().await.unwrap() {
            again.hear(reply);
        }
        // After it comes what it tells of its end, which is durable before it ends.
        assert_eq!(again.events, before_its_end(&d.records(1).await, again.events.len()));
    });
}

#[test]
fn a_stream_ends_when_its_key_is_revoked_through_another_replica_and_tells_nothing_later() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        for _ in 0..5 {
            let key = reader_key(&a).await;
            let reader = a.caller_on_new_connection(&key.token);
            let mut stream = reader.stream(from(0)).await.unwrap();
            let done = Arc::new(AtomicBool::new(false));
            let writers = [&a, &b].map(|r| tokio::spawn(write_until(r.clone(), done.clone())));
            // It has read something, and is behind.
            let mut heard = Heard::default();
            heard.hear(stream.message().await.unwrap().expect("there is something to read"));

            let revoked = b.admin().call(revoke(&key.key.unwrap().key_id)).await.unwrap();
            let end = loop {
                match stream.message().await {
                    Ok(reply) => heard.hear(reply.expect("a revoked key's stream ends with why")),
                    Err(status) => break status,
                }
            };
            refused::<()>(Err(end)).with(Code::Unauthenticated, ErrorReason::KeyEnded);
            assert!(heard.next <= revoked.position.unwrap() + 1, "nothing later is told");
            refused(reader.stream(from(0)).await)
                .with(Code::Unauthenticated, ErrorReason::CredentialInvalid);
            done.store(true, Ordering::Relaxed);
            for writer in writers {
                writer.await.expect("no writer panics");
            }
        }
    });
}

#[test]
fn a_stream_of_raw_entries_ends_when_its_key_may_not_read_everything_any_more() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let key = reader_key(&a).await;
        let raw = StreamEventsRequest { view: EventView::Raw as i32, ..from(0) };
        let mut stream = a.caller_on_new_connection(&key.token).stream(raw).await.unwrap();
        let less = vec![grant("audit.read", "logs/keyledger/lifecycle")];
        let less =
            UpdateKeyRequest { grants: less, ..update(&key.key.unwrap().key_id, &["grants"]) };
        let less = b.admin().call(less).await.unwrap().position.unwrap();
        let mut heard = Heard::default();
        let end = loop {
            match stream.message().await {
                Ok(reply) => heard.hear(reply.expect("it ends with why")),
                Err(status) => break status,
            }
            assert!(heard.next <= less, "what it may not read any more is not sent");
        };
        let end = refused::<()>(Err(end));
        assert_eq!(end.metadata["resource"], "logs/**");
        end.with(Code::PermissionDenied, ErrorReason::PermissionDenied);
    });
}

/// Why a stream ends. What ended it, at `last`, and all that came later is not told.
async fn end_of(stream: &mut Streaming<StreamEventsResponse>, last: Option<u64>) -> Refused {
    loop {
        match stream.message().await {
            Ok(reply) => {
                let told = reply.expect("it ends with why").event.and_then(|e| e.position);
                assert!(told < last || last.is_none(), "{told:?} is told, {last:?} ended it");
            }
            Err(status) => return refused::<()>(Err(status)),
        }
    }
}

#[test]
fn a_stream_ends_when_its_key_is_suspended_or_expires_whichever_replica_did_it() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let open = async |category: &str| {
            let key = reader_key(&b).await;
            let request = StreamEventsRequest { category: category.into(), ..from(0) };
            let stream = a.caller_on_new_connection(&key.token).stream(request).await.unwrap();
            (key.key.unwrap().key_id, stream)
        };
        // One that is given much, and one that is given nothing.
        for category in ["", "nobody/records/this"] {
            let (key_id, mut stream) = open(category).await;
            let suspended = b.admin().call(suspend(&key_id)).await.unwrap().position;
            let why = end_of(&mut stream, suspended).await;
            why.with(Code::Unauthenticated, ErrorReason::KeyEnded);

            let (key_id, mut stream) = open(category).await;
            let soon = update_key_request::Expiry::Ttl(seconds(1));
            let soon = UpdateKeyRequest { expiry: Some(soon), ..update(&key_id, &["expiry"]) };
            b.admin().call(soon).await.unwrap();
            let why = end_of(&mut stream, None).await;
            why.with(Code::Unauthenticated, ErrorReason::KeyEnded);
        }
    });
}

#[test]
fn a_stream_ends_when_its_key_loses_the_permission_by_itself_or_by_a_role() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let admin = b.admin();
        let reads = || vec![grant("audit.read", "logs/error")];
        for name in ["readers", "others"] {
            admin.call(role(name, reads())).await.unwrap();
        }
        let by_itself = admin.call(service_key("siem", reads())).await.unwrap();
        let mut keys = vec![by_itself];
        for name in ["readers", "others"] {
            let by_role =
                CreateKeyRequest { roles: vec![name.into()], ..service_key("siem", vec![]) };
            keys.push(admin.call(by_role).await.unwrap());
        }
        let errors = StreamEventsRequest { category: "error".into(), ..from(0) };
        let mut streams = vec![];
        for key in &keys {
            let reader = a.caller_on_new_connection(&key.token);
            streams.push(reader.stream(errors.clone()).await.unwrap());
        }
        let less = update(&keys[0].key.as_ref().unwrap().key_id, &["grants"]);
        let other = vec![grant("audit.read", "logs/warning")];
        let lost = [
            admin.call(less).await.unwrap().position,
            admin.call(retire_role("readers")).await.unwrap().position,
            admin.call(update_role("others", other)).await.unwrap().position,
        ];
        for (mut stream, lost) in streams.into_iter().zip(lost) {
            let why = end_of(&mut stream, lost).await;
            let asked = (&*why.metadata["permission"], &*why.metadata["resource"]);
            assert_eq!(asked, ("audit.read", "logs/error"));
            why.with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        }
    });
}

#[test]
fn a_quiet_stream_tells_where_it_is_and_a_checkpoint_that_verifies() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let key = reader_key(&a).await;
        let mut stream = a.caller_on_new_connection(&key.token).stream(from(0)).await.unwrap();
        let made = b.admin().call(user_key("alice@example.com")).await.unwrap();
        let position = made.position.unwrap();
        let mut heard = Heard::default();
        let note = loop {
            let reply = stream.message().await.unwrap().expect("it goes on for ever");
            let quiet = reply.event.is_none().then(|| reply.checkpoint.clone());
            heard.hear(reply);
            match quiet {
                Some(note) if !note.is_empty() && heard.next > position => break note,
                _ => {}
            }
        };
        let theirs = b.admin().call(GetCheckpointRequest {}).await.unwrap();
        let key = NoteKey::parse_vkey(&theirs.verifier_key).unwrap();
        let checkpoint = note::open(&note, &key).unwrap();
        assert!(checkpoint.size > 0 && checkpoint.size <= theirs.size);

        let pin = d.key_dir().with_file_name("pinned.note");
        fs::write(&pin, note).unwrap();
        let verify = ["verify", "--database-url", "--ledger", "default", "--pin"].map(String::from);
        let verified = d.run(verify.into_iter().chain([pin.display().to_string()])).await;
        assert!(verified.status.success(), "{}", verified.text);
    });
}

#[test]
fn a_reader_goes_on_at_next_position_after_its_server_was_killed_without_loss_or_repeat() {
    scenario(async |d| {
        let b = d.replica().await;
        let key = reader_key(&b).await;
        let done = Arc::new(AtomicBool::new(false));
        let writer = tokio::spawn(write_until(b.clone(), done.clone()));
        let mut heard = Heard::default();
        for _ in 0..4 {
            let a = d.replica().await;
            let reader = a.caller_on_new_connection(&key.token);
            let mut stream = reader.stream(from(heard.next)).await.unwrap();
            let enough = heard.events.len() + 40;
            while heard.events.len() < enough {
                heard.hear(stream.message().await.unwrap().expect("it goes on for ever"));
            }
            a.kill().await;
            // What had been sent may still come.
            while let Ok(Some(reply)) = stream.message().await {
                heard.hear(reply);
            }
            heard.break_off();
        }
        done.store(true, Ordering::Relaxed);
        writer.await.expect("the writer doesn't panic");
        let before_the_last = heard.events.len();
        let to_the_head = StreamEventsRequest { stop_at_head: true, ..from(heard.next) };
        let reader = b.caller_on_new_connection(&key.token);
        let mut stream = reader.stream(to_the_head).await.unwrap();
        while let Some(reply) = stream.message().await.unwrap() {
            heard.hear(reply);
        }
        let given = heard.events.len() - before_the_last;
        assert_eq!(heard.events, before_its_end(&d.records(1).await, given));
    });
}

/// What a reader has heard. The cursor moves past an entry with the last of its events: what came of an entry before a
/// break, without that, comes again.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) events: Vec<Address>,
    begun: Vec<Address>,
    pub(crate) next: u64,
}

impl Heard {
    #[track_caller]
    pub(crate) fn hear(&mut self, reply: StreamEventsResponse) {
        let next = reply.next_position.expect("every reply tells the cursor");
        assert!(next >= self.next, "the cursor never moves back");
        if let Some(event) = reply.event {
            let position = event.position.expect("every event tells its position");
            assert!(next == position || next == position + 1, "{next} after {position}");
            self.begun.push((position, event.index));
        }
        self.next = next;
        let (whole, begun) = self.begun.drain(..).partition(|(position, _)| *position < next);
        self.begun = begun;
        self.events.extend::<Vec<Address>>(whole);
    }

    pub(crate) fn break_off(&mut self) {
        self.begun.clear();
    }
}

fn from(position: u64) -> StreamEventsRequest {
    StreamEventsRequest { from_position: Some(position), ..StreamEventsRequest::default() }
}

/// A key that may read everything.
async fn reader_key(replica: &Replica) -> CreateKeyResponse {
    let request = service_key("siem", vec![grant("audit.read", "logs/**")]);
    replica.admin().call(request).await.unwrap()
}

/// Changes and uses.
async fn write(replica: Arc<Replica>, rounds: usize) {
    for _ in 0..rounds {
        write_once(&replica).await;
    }
}

async fn write_until(replica: Arc<Replica>, done: Arc<AtomicBool>) {
    while !done.load(Ordering::Relaxed) {
        write_once(&replica).await;
    }
}

async fn write_once(replica: &Replica) {
    let admin = replica.admin();
    let made = admin.call(user_key("alice@example.com")).await.unwrap();
    let checks = (0..4).map(|_| admin.call(check(&made.token)));
    for verdict in futures_util::future::join_all(checks).await {
        verdict.unwrap();
    }
}

/// What there is before the end of a stream, which is the newest record and says how many events the stream gave.
fn before_its_end(records: &[Record], given: usize) -> Vec<Address> {
    let (end, before) = records.split_last().expect("the stream left something");
    assert_eq!(end.as_use().returned, Some(given as u64));
    addresses(before)
}

fn addresses(records: &[Record]) -> Vec<Address> {
    records.iter().map(Record::address).collect()
}
