//! `keyledger keys suspend` and `keyledger keys resume`.

use keyledger_proto::{ResumeKeyRequest, SuspendKeyRequest};
use uuid::Uuid;

use super::show;
use crate::change::{self, Change};
use crate::connection::Session;
use crate::json::{self, Output};
use crate::screen::Screen;

/// Stop a key until it is resumed. When this has answered, no replica accepts it.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger keys suspend 0198c5a0-0000-8000-8000-000000000001 --reason 'looks odd, being checked'"
)]
pub(super) struct Suspend {
    /// Which key: a UUID.
    key_id: Uuid,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    output: Output,
}

/// Accept a suspended key again. The caller must hold what the key may do.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger keys resume 0198c5a0-0000-8000-8000-000000000001 --reason 'was a false alarm'"
)]
pub(super) struct Resume {
    /// Which key: a UUID.
    key_id: Uuid,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    output: Output,
}

impl Suspend {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let request_id = self.change.request_id();
        let request = SuspendKeyRequest {
            key_id: self.key_id.to_string(),
            reason: self.change.reason.clone(),
            request_id: request_id.clone(),
            validate_only: self.change.dry_run,
            approval_ref: self.change.approval_ref.clone(),
        };
        let reply = session.keys().suspend_key(session.call(request)).await;
        let reply = reply.map_err(|s| session.change_failure(&s, &request_id))?.into_inner();
        if self.output.is_json() {
            return json::print_reply(screen, "SuspendKeyResponse", &reply);
        }
        show::facts(screen, &reply.key.unwrap_or_default()).print()?;
        Ok(change::print_dry_run(screen, &self.change)?)
    }
}

impl Resume {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let request_id = self.change.request_id();
        let request = ResumeKeyRequest {
            key_id: self.key_id.to_string(),
            reason: self.change.reason.clone(),
            request_id: request_id.clone(),
            validate_only: self.change.dry_run,
            approval_ref: self.change.approval_ref.clone(),
        };
        let reply = session.keys().resume_key(session.call(request)).await;
        let reply = reply.map_err(|s| session.change_failure(&s, &request_id))?.into_inner();
        if self.output.is_json() {
            return json::print_reply(screen, "ResumeKeyResponse", &reply);
        }
        show::facts(screen, &reply.key.unwrap_or_default()).print()?;
        Ok(change::print_dry_run(screen, &self.change)?)
    }
}
