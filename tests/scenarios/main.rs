//! Scenarios over a real Postgres, real server processes and real gRPC. How to write one stands on top of the harness.

#[path = "../harness/mod.rs"]
mod harness;

mod access;
mod append_only;
mod bad_input;
mod batches;
mod crash;
mod ends;
mod event_pages;
mod every_method;
mod frozen;
mod hand_on;
mod import_rules;
mod imports;
mod ladder;
mod last_uses;
mod ledgers;
mod lifecycle;
mod limits;
mod many_keys;
mod memory;
mod offline;
mod outage;
mod paging;
mod past;
mod permissions;
mod policy;
mod recorded;
mod records;
mod repeats;
mod replicas;
mod revocation;
mod roles;
mod rotation;
mod session;
mod spans;
mod starting;
mod storage_away;
mod streams;
mod sweep;
mod tampering;
mod tidy;
mod watch_keys;
mod watched;
mod world;
