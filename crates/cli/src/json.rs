//! Output for programs: any reply as canonical proto JSON, the same that other gRPC tools print.

use anyhow::Context;
use keyledger_proto::export::harmless;
use prost::Message;
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde::Serialize;

use crate::screen::Screen;

/// How a command answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A table for people.
    Table,
    /// JSON for programs; replies as the proto JSON mapping says: 64-bit numbers are strings, bytes are base64.
    Json,
}

/// The option that every command with an answer takes.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Output {
    /// How to print the answer.
    #[arg(
        short = 'o',
        long = "format",
        value_enum,
        default_value = "table",
        value_name = "FORMAT"
    )]
    format: Format,
}

impl Output {
    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }
}

/// Prints a reply in several lines. `name` is that of its message in the package `keyledger.v1`.
pub(crate) fn print_reply(screen: &Screen, name: &str, reply: &impl Message) -> anyhow::Result<()> {
    let reply = reflect(name, reply)?;
    Ok(screen.line(&harmless(&written(&reply, serde_json::Serializer::pretty)?))?)
}

/// Prints a reply in one line, for streams.
pub(crate) fn print_line(screen: &Screen, name: &str, reply: &impl Message) -> anyhow::Result<()> {
    let reply = reflect(name, reply)?;
    Ok(screen.line(&harmless(&written(&reply, serde_json::Serializer::new)?))?)
}

/// Prints one page of a list: in several lines if it is the only one, else in one.
pub(crate) fn print_page(
    screen: &Screen,
    name: &str,
    reply: &impl Message,
    all: bool,
) -> anyhow::Result<()> {
    if all { print_line(screen, name, reply) } else { print_reply(screen, name, reply) }
}

/// A value of ours, in one line.
pub(crate) fn line_of(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(harmless(&serde_json::to_string(value)?))
}

/// The name of an enum's value without the prefix that all its names share, or its number if it has none.
/// `name` is the full name of the enum.
pub(crate) fn enum_value_name(name: &str, number: i32) -> String {
    let pool = keyledger_proto::methods::pool();
    let descriptor = pool.get_enum_by_name(name).expect("our own protos declare it");
    match (descriptor.get_value(number), descriptor.get_value(0)) {
        (Some(value), Some(zero)) => {
            let prefix = zero.name().trim_end_matches("UNSPECIFIED");
            value.name().strip_prefix(prefix).unwrap_or(value.name()).into()
        }
        _ => number.to_string(),
    }
}

fn reflect(name: &str, reply: &impl Message) -> anyhow::Result<DynamicMessage> {
    let full_name = format!("keyledger.v1.{name}");
    let descriptor = keyledger_proto::methods::pool().get_message_by_name(&full_name);
    let descriptor = descriptor.with_context(|| format!("{full_name} is not in our protos"))?;
    Ok(DynamicMessage::decode(descriptor, reply.encode_to_vec().as_slice())?)
}

fn written<F: serde_json::ser::Formatter>(
    message: &DynamicMessage,
    serializer: impl FnOnce(Vec<u8>) -> serde_json::Serializer<Vec<u8>, F>,
) -> anyhow::Result<String> {
    let mut serializer = serializer(vec![]);
    message.serialize_with_options(&mut serializer, &SerializeOptions::new())?;
    Ok(String::from_utf8(serializer.into_inner())?)
}

#[cfg(test)]
mod tests {
    use keyledger_proto::entry::{Decision, DecisionReason};
    use keyledger_proto::{GetCheckpointResponse, VerifyKeyResponse};

    use super::*;

    #[test]
    fn a_reply_becomes_canonical_proto_json() {
        let reply = VerifyKeyResponse {
            decision: Decision::Deny as i32,
            reason: DecisionReason::NoGrant as i32,
            position: Some(17),
            index: Some(0),
            expire_time: Some(prost_types::Timestamp { seconds: 0, nanos: 1000 }),
            ..Default::default()
        };
        let reply = reflect("VerifyKeyResponse", &reply).unwrap();
        assert_eq!(
            written(&reply, serde_json::Serializer::new).unwrap(),
            r#"{"decision":"DECISION_DENY","reason":"DECISION_REASON_NO_GRANT","expireTime":"1970-01-01T00:00:00.000001Z","position":"17","index":0}"#
        );
    }

    #[test]
    fn what_a_terminal_would_act_on_is_escaped_and_means_the_same() {
        let note = "a\u{202e}b\u{9b}c\nd\u{7f}";
        let reply = GetCheckpointResponse { note: note.into(), ..Default::default() };
        let reply = reflect("GetCheckpointResponse", &reply).unwrap();
        for json in [
            harmless(&written(&reply, serde_json::Serializer::pretty).unwrap()),
            harmless(&written(&reply, serde_json::Serializer::new).unwrap()),
        ] {
            assert!(json.contains(r"a\u202eb\u009bc\nd\u007f"), "{json}");
            let read: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!(read["note"], note);
        }
    }

    #[test]
    fn values_of_enums_have_short_names() {
        assert_eq!(enum_value_name("keyledger.entry.v1.RevocationKind", 2), "OWNER_LEFT");
        assert_eq!(enum_value_name("keyledger.v1.KeyState", 1), "ACTIVE");
        assert_eq!(enum_value_name("keyledger.v1.KeyState", 99), "99");
    }
}
