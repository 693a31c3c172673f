//! Which events a command is about, apart from their time.

use keyledger_proto::{Actor, EventFilter, Owner, actor, owner};
use prost_types::Timestamp;
use uuid::Uuid;

use crate::values::{decisions, outcomes, parse_time, severities};

/// What must hold of an event; all that is named must.
#[derive(clap::Args)]
#[command(next_help_heading = "Filters")]
pub(super) struct FilterArgs {
    /// Only what this key called: a UUID.
    #[arg(long, value_name = "UUID")]
    caller: Option<Uuid>,
    /// Only what this person is said to have done.
    #[arg(long, value_name = "NAME", conflicts_with = "actor_service")]
    actor: Option<String>,
    /// Only what this service is said to have done.
    #[arg(long, value_name = "NAME")]
    actor_service: Option<String>,
    /// Only what is about keys of this person, or was called with them.
    #[arg(long, value_name = "NAME", conflicts_with = "owner_service")]
    owner: Option<String>,
    /// Only what is about keys of this service, or was called with them.
    #[arg(long, value_name = "NAME")]
    owner_service: Option<String>,
    /// Only this action, as the service that recorded it named it. What Keyledger itself records (EVENT) has none: see
    /// --category.
    #[arg(long, value_name = "ACTION", default_value = "", hide_default_value = true)]
    action: String,
    /// Only resources that begin so; fastest if it ends with `/`.
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    resource_prefix: String,
    /// Only this outcome, as the service that recorded it said.
    #[arg(long, value_name = "OUTCOME", value_parser = outcomes())]
    outcome: Option<i32>,
    /// Only events at least so grave.
    #[arg(long, value_name = "SEVERITY", value_parser = severities())]
    min_severity: Option<i32>,
    /// Only this trace: 32 hexadecimal digits.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    trace_id: String,
    /// Only uses with this verdict.
    #[arg(long, value_name = "DECISION", value_parser = decisions())]
    decision: Option<i32>,
    /// Only events whose reason holds these words, in any case. A list needs --since with it, at most 31
    /// days back.
    #[arg(long, value_name = "WORDS", default_value = "", hide_default_value = true)]
    reason_holds: String,
}

impl FilterArgs {
    /// Times are for each command to add.
    pub(super) fn to_wire(&self) -> EventFilter {
        let user = self.actor.clone().map(actor::Actor::User);
        let service = self.actor_service.clone().map(actor::Actor::Service);
        let owner = self.owner.clone().map(owner::Owner::User);
        let owner = owner.or(self.owner_service.clone().map(owner::Owner::Service));
        EventFilter {
            caller_key_id: self.caller.map(|id| id.to_string()).unwrap_or_default(),
            actor: user.or(service).map(|actor| Actor { actor: Some(actor) }),
            action: self.action.clone(),
            resource_prefix: self.resource_prefix.clone(),
            outcome: self.outcome.unwrap_or_default(),
            min_severity: self.min_severity.unwrap_or_default(),
            trace_id: self.trace_id.clone(),
            decision: self.decision.unwrap_or_default(),
            reason_holds: self.reason_holds.clone(),
            owner: owner.map(|owner| Owner { owner: Some(owner) }),
            ..EventFilter::default()
        }
    }
}

/// When it was recorded.
#[derive(clap::Args)]
#[command(next_help_heading = "Filters")]
pub(super) struct TimeArgs {
    /// Only what was recorded at this time or later: RFC 3339 with an offset.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,
    /// Only what was recorded before this time: RFC 3339 with an offset.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<Timestamp>,
}

impl TimeArgs {
    pub(super) fn within(&self, filter: EventFilter) -> EventFilter {
        EventFilter { start_time: self.since, end_time: self.until, ..filter }
    }
}
