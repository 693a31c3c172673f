//! What lies beside the entries: tiles, checkpoints, rows of keys, verifiers and data keys.

use super::*;

/// Leaves an imported key that was not used yet.
async fn import_one(d: &Deployment) {
    let replica = d.replica().await;
    let item = sha256_of("acme_live_4711", user_import("bob@example.com"));
    replica.admin().call(import(vec![item])).await.unwrap();
    assert!(replica.stop().await.success());
}

#[test]
fn a_changed_row_beside_the_ledger_is_found() {
    scenario(async |d| {
        import_one(d).await;
        tell(d).await;
        let vandal = Vandal::new(d, 1).await;
        vandal.run("ALTER TABLE checkpoints DROP CONSTRAINT checkpoints_pkey, DROP CONSTRAINT checkpoints_size_check").await;
        vandal.run("ALTER TABLE key_secrets DROP CONSTRAINT key_secrets_version_check").await;
        let integer = Type::Integer(32, "integer");
        let long = Type::Integer(64, "bigint");
        for (table, columns) in [
            ("checkpoints", vec![("note", Type::Text), ("size", long)]),
            (
                "keys",
                vec![
                    ("key_id", Type::Uuid),
                    ("position", long),
                    ("state", Type::Bytes),
                    ("mac", Type::Bytes),
                ],
            ),
            (
                "key_secrets",
                vec![
                    ("key_id", Type::Uuid),
                    ("version", integer),
                    ("verifier", Type::Bytes),
                    ("salt", Type::Bytes),
                    ("pepper_id", integer),
                ],
            ),
            (
                "imported_secrets",
                vec![("key_id", Type::Uuid), ("digest", Type::Bytes), ("salt", Type::Bytes)],
            ),
        ] {
            for (column, r#type) in columns {
                vandal.flip_some(&vandal.client, Bits { table, column, r#type }).await;
            }
        }
        vandal.is_good().await;
    });
}

#[test]
fn a_row_of_a_key_that_is_missing_or_too_many_is_found() {
    scenario(async |d| {
        import_one(d).await;
        tell(d).await;
        let vandal = Vandal::new(d, 1).await;
        for table in ["keys", "key_secrets", "imported_secrets"] {
            let one = format!(
                "(SELECT ctid FROM {table} WHERE ledger_id = '{}' LIMIT 1)",
                vandal.ledger_id
            );
            vandal
                .run(&format!("CREATE TEMP TABLE kept AS SELECT * FROM {table} WHERE ctid = {one}"))
                .await;
            vandal.run(&format!("DELETE FROM {table} WHERE ctid = {one}")).await;
            vandal.found(&format!("a row of {table} deleted")).await;
            vandal.run(&format!("INSERT INTO {table} SELECT * FROM kept; DROP TABLE kept")).await;
        }
        let copy = "INSERT INTO keys SELECT ledger_id, gen_random_uuid(), position, state, mac FROM keys LIMIT 1";
        let copy = copy
            .replace("FROM keys", &format!("FROM keys WHERE ledger_id = '{}'", vandal.ledger_id));
        vandal.run(&format!("{copy} RETURNING key_id")).await;
        vandal.found("a key that no entry made").await;
        let surplus =
            "DELETE FROM keys k WHERE NOT EXISTS (SELECT FROM entries e WHERE e.key_id = k.key_id)";
        vandal.run(surplus).await;
        vandal.is_good().await;
    });
}

#[test]
fn a_data_key_that_was_changed_or_is_gone_is_found_and_named_as_missing() {
    scenario(async |d| {
        tell(d).await;
        let vandal = Vandal::new(d, 1).await;
        let sealing = d.sealing_superuser().await;
        for (column, r#type) in [
            ("ledger_id", Type::Uuid),
            ("subject_ref", Type::Bytes),
            ("wrapped_key", Type::Bytes),
            ("wrapping_key_id", Type::Integer(32, "integer")),
        ] {
            vandal.flip_some(&sealing, Bits { table: "data_keys", column, r#type }).await;
        }
        let rows = "SELECT subject_ref FROM data_keys WHERE ledger_id = $1";
        for row in sealing.query(rows, &[&vandal.ledger_id]).await.unwrap() {
            let subject = hex::encode(row.get::<_, &[u8]>(0));
            let place =
                format!(r"ledger_id = '{}' AND subject_ref = '\x{subject}'", vandal.ledger_id);
            let remove = format!(
                "CREATE TEMP TABLE kept AS SELECT * FROM data_keys WHERE {place}; DELETE FROM data_keys WHERE {place}"
            );
            sealing.batch_execute(&remove).await.unwrap();
            let first = "SELECT min(position) FROM entries WHERE ledger_id = $1 AND
                         position(decode($2, 'hex') IN body || uses) > 0";
            let first = vandal.client.query_one(first, &[&vandal.ledger_id, &subject]).await;
            let first: i64 = first.unwrap().get(0);
            let finding = vandal.found("a data key deleted").await;
            assert!(matches!(finding.problem, Problem::TextMissing { .. }), "{finding}");
            assert!(
                finding.to_string().contains("is missing, and no erasure covers it"),
                "{finding}"
            );
            assert_eq!(finding.position, first as u64);
            let back = "INSERT INTO data_keys SELECT * FROM kept; DROP TABLE kept";
            sealing.batch_execute(back).await.unwrap();
        }
        vandal.is_good().await;
    });
}

#[test]
fn a_changed_tile_is_found_and_a_replica_does_not_start_on_it() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let full = "SELECT 1 FROM tiles t JOIN ledgers l USING (ledger_id) WHERE l.number = 1";
        let client = d.superuser().await;
        while client.query(full, &[]).await.unwrap().is_empty() {
            let calls = (0..64).map(|_| admin.call(service_key("robot", vec![])));
            for made in join_all(calls).await {
                made.unwrap();
            }
        }
        covered_by_checkpoints(&client).await;
        assert!(replica.stop().await.success());

        let vandal = Vandal::new(d, 1).await;
        let bits = Bits { table: "tiles", column: "hashes", r#type: Type::Bytes };
        for bit in [0, 8192 * 4, 8192 * 8 - 1] {
            let row = bits.flip(&client, "level = 0 AND tile_index = 0", bit).await.unwrap();
            let finding = vandal.found(&format!("bit {bit} of a tile")).await;
            assert_eq!(
                (finding.position, finding.problem),
                (0, Problem::Tile { level: 0, index: 0 })
            );
            let refusal = d.try_replica(d.databases(), &d.key_dir()).await.err().unwrap();
            assert!(refusal.contains("doesn't extend its checkpoint"), "{refusal}");
            bits.flip(&client, &format!("ctid = '{row}'"), bit).await.unwrap();
        }
        for planted in ["0, 1", "1, 0"] {
            let plant = format!("INSERT INTO tiles SELECT ledger_id, {planted}, hashes FROM tiles");
            vandal.run(&plant).await;
            vandal.found(&format!("a tile planted at {planted}")).await;
            vandal.run(&format!("DELETE FROM tiles WHERE (level, tile_index) = ({planted})")).await;
        }
        vandal.run("CREATE TEMP TABLE kept AS SELECT * FROM tiles; DELETE FROM tiles").await;
        let finding = vandal.found("a tile deleted").await;
        assert_eq!(finding.problem, Problem::Tile { level: 0, index: 0 });
        vandal.run("INSERT INTO tiles SELECT * FROM kept").await;
        vandal.is_good().await;
    });
}

impl Vandal {
    /// Flips bits all over a column of one row of the ledger, looking each time.
    async fn flip_some(&self, client: &Client, bits: Bits<'_>) {
        let Bits { table, column, r#type } = bits;
        let one = "SELECT ctid::text, octet_length($c)::text FROM $t WHERE ledger_id = $1 ORDER BY ctid LIMIT 1";
        let count = r#type.bits(column);
        let one = one.replace("octet_length($c)", &format!("({count})")).replace("$t", table);
        let row = client.query_one(&one, &[&self.ledger_id]).await.unwrap();
        let (mut ctid, count): (String, String) = (row.get(0), row.get(1));
        let count: i32 = count.parse().expect("a number");
        for bit in (0..count).step_by((count as usize / 24).max(1)).chain([count - 1]) {
            let Some(changed) = bits.flip(client, &format!("ctid = '{ctid}'"), bit).await else {
                continue;
            };
            self.found(&format!("bit {bit} of {table}.{column}")).await;
            ctid = bits
                .flip(client, &format!("ctid = '{changed}'"), bit)
                .await
                .expect("it was so before");
        }
    }
}
