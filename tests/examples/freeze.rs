//! Writes a golden ledger: a small one that holds every kind of entry written so far. Its files are then kept as they are,
//! and must verify for ever; a later version of the program freezes another one beside it.
//!
//! ```text
//! cargo run -p keyledger-tests --example freeze -- tests/fixtures/golden/6
//! ```

#[path = "freeze/anomalies.rs"]
mod anomalies;
#[path = "freeze/imports.rs"]
mod imports;
#[path = "freeze/notices.rs"]
mod notices;
#[path = "freeze/policies.rs"]
mod policies;
#[path = "freeze/recorded.rs"]
mod recorded;
#[path = "freeze/reports.rs"]
mod reports;
#[path = "freeze/reviews.rs"]
mod reviews;
#[path = "../scenarios/world.rs"]
#[allow(dead_code)]
mod world;

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use keyledger_ledger::batch::NewEntry;
use keyledger_ledger::body::{self, DecisionReason, RevocationKind, Texts};
use keyledger_ledger::command::{
    Action, Answer, Call, ChangeKind, Command, DAY, Expiry, RegisterLedger, RequestId, RotateKey,
    SECOND, UpdateKey, UpdateRole,
};
use keyledger_ledger::decide::SecretRow;
use keyledger_ledger::id::{KeyId, LedgerNumber};
use keyledger_ledger::note::{self, Checkpoint};
use keyledger_ledger::restrict::Restrictions;
use keyledger_ledger::state::{Label, Owner};
use keyledger_ledger::text::{Sealed, commitment};
use keyledger_ledger::token::{Secret, Token};
use prost::Message;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde_json::{Value, json};
use world::{PEPPER, PEPPER_ID, World, change, grant, summary, verify};

const ORIGIN: &str = "keys.example.test/system";

fn main() {
    let folder: PathBuf = std::env::args().nth(1).expect("the folder to write").into();
    fs::create_dir(&folder).expect("a folder that isn't there yet: what is frozen stays as it is");
    let mut story = Story::begin();
    story.keys_and_roles();
    story.uses();
    story.rotations();
    story.refused_changes();
    story.repeats();
    story.restrictions();
    story.changed_keys();
    story.changed_roles();
    story.permissions();
    story.imports();
    story.policies();
    story.notices();
    story.unusual_use();
    story.ends();
    story.reviews();
    story.write(&folder);
}

/// The data key of one subject.
#[derive(Clone, Copy)]
struct Subject {
    reference: [u8; 16],
    key: [u8; 32],
}

struct Story {
    world: World,
    ledger_id: [u8; 16],
    month: Subject,
    alice: Subject,
    admin: Token,
    person: Token,
    robot: Token,
    manager: Token,
    /// One that ends soon.
    paced: Option<Token>,
    /// Each token with the version of its key.
    tokens: Vec<(u32, Token)>,
}

impl Story {
    fn begin() -> Story {
        let mut world = World::new(ORIGIN);
        let ledger_id = world.head.state.ledger.as_ref().expect("it was opened").id;
        let mut subject = || Subject { reference: world.draw(), key: world.draw() };
        let (month, alice) = (subject(), subject());
        let mut token = || world.new_key();
        let (admin, person, robot, manager) = (token(), token(), token(), token());
        let tokens = [&admin, &person, &robot, &manager].map(|t| (1, t.clone())).to_vec();
        Story { world, ledger_id, month, alice, admin, person, robot, manager, paced: None, tokens }
    }

    /// Every kind of change but rotation and revocation.
    fn keys_and_roles(&mut self) {
        self.wait(SECOND);
        let register = ChangeKind::RegisterLedger(RegisterLedger {
            id: self.world.draw(),
            name: "default".into(),
            origin: "keys.example.test/default".into(),
        });
        let start = ChangeKind::StartServer {
            version: "0.1.0".into(),
            configuration_digest: self.world.draw(),
        };
        let admin = self.admin.clone();
        let service = |name: &str| Owner::Service(name.into());
        let everything = vec![grant(&["*"], "**", false)];
        let create = self.world.create_key(
            &admin,
            service("keyledger-admin"),
            everything,
            vec![],
            Expiry::Never,
        );
        let texts =
            self.seal(self.month, Texts { reason: "keyledger init".into(), ..Texts::default() });
        let commands = vec![
            self.world.by_itself(register, vec![]),
            self.world.by_itself(start, vec![]),
            self.world.by_itself(create, vec![texts]),
        ];
        self.run(commands);

        self.wait(SECOND);
        let role = ChangeKind::CreateRole {
            name: "error-readers".into(),
            grants: vec![grant(&["audit.read", "audit.export"], "logs/*", false)],
            rotation: None,
            max_staleness: 0,
        };
        let texts = Texts {
            reason: "the audit team".into(),
            description: "reads logs".into(),
            ..Texts::default()
        };
        let role = self.change("KeyService/CreateRole", role, texts, self.month);
        let (person, robot, manager) =
            (self.person.clone(), self.robot.clone(), self.manager.clone());
        let owner = Owner::User(self.alice.reference);
        let create = self.world.create_key(
            &person,
            owner,
            vec![grant(&["keys.verify"], "keys", false)],
            vec!["error-readers".into()],
            Expiry::After(30 * DAY),
        );
        let texts = Texts {
            reason: "ticket 4711".into(),
            owner: "alice@example.com".into(),
            purpose: "export error logs".into(),
            ..Texts::default()
        };
        let person = self.change("KeyService/CreateKey", create, texts, self.alice);
        let create =
            self.world.create_key(&robot, service("robot/export"), vec![], vec![], Expiry::Default);
        let robot =
            self.change("KeyService/CreateKey", create, reason("a new service"), self.month);
        let grants =
            vec![grant(&["keys.*"], "**", false), grant(&["audit.read"], "logs/error", true)];
        let end = self.world.now.plus_micros(60 * DAY);
        let create =
            self.world.create_key(&manager, service("manager"), grants, vec![], Expiry::At(end));
        let manager =
            self.change("KeyService/CreateKey", create, reason("hands keys out"), self.month);
        self.run(vec![role, person, robot, manager]);
    }

    /// Every verdict that needs no time, and every refusal of a caller.
    fn uses(&mut self) {
        self.wait(SECOND);
        let admin = self.admin.reveal();
        let person = self.person.reveal();
        let wrong = Token { key_id: self.person.key_id, secret: Secret::new([7; 32]) }.reveal();
        let number = |n| KeyId::new(self.world.now, LedgerNumber(n), 4711);
        let unknown = Token { key_id: number(0), secret: Secret::new([7; 32]) }.reveal();
        let foreign = Token { key_id: number(77), secret: Secret::new([7; 32]) }.reveal();
        let mut commands = vec![];
        for (token, permission, resource) in [
            (person.as_str(), "audit.read", "logs/error"),
            (&person, "keys.verify", "keys"),
            (&person, "audit.read", "logs/error/fatal"),
            (&wrong, "audit.read", "logs/error"),
            (&unknown, "audit.read", "logs/error"),
            (&foreign, "audit.read", "logs/error"),
            ("klk_4711", "audit.read", "logs/error"),
            ("", "audit.read", "logs/error"),
        ] {
            let texts = Texts {
                reason: "nightly export".into(),
                client_address: "203.0.113.7".into(),
                client_user_agent: "exporter/1.2".into(),
                ..Texts::default()
            };
            let texts = self.seal(self.alice, texts);
            let call = self.call(&admin, "KeyService/VerifyKey", "keys.verify", "keys");
            commands.push(verify(call, token, permission, resource, vec![texts]));
        }
        let read = self.call(&admin, "KeyService/ListKeys", "keys.read", "keys");
        commands.push(Command { call: read, action: Action::Read { returned: None } });
        let read =
            self.call(&self.robot.reveal(), "AuditService/ListEvents", "audit.read", "logs/**");
        commands.push(Command { call: read, action: Action::Read { returned: None } });
        let invalid = self.call(&admin, "KeyService/GetKey", "keys.read", "keys/?");
        commands.push(Command {
            call: invalid,
            action: Action::Refuse(DecisionReason::InvalidRequest),
        });
        // Of equal refusals ten are recorded each, and the others as a count, a second later.
        for _ in 0..13 {
            let call = self.call("", "KeyService/WhoAmI", "", "");
            commands.push(Command { call, action: Action::Authenticate });
        }
        self.run(commands);
    }

    fn rotations(&mut self) {
        for overlap in [600 * SECOND, 0] {
            self.wait(SECOND);
            self.world.shed = 3;
            let old = self.person.clone();
            let new = Token { key_id: old.key_id, secret: Secret::new(self.world.draw()) };
            let secret = self.world.new_secret(&new);
            let kind = ChangeKind::RotateKey(RotateKey {
                key_id: new.key_id,
                overlap_micros: overlap,
                until_first_use: false,
                secret,
            });
            let rotate = self.change("KeyService/RotateKey", kind, reason("monthly"), self.alice);
            self.run(vec![rotate]);
            let version = self.tokens.iter().filter(|(_, t)| t.key_id == new.key_id).count() as u32;
            self.tokens.push((version + 1, new.clone()));
            self.person = new;
            // Old and new, while both are good; then the old one, which is not.
            let (old, new) = (old.reveal(), self.person.reveal());
            let checks = [old, new].map(|token| {
                let call =
                    self.call(&self.admin.reveal(), "KeyService/VerifyKey", "keys.verify", "keys");
                verify(call, &token, "audit.read", "logs/error", vec![])
            });
            self.run(checks.into());
        }
    }

    fn refused_changes(&mut self) {
        self.wait(SECOND);
        let role = ChangeKind::CreateRole {
            name: "error-readers".into(),
            grants: vec![grant(&["audit.read"], "**", false)],
            rotation: None,
            max_staleness: 0,
        };
        let exists = self.change("KeyService/CreateRole", role, reason("once more"), self.month);
        let key = self.world.new_key();
        let more = vec![grant(&["audit.read"], "logs/**", false)];
        let owner = Owner::Service("greedy".into());
        let kind = self.world.create_key(&key, owner, more, vec![], Expiry::Default);
        let texts = self.seal(self.month, reason("wants more"));
        let call = self.call(&self.manager.reveal(), "KeyService/CreateKey", "keys.create", "keys");
        self.run(vec![exists, change(call, kind, vec![texts])]);
    }

    /// The same request twice, and its id for another one.
    fn repeats(&mut self) {
        self.wait(SECOND);
        let id: [u8; 16] = self.world.draw();
        for digest in [[1; 32], [1; 32], [2; 32]] {
            let kind = ChangeKind::RevokeKey {
                key_id: self.person.key_id,
                kind: RevocationKind::OwnerLeft,
            };
            let mut revoke = self.change("KeyService/RevokeKey", kind, reason("left"), self.alice);
            revoke.call.request = Some(RequestId { id, digest });
            self.run(vec![revoke]);
        }
    }

    /// A key for a service with the given restrictions; may read the error logs.
    fn restricted(&mut self, restrictions: body::Restrictions, expiry: Expiry) -> Token {
        let token = self.world.new_key();
        self.tokens.push((1, token.clone()));
        let owner = Owner::Service("robot/restricted".into());
        let may = vec![grant(&["audit.read"], "logs/error", false)];
        let mut create = self.world.create_key(&token, owner, may, vec![], expiry);
        if let ChangeKind::CreateKey(create) = &mut create {
            let restrictions = Restrictions::from_body(Some(&restrictions));
            create.restrictions = restrictions.expect("they are well-formed");
            create.labels = vec![label("env", "prod"), label("team", "billing")];
        }
        let create = self.change("KeyService/CreateKey", create, reason("a robot"), self.month);
        self.run(vec![create]);
        token
    }

    fn check_from(&mut self, token: &Token, address: Option<IpAddr>, audience: &str) {
        let admin = self.admin.reveal();
        let call = self.call(&admin, "KeyService/VerifyKey", "keys.verify", "keys");
        let mut command = verify(call, &token.reveal(), "audit.read", "logs/error", vec![]);
        if let Action::Verify(check) = &mut command.action {
            (check.address, check.audience) = (address, audience.into());
        }
        self.run(vec![command]);
    }

    /// Networks, audiences, a maximum of uses, and a rate.
    fn restrictions(&mut self) {
        self.wait(SECOND);
        let office = Some(IpAddr::from([203, 0, 113, 7]));
        let guarded = body::Restrictions {
            networks: vec!["203.0.113.0/24".into(), "2001:db8::/32".into()],
            audiences: vec!["exports".into()],
            max_uses: 2,
            rate: None,
        };
        let guarded = self.restricted(guarded, Expiry::Default);
        let rate = Some(body::Rate { uses: 1, window_us: DAY });
        let paced = body::Restrictions { rate, ..Default::default() };
        let paced = self.restricted(paced, Expiry::After(8 * DAY));
        self.check_from(&guarded, office, "exports");
        self.check_from(&guarded, None, "exports");
        self.check_from(&guarded, office, "other");
        self.check_from(&guarded, office, "exports");
        self.check_from(&guarded, office, "exports");
        self.check_from(&paced, None, "");
        self.check_from(&paced, None, "");
        self.wait(2 * DAY);
        let kind = ChangeKind::NoteDue { key_id: paced.key_id };
        let note = self.world.by_itself(kind, vec![]);
        self.run(vec![note]);
        self.paced = Some(paced);
    }

    /// Suspended, checked, resumed, tried, changed.
    fn changed_keys(&mut self) {
        self.wait(SECOND);
        let robot = self.robot.clone();
        let (key_id, month) = (robot.key_id, self.month);
        let suspend = ChangeKind::SuspendKey { key_id };
        let suspend = self.change("KeyService/SuspendKey", suspend, reason("odd"), month);
        self.run(vec![suspend]);
        self.check_from(&robot, None, "");
        let resume = ChangeKind::ResumeKey { key_id };
        let resume = self.change("KeyService/ResumeKey", resume, reason("false alarm"), month);
        self.run(vec![resume]);
        let alice = self.alice;
        let update = ChangeKind::UpdateKey(UpdateKey {
            key_id,
            etag: String::new(),
            changed: ["purpose", "labels", "responsible"].map(String::from).to_vec(),
            grants: None,
            roles: None,
            expiry: None,
            restrictions: None,
            labels: Some(vec![label("team", "exports")]),
            responsible: Some(Some(alice.reference)),
            rotation: None,
        });
        let texts = Texts {
            reason: "a new team".into(),
            purpose: "export warnings".into(),
            ..Texts::default()
        };
        let mut tried = self.change("KeyService/UpdateKey", update.clone(), texts.clone(), month);
        if let Action::Change(change) = &mut tried.action {
            change.validate_only = true;
        }
        self.run(vec![tried]);
        let about_alice =
            self.seal(alice, Texts { responsible: "alice@example.com".into(), ..Texts::default() });
        let mut update = self.change("KeyService/UpdateKey", update, texts, month);
        if let Action::Change(change) = &mut update.action {
            change.texts.push(about_alice);
        }
        self.run(vec![update]);
    }

    fn changed_roles(&mut self) {
        self.wait(SECOND);
        let (name, etag) = ("error-readers".to_string(), String::new());
        let grants = Some(vec![grant(&["audit.read"], "logs/error", false)]);
        let update = ChangeKind::UpdateRole(UpdateRole {
            name: name.clone(),
            etag: etag.clone(),
            grants,
            described: true,
            rotation: None,
            max_staleness: None,
        });
        let texts = Texts {
            reason: "less is enough".into(),
            description: "reads error logs".into(),
            ..Texts::default()
        };
        let update = self.change("KeyService/UpdateRole", update, texts, self.month);
        let retire = ChangeKind::RetireRole { name, etag };
        let retire =
            self.change("KeyService/RetireRole", retire, reason("nobody needs it"), self.month);
        self.run(vec![update, retire]);
    }

    /// A revoked and an expired key under check.
    fn ends(&mut self) {
        self.wait(91 * DAY);
        let paced = self.paced.clone().expect("it was made before");
        let kind = ChangeKind::NoteDue { key_id: paced.key_id };
        let note = self.world.by_itself(kind, vec![]);
        self.run(vec![note]);
        let checks = [self.person.reveal(), self.robot.reveal()].map(|token| {
            let call =
                self.call(&self.admin.reveal(), "KeyService/VerifyKey", "keys.verify", "keys");
            verify(call, &token, "audit.read", "logs/error", vec![])
        });
        self.run(checks.into());
    }

    fn run(&mut self, commands: Vec<Command>) {
        for answer in self.world.run(commands) {
            let bug = matches!(&answer, Answer::Refused { refusal } if format!("{refusal:?}") == "Internal");
            assert!(!bug, "the story meets a bug");
        }
    }

    fn wait(&mut self, micros: i64) {
        self.world.now = self.world.now.plus_micros(micros);
    }

    /// A call from an address, as the server records it.
    fn call(
        &mut self,
        token: &str,
        method: &'static str,
        permission: &'static str,
        resource: &str,
    ) -> Call {
        let texts = self
            .seal(self.month, Texts { peer_address: "198.51.100.4".into(), ..Texts::default() });
        let call = self.world.call(token, method, permission, resource);
        Call { texts: vec![texts], ..call }
    }

    /// A change by the admin.
    fn change(
        &mut self,
        method: &'static str,
        kind: ChangeKind,
        texts: Texts,
        about: Subject,
    ) -> Command {
        let texts = self.seal(about, texts);
        let (permission, resource) = match &kind {
            ChangeKind::CreateRole { name, .. } => ("roles.create", format!("roles/{name}")),
            ChangeKind::RotateKey(RotateKey { key_id, .. }) => {
                ("keys.rotate", format!("keys/{key_id}"))
            }
            ChangeKind::RevokeKey { key_id, .. } => ("keys.revoke", format!("keys/{key_id}")),
            ChangeKind::SuspendKey { key_id } => ("keys.suspend", format!("keys/{key_id}")),
            ChangeKind::ResumeKey { key_id } => ("keys.resume", format!("keys/{key_id}")),
            ChangeKind::UpdateKey(u) => ("keys.update", format!("keys/{}", u.key_id)),
            ChangeKind::UpdateRole(UpdateRole { name, .. }) => {
                ("roles.update", format!("roles/{name}"))
            }
            ChangeKind::RetireRole { name, .. } => ("roles.retire", format!("roles/{name}")),
            ChangeKind::SetOwnerStatus { .. } => ("owners.update", "owners".into()),
            ChangeKind::SignReview(_) => ("reviews.sign", "reviews".into()),
            ChangeKind::UpdatePolicy(_) => ("ledgers.update-policy", "ledgers/system".into()),
            _ => ("keys.create", "keys".into()),
        };
        let call = self.call(&self.admin.reveal(), method, permission, &resource);
        change(call, kind, vec![texts])
    }

    /// As the server seals: 12-byte nonce, then AES-256-GCM of salt and texts.
    fn seal(&mut self, about: Subject, texts: Texts) -> Sealed {
        let (salt, nonce): ([u8; 32], [u8; 12]) = (self.world.draw(), self.world.draw());
        let texts = texts.encode_to_vec();
        let commitment = commitment(&salt, &texts);
        let associated =
            [b"keyledger text v1\n".as_slice(), &self.ledger_id, &about.reference, &commitment]
                .concat();
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &about.key).expect("32 bytes"));
        let mut sealed = [salt.as_slice(), &texts].concat();
        key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(associated),
            &mut sealed,
        )
        .expect("a short text");
        Sealed {
            subject_ref: about.reference,
            commitment,
            bytes: [nonce.as_slice(), &sealed].concat(),
        }
    }

    fn write(&self, folder: &std::path::Path) {
        let entries: String = self.world.entries.iter().map(|e| format!("{}\n", line(e))).collect();
        let checkpoint = Checkpoint {
            origin: ORIGIN.into(),
            size: self.world.head.state.next_position,
            root: self.world.head.tiles.root(),
        };
        let keys: Vec<Value> =
            self.world.head.state.keys.values().map(|key| summary(key)).collect();
        let write = |name: &str, text: String| {
            fs::write(folder.join(name), text).expect("the folder is ours")
        };
        write("entries.jsonl", entries);
        write("checkpoint.txt", note::sign(&checkpoint, &self.world.checkpoint_signer));
        write("keys.json", format!("{:#}\n", Value::from(keys)));
        write("secrets.json", format!("{:#}\n", self.secrets()));
    }

    fn secrets(&self) -> Value {
        let data_key = |s: &Subject| json!({"subject_ref": hex::encode(s.reference), "key": hex::encode(s.key)});
        let verifier = |row: &SecretRow| {
            let is_it = |(v, t): &&(u32, Token)| (*v, t.key_id) == (row.version, row.key_id);
            let (_, token) = self.tokens.iter().find(is_it).expect("each secret has its token");
            json!({
                "token": token.reveal(),
                "version": row.version,
                "verifier": hex::encode(row.verifier),
                "salt": hex::encode(row.salt),
            })
        };
        // A token that was made elsewhere is none of ours.
        let ours = |row: &&SecretRow| self.world.head.state.keys[&row.key_id].imported.is_none();
        json!({
            "pepper": {"id": PEPPER_ID, "key": hex::encode(PEPPER)},
            "data_keys": [data_key(&self.month), data_key(&self.alice)],
            "verifiers": self.world.secrets.iter().filter(ours).map(verifier).collect::<Vec<_>>(),
        })
    }
}

fn label(name: &str, value: &str) -> Label {
    Label { name: name.into(), value: value.into() }
}

fn reason(text: &str) -> Texts {
    Texts { reason: text.into(), ..Texts::default() }
}

fn line(entry: &NewEntry) -> Value {
    json!({
        "position": entry.position,
        "kind": entry.event.kind.as_ref().expect("an entry has its kind").name(),
        "payload_type": entry.entry.payload_type,
        "body": BASE64_STANDARD.encode(&entry.entry.body),
        "public_key_sha256": hex::encode(entry.entry.public_key_sha256),
        "signature": hex::encode(entry.entry.signature),
        "leaf_hash": hex::encode(entry.leaf_hash),
        "sealed": BASE64_STANDARD.encode(&entry.sealed),
        "uses": BASE64_STANDARD.encode(&entry.uses),
    })
}
