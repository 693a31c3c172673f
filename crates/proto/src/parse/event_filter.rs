//! Which events a list shows.

use keyledger_ledger::body::{Decision, Event, Kind, Outcome, Severity, Use};
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::text::{check_line, check_required_line};

use super::changes::parse_owner;
use super::events::MAX_ACTION;
use super::{MAX_USER, OwnerName, Violation, Violations, micros, page_size, parse_key_id};
use crate::{Actor, AuditEvent, EventOrder, ListEventsRequest, actor, methods, show};

/// Longest time over which reasons are opened to look for words.
const REASON_WINDOW_US: i64 = 31 * 86_400 * 1_000_000;

/// What is asked of ListEvents.
pub struct ListEvents {
    pub key_id: Option<KeyId>,
    pub category: String,
    pub filter: EventFilter,
    pub oldest_first: bool,
    pub page_size: usize,
    pub page_token: String,
    /// All that was asked, as it was sent: a page token belongs to it.
    pub query: String,
}

/// What must hold of an event.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    pub caller: Option<KeyId>,
    pub actor: Option<Actor>,
    pub action: String,
    pub resource_prefix: String,
    pub outcome: Option<Outcome>,
    pub min_severity: Option<Severity>,
    pub start: Option<Time>,
    pub end: Option<Time>,
    pub trace_id: Option<[u8; 16]>,
    pub decision: Option<Decision>,
    /// In lower case.
    pub reason_holds: String,
    /// Whose key it is about, or called. Which keys those are is for the caller of this to find out.
    pub owner: Option<OwnerName>,
}

pub fn list_events(r: ListEventsRequest) -> Result<ListEvents, Vec<Violation>> {
    let key_id = super::optional_key_id("key_id", &r.key_id)?;
    super::category(&r.category)?;
    let page_size = page_size(r.page_size)?;
    let mut v = Violations::default();
    let order = EventOrder::try_from(r.order);
    if order.is_err() {
        v.add("order", "must be one of the named orders");
    }
    let oldest_first = order == Ok(EventOrder::OldestFirst);
    let query = format!("{} {} {:?} {oldest_first}", r.key_id, r.category, r.filter);
    let filter = parse(&mut v, r.filter.unwrap_or_default());
    if filter.as_ref().is_some_and(|f| !f.reason_holds.is_empty() && f.start.is_none()) {
        v.add("filter.start_time", "must be given with reason_holds");
    }
    let (category, page_token) = (r.category, r.page_token);
    v.finish(filter.map(|filter| ListEvents {
        key_id,
        category,
        filter,
        oldest_first,
        page_size,
        page_token,
        query,
    }))
}

/// What can come of an event, as people write it.
pub fn outcomes() -> Vec<(String, i32)> {
    methods::short_names("keyledger.entry.v1.Outcome")
}

/// How grave an event can be, as people write it.
pub fn severities() -> Vec<(String, i32)> {
    methods::short_names("keyledger.entry.v1.Severity")
}

/// A filter by itself.
pub fn event_filter(f: crate::EventFilter) -> Result<EventFilter, Vec<Violation>> {
    let mut v = Violations::default();
    let filter = parse(&mut v, f);
    v.finish(filter)
}

/// Each field by itself.
pub(super) fn parse(v: &mut Violations, f: crate::EventFilter) -> Option<EventFilter> {
    let caller = match f.caller_key_id.as_str() {
        "" => None,
        text => parse_key_id(v, "filter.caller_key_id", text),
    };
    check_actor(v, f.actor.as_ref());
    let owner = f.owner.and_then(|owner| parse_owner(v, "filter.owner", Some(owner)));
    v.take("filter.action", check_line(&f.action, 256));
    v.take("filter.resource_prefix", check_line(&f.resource_prefix, 512));
    v.take("filter.reason_holds", check_line(&f.reason_holds, 128));
    let outcome = Outcome::try_from(f.outcome);
    let severity = Severity::try_from(f.min_severity);
    let decision = Decision::try_from(f.decision);
    for (field, known) in [
        ("filter.outcome", outcome.is_ok()),
        ("filter.min_severity", severity.is_ok()),
        ("filter.decision", decision.is_ok()),
    ] {
        if !known {
            v.add(field, "must be one of the named values");
        }
    }
    let mut time = |field: &str, time: Option<prost_types::Timestamp>| {
        let micros = time.map(|t| micros(t.seconds, t.nanos));
        if micros == Some(None) {
            v.add(field, "must be a valid time");
        }
        micros.flatten().map(Time)
    };
    let start = time("filter.start_time", f.start_time);
    let end = time("filter.end_time", f.end_time);
    let trace_id = super::events::hex_bytes::<16>(&f.trace_id);
    if trace_id.is_none() && !f.trace_id.is_empty() {
        v.add("filter.trace_id", "must be 32 hexadecimal digits");
    }
    Some(EventFilter {
        caller,
        actor: f.actor,
        action: f.action,
        resource_prefix: f.resource_prefix,
        outcome: outcome.ok().filter(|o| *o != Outcome::Unspecified),
        min_severity: severity.ok().filter(|s| *s != Severity::Unspecified),
        start,
        end,
        trace_id,
        decision: decision.ok().filter(|d| *d != Decision::Unspecified),
        reason_holds: f.reason_holds.to_lowercase(),
        owner,
    })
}

/// The name of somebody who was erased is empty: nobody is found by it.
fn check_actor(v: &mut Violations, actor: Option<&Actor>) {
    let checked = match actor.map(|a| &a.actor) {
        None => return,
        Some(None) => {
            return v.add("filter.actor", "must name a user or a service");
        }
        Some(Some(actor::Actor::User(name))) => ("user", check_required_line(name, MAX_USER)),
        Some(Some(actor::Actor::Service(name))) => {
            ("service", check_required_line(name, MAX_ACTION))
        }
    };
    v.take(format!("filter.actor.{}", checked.0), checked.1);
}

impl EventFilter {
    /// What is wrong with the window over which reasons are looked through, as of a time.
    pub fn check_window(&self, now: Time) -> Result<(), Vec<Violation>> {
        let end = self.end.unwrap_or(now);
        let wide = |start: Time| end.micros().saturating_sub(start.micros()) > REASON_WINDOW_US;
        let mut v = Violations::default();
        if !self.reason_holds.is_empty() && self.start.is_some_and(wide) {
            v.add("filter.start_time", "must be at most 31 days before the end, with reason_holds");
        }
        v.finish(Some(()))
    }

    /// The person who is said to have acted.
    pub fn person(&self) -> Option<&str> {
        match self.actor.as_ref()?.actor.as_ref()? {
            actor::Actor::User(name) => Some(name),
            actor::Actor::Service(_) => None,
        }
    }

    /// The service that is said to have acted.
    pub fn service(&self) -> Option<&str> {
        match self.actor.as_ref()?.actor.as_ref()? {
            actor::Actor::User(_) => None,
            actor::Actor::Service(name) => Some(name),
        }
    }

    /// Whether it asks for what stands in no use.
    pub fn excludes_uses(&self) -> bool {
        self.excludes_uses_and_changes() || self.service().is_some()
    }

    /// Whether it asks for what stands in no change of a key, role or ledger.
    pub fn excludes_changes(&self) -> bool {
        self.excludes_anomalies() || !self.resource_prefix.is_empty()
    }

    /// Whether it asks for what stands in nothing that was noticed.
    fn excludes_anomalies(&self) -> bool {
        self.excludes_uses_and_changes() || self.actor.is_some() || self.decision.is_some()
    }

    fn excludes_uses_and_changes(&self) -> bool {
        !self.action.is_empty() || self.outcome.is_some() || self.min_severity.is_some()
    }

    /// Whether all may hold of an entry that is no page, as far as its signed bytes tell. Nothing is opened for the others.
    pub fn may_match_entry(&self, event: &Event) -> bool {
        let recorded = match &event.kind {
            Some(Kind::EventRecorded(recorded)) => recorded,
            Some(Kind::AnomalyRaised(raised)) => {
                return !self.excludes_anomalies()
                    && raised.resource.starts_with(&self.resource_prefix);
            }
            _ => return !self.excludes_changes(),
        };
        self.decision.is_none()
            && (self.action.is_empty() || recorded.action == self.action)
            && recorded.resource.starts_with(&self.resource_prefix)
            && self.outcome.is_none_or(|o| recorded.outcome() == o)
            && self.min_severity.is_none_or(|s| recorded.severity() >= s)
            && self.trace_id.is_none_or(|id| event.trace_id == id)
    }

    /// The same for a use.
    pub fn may_match_use(&self, u: &Use) -> bool {
        !self.excludes_uses()
            && u.resource.starts_with(&self.resource_prefix)
            && self.decision.is_none_or(|d| u.decision() == d)
            && self.trace_id.is_none_or(|id| u.trace_ids().any(|own| own == id))
    }

    /// Whether all holds of an event that doesn't follow from where it stands: its times are those of positions, and its owner
    /// that of a key.
    pub fn matches(&self, e: &AuditEvent) -> bool {
        let caller = |id: KeyId| {
            let id = id.to_string();
            e.caller_key_id == id || (e.caller_key_id.is_empty() && e.key_id == id)
        };
        let trace = |id: [u8; 16]| {
            let id = show::hex(&id);
            e.trace_id == id || e.spans.iter().any(|span| span.trace_id == id)
        };
        self.caller.is_none_or(caller)
            && self.actor.as_ref().is_none_or(|actor| e.actor.as_ref() == Some(actor))
            && (self.action.is_empty() || e.action == self.action)
            && e.resource.starts_with(&self.resource_prefix)
            && self.outcome.is_none_or(|o| e.outcome == o as i32)
            && self.min_severity.is_none_or(|s| e.severity >= s as i32)
            && self.trace_id.is_none_or(trace)
            && self.decision.is_none_or(|d| e.decision == d as i32)
            && (self.reason_holds.is_empty()
                || e.reason.to_lowercase().contains(&self.reason_holds))
    }
}
