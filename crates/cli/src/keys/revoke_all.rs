//! `keyledger keys revoke-all`.

use keyledger_proto::{RevokeKeysRequest, RevokeKeysResponse};
use uuid::Uuid;

use super::filter::Filter;
use crate::connection::Session;
use crate::json::{self, Output};
use crate::screen::Screen;
use crate::table::Facts;
use crate::values::revocation_kinds;

/// End all keys that the options name, an entry for each. Try it with --dry-run first.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger keys revoke-all --user alice@example.com --kind owner-left --reason 'left the company' --dry-run"
)]
pub(super) struct RevokeAll {
    #[command(flatten)]
    filter: Filter,
    /// Why, as a kind.
    #[arg(long, value_name = "KIND", value_parser = revocation_kinds())]
    kind: i32,
    /// Why, in words of at most 1,024 bytes. Kept sealed.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Ticket or change id that approves it. Kept in the clear. The ledger's policy may ask for it.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    approval_ref: String,
    /// UUID that makes a repeat safe. Whoever repeats the call without one goes on where it stopped, too.
    #[arg(long, value_name = "UUID")]
    request_id: Option<Uuid>,
    /// Only say which keys would be ended.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

impl RevokeAll {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let request = RevokeKeysRequest {
            filter: Some(self.filter.to_wire()),
            kind: self.kind,
            reason: self.reason,
            validate_only: self.dry_run,
            request_id: self.request_id.map(|id| id.to_string()).unwrap_or_default(),
            approval_ref: self.approval_ref,
        };
        loop {
            let reply = session.keys().revoke_keys(session.call(request.clone())).await;
            let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
            match self.output.is_json() {
                true => json::print_reply(screen, "RevokeKeysResponse", &reply)?,
                false => print(screen, &reply, self.dry_run)?,
            }
            // A dry run would find the same ones again.
            if !reply.more || self.dry_run {
                return Ok(());
            }
        }
    }
}

fn print(screen: &Screen, reply: &RevokeKeysResponse, dry_run: bool) -> std::io::Result<()> {
    let mut facts = Facts::new(screen);
    let ended = if dry_run { "would end" } else { "ended" };
    facts.add("count", &reply.key_ids.len().to_string());
    facts.add_lines(ended, reply.key_ids.iter().cloned());
    facts.add_lines("made for others", reply.made_for_others.iter().cloned());
    facts.add_lines("not allowed", reply.not_allowed.iter().cloned());
    facts.print()
}
