//! The key directory: secrets of the deployment that never lie in a database. One file a key, 32 bytes in hexadecimal,
//! mode 0600, named `<purpose>.<number>`.
//!
//! | file | whoever has it can |
//! |---|---|
//! | `entry-signer.N` | sign entries; only checkpoints kept elsewhere would tell |
//! | `checkpoint-signer.N` | sign checkpoints |
//! | `pepper.N` | try secrets against stolen verifiers (256 random bits: hopeless; imported tokens may be weaker) |
//! | `row-mac.N` | forge projected rows, and resume tokens: the ledger then signs a manifest over lines that it never gave |
//! | `wrapping.N` | open data keys, and with them sealed texts |
//! | `blind-index.N` | test whether a person is a subject |

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use keyledger_ledger::entry::EntrySigner;
use keyledger_ledger::record::RowMac;
use keyledger_ledger::secret::{Pepper, Peppers};
use zeroize::Zeroizing;

use crate::store::StoreError;

const PURPOSES: [&str; 6] =
    ["entry-signer", "checkpoint-signer", "pepper", "row-mac", "wrapping", "blind-index"];

/// Keys of one purpose with their numbers, oldest first.
pub(crate) type Numbered = Vec<(u32, Zeroizing<[u8; 32]>)>;

/// All keys of a deployment.
pub struct KeyDirectory {
    pub(crate) path: PathBuf,
    pub(crate) entry_signer: EntrySigner,
    pub(crate) checkpoint_signer: SigningKey,
    pub(crate) peppers: Peppers,
    pub(crate) row_mac: RowMac,
    pub(crate) wrapping: Numbered,
    pub(crate) blind_index: Zeroizing<[u8; 32]>,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyDirectoryError {
    #[error(
        "the key directory {0} lacks {1}.1: restore it from its backup. It is never made anew, since what was made with the old one would be lost"
    )]
    Missing(PathBuf, &'static str),
    #[error("the key file {0} can't be read: {1}")]
    Unreadable(PathBuf, std::io::Error),
    #[error("the key file {0} must hold 64 hexadecimal digits")]
    Malformed(PathBuf),
    #[error("the key directory {0} exists already and holds keys: it is never overwritten")]
    Exists(PathBuf),
    #[error("the key directory {0} can't be written: {1}")]
    Unwritable(PathBuf, std::io::Error),
}

impl KeyDirectory {
    /// Makes a new directory with fresh keys.
    pub fn create(path: &Path) -> Result<KeyDirectory, KeyDirectoryError> {
        let unwritable = |e| KeyDirectoryError::Unwritable(path.into(), e);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unwritable)?;
        if PURPOSES.iter().any(|purpose| !numbered(path, purpose).is_empty()) {
            return Err(KeyDirectoryError::Exists(path.into()));
        }
        for purpose in PURPOSES {
            let mut key = Zeroizing::new([0u8; 32]);
            getrandom::fill(key.as_mut_slice())
                .map_err(|e| unwritable(std::io::Error::other(e)))?;
            let text = Zeroizing::new(format!("{}\n", hex::encode(key.as_slice())));
            write_private(&path.join(format!("{purpose}.1")), text.as_bytes())
                .map_err(unwritable)?;
        }
        KeyDirectory::open(path)
    }

    /// Reads an existing directory; names what is missing.
    pub fn open(path: &Path) -> Result<KeyDirectory, KeyDirectoryError> {
        let keys = |purpose| read_all(path, purpose);
        let newest = |purpose| {
            keys(purpose).map(|mut all| all.pop().expect("read_all finds one or fails").1)
        };
        let peppers = keys("pepper")?.into_iter().map(|(id, key)| Pepper::new(id, *key)).collect();
        Ok(KeyDirectory {
            path: path.into(),
            entry_signer: EntrySigner::new(SigningKey::from_bytes(&*newest("entry-signer")?)),
            checkpoint_signer: SigningKey::from_bytes(&*newest("checkpoint-signer")?),
            peppers: Peppers::new(peppers),
            row_mac: RowMac::new(*newest("row-mac")?),
            wrapping: keys("wrapping")?,
            blind_index: newest("blind-index")?,
        })
    }

    /// Where the newest checkpoint of a ledger is kept, outside the database.
    /// The newest checkpoint of a ledger that a replica with this directory has kept.
    pub(crate) fn kept_checkpoint(&self, number: u32) -> Result<Option<String>, StoreError> {
        match std::fs::read_to_string(self.checkpoint_file(number)) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::Damaged(format!("the kept checkpoint can't be read: {e}"))),
        }
    }

    pub(crate) fn checkpoint_file(&self, number: u32) -> PathBuf {
        self.path.join(format!("ledger-{number}.checkpoint"))
    }
}

/// Writes a file that only we can read, all of it or nothing.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let unique = format!("part-{}-{:?}", std::process::id(), std::thread::current().id());
    let part = path.with_extension(unique.replace(['(', ')'], ""));
    let _ = fs::remove_file(&part);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, path)
}

fn read_all(path: &Path, purpose: &'static str) -> Result<Numbered, KeyDirectoryError> {
    let files = numbered(path, purpose);
    if files.is_empty() {
        return Err(KeyDirectoryError::Missing(path.into(), purpose));
    }
    files.into_iter().map(|(id, file)| Ok((id, read(&file)?))).collect()
}

fn numbered(path: &Path, purpose: &str) -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|e| {
            let name = e.file_name().into_string().ok()?;
            let number = name.strip_prefix(purpose)?.strip_prefix('.')?.parse().ok()?;
            Some((number, e.path()))
        })
        .collect();
    found.sort();
    found
}

fn read(file: &Path) -> Result<Zeroizing<[u8; 32]>, KeyDirectoryError> {
    let text =
        fs::read_to_string(file).map_err(|e| KeyDirectoryError::Unreadable(file.into(), e))?;
    let text = Zeroizing::new(text);
    let mut key = Zeroizing::new([0u8; 32]);
    hex::decode_to_slice(text.trim(), key.as_mut_slice())
        .map_err(|_| KeyDirectoryError::Malformed(file.into()))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_lacks_a_key_is_refused_and_the_key_is_named() {
        let dir = std::env::temp_dir().join(format!("keyledger-keydir-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        KeyDirectory::create(&dir).unwrap();
        assert!(matches!(KeyDirectory::create(&dir), Err(KeyDirectoryError::Exists(_))));
        for purpose in PURPOSES {
            let file = dir.join(format!("{purpose}.1"));
            let kept = fs::read(&file).unwrap();
            fs::remove_file(&file).unwrap();
            let error = KeyDirectory::open(&dir).err().unwrap().to_string();
            assert!(error.contains(purpose), "{error}");
            assert!(!file.exists(), "a missing key must not be made anew");
            fs::write(&file, kept).unwrap();
        }
        KeyDirectory::open(&dir).unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }
}
