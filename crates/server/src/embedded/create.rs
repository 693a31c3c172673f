//! A new cluster: `initdb` beside PGDATA, then a rename, so that PGDATA is complete or absent.
//!
//! Logins are by password (SCRAM) although the socket's folder is closed already. `peer` would need
//! a line of pg_ident.conf for each pair of operating system user and role, and `trust` would let
//! every process of the server's account in (which is `nobody` on some machines). A password works
//! for any further role, and who may read its 0600 file is who may connect. Page checksums are on:
//! a damaged page must be an error and not another answer.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::account::Account;
use super::error::EmbeddedError;
use super::layout::Layout;
use super::{leftovers, log};

/// `initdb` takes a second or two; on a slow disk its fsyncs take longer.
pub(super) const INITDB_LIMIT: Duration = Duration::from_secs(120);

const POLL: Duration = Duration::from_millis(20);
const WIPE_ATTEMPTS: u32 = 200;

const ARGUMENTS: [&str; 7] = [
    "--username=postgres",
    "--auth-local=scram-sha-256",
    "--auth-host=scram-sha-256",
    "--data-checksums",
    "--encoding=UTF8",
    // Bytes are compared, and no update of the system's locales can reorder an index.
    "--locale=C",
    "--no-instructions",
];

/// `lend` is a folder where the account can read the password for the moment of `initdb`.
pub(super) fn create(
    layout: &Layout,
    account: &Account,
    bin_dir: &Path,
    lend: &Path,
) -> Result<(), EmbeddedError> {
    refuse_other_content(&layout.pgdata())?;
    make_unfinished(layout, account)?;
    let password = new_password().map_err(EmbeddedError::io("read /dev/urandom"))?;
    // Durable before PGDATA exists: a cluster without its password would be lost.
    write_secret(&layout.password(), &password)?;
    let lent = lend.join("password");
    write_secret(&lent, &password)?;
    account.give(&lent)?;
    let made = initdb(layout, account, bin_dir, &lent);
    let _ = fs::remove_file(&lent);
    made?;
    publish(layout)
}

/// An empty folder is fine; the rename replaces it.
fn refuse_other_content(pgdata: &Path) -> Result<(), EmbeddedError> {
    let Ok(mut entries) = fs::read_dir(pgdata) else {
        return Ok(());
    };
    if entries.next().is_none() {
        return Ok(());
    }
    let pgdata = pgdata.display();
    Err(EmbeddedError::Refused(format!(
        "{pgdata} holds files but no Postgres cluster (no PG_VERSION): move them away, or choose \
         another data directory"
    )))
}

/// Removes what interrupted runs left. An `initdb` that lost its guard may still write there; it
/// gives up when its server process ends and its files go.
pub(super) fn wipe_unfinished(layout: &Layout, account: &Account) -> Result<(), EmbeddedError> {
    for dir in layout.all_unfinished() {
        for attempt in 1..=WIPE_ATTEMPTS {
            leftovers::clear(&dir, account)?;
            match fs::remove_dir_all(&dir) {
                Ok(()) => break,
                Err(_) if attempt < WIPE_ATTEMPTS => thread::sleep(POLL),
                Err(e) => return Err(EmbeddedError::io(format!("remove {}", dir.display()))(e)),
            }
        }
    }
    Ok(())
}

fn make_unfinished(layout: &Layout, account: &Account) -> Result<(), EmbeddedError> {
    let dir = layout.unfinished();
    let made = DirBuilder::new().mode(0o700).create(&dir);
    made.map_err(EmbeddedError::io(format!("make {}", dir.display())))?;
    account.give(&dir)
}

/// 256 bits, in hex: it needs no quoting anywhere.
fn new_password() -> io::Result<String> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn write_secret(path: &Path, secret: &str) -> Result<(), EmbeddedError> {
    let write = || {
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        // Never through a link, never into a file that somebody else holds open.
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        writeln!(file, "{secret}")?;
        file.sync_all()
    };
    write().map_err(EmbeddedError::io(format!("write {}", path.display())))
}

fn initdb(
    layout: &Layout,
    account: &Account,
    bin_dir: &Path,
    password_file: &Path,
) -> Result<(), EmbeddedError> {
    let program = bin_dir.join("initdb");
    let (mut command, dir) = account.command_on(&layout.unfinished(), &program)?;
    command.arg("-D").arg(dir).args(ARGUMENTS);
    command.arg("--pwfile").arg(password_file);
    let running = format!("run {} as {}", program.display(), account.name);
    let to_log = log::output().map_err(EmbeddedError::io(running.clone()))?;
    let child = command.stdout(Stdio::null()).stderr(to_log).spawn();
    let mut child = child.map_err(EmbeddedError::io(running.clone()))?;
    let ended = wait_within(&mut child, INITDB_LIMIT).map_err(EmbeddedError::io(running))?;
    let Some(status) = ended else {
        let _ = child.kill();
        let _ = child.wait();
        let seconds = INITDB_LIMIT.as_secs();
        return Err(EmbeddedError::Refused(format!(
            "`initdb` did not end within {seconds} s: see whether the disk works, then try again"
        )));
    };
    if status.success() {
        return Ok(());
    }
    Err(EmbeddedError::Refused(format!(
        "`initdb` failed ({status}): look into {} for the cause, then try again",
        layout.log().display()
    )))
}

fn publish(layout: &Layout) -> Result<(), EmbeddedError> {
    let (from, to) = (layout.unfinished(), layout.pgdata());
    let doing = format!("rename {} to {}", from.display(), to.display());
    let sync = || File::open(&layout.data_dir)?.sync_all();
    sync()
        // The password's name is durable.
        .and_then(|()| fs::rename(from, to))
        .and_then(|()| sync())
        .map_err(EmbeddedError::io(doing))
}

/// `None` if it still runs when the time is up.
pub(super) fn wait_within(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begun.elapsed() > limit {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}
