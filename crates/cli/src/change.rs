//! What all changes share: a reason, a request id that makes a repeat safe, and a secret that is shown once.

use keyledger_proto::RotationPolicy;
use prost_types::Duration;
use uuid::Uuid;

use crate::failure::Failure;
use crate::screen::{Screen, Tone};
use crate::table::Facts;
use crate::values::{parse_duration, show_duration};

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
    /// Ticket or change id that approves it, at most 128 bytes of `A-Z a-z 0-9 - _ . : / #`. Kept in the clear. The ledger's
    /// policy may ask for it.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub approval_ref: String,
    /// Only say what would become of it: nothing is changed, and no token is made.
    #[arg(long)]
    pub dry_run: bool,
}

impl Change {
    pub(crate) fn request_id(&self) -> String {
        self.request_id.unwrap_or_else(Uuid::new_v4).to_string()
    }
}

/// How old secrets may grow.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct RotationArgs {
    /// From which age on a secret is to be rotated: `90d`. An entry notes it.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    rotate_every: Option<Duration>,
    /// How much later a key that was not rotated is suspended: `7d`, or `0s` for at once. Without it, it is only noted.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "rotate_every")]
    suspend_after: Option<Duration>,
}

impl RotationArgs {
    pub(crate) fn to_wire(self) -> Option<RotationPolicy> {
        let suspend_after = self.suspend_after;
        self.rotate_every.map(|max_age| RotationPolicy { max_age: Some(max_age), suspend_after })
    }
}

/// A rotation policy in words.
pub(crate) fn show_rotation(rotation: &RotationPolicy) -> String {
    let age = rotation.max_age.as_ref().map(show_duration).unwrap_or_default();
    match &rotation.suspend_after {
        None => format!("every {age}"),
        Some(after) => format!("every {age}, else suspended {} later", show_duration(after)),
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
