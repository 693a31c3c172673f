//! `keyledger init`: opens ledger 0 and a first ledger, makes the key directory and two admin tokens. It refuses to run twice.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyledger_ledger::command::{Answer, Change, ChangeKind, Changed, Refusal, RegisterLedger};
use keyledger_ledger::id::LedgerNumber;
use keyledger_ledger::note::is_key_name;
use uuid::Uuid;

use crate::config::{Databases, MAX_FOLDED};
use crate::keydir::{KeyDirectory, write_private};
use crate::replica::{self, Replica, SYSTEM, by_itself, create_admin};
use crate::sealing::Sealing;
use crate::sequencer::Ledger;
use crate::serve::{ServeError, connect};
use crate::store::{StoreError, ledgers};
use crate::streams::{PATIENCE, Streams};

pub struct Init {
    pub databases: Databases,
    pub key_dir: PathBuf,
    /// Folder of the two token files.
    pub token_dir: PathBuf,
    /// Name of the first ledger.
    pub ledger: String,
    /// Host part of the origins of checkpoints, such as `keys.example.com`.
    pub host: String,
    /// Goes on where an earlier run was cut off, as long as no admin token was written.
    pub resume: bool,
}

/// File of the admin token of ledger 0.
pub fn system_token_file(dir: &Path) -> PathBuf {
    dir.join("system.token")
}

/// File of the admin token of the first ledger.
pub fn admin_token_file(dir: &Path) -> PathBuf {
    dir.join("admin.token")
}

pub async fn init(options: Init) -> Result<(), ServeError> {
    let origin = format!("{}/{}", options.host, options.ledger);
    if !is_key_name(&origin) {
        return Err(
            StoreError::Refused(format!("{origin} can't be the origin of checkpoints")).into()
        );
    }
    for file in [system_token_file(&options.token_dir), admin_token_file(&options.token_dir)] {
        if file.exists() && !options.resume {
            return Err(StoreError::Refused(format!(
                "{} exists: init refuses to run twice",
                file.display()
            ))
            .into());
        }
    }
    let (databases, sealing) = connect(&options.databases).await?;
    let known = ledgers::find(&databases.readers.client().await?, 0).await?;
    if known.is_some() && !options.resume {
        return Err(StoreError::Refused(
            "the database holds a ledger already: init refuses to run twice".into(),
        )
        .into());
    }
    let keys = match (known.is_some(), KeyDirectory::create(&options.key_dir)) {
        (_, Err(crate::keydir::KeyDirectoryError::Exists(_))) if options.resume => {
            KeyDirectory::open(&options.key_dir)?
        }
        (true, Ok(_)) => {
            return Err(StoreError::Refused(
                "the ledger is there, but its key directory is not".into(),
            )
            .into());
        }
        (_, result) => result?,
    };
    let keys = Arc::new(keys);
    let system_id = known.unwrap_or_else(Uuid::new_v4);
    ledgers::insert(&databases.readers.client().await?, system_id, 0).await?;
    let seals = Arc::new(Sealing::new(sealing.clone(), &keys));
    let system = Ledger::start(system_id, 0, &databases, seals, keys.clone()).await?;
    replica::open(&system, LedgerNumber::SYSTEM, SYSTEM, &format!("{}/{SYSTEM}", options.host))
        .await?;
    register(&system, &options.ledger, &origin).await?;
    drop(system);

    let replica =
        Replica::start(databases, sealing, keys, MAX_FOLDED, Streams::new(PATIENCE)).await?;
    let first = replica
        .ledger(LedgerNumber(1))
        .await?
        .ok_or(StoreError::Damaged("the first ledger is gone".into()))?;
    for (ledger, number, file) in [
        (&replica.system, LedgerNumber::SYSTEM, system_token_file(&options.token_dir)),
        (&first, LedgerNumber(1), admin_token_file(&options.token_dir)),
    ] {
        if file.exists() {
            continue;
        }
        let (token, _) = create_admin(ledger, &replica.sealing, number, "keyledger init").await?;
        let text = format!("{}\n", token.reveal());
        write_private(&file, text.as_bytes()).map_err(|e| {
            StoreError::Refused(format!("{} can't be written: {e}", file.display()))
        })?;
    }
    Ok(())
}

async fn register(system: &Ledger, name: &str, origin: &str) -> Result<(), ServeError> {
    let kind = ChangeKind::RegisterLedger(RegisterLedger {
        id: *Uuid::new_v4().as_bytes(),
        name: name.into(),
        origin: origin.into(),
    });
    match by_itself(system, Change::new(kind, vec![])).await? {
        Answer::Changed { result: Changed::Ledger(_), .. }
        | Answer::Refused { refusal: Refusal::LedgerExists } => Ok(()),
        other => {
            Err(ServeError::Sequencer(format!("the first ledger was not registered: {other:?}")))
        }
    }
}
