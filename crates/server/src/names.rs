//! Names of telemetry. Ours begin with `keyledger.` and follow the entities of the design (key, entry, …); the others are those of
//! the OpenTelemetry semantic conventions, of the version that the schema URL names. No other file holds such a name: a test of
//! the tree sees to it.

/// The semantic conventions that spans and metrics follow.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.40.0";

/// The key a call is about, a UUID.
pub const KEY_ID: &str = "keyledger.key.id";
/// Position of the entry or page that a call left.
pub const ENTRY_POSITION: &str = "keyledger.entry.position";

/// OpenTelemetry RPC: `keyledger.v1.KeyService/CreateKey`.
pub const RPC_METHOD: &str = "rpc.method";
/// OpenTelemetry RPC: `grpc`.
pub const RPC_SYSTEM_NAME: &str = "rpc.system.name";
