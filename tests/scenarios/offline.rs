//! Verification from every source: an export, a server, the databases with and without keys, and as an auditor.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::PathBuf;

use futures_util::future::join_all;
use keyledger_proto::*;
use serde_json::Value;

use crate::harness::*;

/// What a command came to.
struct Verified {
    code: i32,
    text: String,
}

impl Verified {
    /// The report of the ledger `default`, as programs read it.
    #[track_caller]
    fn report(&self) -> Value {
        let reports = self.text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let report = reports.into_iter().find(|r| r["ledger"] == "default");
        report.unwrap_or_else(|| panic!("no report: {}", self.text))
    }

    #[track_caller]
    fn good(self) -> Verified {
        assert_eq!(self.code, 0, "{}", self.text);
        self
    }

    /// Where it is not good.
    #[track_caller]
    fn position(&self) -> u64 {
        assert_eq!(self.code, 10, "{}", self.text);
        let reports = self.text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let position = reports.into_iter().find_map(|r| r["position"].as_u64());
        position.unwrap_or_else(|| panic!("no position is named: {}", self.text))
    }
}

#[test]
fn all_sources_tell_the_same_and_say_what_they_could_not_open() {
    scenario(async |d| {
        let replica = tell(d).await;
        let pin = pin(d, &replica).await;
        let export = export(d, &replica, "ledger.jsonl").await;
        let over_grpc = over_grpc(d, &replica, &[]).await.good().report();
        // From here on nothing is appended.
        let from_export = verify(d, &["--export", &export]).await.good().report();
        assert!(replica.stop().await.success());
        let with_keys = verify(d, &["--ledger", "default", "--database-url"]).await.good().report();
        let mut command = d.program();
        command.env_remove("SEALING_DATABASE_URL").env_remove("KEYLEDGER_KEY_DIR");
        let without = "verify -o json --ledger default --database-url";
        let output = command.args(without.split(' ')).output().await.unwrap();
        assert_eq!(output.status.code(), Some(0));
        let without: Value = serde_json::from_slice(&output.stdout).unwrap();

        // An export, and a look over gRPC, are uses too: a later source saw a little more.
        let size = |report: &Value| report["size"].as_u64().unwrap();
        assert!(size(&from_export) < size(&over_grpc));
        assert!(size(&over_grpc) <= size(&with_keys));
        assert_eq!(size(&with_keys), size(&without));
        assert_eq!(with_keys["root"], without["root"]);
        for report in [&from_export, &over_grpc, &with_keys, &without] {
            assert_eq!(report["good"], true);
            for same in ["ledger", "origin", "verifier_key"] {
                assert_eq!(report[same], with_keys[same], "{same}");
            }
        }
        for report in [&from_export, &over_grpc, &with_keys] {
            assert_eq!(report["texts_unopened"], 0);
            assert!(report["texts_opened"].as_u64().unwrap() > 5);
        }
        assert_eq!(without["texts_opened"], 0);
        assert_eq!(without["texts_unopened"], with_keys["texts_opened"]);
        let people = d
            .program()
            .env_remove("KEYLEDGER_KEY_DIR")
            .args(["verify", "--database-url"])
            .output()
            .await;
        let people = String::from_utf8(people.unwrap().stdout).unwrap();
        let unopened =
            format!("{} couldn't be opened (no data keys at hand)", without["texts_unopened"]);
        assert!(people.contains(&unopened), "{people}");

        // The export's root is that of the database at the export's size, or the pin of that size would not hold.
        let pinned = verify(d, &["--export", &export, "--pin", &pin]).await.good().report();
        assert_eq!(pinned["checkpoints"], 2);
        let pinned =
            verify(d, &["--ledger", "default", "--pin", &pin, "--database-url"]).await.good();
        assert!(pinned.report()["pinned_size"].as_u64().unwrap() > 0);
        let key = with_keys["verifier_key"].as_str().unwrap();
        verify(d, &["--export", &export, "--verifier-key", key]).await.good();
    });
}

#[test]
fn an_export_that_was_altered_is_found_where_it_was() {
    scenario(async |d| {
        let replica = tell(d).await;
        let later = pin(d, &replica).await;
        let export = export(d, &replica, "ledger.jsonl").await;
        let text = std::fs::read_to_string(&export).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let entries = lines.len() - 1;
        let try_it = async |lines: &[String]| {
            let file = folder(d).join("changed.jsonl");
            std::fs::write(&file, lines.join("\n") + "\n").unwrap();
            verify(d, &["--export", &file.display().to_string()]).await
        };
        let all: Vec<String> = lines.iter().map(|l| l.to_string()).collect();
        try_it(&all).await.good();
        for at in 0..entries {
            let position = at as u64;
            let mut dropped = all.clone();
            dropped.remove(at);
            assert_eq!(try_it(&dropped).await.position(), position, "line {at} dropped");
            let mut cut = all.clone();
            cut[at].truncate(all[at].len() / 2);
            assert_eq!(try_it(&cut).await.position(), position, "line {at} cut");
            let mut ends = all[..=at].to_vec();
            ends[at].truncate(all[at].len() / 2);
            assert_eq!(try_it(&ends).await.position(), position, "cut in line {at}");
            let other = if at + 1 < entries { at + 1 } else { 0 };
            let mut swapped = all.clone();
            swapped.swap(at, other);
            assert_eq!(
                try_it(&swapped).await.position(),
                at.min(other) as u64,
                "line {at} swapped"
            );
            for field in ["body", "signature", "public_key_sha256", "uses", "payload_type"] {
                let Some(line) = altered(&all[at], field) else { continue };
                let mut changed = all.clone();
                changed[at] = line;
                assert_eq!(try_it(&changed).await.position(), position, "{field} of line {at}");
            }
        }
        let mut shorter = all.clone();
        shorter.pop();
        assert_eq!(try_it(&shorter).await.position(), entries as u64, "the last line dropped");
        let mut end: Value = serde_json::from_str(&all[entries]).unwrap();
        let note = end["checkpoint"].as_str().unwrap().replacen("\n1", "\n2", 1);
        end["checkpoint"] = note.into();
        let mut changed = all.clone();
        changed[entries] = end.to_string();
        assert_eq!(try_it(&changed).await.code, 10, "the checkpoint changed");

        // Lines that were left out at the end, with an older checkpoint, tell only whoever pinned a later one.
        let early = std::fs::read_to_string(folder(d).join("early")).unwrap();
        let size: usize = early.lines().nth(1).unwrap().parse().unwrap();
        let mut short = all[..size].to_vec();
        let old: Value = serde_json::json!({ "checkpoint": early, "verifier_key": "" });
        short.push(old.to_string());
        let unseen = try_it(&short).await.good();
        assert_eq!(unseen.report()["size"].as_u64().unwrap(), size as u64);
        let file = folder(d).join("changed.jsonl").display().to_string();
        let seen = verify(d, &["--export", &file, "--pin", &later]).await;
        assert_eq!(seen.position(), size as u64);
        assert!(seen.text.contains("the newest ones are missing"), "{}", seen.text);
    });
}

#[test]
fn a_ledger_verifies_while_it_is_written_to() {
    scenario(async |d| {
        let replica = d.replica().await;
        let writing = async {
            let one = async |name: String| {
                for _ in 0..12 {
                    let made = replica.admin().call(service_key(&name, vec![])).await.unwrap();
                    let key_id = made.key.unwrap().key_id;
                    replica.admin().call(rotate(&key_id, 0)).await.unwrap();
                    replica.admin().call(revoke(&key_id)).await.unwrap();
                }
            };
            join_all((0..8).map(|i| one(format!("robot-{i}")))).await;
        };
        let written = Cell::new(false);
        let looking = async {
            let mut sizes = BTreeSet::new();
            while !written.get() {
                let report = verify(d, &["--database-url"]).await.good().report();
                sizes.insert(report["size"].as_u64().unwrap());
                over_grpc(d, &replica, &[]).await.good();
            }
            sizes
        };
        let (sizes, ()) = tokio::join!(looking, async {
            writing.await;
            written.set(true);
        });
        assert!(sizes.len() > 1, "it grew: {sizes:?}");
    });
}

#[test]
fn an_auditor_verifies_without_any_key() {
    scenario(async |d| {
        let replica = tell(d).await;
        assert!(replica.stop().await.success());
        let client = d.superuser().await;
        let name: String =
            client.query_one("SELECT current_database()::text", &[]).await.unwrap().get(0);
        let role = format!("auditor_of_{name}");
        let make = format!("CREATE ROLE {role} LOGIN PASSWORD 'looks' IN ROLE keyledger_auditor");
        client.batch_execute(&make).await.unwrap();
        let verify = async || {
            let mut command = d.program();
            command.env_remove("SEALING_DATABASE_URL").env_remove("KEYLEDGER_KEY_DIR");
            command.env("DATABASE_URL", d.ledger_url_as(&role, "looks"));
            let output =
                command.args(["verify", "-o", "json", "--database-url"]).output().await.unwrap();
            let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            Verified { code: output.status.code().unwrap(), text }
        };
        let report = verify().await.good().report();
        assert!(report["texts_unopened"].as_u64().unwrap() > 5);

        // That the rows of keys equal the fold of the entries is looked at, also by an auditor.
        let row = "SELECT position, ctid::text FROM keys k JOIN ledgers l USING (ledger_id) WHERE number = 1 LIMIT 1";
        let row = client.query_one(&row.replace("ctid", "k.ctid"), &[]).await.unwrap();
        let flip = "UPDATE keys SET state = set_bit(state, 77, 1 - get_bit(state, 77)) WHERE ctid = $1::text::tid RETURNING ctid::text";
        let changed: String =
            client.query_one(flip, &[&row.get::<_, String>(1)]).await.unwrap().get(0);
        let found = verify().await;
        assert_eq!(found.position(), row.get::<_, i64>(0) as u64);
        assert!(
            found.text.contains("a projected row differs from the entries: key"),
            "{}",
            found.text
        );
        client.query_one(flip, &[&changed]).await.unwrap();
        verify().await.good();
        client.batch_execute(&format!("DROP ROLE {role}")).await.unwrap();
    });
}

/// A story with every kind of entry, on a replica that still runs. Its first checkpoint lies in the file `early`.
async fn tell(d: &Deployment) -> std::sync::Arc<Replica> {
    let replica = d.replica().await;
    let admin = replica.admin();
    let alice = admin.call(user_key("alice@example.com")).await.unwrap();
    let early = admin.call(GetCheckpointRequest {}).await.unwrap();
    std::fs::write(folder(d).join("early"), early.note).unwrap();
    admin.call(check(&alice.token)).await.unwrap();
    admin.call(role("viewers", vec![grant("audit.read", "logs/**")])).await.unwrap();
    let alice = alice.key.unwrap().key_id;
    admin.call(rotate(&alice, 600)).await.unwrap();
    admin.call(revoke(&alice)).await.unwrap();
    replica
}

pub(crate) fn folder(d: &Deployment) -> PathBuf {
    d.key_dir().parent().expect("it lies in the scenario's folder").to_path_buf()
}

/// How to reach a replica as admin of the first ledger.
pub(crate) fn connection(d: &Deployment, replica: &Replica) -> [String; 4] {
    let token = folder(d).join("tokens/admin.token").display().to_string();
    ["--endpoint".into(), format!("http://{}", replica.address), "--token-file".into(), token]
}

/// A file with the newest checkpoint.
async fn pin(d: &Deployment, replica: &Replica) -> String {
    let file = folder(d).join("pin");
    let checkpoint = ["audit", "checkpoint"].map(String::from);
    let output = d.program().args(checkpoint).args(connection(d, replica)).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::write(&file, output.stdout).unwrap();
    file.display().to_string()
}

async fn export(d: &Deployment, replica: &Replica, name: &str) -> String {
    let file = folder(d).join(name).display().to_string();
    let export = ["audit", "export", "--output", &file].map(String::from);
    let output = d.run(export.into_iter().chain(connection(d, replica))).await;
    assert!(output.status.success(), "{}", output.text);
    file
}

async fn verify(d: &Deployment, arguments: &[&str]) -> Verified {
    let all = ["verify", "-o", "json"].iter().chain(arguments).map(|a| a.to_string());
    let output = d.run(all).await;
    Verified { code: output.status.code().expect("it ends by itself"), text: output.text }
}

async fn over_grpc(d: &Deployment, replica: &Replica, arguments: &[&str]) -> Verified {
    let connection = connection(d, replica);
    let all: Vec<&str> =
        connection.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
    verify(d, &all).await
}

/// A line with one character of a field changed; `None` if the field is empty.
fn altered(line: &str, field: &str) -> Option<String> {
    let mut line: Value = serde_json::from_str(line).unwrap();
    let text = line[field].as_str().unwrap().to_string();
    let middle = text.len() / 2;
    let now = text.get(middle..middle + 1)?;
    let other = if now == "1" { "2" } else { "1" };
    line[field] = format!("{}{other}{}", &text[..middle], &text[middle + 1..]).into();
    Some(line.to_string())
}
