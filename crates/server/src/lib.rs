//! The Keyledger service: the shell around the pure core.
//!
//! A request reads downwards: [`grpc`] (gate, then handler) → [`sequencer`] → `keyledger_ledger::batch` → `decide`.

pub mod config;
pub mod dev;
pub mod embedded;
pub mod forward;
pub mod init;
pub mod inspect;
pub mod keydir;
pub mod names;
pub mod serve;
pub mod streams;
pub mod telemetry;

mod event_names;
mod findings;
mod grpc;
mod last_uses;
mod observer;
mod recent;
mod replica;
mod scrubber;
mod sealing;
mod sequencer;
mod slow_hash;
mod store;

pub use sequencer::bulk;
pub use store::StoreError;
