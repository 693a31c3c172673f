//! `keyledger access owner`: who has left, or is back.

use keyledger_proto::{Owner, SetOwnerStatusRequest, owner};

use crate::change::{self, Change};
use crate::connection::Session;
use crate::json::{self, Output};
use crate::screen::Screen;
use crate::table::Facts;

/// Say that an owner of keys has left, or is back. Their keys stay as they are: `keys revoke-all` ends them.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger access owner --user bob@example.com --left --reason 'the last day was Friday'"
)]
pub(super) struct SetStatus {
    /// This person: an owner of keys, or somebody who is responsible for some.
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present = "service",
        conflicts_with = "service"
    )]
    user: Option<String>,
    /// This service.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// They have left.
    #[arg(long, required_unless_present = "back", conflicts_with = "back")]
    left: bool,
    /// They are back.
    #[arg(long)]
    back: bool,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    output: Output,
}

impl SetStatus {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let request_id = self.change.request_id();
        let user = self.user.map(owner::Owner::User);
        let request = SetOwnerStatusRequest {
            owner: Some(Owner { owner: user.or(self.service.map(owner::Owner::Service)) }),
            left: self.left,
            reason: self.change.reason.clone(),
            request_id: request_id.clone(),
            validate_only: self.change.dry_run,
            approval_ref: self.change.approval_ref.clone(),
        };
        let reply = session.keys().set_owner_status(session.call(request)).await;
        let reply = reply.map_err(|s| session.change_failure(&s, &request_id))?.into_inner();
        if self.output.is_json() {
            return json::print_reply(screen, "SetOwnerStatusResponse", &reply);
        }
        let mut facts = Facts::new(screen);
        facts.add("keys of theirs accepted", &reply.keys.to_string());
        facts.add("keys they answer for", &reply.responsible_for.to_string());
        facts.add("position", &reply.position.map(|p| p.to_string()).unwrap_or_default());
        facts.print()?;
        Ok(change::print_dry_run(screen, &self.change)?)
    }
}
