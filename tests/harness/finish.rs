//! How every scenario ends: servers are stopped, each ledger is verified as a whole, and no secret shows anywhere.

use std::fs;

use keyledger_server::inspect::{Source, ledger_names, verify_ledger};
use tokio_postgres::Client;

use super::deployment::Deployment;
use super::postgres::postgres;
use super::secrets::Scanner;

impl Deployment {
    pub(super) async fn finish(self) {
        self.stop_replicas().await;
        self.check_logs();
        self.verify_ledgers().await;
        self.look_for_secrets().await;
        postgres().drop(&self.databases).await;
    }

    /// After a scenario that failed: says where to look, and frees what Postgres holds.
    pub(super) async fn give_up(self) {
        for replica in self.replicas.lock().expect("no holder of this lock panics").drain(..) {
            eprintln!("---- log of the replica on {}\n{}", replica.address, replica.log());
        }
        postgres().drop(&self.databases).await;
    }

    async fn stop_replicas(&self) {
        let replicas = self.replicas.lock().expect("no holder of this lock panics").clone();
        for replica in replicas.iter().filter(|replica| replica.is_running()) {
            let status = replica.stop().await;
            assert!(status.success(), "a server ended with {status}:\n{}", replica.log());
        }
    }

    /// No task of a server has panicked, and none has met what it calls a bug of ours.
    fn check_logs(&self) {
        for (name, bytes) in self.logs() {
            let text = String::from_utf8_lossy(&bytes);
            for bug in ["panicked at", "a bug of ours"] {
                assert!(!text.contains(bug), "{name}: {bug}\n{text}");
            }
        }
    }

    /// Everything is checked, and every sealed text is opened.
    async fn verify_ledgers(&self) {
        let source = Source {
            ledger: self.databases().ledger.clone(),
            sealing: Some(self.databases().sealing.clone()),
            key_dir: Some(self.key_dir()),
        };
        let damaged = self.damaged.lock().expect("no holder of this lock panics").clone();
        for name in ledger_names(&source).await.expect("ledgers can be listed") {
            let verified = verify_ledger(&source, &name, &[], &mut |_, _| {}).await;
            let (verifier, finding) = verified.expect("the ledger can be read");
            if damaged.contains(&name) {
                assert!(finding.is_some(), "the damage to ledger {name} was not found");
                continue;
            }
            assert_eq!(finding, None, "ledger {name} doesn't verify");
            assert_eq!(verifier.counts().texts_unopened, 0, "texts of ledger {name} stayed closed");
        }
    }

    async fn look_for_secrets(&self) {
        let mut scanner = self.secrets.scanner();
        self.logs().iter().for_each(|(name, bytes)| scanner.look_into(name, bytes));
        scanner.look_into(
            "the log of Postgres",
            &fs::read(postgres().log()).expect("Postgres has a log"),
        );
        // Where callers sit, which is on this machine: told to nobody but the sealed texts.
        self.secrets.text("the address of a caller", "127.0.0.1");
        let mut dumps = self.secrets.scanner();
        dump(&self.superuser().await, &mut dumps).await;
        dump(&self.sealing_superuser().await, &mut dumps).await;
        scanner.finish();
        dumps.finish();
    }

    fn logs(&self) -> Vec<(String, Vec<u8>)> {
        let files = fs::read_dir(self.folder.join("logs")).expect("each scenario runs a program");
        let read = |path: std::path::PathBuf| {
            (path.display().to_string(), fs::read(&path).expect("it is ours"))
        };
        files.flatten().map(|file| read(file.path())).collect()
    }
}

/// Looks into every column of every row: raw bytes as they are, everything else as text.
async fn dump(client: &Client, scanner: &mut Scanner) {
    let columns = "SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns
                   WHERE table_schema = 'public' ORDER BY 1, 2";
    let columns = client.query(columns, &[]).await.expect("a superuser sees all columns");
    assert!(columns.len() >= 5, "there are tables to look into");
    for column in columns {
        let (table, name, kind): (String, String, String) =
            (column.get(0), column.get(1), column.get(2));
        let cast = if kind == "bytea" { "" } else { "::text" };
        let place = format!("{table}.{name}");
        let rows = client.query(&format!("SELECT \"{name}\"{cast} FROM \"{table}\""), &[]).await;
        for row in rows.expect("a superuser reads all rows") {
            match kind.as_str() {
                "bytea" => {
                    scanner.look_into(&place, row.get::<_, Option<&[u8]>>(0).unwrap_or_default())
                }
                _ => scanner.look_into(
                    &place,
                    row.get::<_, Option<&str>>(0).unwrap_or_default().as_bytes(),
                ),
            }
        }
    }
}
