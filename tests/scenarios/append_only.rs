//! What the database itself refuses: by privilege, by trigger and by length.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::harness::*;

const APPEND_ONLY: [&str; 5] = ["entries", "tiles", "checkpoints", "requests", "key_secrets"];

#[test]
fn the_service_may_not_change_or_delete_what_was_appended() {
    scenario(async |d| {
        tell(d).await;
        let client = d.superuser().await;
        client.batch_execute("SET ROLE keyledger_app").await.unwrap();
        for table in APPEND_ONLY {
            for change in changes(&client, table).await {
                let why = refusal(&client, &change).await;
                assert_eq!(why.0, SqlState::INSUFFICIENT_PRIVILEGE, "{change}");
                assert_eq!(why.1, format!("permission denied for table {table}"), "{change}");
            }
        }
        for change in [
            "DELETE FROM ledgers",
            "UPDATE ledgers SET number = 7",
            "DELETE FROM keys",
            "UPDATE keys SET key_id = gen_random_uuid()",
            "TRUNCATE keys",
            "DELETE FROM event_terms",
            "UPDATE imported_secrets SET digest = digest",
            "TRUNCATE imported_secrets",
            "ALTER TABLE entries DISABLE TRIGGER append_only",
            "DROP TABLE entries",
            "CREATE TABLE mine ()",
        ] {
            let why = refusal(&client, change).await;
            assert_eq!(why.0, SqlState::INSUFFICIENT_PRIVILEGE, "{change}");
        }
    });
}

#[test]
fn the_service_logs_in_with_no_more_than_that() {
    scenario(async |d| {
        let (client, connection) =
            tokio_postgres::connect(&d.databases().ledger, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let role =
            "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls,
                    pg_has_role(current_user, 'keyledger_owner', 'MEMBER'),
                    pg_has_role(current_user, 'keyledger_app', 'MEMBER')
                    FROM pg_roles WHERE rolname = current_user";
        let role = client.query_one(role, &[]).await.unwrap();
        assert_eq!((role.get(0), role.get(1), role.get(2)), (false, false, true));
        let change = "UPDATE entries SET kind = kind";
        assert_eq!(refusal(&client, change).await.0, SqlState::INSUFFICIENT_PRIVILEGE);
    });
}

#[test]
fn a_trigger_refuses_the_owner_and_the_superuser_and_a_replica_of_the_database() {
    scenario(async |d| {
        tell(d).await;
        for session in [
            "SET ROLE keyledger_owner",
            "SET session_replication_role = origin",
            "SET session_replication_role = replica",
            "SET session_replication_role = local",
        ] {
            let client = d.superuser().await;
            let owner =
                "SELECT tableowner = 'keyledger_owner' FROM pg_tables WHERE tablename = 'entries'";
            let owner: bool = client.query_one(owner, &[]).await.unwrap().get(0);
            assert!(owner, "the owner is a role of its own");
            client.batch_execute(session).await.unwrap();
            for table in APPEND_ONLY {
                for change in changes(&client, table).await {
                    let why = refusal(&client, &change).await;
                    assert_eq!(why.0, SqlState::INSUFFICIENT_PRIVILEGE, "{session}: {change}");
                    let expected = format!("table {table} is append-only");
                    assert_eq!(why.1, expected, "{session}: {change}");
                }
            }
        }
    });
}

#[test]
fn a_value_of_the_wrong_length_is_refused() {
    scenario(async |d| {
        tell(d).await;
        let client = d.superuser().await;
        for (table, column, value) in [
            ("entries", "position", "-1"),
            ("entries", "payload_type", "''"),
            ("entries", "payload_type", "repeat('x', 129)"),
            ("entries", "body", "''"),
            ("entries", "body", r"decode(repeat('00', 65536), 'hex')"),
            ("entries", "public_key_sha256", r"'\x00'"),
            ("entries", "signature", r"decode(repeat('00', 65), 'hex')"),
            ("entries", "sealed", r"decode(repeat('00', 65536), 'hex')"),
            ("entries", "uses", "convert_to(repeat('x', 33554433), 'UTF8')"),
            ("entries", "trace_id", r"'\x00'"),
            ("entries", "leaf_hash", r"decode(repeat('00', 31), 'hex')"),
            ("checkpoints", "size", "0"),
            ("checkpoints", "note", "repeat('x', 4097)"),
            ("keys", "state", "''"),
            ("keys", "mac", r"'\x00'"),
            ("key_secrets", "version", "0"),
            ("key_secrets", "verifier", r"'\x00'"),
            ("key_secrets", "salt", r"'\x00'"),
            ("imported_secrets", "digest", r"decode(repeat('00', 31), 'hex')"),
            ("imported_secrets", "digest", r"decode(repeat('00', 257), 'hex')"),
            ("imported_secrets", "salt", r"'\x00'"),
        ] {
            let with_value = |c: String| if c == column { value.into() } else { c };
            let row: Vec<String> =
                columns(&client, table).await.into_iter().map(with_value).collect();
            let row = row.join(", ");
            let insert = format!("INSERT INTO {table} SELECT {row} FROM {table} LIMIT 1");
            let why = refusal(&client, &insert).await;
            assert_eq!(why.0, SqlState::CHECK_VIOLATION, "{insert}: {}", why.1);
            assert!(why.1.contains(&format!("{table}_{column}_check")), "{insert}: {}", why.1);
        }
        let tile = "INSERT INTO tiles VALUES (gen_random_uuid(), 0, 0, '')";
        assert_eq!(refusal(&client, tile).await.0, SqlState::CHECK_VIOLATION);
        let key = r"INSERT INTO data_keys VALUES (gen_random_uuid(), '\x00', '\x00', '\x00', 1)";
        let sealing = d.sealing_superuser().await;
        assert_eq!(refusal(&sealing, key).await.0, SqlState::CHECK_VIOLATION);
    });
}

#[test]
fn an_auditor_reads_entries_and_no_verifiers() {
    scenario(async |d| {
        tell(d).await;
        let client = d.superuser().await;
        client.batch_execute("SET ROLE keyledger_auditor").await.unwrap();
        for table in ["ledgers", "entries", "tiles", "checkpoints", "keys"] {
            let read = client.query(&format!("SELECT * FROM {table}"), &[]).await;
            assert!(!read.unwrap().is_empty() || table == "tiles", "{table}");
            let insert = format!("INSERT INTO {table} SELECT * FROM {table}");
            assert_eq!(refusal(&client, &insert).await.0, SqlState::INSUFFICIENT_PRIVILEGE);
            let delete = format!("DELETE FROM {table}");
            assert_eq!(refusal(&client, &delete).await.0, SqlState::INSUFFICIENT_PRIVILEGE);
        }
        for table in ["key_secrets", "imported_secrets", "requests"] {
            let read = format!("SELECT * FROM {table}");
            let why = refusal(&client, &read).await;
            assert_eq!(why.1, format!("permission denied for table {table}"));
        }
    });
}

#[test]
fn a_server_that_is_superuser_says_that_it_should_not_be() {
    scenario(async |d| {
        let replica = d.replica().await;
        assert!(!replica.log().contains("is a superuser"));
        let replica = d.replica_on(&d.superuser_databases()).await;
        let warning = "the database role postgres is a superuser: use one in keyledger_app only";
        assert!(replica.log().contains(warning), "{}", replica.log());
    });
}

/// Leaves a row in each table, except that of tiles.
async fn tell(d: &Deployment) {
    let replica = d.replica().await;
    let request_id = "5f0c2a52-6f0e-4d6b-9f2c-3f8a5d3c1b7e".into();
    let create = keyledger_proto::CreateKeyRequest { request_id, ..user_key("alice@example.com") };
    replica.admin().call(create).await.unwrap();
    let item = sha256_of("acme_live_4711", user_import("bob@example.com"));
    replica.admin().call(import(vec![item])).await.unwrap();
    replica.admin().call(keyledger_proto::GetCheckpointRequest {}).await.unwrap();
}

/// Every way to change or remove rows of a table, and one that would touch none.
async fn changes(client: &Client, table: &str) -> Vec<String> {
    let update = |column: String| format!("UPDATE {table} SET {column} = {column}");
    let mut changes: Vec<String> = columns(client, table).await.into_iter().map(update).collect();
    changes.push(format!("UPDATE {table} SET ledger_id = ledger_id WHERE false"));
    changes.push(format!("DELETE FROM {table}"));
    changes.push(format!("DELETE FROM {table} WHERE false"));
    changes.push(format!("TRUNCATE {table}"));
    changes
}

/// The columns of a table, in order.
async fn columns(client: &Client, table: &str) -> Vec<String> {
    let columns = "SELECT column_name::text FROM information_schema.columns WHERE table_name = $1
                   ORDER BY ordinal_position";
    let columns = client.query(columns, &[&table]).await.unwrap();
    assert!(columns.len() >= 3, "{table} has columns");
    columns.iter().map(|c| c.get(0)).collect()
}

async fn refusal(client: &Client, statement: &str) -> (SqlState, String) {
    let error = client.batch_execute(statement).await.expect_err(statement);
    let error = error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error}"));
    (error.code().clone(), error.message().to_string())
}
