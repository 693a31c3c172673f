//! Events as people see them: one row in a list, one line in a stream.

use keyledger_ledger::id::Time;
use keyledger_proto::entry::{self, Decision, Kind, Outcome, Reported};
use keyledger_proto::show::timestamp;
use keyledger_proto::{Actor, AuditEvent, actor};

use super::anomalies;
use crate::json::enum_value_name;
use crate::keys::owner;
use crate::screen::{Screen, Tone, inert};
use crate::table;
use crate::values::{show_time, words};

/// What a row shows of an event.
struct Row {
    time: String,
    /// Position, and for a use its index: `17.0`.
    at: String,
    what: String,
    tone: Tone,
    key: String,
    detail: String,
}

pub(crate) fn print_list(screen: &Screen, events: &[AuditEvent]) -> std::io::Result<()> {
    let headers = ["TIME", "AT", "EVENT", "KEY", "DETAIL"];
    let mut list = table::List::new(screen, &headers, &[0, 1, 2, 3]);
    for row in events.iter().map(row) {
        list.row(&[
            (&row.time, Tone::Faint),
            (&row.at, Tone::Plain),
            (&row.what, row.tone),
            (&row.key, Tone::Plain),
            (&row.detail, Tone::Plain),
        ]);
    }
    list.print()
}

/// Columns of a fixed width, because what comes next isn't known yet.
pub(super) fn print_line(screen: &Screen, event: &AuditEvent) -> std::io::Result<()> {
    let Row { time, at, what, tone, key, detail } = row(event);
    let time = screen.paint(&format!("{:<27}", inert(&time)), Tone::Faint);
    let what = screen.paint(&format!("{:<22}", inert(&what)), tone);
    let line = format!("{time}  {at:<10}  {what}  {:<36}  {}", inert(&key), inert(&detail));
    screen.line(line.trim_end())
}

fn row(event: &AuditEvent) -> Row {
    let position = event.position.map(|p| p.to_string()).unwrap_or_default();
    let (what, tone) = what(event);
    Row {
        time: event.time.as_ref().map(show_time).unwrap_or_default(),
        at: event.index.map_or(position.clone(), |index| format!("{position}.{index}")),
        what,
        tone,
        key: event.key_id.clone(),
        detail: detail(event),
    }
}

pub(crate) fn what(event: &AuditEvent) -> (String, Tone) {
    let verdict = verdict(&event.r#type, event.decision, event.reported.as_ref());
    let other = || if event.actor.is_some() { &event.category } else { &event.r#type };
    verdict.unwrap_or_else(|| (other().clone(), Tone::Plain))
}

/// What came of a use: the verdict of Keyledger, or that a service reported it. `None`: it is no use.
pub(crate) fn verdict(
    what: &str,
    decision: i32,
    reported: Option<&Reported>,
) -> Option<(String, Tone)> {
    let tone_of = |r: &Reported| if r.doubts.is_empty() { Tone::Good } else { Tone::Bad };
    match (reported, Decision::try_from(decision)) {
        (Some(reported), _) => Some((format!("{what} reported"), tone_of(reported))),
        (None, Ok(Decision::Allow)) => Some((format!("{what} allowed"), Tone::Good)),
        (None, Ok(Decision::Deny)) => Some((format!("{what} denied"), Tone::Bad)),
        _ => None,
    }
}

/// What is there to say, in the order in which people ask: why denied, what on what, for whom, by whom, why.
pub(crate) fn detail(event: &AuditEvent) -> String {
    let denied = event.decision == Decision::Deny as i32;
    let cause =
        || words(&enum_value_name("keyledger.entry.v1.DecisionReason", event.decision_reason));
    let named = |name: &str, text: &str| (!text.is_empty()).then(|| format!("{name}{text}"));
    let parts = [
        denied.then(cause),
        named("", &event.method),
        named("", &event.permission).map(|p| format!("{p} on {}", event.resource)),
        event.reported.as_ref().map(|r| reported(r, event.decision_reason)),
        recorded(event),
        searched(event),
        named("asked ", &event.asked),
        event.returned.map(|events| format!("{events} events given")),
        event.body.as_ref().and_then(|body| body.kind.as_ref()).and_then(about),
        event.anomaly.as_ref().map(|facts| anomalies::event_detail(facts, &event.r#type)),
        named("for ", &owner(event.owner.as_ref())),
        named("to ", &event.purpose),
        named("by ", &event.caller_key_id),
        named("from ", &event.address),
        named("approved by ", &event.approval_ref),
        (event.count > 1).then(|| format!("{} times", event.count)),
        (!event.reason.is_empty()).then(|| format!("“{}”", event.reason)),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What a service answered by itself: when, from which strict answer, what is doubtful, and what Keyledger says of it.
pub(crate) fn reported(r: &Reported, reason_now: i32) -> String {
    let when = show_time(&timestamp(Time(r.time_us)));
    let answer = format!("answered at {when} from {}.{}", r.answer_position, r.answer_index);
    if r.doubts.is_empty() {
        return answer;
    }
    let doubt = |doubt: &i32| words(&enum_value_name("keyledger.entry.v1.ReportDoubt", *doubt));
    let doubts: Vec<String> = r.doubts.iter().map(doubt).collect();
    let now = words(&enum_value_name("keyledger.entry.v1.DecisionReason", reason_now));
    format!("{answer}, doubtful: {} ({now} when it was recorded)", doubts.join(" and "))
}

fn is_use(event: &AuditEvent) -> bool {
    event.decision != Decision::Unspecified as i32
}

/// Whose events somebody looked for who read the log.
fn searched(event: &AuditEvent) -> Option<String> {
    let person = event.actor.as_ref().filter(|_| is_use(event))?;
    Some(format!("about {}", actor(person)))
}

/// What another service says: who did what on what, what came of it, and on whose behalf.
fn recorded(event: &AuditEvent) -> Option<String> {
    if is_use(event) {
        return None;
    }
    let actor = actor(event.actor.as_ref()?);
    let on = if event.resource.is_empty() { "" } else { " on " };
    let outcome = match Outcome::try_from(event.outcome) {
        Ok(Outcome::Unspecified) | Err(_) => String::new(),
        Ok(_) => {
            let name = enum_value_name("keyledger.entry.v1.Outcome", event.outcome);
            format!(" ({})", words(&name))
        }
    };
    let behalf: Vec<String> = event.on_behalf_of.iter().map(self::actor).collect();
    let behalf = match behalf.is_empty() {
        true => String::new(),
        false => format!(", for {}", behalf.join(", for ")),
    };
    Some(format!("{actor}: {}{on}{}{outcome}{behalf}", event.action, event.resource))
}

fn actor(actor: &Actor) -> String {
    match &actor.actor {
        Some(actor::Actor::User(name)) if name.is_empty() => "(erased)".into(),
        Some(actor::Actor::User(name)) => name.clone(),
        Some(actor::Actor::Service(name)) => format!("service {name}"),
        None => String::new(),
    }
}

/// What a change is about, where that is neither a key nor its owner.
fn about(kind: &Kind) -> Option<String> {
    match kind {
        Kind::LedgerOpened(opened) => Some(format!("ledger {}", opened.name)),
        Kind::LedgerRegistered(registered) => Some(format!("ledger {}", registered.name)),
        Kind::RoleCreated(role) => Some(format!("role {}", role.name)),
        Kind::RoleUpdated(role) => Some(format!("role {}", role.name)),
        Kind::RoleRetired(role) => Some(format!("role {}", role.name)),
        Kind::PermissionsRegistered(registered) => Some(registered.names.join(" and ")),
        Kind::KeyExpiring(expiring) => Some(format!("in {} days", expiring.days)),
        Kind::KeyUpdated(updated) => Some(updated.changed.join(" and ")),
        Kind::LedgerPolicyUpdated(policy) => Some(policy.changed.join(" and ")),
        Kind::RotationDue(due) => Some(format!("version {}", due.version)),
        Kind::RotationCompleted(rotated) => Some(format!("version {}", rotated.version)),
        Kind::KeySuspended(suspended) if suspended.overdue_version != 0 => {
            Some(format!("version {} is overdue for rotation", suspended.overdue_version))
        }
        Kind::KeySuspended(entry::KeySuspended { anomaly_position: Some(position), .. }) => {
            Some(format!("for anomaly {position}"))
        }
        Kind::ServerStarted(server) => Some(format!("version {}", server.version)),
        Kind::KeyRevoked(revoked) => {
            Some(words(&enum_value_name("keyledger.entry.v1.RevocationKind", revoked.kind)))
        }
        Kind::KeyCreated(_)
        | Kind::KeyImported(_)
        | Kind::VerifierMigrated(_)
        | Kind::KeyRotated(_)
        | Kind::KeySuspended(_)
        | Kind::KeyResumed(_)
        | Kind::KeyExpired(_)
        | Kind::BoundedServingStarted(_)
        | Kind::BoundedServingEnded(_)
        | Kind::UsePage(_) => None,
        Kind::EventRecorded(_) => None,
        // What they say stands opened beside them.
        Kind::AnomalyRaised(_) | Kind::AnomalyEnded(_) | Kind::AnomalyAcknowledged(_) => None,
        Kind::OwnerStatusSet(set) => Some(if set.left { "left" } else { "is back" }.into()),
        Kind::ReviewSigned(signed) => {
            Some(if signed.approved { "approved" } else { "not approved" }.into())
        }
        Kind::NoticeDelivered(delivered) => Some(format!("to {}", delivered.receiver)),
        Kind::FindingsDigested(digest) => Some(digested(digest)),
        Kind::ProducerKeysRegistered(registered) => {
            Some(format!("{} public keys", registered.public_keys.len()))
        }
        Kind::CategoryCounted(counted) => Some(format!("{} categories", counted.categories)),
    }
}

/// `3 key-never-used and 1 key-unused`
fn digested(digest: &entry::FindingsDigested) -> String {
    let counts = digest.findings.iter().map(|of| format!("{} {}", of.count, of.finding));
    match digest.findings.is_empty() {
        true => "nothing found".into(),
        false => counts.collect::<Vec<_>>().join(" and "),
    }
}

#[cfg(test)]
mod tests {
    use keyledger_proto::entry::{
        AnomalyResponse, AnomalyVerdict, DecisionReason, Measure, MonitoringRule,
    };
    use keyledger_proto::{AnomalyFacts, UnusualSubject, unusual_subject};

    use super::*;

    #[test]
    fn what_was_unusual_says_by_which_rule_with_which_numbers_and_of_which_entry_it_is() {
        let measure = |name: &str, value| Measure { name: name.into(), value };
        let raised = AnomalyFacts {
            position: Some(7),
            rule: MonitoringRule::NewNetwork as i32,
            subject: Some(UnusualSubject {
                subject: Some(unusual_subject::Subject::KeyId("0198".into())),
            }),
            network: "192.0.2.0/24".into(),
            measures: vec![measure("known_networks", 2), measure("warm_up_days", 14)],
            response: AnomalyResponse::Suspend as i32,
            ..Default::default()
        };
        let event = |r#type: &str, anomaly| AuditEvent {
            r#type: r#type.into(),
            anomaly: Some(anomaly),
            ..Default::default()
        };
        assert_eq!(
            detail(&event("anomaly.raised", raised.clone())),
            "new network, from 192.0.2.0/24, known networks 2, warm up days 14, suspended"
        );
        let network = unusual_subject::Subject::Network("192.0.2.0/24".into());
        let subject = Some(UnusualSubject { subject: Some(network) });
        let scanning = AnomalyFacts { subject, measures: vec![], response: 2, ..raised };
        assert_eq!(detail(&event("anomaly.raised", scanning)), "new network, network 192.0.2.0/24");
        let facts = AnomalyFacts { position: Some(7), ..Default::default() };
        let ended = AnomalyFacts { occurrences: 1, ..facts.clone() };
        assert_eq!(detail(&event("anomaly.ended", ended)), "of entry 7, once");
        let ended = AnomalyFacts { occurrences: 2, ..facts.clone() };
        assert_eq!(detail(&event("anomaly.ended", ended)), "of entry 7, 2 times");
        let found = AnomalyFacts { verdict: AnomalyVerdict::Misuse as i32, ..facts };
        assert_eq!(detail(&event("anomaly.acknowledged", found)), "of entry 7, found misuse");
    }

    #[test]
    fn a_digest_of_findings_counts_each_kind() {
        let count = |finding: &str, count| entry::FindingCount { finding: finding.into(), count };
        let digest = |findings| entry::FindingsDigested { findings, as_of_position: 9 };
        let found = vec![count("key-never-used", 3), count("key-unused", 1)];
        assert_eq!(digested(&digest(found)), "3 key-never-used and 1 key-unused");
        assert_eq!(digested(&digest(vec![])), "nothing found");
    }

    #[test]
    fn a_read_of_the_log_tells_what_was_asked_and_given() {
        let person = Actor { actor: Some(actor::Actor::User("alice".into())) };
        let event = AuditEvent {
            decision: Decision::Allow as i32,
            method: "AuditService/ListEvents".into(),
            permission: "audit.read".into(),
            resource: "logs/login".into(),
            asked: r#"category:"login""#.into(),
            returned: Some(3),
            actor: Some(person),
            ..AuditEvent::default()
        };
        let expected = r#"AuditService/ListEvents, audit.read on logs/login, about alice, asked category:"login", 3 events given"#;
        assert_eq!(detail(&event), expected);
    }

    #[test]
    fn what_another_service_says_reads_as_who_did_what() {
        let named = |name: &str| Actor { actor: Some(actor::Actor::User(name.into())) };
        let service = Actor { actor: Some(actor::Actor::Service("batch".into())) };
        let event = AuditEvent {
            r#type: "event.recorded".into(),
            actor: Some(named("alice@example.com")),
            on_behalf_of: vec![service, named("")],
            action: "invoice.export".into(),
            resource: "invoices/2026".into(),
            outcome: Outcome::Denied as i32,
            reason: "closing".into(),
            ..Default::default()
        };
        assert_eq!(
            row(&event).detail,
            "alice@example.com: invoice.export on invoices/2026 (denied), for service batch, for (erased), “closing”"
        );
    }

    #[test]
    fn a_use_that_a_service_reported_does_not_look_like_a_verdict() {
        let reported = entry::Reported {
            answer_position: 12,
            answer_index: 3,
            time_us: 1_000_000,
            doubts: vec![entry::ReportDoubt::Stale as i32, entry::ReportDoubt::Late as i32],
            ..Default::default()
        };
        let event = AuditEvent {
            r#type: "key.used".into(),
            method: "KeyService/ReportUses".into(),
            permission: "audit.read".into(),
            resource: "logs/error".into(),
            decision: Decision::Allow as i32,
            decision_reason: DecisionReason::Revoked as i32,
            occur_time: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
            reported: Some(reported.clone()),
            ..Default::default()
        };
        assert_eq!(row(&event).what, "key.used reported");
        assert_eq!(
            row(&event).detail,
            "KeyService/ReportUses, audit.read on logs/error, answered at 1970-01-01T00:00:01.000000Z from 12.3, doubtful: stale and late (revoked when it was recorded)"
        );
        let held = entry::Reported { doubts: vec![], ..reported };
        let event = AuditEvent { reported: Some(held), ..event };
        assert!(row(&event).detail.ends_with("answered at 1970-01-01T00:00:01.000000Z from 12.3"));
    }

    #[test]
    fn a_denied_use_says_why_and_what_was_asked() {
        let event = AuditEvent {
            position: Some(17),
            index: Some(0),
            r#type: "key.used".into(),
            method: "KeyService/VerifyKey".into(),
            permission: "audit.read".into(),
            resource: "logs/error".into(),
            decision: Decision::Deny as i32,
            decision_reason: DecisionReason::NoGrant as i32,
            count: 3,
            reason: "nightly".into(),
            ..Default::default()
        };
        let row = row(&event);
        assert_eq!((row.at.as_str(), row.what.as_str()), ("17.0", "key.used denied"));
        assert_eq!(
            row.detail,
            "no grant, KeyService/VerifyKey, audit.read on logs/error, 3 times, “nightly”"
        );
    }
}
