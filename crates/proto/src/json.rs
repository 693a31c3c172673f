//! Messages as canonical proto JSON: 64-bit numbers are strings, bytes are base64, values of enums have their names.
//!
//! Characters that a terminal or a line-based reader would act on stand as `\u` escapes: the same JSON, in one line.

use keyledger_ledger::text::is_unsafe_in_a_line;
use prost::Message;
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};

/// A message in one line. `name` is that of its type in the package `keyledger.v1`.
///
/// Panics if there is no such type: that is a bug of ours.
pub fn line(name: &str, message: &impl Message) -> String {
    written(name, message, CompactFormatter)
}

/// A message in several lines.
///
/// Panics if there is no such type: that is a bug of ours.
pub fn pretty(name: &str, message: &impl Message) -> String {
    written(name, message, PrettyFormatter::new())
}

/// The same JSON with unsafe characters as `\u` escapes. They can only stand inside strings; all of them are below U+10000.
pub fn harmless(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match is_unsafe_in_a_line(c) && c != '\n' {
            true => text.push_str(&format!("\\u{:04x}", c as u32)),
            false => text.push(c),
        }
    }
    text
}

fn written(name: &str, message: &impl Message, formatter: impl Formatter) -> String {
    let descriptor = crate::methods::pool().get_message_by_name(&format!("keyledger.v1.{name}"));
    let descriptor = descriptor.unwrap_or_else(|| panic!("{name} is not in our protos"));
    let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .expect("a message is what its own descriptor says");
    let mut serializer = serde_json::Serializer::with_formatter(vec![], formatter);
    message
        .serialize_with_options(&mut serializer, &SerializeOptions::new())
        .expect("every message of ours has a JSON form, and memory takes it");
    let json = String::from_utf8(serializer.into_inner()).expect("JSON is UTF-8");
    harmless(&json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Decision, DecisionReason};
    use crate::{GetCheckpointResponse, VerifyKeyResponse};

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
        assert_eq!(
            line("VerifyKeyResponse", &reply),
            r#"{"decision":"DECISION_DENY","reason":"DECISION_REASON_NO_GRANT","expireTime":"1970-01-01T00:00:00.000001Z","position":"17","index":0}"#
        );
    }

    #[test]
    fn what_a_terminal_would_act_on_is_escaped_and_means_the_same() {
        let note = "a\u{202e}b\u{9b}c\nd\u{7f}\u{2028}e";
        let reply = GetCheckpointResponse { note: note.into(), ..Default::default() };
        let name = "GetCheckpointResponse";
        assert_eq!(line(name, &reply).lines().count(), 1);
        for json in [pretty(name, &reply), line(name, &reply)] {
            assert!(json.contains(r"a\u202eb\u009bc\nd\u007f\u2028e"), "{json}");
            let read: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!(read["note"], note);
        }
    }
}
