//! The harness of all scenarios: real server processes on a real Postgres, called over real gRPC.
//!
//! A scenario is a test function around [`scenario`], which gives it a [`Deployment`] of its own and, when the story has
//! been told, always does the same: stops the servers (each must end well), fails if one of them panicked or met "a bug
//! of ours", verifies every ledger as a whole with all texts opened, and looks for every secret of the scenario in all
//! logs (Postgres's too) and in every column of both databases.
//!
//! ```ignore
//! #[test]
//! fn a_revoked_key_is_refused() {
//!     scenario(async |d| {
//!         let replica = d.replica().await;                      // a process: freeze(), thaw(), kill(), stop(), log()
//!         let admin = replica.admin();                          // a Caller with the admin token of ledger `default`
//!         let made = admin.call(user_key("alice@example.com")).await.unwrap();
//!         admin.call(revoke(&made.key.unwrap().key_id)).await.unwrap();
//!         refused(replica.caller(&made.token).call(WhoAmIRequest {}).await)   // status details, as programs read them
//!             .with(Code::Unauthenticated, ErrorReason::CredentialInvalid);
//!     });
//! }
//! ```
//!
//! - Whatever goes through a [`Caller`] is noted as secret by itself (tokens, reasons, names, addresses). What a scenario
//!   learns otherwise it notes with `d.secrets.token(…)`, `.text(…)` or `.bytes(…)`.
//! - `d.mark()` and `d.since(&mark)` tell what calls left in which ledger, read straight from the database.
//! - `d.superuser()` and `d.sealing_superuser()` may do everything; who damages a ledger says `d.expect_damage("default")`,
//!   and then that ledger must *not* verify at the end.
//! - `d.run(["verify", …])` runs any command of the program under test; `d.try_replica(…)` starts a server that may refuse.
//! - [`Collector`] receives spans, metrics and log records by OTLP, and can refuse or stall.
//! - [`Spans`] are what it got from servers that have stopped.
//! - [`Link`] stands between one replica and Postgres, and can be frozen or cut.
//!
//! No retries, no sleeps to wait for something, no assertion about time: wait for what must happen, however long it takes.
//! With `KEYLEDGER_TESTS_KEEP=1` the folder of the run stays, with all logs.

mod aged;
mod browser;
mod caller;
mod collector;
mod deployment;
mod finish;
mod link;
mod postgres;
mod refused;
mod replica;
mod requests;
mod rpc;
mod secrets;
mod spans;
mod statements;
mod trail;

use std::panic::{AssertUnwindSafe, resume_unwind};

use futures_util::FutureExt;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

pub(crate) use browser::Browser;
pub(crate) use caller::Caller;
pub(crate) use collector::Collector;
pub(crate) use deployment::Deployment;
pub(crate) use link::Link;
pub(crate) use refused::{Refused, refused};
pub(crate) use replica::Replica;
pub(crate) use requests::*;
pub(crate) use rpc::Rpc;
pub(crate) use spans::{Spans, number, text};
pub(crate) use trail::{Mark, Record, verdict};

/// The program under test, built by cargo before the tests.
const PROGRAM: &str = env!("CARGO_BIN_EXE_keyledger-under-test");

/// Most scenarios at once, however many threads there are: they share the connections of one Postgres.
static PLACES: Semaphore = Semaphore::const_new(8);

/// Tells a story on a deployment of its own, then checks what every scenario must leave behind.
pub(crate) fn scenario(story: impl AsyncFnOnce(&Deployment)) {
    // Started before there is a runtime of ours: it takes seconds, once.
    postgres::postgres();
    runtime().block_on(async {
        let _place = PLACES.acquire().await.expect("nobody closes it");
        let deployment = Deployment::new().await;
        match AssertUnwindSafe(story(&deployment)).catch_unwind().await {
            Ok(()) => deployment.finish().await,
            Err(panic) => {
                deployment.give_up().await;
                resume_unwind(panic);
            }
        }
    });
}

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads can be started")
}
