//! What all changes share: a reason, a request id that makes a repeat safe, and a secret that is shown once.

use uuid::Uuid;

use crate::failure::Failure;
use crate::screen::{Screen, Tone};
use crate::table::Facts;

/// Options of every change.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Change {
    /// Why, in words of at most 1,024 bytes. Kept sealed.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// UUID that makes a repeat safe: the same id with the same options gives the first answer again, without the secret.
    /// Without it a new one is made, and named if the call fails.
    #[arg(long, value_name = "UUID")]
    request_id: Option<Uuid>,
    /// Only say what would become of it: nothing is changed, and no token is made.
    #[arg(long)]
    pub dry_run: bool,
}

impl Change {
    pub(crate) fn request_id(&self) -> String {
        self.request_id.unwrap_or_else(Uuid::new_v4).to_string()
    }
}

/// The option of every change that makes a secret.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct TokenOnly {
    /// Print the token and nothing else.
    #[arg(long, conflicts_with = "format")]
    pub token_only: bool,
}

const NOT_AGAIN: &str = "the request was answered before, and a token is shown once";

/// The token alone, for `$(…)` and pipes.
pub(crate) fn print_token(screen: &Screen, token: &str) -> anyhow::Result<()> {
    if token.is_empty() {
        return Err(Failure::new(format!("there is no token to print: {NOT_AGAIN}"))
            .next("if nobody kept it, `keyledger keys rotate KEY_ID` gives the key a new one")
            .into());
    }
    Ok(screen.verbatim(&format!("{token}\n"))?)
}

pub(crate) fn add_token(facts: &mut Facts<'_>, token: &str) {
    match token {
        "" => facts.add("token", &format!("({NOT_AGAIN})")),
        token => facts.add_in("token", token, Tone::Strong),
    }
}

/// Says that what is shown above is not so.
pub(crate) fn print_dry_run(screen: &Screen, change: &Change) -> std::io::Result<()> {
    match change.dry_run {
        true => screen.line("\nA dry run: nothing was changed."),
        false => Ok(()),
    }
}

/// Says that the token above won't be seen again.
pub(crate) fn print_once(screen: &Screen, token: &str) -> std::io::Result<()> {
    match token {
        "" => Ok(()),
        _ => screen.line("\nThe token is shown this once and kept nowhere: store it now."),
    }
}
