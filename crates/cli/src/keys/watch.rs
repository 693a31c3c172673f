//! `keyledger keys watch`.

use keyledger_proto::{KeyChange, WatchKeysRequest};

use super::show;
use crate::connection::Session;
use crate::json::{self, Output};
use crate::screen::{Screen, Tone, inert};
use crate::stream::follow;
use crate::values::show_time;

/// Follow changes of keys and roles as they happen, each once and in the order of the ledger, until this command is stopped.
///
/// Uses are left out, and so are names of people and all that was said in words: `keyledger audit tail` shows those. With
/// `-o json` each change is one line, with the position to continue from.
#[derive(clap::Args)]
#[command(after_help = "Example: keyledger keys watch --from 0")]
pub(super) struct Watch {
    /// First position to look at: 0 is the beginning of the ledger. Without it only what is new is printed.
    #[arg(long, value_name = "POSITION")]
    from: Option<u64>,
    #[command(flatten)]
    output: Output,
}

impl Watch {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let request = WatchKeysRequest { from_position: self.from };
        let stream = session.keys().watch_keys(session.stream(request)).await;
        let stream = stream.map_err(|s| session.failure(&s))?.into_inner();
        follow(session, stream, self.from, |reply| {
            // Without a change it is a heartbeat.
            match &reply.change {
                Some(_) if self.output.is_json() => {
                    json::print_line(screen, "WatchKeysResponse", &reply)?
                }
                Some(change) => print_line(screen, change)?,
                None => {}
            }
            Ok(reply.next_position)
        })
        .await
    }
}

/// Columns of a fixed width, because what comes next isn't known yet.
fn print_line(screen: &Screen, change: &KeyChange) -> std::io::Result<()> {
    let time = change.time.as_ref().map(show_time).unwrap_or_default();
    let time = screen.paint(&format!("{:<27}", inert(&time)), Tone::Faint);
    let at = change.position.map(|p| p.to_string()).unwrap_or_default();
    let line = format!(
        "{time}  {at:<10}  {:<22}  {:<36}  {}",
        inert(&change.r#type),
        inert(&change.key_id),
        inert(&detail(change))
    );
    screen.line(line.trim_end())
}

/// Which role it is about, or what became of the key by now.
fn detail(change: &KeyChange) -> String {
    match (change.role.as_str(), &change.key) {
        ("", None) => String::new(),
        ("", Some(key)) => format!("now {}", show::state(key)),
        (role, _) => format!("role {role}"),
    }
}

#[cfg(test)]
mod tests {
    use keyledger_proto::{Key, KeyState};

    use super::*;

    #[test]
    fn a_change_says_what_it_is_about() {
        let key = Key { state: KeyState::Suspended as i32, ..Key::default() };
        let of_key = KeyChange { key: Some(key), ..KeyChange::default() };
        let of_role = KeyChange { role: "readers".into(), ..KeyChange::default() };
        assert_eq!(detail(&of_key), "now suspended");
        assert_eq!(detail(&of_role), "role readers");
        assert_eq!(detail(&KeyChange::default()), "");
    }
}
