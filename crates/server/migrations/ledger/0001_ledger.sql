-- The ledger database. Every key and unique constraint starts with the ledger; there are no foreign keys: one to the
-- locked row of `ledgers` would collide with the lock, and one across ledgers could not be distributed.

CREATE TABLE ledgers (
    ledger_id uuid PRIMARY KEY,
    number integer NOT NULL UNIQUE CHECK (number >= 0),
    -- FOR UPDATE needs the UPDATE privilege on some column. This is the one; it is never updated.
    lock_only smallint NOT NULL DEFAULT 0
);
COMMENT ON TABLE ledgers IS
    'One row a ledger: the lock that orders its batches. Whoever can delete a row can stop a ledger, and change nothing in it.';

CREATE TABLE entries (
    ledger_id uuid NOT NULL,
    position bigint NOT NULL CHECK (position >= 0),
    payload_type text COLLATE "C" NOT NULL CHECK (octet_length(payload_type) BETWEEN 1 AND 128),
    body bytea NOT NULL CHECK (octet_length(body) BETWEEN 1 AND 65535),
    public_key_sha256 bytea NOT NULL CHECK (octet_length(public_key_sha256) = 32),
    signature bytea NOT NULL CHECK (octet_length(signature) = 64),
    -- Personal texts, sealed under data keys that lie elsewhere.
    sealed bytea NOT NULL CHECK (octet_length(sealed) <= 65535),
    -- The uses of a page, or the counts of categories.
    uses bytea NOT NULL CHECK (octet_length(uses) <= 33554432),
    -- Derived from body, for queries. Verification derives them again.
    kind smallint NOT NULL,
    time_us bigint NOT NULL,
    key_id uuid,
    stream_version integer,
    caller_key_id uuid,
    trace_id bytea CHECK (octet_length(trace_id) = 16),
    use_count integer NOT NULL,
    category text COLLATE "C",
    leaf_hash bytea NOT NULL CHECK (octet_length(leaf_hash) = 32),
    -- The fence, should the lock ever be misused.
    PRIMARY KEY (ledger_id, position)
);
-- Already dense, or sealed: compressing costs time and wins nothing.
ALTER TABLE entries ALTER COLUMN uses SET STORAGE EXTERNAL;
ALTER TABLE entries ALTER COLUMN sealed SET STORAGE EXTERNAL;
ALTER TABLE entries ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX entries_of_key ON entries (ledger_id, key_id, stream_version) WHERE key_id IS NOT NULL;
CREATE INDEX entries_of_caller ON entries (ledger_id, caller_key_id, position) WHERE caller_key_id IS NOT NULL;
CREATE INDEX entries_of_trace ON entries (ledger_id, trace_id, position) WHERE trace_id IS NOT NULL;
-- Changes that are about no key: a replica folds roles and ledgers from these when it starts. Pages (23) are most rows.
CREATE INDEX entries_about_no_key ON entries (ledger_id, position) WHERE key_id IS NULL AND kind NOT IN (23, 39, 40);
CREATE INDEX entries_of_category ON entries (ledger_id, category, position) WHERE category IS NOT NULL;
CREATE INDEX entries_that_are_changes ON entries (ledger_id, position) WHERE kind NOT IN (23, 39, 40);
CREATE INDEX entries_that_are_no_pages ON entries (ledger_id, position) WHERE kind <> 23;
CREATE INDEX entries_that_are_pages ON entries (ledger_id, position) WHERE kind = 23;
CREATE INDEX entries_that_are_events ON entries (ledger_id, position) WHERE kind = 39;
CREATE INDEX entries_that_count ON entries (ledger_id, position) WHERE kind = 40;
COMMENT ON TABLE entries IS
    'The signed, append-only record. Whoever can change a row can not sign it: verification names its position.';

CREATE TABLE tiles (
    ledger_id uuid NOT NULL,
    level smallint NOT NULL CHECK (level BETWEEN 0 AND 7),
    tile_index bigint NOT NULL CHECK (tile_index >= 0),
    hashes bytea NOT NULL CHECK (octet_length(hashes) = 8192),
    PRIMARY KEY (ledger_id, level, tile_index)
);
ALTER TABLE tiles ALTER COLUMN hashes SET STORAGE EXTERNAL;
COMMENT ON TABLE tiles IS
    'Full tiles of 256 hashes (C2SP tlog-tiles). Computed from entries: a changed tile makes proofs fail, and is named by verification.';

CREATE TABLE checkpoints (
    ledger_id uuid NOT NULL,
    size bigint NOT NULL CHECK (size > 0),
    note text COLLATE "C" NOT NULL CHECK (octet_length(note) <= 4096),
    PRIMARY KEY (ledger_id, size)
);
COMMENT ON TABLE checkpoints IS
    'Signed checkpoints (C2SP tlog-checkpoint). Whoever deletes them hides nothing from those who kept a copy.';

CREATE TABLE keys (
    ledger_id uuid NOT NULL,
    key_id uuid NOT NULL,
    position bigint NOT NULL,
    state bytea NOT NULL CHECK (octet_length(state) BETWEEN 1 AND 262144),
    mac bytea NOT NULL CHECK (octet_length(mac) = 32),
    PRIMARY KEY (ledger_id, key_id)
);
COMMENT ON TABLE keys IS
    'Projection: each key as of its newest entry, so that a replica starts without reading all entries. A changed row fails its MAC; see projections.';

CREATE TABLE projections (
    ledger_id uuid PRIMARY KEY,
    -- Up to here, exclusively, the rows of `keys` are the fold of the entries.
    position bigint NOT NULL CHECK (position >= 0),
    next_page bigint NOT NULL CHECK (next_page >= 0),
    next_start bigint NOT NULL CHECK (next_start >= 0),
    next_event bigint NOT NULL CHECK (next_event >= 0),
    -- Replicas that answer from memory: 32 bytes each.
    servings bytea NOT NULL,
    -- Services that report uses which they answered by themselves: 49 bytes each, at most 1,024.
    sessions bytea NOT NULL,
    -- How many events of each category there are: at most 500 categories.
    counts bytea NOT NULL,
    mac bytea NOT NULL CHECK (octet_length(mac) = 32)
);
COMMENT ON TABLE projections IS
    'Binds all rows of keys, together, to one position: a row that is changed, missing or older than that fails this MAC, and the replica folds every entry instead.';

CREATE TABLE key_secrets (
    ledger_id uuid NOT NULL,
    key_id uuid NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    verifier bytea NOT NULL CHECK (octet_length(verifier) = 32),
    salt bytea NOT NULL CHECK (octet_length(salt) = 32),
    pepper_id integer NOT NULL,
    PRIMARY KEY (ledger_id, key_id, version)
);
COMMENT ON TABLE key_secrets IS
    'HMACs of secrets under a pepper that lies elsewhere. A changed row differs from the commitment in the signed entry, and is not loaded.';

CREATE TABLE imported_secrets (
    ledger_id uuid NOT NULL,
    key_id uuid NOT NULL,
    -- SHA-256, or the text of an Argon2id hash.
    digest bytea NOT NULL CHECK (octet_length(digest) BETWEEN 32 AND 256),
    salt bytea NOT NULL CHECK (octet_length(salt) = 32),
    PRIMARY KEY (ledger_id, key_id)
);
COMMENT ON TABLE imported_secrets IS
    'Hashes of tokens that were made elsewhere, until their first use: then a row of key_secrets takes their place, and they are deleted. A changed row differs from the commitment in the signed entry, and is not loaded.';

CREATE TABLE requests (
    ledger_id uuid NOT NULL,
    caller_key_id uuid NOT NULL,
    request_id uuid NOT NULL,
    digest bytea NOT NULL CHECK (octet_length(digest) = 32),
    position bigint NOT NULL,
    PRIMARY KEY (ledger_id, caller_key_id, request_id)
);
COMMENT ON TABLE requests IS
    'Request ids that were answered (AIP-155). Whoever can delete one can make a retry happen twice.';

CREATE TABLE event_terms (
    ledger_id uuid NOT NULL,
    -- What entries are found by, such as an action or a key: the beginning of a SHA-256.
    term uuid NOT NULL,
    first_position bigint NOT NULL,
    -- Rising; few enough that a row is never moved out of line.
    positions bigint[] NOT NULL CHECK (cardinality(positions) BETWEEN 1 AND 128),
    PRIMARY KEY (ledger_id, term, first_position)
);
COMMENT ON TABLE event_terms IS
    'Index, filled behind the commit: at which positions there is something to be found by a term. Whoever deletes a row hides events from lists, not from verification.';
CREATE TABLE event_counts (
    ledger_id uuid NOT NULL,
    -- Length and beginning of the time over which was counted, in hours since 1970.
    hours smallint NOT NULL CHECK (hours IN (1, 24)),
    dimension smallint NOT NULL,
    start_hour bigint NOT NULL,
    category text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    events bigint NOT NULL,
    PRIMARY KEY (ledger_id, hours, dimension, start_hour, category, value)
);
COMMENT ON TABLE event_counts IS
    'Filled behind the commit: how many events have which value. Whoever changes a row makes CountEvents wrong; the events themselves can be counted again.';
CREATE TABLE usage_counts (
    ledger_id uuid NOT NULL,
    -- A key's id, the digest of an owner with more keys than one, or nil for the whole ledger.
    meter uuid NOT NULL,
    -- Length and beginning of the time over which was counted, in hours since 1970.
    hours smallint NOT NULL CHECK (hours IN (1, 24)),
    start_hour bigint NOT NULL,
    -- Packed: allowed and refused, by hour, permission, resource, network (/24 or /48), version and reason; at most 64 values each.
    counts bytea NOT NULL CHECK (octet_length(counts) BETWEEN 1 AND 131072),
    PRIMARY KEY (ledger_id, meter, hours, start_hour)
-- One statement may write all rows of a page anew: where they fit beside the old ones, no index is touched.
) WITH (fillfactor = 40);
COMMENT ON TABLE usage_counts IS
    'Filled behind the commit: how often keys were used, and for what. Whoever changes a row makes GetKeyUsage wrong, and the monitor blind to what was usual; the uses themselves can be counted again. Networks (/24 and /48) stand here in the clear, also those of people who are erased.';
CREATE TABLE event_index_progress (
    ledger_id uuid PRIMARY KEY,
    next_position bigint NOT NULL,
    -- The replica that looks at new entries for all others, and until when, by the clock of this database.
    holder uuid,
    lease_until timestamptz,
    -- What the monitor must remember from one look to the next.
    monitor bytea CHECK (octet_length(monitor) <= 2097152)
);
COMMENT ON TABLE event_index_progress IS
    'How far event_terms, event_counts, usage_counts and key_last_uses have come; newer entries are read by the queries themselves. Whoever takes the lease makes others wait for its end, and nothing is lost.';
CREATE TABLE key_last_uses (
    ledger_id uuid NOT NULL,
    key_id uuid NOT NULL,
    version integer NOT NULL,
    position bigint NOT NULL,
    time_us bigint NOT NULL,
    PRIMARY KEY (ledger_id, key_id, version)
) WITH (fillfactor = 45);
COMMENT ON TABLE key_last_uses IS
    'Filled behind the commit: when each secret of a key was last used. Whoever deletes a row makes a key look unused in lists; nothing is hidden from verification.';

CREATE TABLE anomalies (
    ledger_id uuid NOT NULL,
    -- Of the entry that raised it.
    position bigint NOT NULL,
    rule smallint NOT NULL,
    key_id uuid,
    -- So far.
    occurrences bigint NOT NULL,
    last_us bigint NOT NULL,
    -- Of the entry that says that it is over.
    ended_position bigint,
    -- Of the entries by which somebody said what it was found to be: the newest first.
    acknowledged bigint[] NOT NULL CHECK (cardinality(acknowledged) <= 4),
    PRIMARY KEY (ledger_id, position)
);
CREATE INDEX anomalies_of_rule ON anomalies (ledger_id, rule, position);
CREATE INDEX anomalies_of_key ON anomalies (ledger_id, key_id, position) WHERE key_id IS NOT NULL;
CREATE INDEX anomalies_that_go_on ON anomalies (ledger_id, position) WHERE ended_position IS NULL;
CREATE INDEX anomalies_not_looked_at ON anomalies (ledger_id, position) WHERE acknowledged = '{}';
COMMENT ON TABLE anomalies IS
    'Filled behind the commit: what was noticed, and how often it has happened by now. Whoever changes a row makes a list wrong; that it was raised and has ended stands in the entries.';

CREATE TABLE forwarders (
    ledger_id uuid NOT NULL,
    name text COLLATE "C" NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 64),
    kind smallint NOT NULL,
    -- The first event that was not sent yet: position of its entry, index in its page.
    next_position bigint NOT NULL CHECK (next_position >= 0),
    next_index integer NOT NULL DEFAULT 0 CHECK (next_index >= 0),
    -- Where the batch ends that is being sent: whoever takes over sends the same one again.
    batch_position bigint,
    batch_index integer,
    -- The replica that has it, and until when, by the clock of this database.
    holder uuid,
    lease_until timestamptz,
    failures integer NOT NULL DEFAULT 0,
    last_error text COLLATE "C" CHECK (octet_length(last_error) <= 512),
    failed_at timestamptz,
    sent_at timestamptz,
    PRIMARY KEY (ledger_id, name)
);
COMMENT ON TABLE forwarders IS
    'How far each forwarder has come, and which replica has it. Whoever changes a row makes events be sent again, or not at all; the ledger holds them all the same.';

-- Append-only, also for the owner of the tables, and also on a replica of the database.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'table % is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON entries EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON tiles EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON checkpoints EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON requests EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON key_secrets EXECUTE FUNCTION refuse_change();
ALTER TABLE entries ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE tiles ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE checkpoints ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE requests ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE key_secrets ENABLE ALWAYS TRIGGER append_only;

GRANT USAGE ON SCHEMA public TO keyledger_app, keyledger_auditor;
GRANT SELECT, INSERT ON entries, tiles, checkpoints, key_secrets, requests, event_terms TO keyledger_app;
GRANT SELECT, INSERT, DELETE ON imported_secrets TO keyledger_app;
GRANT SELECT, INSERT, UPDATE (lock_only) ON ledgers TO keyledger_app;
GRANT SELECT, INSERT, UPDATE (position, state, mac) ON keys TO keyledger_app;
GRANT SELECT, INSERT, UPDATE (position, next_page, next_start, next_event, servings, sessions, counts, mac) ON projections TO keyledger_app;
GRANT SELECT, INSERT, UPDATE (next_position, holder, lease_until, monitor) ON event_index_progress TO keyledger_app;
GRANT SELECT, INSERT, UPDATE (counts) ON usage_counts TO keyledger_app;
GRANT SELECT, INSERT, UPDATE (events) ON event_counts TO keyledger_app;
GRANT SELECT, INSERT, UPDATE (position, time_us) ON key_last_uses TO keyledger_app;
GRANT SELECT, INSERT, UPDATE (occurrences, last_us, ended_position, acknowledged) ON anomalies TO keyledger_app;
GRANT SELECT, INSERT, UPDATE (kind, next_position, next_index, batch_position, batch_index, holder, lease_until, failures, last_error, failed_at, sent_at) ON forwarders TO keyledger_app;
GRANT SELECT ON ledgers, entries, tiles, checkpoints, keys, projections TO keyledger_auditor;
