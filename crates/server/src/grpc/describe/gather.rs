//! Gathers what is known of keys, from one snapshot of the ledger: all keys of a description are told of as of one moment.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use keyledger_ledger::batch::Head;
use keyledger_ledger::body::{Grant, Texts};
use keyledger_ledger::category::LIFECYCLE;
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::note::NoteKey;
use keyledger_ledger::roles::{self, PREDEFINED};
use keyledger_ledger::state::{Key, KeyStatus, RegisteredPermissions, Role};
use keyledger_proto::document::words::{self, Catalogue};
use keyledger_proto::{
    DocumentMoment, HeldRole, KeyDocument, KeyHistory, Ledger, LedgerDocument, Permission,
    permissions, show,
};

use super::{history, usage};
use crate::grpc::call::CallContext;
use crate::grpc::keys::key_texts;
use crate::grpc::status::Failure;
use crate::last_uses;
use crate::replica::own_clock;

/// What is gathered once for all keys.
pub(super) struct Gathered {
    head: Arc<Head>,
    now: Time,
    moment: DocumentMoment,
    /// Keyledger's own, and those that were registered if the caller may read them.
    permissions: Vec<Permission>,
    catalogue: Catalogue,
    /// Most changes of a key.
    changes: usize,
}

pub(super) struct Gathering<'a> {
    call: &'a CallContext,
    gathered: Gathered,
}

impl<'a> Gathering<'a> {
    pub(super) async fn begin(
        call: &'a CallContext,
        changes: usize,
    ) -> Result<Gathering<'a>, Failure> {
        let head = call.head();
        let now = head.state.newest_time.max(own_clock());
        let moment = moment(call, &head, now).await?;
        let permissions = permissions_for(call, &head).await?;
        let catalogue = Catalogue::new(&permissions);
        let gathered = Gathered { head, now, moment, permissions, catalogue, changes };
        Ok(Gathering { call, gathered })
    }

    pub(super) fn continue_with(call: &'a CallContext, gathered: Gathered) -> Gathering<'a> {
        Gathering { call, gathered }
    }

    pub(super) fn keep(self) -> Gathered {
        self.gathered
    }

    pub(super) fn head(&self) -> &Arc<Head> {
        &self.gathered.head
    }

    pub(super) fn now(&self) -> Time {
        self.gathered.now
    }

    pub(super) fn moment(&self) -> &DocumentMoment {
        &self.gathered.moment
    }

    pub(super) fn ledger(&self) -> Option<Ledger> {
        self.head().state.ledger.as_ref().map(|info| show::ledger(info))
    }

    /// The ledger without its keys.
    pub(super) async fn ledger_document(&self) -> Result<LedgerDocument, Failure> {
        let may_read = may_read_roles(self.call);
        let roles = if may_read { self.roles().await? } else { vec![] };
        Ok(LedgerDocument {
            ledger: self.ledger(),
            moment: Some(self.moment().clone()),
            roles,
            permissions: self.gathered.permissions.clone(),
            roles_withheld: !may_read,
            ..LedgerDocument::default()
        })
    }

    async fn roles(&self) -> Result<Vec<keyledger_proto::Role>, Failure> {
        let own: Vec<&Arc<Role>> = self.head().state.roles.values().collect();
        let places: Vec<u64> = own.iter().map(|role| role.described_position).collect();
        let (texts, empty) = (self.call.texts_at(&places).await?, Texts::default());
        let text_of = |role: &Role| texts.get(&role.described_position).unwrap_or(&empty);
        let own = own.iter().map(|role| show::role(role, text_of(role)));
        Ok(PREDEFINED.iter().map(show::predefined_role).chain(own).collect())
    }

    /// Keys as they explain themselves, in order; without ledger and moment, which are those of all.
    pub(super) async fn documents(&self, keys: &[Arc<Key>]) -> Result<Vec<KeyDocument>, Failure> {
        let state = &self.head().state;
        let ids: Vec<KeyId> = keys.iter().map(|key| key.id).collect();
        let (texts, last_uses) =
            (key_texts(self.call, keys).await?, last_uses::of_keys(&self.call.ledger, &ids).await?);
        let described = self.described(keys).await?;
        let mut histories = self.histories(keys).await?.into_iter();
        let mut usages =
            usage::of_keys(self.call, self.head(), self.now(), keys).await?.into_iter();
        let mut documents = vec![];
        for (key, texts) in keys.iter().zip(&texts) {
            let shown = show::key(state, key, texts, self.now());
            let shown = show::with_last_uses(shown, &last_uses[&key.id]);
            documents.push(KeyDocument {
                summary: words::summary(&shown),
                accepted: key.status(self.now()) == KeyStatus::Active,
                abilities: self.abilities(key),
                roles: self.held_roles(key, &described),
                conditions: words::conditions(&shown),
                life: words::life(&shown),
                rotation: words::rotation(&shown),
                history: histories.next(),
                usage: usages.next(),
                key: Some(shown),
                ..KeyDocument::default()
            });
        }
        Ok(documents)
    }

    /// Of its own grants, then of its roles; by the same rule as every verdict.
    fn abilities(&self, key: &Key) -> Vec<keyledger_proto::Ability> {
        let mut abilities = vec![];
        for (grants, role) in roles::of_key(&self.head().state, key) {
            let grants: Vec<Grant> = grants.iter().map(|grant| grant.to_body()).collect();
            let role = role.map_or("", |name| name);
            abilities.extend(self.gathered.catalogue.abilities(&grants, role));
        }
        abilities
    }

    fn held_roles(&self, key: &Key, described: &HashMap<u64, Texts>) -> Vec<HeldRole> {
        let may_read = may_read_roles(self.call);
        let held = |name: &Arc<str>| {
            let own = self.head().state.roles.get(name);
            let description = match own {
                _ if !may_read => String::new(),
                Some(role) => {
                    let texts = described.get(&role.described_position);
                    texts.map(|t| t.description.clone()).unwrap_or_default()
                }
                None => predefined(name).into(),
            };
            let retired = own.is_some_and(|role| role.retired.is_some());
            HeldRole { name: name.to_string(), description, retired, predefined: own.is_none() }
        };
        key.roles.iter().map(held).collect()
    }

    /// What is said of the roles of keys, by the position of the entry that says it.
    async fn described(&self, keys: &[Arc<Key>]) -> Result<HashMap<u64, Texts>, Failure> {
        let names = keys.iter().flat_map(|key| &key.roles);
        let roles = names.filter_map(|name| self.head().state.roles.get(name));
        let places: BTreeSet<u64> = roles.map(|role| role.described_position).collect();
        self.call.texts_at(&places.into_iter().collect::<Vec<_>>()).await
    }

    async fn histories(&self, keys: &[Arc<Key>]) -> Result<Vec<KeyHistory>, Failure> {
        if !self.call.holds("audit.read", &format!("logs/{LIFECYCLE}")) {
            let withheld = KeyHistory { withheld: true, ..KeyHistory::default() };
            return Ok(vec![withheld; keys.len()]);
        }
        history::of_keys(self.call, self.head(), keys, self.gathered.changes).await
    }
}

fn may_read_roles(call: &CallContext) -> bool {
    call.holds("roles.read", "roles")
}

/// What a predefined role is for.
fn predefined(name: &str) -> &'static str {
    let bare = name.split_once('(').map_or(name, |(bare, _)| bare);
    PREDEFINED.iter().find(|role| role.name == bare).map_or("", |role| role.description)
}

/// The moment of a snapshot, and a checkpoint that covers it: it is signed after the snapshot was taken.
async fn moment(call: &CallContext, head: &Head, now: Time) -> Result<DocumentMoment, Failure> {
    let info = head.state.ledger.as_ref().ok_or(Failure::Internal("no ledger"))?;
    let signed = call.ledger.sign_checkpoint().await?;
    let signed = signed.ok_or(Failure::Internal("a ledger without entries"))?;
    let key = NoteKey::new(&info.origin, info.checkpoint_key)
        .map_err(|_| Failure::Internal("a bad origin"))?;
    Ok(DocumentMoment {
        position: Some(head.state.next_position),
        time: Some(show::timestamp(now)),
        checkpoint: signed.note.clone(),
        checkpoint_size: signed.checkpoint.size,
        verifier_key: key.vkey(),
    })
}

async fn permissions_for(call: &CallContext, head: &Head) -> Result<Vec<Permission>, Failure> {
    let mut all = permissions::all();
    if may_read_roles(call) {
        let sets: Vec<&Arc<RegisteredPermissions>> = head.state.permissions.values().collect();
        let places: Vec<u64> = sets.iter().map(|set| set.position).collect();
        let (texts, empty) = (call.texts_at(&places).await?, Texts::default());
        for set in sets {
            let texts = texts.get(&set.position).unwrap_or(&empty);
            all.extend(show::registered_permissions(set, texts));
        }
    }
    Ok(all)
}
