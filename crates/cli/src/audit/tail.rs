//! `keyledger audit tail`.

use std::time::Duration;

use keyledger_proto::{AuditEvent, EventFilter, StreamEventsRequest, StreamEventsResponse};
use prost_types::Timestamp;
use tokio::time::Instant;
use tonic::Status;
use uuid::Uuid;

use super::event;
use super::filter::FilterArgs;
use crate::connection::Session;
use crate::failure::may_be_repeated;
use crate::json::{self, Output};
use crate::screen::Screen;
use crate::stream::broken;
use crate::values::parse_time;

/// How long a server may be away before this gives up, and how long it waits between two tries.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);

/// Follow events as they happen, each once and in the order of the ledger, until this command is stopped.
///
/// Without --from, --from-start or --since only what is new is printed. When the server stops or can't be reached, this goes on
/// where it was as soon as one answers, and gives up after a minute. With `-o json` each event is one line, with the position
/// to continue from.
#[derive(clap::Args)]
#[command(after_help = "Example: keyledger audit tail --from-start --category keyledger/lifecycle")]
pub(super) struct Tail {
    /// First position to print: 0 is the beginning of the ledger.
    #[arg(long, value_name = "POSITION")]
    from: Option<u64>,
    /// Begin with the beginning of the ledger.
    #[arg(long, conflicts_with_all = ["from", "since"])]
    from_start: bool,
    /// Begin with what was recorded at this time or later: RFC 3339 with an offset.
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "from")]
    since: Option<Timestamp>,
    /// Only events about this key, or called by it: a UUID.
    #[arg(long, value_name = "UUID")]
    key_id: Option<Uuid>,
    /// Only this category, such as `keyledger/lifecycle` (changes) or `keyledger/use` (uses).
    #[arg(long, value_name = "CATEGORY", default_value = "", hide_default_value = true)]
    category: String,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    output: Output,
}

impl Tail {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let begin = self.from.or(self.from_start.then_some(0));
        let mut place = Place { next: begin, newest: None, heard: false };
        let mut away_since: Option<Instant> = None;
        loop {
            let why = self.follow(session, screen, &mut place).await?;
            if std::mem::take(&mut place.heard) {
                away_since = None;
            }
            let since = *away_since.get_or_insert_with(Instant::now);
            let again = why.as_ref().is_none_or(may_be_repeated) && since.elapsed() < PATIENCE;
            if !again {
                return Err(broken(session, why.as_ref(), place.next).into());
            }
            eprintln!("The stream broke off; it goes on as soon as a server answers.");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Prints what comes until the stream ends. Returns why it did; `None` if the server didn't say.
    async fn follow(
        &self,
        session: &Session,
        screen: &Screen,
        place: &mut Place,
    ) -> anyhow::Result<Option<Status>> {
        let request = session.stream(self.request(place.next));
        let mut stream = match session.audit().stream_events(request).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => return Ok(Some(status)),
        };
        loop {
            match stream.message().await {
                Ok(Some(reply)) => {
                    // Without an event it is a heartbeat.
                    if reply.event.as_ref().is_some_and(|event| place.is_new(event)) {
                        self.print(screen, &reply)?;
                    }
                    place.heard = true;
                    place.next = reply.next_position.or(place.next);
                }
                Ok(None) => return Ok(None),
                Err(status) => return Ok(Some(status)),
            }
        }
    }

    fn request(&self, from_position: Option<u64>) -> StreamEventsRequest {
        StreamEventsRequest {
            from_position,
            category: self.category.clone(),
            key_id: self.key_id.map(|id| id.to_string()).unwrap_or_default(),
            filter: Some(EventFilter { start_time: self.since, ..self.filter.to_wire() }),
            ..StreamEventsRequest::default()
        }
    }

    fn print(&self, screen: &Screen, reply: &StreamEventsResponse) -> anyhow::Result<()> {
        match &reply.event {
            Some(_) if self.output.is_json() => {
                json::print_line(screen, "StreamEventsResponse", reply)?
            }
            Some(event) => event::print_line(screen, event)?,
            None => {}
        }
        Ok(())
    }
}

/// How far it has come.
struct Place {
    /// Where it goes on after a break.
    next: Option<u64>,
    /// Position and index of the newest event that was printed. After a break within a page, the page's events come again.
    newest: Option<(u64, Option<u32>)>,
    /// Whether the server has said anything since the last break.
    heard: bool,
}

impl Place {
    fn is_new(&mut self, event: &AuditEvent) -> bool {
        let at = event.position.map(|position| (position, event.index));
        let is_new = at > self.newest;
        self.newest = self.newest.max(at);
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_printed_before_a_break_is_not_printed_again() {
        let mut place = Place { next: None, newest: None, heard: false };
        let event =
            |position, index| AuditEvent { position: Some(position), index, ..Default::default() };
        assert!(place.is_new(&event(0, None)));
        assert!(place.is_new(&event(7, Some(0))));
        assert!(place.is_new(&event(7, Some(1))));
        assert!(!place.is_new(&event(7, Some(0))));
        assert!(!place.is_new(&event(7, Some(1))));
        assert!(place.is_new(&event(7, Some(2))));
        assert!(place.is_new(&event(8, None)));
    }
}
