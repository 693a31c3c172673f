//! What holds for every sequence of commands, whatever they ask: the core alone, without a server.

mod steps;

use std::collections::HashMap;

use keyledger_ledger::apply::{apply_change, fold_key};
use keyledger_ledger::batch::NewEntry;
use keyledger_ledger::body::{self, DecisionReason, Event, Kind, RevocationKind};
use keyledger_ledger::command::{
    Action, Answer, Call, ChangeKind, Changed, Command, Expiry, RequestId, RotateKey, SECOND,
    UpdateKey, UpdatePolicy, UpdateRole,
};
use keyledger_ledger::grant::Grant;
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::judge::{Credential, Identity, identify, standing};
use keyledger_ledger::page::read_uses;
use keyledger_ledger::policy::{Limits, Policy, Rotation};
use keyledger_ledger::record::{decode_key, encode_key};
use keyledger_ledger::restrict::{RestrictionChange, Restrictions};
use keyledger_ledger::roles;
use keyledger_ledger::state::{Key, KeyStatus, Owner, State};
use keyledger_ledger::token::{Secret, Token};
use keyledger_ledger::verify::{Found, NoKeys, Verifier};
use proptest::prelude::*;

use crate::world::{World, change, grant, verify};
use steps::{Life, Moment, PERMISSIONS, Pick, RESOURCES, Step, changes, many_changes, moments};

/// A world, everything that was ever presented in it, and a verifier that follows it.
struct Story {
    world: World,
    admin: Token,
    /// Tokens of keys that live.
    live: Vec<Token>,
    /// Also those of keys that were not made, and one with a secret that is none.
    tokens: Vec<Token>,
    verifier: Verifier,
    verified: usize,
    /// Calls of others than Keyledger itself that must have left something.
    asked: u64,
}

impl Story {
    fn begin() -> Story {
        let mut world = World::new("keys.example.test/system");
        let admin = world.new_key();
        let (owner, everything) =
            (Owner::Service("admin".into()), vec![grant(&["*"], "**", false)]);
        let create = world.create_key(&admin, owner, everything, vec![], Expiry::Never);
        let create = world.by_itself(create, vec![]);
        world.run(vec![create]);
        let stranger = Token { key_id: admin.key_id, secret: Secret::new([7; 32]) };
        let (live, tokens) = (vec![], vec![stranger]);
        Story { world, admin, live, tokens, verifier: Verifier::default(), verified: 0, asked: 0 }
    }

    /// The same for one step, which may change what keys and roles are: whoever gave something held it just before.
    fn tell_change(&mut self, moment: Moment) {
        self.world.now = self.world.now.plus_micros(moment.wait);
        let before = self.world.head.state.clone();
        for step in moment.steps {
            let command = self.command(step);
            let answers = self.world.run(vec![command.clone()]);
            self.check_entries();
            self.check_answer(&before, &command, &answers[0]);
            let caller = command.call.credential.key_id().and_then(|id| before.keys.get(&id));
            if let (Answer::Changed { result, .. }, Some(caller)) = (&answers[0], caller) {
                self.check_that_it_was_held(&before, caller, &command, result);
            }
        }
        let live = self.tokens.iter().filter(|token| self.lives(token)).cloned().collect();
        self.live = live;
    }

    fn check_that_it_was_held(
        &self,
        before: &State,
        caller: &Key,
        command: &Command,
        result: &Changed,
    ) {
        let Action::Change(change) = &command.action else { return };
        let after = &self.world.head.state;
        let (given, key) = match (&change.kind, result) {
            // These give nothing.
            (ChangeKind::SuspendKey { .. } | ChangeKind::RevokeKey { .. }, _) => return,
            (ChangeKind::RetireRole { .. }, _) => return,
            (_, Changed::Key(key)) => (grants_of(after, key), Some(key)),
            (_, Changed::Role(role)) => (role.grants.to_vec(), None),
            _ => return,
        };
        // Of a key that isn't changed in what it may do, nothing is given.
        let untouched = matches!(&change.kind, ChangeKind::UpdateKey(u)
            if u.grants.is_none() && u.roles.is_none() && u.expiry.is_none() && u.restrictions.is_none());
        if untouched {
            return;
        }
        let held = grants_of(before, caller);
        for grant in given {
            assert!(held.iter().any(|g| g.covers(&grant)), "{command:?} gave {grant}");
        }
        let Some(key) = key else { return };
        let end = |key: &Key| key.expires.unwrap_or(Time(i64::MAX));
        assert!(end(key) <= end(caller), "{command:?} gave a longer life");
        let free = Restrictions::default();
        let restrictions = |key: &Key| key.restrictions.as_deref().unwrap_or(&free).clone();
        assert!(restrictions(key).inside(&restrictions(caller)), "{command:?} gave more places");
    }

    /// The same for many steps at once.
    fn tell_all(&mut self, moment: Moment) {
        self.world.now = self.world.now.plus_micros(moment.wait);
        let commands: Vec<Command> =
            moment.steps.into_iter().map(|step| self.command(step)).collect();
        let before = self.world.head.state.clone();
        let answers = self.world.run(commands.clone());
        self.check_entries();
        for (command, answer) in commands.iter().zip(&answers) {
            self.check_answer(&before, command, answer);
        }
        let live = self.tokens.iter().filter(|token| self.lives(token)).cloned().collect();
        self.live = live;
    }

    fn tell(&mut self, moment: Moment) {
        self.world.now = self.world.now.plus_micros(moment.wait);
        let commands: Vec<Command> =
            moment.steps.into_iter().map(|step| self.command(step)).collect();
        let before = self.world.head.state.clone();
        let answers = self.world.run(commands.clone());
        assert_eq!(answers.len(), commands.len());
        self.check_entries();
        for (command, answer) in commands.iter().zip(&answers) {
            self.check_answer(&before, command, answer);
        }
        check_lives(&before, &self.world.head.state);
        let live = self.tokens.iter().filter(|token| self.lives(token)).cloned().collect();
        self.live = live;
    }

    fn lives(&self, token: &Token) -> bool {
        let state = &self.world.head.state;
        let credential = Credential::from_text(&token.reveal());
        match identify(&credential, state, &self.world.peppers) {
            Identity::Known { key_id, version } => {
                standing(&state.keys[&key_id], version, self.world.now).is_ok()
            }
            _ => false,
        }
    }

    fn command(&mut self, (step, request): (Step, Option<u8>)) -> Command {
        match step {
            Step::Create { by, grants, role, life } => {
                let token = self.world.new_key();
                self.tokens.push(token.clone());
                let expiry = expiry(life);
                let owner = Owner::User(self.world.draw());
                let roles = role.map(role_name).into_iter().collect();
                let kind = self.world.create_key(&token, owner, grants, roles, expiry);
                self.change(by, request, "KeyService/CreateKey", "keys.create", kind)
            }
            Step::Rotate { by, key, overlap, until_first_use } => {
                let key_id = self.about(key);
                let token = Token { key_id, secret: Secret::new(self.world.draw()) };
                self.tokens.push(token.clone());
                let secret = self.world.new_secret(&token);
                let kind = ChangeKind::RotateKey(RotateKey {
                    key_id,
                    overlap_micros: overlap,
                    until_first_use,
                    secret,
                });
                self.change(by, request, "KeyService/RotateKey", "keys.rotate", kind)
            }
            Step::Revoke { by, key } => {
                let kind = RevocationKind::Unused;
                let kind = ChangeKind::RevokeKey { key_id: self.about(key), kind };
                self.change(by, request, "KeyService/RevokeKey", "keys.revoke", kind)
            }
            Step::Role { by, name, grants } => {
                let rotation = None;
                let name = role_name(name);
                let kind = ChangeKind::CreateRole { name, grants, rotation, max_staleness: 0 };
                self.change(by, request, "KeyService/CreateRole", "roles.create", kind)
            }
            Step::Check { by, token, permission, resource } => {
                let token = self.token(token).reveal();
                let call = self.call(by, "KeyService/VerifyKey", "keys.verify");
                verify(call, &token, &permission, &resource, vec![])
            }
            Step::Read { by } => Command {
                call: self.call(by, "KeyService/ListKeys", "keys.read"),
                action: Action::Read { returned: None },
            },
            Step::Refuse { by } => {
                let action = Action::Refuse(DecisionReason::InvalidRequest);
                Command { call: self.call(by, "KeyService/GetKey", "keys.read"), action }
            }
            Step::Authenticate { by } => Command {
                call: self.call(by, "KeyService/WhoAmI", ""),
                action: Action::Authenticate,
            },
            Step::Dry(step) => {
                let mut command = self.command((*step, request));
                if let Action::Change(change) = &mut command.action {
                    change.validate_only = true;
                }
                command
            }
            Step::Suspend { by, key } => {
                let kind = ChangeKind::SuspendKey { key_id: self.about(key) };
                self.change(by, request, "KeyService/SuspendKey", "keys.suspend", kind)
            }
            Step::Resume { by, key } => {
                let kind = ChangeKind::ResumeKey { key_id: self.token(Pick::Any(key)).key_id };
                self.change(by, request, "KeyService/ResumeKey", "keys.resume", kind)
            }
            Step::Update { by, key, fields } => {
                let network = || ["203.0.113.0/24".to_string()].to_vec();
                let restrictions = fields.restricted.map(|restricted| {
                    let networks = if restricted { network() } else { vec![] };
                    let max_uses = if restricted { 4 } else { 0 };
                    let body = body::Restrictions { networks, max_uses, ..Default::default() };
                    let to = Restrictions::from_body(Some(&body)).expect("it is a network");
                    RestrictionChange::all(to)
                });
                let kind = ChangeKind::UpdateKey(UpdateKey {
                    key_id: self.about(key),
                    etag: String::new(),
                    changed: vec![],
                    grants: fields.grants,
                    roles: fields.role.map(|role| role.map(role_name).into_iter().collect()),
                    expiry: fields.life.map(expiry),
                    restrictions,
                    labels: None,
                    responsible: None,
                    rotation: fields.max_age.map(|max_age| max_age.map(rotation)),
                });
                self.change(by, request, "KeyService/UpdateKey", "keys.update", kind)
            }
            Step::UpdateRole { by, name, grants, max_age } => {
                let kind = ChangeKind::UpdateRole(UpdateRole {
                    name: role_name(name),
                    etag: String::new(),
                    grants: Some(grants),
                    described: false,
                    rotation: max_age.map(|max_age| max_age.map(rotation)),
                    max_staleness: None,
                });
                self.change(by, request, "KeyService/UpdateRole", "roles.update", kind)
            }
            Step::Policy { by, policy } => {
                let policy = Policy { limits: Limits::default(), ..policy };
                let fields = ["max_life", "default_life", "notice_days", "max_overlap"];
                let changed = fields.map(String::from).to_vec();
                let update = UpdatePolicy { etag: String::new(), changed, to: policy };
                let kind = ChangeKind::UpdatePolicy(update);
                let method = "KeyService/UpdateLedgerPolicy";
                self.change(by, request, method, "ledgers.update-policy", kind)
            }
            Step::Note => {
                let due = self.world.head.state.due.get_min().map(|(_, id)| *id);
                let key_id = due.unwrap_or_else(|| self.about(0));
                self.world.by_itself(ChangeKind::NoteDue { key_id }, vec![])
            }
            Step::Register { by, prefix, names } => {
                // One of the prefixes is reserved.
                let prefix = ["billing", "payroll", "keys"][prefix].to_string();
                let names = (0..names).map(|n| format!("{prefix}.p{n}")).collect();
                let kind = ChangeKind::RegisterPermissions { prefix, names };
                let method = "KeyService/RegisterPermissions";
                self.change(by, request, method, "permissions.register", kind)
            }
            Step::Together { by, events } => self.together(by, events),
            Step::RetireRole { by, name } => {
                let kind = ChangeKind::RetireRole { name: role_name(name), etag: String::new() };
                self.change(by, request, "KeyService/RetireRole", "roles.retire", kind)
            }
        }
    }

    /// Events of a service that are recorded all or none.
    fn together(&mut self, by: Pick, events: Vec<(Option<u8>, bool)>) -> Command {
        let mut all = vec![];
        for (request, good) in events {
            let service = body::ActorKind::Service("batch".into());
            let event = body::EventRecorded {
                actor: Some(body::Actor { actor: Some(service) }),
                action: "invoice.export".into(),
                category: "user-activity".into(),
                occurred_time_us: if good { 0 } else { i64::MAX },
                ..Default::default()
            };
            let kind = ChangeKind::RecordEvent(Box::new(event));
            let one = self.change(by, request, "AuditService/RecordEvents", "keys.read", kind);
            let Action::Change(change) = one.action else { unreachable!("it is a change") };
            all.push((one.call, *change));
        }
        let call = self.call(by, "AuditService/RecordEvents", "keys.read");
        Command { call, action: Action::RecordAll(all) }
    }

    fn token(&self, pick: Pick) -> Token {
        match pick {
            Pick::Live(number) if !self.live.is_empty() => {
                self.live[number % self.live.len()].clone()
            }
            Pick::Any(number) => self.tokens[number % self.tokens.len()].clone(),
            Pick::Admin | Pick::Live(_) => self.admin.clone(),
        }
    }

    /// The key that a change is about: never the admin's, or most stories would be over soon.
    fn about(&self, number: usize) -> KeyId {
        match self.live.len() {
            0 => KeyId::from_bytes([7; 16]),
            count => self.live[number % count].key_id,
        }
    }

    fn call(&mut self, by: Pick, method: &'static str, permission: &'static str) -> Call {
        let token = self.token(by).reveal();
        self.world.call(&token, method, permission, "keys")
    }

    fn change(
        &mut self,
        by: Pick,
        request: Option<u8>,
        method: &'static str,
        permission: &'static str,
        kind: ChangeKind,
    ) -> Command {
        let mut call = self.call(by, method, permission);
        // The same id with one of two requests: repeats and misuses both come up.
        call.request = request.map(|n| RequestId { id: [n / 2; 16], digest: [n; 32] });
        change(call, kind, vec![])
    }

    /// The verifier accepts every entry, and comes to the same state and the same root.
    fn check_entries(&mut self) {
        for entry in &self.world.entries[self.verified..] {
            self.verifier.push(&found(entry), &mut NoKeys).expect("what the core writes verifies");
        }
        self.verified = self.world.entries.len();
        assert!(self.verifier.state().same_fold(&self.world.head.state));
        assert_eq!(self.verifier.root(), self.world.head.tiles.root());
    }

    fn check_answer(&mut self, before: &State, command: &Command, answer: &Answer) {
        let by_itself = matches!(command.call.credential, Credential::Internal);
        let authenticated =
            matches!((&command.action, answer), (Action::Authenticate, Answer::Allowed { .. }));
        self.asked += u64::from(!by_itself && !authenticated);
        match answer {
            Answer::Verdict(verdict) => {
                let entry = self.entry(verdict.at.position);
                let Some(Kind::UsePage(page)) = &entry.event.kind else { panic!("not a page") };
                let uses = read_uses(page, &entry.uses).expect("the uses are the page's");
                let left = &uses[verdict.at.index as usize].r#use;
                assert_eq!(
                    (left.reason, &left.method),
                    (verdict.reason as i32, &command.call.method.to_string())
                );
                if verdict.reason == DecisionReason::Granted {
                    let key = verdict.key.as_ref().expect("what is granted has a key");
                    let key = &before.keys[&key.id];
                    assert_eq!(key.status(self.world.now), KeyStatus::Active);
                }
            }
            Answer::Changed { position, result } => {
                let link = self.entry(*position).event.kind.as_ref().and_then(Kind::key_link);
                if let Changed::Key(key) = result {
                    assert_eq!(link.expect("it is about a key").key_id, key.id.as_bytes());
                }
            }
            Answer::Replayed { position } => {
                let id = command.call.request.expect("only a request is answered again").id;
                assert_eq!(self.entry(*position).event.request_id, id);
            }
            Answer::Refused { refusal } | Answer::Folded { refusal } => {
                let bug = matches!(refusal, keyledger_ledger::command::Refusal::Internal);
                assert!(!bug, "{command:?} met a bug");
            }
            Answer::Allowed { .. } | Answer::Validated { .. } => {}
            Answer::All(answers) => {
                self.asked += answers.len() as u64 - 1;
                let Action::RecordAll(all) = &command.action else { panic!("one was asked for") };
                assert_eq!(answers.len(), all.len());
                for (answer, (call, _)) in answers.iter().zip(all) {
                    let (Answer::Changed { position, .. } | Answer::Replayed { position }) = answer
                    else {
                        panic!("{answer:?} of events that were recorded together")
                    };
                    let id = call.request.map_or(vec![], |request| request.id.to_vec());
                    assert_eq!(self.entry(*position).event.request_id, id);
                }
            }
            Answer::Recorded | Answer::Reported { .. } | Answer::Seen => {}
        }
    }

    fn entry(&self, position: u64) -> &NewEntry {
        let entry = &self.world.entries[position as usize];
        assert_eq!(entry.position, position);
        entry
    }

    /// Each call has left its entry or its use, or is one of those that a use counts.
    fn check_that_all_is_recorded(&mut self) {
        // The next second's page holds what was still only counted.
        self.tell(Moment { wait: SECOND, steps: vec![] });
        let called = |e: &&NewEntry| e.event.caller.is_some();
        let changes = self.world.entries.iter().filter(called).count() as u64;
        let uses = |e: &NewEntry| match &e.event.kind {
            Some(Kind::UsePage(page)) => {
                let uses = read_uses(page, &e.uses).expect("the uses are the page's");
                uses.iter().map(|read| u64::from(read.r#use.count.max(1))).sum()
            }
            _ => 0,
        };
        let uses: u64 = self.world.entries.iter().map(uses).sum();
        assert_eq!(changes + uses, self.asked);
    }

    /// Rows that are projected, and rows that are folded from a key's own entries alone, say the same as the state.
    fn check_projections(&self) {
        let state = &self.world.head.state;
        let mut histories: HashMap<KeyId, Vec<(u64, [u8; 32], Event)>> = HashMap::new();
        for entry in &self.world.entries {
            let link = entry.event.kind.as_ref().and_then(Kind::key_link);
            if let Some(id) = link.and_then(|l| KeyId::from_slice(&l.key_id)) {
                let row = (entry.position, entry.leaf_hash, entry.event.clone());
                histories.entry(id).or_default().push(row);
            }
        }
        assert_eq!(histories.len(), state.keys.len());
        for key in state.keys.values() {
            let decoded = decode_key(&encode_key(key), |name| name.into());
            assert_eq!(decoded.as_ref(), Some(&**key));
            let folded =
                fold_key(state, &histories[&key.id]).expect("its own entries fit each other");
            // How often it was used stands in the pages.
            let unused = Key { used: None, ..Key::clone(key) };
            assert_eq!(folded.as_deref(), Some(&unused));
        }
    }

    /// After each of its entries, a key folded from its own entries so far is what the ledger folded so far holds; and so is
    /// all that changes alone tell, after each change.
    fn check_looks_back(&self) {
        let mut past = State::default();
        let mut histories: HashMap<KeyId, Vec<(u64, [u8; 32], Event)>> = HashMap::new();
        let mut verifier = Verifier::default();
        for entry in &self.world.entries {
            verifier.push(&found(entry), &mut NoKeys).expect("it has verified before");
            if entry.event.kind.as_ref().is_some_and(Kind::is_change) {
                apply_change(&mut past, entry.position, entry.leaf_hash, &entry.event)
                    .expect("changes fit each other without the pages");
                past.find_due();
                assert!(without_uses(verifier.state(), &past).same_fold(&past));
            }
            let link = entry.event.kind.as_ref().and_then(Kind::key_link);
            let Some(id) = link.and_then(|l| KeyId::from_slice(&l.key_id)) else { continue };
            let history = histories.entry(id).or_default();
            history.push((entry.position, entry.leaf_hash, entry.event.clone()));
            let folded = fold_key(verifier.state(), history).expect("they fit each other");
            let then = Key { used: None, ..Key::clone(&verifier.state().keys[&id]) };
            assert_eq!(folded.as_deref(), Some(&then));
        }
    }

    /// Whatever a key allows, one single grant of the key that made it reaches; and it ends no later.
    fn check_that_nobody_gave_more_than_they_hold(&self) {
        let state = &self.world.head.state;
        for key in state.keys.values() {
            let Some(creator) = key.creator.map(|id| &state.keys[&id]) else { continue };
            let (given, held) = (grants_of(state, key), grants_of(state, creator));
            for (permission, resource) in PERMISSIONS.iter().flat_map(|p| RESOURCES.map(|r| (p, r)))
            {
                let asked = grant(&[permission], resource, false);
                let gives = given.iter().any(|g| g.covers(&asked));
                let holds = held.iter().any(|g| g.covers(&asked));
                assert!(!gives || holds, "{} has {asked} from {}", key.id, creator.id);
            }
            let end = |key: &Key| key.expires.unwrap_or(Time(i64::MAX));
            assert!(end(key) <= end(creator), "{} outlives {}", key.id, creator.id);
        }
    }
}

/// A state without what only other entries than changes tell: how many of them there were is taken over.
fn without_uses(state: &State, other: &State) -> State {
    let mut without = state.clone();
    (without.next_page, without.next_event) = (other.next_page, other.next_event);
    without.counts = other.counts.clone();
    for key in state.keys.values().filter(|key| key.used.is_some()) {
        without.put_key(Key { used: None, ..Key::clone(key) });
    }
    without
}

fn expiry(life: Life) -> Expiry {
    match life {
        Life::Default => Expiry::Default,
        Life::Seconds(seconds) => Expiry::After(seconds * SECOND),
        Life::Never => Expiry::Never,
    }
}

fn role_name(number: usize) -> String {
    format!("role-{number}")
}

fn grants_of(state: &State, key: &Key) -> Vec<Grant> {
    roles::of_key(state, key).flat_map(|(grants, _)| grants.into_owned()).collect()
}

fn found(entry: &NewEntry) -> Found {
    Found {
        position: entry.position,
        entry: entry.entry.clone(),
        sealed: Some(entry.sealed.clone()),
        uses: entry.uses.clone(),
        columns: None,
    }
}

/// A key keeps its end, whatever is done to it, and so does each of its secrets or it ends earlier. What has ended stays so.
fn check_lives(before: &State, after: &State) {
    for old in before.keys.values() {
        let new = &after.keys[&old.id];
        assert_eq!((new.expires, &new.grants, &new.roles), (old.expires, &old.grants, &old.roles));
        assert!(old.revoked.is_none() || new.revoked == old.revoked);
        let end = |key: &Key, expires: Option<Time>| {
            let never = Time(i64::MAX);
            expires.unwrap_or(never).min(key.expires.unwrap_or(never))
        };
        for version in &new.versions {
            let earlier = old.versions.iter().find(|v| v.number == version.number);
            if let Some(earlier) = earlier {
                assert!(
                    end(new, version.expires) <= end(old, earlier.expires),
                    "a secret lives longer"
                );
            }
        }
        let numbers: Vec<u32> = new.versions.iter().map(|v| v.number).collect();
        assert!(numbers.len() <= 2 && numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    }
}

#[test]
fn changes_fold_only_in_their_order_each_once_and_without_pages() {
    let mut story = Story::begin();
    for _ in 0..2 {
        let call = story.call(Pick::Admin, "KeyService/ListKeys", "keys.read");
        let token = story.world.new_key();
        let kind = story.world.create_key(
            &token,
            Owner::Service("robot".into()),
            vec![],
            vec![],
            Expiry::Never,
        );
        let create = story.world.by_itself(kind, vec![]);
        let suspend = ChangeKind::SuspendKey { key_id: token.key_id };
        let suspend = story.world.by_itself(suspend, vec![]);
        story.world.run(vec![
            Command { call, action: Action::Read { returned: None } },
            create,
            suspend,
        ]);
    }
    let entries = &story.world.entries;
    let is_page = |entry: &NewEntry| matches!(entry.event.kind, Some(Kind::UsePage(_)));
    let mut past = State::default();
    for (i, entry) in entries.iter().enumerate() {
        let before = past.clone();
        let apply =
            |past: &mut State, e: &NewEntry| apply_change(past, e.position, e.leaf_hash, &e.event);
        // Those before it; and itself, if it is a page.
        for wrong in entries[..i].iter().chain([entry].into_iter().filter(|e| is_page(e))) {
            apply(&mut past, wrong).expect_err("it was applied, or is a page");
        }
        if matches!(entry.event.kind, Some(Kind::KeyCreated(_))) {
            apply(&mut past, &entries[i + 1]).expect_err("the key isn't there");
        }
        assert!(past.same_fold(&before), "what is refused changes nothing");
        if !is_page(entry) {
            apply(&mut past, entry).expect("it comes next");
        }
    }
    assert_eq!(past.keys, story.world.head.state.keys);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(192) })]

    #[test]
    fn every_sequence_of_many_changes_at_once_makes_a_ledger_that_verifies(
        moments in many_changes()
    ) {
        let mut story = Story::begin();
        for moment in moments {
            story.tell_all(moment);
        }
        story.check_that_all_is_recorded();
        story.check_projections();
        story.check_looks_back();
    }

    #[test]
    fn whoever_creates_changes_rotates_or_resumes_a_key_or_makes_a_role_holds_all_that_it_gives(
        moments in changes()
    ) {
        let mut story = Story::begin();
        for moment in moments {
            story.tell_change(moment);
        }
        story.check_that_all_is_recorded();
        story.check_projections();
        story.check_looks_back();
    }

    #[test]
    fn every_sequence_of_commands_makes_a_ledger_that_verifies_and_gives_nobody_more_than_they_had(
        moments in moments()
    ) {
        let mut story = Story::begin();
        for moment in moments {
            story.tell(moment);
        }
        story.check_that_all_is_recorded();
        story.check_projections();
        story.check_that_nobody_gave_more_than_they_hold();
    }
}

fn rotation(max_age: i64) -> Rotation {
    Rotation { max_age, suspend_after: (max_age % 2 == 0).then_some(max_age) }
}
