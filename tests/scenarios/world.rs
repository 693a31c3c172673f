//! A ledger in memory: the core alone makes entries of commands. Keys, times and random bytes are the same each time.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use ed25519_dalek::SigningKey;
use keyledger_ledger::batch::{self, Batch, Head, KnownRequest, Means, NewEntry, internal_call};
use keyledger_ledger::command::{
    Action, Answer, Call, Change, ChangeKind, Check, Command, CreateKey, Expiry, NewSecret,
    OpenLedger,
};
use keyledger_ledger::decide::SecretRow;
use keyledger_ledger::entry::EntrySigner;
use keyledger_ledger::grant::Grant;
use keyledger_ledger::id::{KeyId, LedgerNumber, Time, Trace};
use keyledger_ledger::judge::Credential;
use keyledger_ledger::merkle::TileWriter;
use keyledger_ledger::record::RowSum;
use keyledger_ledger::refusals::Refusals;
use keyledger_ledger::restrict::Restrictions;
use keyledger_ledger::secret::{Pepper, Peppers};
use keyledger_ledger::state::{Key, Label, Owner, State, Version};
use keyledger_ledger::text::Sealed;
use keyledger_ledger::token::{Secret, Token};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// 2026-11-22 00:00:00 UTC.
const START: Time = Time(1_795_305_600_000_000);
const ENTRY_SEED: [u8; 32] = [0xe1; 32];
const CHECKPOINT_SEED: [u8; 32] = [0xc1; 32];
pub(crate) const PEPPER_ID: u32 = 1;
pub(crate) const PEPPER: [u8; 32] = [0x9e; 32];

/// Where calls come from.
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

pub(crate) struct World {
    pub(crate) checkpoint_signer: SigningKey,
    pub(crate) peppers: Peppers,
    pub(crate) now: Time,
    pub(crate) head: Head,
    /// All entries so far.
    pub(crate) entries: Vec<NewEntry>,
    pub(crate) shed: u64,
    /// Verifiers and salts of all secrets so far.
    pub(crate) secrets: Vec<SecretRow>,
    pub(crate) signer: EntrySigner,
    known: HashMap<(KeyId, [u8; 16]), KnownRequest>,
    refusals: Refusals,
    drawn: u64,
}

impl World {
    /// A world with ledger 0 opened.
    pub(crate) fn new(origin: &str) -> World {
        let mut world = World {
            checkpoint_signer: SigningKey::from_bytes(&CHECKPOINT_SEED),
            peppers: Peppers::new(vec![Pepper::new(PEPPER_ID, PEPPER)]),
            now: START,
            head: Head {
                state: State::default(),
                tiles: TileWriter::new(),
                rows: RowSum::default(),
            },
            entries: vec![],
            shed: 0,
            secrets: vec![],
            signer: EntrySigner::new(SigningKey::from_bytes(&ENTRY_SEED)),
            known: HashMap::new(),
            refusals: Refusals::default(),
            drawn: 0,
        };
        let open = ChangeKind::OpenLedger(OpenLedger {
            id: world.draw(),
            number: LedgerNumber::SYSTEM,
            name: "system".into(),
            origin: origin.into(),
            entry_public_key: world.signer.public_key().to_bytes(),
            checkpoint_public_key: world.checkpoint_signer.verifying_key().to_bytes(),
        });
        let open = world.by_itself(open, vec![]);
        world.run(vec![open]);
        world
    }

    /// Runs a batch and goes on from what it came to.
    pub(crate) fn run(&mut self, commands: Vec<Command>) -> Vec<Answer> {
        let means = Means {
            signer: &self.signer,
            peppers: &self.peppers,
            now: self.now,
            known: self.known.clone(),
            shed: std::mem::take(&mut self.shed),
            seed: Sha256::digest(self.drawn.to_be_bytes()).into(),
            refusals: self.refusals.clone(),
            touched: false,
        };
        let Batch { head, entries, secrets, requests, answers, shed_left, refusals, .. } =
            batch::run(&self.head, means, commands);
        self.head = head;
        self.entries.extend(entries);
        self.secrets.extend(secrets);
        self.known.extend(requests.into_iter().map(|r| ((r.caller, r.id), r.known)));
        self.shed = shed_left;
        self.refusals = refusals;
        answers
    }

    /// Bytes that look random, and are other ones each time.
    pub(crate) fn draw<const N: usize>(&mut self) -> [u8; N] {
        self.drawn += 1;
        let bytes = Sha256::digest([b"drawn".as_slice(), &self.drawn.to_be_bytes()].concat());
        bytes[..N].try_into().expect("at most 32 bytes are drawn at once")
    }

    /// A new key's id, and its token.
    pub(crate) fn new_key(&mut self) -> Token {
        let random = u64::from_be_bytes(self.draw());
        let key_id = KeyId::new(self.now, LedgerNumber::SYSTEM, random);
        Token { key_id, secret: Secret::new(self.draw()) }
    }

    pub(crate) fn new_secret(&mut self, token: &Token) -> NewSecret {
        NewSecret { secret: token.secret.clone(), salt: self.draw() }
    }

    /// A call with a token as it was presented; an empty one is none.
    pub(crate) fn call(
        &mut self,
        token: &str,
        method: &'static str,
        permission: &'static str,
        resource: &str,
    ) -> Call {
        Call {
            credential: credential(token),
            method,
            permission,
            resource: resource.into(),
            trace: Trace { trace_id: self.draw(), span_id: self.draw() },
            peer: Some(PEER),
            request: None,
            unseen: None,
            texts: vec![],
            salt: self.draw(),
        }
    }

    pub(crate) fn create_key(
        &mut self,
        token: &Token,
        owner: Owner,
        grants: Vec<Grant>,
        roles: Vec<String>,
        expiry: Expiry,
    ) -> ChangeKind {
        let (key_id, secret) = (token.key_id, self.new_secret(token));
        ChangeKind::CreateKey(CreateKey {
            key_id,
            owner,
            grants,
            roles,
            expiry,
            restrictions: Restrictions::default(),
            labels: vec![],
            responsible: None,
            rotation: None,
            secret: secret.into(),
        })
    }

    /// Something that Keyledger itself does.
    pub(crate) fn by_itself(&mut self, kind: ChangeKind, texts: Vec<Sealed>) -> Command {
        let call = Call { salt: self.draw(), ..internal_call("keyledger") };
        change(call, kind, texts)
    }
}

pub(crate) fn change(call: Call, kind: ChangeKind, texts: Vec<Sealed>) -> Command {
    Command { call, action: Action::Change(Box::new(Change::new(kind, texts))) }
}

pub(crate) fn verify(
    call: Call,
    token: &str,
    permission: &str,
    resource: &str,
    texts: Vec<Sealed>,
) -> Command {
    let check = Check {
        credential: credential(token),
        permission: permission.into(),
        resource: resource.into(),
        audience: "exports".into(),
        keep: 0,
        texts,
        address: None,
    };
    Command { call, action: Action::Verify(Box::new(check)) }
}

pub(crate) fn grant(permissions: &[&str], resource: &str, give_only: bool) -> Grant {
    let permissions: Vec<String> = permissions.iter().map(|p| p.to_string()).collect();
    Grant::new(&permissions, resource, give_only).expect("a grant of ours is well-formed")
}

fn credential(token: &str) -> Credential {
    if token.is_empty() { Credential::Missing } else { Credential::from_text(token) }
}

/// What the entries say about a key, once they are all applied.
pub(crate) fn summary(key: &Key) -> Value {
    let owner = match &key.owner {
        Owner::User(reference) => json!({"user_ref": hex::encode(reference)}),
        Owner::Service(name) => json!({"service": name}),
    };
    let version =
        |v: &Version| json!({"number": v.number, "expires_us": v.expires.map(Time::micros)});
    let mut summary = json!({
        "key_id": key.id.to_string(),
        "owner": owner,
        "creator": key.creator.map(|id| id.to_string()),
        "grants": key.grants.iter().map(|g| g.to_string()).collect::<Vec<_>>(),
        "roles": key.roles.iter().map(|r| r.to_string()).collect::<Vec<_>>(),
        "expires_us": key.expires.map(Time::micros),
        "revoked": key.revoked.map(|r| json!({"kind": r.kind as i32, "time_us": r.time.micros()})),
        "versions": key.versions.iter().map(version).collect::<Vec<_>>(),
        "stream_version": key.stream_version,
        "position": key.position,
    });
    // What earlier ledgers don't have is said only where it is something.
    let mut add = |name: &str, value: Value| summary[name] = value;
    if let Some(r) = key.restrictions.as_ref().and_then(|r| r.to_body()) {
        let rate = r.rate.map(|rate| json!({"uses": rate.uses, "window_us": rate.window_us}));
        let limits = json!({"max_uses": r.max_uses, "rate": rate});
        let places = json!({"networks": r.networks, "audiences": r.audiences});
        add("restrictions", json!([places, limits]));
    }
    if let Some(used) = &key.used {
        add("used", used.total.into());
    }
    if !key.labels.is_empty() {
        let label = |l: &Label| format!("{}={}", l.name, l.value);
        add("labels", key.labels.iter().map(label).collect::<Vec<_>>().into());
    }
    if let Some(reference) = &key.responsible {
        add("responsible", hex::encode(reference).into());
    }
    if let Some(imported) = &key.imported {
        let how = json!({"algorithm": imported.algorithm as i32, "prefix": imported.prefix_length});
        let lookup = hex::encode(imported.lookup);
        add("imported", json!([how, lookup, imported.migrated]));
    }
    if let Some(since) = key.suspended() {
        add("suspended_us", since.micros().into());
    }
    summary
}
