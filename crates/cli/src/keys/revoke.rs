//! `keyledger keys revoke`.

use keyledger_proto::RevokeKeyRequest;
use uuid::Uuid;

use super::show;
use crate::change::{self, Change};
use crate::connection::Session;
use crate::json::{self, Output};
use crate::screen::Screen;
use crate::values::revocation_kinds;

/// End a key for good. When this has answered, no replica accepts the key any more.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger keys revoke 0198c5a0-0000-8000-8000-000000000001 --kind owner-left --reason 'left the company'"
)]
pub(super) struct Revoke {
    /// Which key: a UUID.
    key_id: Uuid,
    /// Why, as a kind.
    #[arg(long, value_name = "KIND", value_parser = revocation_kinds())]
    kind: i32,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    output: Output,
}

impl Revoke {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let request_id = self.change.request_id();
        let request = RevokeKeyRequest {
            key_id: self.key_id.to_string(),
            kind: self.kind,
            reason: self.change.reason.clone(),
            request_id: request_id.clone(),
            validate_only: self.change.dry_run,
            approval_ref: self.change.approval_ref.clone(),
        };
        let reply = session.keys().revoke_key(session.call(request)).await;
        let reply = reply.map_err(|s| session.change_failure(&s, &request_id))?.into_inner();
        if self.output.is_json() {
            return json::print_reply(screen, "RevokeKeyResponse", &reply);
        }
        show::facts(screen, &reply.key.unwrap_or_default()).print()?;
        Ok(change::print_dry_run(screen, &self.change)?)
    }
}
