//! `keyledger keys verify`: asks for a verdict on somebody's token.

use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use keyledger_proto::entry::Decision;
use keyledger_proto::{Client, VerifyKeyRequest, VerifyKeyResponse};

use crate::Ending;
use crate::connection::Session;
use crate::failure::Failure;
use crate::json::{self, Output, enum_value_name};
use crate::screen::{Screen, Tone};
use crate::table::Facts;
use crate::values::{parse_duration, show_grant, show_time, words};

/// Whatever is longer is no token: a wrong file, most likely.
const MAX_SUBJECT: u64 = 4096;

/// Check whether the key behind a token may do something. The check is recorded before it is answered.
///
/// The token to check is read from standard input or from a file, never from an argument: other users could read it there
/// with `ps`. The exit code is 0 for ALLOW and 10 for DENY.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Check {
    /// File with the token to check. Without it the token is read from standard input.
    #[arg(long, value_name = "FILE")]
    subject_token_file: Option<PathBuf>,
    /// What the client wants to do: a dotted name such as `audit.read`.
    #[arg(long, value_name = "PERMISSION")]
    permission: String,
    /// On what: a path such as `logs/error`, at most 512 bytes.
    #[arg(long, value_name = "PATH")]
    resource: String,
    /// Network address of the client that presented the token, without a port. Kept sealed.
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    client_address: String,
    /// User agent of the client that presented the token, at most 512 bytes. Kept sealed.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    client_user_agent: String,
    /// For whom the token was presented, at most 128 bytes.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    audience: String,
    /// Why, in words of at most 1,024 bytes. Kept sealed.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// How old the answer may be, at most 60 seconds: where role and policy allow it, it is then given from memory. Without it,
    /// strictly.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    max_staleness: Option<prost_types::Duration>,
    #[command(flatten)]
    output: Output,
}

const EXAMPLE: &str = "\
Example: keyledger keys verify --permission audit.read --resource logs/error --reason 'nightly export' < subject.token";

impl Check {
    /// The token to check, without the newline that an editor leaves at its end.
    pub(super) fn read_subject(&self) -> anyhow::Result<String> {
        read_subject(self.subject_token_file.as_deref())
    }

    pub(super) async fn run(
        self,
        session: &Session,
        screen: &Screen,
        subject: String,
    ) -> anyhow::Result<Ending> {
        let output = self.output;
        let reply = session.keys().verify_key(session.call(self.request(subject))).await;
        let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
        match output.is_json() {
            true => json::print_reply(screen, "VerifyKeyResponse", &reply)?,
            false => show(screen, &reply)?,
        }
        Ok(if allowed(&reply) { Ending::Good } else { Ending::NotGood })
    }

    fn request(self, token: String) -> VerifyKeyRequest {
        let known = !self.client_address.is_empty() || !self.client_user_agent.is_empty();
        let client = Client { address: self.client_address, user_agent: self.client_user_agent };
        VerifyKeyRequest {
            token,
            permission: self.permission,
            resource: self.resource,
            client: known.then_some(client),
            audience: self.audience,
            reason: self.reason,
            max_staleness: self.max_staleness,
            keep: None,
        }
    }
}

/// Somebody's token, from a file or from standard input.
pub(super) fn read_subject(file: Option<&Path>) -> anyhow::Result<String> {
    match file {
        Some(file) => {
            let subject = std::fs::File::open(file).and_then(read_bounded);
            subject.map_err(|e| unreadable(&format!("the file {}", file.display()), &e).into())
        }
        None => {
            if io::stdin().is_terminal() {
                eprintln!("The token (it is shown as you type), then Enter and Ctrl-D:");
            }
            read_bounded(io::stdin()).map_err(|e| unreadable("standard input", &e).into())
        }
    }
}

fn allowed(reply: &VerifyKeyResponse) -> bool {
    reply.decision == Decision::Allow as i32
}

fn show(screen: &Screen, reply: &VerifyKeyResponse) -> io::Result<()> {
    let tone = if allowed(reply) { Tone::Good } else { Tone::Bad };
    let mut facts = Facts::new(screen);
    facts.add_in("verdict", &enum_value_name("keyledger.entry.v1.Decision", reply.decision), tone);
    facts.add("why", &words(&enum_value_name("keyledger.entry.v1.DecisionReason", reply.reason)));
    facts.add("key", &reply.key_id);
    facts.add("grant", &reply.matched_grant.as_ref().map(show_grant).unwrap_or_default());
    facts.add("of role", &reply.matched_role);
    facts.add("expires", &reply.expire_time.as_ref().map(show_time).unwrap_or_default());
    let recorded = match (&reply.as_of_time, reply.position, reply.index) {
        (Some(time), ..) => format!("soon: answered from memory at {}", show_time(time)),
        (None, Some(position), Some(index)) => format!("position {position}, index {index}"),
        (None, ..) => String::new(),
    };
    facts.add("recorded", &recorded);
    facts.print()
}

fn read_bounded(source: impl Read) -> io::Result<String> {
    let mut subject = String::new();
    source.take(MAX_SUBJECT + 1).read_to_string(&mut subject)?;
    if subject.len() as u64 > MAX_SUBJECT {
        return Err(io::Error::other(format!("more than {MAX_SUBJECT} bytes are no token")));
    }
    let kept = subject.trim_end_matches(['\r', '\n']).len();
    subject.truncate(kept);
    Ok(subject)
}

fn unreadable(source: &str, error: &io::Error) -> Failure {
    Failure::new(format!("the token can't be read from {source}: {error}")).next(
        "pipe the token in, or name a file that holds only the token with --subject-token-file",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_taken_as_it_is_but_for_its_last_newline() {
        let read = |bytes: &[u8]| read_bounded(bytes);
        assert_eq!(read(b"klk_abc\r\n").unwrap(), "klk_abc");
        assert_eq!(read(b" klk_abc ").unwrap(), " klk_abc ");
        assert_eq!(read(b"").unwrap(), "");
        assert!(read(&[b'x'; 4097]).is_err());
        assert!(read(&[b'x'; 4096]).is_ok());
        assert!(read(b"\xff").is_err());
    }
}
