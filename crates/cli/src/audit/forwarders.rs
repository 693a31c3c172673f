//! `keyledger audit forwarders`.

use keyledger_proto::{Forwarder, ForwarderState, ListForwardersRequest};

use crate::connection::Session;
use crate::json::{self, Output, enum_value_name};
use crate::screen::{Screen, Tone};
use crate::table;

/// List what the server sends on to other systems: how far each forwarder has come, and what keeps it back.
#[derive(clap::Args)]
#[command(after_help = "Example: keyledger audit forwarders")]
pub(super) struct Forwarders {
    #[command(flatten)]
    output: Output,
}

impl Forwarders {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let reply = session.audit().list_forwarders(session.call(ListForwardersRequest {})).await;
        let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
        match self.output.is_json() {
            true => json::print_reply(screen, "ListForwardersResponse", &reply),
            false => Ok(show_list(screen, &reply.forwarders)?),
        }
    }
}

fn show_list(screen: &Screen, forwarders: &[Forwarder]) -> std::io::Result<()> {
    let headers = ["FORWARDER", "KIND", "STATE", "NEXT", "BEHIND", "FAILURES", "LAST ERROR"];
    let mut list = table::List::new(screen, &headers, &[0, 1, 2, 3, 4, 5]);
    for forwarder in forwarders {
        let name = |of, number| enum_value_name(of, number).to_lowercase();
        let next = forwarder.next_position.map(|p| p.to_string()).unwrap_or_default();
        list.row(&[
            (&forwarder.name, Tone::Strong),
            (&name("keyledger.v1.ForwarderKind", forwarder.kind), Tone::Plain),
            (&name("keyledger.v1.ForwarderState", forwarder.state), tone(forwarder.state())),
            (&next, Tone::Plain),
            (&behind(forwarder), Tone::Plain),
            (&forwarder.consecutive_failures.to_string(), Tone::Plain),
            (&forwarder.last_error, Tone::Faint),
        ]);
    }
    list.print()
}

fn tone(state: ForwarderState) -> Tone {
    match state {
        ForwarderState::Running => Tone::Good,
        ForwarderState::Failing | ForwarderState::Unheld => Tone::Bad,
        ForwarderState::Unspecified => Tone::Plain,
    }
}

fn behind(forwarder: &Forwarder) -> String {
    match (forwarder.lag_entries, &forwarder.lag) {
        (0, _) => "0".into(),
        (entries, Some(lag)) => format!("{entries}, {} s", lag.seconds),
        (entries, None) => entries.to_string(),
    }
}
