//! As superuser with triggers off, and with the data keys at hand: whatever is changed is found, and where it is.
//!
//! What is exhaustive, and where:
//!
//! - `memory`: every bit of every part of every entry (body, payload type, digest, signature, sealed texts, uses, each
//!   column, position), on the real entries of both ledgers, in memory. Sealed bytes open there only if they are the bytes
//!   that were sealed, which is what AES-GCM promises.
//! - `bits`: in the database, with real sealing, the first, the last and a middle bit of every column of every entry.
//! - `order`: in the database, all pairs of entries swapped, each entry deleted, the newest ones cut off.
//! - `beside`: some 24 bits all over each column of one row of checkpoints, keys, verifiers and data keys, three of a tile,
//!   and rows that are missing or too many.
//! - `start` and `follow`: what a replica does with a damaged ledger, when it starts and while it runs; `scrub`: what it finds of
//!   changes to what it has taken before.

mod beside;
mod bits;
mod follow;
mod memory;
mod order;
mod scrub;
mod start;

use std::time::Duration;

use futures_util::future::join_all;
use keyledger_ledger::verify::{Finding, Problem, Verifier};
use keyledger_proto::*;
use keyledger_server::inspect::{Source, verify_ledger};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tonic::Code;
use uuid::Uuid;

use crate::harness::*;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Every kind of entry in ledgers 0 and 1, two of them in one batch, and checkpoints that cover them all. No server runs
/// afterwards.
async fn tell(d: &Deployment) {
    let replica = d.replica().await;
    let admin = replica.admin().with_header("traceparent", TRACE);
    admin.call(role("viewers", vec![grant("audit.read", "logs/**")])).await.unwrap();
    let create = CreateKeyRequest {
        roles: vec!["viewers".into()],
        request_id: "5f0c2a52-6f0e-4d6b-9f2c-3f8a5d3c1b7e".into(),
        ..user_key("alice@example.com")
    };
    let alice = admin.call(create.clone()).await.unwrap();
    admin.call(create).await.expect("a replay gives the first answer");
    admin.call(GetCheckpointRequest {}).await.unwrap();
    admin.call(check(&alice.token)).await.unwrap();
    let robot = service_key("robot", vec![grant("audit.read", "logs/error")]);
    let robot = admin.call(robot).await.unwrap().key.unwrap();
    admin.call(rotate(&robot.key_id, 600)).await.unwrap();
    let alices = replica.caller(&alice.token).call(revoke(&robot.key_id)).await;
    refused(alices).with(Code::PermissionDenied, ErrorReason::PermissionDenied);
    admin.call(revoke(&alice.key.unwrap().key_id)).await.unwrap();
    admin.call(check(&alice.token)).await.unwrap();
    two_in_one_batch(d, &admin).await;
    replica.system_admin().call(WhoAmIRequest {}).await.unwrap();
    covered_by_checkpoints(&d.superuser().await).await;
    assert!(replica.stop().await.success());
}

/// Makes keys until two of them stand next to each other and have the same time: only the root knows their order.
async fn two_in_one_batch(d: &Deployment, admin: &Caller) {
    let twins = "SELECT 1 FROM entries a JOIN entries b ON (b.ledger_id, b.position) = (a.ledger_id, a.position + 1)
                 WHERE a.kind = 18 AND b.kind = 18 AND a.time_us = b.time_us";
    let client = d.superuser().await;
    while client.query(twins, &[]).await.unwrap().is_empty() {
        let calls = (0..3).map(|_| admin.call(service_key("twin", vec![])));
        for made in join_all(calls).await {
            made.unwrap();
        }
    }
}

/// Waits until the server has signed for all entries.
async fn covered_by_checkpoints(client: &Client) {
    let uncovered = "SELECT 1 FROM ledgers l WHERE
        (SELECT count(*) FROM entries e WHERE e.ledger_id = l.ledger_id) IS DISTINCT FROM
        (SELECT max(size) FROM checkpoints c WHERE c.ledger_id = l.ledger_id)";
    while !client.query(uncovered, &[]).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A superuser who has switched off whatever protects a ledger, and the auditor who looks at it.
struct Vandal {
    client: Client,
    ledger_id: Uuid,
    /// `#<number>`: a name stands in position 0, which may be damaged.
    ledger: String,
    source: Source,
}

impl Vandal {
    async fn new(d: &Deployment, number: i32) -> Vandal {
        let client = d.superuser().await;
        client.batch_execute("SET synchronous_commit = off").await.unwrap();
        for table in ["entries", "tiles", "checkpoints", "key_secrets"] {
            let off = format!("ALTER TABLE {table} DISABLE TRIGGER append_only");
            client.batch_execute(&off).await.unwrap();
        }
        let id = "SELECT ledger_id FROM ledgers WHERE number = $1";
        let ledger_id = client.query_one(id, &[&number]).await.unwrap().get(0);
        let databases = d.superuser_databases();
        let source = Source {
            ledger: databases.ledger,
            sealing: Some(databases.sealing),
            key_dir: Some(d.key_dir()),
        };
        Vandal { client, ledger_id, ledger: format!("#{number}"), source }
    }

    /// Removes constraints and indexes that would refuse some of what can be done to entries.
    async fn unfenced(self) -> Vandal {
        let off = "ALTER TABLE entries DROP CONSTRAINT entries_pkey;
                   ALTER TABLE entries DROP CONSTRAINT entries_position_check;
                   DROP INDEX entries_of_key;
                   CREATE INDEX by_position ON entries (ledger_id, position)";
        self.client.batch_execute(off).await.unwrap();
        self
    }

    async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    /// The condition on a row of the ledger at a position.
    fn at(&self, position: i64) -> String {
        format!("ledger_id = '{}' AND position = {position}", self.ledger_id)
    }

    async fn size(&self) -> i64 {
        let size = "SELECT count(*) FROM entries WHERE ledger_id = $1";
        self.client.query_one(size, &[&self.ledger_id]).await.unwrap().get(0)
    }

    /// Remembers the ledger's rows of a table.
    async fn keep(&self, table: &str) {
        let id = self.ledger_id;
        let keep = format!(
            "CREATE TEMP TABLE kept_{table} AS SELECT * FROM {table} WHERE ledger_id = '{id}'"
        );
        self.run(&keep).await;
    }

    async fn put_back(&self, table: &str) {
        let id = self.ledger_id;
        let back = format!(
            "DELETE FROM {table} WHERE ledger_id = '{id}'; INSERT INTO {table} SELECT * FROM kept_{table};
             DROP TABLE kept_{table}"
        );
        self.run(&back).await;
    }

    async fn verify(&self) -> (Verifier, Option<Finding>) {
        verify_ledger(&self.source, &self.ledger, &[], &mut |_, _| {}).await.unwrap()
    }

    /// What is wrong with the ledger, which must not be good after `what` was done to it.
    async fn found(&self, what: &str) -> Finding {
        let (_, finding) = self.verify().await;
        finding.unwrap_or_else(|| panic!("not found: {what}"))
    }

    async fn is_good(&self) {
        let (verifier, finding) = self.verify().await;
        assert_eq!((finding, verifier.counts().texts_unopened), (None, 0));
    }
}

/// Whether a finding names a position: itself or, where only a root differs, a range that it lies in.
fn names(finding: &Finding, position: i64) -> bool {
    let position = position as u64;
    match finding.problem {
        Problem::Root { from, size } => (from..size).contains(&position),
        _ => finding.position == position,
    }
}

/// How a bit of a column is flipped: its type, and its name.
#[derive(Clone, Copy)]
enum Type {
    Bytes,
    Text,
    Uuid,
    /// With its number of bits.
    Integer(i32, &'static str),
}

impl Type {
    /// How many bits a value has, in SQL.
    fn bits(self, column: &str) -> String {
        match self {
            Type::Bytes | Type::Text => format!("octet_length({column}) * 8"),
            Type::Uuid => format!("CASE WHEN {column} IS NULL THEN 0 ELSE 128 END"),
            Type::Integer(bits, _) => format!("CASE WHEN {column} IS NULL THEN 0 ELSE {bits} END"),
        }
    }

    /// The column with bit `bit` flipped. Done twice, it is as it was.
    fn flipped(self, column: &str, bit: i32) -> String {
        let flip = |bytes: String| format!("set_bit({bytes}, {bit}, 1 - get_bit({bytes}, {bit}))");
        match self {
            Type::Bytes => flip(column.into()),
            Type::Text => {
                format!("convert_from({}, 'UTF8')", flip(format!("convert_to({column}, 'UTF8')")))
            }
            Type::Uuid => format!("encode({}, 'hex')::uuid", flip(format!("uuid_send({column})"))),
            Type::Integer(_, name) => format!("{column} # (1::{name} << {bit})"),
        }
    }
}

/// The bits of a column.
struct Bits<'a> {
    table: &'a str,
    column: &'a str,
    r#type: Type,
}

impl Bits<'_> {
    /// Flips a bit in one row and returns the row's ctid. `None` if Postgres itself holds no such value: text that is no
    /// UTF-8.
    async fn flip(&self, client: &Client, row: &str, bit: i32) -> Option<String> {
        let Bits { table, column, r#type } = self;
        let to = r#type.flipped(column, bit);
        let flip = format!("UPDATE {table} SET {column} = {to} WHERE {row} RETURNING ctid::text");
        match client.query_one(&flip, &[]).await {
            Err(e) if e.code() == Some(&SqlState::CHARACTER_NOT_IN_REPERTOIRE) => None,
            changed => Some(changed.unwrap_or_else(|e| panic!("{flip}: {e:?}")).get(0)),
        }
    }
}
