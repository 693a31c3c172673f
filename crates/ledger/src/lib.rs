//! The pure core of Keyledger: ids, tokens, grants, lifecycle, canonical bytes, signatures, Merkle tree and the verifier.
//!
//! Here is everything that can be decided from values alone. There is no clock, no randomness, no I/O and no async: time,
//! random bytes and keys are arguments. The server and an auditor's offline verification run this same code.
//!
//! Read it in this order: [`body`] (what is signed), [`entry`] (how), [`state`] and [`apply`] (what it means),
//! [`decide`] (what is allowed), [`batch`] (how a batch of commands becomes entries), [`verify`] (how anyone checks it).

pub mod anomaly;
pub mod apply;
pub mod batch;
pub mod body;
pub mod bounded;
pub mod category;
pub mod command;
pub mod decide;
pub mod entry;
pub mod export;
pub mod facets;
pub mod findings;
pub mod grant;
pub mod id;
pub mod idle;
pub mod imported;
pub mod judge;
pub mod merkle;
pub mod monitor;
pub mod note;
pub mod page;
pub mod permissions;
pub mod policy;
pub mod producer;
pub mod proof;
pub mod record;
pub mod refusals;
pub mod reports;
pub mod restrict;
pub mod roles;
pub mod scrub;
pub mod secret;
pub mod state;
pub mod terms;
pub mod text;
pub mod token;
pub mod tree;
pub mod usage;
pub mod verify;
