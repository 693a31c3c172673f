//! KeyService: many keys at once. Lists, owners, who has access, and the end of all that a filter names.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use futures_util::future::try_join_all;
use keyledger_ledger::body::RevocationKind;
use keyledger_ledger::command::{ChangeKind, Refusal};
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::judge;
use keyledger_ledger::state::{Key, KeyStatus, Owner, State};
use keyledger_proto::parse::{self, Common, KeyFilter, OwnerName};
use keyledger_proto::{
    KeyAccess, ListKeysResponse, ListOwnersRequest, ListOwnersResponse, OwnerHoldings,
    RevokeKeysResponse, WhoHasAccessRequest, WhoHasAccessResponse, show,
};

use super::call::CallContext;
use super::keys::{change_key, key_texts};
use super::page_token;
use super::status::Failure;

/// How many keys one call looks at.
const MAX_LOOKED_AT: usize = 100_000;
/// Most keys that one call ends, and most ids of one kind in its reply.
const MAX_REVOKED: usize = 1_000;
/// How many keys are ended at the same time.
const AT_ONCE: usize = 100;

/// A filter with the people in it as the ledger knows them.
struct Wanted {
    filter: KeyFilter,
    owner: Option<Owner>,
    responsible: Option<[u8; 16]>,
    /// A person is named whom the ledger doesn't know: no key is theirs.
    nobody: bool,
}

impl Wanted {
    async fn of(call: &CallContext, filter: KeyFilter) -> Result<Wanted, Failure> {
        let (mut owner, mut responsible, mut nobody) = (None, None, false);
        let sealing = &call.replica.sealing;
        match &filter.owner {
            None => {}
            Some(OwnerName::Service(name)) => owner = Some(Owner::Service(name.as_str().into())),
            Some(OwnerName::User(name)) => {
                owner = sealing.find_person(call.ledger.id, name).await?.map(Owner::User);
                nobody |= owner.is_none();
            }
        }
        if let Some(name) = &filter.responsible {
            responsible = sealing.find_person(call.ledger.id, name).await?;
            nobody |= responsible.is_none();
        }
        Ok(Wanted { filter, owner, responsible, nobody })
    }

    fn matches(&self, key: &Key, now: Time) -> bool {
        !self.nobody
            && self.owner.as_ref().is_none_or(|owner| key.owner == *owner)
            && self.responsible.is_none_or(|person| key.responsible == Some(person))
            && self.filter.matches(key, now)
    }
}

/// A part of a list of keys: those that were picked, each with what it was picked for, and where the list goes on.
struct Page<T> {
    keys: Vec<Arc<Key>>,
    picked_for: Vec<T>,
    next_page_token: String,
}

/// The next `size` keys that `pick` takes, in the order of their ids. A page may be short: only so many keys are looked at.
fn page<T>(
    state: &State,
    query: &[&str],
    page_token: &str,
    size: usize,
    pick: impl Fn(&Key) -> Option<T>,
) -> Result<Page<T>, Failure> {
    let after = match page_token::read(query, page_token)? {
        None => Bound::Unbounded,
        Some(bytes) => Bound::Excluded(KeyId::from_slice(&bytes).ok_or(Failure::PageToken)?),
    };
    let (mut keys, mut picked_for, mut last) = (vec![], vec![], None);
    let mut range = state.keys.range((after, Bound::Unbounded));
    for (id, key) in range.by_ref().take(MAX_LOOKED_AT) {
        last = Some(*id);
        if let Some(reason) = pick(key) {
            keys.push(key.clone());
            picked_for.push(reason);
        }
        if keys.len() == size {
            break;
        }
    }
    let more = range.next().is_some();
    let next = last.filter(|_| more).map(|id| page_token::write(query, id.as_bytes()));
    Ok(Page { keys, picked_for, next_page_token: next.unwrap_or_default() })
}

pub(super) async fn list_keys(
    call: CallContext,
    r: parse::ListKeys,
) -> Result<ListKeysResponse, Failure> {
    let wanted = Wanted::of(&call, r.filter).await?;
    let (head, now) = (call.head(), call.now());
    let pick = |key: &Key| wanted.matches(key, now).then_some(());
    let page = page(&head.state, &["ListKeys", &r.query], &r.page_token, r.page_size, pick)?;
    let texts = key_texts(&call, &page.keys).await?;
    Ok(ListKeysResponse {
        keys: page
            .keys
            .iter()
            .zip(&texts)
            .map(|(k, texts)| show::key(&head.state, k, texts, now))
            .collect(),
        next_page_token: page.next_page_token,
        position: Some(head.state.next_position),
    })
}

pub(super) async fn who_has_access(
    call: CallContext,
    r: (WhoHasAccessRequest, usize),
) -> Result<WhoHasAccessResponse, Failure> {
    let (WhoHasAccessRequest { permission, resource, page_token, .. }, size) = r;
    let (head, now) = (call.head(), call.now());
    let pick = |key: &Key| match key.status(now) {
        KeyStatus::Active => judge::matching_grant(&head.state, key, &permission, &resource),
        _ => None,
    };
    let query = ["WhoHasAccess", &permission, &resource];
    let page = page(&head.state, &query, &page_token, size, pick)?;
    let texts = key_texts(&call, &page.keys).await?;
    let keys =
        page.keys.iter().zip(&texts).map(|(key, texts)| show::key(&head.state, key, texts, now));
    let access = keys.zip(page.picked_for).map(|(key, matched)| KeyAccess {
        key: Some(key),
        matched_grant: Some(matched.grant.to_body()),
        matched_role: matched.role.unwrap_or_default(),
    });
    Ok(WhoHasAccessResponse {
        access: access.collect(),
        next_page_token: page.next_page_token,
        position: Some(head.state.next_position),
    })
}

pub(super) async fn revoke_keys(
    call: CallContext,
    r: parse::RevokeKeys,
) -> Result<RevokeKeysResponse, Failure> {
    let wanted = Wanted::of(&call, r.filter).await?;
    let (head, now) = (call.head(), call.now());
    let mut reply = RevokeKeysResponse::default();
    let mut ends = vec![];
    for key in head.state.keys.values() {
        if key.revoked.is_some() || !wanted.matches(key, now) {
            continue;
        }
        if !call.may(&format!("keys/{}", key.id)) {
            note(&mut reply.not_allowed, key.id);
        } else if ends.len() == MAX_REVOKED {
            reply.more = true;
            break;
        } else {
            ends.push(key.id);
        }
    }
    if let Some(owner) = &wanted.owner {
        made_for_others(&head.state, owner, now)
            .for_each(|id| note(&mut reply.made_for_others, id));
    }
    reply.key_ids = ends.iter().map(KeyId::to_string).collect();
    if r.common.validate_only {
        return Ok(reply);
    }
    for some in ends.chunks(AT_ONCE) {
        let ends = some.iter().map(|key_id| end(&call, *key_id, r.kind, &r.common));
        try_join_all(ends).await?;
    }
    Ok(reply)
}

async fn end(
    call: &CallContext,
    key_id: KeyId,
    kind: RevocationKind,
    common: &Common,
) -> Result<(), Failure> {
    let mut one = call.again_on(format!("keys/{key_id}"));
    let kind = ChangeKind::RevokeKey { key_id, kind };
    match change_key(&mut one, key_id, kind, common).await {
        Ok(_) => Ok(()),
        // Somebody else was faster: it has ended, which is all that was asked.
        Err(Failure::Refused(Refusal::KeyState { .. })) => Ok(()),
        Err(failure) => Err(failure),
    }
}

fn note(ids: &mut Vec<String>, id: KeyId) {
    if ids.len() < MAX_REVOKED {
        ids.push(id.to_string());
    }
}

/// Live keys of others that were created with keys of this owner.
fn made_for_others<'a>(
    state: &'a State,
    owner: &'a Owner,
    now: Time,
) -> impl Iterator<Item = KeyId> + 'a {
    let by_owner = move |creator: KeyId| {
        state.keys.get(&creator).is_some_and(|creator| creator.owner == *owner)
    };
    let made = move |key: &&Arc<Key>| {
        key.owner != *owner
            && matches!(key.status(now), KeyStatus::Active | KeyStatus::Suspended)
            && key.creator.is_some_and(by_owner)
    };
    state.keys.values().filter(made).map(|key| key.id)
}

/// The order of owners: people by reference, then services by name.
type OwnerOrder = (u8, Vec<u8>);

fn order(owner: &Owner) -> OwnerOrder {
    match owner {
        Owner::User(reference) => (0, reference.to_vec()),
        Owner::Service(name) => (1, name.as_bytes().to_vec()),
    }
}

pub(super) async fn list_owners(
    call: CallContext,
    r: (ListOwnersRequest, usize),
) -> Result<ListOwnersResponse, Failure> {
    let (request, size) = r;
    let query = ["ListOwners"];
    let after: Option<OwnerOrder> = match page_token::read(&query, &request.page_token)? {
        None => None,
        Some(bytes) => {
            let (kind, rest) = bytes.split_first().ok_or(Failure::PageToken)?;
            Some((*kind, rest.to_vec()))
        }
    };
    let (head, now) = (call.head(), call.now());
    let mut owners: BTreeMap<OwnerOrder, Vec<Arc<Key>>> = BTreeMap::new();
    for key in head.state.keys.values().filter(|k| k.status(now) == KeyStatus::Active) {
        let place = order(&key.owner);
        if after.as_ref().is_none_or(|after| place > *after) {
            owners.entry(place).or_default().push(key.clone());
            // Only so many are ever shown.
            if owners.len() > size + 1 {
                owners.pop_last();
            }
        }
    }
    let more = owners.len() > size;
    if more {
        owners.pop_last();
    }
    let last =
        owners.last_key_value().map(|((kind, name), _)| [&[*kind], name.as_slice()].concat());
    let next = last.filter(|_| more).map(|bytes| page_token::write(&query, &bytes));
    // A person's name lies beside any of their keys.
    let firsts: Vec<Arc<Key>> = owners.values().map(|keys| keys[0].clone()).collect();
    let texts = key_texts(&call, &firsts).await?;
    let owners = owners.values().zip(&texts);
    Ok(ListOwnersResponse {
        owners: owners.map(|(keys, texts)| holdings(keys, texts)).collect(),
        next_page_token: next.unwrap_or_default(),
        position: Some(head.state.next_position),
    })
}

fn holdings(keys: &[Arc<Key>], texts: &keyledger_ledger::body::Texts) -> OwnerHoldings {
    let mut grants = vec![];
    let mut roles: Vec<String> = vec![];
    for key in keys {
        for grant in key.grants.iter().map(|g| g.to_body()) {
            if !grants.contains(&grant) {
                grants.push(grant);
            }
        }
        roles.extend(key.roles.iter().map(|r| r.to_string()));
    }
    roles.sort();
    roles.dedup();
    OwnerHoldings {
        owner: Some(show::key_owner(&keys[0].owner, texts)),
        keys: keys.len() as u32,
        grants,
        roles,
        next_expire_time: keys.iter().filter_map(|k| k.expires).min().map(show::timestamp),
    }
}
