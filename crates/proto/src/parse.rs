//! From the wire: requests become checked values, or a list of exactly what is wrong with them.

mod anomalies;
mod changes;
mod documents;
mod event_counts;
mod event_filter;
pub mod events;
mod export;
mod filters;
mod import;
mod ledgers;
mod permissions;
mod reports;
mod reviews;
mod streams;
mod traces;
mod usage;

use std::net::IpAddr;

use keyledger_ledger::grant::{self};
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::imported::{Foreign, MAX_TOKEN};
use keyledger_ledger::judge::Credential;
use keyledger_ledger::policy::LONGEST_STALENESS;
use keyledger_ledger::text::{MAX_TEXT, check_line, check_required_line};

pub use anomalies::{
    AcknowledgeAnomaly, AnomalyFilter, ListAnomalies, acknowledge_anomaly, list_anomalies,
    watch_anomalies,
};

pub use changes::{
    Common, CreateKey, KeyChange, OwnerName, RevokeKey, RotateKey, UpdateKey, create_key,
    resume_key, revoke_key, rotate_key, suspend_key, update_key,
};

pub use ledgers::{
    CreateRole, OpenLedger, RetireRole, UpdatePolicy, UpdateRole, create_role, get_ledger,
    open_ledger, retire_role, update_policy, update_role,
};

pub use import::{ImportKeys, KeyToImport, import_keys};

pub use documents::{DescribeLedger, describe_key, describe_ledger};
pub use event_counts::{CountEvents, Group, count_events};
pub use event_filter::{EventFilter, ListEvents, event_filter, list_events, outcomes, severities};
pub use events::{
    ActorName, CheckedEvent, CheckedEvents, RecordedEvent, RegisterProducerKeys, Signed, event,
    record_events, register_producer_keys,
};
pub use export::{ExportEvents, export_events};
pub use filters::{KeyFilter, ListKeys, RevokeKeys, list_keys, revoke_keys};

pub use permissions::{RegisterPermissions, register_permissions};
pub use reports::{CheckedReport, CheckedUse, report_uses};
pub use reviews::{
    GetAccessReview, ListFindings, SetOwnerStatus, SignAccessReview, get_access_review,
    list_findings, set_owner_status, sign_access_review,
};
pub use streams::{Begin, StreamEvents, stream_events};
pub use traces::{GetKey, GetTrace, TRACE_ID_FORM, get_key, get_trace, trace_id};
pub use usage::{KeyUsage, LedgerUsage, Period, get_key_usage, get_usage};

/// Most questions of one call.
pub const MAX_ITEMS: usize = 100;
/// Most labels of one key.
pub const MAX_LABELS: usize = 32;
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

/// A moment of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    Now,
    /// Just before this position.
    Position(u64),
    Time(Time),
}

fn parse_as_of_time(v: &mut Violations, time: prost_types::Timestamp) -> AsOf {
    match micros(time.seconds, time.nanos) {
        Some(micros) => AsOf::Time(Time(micros)),
        None => {
            v.add("as_of_time", "must be a valid time");
            AsOf::Now
        }
    }
}

/// A token in a field of a request: one of ours, or perhaps that of an imported key, still to be looked up. What is wrong with it is a verdict, not a violation.
pub fn credential(token: &str) -> Credential {
    match token.len() {
        0 => Credential::Missing,
        n if n > MAX_TOKEN => Credential::Malformed,
        _ => match Foreign::parse(token) {
            Some(foreign) => Credential::Foreign(Box::new(foreign)),
            None => Credential::from_text(token),
        },
    }
}

/// The token is looked at elsewhere: what is wrong with it is told to nobody.
pub fn revoke_by_secret(
    r: crate::RevokeBySecretRequest,
) -> Result<crate::RevokeBySecretRequest, Vec<Violation>> {
    let mut v = Violations::default();
    v.take("reason", check_required_line(&r.reason, MAX_TEXT));
    v.finish(Some(r))
}

/// What is asked of TestPermissions.
pub struct TestPermissions {
    pub key_id: KeyId,
    /// Permission and resource.
    pub permissions: Vec<(String, String)>,
    pub address: Option<IpAddr>,
    pub audience: String,
}

pub fn test_permissions(
    r: crate::TestPermissionsRequest,
) -> Result<TestPermissions, Vec<Violation>> {
    let mut v = Violations::default();
    let key_id = parse_key_id(&mut v, "key_id", &r.key_id);
    if !(1..=MAX_ITEMS).contains(&r.permissions.len()) {
        v.add("permissions", format!("must hold 1 to {MAX_ITEMS} items"));
    }
    for (i, asked) in r.permissions.iter().enumerate().take(MAX_ITEMS) {
        let at = |field: &str| format!("permissions[{i}].{field}");
        v.take(at("permission"), grant::check_permission(&asked.permission));
        v.take(at("resource"), grant::check_resource(&asked.resource));
    }
    let address = parse_address(&mut v, "address", &r.address);
    v.take("audience", check_line(&r.audience, MAX_NAME));
    let permissions = r.permissions.into_iter().map(|p| (p.permission, p.resource)).collect();
    let audience = r.audience;
    v.finish(key_id.map(|key_id| TestPermissions { key_id, permissions, address, audience }))
}

/// What is asked of WhoHasAccess.
pub struct WhoHasAccess {
    pub permission: String,
    pub resource: String,
    pub as_of: AsOf,
    pub page_size: usize,
    pub page_token: String,
}

pub fn who_has_access(r: crate::WhoHasAccessRequest) -> Result<WhoHasAccess, Vec<Violation>> {
    use crate::who_has_access_request::AsOf as Wire;
    let page_size = page_size(r.page_size)?;
    let mut v = Violations::default();
    v.take("permission", grant::check_permission(&r.permission));
    v.take("resource", grant::check_resource(&r.resource));
    let as_of = match r.as_of {
        None => AsOf::Now,
        Some(Wire::AsOfPosition(position)) => AsOf::Position(position),
        Some(Wire::AsOfTime(time)) => parse_as_of_time(&mut v, time),
    };
    let (permission, resource, page_token) = (r.permission, r.resource, r.page_token);
    v.finish(Some(WhoHasAccess { permission, resource, as_of, page_size, page_token }))
}

pub fn batch_verify_keys(
    r: crate::BatchVerifyKeysRequest,
) -> Result<Vec<crate::VerifyKeyRequest>, Vec<Violation>> {
    let mut v = Violations::default();
    if !(1..=MAX_ITEMS).contains(&r.requests.len()) {
        v.add("requests", format!("must hold 1 to {MAX_ITEMS} items"));
    }
    for (i, request) in r.requests.iter().enumerate().take(MAX_ITEMS) {
        for violation in verify_key(request).err().unwrap_or_default() {
            v.add(format!("requests[{i}].{}", violation.field), violation.description);
        }
    }
    v.finish(Some(r.requests))
}

/// The name of a role that is read: with its parameter, or without.
pub fn get_role(r: crate::GetRoleRequest) -> Result<(String, AsOf), Vec<Violation>> {
    use crate::get_role_request::AsOf as Wire;
    let mut v = Violations::default();
    v.take("name", check_slug(&r.name));
    let as_of = match r.as_of {
        None => AsOf::Now,
        Some(Wire::AsOfPosition(position)) => AsOf::Position(position),
        Some(Wire::AsOfTime(time)) => parse_as_of_time(&mut v, time),
    };
    v.finish(Some((r.name, as_of)))
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
    if !(0..=LONGEST_STALENESS).contains(&max_staleness(r)) {
        v.add("max_staleness", "must be 0 to 60 seconds");
    }
    if !(0..=LONGEST_STALENESS).contains(&keep(r)) {
        v.add("keep", "must be 0 to 60 seconds");
    }
    if keep(r) != 0 && max_staleness(r) != 0 {
        v.add(
            "keep",
            "must not be given together with max_staleness: only a strict answer is kept",
        );
    }
    if let Some(client) = &r.client {
        parse_address(&mut v, "client.address", &client.address);
        v.take("client.user_agent", check_line(&client.user_agent, MAX_USER_AGENT));
    }
    v.finish(Some(()))
}

/// How old an answer may be in microseconds; 0 for strictly.
pub fn max_staleness(r: &crate::VerifyKeyRequest) -> i64 {
    r.max_staleness.map_or(0, |d| micros(d.seconds, d.nanos).unwrap_or(-1))
}

/// For how long the caller wants to keep the answer, in microseconds; 0 for not at all.
pub fn keep(r: &crate::VerifyKeyRequest) -> i64 {
    r.keep.map_or(0, |d| micros(d.seconds, d.nanos).unwrap_or(-1))
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

fn parse_address(v: &mut Violations, field: &str, text: &str) -> Option<IpAddr> {
    let address = text.parse().ok();
    if address.is_none() && !text.is_empty() {
        v.add(field, "must be an IPv4 or IPv6 address without a port");
    }
    address
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
    use keyledger_ledger::body;

    use crate::{CreateKeyRequest, RotateKeyRequest, create_key_request};

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
            [(i64::MAX, i32::MAX), (i64::MIN, 0), (-1, 0), (90 * 86_400, 1_000_000)]
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
