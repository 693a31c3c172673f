//! `keyledger keys lookup` and `keyledger keys revoke-leaked`: what to do with a token that was found.

use std::path::PathBuf;

use keyledger_proto::{LookupKeyRequest, RevokeBySecretRequest};

use super::check::read_subject;
use super::show;
use crate::connection::Session;
use crate::json::{self, Output, enum_value_name};
use crate::screen::Screen;
use crate::values::words;

/// Find the key behind a token, whatever became of it. The token is read from standard input or from a file.
#[derive(clap::Args)]
#[command(after_help = "Example: keyledger keys lookup < found.token")]
pub(super) struct Lookup {
    /// File with the token. Without it the token is read from standard input.
    #[arg(long, value_name = "FILE")]
    subject_token_file: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// End the key behind a token that leaked. Whoever holds the token may; nothing is told about the key.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger keys revoke-leaked --reason 'found in a public repository' < found.token"
)]
pub(super) struct RevokeLeaked {
    /// File with the token. Without it the token is read from standard input.
    #[arg(long, value_name = "FILE")]
    subject_token_file: Option<PathBuf>,
    /// Where it was found, in words of at most 1,024 bytes. Kept sealed.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

impl Lookup {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let token = read_subject(self.subject_token_file.as_deref())?;
        let reply = session.keys().lookup_key(session.call(LookupKeyRequest { token })).await;
        let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
        if self.output.is_json() {
            return json::print_reply(screen, "LookupKeyResponse", &reply);
        }
        let mut facts = show::facts(screen, &reply.key.unwrap_or_default());
        let reason = enum_value_name("keyledger.entry.v1.DecisionReason", reply.reason);
        let standing = match reason.as_str() {
            "GRANTED" => "accepted".to_string(),
            other => words(other),
        };
        facts.add("this token", &format!("secret {}, {standing}", reply.version));
        Ok(facts.print()?)
    }
}

impl RevokeLeaked {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let token = read_subject(self.subject_token_file.as_deref())?;
        let request = RevokeBySecretRequest { token, reason: self.reason };
        let reply = session.keys().revoke_by_secret(session.call(request)).await;
        reply.map_err(|s| session.failure(&s))?;
        Ok(screen.line("If there was such a key, it has ended.")?)
    }
}
