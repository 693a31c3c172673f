//! From the wire: requests become checked values, or a list of exactly what is wrong with them.

use keyledger_ledger::body::{self, RevocationKind};
use keyledger_ledger::command::{Expiry, MAX_LIFE, MAX_OVERLAP};
use keyledger_ledger::grant::{self, Grant, MAX_GRANTS};
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::text::{MAX_TEXT, check_line, check_required_line};

use crate::{create_key_request, owner};

/// Most roles of one key.
pub const MAX_ROLES: usize = 16;
/// Largest page (AIP-158).
pub const MAX_PAGE: usize = 1000;
/// Longest name of a person.
pub const MAX_USER: usize = 256;
/// Longest name of a service, or audience.
pub const MAX_NAME: usize = 128;
/// Longest user agent.
pub const MAX_USER_AGENT: usize = 512;
/// A token is opaque, and at most this long; what is longer is malformed.
pub const MAX_TOKEN: usize = 256;

/// One thing that is wrong with a request: a field path and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub field: String,
    pub description: String,
}

/// Collects what is wrong, so that a caller sees all of it at once.
#[derive(Debug, Default)]
pub struct Violations(Vec<Violation>);

impl Violations {
    pub fn add(&mut self, field: impl Into<String>, description: impl ToString) {
        self.0.push(Violation { field: field.into(), description: description.to_string() });
    }

    /// The value, if nothing was wrong.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Vec<Violation>> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self.0),
        }
    }

    fn take<T, E: ToString>(
        &mut self,
        field: impl Into<String>,
        result: Result<T, E>,
    ) -> Option<T> {
        result.map_err(|e| self.add(field, e)).ok()
    }
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
    pub reason: String,
    pub request_id: Option<[u8; 16]>,
}

pub fn create_key(r: crate::CreateKeyRequest) -> Result<CreateKey, Vec<Violation>> {
    let mut v = Violations::default();
    let owner = parse_owner(&mut v, r.owner);
    v.take("purpose", check_required_line(&r.purpose, MAX_TEXT));
    let grants = parse_grants(&mut v, &r.grants);
    let roles = parse_roles(&mut v, r.roles);
    let expiry = parse_expiry(&mut v, r.expiry);
    let request_id = parse_change(&mut v, &r.reason, &r.request_id);
    let parsed = (|| {
        Some(CreateKey {
            owner: owner?,
            purpose: r.purpose,
            grants,
            roles,
            expiry: expiry?,
            reason: r.reason,
            request_id,
        })
    })();
    v.finish(parsed)
}

pub struct RotateKey {
    pub key_id: KeyId,
    pub overlap_micros: i64,
    pub reason: String,
    pub request_id: Option<[u8; 16]>,
}

pub fn rotate_key(r: crate::RotateKeyRequest) -> Result<RotateKey, Vec<Violation>> {
    let mut v = Violations::default();
    let key_id = parse_key_id(&mut v, "key_id", &r.key_id);
    let overlap = r.overlap.map_or(Some(0), |d| micros(d.seconds, d.nanos));
    if overlap.is_none_or(|o| !(0..=MAX_OVERLAP).contains(&o)) {
        v.add("overlap", "must be 0 to 30 days");
    }
    let request_id = parse_change(&mut v, &r.reason, &r.request_id);
    let parsed = (|| {
        Some(RotateKey { key_id: key_id?, overlap_micros: overlap?, reason: r.reason, request_id })
    })();
    v.finish(parsed)
}

pub struct RevokeKey {
    pub key_id: KeyId,
    pub kind: RevocationKind,
    pub reason: String,
    pub request_id: Option<[u8; 16]>,
}

pub fn revoke_key(r: crate::RevokeKeyRequest) -> Result<RevokeKey, Vec<Violation>> {
    let mut v = Violations::default();
    let key_id = parse_key_id(&mut v, "key_id", &r.key_id);
    let kind = RevocationKind::try_from(r.kind).ok().filter(|k| *k != RevocationKind::Unspecified);
    if kind.is_none() {
        v.add("kind", "must be one of the named kinds of revocation");
    }
    let request_id = parse_change(&mut v, &r.reason, &r.request_id);
    let parsed =
        (|| Some(RevokeKey { key_id: key_id?, kind: kind?, reason: r.reason, request_id }))();
    v.finish(parsed)
}

pub struct CreateRole {
    pub name: String,
    pub grants: Vec<Grant>,
    pub description: String,
    pub reason: String,
    pub request_id: Option<[u8; 16]>,
}

pub fn create_role(r: crate::CreateRoleRequest) -> Result<CreateRole, Vec<Violation>> {
    let mut v = Violations::default();
    v.take("name", check_slug(&r.name));
    let grants = parse_grants(&mut v, &r.grants);
    if r.grants.is_empty() {
        v.add("grants", "must hold at least one grant");
    }
    v.take("description", check_line(&r.description, MAX_TEXT));
    let request_id = parse_change(&mut v, &r.reason, &r.request_id);
    v.finish(Some(CreateRole {
        name: r.name,
        grants,
        description: r.description,
        reason: r.reason,
        request_id,
    }))
}

pub struct OpenLedger {
    pub name: String,
    pub reason: String,
    pub request_id: Option<[u8; 16]>,
}

pub fn open_ledger(r: crate::OpenLedgerRequest) -> Result<OpenLedger, Vec<Violation>> {
    let mut v = Violations::default();
    v.take("name", check_slug(&r.name));
    let request_id = parse_change(&mut v, &r.reason, &r.request_id);
    v.finish(Some(OpenLedger { name: r.name, reason: r.reason, request_id }))
}

pub fn key_id(field: &str, text: &str) -> Result<KeyId, Vec<Violation>> {
    let mut v = Violations::default();
    let id = parse_key_id(&mut v, field, text);
    v.finish(id)
}

/// An id that narrows a list: absent means all.
pub fn optional_key_id(field: &str, text: &str) -> Result<Option<KeyId>, Vec<Violation>> {
    if text.is_empty() { Ok(None) } else { key_id(field, text).map(Some) }
}

/// Checks what VerifyKey is asked, except the token: what is wrong with that is a verdict.
pub fn verify_key(r: &crate::VerifyKeyRequest) -> Result<(), Vec<Violation>> {
    let mut v = Violations::default();
    v.take("permission", grant::check_permission(&r.permission));
    v.take("resource", grant::check_resource(&r.resource));
    v.take("audience", check_line(&r.audience, MAX_NAME));
    v.take("reason", check_line(&r.reason, MAX_TEXT));
    if let Some(client) = &r.client {
        if !client.address.is_empty() && client.address.parse::<std::net::IpAddr>().is_err() {
            v.add("client.address", "must be an IPv4 or IPv6 address without a port");
        }
        v.take("client.user_agent", check_line(&client.user_agent, MAX_USER_AGENT));
    }
    v.finish(Some(()))
}

/// A category of the log, or nothing.
pub fn category(text: &str) -> Result<Option<String>, Vec<Violation>> {
    let mut v = Violations::default();
    if text.is_empty() {
        return Ok(None);
    }
    v.take("category", grant::check_resource(text));
    v.finish(Some(Some(text.to_string())))
}

/// A position of a ledger, which Postgres holds in 63 bits.
pub fn position(field: &str, position: Option<u64>, required: bool) -> Result<(), Vec<Violation>> {
    let mut v = Violations::default();
    match position {
        None if required => v.add(field, "must be given"),
        Some(p) if p > i64::MAX as u64 => v.add(field, "must be less than 2^63"),
        _ => {}
    }
    v.finish(Some(()))
}

/// A view, by its number.
pub fn view(view: i32) -> Result<(), Vec<Violation>> {
    let mut v = Violations::default();
    if crate::EventView::try_from(view).is_err() {
        v.add("view", "must be one of the named views");
    }
    v.finish(Some(()))
}

/// AIP-158: 0 means the default; more than the maximum is cut; less than 0 is an error.
pub fn page_size(size: i32) -> Result<usize, Vec<Violation>> {
    let mut v = Violations::default();
    if size < 0 {
        v.add("page_size", "must not be negative");
    }
    v.finish(Some(if size == 0 { 50 } else { (size.max(0) as usize).min(MAX_PAGE) }))
}

fn parse_owner(v: &mut Violations, owner: Option<crate::Owner>) -> Option<OwnerName> {
    match owner.and_then(|o| o.owner) {
        Some(owner::Owner::User(name)) => v
            .take("owner.user", check_required_line(&name, MAX_USER))
            .map(|()| OwnerName::User(name)),
        Some(owner::Owner::Service(name)) => {
            let good = !name.is_empty()
                && name.len() <= MAX_NAME
                && name
                    .bytes()
                    .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/'));
            if !good {
                v.add(
                    "owner.service",
                    format!("must be 1 to {MAX_NAME} bytes of `a-z 0-9 . _ - /`"),
                );
            }
            Some(OwnerName::Service(name))
        }
        None => {
            v.add("owner", "must name a user or a service");
            None
        }
    }
}

fn parse_grants(v: &mut Violations, grants: &[body::Grant]) -> Vec<Grant> {
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
        v.take(format!("roles[{i}]"), check_slug(role));
        if roles[..i].contains(role) {
            v.add(format!("roles[{i}]"), "is named twice");
        }
    }
    roles
}

fn parse_expiry(v: &mut Violations, expiry: Option<create_key_request::Expiry>) -> Option<Expiry> {
    use create_key_request::Expiry as Wire;
    match expiry {
        None | Some(Wire::NoExpiry(false)) => Some(Expiry::Default),
        Some(Wire::NoExpiry(true)) => Some(Expiry::Never),
        Some(Wire::Ttl(ttl)) => match micros(ttl.seconds, ttl.nanos) {
            Some(m) if (1_000_000..=MAX_LIFE).contains(&m) => Some(Expiry::After(m)),
            _ => {
                v.add("ttl", "must be 1 second to 400 days");
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

/// What every change takes: a reason, and perhaps a request id.
fn parse_change(v: &mut Violations, reason: &str, request_id: &str) -> Option<[u8; 16]> {
    v.take("reason", check_required_line(reason, MAX_TEXT));
    if request_id.is_empty() {
        return None;
    }
    let parsed = KeyId::parse(request_id);
    if parsed.is_none() {
        v.add("request_id", "must be a UUID");
    }
    parsed.map(|id| *id.as_bytes())
}

fn parse_key_id(v: &mut Violations, field: &str, text: &str) -> Option<KeyId> {
    let id = KeyId::parse(text);
    if id.is_none() {
        v.add(field, "must be a UUID");
    }
    id
}

fn check_slug(name: &str) -> Result<(), &'static str> {
    let good = (1..=64).contains(&name.len())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if good { Ok(()) } else { Err("must be 1 to 64 bytes of `a-z 0-9 -`") }
}

/// Microseconds, cut; `None` where they don't fit.
fn micros(seconds: i64, nanos: i32) -> Option<i64> {
    seconds.checked_mul(1_000_000)?.checked_add(i64::from(nanos) / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CreateKeyRequest, RotateKeyRequest};

    fn fields(result: Result<impl Sized, Vec<Violation>>) -> Vec<String> {
        result.err().unwrap_or_default().into_iter().map(|v| v.field).collect()
    }

    #[test]
    fn everything_that_is_wrong_is_named_at_once() {
        let request = CreateKeyRequest {
            purpose: "  ".into(),
            grants: vec![body::Grant {
                permissions: vec!["A".into()],
                resource: "x".into(),
                give_only: false,
            }],
            roles: vec!["ok".into(), "Not".into(), "ok".into()],
            expiry: Some(create_key_request::Expiry::Ttl(prost_types::Duration {
                seconds: 0,
                nanos: 0,
            })),
            request_id: "7".into(),
            ..Default::default()
        };
        let expected = [
            "owner",
            "purpose",
            "grants[0]",
            "roles[1]",
            "roles[2]",
            "ttl",
            "reason",
            "request_id",
        ];
        assert_eq!(fields(create_key(request)), expected);
    }

    #[test]
    fn durations_beyond_all_bounds_are_refused() {
        for (seconds, nanos) in
            [(i64::MAX, i32::MAX), (i64::MIN, 0), (-1, 0), (400 * 86_400, 1_000_000)]
        {
            let overlap = Some(prost_types::Duration { seconds, nanos });
            let request = RotateKeyRequest { overlap, reason: "x".into(), ..Default::default() };
            assert_eq!(fields(rotate_key(request)), ["key_id", "overlap"]);
        }
    }

    #[test]
    fn page_sizes_follow_aip_158() {
        assert_eq!(page_size(0), Ok(50));
        assert_eq!(page_size(7), Ok(7));
        assert_eq!(page_size(5000), Ok(1000));
        assert_eq!(fields(page_size(-1)), ["page_size"]);
    }
}
