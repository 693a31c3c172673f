//! Migrations: plain SQL files in the binary, each with its checksum, run once and in order, under a lock.

use super::client::Client;
use sha2::{Digest, Sha256};

use super::StoreError;

/// One schema with its files in order.
pub(crate) struct Schema {
    pub(crate) name: &'static str,
    files: &'static [(&'static str, &'static str)],
}

pub(crate) const LEDGER: Schema = Schema {
    name: "ledger",
    files: &[("0001_ledger", include_str!("../../migrations/ledger/0001_ledger.sql"))],
};

pub(crate) const SEALING: Schema = Schema {
    name: "sealing",
    files: &[("0001_data_keys", include_str!("../../migrations/sealing/0001_data_keys.sql"))],
};

impl Schema {
    /// The text of each file.
    #[cfg(test)]
    pub(super) fn statements(&self) -> impl Iterator<Item = &'static str> {
        self.files.iter().map(|(_, sql)| *sql)
    }
}

/// The roles of a deployment; see the file itself.
pub(crate) const ROLES: &str = include_str!("../../../../deploy/roles.sql");

/// Brings a database to this version of the schema. Returns the names of the files that were run.
pub(crate) async fn migrate(
    client: &mut Client,
    schema: &Schema,
) -> Result<Vec<&'static str>, StoreError> {
    let client = client.bare();
    client.batch_execute(ROLES).await?;
    let transaction = client.transaction().await?;
    // The tables belong to a role that nobody serves with. Two migrations at once wait for each other at the LOCK.
    transaction
        .batch_execute(
            "/* migrate::migrate */
             GRANT CREATE ON SCHEMA public TO keyledger_owner;
             SET LOCAL ROLE keyledger_owner;
             CREATE TABLE IF NOT EXISTS migrations (
                 name text COLLATE \"C\" PRIMARY KEY, checksum bytea NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
             GRANT SELECT ON migrations TO keyledger_app, keyledger_auditor;
             LOCK TABLE migrations IN ACCESS EXCLUSIVE MODE",
        )
        .await?;
    let applied = applied(&transaction).await?;
    check_applied(schema, &applied)?;
    let mut ran = vec![];
    for (name, sql) in &schema.files[applied.len()..] {
        transaction.batch_execute(sql).await?;
        let insert =
            "/* migrate::migrate */ INSERT INTO migrations (name, checksum) VALUES ($1, $2)";
        transaction.execute(insert, &[name, &checksum(sql)]).await?;
        ran.push(*name);
    }
    transaction.commit().await?;
    Ok(ran)
}

/// Whether the database has exactly this version of the schema.
pub(crate) async fn check(client: &mut Client, schema: &Schema) -> Result<(), StoreError> {
    let client = client.bare();
    let exists = client
        .query_one("/* migrate::check */ SELECT to_regclass('migrations') IS NOT NULL", &[])
        .await?;
    let applied = if exists.get(0) { applied(&*client).await? } else { vec![] };
    check_applied(schema, &applied)?;
    if applied.len() < schema.files.len() {
        return Err(StoreError::Refused(format!(
            "the {} schema is older than this version: run `keyledger migrate`",
            schema.name
        )));
    }
    Ok(())
}

async fn applied(
    client: &impl tokio_postgres::GenericClient,
) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let rows = client
        .query("/* migrate::applied */ SELECT name, checksum FROM migrations ORDER BY name", &[])
        .await?;
    Ok(rows.iter().map(|r| (r.get(0), r.get(1))).collect())
}

/// What was applied must be a prefix of what we know, byte for byte.
fn check_applied(schema: &Schema, applied: &[(String, Vec<u8>)]) -> Result<(), StoreError> {
    for (i, (name, sum)) in applied.iter().enumerate() {
        match schema.files.get(i) {
            Some((known, sql)) if known == name && checksum(sql) == *sum => {}
            Some((known, _)) if known == name => {
                return Err(StoreError::Refused(format!(
                    "migration {name} was applied with other contents than this version's"
                )));
            }
            _ => {
                return Err(StoreError::Refused(format!(
                    "the {} schema has migration {name}, which this version doesn't know: use a newer keyledger",
                    schema.name
                )));
            }
        }
    }
    Ok(())
}

fn checksum(sql: &str) -> Vec<u8> {
    Sha256::digest(sql).to_vec()
}
