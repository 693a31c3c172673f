//! Scenarios over a real Postgres, real server processes and real gRPC. How to write one stands on top of the harness.

#[path = "../harness/mod.rs"]
mod harness;

mod bad_input;
mod crash;
mod ledgers;
mod paging;
mod repeats;
mod replicas;
mod revocation;
mod roles;
mod session;
mod starting;
mod storage_away;
mod tampering;
mod tidy;
