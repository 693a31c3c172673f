//! Two replicas on one ledger: Postgres orders them, and what one has answered the other knows at once.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use keyledger_ledger::body::{Decision, DecisionReason};
use keyledger_proto::*;

use crate::harness::*;

const CALLERS: u64 = 64;
/// Each round of a caller is six calls.
const ROUNDS: u64 = 6;

/// What a call must have left in the ledger, as its caller was told.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    /// At this position.
    Change(u64),
    /// At this position and index.
    Verdict(u64, u32, Decision),
    /// Reads are recorded too, but their callers aren't told where.
    Read,
}

#[test]
fn sixty_four_callers_on_two_replicas_find_each_answer_in_the_ledger_exactly_once() {
    scenario(async |d| {
        let replicas = [d.replica().await, d.replica().await];
        let tokens = join_all((0..CALLERS).map(|n| service(replicas[0].admin(), n))).await;
        let mark = d.mark().await;
        let answered = join_all(tokens.iter().zip(0..).map(|(token, number)| {
            let callers = [0, 1].map(|r: usize| replicas[r].caller_on_new_connection(token));
            tokio::spawn(Working { callers, number, calls: 0, answered: BTreeMap::new() }.run())
        }));
        let mut answered: BTreeMap<u128, Left> =
            answered.await.into_iter().flat_map(|a| a.expect("no caller panics")).collect();
        assert_eq!(answered.len() as u64, CALLERS * ROUNDS * 6);

        let (_, records) = d.since_in_one(&mark).await;
        assert_eq!(records.len(), answered.len(), "no record without a call");
        for record in records {
            let (trace, found) = match &record {
                Record::Change { position, event } => (&event.trace_id, Left::Change(*position)),
                Record::Use { r#use, .. } if r#use.method == "KeyService/WhoAmI" => {
                    (&r#use.trace_id, Left::Read)
                }
                Record::Use { position, index, r#use } => {
                    (&r#use.trace_id, Left::Verdict(*position, *index, verdict(r#use).0))
                }
            };
            let trace = u128::from_be_bytes(trace[..].try_into().unwrap());
            assert_eq!(answered.remove(&trace), Some(found), "{record:?}");
        }
    });
}

/// A key that may make keys, check and rotate them.
async fn service(admin: Caller, number: u64) -> String {
    let rights = [("keys.*", "keys"), ("keys.*", "keys/**"), ("audit.read", "logs/**")];
    let grants = rights.map(|(permission, resource)| grant(permission, resource)).to_vec();
    let mut request = service_key(&format!("service-{number}"), grants);
    // It can't give a longer life than its own.
    request.expiry = Some(create_key_request::Expiry::Ttl(seconds(7200)));
    admin.call(request).await.unwrap().token
}

/// One of the callers, and what it was answered, by the trace id of each call.
struct Working {
    callers: [Caller; 2],
    number: u64,
    calls: u64,
    answered: BTreeMap<u128, Left>,
}

impl Working {
    /// Each call goes to the other replica than the call before, and builds on its answer.
    async fn run(mut self) -> BTreeMap<u128, Left> {
        for round in 0..ROUNDS {
            // All callers name the same new person at the same time: replicas must agree on who that is.
            let new = user_key(&format!("person-{round}@example.com"));
            let made = self.call(new, |made| Left::Change(made.position.unwrap())).await;
            let key_id = made.key.unwrap().key_id;
            self.check(&made.token, DecisionReason::Granted).await;
            let rotate = rotate(&key_id, 0);
            let rotated = self.call(rotate, |made| Left::Change(made.position.unwrap())).await;
            self.check(&made.token, DecisionReason::Superseded).await;
            self.check(&rotated.token, DecisionReason::Granted).await;
            self.call(WhoAmIRequest {}, |_| Left::Read).await;
        }
        self.answered
    }

    async fn check(&mut self, token: &str, reason: DecisionReason) {
        let left = |v: &VerifyKeyResponse| {
            Left::Verdict(v.position.unwrap(), v.index.unwrap(), v.decision())
        };
        let verdict = self.call(check(token), left).await;
        assert_eq!(verdict.reason(), reason);
    }

    async fn call<R: Rpc>(&mut self, request: R, left: impl Fn(&R::Reply) -> Left) -> R::Reply {
        self.calls += 1;
        let trace = (u128::from(self.number) << 64) + u128::from(self.calls);
        let caller = &self.callers[(self.number + self.calls) as usize % 2];
        let caller = caller.with_header("traceparent", &format!("00-{trace:032x}-{:016x}-01", 1));
        let reply = caller.call(request).await.unwrap();
        self.answered.insert(trace, left(&reply));
        reply
    }
}

#[test]
fn a_ledger_opened_through_one_replica_works_at_once_through_the_other() {
    scenario(async |d| {
        let replicas = [d.replica().await, d.replica().await];
        for number in 0..6 {
            let (a, b) = (&replicas[number % 2], &replicas[1 - number % 2]);
            let name = format!("team-{number}");
            let open = OpenLedgerRequest {
                name: name.clone(),
                reason: "a new team".into(),
                request_id: String::new(),
                ..Default::default()
            };
            let opened = a.system_admin().call(open).await.unwrap();
            let admin = b.caller(&opened.token);
            let me = admin.call(WhoAmIRequest {}).await.unwrap();
            assert_eq!(me.ledger.unwrap().name, name);
            let made = admin.call(user_key("alice@example.com")).await.unwrap();
            let verdict = a.caller(&opened.token).call(check(&made.token)).await.unwrap();
            assert_eq!(verdict.decision(), Decision::Allow);
        }
    });
}

#[test]
fn a_key_or_secret_made_through_one_replica_works_at_once_through_the_other() {
    scenario(async |d| {
        let replicas = [d.replica().await, d.replica().await];
        for round in 0..20 {
            let (a, b) = (&replicas[round % 2], &replicas[1 - round % 2]);
            let as_caller = a.admin().call(user_key("alice@example.com")).await.unwrap();
            b.caller(&as_caller.token).call(WhoAmIRequest {}).await.unwrap();
            let as_subject = a.admin().call(user_key("bob@example.com")).await.unwrap();
            let verdict = b.admin().call(check(&as_subject.token)).await.unwrap();
            assert_eq!(verdict.reason(), DecisionReason::Granted);

            let key_id = &as_caller.key.unwrap().key_id;
            let as_caller = a.admin().call(rotate(key_id, 0)).await.unwrap();
            b.caller(&as_caller.token).call(WhoAmIRequest {}).await.unwrap();
            let key_id = &as_subject.key.unwrap().key_id;
            let as_subject = a.admin().call(rotate(key_id, 600)).await.unwrap();
            let verdict = b.admin().call(check(&as_subject.token)).await.unwrap();
            assert_eq!(verdict.reason(), DecisionReason::Granted);
        }
    });
}

#[test]
fn what_is_said_about_a_person_is_sealed_under_their_key_also_by_a_replica_that_is_behind() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        for _ in 0..5 {
            let mark = d.mark().await;
            let made = a.admin().call(user_key("alice@example.com")).await.unwrap();
            b.admin().call(check(&made.token)).await.unwrap();
            let key_id = made.key.unwrap().key_id;
            a.admin().call(rotate(&key_id, 0)).await.unwrap();
            let another = a.admin().call(user_key("alice@example.com")).await.unwrap();
            b.admin().call(revoke(&another.key.unwrap().key_id)).await.unwrap();

            let (_, records) = d.since_in_one(&mark).await;
            let subjects = records.iter().map(|record| match record {
                Record::Change { event, .. } => event.texts[0].subject_ref.clone(),
                Record::Use { r#use, .. } => r#use.texts[0].subject_ref.clone(),
            });
            let subjects: BTreeSet<Vec<u8>> = subjects.collect();
            assert_eq!(subjects.len(), 1, "all of it is about alice: {records:#?}");
        }
    });
}
