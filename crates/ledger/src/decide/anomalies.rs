//! Unusual use: raised, ended and answered once, whatever the number of replicas that notice it; and looked at by people.

use super::next_link;
use crate::anomaly::{AnomalyChange, OpenAnomaly, Subject};
use crate::body::{self, AnomalyResponse, AnomalyVerdict, Kind, MonitoringRule};
use crate::command::Refusal;
use crate::id::Time;
use crate::monitor::Raise;
use crate::state::State;

pub(super) fn decide(state: &State, change: &AnomalyChange, now: Time) -> Result<Kind, Refusal> {
    match change {
        AnomalyChange::Raise(noticed) => raise(state, noticed, now),
        AnomalyChange::End { rule, subject, observed, last, occurrences } => {
            end(state, (*rule, subject), *observed, (*last, *occurrences))
        }
        AnomalyChange::Suspend { position } => suspend(state, *position, now),
        AnomalyChange::Acknowledge { position, verdict } => acknowledge(state, *position, *verdict),
    }
}

/// Whoever looks again at what was looked at raises nothing.
fn raise(state: &State, raise: &Raise, now: Time) -> Result<Kind, Refusal> {
    let response = match response_to(state, raise.rule) {
        AnomalyResponse::Off => return Err(Refusal::AlreadyDone),
        // Only a key can be suspended.
        AnomalyResponse::Suspend if raise.key.is_some() => AnomalyResponse::Suspend,
        _ => AnomalyResponse::Note,
    };
    if !state.anomalies.takes(raise.rule, &raise.subject, raise.observed) {
        return Err(Refusal::AlreadyDone);
    }
    let last = raise.last.min(now);
    Ok(Kind::AnomalyRaised(body::AnomalyRaised {
        rule: raise.rule as i32,
        subject: Some(raise.subject.to_body()),
        observed_position: raise.observed,
        first_time_us: raise.first.min(last).micros(),
        last_time_us: last.micros(),
        occurrences: raise.occurrences.max(1),
        measures: raise.measures.clone(),
        permission: raise.permission.clone(),
        resource: raise.resource.clone(),
        response: response as i32,
        key_id: raise.key.map_or(vec![], |id| id.as_bytes().to_vec()),
    }))
}

/// What was over when the one that goes on was noticed is another one, which somebody has ended already.
fn end(
    state: &State,
    (rule, subject): (MonitoringRule, &Subject),
    observed: u64,
    (last, occurrences): (Time, u64),
) -> Result<Kind, Refusal> {
    let open = state.anomalies.open.get(&(rule, subject.clone()));
    let is_it =
        |open: &&OpenAnomaly| observed > open.observed && observed >= state.anomalies.observed;
    let open = open.filter(is_it);
    let open = open.ok_or(Refusal::AlreadyDone)?;
    Ok(Kind::AnomalyEnded(body::AnomalyEnded {
        anomaly_position: open.position,
        observed_position: observed,
        last_time_us: last.micros(),
        occurrences,
    }))
}

fn suspend(state: &State, position: u64, now: Time) -> Result<Kind, Refusal> {
    let open = state.anomalies.at(position).map(|(_, open)| open);
    let key = open.and_then(|open| state.to_suspend(open, now)).ok_or(Refusal::AlreadyDone)?;
    Ok(Kind::KeySuspended(body::KeySuspended {
        link: Some(next_link(key)),
        anomaly_position: Some(position),
        ..body::KeySuspended::default()
    }))
}

fn acknowledge(state: &State, position: u64, verdict: AnomalyVerdict) -> Result<Kind, Refusal> {
    if position >= state.next_position || verdict == AnomalyVerdict::Unspecified {
        return Err(Refusal::Internal);
    }
    Ok(Kind::AnomalyAcknowledged(body::AnomalyAcknowledged {
        anomaly_position: position,
        verdict: verdict as i32,
    }))
}

/// What the policy says is done about what a rule notices; by default it is noted.
fn response_to(state: &State, rule: MonitoringRule) -> AnomalyResponse {
    let said = state.policy.policy.rules.iter().find(|said| said.rule == rule as i32);
    let response = said.and_then(|said| AnomalyResponse::try_from(said.response).ok());
    response.filter(|r| *r != AnomalyResponse::Unspecified).unwrap_or(AnomalyResponse::Note)
}
