//! The ledger afterwards: all of it is verified, and each answer that was given must be one use in it.

use std::path::Path;

use anyhow::Context;
use keyledger_server::dev::{self, LEDGER_DATABASE, SEALING_DATABASE};
use keyledger_server::embedded::{Address, GuardCommand};
use keyledger_server::inspect::{Source, ledger_names, verify_ledger};
use serde::Serialize;

/// The ledger that `dev` opens for its users.
const LEDGER: &str = "default";

/// What was found.
#[derive(Serialize)]
pub(crate) struct Audit {
    /// Entries and uses of the ledger that was asked.
    entries: u64,
    uses: u64,
    /// Sealed texts that were opened and fit their commitments.
    texts_opened: u64,
    /// Answers that the clients got. Nothing else leaves a use here: whoever creates a key leaves an entry.
    answers: u64,
    /// The first thing that is wrong with any ledger.
    finding: Option<String>,
}

impl Audit {
    /// Verified whole, with all its texts, and each answer is in it once.
    pub(crate) fn good(&self) -> bool {
        self.finding.is_none() && self.uses == self.answers && self.texts_opened >= self.answers
    }

    /// In words.
    pub(crate) fn verdict(&self) -> String {
        let Audit { entries, uses, texts_opened, answers, finding } = self;
        let seen = format!(
            "{entries} entries, {uses} uses, {texts_opened} texts opened; {answers} answers were given"
        );
        match finding {
            Some(finding) => format!("NOT GOOD: {finding} ({seen})"),
            None if self.good() => format!("good: {seen}"),
            None => format!("NOT GOOD: answers and uses differ ({seen})"),
        }
    }
}

/// Starts the Postgres of a data directory again and verifies its ledgers.
pub(crate) async fn audit(data_dir: &Path, answers: u64) -> anyhow::Result<Audit> {
    let guard = GuardCommand::this_program(&["guard"])?;
    let cluster = dev::start_cluster(data_dir, None, guard).await?;
    let audited = audit_all(&source(data_dir, cluster.address()), answers).await;
    cluster.stop().await?;
    audited.context("the ledger can't be verified")
}

fn source(data_dir: &Path, address: &Address) -> Source {
    Source {
        ledger: address.url(LEDGER_DATABASE),
        sealing: Some(address.url(SEALING_DATABASE)),
        key_dir: Some(dev::key_dir(data_dir)),
    }
}

async fn audit_all(source: &Source, answers: u64) -> anyhow::Result<Audit> {
    let mut audit = Audit { entries: 0, uses: 0, texts_opened: 0, answers, finding: None };
    for name in ledger_names(source).await? {
        let (verifier, finding) = verify_ledger(source, &name, &[], &mut |_, _| {}).await?;
        if name == LEDGER {
            let counts = verifier.counts();
            audit.entries = counts.entries;
            audit.uses = counts.uses;
            audit.texts_opened = counts.texts_opened;
        }
        let finding = finding.map(|finding| format!("ledger {name}, {finding}"));
        audit.finding = audit.finding.or(finding);
    }
    Ok(audit)
}
