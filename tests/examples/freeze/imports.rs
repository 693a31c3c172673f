//! Keys that were made elsewhere, and what their first use leaves.

use keyledger_ledger::body::Texts;
use keyledger_ledger::command::{Action, ChangeKind, Expiry, FirstSecret, SECOND};
use keyledger_ledger::id::KeyId;
use keyledger_ledger::imported::{Argon2id, Foreign, NewImport, TokenHash};
use keyledger_ledger::judge::Credential;
use keyledger_ledger::state::Owner;
use sha2::{Digest, Sha256};

use super::world::{grant, verify};
use super::{Story, label};

impl Story {
    /// Keys that were made elsewhere, of each kind; one of each is used, and with that moved to our own form.
    pub(super) fn imports(&mut self) {
        self.wait(SECOND);
        let fast = ["acme_live_4711", "acme_live_4712"];
        let fast = fast.map(|token| (token, TokenHash::Sha256(Sha256::digest(token).into())));
        let slow = [("acme.used.4713", "acme.used."), ("acme.unused.4714", "acme.unused.")];
        let slow = slow.map(|(token, prefix)| {
            let (salt, output) =
                (self.world.draw::<16>().to_vec(), self.world.draw::<32>().to_vec());
            let hash = Argon2id { memory_kib: 19_456, passes: 2, lanes: 1, salt, output };
            (token, TokenHash::Argon2id { hash, prefix: prefix.into() })
        });
        for (token, hash) in fast.into_iter().chain(slow) {
            let used = token.ends_with("4711") || token.ends_with("4713");
            let key_id = self.import(hash);
            if used {
                self.use_imported(token, key_id);
            }
        }
    }

    fn import(&mut self, hash: TokenHash) -> KeyId {
        let token = self.world.new_key();
        let may = vec![grant(&["audit.read"], "logs/error", false)];
        let owner = Owner::User(self.alice.reference);
        let mut kind = self.world.create_key(&token, owner, may, vec![], Expiry::Default);
        let salt = self.world.draw();
        if let ChangeKind::CreateKey(create) = &mut kind {
            create.secret = FirstSecret::Imported(NewImport { hash, salt });
            create.labels = vec![label("from", "the old table")];
        }
        let texts = Texts {
            reason: "the old key table is given up".into(),
            owner: "alice@example.com".into(),
            purpose: "export error logs".into(),
            ..Texts::default()
        };
        let mut import = self.change("KeyService/ImportKeys", kind, texts, self.alice);
        import.call.permission = "keys.import";
        self.run(vec![import]);
        token.key_id
    }

    fn use_imported(&mut self, token: &str, key_id: KeyId) {
        let mut presented = Foreign::parse(token).expect("it may be one");
        presented.look_up(token, &self.world.head.state, &self.world.peppers);
        // As if its slow hash had been computed.
        presented.matched_slowly(key_id);
        let admin = self.admin.reveal();
        let call = self.call(&admin, "KeyService/VerifyKey", "keys.verify", "keys");
        let mut command = verify(call, "", "audit.read", "logs/error", vec![]);
        if let Action::Verify(check) = &mut command.action {
            check.credential = Credential::Foreign(Box::new(presented));
        }
        self.run(vec![command]);
    }
}
