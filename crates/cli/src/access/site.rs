//! `keyledger access site`: the whole ledger as a static site, whole or not at all.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use keyledger_proto::document::site::Site;
use keyledger_proto::{DescribeLedgerRequest, KeyDocument, LedgerDocument};

use crate::connection::Session;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::screen::Screen;
use crate::trace::links::TraceUrl;

/// By this file we know a site of ours.
const MARKER: &str = ".keyledger-site";
const MARK: &str = "keyledger access site, format 1\n";
/// All that lies at the top of a site.
const OURS: [&str; 6] = [MARKER, "index.html", "keys", "owners", "roles", "permissions"];
const FOLDERS: [&str; 4] = ["keys", "owners", "roles", "permissions"];

/// Write a site that explains the whole ledger: a page for each key, owner, role and permission, and an index with a search.
///
/// It works from any place, also straight from the disk: open DIR/index.html. Nothing is loaded from elsewhere. It holds names
/// and reasons in the clear, so it is written for its owner's eyes alone; give it away with care. A site that is there is
/// replaced as a whole; any other folder is left alone.
#[derive(clap::Args)]
#[command(after_help = "Example: keyledger access site ./access && xdg-open ./access/index.html")]
pub(super) struct WriteSite {
    /// Folder of the site: a new one, an empty one, or a site of ours.
    dir: PathBuf,
    /// Only keys that live: active and suspended ones.
    #[arg(long)]
    live_only: bool,
    /// Give up if there are more keys: at most 100000.
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000)]
    max_keys: u32,
    #[command(flatten)]
    url: TraceUrl,
}

impl WriteSite {
    /// An error if something is there that isn't ours.
    pub(super) fn check_target(&self) -> anyhow::Result<()> {
        check_target(&self.dir)
    }

    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let (ledger, keys) = self.read(session).await?;
        let site = Site::new(ledger, keys).with_trace_links(self.url.links);
        let beside = Beside::of(&self.dir)?;
        write(&site, &beside.partial).inspect_err(|_| drop(fs::remove_dir_all(&beside.partial)))?;
        // Something else may have come there since.
        check_target(&self.dir)?;
        beside.put_in_place(&self.dir)?;
        screen.line(&format!(
            "Wrote {} pages: open {}",
            site.size(),
            self.dir.join("index.html").display()
        ))?;
        Ok(())
    }

    async fn read(&self, session: &Session) -> anyhow::Result<(LedgerDocument, Vec<KeyDocument>)> {
        let request = DescribeLedgerRequest { live_only: self.live_only, max_keys: self.max_keys };
        let replies = session.keys().describe_ledger(session.stream(request)).await;
        let mut replies = replies.map_err(|s| session.failure(&s))?.into_inner();
        let (mut ledger, mut keys) = (None, vec![]);
        let mut progress = Progress::new("keys read");
        while let Some(reply) = replies.message().await.map_err(|s| session.failure(&s))? {
            ledger = ledger.or(reply.ledger);
            keys.extend(reply.keys);
            let all = ledger.as_ref().map_or(0, |l: &LedgerDocument| l.keys);
            progress.at(keys.len() as u64, all);
        }
        match ledger {
            Some(ledger) if ledger.keys == keys.len() as u64 => Ok((ledger, keys)),
            _ => Err(Failure::new("the server didn't tell of all keys")
                .next("run the command again")
                .into()),
        }
    }
}

fn check_target(dir: &Path) -> anyhow::Result<()> {
    let refuse = |why: &str| {
        Failure::new(format!("{} {why}", dir.display()))
            .next("name a new folder, an empty one, or a site that this command has written")
    };
    match fs::symlink_metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return check_parent(dir),
        Err(error) => return Err(refuse(&format!("can't be looked at: {error}")).into()),
        Ok(found) if !found.is_dir() => return Err(refuse("is no folder").into()),
        Ok(_) => {}
    }
    let names: Vec<_> = fs::read_dir(dir)?
        .map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()?;
    let is_marked = || fs::read_to_string(dir.join(MARKER)).is_ok_and(|mark| mark == MARK);
    if names.is_empty() {
        return Ok(());
    }
    if !is_marked() {
        return Err(refuse("holds something else than a site of ours").into());
    }
    match names.iter().find(|name| !OURS.contains(&name.as_str())) {
        Some(other) => {
            Err(refuse(&format!("holds {other}, which is no part of a site of ours")).into())
        }
        None => Ok(()),
    }
}

/// A folder is made, but not those above it.
fn check_parent(dir: &Path) -> anyhow::Result<()> {
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    match parent {
        Some(parent) if !parent.is_dir() => {
            let failure = Failure::new(format!("there is no folder {}", parent.display()));
            Err(failure.next("make it first, or name a folder in one that is there").into())
        }
        _ => Ok(()),
    }
}

/// Folders beside the site's own, where it is made and where the old one goes.
struct Beside {
    partial: PathBuf,
    old: PathBuf,
}

impl Beside {
    fn of(dir: &Path) -> anyhow::Result<Beside> {
        let name = dir.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.ok_or_else(|| Failure::new("the folder of the site needs a name"))?;
        let beside =
            |what: &str| dir.with_file_name(format!(".{name}.{what}-{}", std::process::id()));
        Ok(Beside { partial: beside("partial"), old: beside("old") })
    }

    /// Two renames: whenever it is cut off, each site is whole in some place.
    fn put_in_place(&self, dir: &Path) -> io::Result<()> {
        let was_there = match fs::rename(dir, &self.old) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if let Err(error) = fs::rename(&self.partial, dir) {
            if was_there {
                fs::rename(&self.old, dir)?;
            }
            return Err(error);
        }
        if was_there { fs::remove_dir_all(&self.old) } else { Ok(()) }
    }
}

/// All pages, then the mark: a folder without it is no site.
fn write(site: &Site, folder: &Path) -> io::Result<()> {
    let make = |folder: &Path| DirBuilder::new().mode(0o700).create(folder);
    make(folder)?;
    FOLDERS.iter().try_for_each(|name| make(&folder.join(name)))?;
    let mut progress = Progress::new("pages written");
    for (done, page) in site.pages().enumerate() {
        write_new(&folder.join(&page.path), &page.html)?;
        progress.at(done as u64, site.size() as u64);
    }
    write_new(&folder.join(MARKER), MARK)
}

fn write_new(file: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_site() -> Site {
        Site::new(LedgerDocument::default(), vec![])
    }

    fn put(dir: &Path) -> anyhow::Result<()> {
        check_target(dir)?;
        let beside = Beside::of(dir)?;
        write(&a_site(), &beside.partial)?;
        Ok(beside.put_in_place(dir)?)
    }

    #[test]
    fn a_site_takes_the_place_of_nothing_of_an_empty_folder_and_of_a_site() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("site");
        put(&dir).unwrap();
        fs::remove_file(dir.join("index.html")).unwrap();
        put(&dir).unwrap();
        assert!(dir.join("index.html").exists());
        let empty = folder.path().join("empty");
        fs::create_dir(&empty).unwrap();
        put(&empty).unwrap();
        let names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "nothing is left beside them: {names:?}");
    }

    #[test]
    fn what_is_no_site_of_ours_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("thesis");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("chapter"), "one").unwrap();
        assert!(put(&dir).unwrap_err().to_string().contains("something else"));
        fs::write(dir.join(MARKER), MARK).unwrap();
        assert!(put(&dir).unwrap_err().to_string().contains("chapter"));
        assert_eq!(fs::read_to_string(dir.join("chapter")).unwrap(), "one");
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(put(&file).unwrap_err().to_string().contains("is no folder"));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        assert!(put(&link).unwrap_err().to_string().contains("is no folder"));
        let nowhere = put(&folder.path().join("x/y")).unwrap_err().to_string();
        assert!(nowhere.contains(folder.path().join("x").to_str().unwrap()), "{nowhere}");
    }
}
