//! Names of telemetry that this crate writes: the same as those of the server, whose spans lie beside them in every trace.

/// The key a call is about, a UUID.
pub const KEY_ID: &str = "keyledger.key.id";
/// Which of its secrets was presented: 1, 2, 3 …
pub const KEY_VERSION: &str = "keyledger.key.version";
/// Position of the page that records the use.
pub const ENTRY_POSITION: &str = "keyledger.entry.position";
/// `allow` or `deny`.
pub const DECISION: &str = "keyledger.decision";
/// Why: the name of a `DecisionReason` without its prefix, such as `NO_GRANT`.
pub const REASON_CODE: &str = "keyledger.reason_code";
