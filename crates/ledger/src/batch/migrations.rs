//! First uses of imported keys: the token is there for once, so a verifier of our own takes the place of the digest that was
//! imported. The entry follows the page that holds the use.

use sha2::{Digest, Sha256};

use super::Run;
use crate::body::{self, Kind};
use crate::command::Action;
use crate::decide::{SecretRow, next_link};
use crate::id::{KeyId, Trace};
use crate::imported::{Foreign, VERSION};
use crate::judge::Credential;
use crate::secret;
use crate::token::Secret;

/// What is kept of a first use.
pub(super) struct FirstUse {
    sha256: Secret,
    trace: Trace,
}

impl Run<'_> {
    /// Whether keys were imported since a token was looked up: it must be looked up again, perhaps with a slow hash.
    pub(super) fn is_behind(&self, action: &Action) -> bool {
        match action {
            Action::Verify(check) => match &check.credential {
                Credential::Foreign(token) => token.is_behind(self.state()),
                _ => false,
            },
            _ => false,
        }
    }

    /// Notes an allowed use of an imported key, if it is the first.
    pub(super) fn note_first_of_imported(&mut self, key_id: KeyId, token: &Foreign, trace: Trace) {
        let key = self.state().keys.get(&key_id);
        if key.is_some_and(|key| key.digest_commitment().is_some()) {
            let first = FirstUse { sha256: token.sha256().clone(), trace };
            self.first_of_imported.entry(key_id).or_insert(first);
        }
    }

    /// One entry for each key that was used for the first time.
    pub(super) fn migrate_imported(&mut self) {
        for (key_id, first) in std::mem::take(&mut self.first_of_imported) {
            self.migrate(key_id, &first);
        }
    }

    fn migrate(&mut self, key_id: KeyId, first: &FirstUse) {
        let pepper = self.means.peppers.newest().expect("a lookup was made with a pepper");
        let verifier = pepper.imported_verifier(key_id, VERSION, &first.sha256);
        let salt = self.salt_of(key_id);
        let version = body::SecretVersion {
            number: VERSION,
            verifier_commitment: secret::commitment(&salt, &verifier).to_vec(),
            pepper_id: pepper.id,
        };
        let row = SecretRow { key_id, version: VERSION, verifier, salt, pepper_id: pepper.id };
        let link = next_link(self.state().keys.get(&key_id).expect("it was just used"));
        let migrated = body::VerifierMigrated { link: Some(link), version: Some(version) };
        let mut event = self.event_of(Kind::VerifierMigrated(migrated));
        event.trace_id = first.trace.trace_id_bytes();
        event.span_id = first.trace.span_id_bytes();
        self.append(event, vec![], vec![]).expect("a key that was just allowed can be migrated");
        self.batch.head.state.verifiers.insert((key_id, VERSION), verifier);
        self.batch.secrets.push(row);
        self.batch.migrated.push(key_id);
        self.note_row(key_id);
    }

    /// Another one for each key, from the random seed of the batch.
    fn salt_of(&self, key_id: KeyId) -> [u8; 32] {
        let seed = Sha256::new().chain_update(b"migration").chain_update(self.means.seed);
        seed.chain_update(key_id.as_bytes()).finalize().into()
    }
}
