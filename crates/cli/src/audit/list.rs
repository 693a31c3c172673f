//! `keyledger audit list`.

use keyledger_proto::{Actor, EventFilter, EventOrder, ListEventsRequest, Owner, actor, owner};
use prost_types::Timestamp;
use uuid::Uuid;

use super::event;
use crate::connection::Session;
use crate::json::{self, Output};
use crate::paging::Paging;
use crate::screen::Screen;
use crate::values::{decisions, outcomes, parse_time, severities};

/// List events, newest first or oldest first. AT is the position in the ledger; a use has its index in its page behind a dot.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger audit list --key-id 0198c5a0-0000-8000-8000-000000000001 --page-size 100"
)]
pub(super) struct List {
    /// Only events about this key, or called by it: a UUID.
    #[arg(long, value_name = "UUID")]
    key_id: Option<Uuid>,
    /// Only this category, such as `keyledger/lifecycle` (changes) or `keyledger/use` (uses).
    #[arg(long, value_name = "CATEGORY", default_value = "", hide_default_value = true)]
    category: String,
    /// The oldest events first.
    #[arg(long)]
    oldest_first: bool,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    paging: Paging,
    #[command(flatten)]
    output: Output,
}

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
    /// Only this action, as the service that recorded it named it.
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
    /// Only what was recorded at this time or later: RFC 3339 with an offset.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,
    /// Only what was recorded before this time: RFC 3339 with an offset.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<Timestamp>,
    /// Only this trace: 32 hexadecimal digits.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    trace_id: String,
    /// Only uses with this verdict.
    #[arg(long, value_name = "DECISION", value_parser = decisions())]
    decision: Option<i32>,
    /// Only events whose reason holds these words, in any case. Needs --since, at most 31 days back.
    #[arg(long, value_name = "WORDS", default_value = "", hide_default_value = true)]
    reason_holds: String,
}

impl FilterArgs {
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
            start_time: self.since,
            end_time: self.until,
            trace_id: self.trace_id.clone(),
            decision: self.decision.unwrap_or_default(),
            reason_holds: self.reason_holds.clone(),
            owner: owner.map(|owner| Owner { owner: Some(owner) }),
        }
    }
}

impl List {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let key_id = self.key_id.map(|id| id.to_string()).unwrap_or_default();
        let page = async |page_token| {
            let (key_id, category) = (key_id.clone(), self.category.clone());
            let page_size = self.paging.size();
            let filter = Some(self.filter.to_wire());
            let order = match self.oldest_first {
                true => EventOrder::OldestFirst as i32,
                false => EventOrder::NewestFirst as i32,
            };
            let request =
                ListEventsRequest { key_id, category, page_size, page_token, filter, order };
            let reply = session.audit().list_events(session.call(request)).await;
            let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
            match self.output.is_json() {
                true => json::print_page(screen, "ListEventsResponse", &reply, self.paging.all)?,
                false => event::print_list(screen, &reply.events)?,
            }
            Ok(reply.next_page_token)
        };
        self.paging.walk(page).await
    }
}
