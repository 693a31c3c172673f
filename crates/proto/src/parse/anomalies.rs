//! What is asked about unusual use.

use keyledger_ledger::body::{AnomalyVerdict, MonitoringRule};
use keyledger_ledger::id::{KeyId, Time};

use super::changes::{Common, parse_common};
use super::{Violation, Violations, micros, page_size};
use crate::{AcknowledgeAnomalyRequest, AnomalyState, ListAnomaliesRequest, WatchAnomaliesRequest};

/// What is asked of ListAnomalies.
pub struct ListAnomalies {
    pub filter: AnomalyFilter,
    pub page_size: usize,
    pub page_token: String,
    /// All that was asked, as it was sent: a page token belongs to it.
    pub query: String,
}

/// What must hold of an anomaly.
#[derive(Clone, Debug, Default)]
pub struct AnomalyFilter {
    pub rule: Option<MonitoringRule>,
    pub key_id: Option<KeyId>,
    pub ended: Option<bool>,
    pub acknowledged: Option<bool>,
    /// Raised at this time or later.
    pub start: Option<Time>,
    /// Raised before this time.
    pub end: Option<Time>,
}

/// What is asked of AcknowledgeAnomaly.
pub struct AcknowledgeAnomaly {
    pub position: u64,
    pub verdict: AnomalyVerdict,
    pub common: Common,
}

pub fn list_anomalies(r: ListAnomaliesRequest) -> Result<ListAnomalies, Vec<Violation>> {
    let key_id = super::optional_key_id("key_id", &r.key_id)?;
    let page_size = page_size(r.page_size)?;
    let mut v = Violations::default();
    let rule = MonitoringRule::try_from(r.rule);
    if rule.is_err() {
        v.add("rule", "must be one of the named rules");
    }
    let ended = match AnomalyState::try_from(r.state) {
        Ok(AnomalyState::Unspecified) => None,
        Ok(AnomalyState::Open) => Some(false),
        Ok(AnomalyState::Ended) => Some(true),
        Err(_) => {
            v.add("state", "must be one of the named states");
            None
        }
    };
    let mut time = |field: &str, time: Option<prost_types::Timestamp>| {
        let micros = time.map(|t| micros(t.seconds, t.nanos));
        if micros == Some(None) {
            v.add(field, "must be a valid time");
        }
        micros.flatten().map(Time)
    };
    let start = time("start_time", r.start_time);
    let end = time("end_time", r.end_time);
    if start.zip(end).is_some_and(|(start, end)| start >= end) {
        v.add("start_time", "must be before end_time");
    }
    let query =
        format!("{} {} {} {:?} {start:?} {end:?}", r.rule, r.key_id, r.state, r.acknowledged);
    let rule = rule.ok().filter(|rule| *rule != MonitoringRule::Unspecified);
    let filter = AnomalyFilter { rule, key_id, ended, acknowledged: r.acknowledged, start, end };
    v.finish(Some(ListAnomalies { filter, page_size, page_token: r.page_token, query }))
}

pub fn watch_anomalies(r: WatchAnomaliesRequest) -> Result<WatchAnomaliesRequest, Vec<Violation>> {
    super::position("from_position", r.from_position, false)?;
    Ok(r)
}

pub fn acknowledge_anomaly(
    r: AcknowledgeAnomalyRequest,
) -> Result<AcknowledgeAnomaly, Vec<Violation>> {
    let mut v = Violations::default();
    for violation in super::position("position", r.position, true).err().unwrap_or_default() {
        v.add(violation.field, violation.description);
    }
    let verdict = AnomalyVerdict::try_from(r.verdict).ok();
    let verdict = verdict.filter(|verdict| *verdict != AnomalyVerdict::Unspecified);
    if verdict.is_none() {
        v.add("verdict", "must be one of the named verdicts");
    }
    let common = parse_common(&mut v, r.reason, &r.request_id, r.validate_only, r.approval_ref);
    let parsed =
        (|| Some(AcknowledgeAnomaly { position: r.position?, verdict: verdict?, common }))();
    v.finish(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_question_about_anomalies_is_named() {
        let wrong = ListAnomaliesRequest {
            rule: 99,
            state: 9,
            start_time: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }),
            ..Default::default()
        };
        let fields = |v: Vec<Violation>| v.into_iter().map(|v| v.field).collect::<Vec<_>>();
        let found = list_anomalies(wrong).err().map(fields);
        assert_eq!(found, Some(["rule", "state", "start_time"].map(String::from).to_vec()));
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let reversed =
            ListAnomaliesRequest { start_time: at(2), end_time: at(1), ..Default::default() };
        let found = list_anomalies(reversed).err().map(fields);
        assert_eq!(found, Some(vec!["start_time".to_string()]));
        let found = acknowledge_anomaly(AcknowledgeAnomalyRequest::default()).err().map(fields);
        assert_eq!(found, Some(["position", "verdict", "reason"].map(String::from).to_vec()));
    }
}
