//! Names of telemetry attributes. Ours begin with `keyledger.` and follow the entities of the design (key, entry, …); the
//! others are those of the OpenTelemetry semantic conventions for RPC. `tracing` takes field names as literals, so spans
//! repeat them: this list is what they must agree with, and a test of the tree holds them to it.

/// Names that spans and logs may use.
pub const ATTRIBUTES: &[&str] = &[
    // The key a call is about, a UUID.
    "keyledger.key.id",
    // Position of the entry or page that a call left.
    "keyledger.entry.position",
    // OpenTelemetry RPC: `keyledger.v1.KeyService/CreateKey`.
    "rpc.method",
    // OpenTelemetry RPC: `grpc`.
    "rpc.system.name",
];
