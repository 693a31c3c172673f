//! Requests that change a role, or what holds for a whole ledger.

use keyledger_ledger::body::RuleSetting;
use keyledger_ledger::grant::Grant;
use keyledger_ledger::policy::{LONGEST_STALENESS, Limits, Policy, Rotation};
use keyledger_ledger::text::{MAX_TEXT, check_line};

use super::changes::{parse_common, parse_grants, parse_mask, parse_rotation};
use super::{Common, Violation, Violations, check_slug, micros};

pub struct CreateRole {
    pub name: String,
    pub grants: Vec<Grant>,
    pub description: String,
    pub rotation: Option<Rotation>,
    pub max_staleness: i64,
    pub common: Common,
}

pub fn create_role(r: crate::CreateRoleRequest) -> Result<CreateRole, Vec<Violation>> {
    let mut v = Violations::default();
    v.take("name", check_slug(&r.name));
    let grants = parse_grants(&mut v, &r.grants);
    if r.grants.is_empty() {
        v.add("grants", "must hold at least one grant");
    }
    v.take("description", check_line(&r.description, MAX_TEXT));
    let rotation = parse_rotation(&mut v, r.rotation);
    let max_staleness = parse_staleness(&mut v, r.max_staleness);
    let common = parse_common(&mut v, r.reason, &r.request_id, r.validate_only, r.approval_ref);
    let (name, description) = (r.name, r.description);
    v.finish(Some(CreateRole { name, grants, description, rotation, max_staleness, common }))
}

pub struct OpenLedger {
    pub name: String,
    pub common: Common,
}

pub fn open_ledger(r: crate::OpenLedgerRequest) -> Result<OpenLedger, Vec<Violation>> {
    let mut v = Violations::default();
    v.take("name", check_slug(&r.name));
    let common = parse_common(&mut v, r.reason, &r.request_id, r.validate_only, r.approval_ref);
    v.finish(Some(OpenLedger { name: r.name, common }))
}

/// What is to be changed of a role; `None` stays as it is.
pub struct UpdateRole {
    pub name: String,
    pub etag: String,
    pub grants: Option<Vec<Grant>>,
    pub description: Option<String>,
    /// `Some(None)`: the secrets of its holders may grow as old as one likes.
    pub rotation: Option<Option<Rotation>>,
    pub max_staleness: Option<i64>,
    pub common: Common,
}

pub fn update_role(r: crate::UpdateRoleRequest) -> Result<UpdateRole, Vec<Violation>> {
    let mut v = Violations::default();
    v.take("name", check_slug(&r.name));
    let changed = parse_mask(
        &mut v,
        r.update_mask.as_ref(),
        &["grants", "description", "rotation", "max_staleness"],
    );
    let has = |field: &str| changed.iter().any(|c| c == field);
    let grants = has("grants").then(|| {
        if r.grants.is_empty() {
            v.add("grants", "must hold at least one grant");
        }
        parse_grants(&mut v, &r.grants)
    });
    let description = has("description").then(|| {
        v.take("description", check_line(&r.description, MAX_TEXT));
        r.description
    });
    let rotation = has("rotation").then(|| parse_rotation(&mut v, r.rotation));
    let max_staleness = has("max_staleness").then(|| parse_staleness(&mut v, r.max_staleness));
    let common = parse_common(&mut v, r.reason, &r.request_id, r.validate_only, r.approval_ref);
    let (name, etag) = (r.name, r.etag);
    let parsed = UpdateRole { name, etag, grants, description, rotation, max_staleness, common };
    v.finish(Some(parsed))
}

pub struct RetireRole {
    pub name: String,
    pub etag: String,
    pub common: Common,
}

pub fn retire_role(r: crate::RetireRoleRequest) -> Result<RetireRole, Vec<Violation>> {
    let mut v = Violations::default();
    v.take("name", check_slug(&r.name));
    let common = parse_common(&mut v, r.reason, &r.request_id, r.validate_only, r.approval_ref);
    v.finish(Some(RetireRole { name: r.name, etag: r.etag, common }))
}

/// The name of a ledger that is read.
pub fn get_ledger(r: crate::GetLedgerRequest) -> Result<String, Vec<Violation>> {
    let mut v = Violations::default();
    v.take("name", check_slug(&r.name));
    v.finish(Some(r.name))
}

/// What is to be changed of the policy of a ledger.
pub struct UpdatePolicy {
    pub name: String,
    pub etag: String,
    /// The fields that were named, in the order of the request's message.
    pub changed: Vec<String>,
    /// What isn't named in `changed` means nothing.
    pub to: Policy,
    pub common: Common,
}

/// What can be changed of a policy, in the order of the message.
const POLICY_FIELDS: [&str; 15] = [
    "default_life",
    "max_life",
    "max_overlap",
    "notice_days",
    "approval_permissions",
    "max_staleness",
    "rules",
    "idle_suspend_after",
    "idle_revoke_after",
    "digest_days",
    "limits",
    "limits.max_keys",
    "limits.max_roles",
    "limits.max_streams",
    "limits.max_bytes_per_second",
];

pub fn update_policy(r: crate::UpdateLedgerPolicyRequest) -> Result<UpdatePolicy, Vec<Violation>> {
    let mut v = Violations::default();
    v.take("name", check_slug(&r.name));
    let changed = parse_mask(&mut v, r.update_mask.as_ref(), &POLICY_FIELDS);
    let has = |field: &str| changed.iter().any(|c| c == field);
    let (policy, limits) = (r.policy.unwrap_or_default(), r.limits.unwrap_or_default());
    let mut life = |field: &str, life: Option<prost_types::Duration>| {
        let micros = life.map_or(Some(0), |d| micros(d.seconds, d.nanos));
        if micros.is_none() && has(field) {
            v.add(field, "must be a duration that fits");
        }
        micros.unwrap_or_default()
    };
    // Whether the values fit each other is decided against the policy as it is.
    let to = Policy {
        default_life: life("default_life", policy.default_life),
        max_life: life("max_life", policy.max_life),
        max_overlap: life("max_overlap", policy.max_overlap),
        max_staleness: life("max_staleness", policy.max_staleness),
        rules: in_order(policy.rules),
        idle_suspend_after: life("idle_suspend_after", policy.idle_suspend_after),
        idle_revoke_after: life("idle_revoke_after", policy.idle_revoke_after),
        digest_days: policy.digest_days,
        notice_days: policy.notice_days,
        approvals: policy.approval_permissions,
        limits: Limits {
            keys: limits.max_keys,
            roles: limits.max_roles,
            streams: limits.max_streams,
            bytes_per_second: limits.max_bytes_per_second,
        },
    };
    let common = parse_common(&mut v, r.reason, &r.request_id, r.validate_only, r.approval_ref);
    v.finish(Some(UpdatePolicy { name: r.name, etag: r.etag, changed, to, common }))
}

/// What is signed has an order.
fn in_order(mut rules: Vec<RuleSetting>) -> Vec<RuleSetting> {
    rules.sort_by_key(|setting| setting.rule);
    rules
}

/// How old an answer may be; absent for none.
fn parse_staleness(v: &mut Violations, staleness: Option<prost_types::Duration>) -> i64 {
    let micros = staleness.map_or(Some(0), |d| micros(d.seconds, d.nanos));
    let good = micros.filter(|m| (0..=LONGEST_STALENESS).contains(m));
    if good.is_none() {
        v.add("max_staleness", "must be 0 to 60 seconds");
    }
    good.unwrap_or_default()
}
