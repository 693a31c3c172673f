//! Ledgers: opened, promised, and what holds in them.

use crate::body::{self, Kind};
use crate::bounded::LONGEST_SERVING;
use crate::command::{OpenLedger, Refusal, RegisterLedger, UpdatePolicy};
use crate::id::{LedgerNumber, Time};
use crate::policy::{Limits, Policy};
use crate::state::{Key, State};

pub(super) fn open_ledger(c: &OpenLedger) -> Kind {
    Kind::LedgerOpened(body::LedgerOpened {
        name: c.name.clone(),
        number: c.number.0,
        origin: c.origin.clone(),
        entry_public_key: c.entry_public_key.to_vec(),
        checkpoint_public_key: c.checkpoint_public_key.to_vec(),
    })
}

pub(super) fn register_ledger(state: &State, c: &RegisterLedger) -> Result<Kind, Refusal> {
    let system = state.ledger.as_ref().is_some_and(|l| l.number == LedgerNumber::SYSTEM);
    if !system {
        return Err(Refusal::SystemLedgerOnly);
    }
    let own_name = state.ledger.as_ref().is_some_and(|l| l.name == c.name);
    if own_name || state.registered.values().any(|l| l.name == c.name) {
        return Err(Refusal::LedgerExists);
    }
    let number = state.registered.keys().next_back().map_or(1, |last| last.0 + 1);
    Ok(Kind::LedgerRegistered(body::LedgerRegistered {
        ledger_id: c.id.to_vec(),
        number,
        name: c.name.clone(),
        origin: c.origin.clone(),
    }))
}

/// What isn't named stays as it is. Limits keep a ledger from taking a replica for itself: its own keys can't set them.
pub(super) fn update_policy(
    state: &State,
    caller: Option<&Key>,
    c: &UpdatePolicy,
) -> Result<Kind, Refusal> {
    super::check_etag(&c.etag, &state.policy.etag())?;
    let has = |field: &str| c.changed.iter().any(|changed| changed == field);
    let (old, to) = (&state.policy.policy, &c.to);
    let own = state.ledger.as_ref().is_some_and(|l| l.number != LedgerNumber::SYSTEM);
    let names_limits = |field: &String| field == "limits" || field.starts_with("limits.");
    if c.changed.iter().any(names_limits) && own && caller.is_some() {
        return Err(Refusal::SystemLedgerOnly);
    }
    let limit = |field: &str| has("limits") || has(&format!("limits.{field}"));
    let policy = Policy {
        default_life: if has("default_life") { to.default_life } else { old.default_life },
        max_life: if has("max_life") { to.max_life } else { old.max_life },
        max_overlap: if has("max_overlap") { to.max_overlap } else { old.max_overlap },
        notice_days: if has("notice_days") { &to.notice_days } else { &old.notice_days }.clone(),
        approvals: if has("approval_permissions") { &to.approvals } else { &old.approvals }.clone(),
        max_staleness: if has("max_staleness") { to.max_staleness } else { old.max_staleness },
        limits: Limits {
            keys: if limit("max_keys") { to.limits.keys } else { old.limits.keys },
            roles: if limit("max_roles") { to.limits.roles } else { old.limits.roles },
            streams: if limit("max_streams") { to.limits.streams } else { old.limits.streams },
            bytes_per_second: match limit("max_bytes_per_second") {
                true => to.limits.bytes_per_second,
                false => old.limits.bytes_per_second,
            },
        },
        rules: if has("rules") { &to.rules } else { &old.rules }.clone(),
        idle_suspend_after: match has("idle_suspend_after") {
            true => to.idle_suspend_after,
            false => old.idle_suspend_after,
        },
        idle_revoke_after: match has("idle_revoke_after") {
            true => to.idle_revoke_after,
            false => old.idle_revoke_after,
        },
        digest_days: if has("digest_days") { to.digest_days } else { old.digest_days },
    };
    policy.check().map_err(|e| super::wrong(e.field, e.problem))?;
    Ok(Kind::LedgerPolicyUpdated(body::LedgerPolicyUpdated {
        policy: Some(policy.to_body()),
        changed: c.changed.clone(),
    }))
}

/// A serving that has lapsed can't go on: whoever sees it takes its uses for lost.
pub(super) fn start_bounded(
    state: &State,
    serving: [u8; 16],
    until: Time,
    now: Time,
) -> Result<Kind, Refusal> {
    let lapsed = state.servings.get(&serving).is_some_and(|s| s.has_lapsed(now));
    if lapsed || until <= now || until > now.plus_micros(LONGEST_SERVING) {
        return Err(Refusal::AlreadyDone);
    }
    Ok(Kind::BoundedServingStarted(body::BoundedServingStarted {
        serving_id: serving.to_vec(),
        until_us: until.micros(),
    }))
}

pub(super) fn end_bounded(state: &State, serving: [u8; 16], uses: u64) -> Result<Kind, Refusal> {
    match state.servings.get(&serving) {
        Some(s) if s.recorded == uses => Ok(Kind::BoundedServingEnded(body::BoundedServingEnded {
            serving_id: serving.to_vec(),
            uses,
        })),
        _ => Err(Refusal::AlreadyDone),
    }
}
