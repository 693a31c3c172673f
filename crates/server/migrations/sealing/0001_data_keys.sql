-- The sealing database: the data keys of subjects. A database of its own, in production on a cluster of its own: it must
-- not share backups with the ledger, or an erased person would live on in them.

CREATE TABLE data_keys (
    ledger_id uuid NOT NULL,
    -- Random; stands in signed bytes.
    subject_ref bytea NOT NULL CHECK (octet_length(subject_ref) = 16),
    -- HMAC of the subject's name: finds the subject, tells nothing without the key directory.
    blind_index bytea NOT NULL CHECK (octet_length(blind_index) = 32),
    wrapped_key bytea NOT NULL CHECK (octet_length(wrapped_key) = 60),
    wrapping_key_id integer NOT NULL,
    PRIMARY KEY (ledger_id, subject_ref),
    UNIQUE (ledger_id, blind_index)
);
COMMENT ON TABLE data_keys IS
    'Data keys of subjects, wrapped by a key of the key directory. Whoever deletes a row erases a person''s texts; verification says so.';

GRANT USAGE ON SCHEMA public TO keyledger_app, keyledger_auditor;
GRANT SELECT, INSERT ON data_keys TO keyledger_app;
GRANT SELECT ON data_keys TO keyledger_auditor;
