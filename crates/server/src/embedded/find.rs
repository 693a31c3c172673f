//! Which Postgres server to run: a folder that somebody named, else the newest one installed.
//!
//! A named folder (flag, then `PG_BIN_DIR`) that is wrong is an error; it is never passed over. Without one, all known
//! places are searched and the newest version wins. Data that exists binds us to the major version that wrote it, so an
//! upgrade of the system's default Postgres doesn't lock anybody out as long as the older one is still installed.

use std::cmp::Reverse;
use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::EmbeddedError;

pub(super) const OLDEST_MAJOR: u32 = 14;

/// How messages call the caller's own choice.
const FLAG: &str = "--pg-bin-dir";
const VARIABLE: &str = "PG_BIN_DIR";

/// Where packages put servers. A component may hold one `*`.
const USUAL: [&str; 15] = [
    "/usr/lib/postgresql/*/bin",   // Debian, Ubuntu
    "/usr/pgsql-*/bin",            // packages of postgresql.org for RHEL
    "/usr/libexec/postgresql*",    // Alpine
    "/usr/lib/postgresql*/bin",    // openSUSE
    "/usr/lib64/postgresql-*/bin", // Gentoo
    "/usr/bin",
    "/usr/local/bin",
    "/usr/local/pgsql/bin", // built from source
    "/opt/postgres*/bin",
    "/opt/pgsql*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
    "/Library/PostgreSQL/*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
];

/// A folder with `postgres` and `initdb` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    pub dir: PathBuf,
    pub version: Version,
}

/// 17.2 is newer than 15.18. A beta counts as the `.0` it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The server to use: `flag` if given, else `PG_BIN_DIR`, else the newest one found. Runs each candidate with
/// `--version`, so it blocks for some milliseconds.
pub fn find(flag: Option<&Path>) -> Result<Binaries, EmbeddedError> {
    find_for(flag, None)
}

/// As `find`, for data in a directory that the given major version wrote.
pub(super) fn find_for(
    flag: Option<&Path>,
    written_by: Option<(&Path, u32)>,
) -> Result<Binaries, EmbeddedError> {
    let variable = env::var_os(VARIABLE).filter(|value| !value.is_empty());
    if let Some((origin, dir)) = named(flag, variable.as_deref()) {
        let binaries = check_named(origin, dir)?;
        return newest(vec![binaries], written_by, vec![]);
    }
    let dirs = places();
    let found = dirs.iter().filter_map(|dir| inspect(dir).ok()).collect();
    newest(found, written_by, dirs)
}

fn named<'a>(
    flag: Option<&'a Path>,
    variable: Option<&'a OsStr>,
) -> Option<(&'static str, &'a Path)> {
    let flag = flag.map(|dir| (FLAG, dir));
    flag.or(variable.map(|dir| (VARIABLE, Path::new(dir))))
}

fn check_named(origin: &'static str, dir: &Path) -> Result<Binaries, EmbeddedError> {
    let wrong =
        |problem: String| EmbeddedError::WrongBinDir { origin, dir: dir.to_owned(), problem };
    let binaries = inspect(dir).map_err(wrong)?;
    if binaries.version.major < OLDEST_MAJOR {
        let version = binaries.version;
        return Err(wrong(format!("holds version {version}, older than {OLDEST_MAJOR}")));
    }
    Ok(binaries)
}

fn newest(
    found: Vec<Binaries>,
    written_by: Option<(&Path, u32)>,
    looked_in: Vec<PathBuf>,
) -> Result<Binaries, EmbeddedError> {
    let (mut usable, too_old): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|b| b.version.major >= OLDEST_MAJOR);
    if usable.is_empty() {
        return Err(EmbeddedError::NotFound { looked_in, too_old });
    }
    // Stable: among equals the earlier place wins.
    usable.sort_by_key(|b| Reverse(b.version));
    let Some((pgdata, major)) = written_by else {
        return Ok(usable.swap_remove(0));
    };
    match usable.iter().position(|b| b.version.major == major) {
        Some(index) => Ok(usable.swap_remove(index)),
        None => Err(EmbeddedError::OtherMajor { pgdata: pgdata.to_owned(), major, found: usable }),
    }
}

/// All folders to search, each once, the most telling first.
fn places() -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = pg_config().into_iter().collect();
    dirs.extend(USUAL.iter().flat_map(|pattern| expand(pattern)));
    dirs.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let mut places: Vec<PathBuf> = Vec::new();
    for dir in dirs {
        // A relative folder in PATH must not decide what runs as another user.
        let known = places.contains(&dir);
        if dir.is_absolute() && dir.is_dir() && !known {
            places.push(dir);
        }
    }
    places
}

fn pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(text.trim())).filter(|_| output.status.success())
}

/// The directories that match `pattern`, in the order of their names.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let mut dirs = vec![PathBuf::from("/")];
    for component in pattern.split('/').filter(|c| !c.is_empty()) {
        dirs = match component.split_once('*') {
            None => dirs.iter().map(|dir| dir.join(component)).collect(),
            Some((start, end)) => dirs.iter().flat_map(|d| matching(d, start, end)).collect(),
        };
    }
    dirs
}

fn matching(dir: &Path, start: &str, end: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let fits = |name: &str| {
        let rest = name.strip_prefix(start);
        rest.is_some_and(|rest| rest.ends_with(end))
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(fits))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// What lies in `dir`, or in what way it is no server's folder.
fn inspect(dir: &Path) -> Result<Binaries, String> {
    if !dir.is_dir() {
        return Err("is not a directory".to_owned());
    }
    for program in ["postgres", "initdb"] {
        if !dir.join(program).is_file() {
            return Err(format!("has no `{program}` in it"));
        }
    }
    let output = Command::new(dir.join("postgres")).arg("--version").output();
    let output = output.map_err(|e| format!("holds a `postgres` that can't be run ({e})"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = parse_version(&text);
    let version = version.ok_or_else(|| {
        let text = text.trim();
        format!("holds a `postgres` that calls its version `{text}`")
    })?;
    // Postgres runs with another working directory.
    let dir = std::path::absolute(dir).map_err(|e| format!("has no absolute path ({e})"))?;
    Ok(Binaries { dir, version })
}

/// Reads `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, also `18beta1` and `19devel`.
fn parse_version(text: &str) -> Option<Version> {
    let is_number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
    let word = text.split_whitespace().find(is_number)?;
    let mut numbers = word.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    let after = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let minor = match after.strip_prefix('.') {
        Some(_) => numbers.next()?.parse().ok()?,
        None => 0,
    };
    Some(Version { major, minor })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binaries(dir: &str, major: u32, minor: u32) -> Binaries {
        Binaries { dir: dir.into(), version: Version { major, minor } }
    }

    #[test]
    fn versions_are_read_as_the_packagers_write_them() {
        let read = |text: &str| parse_version(text).map(|v| (v.major, v.minor));
        let debian = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n";
        assert_eq!(read(debian), Some((15, 18)));
        assert_eq!(read("postgres (PostgreSQL) 18beta1"), Some((18, 0)));
        assert_eq!(read("postgres (PostgreSQL) 19devel"), Some((19, 0)));
        assert_eq!(read("postgres (EnterpriseDB) 16.2.0"), Some((16, 2)));
        assert_eq!(read("not a server"), None);
    }

    #[test]
    fn the_newest_version_wins_and_among_equals_the_earlier_place() {
        let found = vec![
            binaries("/a", 15, 18),
            binaries("/b", 17, 2),
            binaries("/c", 17, 2),
            binaries("/d", 9, 6),
        ];
        assert_eq!(newest(found, None, vec![]).unwrap().dir, Path::new("/b"));
    }

    #[test]
    fn data_is_served_by_the_major_version_that_wrote_it() {
        let found = vec![binaries("/a", 15, 18), binaries("/b", 17, 2)];
        let pgdata = Path::new("/data/postgres");
        let chosen = newest(found.clone(), Some((pgdata, 15)), vec![]).unwrap();
        assert_eq!(chosen.dir, Path::new("/a"));
        let refused = newest(found, Some((pgdata, 16)), vec![]).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("install version 16") && text.contains("17.2 in /b"), "{text}");
    }

    #[test]
    fn servers_that_are_too_old_are_named_when_nothing_better_is_there() {
        let refused = newest(vec![binaries("/old", 13, 4)], None, vec![]).unwrap_err();
        assert!(refused.to_string().contains("only 13.4 in /old"), "{refused}");
    }

    #[test]
    fn the_flag_goes_before_the_variable() {
        let flag = Path::new("/flag");
        let variable = OsStr::new("/variable");
        assert_eq!(named(Some(flag), Some(variable)), Some((FLAG, flag)));
        let only = named(None, Some(variable));
        assert_eq!(only, Some((VARIABLE, Path::new("/variable"))));
    }

    #[test]
    fn a_named_folder_without_a_server_is_an_error_that_names_it() {
        let text = find(Some(Path::new("/nowhere"))).unwrap_err().to_string();
        assert!(text.contains("--pg-bin-dir names /nowhere, which is not a directory"), "{text}");
        let text = find(Some(Path::new("/proc"))).unwrap_err().to_string();
        assert!(text.contains("has no `postgres` in it"), "{text}");
    }
}
