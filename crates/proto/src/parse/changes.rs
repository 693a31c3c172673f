//! Requests that change something.

use keyledger_ledger::body::{self, RevocationKind};
use keyledger_ledger::command::Expiry;
use keyledger_ledger::grant::{self, Grant, MAX_GRANTS};
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::policy::{LONGEST_LIFE, LONGEST_OVERLAP, Rotation};
use keyledger_ledger::restrict::{RestrictionChange, Restrictions};
use keyledger_ledger::state::Label;
use keyledger_ledger::text::{MAX_TEXT, check_approval_ref, check_line, check_required_line};

use super::{
    MAX_LABELS, MAX_NAME, MAX_ROLES, MAX_USER, Violation, Violations, check_slug, micros,
    parse_key_id,
};
use crate::{create_key_request, owner};

/// What every change takes.
#[derive(Clone, Debug)]
pub struct Common {
    /// Why.
    pub reason: String,
    /// Makes a retry safe (AIP-155).
    pub request_id: Option<[u8; 16]>,
    /// Only says what would become of it (AIP-163).
    pub validate_only: bool,
    /// A ticket or change id; empty for none.
    pub approval_ref: String,
}

/// To whom a key belongs, by the name that the caller used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerName {
    User(String),
    Service(String),
}

#[derive(Clone, Debug)]
pub struct CreateKey {
    pub owner: OwnerName,
    pub purpose: String,
    pub grants: Vec<Grant>,
    pub roles: Vec<String>,
    pub expiry: Expiry,
    pub restrictions: Restrictions,
    pub labels: Vec<Label>,
    /// The person responsible for a service's key.
    pub responsible: Option<String>,
    pub rotation: Option<Rotation>,
    pub common: Common,
}

pub fn create_key(r: crate::CreateKeyRequest) -> Result<CreateKey, Vec<Violation>> {
    let mut v = Violations::default();
    let owner = parse_owner(&mut v, "owner", r.owner);
    v.take("purpose", check_required_line(&r.purpose, MAX_TEXT));
    let grants = parse_grants(&mut v, &r.grants);
    let roles = parse_roles(&mut v, r.roles);
    let expiry = parse_expiry(&mut v, r.expiry);
    let restrictions = parse_restrictions(&mut v, r.restrictions.as_ref());
    let labels = parse_labels(&mut v, &r.labels);
    let responsible = parse_responsible(&mut v, r.responsible);
    if responsible.is_some() && matches!(owner, Some(OwnerName::User(_))) {
        v.add("responsible", "must be empty: a person's key is that person's responsibility");
    }
    let rotation = parse_rotation(&mut v, r.rotation);
    let common = parse_common(&mut v, r.reason, &r.request_id, r.validate_only, r.approval_ref);
    let parsed = (|| {
        Some(CreateKey {
            owner: owner?,
            purpose: r.purpose,
            grants,
            roles,
            expiry: expiry?,
            restrictions: restrictions?,
            labels,
            responsible,
            rotation,
            common,
        })
    })();
    v.finish(parsed)
}

pub struct RotateKey {
    pub key_id: KeyId,
    pub overlap_micros: i64,
    pub until_first_use: bool,
    pub common: Common,
}

pub fn rotate_key(r: crate::RotateKeyRequest) -> Result<RotateKey, Vec<Violation>> {
    let mut v = Violations::default();
    let key_id = parse_key_id(&mut v, "key_id", &r.key_id);
    let overlap = r.overlap.map_or(Some(0), |d| micros(d.seconds, d.nanos));
    if overlap.is_none_or(|o| !(0..=LONGEST_OVERLAP).contains(&o)) {
        v.add("overlap", "must be 0 to 90 days, and within the ledger's policy");
    }
    if r.until_first_use && overlap == Some(0) {
        v.add("overlap", "must be more than 0 with until_first_use");
    }
    let common = parse_common(&mut v, r.reason, &r.request_id, r.validate_only, r.approval_ref);
    let until_first_use = r.until_first_use;
    let parsed = (|| {
        Some(RotateKey { key_id: key_id?, overlap_micros: overlap?, until_first_use, common })
    })();
    v.finish(parsed)
}

pub struct RevokeKey {
    pub key_id: KeyId,
    pub kind: RevocationKind,
    pub common: Common,
}

pub fn revoke_key(r: crate::RevokeKeyRequest) -> Result<RevokeKey, Vec<Violation>> {
    let mut v = Violations::default();
    let key_id = parse_key_id(&mut v, "key_id", &r.key_id);
    let kind = RevocationKind::try_from(r.kind).ok().filter(|k| *k != RevocationKind::Unspecified);
    if kind.is_none() {
        v.add("kind", "must be one of the named kinds of revocation");
    }
    let common = parse_common(&mut v, r.reason, &r.request_id, r.validate_only, r.approval_ref);
    let parsed = (|| Some(RevokeKey { key_id: key_id?, kind: kind?, common }))();
    v.finish(parsed)
}

/// What is to be changed of a key; `None` stays as it is.
pub struct UpdateKey {
    pub key_id: KeyId,
    pub etag: String,
    /// The fields that were named, in the order of the request's message.
    pub changed: Vec<String>,
    pub purpose: Option<String>,
    pub grants: Option<Vec<Grant>>,
    pub roles: Option<Vec<String>>,
    pub expiry: Option<Expiry>,
    pub restrictions: Option<RestrictionChange>,
    pub labels: Option<Vec<Label>>,
    /// `Some(None)`: nobody is responsible any more.
    pub responsible: Option<Option<String>>,
    /// `Some(None)`: its secrets may grow as old as one likes.
    pub rotation: Option<Option<Rotation>>,
    pub common: Common,
}

/// What can be changed of a key, in the order of the message.
const KEY_FIELDS: [&str; 12] = [
    "purpose",
    "grants",
    "roles",
    "expiry",
    "restrictions",
    "restrictions.networks",
    "restrictions.audiences",
    "restrictions.max_uses",
    "restrictions.rate",
    "labels",
    "responsible",
    "rotation",
];

pub fn update_key(r: crate::UpdateKeyRequest) -> Result<UpdateKey, Vec<Violation>> {
    use crate::{create_key_request::Expiry as Created, update_key_request::Expiry as Updated};
    let mut v = Violations::default();
    let key_id = parse_key_id(&mut v, "key_id", &r.key_id);
    let changed = parse_mask(&mut v, r.update_mask.as_ref(), &KEY_FIELDS);
    let has = |field: &str| changed.iter().any(|c| c == field);
    let purpose = has("purpose").then(|| {
        v.take("purpose", check_required_line(&r.purpose, MAX_TEXT));
        r.purpose
    });
    let grants = has("grants").then(|| parse_grants(&mut v, &r.grants));
    let roles = has("roles").then(|| parse_roles(&mut v, r.roles));
    let expiry = has("expiry").then(|| {
        let asked = match r.expiry {
            Some(Updated::Ttl(ttl)) => Some(Created::Ttl(ttl)),
            Some(Updated::ExpireTime(time)) => Some(Created::ExpireTime(time)),
            Some(Updated::NoExpiry(never)) => Some(Created::NoExpiry(never)),
            None => None,
        };
        if matches!(asked, None | Some(Created::NoExpiry(false))) {
            v.add("expiry", "must be one of ttl, expire_time and no_expiry");
        }
        parse_expiry(&mut v, asked)
    });
    let part = |field: &str| has("restrictions") || has(&format!("restrictions.{field}"));
    let [networks, audiences, max_uses, rate] =
        ["networks", "audiences", "max_uses", "rate"].map(part);
    let restrictions = (networks || audiences || max_uses || rate)
        .then(|| parse_restrictions(&mut v, r.restrictions.as_ref()))
        .flatten()
        .map(|to| RestrictionChange { to, networks, audiences, max_uses, rate });
    let labels = has("labels").then(|| parse_labels(&mut v, &r.labels));
    let responsible = has("responsible").then(|| parse_responsible(&mut v, r.responsible));
    let rotation = has("rotation").then(|| parse_rotation(&mut v, r.rotation));
    let common = parse_common(&mut v, r.reason, &r.request_id, r.validate_only, r.approval_ref);
    let parsed = (|| {
        Some(UpdateKey {
            key_id: key_id?,
            etag: r.etag,
            changed: changed.clone(),
            purpose,
            grants,
            roles,
            expiry: expiry.flatten(),
            restrictions,
            labels,
            responsible,
            rotation,
            common,
        })
    })();
    v.finish(parsed)
}

/// A change that needs nothing but the key that it is about.
pub struct KeyChange {
    pub key_id: KeyId,
    pub common: Common,
}

pub fn suspend_key(r: crate::SuspendKeyRequest) -> Result<KeyChange, Vec<Violation>> {
    key_change(&r.key_id, r.reason, &r.request_id, r.validate_only, r.approval_ref)
}

pub fn resume_key(r: crate::ResumeKeyRequest) -> Result<KeyChange, Vec<Violation>> {
    key_change(&r.key_id, r.reason, &r.request_id, r.validate_only, r.approval_ref)
}

fn key_change(
    key_id: &str,
    reason: String,
    request_id: &str,
    validate_only: bool,
    approval_ref: String,
) -> Result<KeyChange, Vec<Violation>> {
    let mut v = Violations::default();
    let key_id = parse_key_id(&mut v, "key_id", key_id);
    let common = parse_common(&mut v, reason, request_id, validate_only, approval_ref);
    v.finish(key_id.map(|key_id| KeyChange { key_id, common }))
}

pub(super) fn parse_owner(
    v: &mut Violations,
    field: &str,
    owner: Option<crate::Owner>,
) -> Option<OwnerName> {
    match owner.and_then(|o| o.owner) {
        Some(owner::Owner::User(name)) => v
            .take(format!("{field}.user"), check_required_line(&name, MAX_USER))
            .map(|()| OwnerName::User(name)),
        Some(owner::Owner::Service(name)) => {
            if !is_service_name(&name, MAX_NAME) {
                v.add(
                    format!("{field}.service"),
                    format!("must be 1 to {MAX_NAME} bytes of `a-z 0-9 . _ - /`"),
                );
            }
            Some(OwnerName::Service(name))
        }
        None => {
            v.add(field, "must name a user or a service");
            None
        }
    }
}

pub(super) fn parse_grants(v: &mut Violations, grants: &[body::Grant]) -> Vec<Grant> {
    if grants.len() > MAX_GRANTS {
        v.add("grants", format!("must hold at most {MAX_GRANTS} grants"));
        return vec![];
    }
    let parse = |(i, g): (usize, &body::Grant)| v.take(format!("grants[{i}]"), Grant::from_body(g));
    grants.iter().enumerate().filter_map(parse).collect()
}

fn parse_roles(v: &mut Violations, roles: Vec<String>) -> Vec<String> {
    if roles.len() > MAX_ROLES {
        v.add("roles", format!("must hold at most {MAX_ROLES} roles"));
        return vec![];
    }
    for (i, role) in roles.iter().enumerate() {
        v.take(format!("roles[{i}]"), check_held_role(role));
        if roles[..i].contains(role) {
            v.add(format!("roles[{i}]"), "is named twice");
        }
    }
    roles
}

pub(super) fn parse_expiry(
    v: &mut Violations,
    expiry: Option<create_key_request::Expiry>,
) -> Option<Expiry> {
    use create_key_request::Expiry as Wire;
    match expiry {
        None | Some(Wire::NoExpiry(false)) => Some(Expiry::Default),
        Some(Wire::NoExpiry(true)) => Some(Expiry::Never),
        Some(Wire::Ttl(ttl)) => match micros(ttl.seconds, ttl.nanos) {
            Some(m) if (1_000_000..=LONGEST_LIFE).contains(&m) => Some(Expiry::After(m)),
            _ => {
                v.add("ttl", "must be 1 second to 3,660 days, and within the ledger's policy");
                None
            }
        },
        // Whether it lies in the future is for the ledger's clock to say.
        Some(Wire::ExpireTime(time)) => match micros(time.seconds, time.nanos) {
            Some(m) if m > 0 => Some(Expiry::At(Time(m))),
            _ => {
                v.add("expire_time", "must be a valid time");
                None
            }
        },
    }
}

pub(super) fn parse_common(
    v: &mut Violations,
    reason: String,
    request_id: &str,
    validate_only: bool,
    approval_ref: String,
) -> Common {
    v.take("reason", check_required_line(&reason, MAX_TEXT));
    let parsed = KeyId::parse(request_id);
    if parsed.is_none() && !request_id.is_empty() {
        v.add("request_id", "must be a UUID");
    }
    v.take("approval_ref", check_approval_ref(&approval_ref));
    Common { reason, request_id: parsed.map(|id| *id.as_bytes()), validate_only, approval_ref }
}

/// The fields that a mask names, in the order of `known`: at least one, each of them one of `known` (AIP-134).
pub(super) fn parse_mask(
    v: &mut Violations,
    mask: Option<&prost_types::FieldMask>,
    known: &[&str],
) -> Vec<String> {
    let paths = mask.map_or(&[][..], |m| &m.paths);
    if paths.is_empty() || !paths.iter().all(|p| known.contains(&p.as_str())) {
        v.add("update_mask", format!("must name at least one of: {}", known.join(", ")));
    }
    known.iter().filter(|k| paths.iter().any(|p| p == *k)).map(|k| k.to_string()).collect()
}

fn parse_restrictions(
    v: &mut Violations,
    restrictions: Option<&body::Restrictions>,
) -> Option<Restrictions> {
    let one = |networks: &[String], audiences: &[String]| {
        let (networks, audiences) = (networks.to_vec(), audiences.to_vec());
        let restrictions = body::Restrictions { networks, audiences, ..Default::default() };
        Restrictions::from_body(Some(&restrictions))
    };
    // One by one first, so that each is named by its path.
    for (i, network) in restrictions.iter().flat_map(|r| &r.networks).enumerate() {
        v.take(format!("restrictions.networks[{i}]"), one(std::slice::from_ref(network), &[]));
    }
    for (i, audience) in restrictions.iter().flat_map(|r| &r.audiences).enumerate() {
        v.take(format!("restrictions.audiences[{i}]"), one(&[], std::slice::from_ref(audience)));
    }
    let rate = restrictions.and_then(|r| r.rate);
    let rate = body::Restrictions { rate, ..Default::default() };
    v.take("restrictions.rate", Restrictions::from_body(Some(&rate)));
    if !v.0.iter().all(|violation| !violation.field.starts_with("restrictions.")) {
        return None;
    }
    v.take("restrictions", Restrictions::from_body(restrictions))
}

/// How old a secret may grow; absent for as old as one likes.
pub(super) fn parse_rotation(
    v: &mut Violations,
    rotation: Option<crate::RotationPolicy>,
) -> Option<Rotation> {
    let rotation = rotation?;
    let micros_of = |d: Option<prost_types::Duration>| d.map(|d| micros(d.seconds, d.nanos));
    let body = body::Rotation {
        max_age_us: micros_of(rotation.max_age).flatten().unwrap_or(-1),
        suspend_after_us: micros_of(rotation.suspend_after).map(|m| m.unwrap_or(-1)),
    };
    Rotation::from_body(&body).map_err(|e| v.add(e.field, e.problem)).ok()
}

/// In the order of their names.
fn parse_labels(v: &mut Violations, labels: &[body::Label]) -> Vec<Label> {
    if labels.len() > MAX_LABELS {
        v.add("labels", format!("must hold at most {MAX_LABELS} labels"));
        return vec![];
    }
    for (i, label) in labels.iter().enumerate() {
        if !is_service_name(&label.name, 64) {
            v.add(format!("labels[{i}].name"), "must be 1 to 64 bytes of `a-z 0-9 . _ - /`");
        }
        if labels[..i].iter().any(|l| l.name == label.name) {
            v.add(format!("labels[{i}].name"), "is named twice");
        }
        v.take(format!("labels[{i}].value"), check_line(&label.value, MAX_NAME));
    }
    let mut labels: Vec<Label> = labels.iter().map(Label::from_body).collect();
    labels.sort_by(|a, b| a.name.cmp(&b.name));
    labels
}

fn parse_responsible(v: &mut Violations, name: String) -> Option<String> {
    if name.is_empty() {
        return None;
    }
    v.take("responsible", check_required_line(&name, MAX_USER));
    Some(name)
}

fn is_service_name(name: &str, longest: usize) -> bool {
    let good = |b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/');
    (1..=longest).contains(&name.len()) && name.bytes().all(good)
}

/// A role as a key holds it: a name, perhaps with a parameter.
pub(super) fn check_held_role(role: &str) -> Result<(), &'static str> {
    let (name, parameter) = match role.strip_suffix(')').and_then(|r| r.split_once('(')) {
        Some((name, parameter)) => (name, Some(parameter)),
        None => (role, None),
    };
    match parameter {
        Some(p) if grant::check_resource(p).is_err() => Err("must have a path in its brackets"),
        _ => check_slug(name),
    }
}
