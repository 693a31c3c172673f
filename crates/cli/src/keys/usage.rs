//! `keyledger keys usage`.

use keyledger_proto::GetKeyUsageRequest;
use uuid::Uuid;

use crate::connection::Session;
use crate::json::{self, Output};
use crate::screen::Screen;
use crate::usage::{Period, print};
use crate::values::parse_key_id;

/// Tell how often a key was used, allowed or refused, and for what.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger keys usage 0198c5a0-0000-8000-8000-000000000001 --from 2026-11-01T00:00:00Z"
)]
pub(super) struct Usage {
    /// Which key: a UUID.
    #[arg(value_parser = parse_key_id)]
    key_id: Uuid,
    #[command(flatten)]
    period: Period,
    #[command(flatten)]
    output: Output,
}

impl Usage {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let request = GetKeyUsageRequest {
            key_id: self.key_id.to_string(),
            interval: self.period.interval(),
            start_time: self.period.from,
            end_time: self.period.to,
        };
        let reply = session.keys().get_key_usage(session.call(request)).await;
        let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
        match self.output.is_json() {
            true => json::print_reply(screen, "GetKeyUsageResponse", &reply)?,
            false => print(screen, &reply.usage.unwrap_or_default())?,
        }
        Ok(())
    }
}
