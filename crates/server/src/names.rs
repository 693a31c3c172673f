//! Names of telemetry. Ours begin with `keyledger.` and follow the entities of the design (key, entry, …); the others are those of
//! the OpenTelemetry semantic conventions, of the version that the schema URL names. No other file holds such a name: a test of
//! the tree sees to it.

/// The semantic conventions that spans and metrics follow.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.40.0";

/// The key a call is about, a UUID.
pub const KEY_ID: &str = "keyledger.key.id";
/// The version of its secret.
pub const KEY_VERSION: &str = "keyledger.key.version";
/// Whose key it is: a random reference to a person, or the name of a service.
pub const SUBJECT_REF: &str = "keyledger.subject.ref";
/// The key of whoever calls.
pub const CALLER_KEY_ID: &str = "keyledger.caller.key.id";
/// Position of the entry or page that a call left.
pub const ENTRY_POSITION: &str = "keyledger.entry.position";
/// What it says: the name of an event.
pub const ENTRY_TYPE: &str = "keyledger.entry.type";
/// `allow` or `deny`.
pub const DECISION: &str = "keyledger.decision";
/// Why, such as `WRONG_SECRET`.
pub const REASON_CODE: &str = "keyledger.reason_code";
/// The ledger in which it stands, a UUID.
pub const LEDGER_ID: &str = "keyledger.ledger.id";
/// How long a call waited for its batch, in seconds.
pub const SEQUENCER_WAIT: &str = "keyledger.sequencer.wait";
/// How many commands the batch held.
pub const BATCH_SIZE: &str = "keyledger.batch.size";
/// The span of a batch.
pub const SPAN_BATCH: &str = "keyledger.sequencer.batch";

/// OpenTelemetry RPC: `keyledger.v1.KeyService/CreateKey`.
pub const RPC_METHOD: &str = "rpc.method";
/// OpenTelemetry RPC: `grpc`.
pub const RPC_SYSTEM_NAME: &str = "rpc.system.name";
/// OpenTelemetry RPC: `OK`, `NOT_FOUND`, …
pub const RPC_RESPONSE_STATUS_CODE: &str = "rpc.response.status_code";
/// OpenTelemetry RPC: the method of calls to one that doesn't exist.
pub const OTHER_METHOD: &str = "_OTHER";
/// OpenTelemetry: what kind of error it is.
pub const ERROR_TYPE: &str = "error.type";

/// OpenTelemetry resource: the service that exports.
pub const SERVICE_NAME: &str = "service.name";
/// OpenTelemetry resource: its version.
pub const SERVICE_VERSION: &str = "service.version";
/// OpenTelemetry resource: one process of it.
pub const SERVICE_INSTANCE_ID: &str = "service.instance.id";

// Names of events: what an entry, or a use of a page, tells of.
pub const EVENT_LEDGER_OPENED: &str = "keyledger.ledger.opened";
pub const EVENT_LEDGER_REGISTERED: &str = "keyledger.ledger.registered";
pub const EVENT_KEY_CREATED: &str = "keyledger.key.created";
pub const EVENT_KEY_ROTATED: &str = "keyledger.key.rotated";
pub const EVENT_KEY_REVOKED: &str = "keyledger.key.revoked";
pub const EVENT_ROLE_CREATED: &str = "keyledger.role.created";
pub const EVENT_SERVER_STARTED: &str = "keyledger.server.started";
pub const EVENT_KEY_USED: &str = "keyledger.key.used";
pub const EVENT_KEY_UPDATED: &str = "keyledger.key.updated";
pub const EVENT_KEY_SUSPENDED: &str = "keyledger.key.suspended";
pub const EVENT_KEY_RESUMED: &str = "keyledger.key.resumed";
pub const EVENT_ROLE_UPDATED: &str = "keyledger.role.updated";
pub const EVENT_ROLE_RETIRED: &str = "keyledger.role.retired";
pub const EVENT_KEY_EXPIRING: &str = "keyledger.key.expiring";
pub const EVENT_KEY_EXPIRED: &str = "keyledger.key.expired";
pub const EVENT_LEDGER_POLICY_UPDATED: &str = "keyledger.ledger.policy_updated";
pub const EVENT_KEY_ROTATION_DUE: &str = "keyledger.key.rotation_due";
pub const EVENT_KEY_ROTATION_COMPLETED: &str = "keyledger.key.rotation_completed";
pub const EVENT_PERMISSIONS_REGISTERED: &str = "keyledger.permissions.registered";
pub const EVENT_KEY_IMPORTED: &str = "keyledger.key.imported";
pub const EVENT_KEY_VERIFIER_MIGRATED: &str = "keyledger.key.verifier_migrated";
pub const EVENT_BOUNDED_STARTED: &str = "keyledger.bounded.started";
pub const EVENT_BOUNDED_ENDED: &str = "keyledger.bounded.ended";
pub const EVENT_EVENT_RECORDED: &str = "keyledger.event.recorded";
pub const EVENT_CATEGORY_COUNTED: &str = "keyledger.category.counted";
pub const EVENT_PRODUCER_KEYS_REGISTERED: &str = "keyledger.producer.keys_registered";
pub const EVENT_ANOMALY_RAISED: &str = "keyledger.anomaly.raised";
pub const EVENT_ANOMALY_ENDED: &str = "keyledger.anomaly.ended";
pub const EVENT_ANOMALY_ACKNOWLEDGED: &str = "keyledger.anomaly.acknowledged";
pub const EVENT_OWNER_STATUS_SET: &str = "keyledger.owner.status_set";
pub const EVENT_REVIEW_SIGNED: &str = "keyledger.review.signed";
pub const EVENT_NOTICE_DELIVERED: &str = "keyledger.notice.delivered";
pub const EVENT_FINDINGS_DIGESTED: &str = "keyledger.findings.digested";

/// Index of a use in its page.
pub const ENTRY_INDEX: &str = "keyledger.entry.index";
/// RFC 6962 leaf hash of an entry, in hexadecimal.
pub const ENTRY_LEAF_HASH: &str = "keyledger.entry.leaf_hash";
/// Ed25519 signature of an entry, in standard base64.
pub const ENTRY_SIGNATURE: &str = "keyledger.entry.signature";
/// Leaf hash of a use in the tree of its page, in hexadecimal.
pub const USE_LEAF_HASH: &str = "keyledger.use.leaf_hash";
/// How many equal uses one record counts, if more than one.
pub const USE_COUNT: &str = "keyledger.use.count";
/// The session in which a service reported a use that it answered by itself, a UUID: not a verdict of Keyledger.
pub const REPORT_SESSION_ID: &str = "keyledger.report.session.id";
/// Number of the use in that session.
pub const REPORT_NUMBER: &str = "keyledger.report.number";
/// Where the strict answer stands that the service kept.
pub const REPORT_ANSWER_POSITION: &str = "keyledger.report.answer.position";
pub const REPORT_ANSWER_INDEX: &str = "keyledger.report.answer.index";
/// What is doubtful of it, such as `STALE`; absent if nothing is.
pub const REPORT_DOUBTS: &str = "keyledger.report.doubts";
/// Category of an entry or use.
pub const CATEGORY: &str = "keyledger.category";
/// The method of a use, such as `KeyService/VerifyKey`.
pub const METHOD: &str = "keyledger.method";
/// The permission that a use asked for.
pub const PERMISSION: &str = "keyledger.permission";
/// What a use, or what another service recorded, was about.
pub const RESOURCE: &str = "keyledger.resource";
/// Who is said to have acted: the reference of a person, or the name of a service.
pub const ACTOR_REF: &str = "keyledger.actor.ref";
/// What another service recorded: what was done.
pub const ACTION: &str = "keyledger.action";
/// What another service recorded: what came of it.
pub const OUTCOME: &str = "keyledger.outcome";
/// The signed note of a checkpoint.
pub const CHECKPOINT_NOTE: &str = "keyledger.checkpoint.note";
/// The origin of a checkpoint.
pub const CHECKPOINT_ORIGIN: &str = "keyledger.checkpoint.origin";
/// How many entries a checkpoint covers: of a log record, and as a metric.
pub const CHECKPOINT_SIZE: &str = "keyledger.checkpoint.size";
/// The root of the tree of a checkpoint, in hexadecimal.
pub const CHECKPOINT_ROOT_HASH: &str = "keyledger.checkpoint.root_hash";

/// The name of the log record that closes an export.
pub const EVENT_CHECKPOINT: &str = "keyledger.checkpoint";

// What is read of log records that others send, besides what is ours.
/// Why something was done, in words: kept sealed.
pub const REASON: &str = "keyledger.reason";
/// OpenTelemetry log: what a record is known by.
pub const LOG_RECORD_UID: &str = "log.record.uid";
/// OpenTelemetry, before log records had a name of their own.
pub const EVENT_NAME: &str = "event.name";
/// Elastic Common Schema: `success`, `failure` or something else.
pub const EVENT_OUTCOME: &str = "event.outcome";
/// OpenTelemetry: the person for whom something was done, by two names.
pub const ENDUSER_ID: &str = "enduser.id";
pub const USER_ID: &str = "user.id";
/// OpenTelemetry: the client from which something was done.
pub const CLIENT_ADDRESS: &str = "client.address";
pub const USER_AGENT: &str = "user_agent.original";
pub const DEVICE_ID: &str = "device.id";
/// OpenTelemetry: the name of a scope, where a format has no scopes.
pub const SCOPE_NAME: &str = "otel.scope.name";
/// What of a log record can't stand under a name of its own.
pub const OTLP_REST: &str = "otlp.rest";
/// In it: how many attributes had no room there either.
pub const OTLP_LEFT_OUT: &str = "otlp.left_out";
/// The scope of the log records that we send.
pub const OWN_SCOPE: &str = "keyledger";

/// OpenTelemetry: the function of ours that a statement is headed by.
pub const CODE_FUNCTION_NAME: &str = "code.function.name";

/// OpenTelemetry databases: `postgresql`.
pub const DB_SYSTEM_NAME: &str = "db.system.name";
/// OpenTelemetry databases: the name of the database.
pub const DB_NAMESPACE: &str = "db.namespace";
/// OpenTelemetry databases: `SELECT`.
pub const DB_OPERATION_NAME: &str = "db.operation.name";
/// OpenTelemetry databases: the table.
pub const DB_COLLECTION_NAME: &str = "db.collection.name";
/// OpenTelemetry databases: `SELECT entries`.
pub const DB_QUERY_SUMMARY: &str = "db.query.summary";
/// OpenTelemetry databases: SQLSTATE of an error.
pub const DB_RESPONSE_STATUS_CODE: &str = "db.response.status_code";
/// OpenTelemetry databases: `readers`, `writers` or `sealing`.
pub const DB_CLIENT_CONNECTION_POOL_NAME: &str = "db.client.connection.pool.name";
/// OpenTelemetry databases: `idle` or `used`.
pub const DB_CLIENT_CONNECTION_STATE: &str = "db.client.connection.state";

/// OpenTelemetry RPC: duration of calls.
pub const RPC_SERVER_CALL_DURATION: &str = "rpc.server.call.duration";
/// OpenTelemetry databases: duration of statements.
pub const DB_CLIENT_OPERATION_DURATION: &str = "db.client.operation.duration";
/// OpenTelemetry databases: connections of a pool, by state.
pub const DB_CLIENT_CONNECTION_COUNT: &str = "db.client.connection.count";
/// OpenTelemetry databases: most connections of a pool.
pub const DB_CLIENT_CONNECTION_MAX: &str = "db.client.connection.max";
/// OpenTelemetry databases: who waits for a connection.
pub const DB_CLIENT_CONNECTION_PENDING_REQUESTS: &str = "db.client.connection.pending_requests";
/// OpenTelemetry databases: who got no connection in time.
pub const DB_CLIENT_CONNECTION_TIMEOUTS: &str = "db.client.connection.timeouts";

/// How long a batch waited for a connection and the ledger's lock, until it had what was appended since.
pub const LOCK_DURATION: &str = "keyledger.sequencer.lock.duration";
/// How long a batch took to become durable.
pub const COMMIT_DURATION: &str = "keyledger.sequencer.commit.duration";
/// What waits for the next batch.
pub const QUEUE_DEPTH: &str = "keyledger.sequencer.queue.depth";
/// Entries that this replica has appended.
pub const ENTRIES_APPENDED: &str = "keyledger.entries.appended";
/// Answers of VerifyKey.
pub const VERDICTS: &str = "keyledger.verdicts";
/// Calls that were turned away because too many ran.
pub const CALLS_SHED: &str = "keyledger.calls.shed";
/// Streams that are open.
pub const STREAMS_OPEN: &str = "keyledger.streams.open";
/// Entries that a forwarder has not passed.
pub const FORWARDER_LAG_ENTRIES: &str = "keyledger.forwarder.lag.entries";
/// How long ago the first of them was written.
pub const FORWARDER_LAG_DURATION: &str = "keyledger.forwarder.lag.duration";
/// Entries that the observer has not looked at.
pub const OBSERVER_LAG: &str = "keyledger.observer.lag.entries";
/// How far the scrubber has come.
pub const SCRUBBER_POSITION: &str = "keyledger.scrubber.position";
/// Rows of keys that it found to differ or to be missing.
pub const SCRUBBER_ROWS: &str = "keyledger.scrubber.rows";
/// How long ago this replica signed its newest checkpoint.
pub const CHECKPOINT_AGE: &str = "keyledger.checkpoint.age";
/// Entries that no checkpoint of this replica covers yet.
pub const CHECKPOINT_LAG: &str = "keyledger.checkpoint.lag.entries";
/// Anomalies that this replica has raised.
pub const ANOMALIES_RAISED: &str = "keyledger.anomalies.raised";
/// Ledgers that this replica serves no more.
pub const LEDGERS_STOPPED: &str = "keyledger.ledgers.stopped";

/// A forwarder by the name that its operator has given it.
pub const FORWARDER_NAME: &str = "keyledger.forwarder.name";
/// A rule of monitoring: `SPIKE`.
pub const ANOMALY_RULE: &str = "keyledger.anomaly.rule";
/// How often what an anomaly is about had happened when it was raised.
pub const ANOMALY_OCCURRENCES: &str = "keyledger.anomaly.occurrences";
/// For what kind of reason a key was revoked: `COMPROMISED`.
pub const REVOCATION_KIND: &str = "keyledger.revocation.kind";
