//! Filters: which keys a request is about.

use keyledger_ledger::grant::{check_permission, check_resource};
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::judge;
use keyledger_ledger::state::{Key, KeyStatus, State};

use super::changes::{check_held_role, parse_common, parse_owner};
use super::{
    AsOf, Common, MAX_USER, OwnerName, Violation, Violations, micros, page_size, parse_as_of_time,
    parse_key_id,
};
use crate::KeyState;
use keyledger_ledger::body::RevocationKind;
use keyledger_ledger::text::check_line;

/// What is asked of keys. People are named here; by whom the ledger knows them is for the caller of this to find out.
#[derive(Clone, Debug, Default)]
pub struct KeyFilter {
    pub owner: Option<OwnerName>,
    pub responsible: Option<String>,
    pub creator: Option<KeyId>,
    pub role: Option<String>,
    pub label: Option<(String, String)>,
    pub status: Option<KeyStatus>,
    pub expires_before: Option<Time>,
    /// Permission and resource.
    pub permission_held: Option<(String, String)>,
    /// When keys were last used stands in no state: whoever asks for it looks it up.
    pub unused_since: Option<Time>,
}

impl KeyFilter {
    fn parse(v: &mut Violations, filter: Option<crate::KeyFilter>) -> KeyFilter {
        let Some(f) = filter else { return KeyFilter::default() };
        let owner = f.owner.and_then(|owner| parse_owner(v, "filter.owner", Some(owner)));
        v.take("filter.responsible", check_line(&f.responsible, MAX_USER));
        let creator = match f.creator_key_id.as_str() {
            "" => None,
            text => parse_key_id(v, "filter.creator_key_id", text),
        };
        if !f.role.is_empty() {
            v.take("filter.role", check_held_role(&f.role));
        }
        let status = match KeyState::try_from(f.state) {
            Ok(KeyState::Unspecified) => None,
            Ok(KeyState::Active) => Some(KeyStatus::Active),
            Ok(KeyState::Suspended) => Some(KeyStatus::Suspended),
            Ok(KeyState::Revoked) => Some(KeyStatus::Revoked),
            Ok(KeyState::Expired) => Some(KeyStatus::Expired),
            Err(_) => {
                v.add("filter.state", "must be one of the named states");
                None
            }
        };
        let expires_before = f.expires_before.map(|t| micros(t.seconds, t.nanos).unwrap_or(-1));
        if expires_before.is_some_and(|t| t < 0) {
            v.add("filter.expires_before", "must be a valid time");
        }
        let permission_held = f.permission_held.map(|p| (p.permission, p.resource));
        if let Some((permission, resource)) = &permission_held {
            v.take("filter.permission_held.permission", check_permission(permission));
            v.take("filter.permission_held.resource", check_resource(resource));
        }
        let unused_since = f.unused_since.map(|t| micros(t.seconds, t.nanos).unwrap_or(-1));
        if unused_since.is_some_and(|t| t < 0) {
            v.add("filter.unused_since", "must be a valid time");
        }
        let text = |text: String| (!text.is_empty()).then_some(text);
        KeyFilter {
            owner,
            responsible: text(f.responsible),
            creator,
            role: text(f.role),
            label: f.label.map(|l| (l.name, l.value)),
            status,
            expires_before: expires_before.map(Time),
            permission_held,
            unused_since: unused_since.map(Time),
        }
    }

    fn is_empty(&self) -> bool {
        self.owner.is_none()
            && self.responsible.is_none()
            && self.creator.is_none()
            && self.role.is_none()
            && self.label.is_none()
            && self.status.is_none()
            && self.expires_before.is_none()
            && self.permission_held.is_none()
            && self.unused_since.is_none()
    }

    /// Whether all holds of a key that needs no more than the state: neither people's references nor last uses.
    pub fn matches(&self, state: &State, key: &Key, now: Time) -> bool {
        let label = |(name, value): &(String, String)| {
            key.labels.iter().any(|l| *l.name == **name && *l.value == **value)
        };
        self.creator.is_none_or(|id| key.creator == Some(id))
            && self.role.as_ref().is_none_or(|role| key.roles.iter().any(|r| **r == **role))
            && self.label.as_ref().is_none_or(label)
            && self.status.is_none_or(|status| key.status(now) == status)
            && self.expires_before.is_none_or(|t| key.expires.is_some_and(|end| end < t))
            && self.permission_held.as_ref().is_none_or(|(permission, resource)| {
                judge::matching_grant(state, key, permission, resource).is_some()
            })
    }

    /// Whether a key that was last used then, or never, is one of those wanted.
    pub fn matches_last_use(&self, key: &Key, last_use: Option<Time>) -> bool {
        self.unused_since.is_none_or(|since| last_use.unwrap_or(key.created) < since)
    }
}

/// What is asked of ListKeys.
pub struct ListKeys {
    pub filter: KeyFilter,
    pub page_size: usize,
    pub page_token: String,
    pub as_of: AsOf,
    /// The filter as it was sent: a page token belongs to it.
    pub query: String,
}

pub fn list_keys(r: crate::ListKeysRequest) -> Result<ListKeys, Vec<Violation>> {
    use crate::list_keys_request::AsOf as Wire;
    let page_size = page_size(r.page_size)?;
    let mut v = Violations::default();
    let query = format!("{:?}", r.filter);
    let filter = KeyFilter::parse(&mut v, r.filter);
    let as_of = match r.as_of {
        None => AsOf::Now,
        Some(Wire::AsOfPosition(position)) => AsOf::Position(position),
        Some(Wire::AsOfTime(time)) => parse_as_of_time(&mut v, time),
    };
    if as_of != AsOf::Now && filter.unused_since.is_some() {
        v.add("filter.unused_since", "can be asked only of now: leave out as_of");
    }
    v.finish(Some(ListKeys { filter, page_size, page_token: r.page_token, as_of, query }))
}

/// What is asked of RevokeKeys.
pub struct RevokeKeys {
    pub filter: KeyFilter,
    pub kind: RevocationKind,
    pub common: Common,
    /// As it was sent: a request id belongs to it.
    pub request: crate::RevokeKeysRequest,
}

pub fn revoke_keys(r: crate::RevokeKeysRequest) -> Result<RevokeKeys, Vec<Violation>> {
    let mut v = Violations::default();
    let request = r.clone();
    let filter = KeyFilter::parse(&mut v, r.filter);
    if filter.is_empty() {
        v.add("filter", "must name at least one thing");
    }
    let kind = RevocationKind::try_from(r.kind).ok().filter(|k| *k != RevocationKind::Unspecified);
    if kind.is_none() {
        v.add("kind", "must be one of the named kinds of revocation");
    }
    let common = parse_common(&mut v, r.reason, &r.request_id, r.validate_only, r.approval_ref);
    v.finish(kind.map(|kind| RevokeKeys { filter, kind, common, request }))
}
