//! `keyledger keys rotate`.

use keyledger_proto::RotateKeyRequest;
use uuid::Uuid;

use super::show;
use crate::change::{self, Change, TokenOnly};
use crate::connection::Session;
use crate::json::{self, Output};
use crate::screen::Screen;
use crate::values::parse_duration;

/// Give a key a new secret and print its new token, which is shown once and never again. The key id stays.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger keys rotate 0198c5a0-0000-8000-8000-000000000001 --overlap 10m --reason monthly"
)]
pub(super) struct Rotate {
    /// Which key: a UUID.
    key_id: Uuid,
    /// How long the old secret is still accepted, 0 seconds to what the ledger's policy allows (30 days, if it says nothing else): `600s`, `10m`, `1d`. With 0s it ends at once.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "0s")]
    overlap: prost_types::Duration,
    /// The old secret ends as soon as the new one is used, at the latest after --overlap, which must then be given.
    #[arg(long, requires = "overlap")]
    until_first_use: bool,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    token_only: TokenOnly,
    #[command(flatten)]
    output: Output,
}

impl Rotate {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let request_id = self.change.request_id();
        let request = RotateKeyRequest {
            key_id: self.key_id.to_string(),
            overlap: Some(self.overlap),
            until_first_use: self.until_first_use,
            reason: self.change.reason.clone(),
            request_id: request_id.clone(),
            validate_only: self.change.dry_run,
            approval_ref: self.change.approval_ref.clone(),
        };
        let reply = session.keys().rotate_key(session.call(request)).await;
        let reply = reply.map_err(|s| session.change_failure(&s, &request_id))?.into_inner();
        if self.token_only.token_only {
            return change::print_token(screen, &reply.token);
        }
        if self.output.is_json() {
            return json::print_reply(screen, "RotateKeyResponse", &reply);
        }
        let mut facts = show::facts(screen, &reply.key.unwrap_or_default());
        if !self.change.dry_run {
            change::add_token(&mut facts, &reply.token);
        }
        facts.print()?;
        change::print_dry_run(screen, &self.change)?;
        Ok(change::print_once(screen, &reply.token)?)
    }
}
