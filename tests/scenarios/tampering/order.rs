//! Entries swapped, deleted, moved up and cut off.

use super::*;

#[test]
fn two_entries_that_are_swapped_are_found() {
    scenario(async |d| {
        tell(d).await;
        let vandal = Vandal::new(d, 1).await.unfenced().await;
        let (size, mut only_the_root) = (vandal.size().await, 0);
        for (a, b) in (0..size).flat_map(|a| (a + 1..size).map(move |b| (a, b))) {
            vandal.swap("position", a, b).await;
            let finding = vandal.found(&format!("{a} and {b} swapped")).await;
            // An entry doesn't say where it stands. One that fits earlier, too, is found where the next doesn't fit.
            let near = (a..=b).any(|position| names(&finding, position));
            assert!(near, "{a} and {b} swapped: {finding}");
            only_the_root += i32::from(matches!(finding.problem, Problem::Root { .. }));
            vandal.swap("position", a, b).await;
        }
        assert!(only_the_root >= 1, "two of one batch differ in nothing but the root");
        vandal.is_good().await;
    });
}

#[test]
fn a_column_that_two_entries_have_exchanged_is_found() {
    scenario(async |d| {
        tell(d).await;
        let vandal = Vandal::new(d, 1).await.unfenced().await;
        for a in 0..vandal.size().await - 1 {
            for (column, _) in bits::COLUMNS.iter().filter(|(c, _)| *c != "position") {
                if !vandal.swap(column, a, a + 1).await {
                    continue;
                }
                let finding = vandal.found(&format!("{column} of {a} and {} swapped", a + 1)).await;
                assert!(names(&finding, a), "{column} of {a}: {finding}");
                vandal.swap(column, a, a + 1).await;
            }
        }
        vandal.is_good().await;
    });
}

#[test]
fn an_entry_that_is_deleted_is_missed() {
    scenario(async |d| {
        tell(d).await;
        let vandal = Vandal::new(d, 1).await.unfenced().await;
        let size = vandal.size().await;
        for position in 0..size {
            vandal.keep("entries").await;
            vandal.run(&format!("DELETE FROM entries WHERE {}", vandal.at(position))).await;
            let finding = vandal.found(&format!("{position} deleted")).await;
            assert_eq!(finding.position, position as u64);
            let expected = match position + 1 == size {
                true => Problem::Truncated { size: size as u64 },
                false => Problem::Gap { found: position as u64 + 1 },
            };
            assert_eq!(finding.problem, expected);
            let up = "UPDATE entries SET position = position - 1 WHERE ledger_id =";
            vandal.run(&format!("{up} '{}' AND position > {position}", vandal.ledger_id)).await;
            vandal.found(&format!("{position} deleted, and all later ones moved up")).await;
            vandal.put_back("entries").await;
        }
        vandal.is_good().await;
    });
}

#[test]
fn the_newest_entries_are_missed_by_whoever_has_a_checkpoint_of_them() {
    scenario(async |d| {
        tell(d).await;
        let (earlier, later) = two_pins(d).await;
        let vandal = Vandal::new(d, 1).await;
        let size = vandal.size().await;
        let verify = async |pin: Option<&str>| {
            let pin = pin.map(|file| ["--pin", file]).into_iter().flatten();
            let arguments = ["verify", "--ledger", "default"].into_iter().chain(pin);
            let output = d.run(arguments.chain(["--database-url"]).map(String::from)).await;
            (output.status.code().unwrap(), output.text)
        };
        let (whole, text) = verify(Some(&later.file)).await;
        assert_eq!(whole, 0, "{text}");

        // The last three entries are pages of uses: nothing else tells of them.
        vandal.keep("entries").await;
        vandal.keep("checkpoints").await;
        let cut = size - 3;
        vandal.cut("entries", "position", cut).await;
        for pin in [None, Some(&*earlier.file), Some(&*later.file)] {
            let (stored, text) = verify(pin).await;
            assert_eq!(stored, 10, "{text}");
            assert!(text.contains(&format!("position {cut}: ")), "{text}");
            assert!(text.contains("the newest ones are missing"), "{text}");
        }
        // The replicas keep one in the key directory, which is asked, too, as long as it is there.
        vandal.cut("checkpoints", "size - 1", cut).await;
        let (kept, text) = verify(None).await;
        assert_eq!(kept, 10, "{text}");
        assert!(text.contains("the newest ones are missing"), "{text}");
        let file = d.key_dir().join("ledger-1.checkpoint");
        let kept = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let (pinned, text) = verify(Some(&later.file)).await;
        assert_eq!(pinned, 10, "{text}");
        assert!(text.contains(&format!("a checkpoint covers {} entries", later.size)), "{text}");
        let (pinned, text) = verify(Some(&earlier.file)).await;
        assert_eq!(pinned, 0, "{text}");
        let from = format!("(from position {} on) can't be seen", earlier.size);
        assert!(text.contains(&from), "{text}");
        let (unpinned, text) = verify(None).await;
        assert_eq!(unpinned, 0, "{text}");
        assert!(text.contains("Without an earlier checkpoint"), "{text}");
        assert!(text.contains("can't be seen"), "{text}");

        // A change that was cut off is missed by the rows that project it.
        let created = "SELECT max(position) FROM entries WHERE ledger_id = $1 AND kind = 18";
        let created = vandal.client.query_one(created, &[&vandal.ledger_id]).await.unwrap().get(0);
        vandal.cut("entries", "position", created).await;
        vandal.cut("checkpoints", "size - 1", created).await;
        assert!(names(&vandal.found("a change cut off").await, created));
        vandal.put_back("entries").await;
        vandal.put_back("checkpoints").await;
        std::fs::write(&file, kept).unwrap();
        vandal.is_good().await;
    });
}

/// A signed note in a file.
struct Pin {
    size: u64,
    file: String,
}

/// Lets a server sign, then leave three pages of uses, and sign again: earlier and later.
async fn two_pins(d: &Deployment) -> (Pin, Pin) {
    let replica = d.replica().await;
    let folder = d.key_dir();
    let pin = async |name: &str| {
        let reply = replica.admin().call(GetCheckpointRequest {}).await.unwrap();
        let file = folder.with_file_name(name);
        std::fs::write(&file, reply.note).unwrap();
        Pin { size: reply.size, file: file.display().to_string() }
    };
    let earlier = pin("earlier").await;
    for _ in 0..3 {
        replica.admin().call(WhoAmIRequest {}).await.unwrap();
    }
    covered_by_checkpoints(&d.superuser().await).await;
    let later = pin("later").await;
    covered_by_checkpoints(&d.superuser().await).await;
    assert!(replica.stop().await.success());
    (earlier, later)
}

impl Vandal {
    /// Exchanges a column of two entries. Whether it differs at all.
    async fn swap(&self, column: &str, a: i64, b: i64) -> bool {
        let swap = format!(
            "UPDATE entries x SET {column} = y.{column} FROM entries y
             WHERE x.ledger_id = $1 AND y.ledger_id = $1 AND x.{column} IS DISTINCT FROM y.{column}
               AND (x.position, y.position) IN (($2, $3), ($3, $2))"
        );
        self.client.execute(&swap, &[&self.ledger_id, &a, &b]).await.unwrap() > 0
    }

    /// Deletes all rows of the ledger from a position on.
    async fn cut(&self, table: &str, place: &str, from: i64) {
        let id = self.ledger_id;
        self.run(&format!("DELETE FROM {table} WHERE ledger_id = '{id}' AND {place} >= {from}"))
            .await;
    }
}
