//! Applying what was noticed, looked at, found and told.

use super::{ApplyError, At, bytes};
use crate::anomaly::{OpenAnomaly, Subject};
use crate::body::{self, AnomalyResponse, AnomalyVerdict, MonitoringRule, OwnerKind};
use crate::id::KeyId;
use crate::state::{Owner, State};

/// Most receivers of one notice, and most kinds of findings of one digest.
const MAX_POSITIONS: usize = 1_024;
const MAX_FINDINGS: usize = 64;

/// Once for each rule and subject, as long as it goes on; and only for what wasn't looked at before.
pub(super) fn raise(state: &mut State, at: &At, e: &body::AnomalyRaised) -> Result<(), ApplyError> {
    by_keyledger(at)?;
    let rule = MonitoringRule::try_from(e.rule).ok().filter(|r| *r != MonitoringRule::Unspecified);
    let rule = rule.ok_or(ApplyError::Field("rule"))?;
    let response = AnomalyResponse::try_from(e.response).ok();
    let response =
        response.filter(|r| matches!(r, AnomalyResponse::Note | AnomalyResponse::Suspend));
    let response = response.ok_or(ApplyError::Field("response"))?;
    let subject = e.subject.as_ref().and_then(Subject::from_body);
    let subject = subject.ok_or(ApplyError::Field("subject"))?;
    let key = match e.key_id.as_slice() {
        [] => None,
        id => Some(KeyId::from_slice(id).ok_or(ApplyError::Field("key_id"))?),
    };
    let good_times = e.first_time_us <= e.last_time_us && e.last_time_us <= at.time.micros();
    if !good_times || e.occurrences == 0 || e.observed_position >= at.position {
        return Err(ApplyError::Field("occurrences"));
    }
    if !state.anomalies.takes(rule, &subject, e.observed_position) {
        return Err(ApplyError::Order);
    }
    let open = OpenAnomaly { position: at.position, raised: at.time, response, key };
    state.anomalies.open.insert((rule, subject), open);
    state.anomalies.observed = e.observed_position;
    Ok(())
}

pub(super) fn end(state: &mut State, at: &At, e: &body::AnomalyEnded) -> Result<(), ApplyError> {
    by_keyledger(at)?;
    let open = state.anomalies.at(e.anomaly_position).map(|(which, _)| which.clone());
    let which = open.ok_or(ApplyError::Field("anomaly_position"))?;
    if e.observed_position < state.anomalies.observed || e.observed_position >= at.position {
        return Err(ApplyError::Order);
    }
    state.anomalies.open.remove(&which);
    state.anomalies.observed = e.observed_position;
    Ok(())
}

/// Whether there is such an anomaly is seen by whoever reads the entry that it names.
pub(super) fn acknowledge(at: &At, e: &body::AnomalyAcknowledged) -> Result<(), ApplyError> {
    let verdict = AnomalyVerdict::try_from(e.verdict).ok();
    if verdict.is_none_or(|v| v == AnomalyVerdict::Unspecified) || e.anomaly_position >= at.position
    {
        return Err(ApplyError::Field("anomaly_position"));
    }
    Ok(())
}

pub(super) fn set_owner_status(
    state: &mut State,
    at: &At,
    e: &body::OwnerStatusSet,
) -> Result<(), ApplyError> {
    let owner = match e.owner.as_ref().and_then(|o| o.owner.as_ref()) {
        Some(OwnerKind::UserRef(reference)) => Owner::User(bytes(reference, "owner")?),
        Some(OwnerKind::Service(name)) if !name.is_empty() => Owner::Service(name.as_str().into()),
        _ => return Err(ApplyError::Field("owner")),
    };
    match e.left {
        true => state.left.insert(owner, at.time),
        false => state.left.remove(&owner),
    };
    Ok(())
}

pub(super) fn sign_review(at: &At, e: &body::ReviewSigned) -> Result<(), ApplyError> {
    bytes::<32>(&e.report_sha256, "report_sha256")?;
    if !e.key_id.is_empty() {
        KeyId::from_slice(&e.key_id).ok_or(ApplyError::Field("key_id"))?;
    }
    let good =
        e.from_us < e.to_us && e.to_us <= at.time.micros() && e.as_of_position <= at.position;
    if good { Ok(()) } else { Err(ApplyError::Field("to_us")) }
}

pub(super) fn deliver(at: &At, e: &body::NoticeDelivered) -> Result<(), ApplyError> {
    by_keyledger(at)?;
    bytes::<32>(&e.body_sha256, "body_sha256")?;
    let good = (1..=MAX_POSITIONS).contains(&e.positions.len())
        && e.positions.is_sorted_by(|a, b| a < b)
        && e.positions.iter().all(|position| *position < at.position)
        && !e.receiver.is_empty();
    if good { Ok(()) } else { Err(ApplyError::Field("positions")) }
}

pub(super) fn digest_findings(
    state: &mut State,
    at: &At,
    e: &body::FindingsDigested,
) -> Result<(), ApplyError> {
    by_keyledger(at)?;
    let good = e.findings.len() <= MAX_FINDINGS
        && e.findings.is_sorted_by(|a, b| a.finding < b.finding)
        && e.as_of_position <= at.position
        && state.digest_is_due(at.time);
    if !good {
        return Err(ApplyError::Field("findings"));
    }
    state.digested = Some(at.time);
    Ok(())
}

/// These are Keyledger's own.
fn by_keyledger(at: &At) -> Result<(), ApplyError> {
    if at.caller.is_none() { Ok(()) } else { Err(ApplyError::Caller) }
}
