//! `keyledger audit tail`.

use keyledger_proto::{EventView, StreamEventsRequest};
use tonic::Status;

use super::event;
use crate::connection::Session;
use crate::failure::Failure;
use crate::json::{self, Output};
use crate::screen::Screen;

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
        let mut next_position = self.from;
        let stream = session.audit().stream_events(session.stream(request)).await;
        let mut stream = stream.map_err(|s| session.failure(&s))?.into_inner();
        loop {
            let reply = match stream.message().await {
                Ok(Some(reply)) => reply,
                Ok(None) => return Err(broken(session, None, next_position).into()),
                Err(status) => return Err(broken(session, Some(&status), next_position).into()),
            };
            next_position = reply.next_position.or(next_position);
            // Without an event it is a heartbeat.
            match &reply.event {
                Some(_) if self.output.is_json() => {
                    json::print_line(screen, "StreamEventsResponse", &reply)?
                }
                Some(event) => event::print_line(screen, event)?,
                None => {}
            }
        }
    }
}

/// The stream has no end of its own, so its end is a failure; it says where to continue.
fn broken(session: &Session, status: Option<&Status>, next_position: Option<u64>) -> Failure {
    let failure = match status {
        Some(status) => session.failure(status),
        None => Failure::new("the server ended the stream").next("run the command again"),
    };
    match next_position {
        Some(position) => failure.and_next(&format!("--from {position} continues where it broke")),
        None => failure,
    }
}
