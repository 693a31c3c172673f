//! The wire: generated messages and clients, the method options, and the only conversions between wire and core.

#[allow(clippy::all, unreachable_pub)]
mod generated {
    tonic::include_proto!("keyledger.v1");
}

pub use generated::*;
pub use keyledger_ledger::body as entry;

pub mod document;
pub mod export;
pub mod findings;
pub mod json;
pub mod methods;
pub mod parse;
pub mod permissions;
mod redacted;
pub mod review;
pub mod show;

/// The descriptors of everything we serve, with comments and options.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
