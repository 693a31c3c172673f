//! Output for programs: any reply as canonical proto JSON, the same that other gRPC tools print.

use keyledger_proto::json::{harmless, line, pretty};
use prost::Message;
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
    Ok(screen.line(&pretty(name, reply))?)
}

/// Prints a reply in one line, for streams.
pub(crate) fn print_line(screen: &Screen, name: &str, reply: &impl Message) -> anyhow::Result<()> {
    Ok(screen.line(&line(name, reply))?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_enums_have_short_names() {
        assert_eq!(enum_value_name("keyledger.entry.v1.RevocationKind", 2), "OWNER_LEFT");
        assert_eq!(enum_value_name("keyledger.v1.KeyState", 1), "ACTIVE");
        assert_eq!(enum_value_name("keyledger.v1.KeyState", 99), "99");
    }
}
