//! Scenarios over a real Postgres, real server processes and real gRPC. How to write one stands on top of the harness.

#[path = "../harness/mod.rs"]
mod harness;

mod ledgers;
mod paging;
mod repeats;
mod roles;
mod session;
mod tidy;
