//! `keyledger audit count`.

use keyledger_proto::{CountEventsRequest, CountEventsResponse};
use prost_types::Timestamp;

use crate::connection::Session;
use crate::json::{self, Output};
use crate::screen::{Screen, Tone};
use crate::table;
use crate::values::{event_groups, parse_time};

/// Count events by category, outcome, severity, action or hour.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger audit count --by action --category security/login --since 2026-11-01T00:00:00Z"
)]
pub(super) struct Count {
    /// By what.
    #[arg(long, value_name = "GROUP", value_parser = event_groups())]
    by: Option<i32>,
    /// Only this category.
    #[arg(long, value_name = "CATEGORY", default_value = "", hide_default_value = true)]
    category: String,
    /// Only what was recorded at this time or later: a whole hour, RFC 3339 with an offset.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,
    /// Only what was recorded before this time: a whole hour, RFC 3339 with an offset.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<Timestamp>,
    #[command(flatten)]
    output: Output,
}

impl Count {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let request = CountEventsRequest {
            category: self.category,
            start_time: self.since,
            end_time: self.until,
            group_by: self.by.unwrap_or_default(),
        };
        let reply = session.audit().count_events(session.call(request)).await;
        let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
        match self.output.is_json() {
            true => json::print_reply(screen, "CountEventsResponse", &reply)?,
            false => print(screen, &reply)?,
        }
        Ok(())
    }
}

fn print(screen: &Screen, reply: &CountEventsResponse) -> std::io::Result<()> {
    let mut list = table::List::new(screen, &["EVENTS", "VALUE"], &[0]);
    let other = (reply.other_events > 0).then_some((reply.other_events, "(others)"));
    let counts = reply.counts.iter().map(|c| (c.events, c.value.as_str()));
    for (events, value) in counts.chain(other) {
        list.row(&[(&events.to_string(), Tone::Plain), (value, Tone::Plain)]);
    }
    list.row(&[(&reply.total_events.to_string(), Tone::Strong), ("in all", Tone::Faint)]);
    list.print()
}
