//! What a server refuses to work with, and what it does while strangers flood it.

use std::collections::BTreeMap;
use std::process::Stdio;

use futures_util::future::join_all;
use keyledger_ledger::body::{Decision, DecisionReason, Event, Kind, Use};
use keyledger_ledger::page::read_uses;
use keyledger_proto::*;
use tonic::{Code, Status};

use crate::harness::*;

#[test]
fn plaintext_off_loopback_is_refused() {
    scenario(async |d| {
        let mark = d.mark().await;
        let mut serve = d.program();
        serve.args(["serve", "--listen", "0.0.0.0:0"]).stdin(Stdio::null()).kill_on_drop(true);
        let output = serve.output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        assert!(text.contains("plaintext gRPC off loopback is refused"), "{text}");
        assert!(d.since(&mark).await.is_empty(), "not even a start is recorded");
    });
}

#[test]
fn a_database_that_may_lose_what_it_acknowledged_is_refused_and_the_setting_is_named() {
    scenario(async |d| {
        for superuser in [d.superuser().await, d.sealing_superuser().await] {
            let name: String =
                superuser.query_one("SELECT current_database()", &[]).await.unwrap().get(0);
            let set = format!("ALTER DATABASE {name} SET synchronous_commit = off");
            superuser.batch_execute(&set).await.unwrap();
            let why = d.try_replica(d.databases(), &d.key_dir()).await.err().expect("it refuses");
            assert!(why.contains("synchronous_commit is off"), "{why}");
            let reset = format!("ALTER DATABASE {name} RESET synchronous_commit");
            superuser.batch_execute(&reset).await.unwrap();
        }
        d.replica().await;
    });
}

#[test]
fn callers_without_a_deadline_are_answered_all_the_same_while_the_database_is_frozen() {
    scenario(async |d| {
        let link = Link::new(d);
        let replica = d.replica_on(&link.databases).await;
        let made = replica.admin().call(user_key("alice@example.com")).await.unwrap();
        link.freeze();
        let waiting = (0..200).map(|_| {
            let (caller, question) = (replica.admin(), check(&made.token));
            tokio::spawn(async move { caller.call(question).await })
        });
        for answer in join_all(waiting).await {
            let refusal = refused(answer.unwrap());
            assert!(refusal.code == Code::Unavailable && refusal.retry, "{refusal:?}");
        }
        link.restore();
        let mut changes = replica.health().watch(health_check()).await.unwrap().into_inner();
        while changes.message().await.unwrap().expect("it goes on for ever").status != SERVING {}
        let verdict = replica.admin().call(check(&made.token)).await.unwrap();
        assert_eq!(verdict.decision(), Decision::Allow);
    });
}

const SERVING: i32 = tonic_health::ServingStatus::Serving as i32;

fn health_check() -> tonic_health::pb::HealthCheckRequest {
    tonic_health::pb::HealthCheckRequest { service: "keyledger.v1.KeyService".into() }
}

/// Connections of strangers, calls at once on each, and how often. Together fewer at once than the server takes.
const CONNECTIONS: usize = 20;
const AT_ONCE: usize = 20;
const WAVES: usize = 4;
/// Far more at once than the server takes.
const BURST: usize = 1_500;

#[test]
fn strangers_who_flood_the_server_leave_exact_counts_in_few_rows_and_keep_nobody_waiting() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let made = admin.call(user_key("alice@example.com")).await.unwrap();
        let good = tokio::spawn({
            let (caller, token) = (replica.caller_on_new_connection(&d.tokens.admin), made.token);
            async move {
                for _ in 0..200 {
                    let verdict = caller.call(check(&token)).await.unwrap();
                    assert_eq!(verdict.decision(), Decision::Allow);
                }
            }
        });
        let strangers: Vec<Caller> = (0..CONNECTIONS)
            .map(|n| replica.caller_on_new_connection(&format!("klk_of-nobody-{n}")))
            .collect();
        let mut told = Told::default();
        for _ in 0..WAVES {
            told.flood(strangers.iter().cycle().take(CONNECTIONS * AT_ONCE)).await;
        }
        assert_eq!((told.refused, told.shed), ((CONNECTIONS * AT_ONCE * WAVES) as u64, 0));
        told.flood(strangers.iter().cycle().take(BURST)).await;
        good.await.expect("the good caller is answered throughout");
        // The next page of ledger 0 says how many were shed since the last.
        replica.system_admin().call(WhoAmIRequest {}).await.unwrap();

        println!("{} refused, {} shed", told.refused, told.shed);
        let pages = pages(d).await;
        assert_eq!(pages.iter().map(|p| p.shed).sum::<u64>(), told.shed);
        let mut counted = 0;
        let mut seconds: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
        for (page, r#use) in pages.iter().flat_map(|p| p.uses.iter().map(move |u| (p, u))) {
            if verdict(r#use).1 != DecisionReason::Malformed {
                continue;
            }
            counted += u64::from(r#use.count.max(1));
            let (single, folded) = seconds.entry(page.second).or_default();
            *(if r#use.count == 0 { single } else { folded }) += 1;
        }
        assert_eq!(counted, told.refused, "each refusal is counted once");
        for (second, (single, folded)) in seconds {
            assert!(single <= 10 && folded <= 1, "{single} + {folded} rows in second {second}");
        }
    });
}

/// What strangers were told.
#[derive(Default)]
struct Told {
    refused: u64,
    shed: u64,
}

impl Told {
    async fn flood<'a>(&mut self, strangers: impl Iterator<Item = &'a Caller>) {
        let calls = strangers.map(|stranger| {
            let stranger = stranger.clone();
            tokio::spawn(async move { stranger.call(WhoAmIRequest {}).await })
        });
        for answer in join_all(calls).await {
            self.note(answer.expect("no call panics"));
        }
    }

    fn note(&mut self, answer: Result<WhoAmIResponse, Status>) {
        let refusal = refused(answer);
        match refusal.code {
            Code::Unauthenticated => self.refused += 1,
            _ => {
                assert!(refusal.with(Code::Unavailable, ErrorReason::Overloaded).retry);
                self.shed += 1;
            }
        }
    }
}

/// A page of uses of ledger 0.
struct Page {
    second: i64,
    shed: u64,
    uses: Vec<Use>,
}

async fn pages(d: &Deployment) -> Vec<Page> {
    let entries = "SELECT body, uses FROM entries JOIN ledgers USING (ledger_id)
                   WHERE number = 0 ORDER BY position";
    let rows = d.superuser().await.query(entries, &[]).await.unwrap();
    let page = |row: &tokio_postgres::Row| {
        let event = Event::from_signed(row.get(0)).unwrap();
        let Some(Kind::UsePage(page)) = &event.kind else { return None };
        let uses = read_uses(page, row.get(1)).unwrap();
        Some(Page {
            second: event.time_us.div_euclid(1_000_000),
            shed: page.shed,
            uses: uses.into_iter().map(|read| read.r#use).collect(),
        })
    };
    rows.iter().filter_map(page).collect()
}
