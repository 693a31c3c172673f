//! `kill -9` of servers at random moments under load loses no acknowledged change and duplicates none.
//!
//! 20 kills; `KEYLEDGER_KILLS=500 cargo test -p keyledger-tests --test scenarios crash` runs more. What is random follows
//! from a number that is printed; `KEYLEDGER_SEED` sets it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use keyledger_ledger::body::{Decision, Kind};
use keyledger_proto::*;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::harness::*;

const CALLERS: u64 = 12;
/// Between two kills so many answers are given, at most.
const ANSWERS_BETWEEN_KILLS: u64 = 120;

#[test]
fn servers_killed_at_random_moments_lose_no_acknowledged_change_and_duplicate_none() {
    scenario(async |d| {
        let seed = setting("KEYLEDGER_SEED").unwrap_or(Uuid::new_v4().as_u64_pair().0);
        println!("KEYLEDGER_SEED={seed}");
        let mut random = Random(seed);
        let world = Arc::new(World {
            replicas: [d.replica().await, d.replica().await].map(Mutex::new),
            answers: watch::Sender::new(0),
            stop: AtomicBool::new(false),
        });
        let tokens = join_all((0..CALLERS).map(|n| service(world.replica(0).admin(), n))).await;
        let mut callers = JoinSet::new();
        for (token, number) in tokens.into_iter().zip(0..) {
            let random = Random(random.next());
            let journal = Journal { number, attempts: 0, changes: vec![], verdicts: vec![] };
            callers.spawn(Working { world: world.clone(), token, random, journal }.run());
        }

        for _ in 0..setting("KEYLEDGER_KILLS").unwrap_or(20) {
            let mut answers = world.answers.subscribe();
            let moment = *answers.borrow() + random.below(ANSWERS_BETWEEN_KILLS);
            tokio::select! {
                told = answers.wait_for(|answers| *answers >= moment) => drop(told.unwrap()),
                Some(ended) = callers.join_next() => panic!("a caller has ended: {:?}", ended.err()),
            }
            let killed = random.below(2) as usize;
            world.replica(killed).kill().await;
            world.put(killed, d.replica().await);
        }
        world.stop.store(true, Ordering::Relaxed);

        let journals = callers.join_all().await;
        let records = d.records(1).await;
        each_change_is_there_once(&journals, &records);
        each_verdict_is_there(&journals, &records);
        let sum = |count: fn(&Journal) -> u64| journals.iter().map(count).sum::<u64>();
        println!(
            "{} changes and {} verdicts, answered after {} attempts",
            sum(|j| j.changes.len() as u64),
            sum(|j| j.verdicts.len() as u64),
            sum(|j| j.attempts),
        );
    });
}

fn setting(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn each_change_is_there_once(journals: &[Journal], records: &[Record]) {
    let mut found: BTreeMap<Vec<u8>, (u64, &'static str)> = BTreeMap::new();
    for record in records {
        let Record::Change { position, event } = record else { continue };
        if event.request_id.is_empty() {
            continue;
        }
        let kind = event.kind.as_ref().map_or("", Kind::name);
        let earlier = found.insert(event.request_id.clone(), (*position, kind));
        assert_eq!(earlier, None, "a request was carried out twice: {event:?}");
    }
    for change in journals.iter().flat_map(|j| &j.changes) {
        let made = found.remove(&change.request_id.as_bytes()[..]);
        assert_eq!(made, Some((change.position, change.kind)), "request {}", change.request_id);
    }
    assert_eq!(found, BTreeMap::new(), "every change was asked for and, at last, answered");
}

fn each_verdict_is_there(journals: &[Journal], records: &[Record]) {
    let mut found = BTreeMap::new();
    for record in records {
        let Record::Use { position, index, r#use } = record else { continue };
        if r#use.method == "KeyService/VerifyKey" {
            let use_ = (*position, *index, verdict(r#use).0);
            let earlier = found.insert(r#use.trace_id.clone(), use_);
            assert_eq!(earlier, None, "a check was recorded twice: {use:?}");
        }
    }
    for (trace, told) in journals.iter().flat_map(|j| &j.verdicts) {
        assert_eq!(found.get(&trace.to_be_bytes()[..]), Some(told));
    }
}

/// A key that may make keys, check, rotate and revoke them.
async fn service(admin: Caller, number: u64) -> String {
    let rights = [("keys.*", "keys"), ("keys.*", "keys/**"), ("audit.read", "logs/**")];
    let grants = rights.map(|(permission, resource)| grant(permission, resource)).to_vec();
    let mut request = service_key(&format!("service-{number}"), grants);
    request.expiry = Some(create_key_request::Expiry::Ttl(seconds(86_400)));
    admin.call(request).await.unwrap().token
}

/// The replicas that are running, or starting again.
struct World {
    replicas: [Mutex<Arc<Replica>>; 2],
    answers: watch::Sender<u64>,
    stop: AtomicBool,
}

impl World {
    fn replica(&self, number: usize) -> Arc<Replica> {
        self.replicas[number].lock().expect("no holder of this lock panics").clone()
    }

    fn put(&self, number: usize, replica: Arc<Replica>) {
        *self.replicas[number].lock().expect("no holder of this lock panics") = replica;
    }
}

/// What a caller has asked and been answered.
struct Journal {
    number: u64,
    attempts: u64,
    changes: Vec<AnsweredChange>,
    /// By trace id: position, index and decision.
    verdicts: Vec<(u128, (u64, u32, Decision))>,
}

struct AnsweredChange {
    request_id: Uuid,
    kind: &'static str,
    position: u64,
}

/// One of the callers.
struct Working {
    world: Arc<World>,
    token: String,
    random: Random,
    journal: Journal,
}

impl Working {
    async fn run(mut self) -> Journal {
        while !self.world.stop.load(Ordering::Relaxed) {
            let id = self.request_id();
            let mut create = user_key(&format!("person-{}@example.com", self.random.below(1_000)));
            create.request_id = id.to_string();
            let made = self.until_answered(&create).await;
            self.note(id, "key.created", made.position);
            let key_id = made.key.expect("the reply names the key").key_id;
            // A repeated request is answered without the secret.
            self.check(&made.token, Decision::Allow).await;

            let id = self.request_id();
            let rotate = RotateKeyRequest { request_id: id.to_string(), ..rotate(&key_id, 600) };
            let rotated = self.until_answered(&rotate).await;
            self.note(id, "key.rotated", rotated.position);
            self.check(&rotated.token, Decision::Allow).await;

            let id = self.request_id();
            let revoke = RevokeKeyRequest { request_id: id.to_string(), ..revoke(&key_id) };
            let revoked = self.until_answered(&revoke).await;
            self.note(id, "key.revoked", revoked.position);
            self.check(&rotated.token, Decision::Deny).await;
        }
        self.journal
    }

    fn request_id(&mut self) -> Uuid {
        uuid::Builder::from_random_bytes(
            [self.random.next().to_be_bytes(), self.random.next().to_be_bytes()]
                .concat()
                .try_into()
                .expect("two times eight bytes"),
        )
        .into_uuid()
    }

    fn note(&mut self, request_id: Uuid, kind: &'static str, position: Option<u64>) {
        let position = position.expect("the reply names the position");
        self.journal.changes.push(AnsweredChange { request_id, kind, position });
    }

    async fn check(&mut self, token: &str, decision: Decision) {
        if token.is_empty() {
            return;
        }
        let verdict = self.until_answered(&check(token)).await;
        assert_eq!(verdict.decision(), decision, "{verdict:?}");
        let address = (verdict.position.unwrap(), verdict.index.unwrap(), decision);
        self.journal.verdicts.push((self.trace(), address));
    }

    /// Asks one replica after the other, until one answers.
    async fn until_answered<R: Rpc + Clone>(&mut self, request: &R) -> R::Reply {
        loop {
            self.journal.attempts += 1;
            let replica = self.world.replica(self.random.below(2) as usize);
            let traceparent = format!("00-{:032x}-{:016x}-01", self.trace(), 1);
            let caller = replica.caller(&self.token).with_header("traceparent", &traceparent);
            match caller.call(request.clone()).await {
                Ok(reply) => {
                    self.world.answers.send_modify(|answers| *answers += 1);
                    return reply;
                }
                Err(status) => must_be_repeated(&status),
            }
        }
    }

    /// The trace id of the newest attempt.
    fn trace(&self) -> u128 {
        (u128::from(self.journal.number + 1) << 64) + u128::from(self.journal.attempts)
    }
}

/// Either the server says that a retry helps, or the connection to it broke.
fn must_be_repeated(status: &Status) {
    let details = status.get_error_details();
    match details.error_info() {
        Some(_) => assert!(
            status.code() == Code::Unavailable && details.retry_info().is_some(),
            "{status:?}"
        ),
        None => assert!(
            matches!(
                status.code(),
                Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal
            ),
            "{status:?}"
        ),
    }
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
