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
use keyledger_proto::parse::{self, AsOf, Common, KeyFilter, OwnerName};
use keyledger_proto::{
    KeyAccess, ListKeysResponse, ListOwnersRequest, ListOwnersResponse, OwnerHoldings,
    RevokeKeysResponse, WhoHasAccessResponse, show,
};

use sha2::{Digest, Sha256};

use super::call::CallContext;
use super::keys::{change_key, key_texts};
use super::moment::Moment;
use super::page_token;
use super::status::Failure;
use crate::last_uses;

/// How many keys one call looks at.
const MAX_LOOKED_AT: usize = 100_000;
/// How many keys' last uses are looked up at once.
const CANDIDATES: usize = 1_000;
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

    fn matches(&self, state: &State, key: &Key, now: Time) -> bool {
        !self.nobody
            && self.owner.as_ref().is_none_or(|owner| key.owner == *owner)
            && self.responsible.is_none_or(|person| key.responsible == Some(person))
            && self.filter.matches(state, key, now)
    }

    /// The next keys that are wanted as far as the state can tell: as many as are needed, or as their last uses are looked up
    /// for at once.
    fn next(&self, walk: &mut Walk, needed: usize, now: Time) -> Vec<Arc<Key>> {
        let size = if self.filter.unused_since.is_some() { CANDIDATES } else { needed };
        let picked = walk.next(size, |state, key| self.matches(state, key, now).then_some(()));
        picked.into_iter().map(|(key, ())| key).collect()
    }

    /// Those of them that are wanted also by when they were last used.
    async fn unused(
        &self,
        call: &CallContext,
        mut keys: Vec<Arc<Key>>,
    ) -> Result<Vec<Arc<Key>>, Failure> {
        if self.filter.unused_since.is_some() {
            let ids: Vec<KeyId> = keys.iter().map(|key| key.id).collect();
            let last_uses = last_uses::of_keys(&call.ledger, &ids).await?;
            let last_use = |key: &Key| last_uses.get(&key.id)?.values().max().copied();
            keys.retain(|key| self.filter.matches_last_use(key, last_use(key)));
        }
        Ok(keys)
    }
}

/// A walk through the keys of a moment, in the order of their ids.
struct Walk {
    state: State,
    /// Where it has come.
    after: Option<KeyId>,
    /// How many keys it may still look at.
    left: usize,
}

impl Walk {
    /// The next keys that `pick` takes, at most `size`, each with what it was picked for. Fewer only at the end of the walk.
    fn next<T>(
        &mut self,
        size: usize,
        pick: impl Fn(&State, &Key) -> Option<T>,
    ) -> Vec<(Arc<Key>, T)> {
        let mut picked = vec![];
        for (id, key) in self.state.keys.range(after(self.after)).take(self.left) {
            self.after = Some(*id);
            self.left -= 1;
            picked.extend(pick(&self.state, key).map(|reason| (key.clone(), reason)));
            if picked.len() == size {
                break;
            }
        }
        picked
    }

    fn has_ended(&self) -> bool {
        self.state.keys.range(after(self.after)).next().is_none()
    }
}

fn after(key_id: Option<KeyId>) -> (Bound<KeyId>, Bound<KeyId>) {
    (key_id.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}

/// A page of a list of keys: the moment that the whole list shows, and a walk from where the page before ended. A page may be
/// short: only so many keys are looked at.
struct Page<'a> {
    query: &'a [&'a str],
    moment: Moment,
    walk: Walk,
}

impl<'a> Page<'a> {
    /// `query` is everything that selects the list, `as_of` included.
    async fn open(
        call: &CallContext,
        query: &'a [&'a str],
        as_of: AsOf,
        page_token: &str,
    ) -> Result<Page<'a>, Failure> {
        let (moment, after) = match page_token::read(query, page_token)? {
            None => (Moment::of(call, as_of).await?, None),
            Some(bytes) => {
                let (id, rest) = bytes.split_at_checked(16).ok_or(Failure::PageToken)?;
                let moment = Moment::of_page(call, as_of, rest).await?;
                (moment, Some(KeyId::from_slice(id).ok_or(Failure::PageToken)?))
            }
        };
        let state = moment.state(call).await?;
        Ok(Page { query, moment, walk: Walk { state, after, left: MAX_LOOKED_AT } })
    }

    /// Empty if there is nothing after this page.
    fn next_page_token(&self) -> String {
        match self.walk.after {
            Some(id) if !self.walk.has_ended() => {
                let cursor = [id.as_bytes().as_slice(), &self.moment.for_next_page()].concat();
                page_token::write(self.query, &cursor)
            }
            _ => String::new(),
        }
    }
}

pub(super) async fn list_keys(
    call: CallContext,
    r: parse::ListKeys,
) -> Result<ListKeysResponse, Failure> {
    let wanted = Wanted::of(&call, r.filter).await?;
    let (as_of, size) = (format!("{:?}", r.as_of), r.page_size);
    let query = ["ListKeys", &r.query, &as_of];
    let mut page = Page::open(&call, &query, r.as_of, &r.page_token).await?;
    let mut found: Vec<Arc<Key>> = vec![];
    while found.len() < size {
        let candidates = wanted.next(&mut page.walk, size - found.len(), page.moment.time);
        if candidates.is_empty() {
            break;
        }
        found.extend(wanted.unused(&call, candidates).await?);
        if found.len() > size {
            // The next page looks at those again.
            found.truncate(size);
            page.walk.after = found.last().map(|key| key.id);
        }
    }
    Ok(ListKeysResponse {
        keys: page.moment.show_keys(&call, &page.walk.state, &found).await?,
        next_page_token: page.next_page_token(),
        position: Some(page.moment.position),
    })
}

pub(super) async fn who_has_access(
    call: CallContext,
    r: parse::WhoHasAccess,
) -> Result<WhoHasAccessResponse, Failure> {
    let as_of = format!("{:?}", r.as_of);
    let query = ["WhoHasAccess", &r.permission, &r.resource, &as_of];
    let mut page = Page::open(&call, &query, r.as_of, &r.page_token).await?;
    let time = page.moment.time;
    let picked = page.walk.next(r.page_size, |state, key| match key.status(time) {
        KeyStatus::Active => judge::matching_grant(state, key, &r.permission, &r.resource),
        _ => None,
    });
    let (keys, matched): (Vec<_>, Vec<_>) = picked.into_iter().unzip();
    let texts = key_texts(&call, &keys).await?;
    let show = |(key, texts): (&Arc<Key>, _)| page.moment.show_key(&page.walk.state, key, texts);
    let access = keys.iter().zip(&texts).map(show).zip(matched).map(|(key, matched)| KeyAccess {
        key: Some(key),
        matched_grant: Some(matched.grant.to_body()),
        matched_role: matched.role.unwrap_or_default(),
    });
    Ok(WhoHasAccessResponse {
        access: access.collect(),
        next_page_token: page.next_page_token(),
        position: Some(page.moment.position),
    })
}

pub(super) async fn revoke_keys(
    mut call: CallContext,
    r: parse::RevokeKeys,
) -> Result<RevokeKeysResponse, Failure> {
    call.digest_request(&r.request);
    let wanted = Wanted::of(&call, r.filter).await?;
    let (head, now) = (call.head(), call.now());
    // Who may not read keys learns of none that it may not end.
    let may_read = call.holds("keys.read", "keys");
    let mut reply = RevokeKeysResponse::default();
    let mut ends = vec![];
    let mut walk = Walk { state: head.state.clone(), after: None, left: usize::MAX };
    while !reply.more {
        let mut candidates = wanted.next(&mut walk, CANDIDATES, now);
        if candidates.is_empty() {
            break;
        }
        candidates.retain(|key| key.revoked.is_none());
        for key in wanted.unused(&call, candidates).await? {
            if !call.may(&format!("keys/{}", key.id)) {
                if may_read {
                    note(&mut reply.not_allowed, key.id);
                }
            } else if ends.len() == MAX_REVOKED {
                reply.more = true;
                break;
            } else {
                ends.push(key.id);
            }
        }
    }
    if let Some(owner) = wanted.owner.as_ref().filter(|_| may_read) {
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
    let request_id = common.request_id.map(|id| request_id_of(id, key_id));
    let common = &Common { request_id, ..common.clone() };
    let kind = ChangeKind::RevokeKey { key_id, kind };
    match change_key(&mut one, key_id, kind, common).await {
        Ok(_) => Ok(()),
        // Somebody else was faster: it has ended, which is all that was asked.
        Err(Failure::Refused(Refusal::KeyState { .. })) => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// The same for the same request and key, and no other.
fn request_id_of(request: [u8; 16], key_id: KeyId) -> [u8; 16] {
    let digest = Sha256::new().chain_update(b"RevokeKeys").chain_update(request);
    let digest = digest.chain_update(key_id.as_bytes()).finalize();
    digest[..16].try_into().expect("a SHA-256 has 32 bytes")
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
        owners: owners.map(|(keys, texts)| holdings(&head.state, keys, texts)).collect(),
        next_page_token: next.unwrap_or_default(),
        position: Some(head.state.next_position),
    })
}

fn holdings(
    state: &State,
    keys: &[Arc<Key>],
    texts: &keyledger_ledger::body::Texts,
) -> OwnerHoldings {
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
        left_time: state.left.get(&keys[0].owner).copied().map(show::timestamp),
    }
}
