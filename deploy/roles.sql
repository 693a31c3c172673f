-- The roles of a Keyledger deployment. Run by `keyledger migrate`; needs a role that may create roles, once.
--
--   keyledger_owner    owns the tables; used by migrations only
--   keyledger_app      the service: reads and appends; can't change or delete entries
--   keyledger_auditor  reads entries, tiles, checkpoints; for `keyledger verify`
--
-- They have no password and can't log in: grant them to login roles of your own, for example
--   CREATE ROLE keyledger_service LOGIN PASSWORD '…' IN ROLE keyledger_app;
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['keyledger_owner', 'keyledger_app', 'keyledger_auditor'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', name);
        END IF;
    END LOOP;
EXCEPTION
    -- Two migrations at once, for two databases of one cluster: the other one made the role.
    WHEN duplicate_object OR unique_violation THEN NULL;
END $$;
