//! Unusual use, as callers see it.

use keyledger_ledger::body::{
    self, AnomalyAcknowledged, AnomalyRaised, Event, Kind, SubjectKind, Texts,
};
use keyledger_ledger::id::Time;

use super::{change_event, id_text, merged, timestamp};
use crate::{
    Anomaly, AnomalyAcknowledgement, AnomalyFacts, AuditEvent, Owner, UnusualSubject, owner,
    unusual_subject,
};

/// An anomaly as the entry that raised it says.
pub fn raised_anomaly(
    position: u64,
    event: &Event,
    raised: &AnomalyRaised,
    texts: &Texts,
) -> Anomaly {
    Anomaly {
        position: Some(position),
        rule: raised.rule,
        subject: Some(subject(raised, texts)),
        key_id: id_text(&raised.key_id),
        network: texts.peer_address.clone(),
        raise_time: Some(timestamp(Time(event.time_us))),
        first_time: Some(timestamp(Time(raised.first_time_us))),
        last_time: Some(timestamp(Time(raised.last_time_us))),
        occurrences: raised.occurrences,
        measures: raised.measures.clone(),
        permission: raised.permission.clone(),
        resource: raised.resource.clone(),
        response: raised.response,
        end_time: None,
        acknowledgements: vec![],
    }
}

/// That somebody looked at an anomaly.
pub fn acknowledgement(
    position: u64,
    event: &Event,
    acknowledged: &AnomalyAcknowledged,
    texts: &Texts,
) -> AnomalyAcknowledgement {
    AnomalyAcknowledgement {
        position: Some(position),
        time: Some(timestamp(Time(event.time_us))),
        caller_key_id: event.caller.as_ref().map_or(String::new(), |c| id_text(&c.key_id)),
        verdict: acknowledged.verdict,
        reason: texts.reason.clone(),
    }
}

/// What happened to an anomaly, as an event of the log.
pub(super) fn anomaly_event(
    position: u64,
    leaf_hash: &[u8],
    event: &Event,
    texts: &[Texts],
) -> AuditEvent {
    let shown = change_event(position, leaf_hash, event, texts);
    match &event.kind {
        Some(Kind::AnomalyRaised(e)) => AuditEvent {
            key_id: id_text(&e.key_id),
            permission: e.permission.clone(),
            resource: e.resource.clone(),
            // Its network is none of a caller's.
            address: String::new(),
            anomaly: Some(raised_facts(position, e, &merged(texts))),
            ..shown
        },
        Some(Kind::AnomalyEnded(e)) => AuditEvent { anomaly: Some(ended_facts(e)), ..shown },
        Some(Kind::AnomalyAcknowledged(e)) => {
            let facts = AnomalyFacts {
                position: Some(e.anomaly_position),
                verdict: e.verdict,
                ..AnomalyFacts::default()
            };
            AuditEvent { anomaly: Some(facts), ..shown }
        }
        _ => shown,
    }
}

fn raised_facts(position: u64, e: &AnomalyRaised, texts: &Texts) -> AnomalyFacts {
    AnomalyFacts {
        position: Some(position),
        rule: e.rule,
        subject: Some(subject(e, texts)),
        network: texts.peer_address.clone(),
        first_time: Some(timestamp(Time(e.first_time_us))),
        last_time: Some(timestamp(Time(e.last_time_us))),
        occurrences: e.occurrences,
        measures: e.measures.clone(),
        response: e.response,
        verdict: 0,
    }
}

fn ended_facts(e: &body::AnomalyEnded) -> AnomalyFacts {
    AnomalyFacts {
        position: Some(e.anomaly_position),
        last_time: Some(timestamp(Time(e.last_time_us))),
        occurrences: e.occurrences,
        ..AnomalyFacts::default()
    }
}

fn subject(e: &AnomalyRaised, texts: &Texts) -> UnusualSubject {
    use unusual_subject::Subject;
    let owned = |owner| Subject::Owner(Owner { owner: Some(owner) });
    let subject = e.subject.as_ref().and_then(|s| s.subject.as_ref()).map(|s| match s {
        SubjectKind::KeyId(id) => Subject::KeyId(id_text(id)),
        SubjectKind::UserRef(_) => owned(owner::Owner::User(texts.owner.clone())),
        SubjectKind::Service(name) => owned(owner::Owner::Service(name.clone())),
        SubjectKind::Peer(_) => Subject::Network(texts.peer_address.clone()),
    });
    UnusualSubject { subject }
}
