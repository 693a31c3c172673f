//! `keyledger audit tail`.

use keyledger_proto::{EventView, StreamEventsRequest};

use super::event;
use crate::connection::Session;
use crate::json::{self, Output};
use crate::screen::Screen;
use crate::stream::follow;

/// Follow events as they happen, each once and in the order of the ledger, until this command is stopped.
///
/// With `-o json` each event is one line, with the position to continue from.
#[derive(clap::Args)]
#[command(after_help = "Example: keyledger audit tail --from 0 --category keyledger/lifecycle")]
pub(super) struct Tail {
    /// First position to print: 0 is the beginning of the ledger. Without it only what is new is printed.
    #[arg(long, value_name = "POSITION")]
    from: Option<u64>,
    /// Only this category, such as `keyledger/lifecycle` (changes) or `keyledger/use` (uses).
    #[arg(long, value_name = "CATEGORY", default_value = "", hide_default_value = true)]
    category: String,
    #[command(flatten)]
    output: Output,
}

impl Tail {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let request = StreamEventsRequest {
            from_position: self.from,
            category: self.category,
            view: EventView::Basic as i32,
            stop_at_head: false,
        };
        let stream = session.audit().stream_events(session.stream(request)).await;
        let stream = stream.map_err(|s| session.failure(&s))?.into_inner();
        follow(session, stream, self.from, |reply| {
            // Without an event it is a heartbeat.
            match &reply.event {
                Some(_) if self.output.is_json() => {
                    json::print_line(screen, "StreamEventsResponse", &reply)?
                }
                Some(event) => event::print_line(screen, event)?,
                None => {}
            }
            Ok(reply.next_position)
        })
        .await
    }
}
