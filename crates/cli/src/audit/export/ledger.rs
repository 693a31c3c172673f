//! The whole ledger, raw.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::connection::Session;
use crate::export_file::{EndLine, EntryLine, create};
use crate::failure::Failure;
use crate::json::line_of;
use crate::progress::Progress;
use crate::raw_entries::{RawEntries, newest_checkpoint};

pub(super) async fn export(session: &Session, output: &Path) -> anyhow::Result<()> {
    if output.as_os_str() == "-" {
        write(session, &mut BufWriter::new(io::stdout())).await?;
        return Ok(());
    }
    let part = part_of(output);
    let written = write_part(session, &part).await.and_then(|entries| {
        let both = || format!("can't rename {} to {}", part.display(), output.display());
        std::fs::rename(&part, output).with_context(both)?;
        Ok(entries)
    });
    // A broken export holds personal data too: it doesn't stay.
    let entries = written.inspect_err(|_| drop(std::fs::remove_file(&part)))?;
    eprintln!("Exported {entries} entries to {}", output.display());
    Ok(())
}

async fn write_part(session: &Session, part: &Path) -> anyhow::Result<u64> {
    let what = || format!("can't write {}", part.display());
    let mut file = BufWriter::new(create(part).with_context(what)?);
    let entries = write(session, &mut file).await?;
    file.into_inner().map_err(|e| e.into_error()).and_then(|f| f.sync_all()).with_context(what)?;
    Ok(entries)
}

/// Writes all lines and returns the number of entries. The checkpoint is taken first, and the entries end where it ends:
/// so none of them can be left out unseen.
async fn write(session: &Session, out: &mut impl Write) -> anyhow::Result<u64> {
    let checkpoint = newest_checkpoint(session).await?;
    let mut progress = Progress::new("entries exported");
    let mut entries = RawEntries::open(session).await?;
    let mut count = 0;
    while count < checkpoint.size
        && let Some((position, raw)) = entries.next().await?
    {
        writeln!(out, "{}", line_of(&EntryLine::new(position, raw))?)?;
        count += 1;
        progress.at(count, checkpoint.size);
    }
    if count < checkpoint.size {
        let failure =
            Failure::new(format!("the stream ended after {count} of {} entries", checkpoint.size));
        return Err(failure
            .next("run the command again; if it stays so, `keyledger verify`")
            .into());
    }
    let end = EndLine { checkpoint: checkpoint.note, verifier_key: checkpoint.verifier_key };
    writeln!(out, "{}", line_of(&end)?)?;
    out.flush()?;
    Ok(count)
}

fn part_of(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_export_is_for_its_owner_and_never_follows_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (target, part) = (dir.path().join("target"), part_of(&dir.path().join("x.jsonl")));
        assert!(part.ends_with("x.jsonl.part"));
        std::fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, &part).unwrap();
        create(&part).unwrap().write_all(b"new").unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
        assert_eq!(std::fs::metadata(&part).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
