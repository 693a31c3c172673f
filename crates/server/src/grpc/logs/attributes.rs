//! All that a log record says and an event has no field for, within the bounds of an event. Nothing here refuses a record: what
//! can't stand under its own name stands in one sealed attribute (`otlp.rest`, a JSON list of names with values), text that is too
//! long ends in `… [cut]`, and what even so has no room is counted there (`otlp.left_out`).
//!
//! No more of a value is looked at than an event can hold: the same large resource may surround thousands of records.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyledger_proto::EventAttribute;
use keyledger_proto::event_attribute::Value as Attribute;
use keyledger_proto::parse::events::{
    MAX_ATTRIBUTE, MAX_ATTRIBUTES, MAX_ATTRIBUTES_BYTES, is_attribute_name,
};
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;

use crate::names;

/// What ends a text that is longer than it may be.
const CUT: &str = "… [cut]";
/// What stands for a NUL, which no text of an event may hold.
const NUL: &str = "␀";
/// Most bytes of the rest, of one value and of one name in it.
const MAX_REST: usize = 8_192;
const MAX_REST_VALUE: usize = 2_048;
const MAX_REST_NAME: usize = 256;
/// How much of an event's attributes is for those that stand under their own names.
const MAX_NAMED_BYTES: usize = MAX_ATTRIBUTES_BYTES - MAX_REST - 64;

/// The attributes of one event.
pub(super) struct Attributes<'a> {
    all: Vec<EventAttribute>,
    names: HashSet<&'a str>,
    bytes: usize,
    rest: Vec<String>,
    rest_bytes: usize,
    left_out: usize,
}

impl<'a> Attributes<'a> {
    pub(super) fn new() -> Attributes<'a> {
        Attributes {
            all: vec![],
            names: HashSet::from([names::OTLP_REST]),
            bytes: 0,
            rest: vec![],
            rest_bytes: 0,
            left_out: 0,
        }
    }

    /// Under its name if it can stand there.
    pub(super) fn add(&mut self, name: &'a str, value: &AnyValue, personal: bool) {
        let fits = self.all.len() + 1 < MAX_ATTRIBUTES && is_attribute_name(name);
        if !fits || self.names.contains(name) {
            return self.add_to_rest(name, value);
        }
        let Some(shown) = attribute(value) else { return };
        let text = if let Attribute::Text(text) = &shown { text.len() } else { 0 };
        let bytes = name.len() + 8 + text;
        if self.bytes + bytes > MAX_NAMED_BYTES {
            return self.add_to_rest(name, value);
        }
        self.bytes += bytes;
        self.names.insert(name);
        self.all.push(EventAttribute { name: name.into(), value: Some(shown), personal });
    }

    /// Among what has no name of its own.
    pub(super) fn add_to_rest(&mut self, name: &str, value: &AnyValue) {
        let room = MAX_REST.saturating_sub(self.rest_bytes + 64);
        let value = json_within(value, MAX_REST_VALUE.min(room));
        let pair = format!("[{},{value}]", quoted(&cut(name, MAX_REST_NAME)));
        if pair.len() > room {
            self.left_out += 1;
            return;
        }
        self.rest_bytes += pair.len() + 1;
        self.rest.push(pair);
    }

    pub(super) fn finish(mut self) -> Vec<EventAttribute> {
        if self.left_out > 0 {
            self.rest.push(format!("[\"{}\",{}]", names::OTLP_LEFT_OUT, self.left_out));
        }
        if !self.rest.is_empty() {
            self.all.push(EventAttribute {
                name: names::OTLP_REST.into(),
                value: Some(Attribute::Text(format!("[{}]", self.rest.join(",")))),
                personal: true,
            });
        }
        self.all
    }
}

/// `None`: it says nothing.
fn attribute(value: &AnyValue) -> Option<Attribute> {
    Some(match value.value.as_ref()? {
        Value::StringValue(text) => Attribute::Text(cut(text, MAX_ATTRIBUTE)),
        Value::BoolValue(flag) => Attribute::Flag(*flag),
        Value::IntValue(number) => Attribute::Integer(*number),
        Value::DoubleValue(number) if number.is_finite() => Attribute::Number(*number),
        Value::DoubleValue(number) => Attribute::Text(number.to_string()),
        Value::BytesValue(bytes) => {
            Attribute::Text(cut(&base64(bytes, MAX_ATTRIBUTE), MAX_ATTRIBUTE))
        }
        Value::ArrayValue(_) | Value::KvlistValue(_) => {
            let mut text = String::new();
            write_json(Some(value), &mut text, MAX_ATTRIBUTE);
            Attribute::Text(cut(&text, MAX_ATTRIBUTE))
        }
        Value::StringValueStrindex(_) => return None,
    })
}

/// Text of at most so many bytes, without NUL.
fn cut(text: &str, max: usize) -> String {
    let head = &text[..text.floor_char_boundary(max)];
    let shown = head.replace('\0', NUL);
    if head.len() == text.len() && shown.len() <= max {
        return shown;
    }
    let end = shown.floor_char_boundary(max.saturating_sub(CUT.len()));
    format!("{}{CUT}", &shown[..end])
}

/// A little more than so many bytes, if there are more.
fn base64(bytes: &[u8], max: usize) -> String {
    STANDARD.encode(&bytes[..bytes.len().min(max)])
}

/// JSON of about so many bytes at most: what is longer becomes a text that is cut.
fn json_within(value: &AnyValue, max: usize) -> String {
    let mut text = String::new();
    write_json(Some(value), &mut text, max);
    match &value.value {
        _ if text.len() <= max => text,
        Some(Value::StringValue(long)) => quoted(&cut(long, max)),
        _ => quoted(&cut(&text, max)),
    }
}

/// Writes a little more than so many bytes, if there is more. As deep as a message can be: a hundred levels.
fn write_json(value: Option<&AnyValue>, to: &mut String, max: usize) {
    let head = |text: &str| quoted(&text[..text.floor_char_boundary(max + 4)]);
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => to.push_str(&head(text)),
        Some(Value::BoolValue(flag)) => to.push_str(&flag.to_string()),
        Some(Value::IntValue(number)) => to.push_str(&number.to_string()),
        Some(Value::DoubleValue(number)) if number.is_finite() => {
            to.push_str(&serde_json::Value::from(*number).to_string());
        }
        Some(Value::DoubleValue(number)) => to.push_str(&quoted(&number.to_string())),
        Some(Value::BytesValue(bytes)) => to.push_str(&quoted(&base64(bytes, max))),
        Some(Value::ArrayValue(array)) => {
            to.push('[');
            for (i, value) in array.values.iter().enumerate() {
                if to.len() > max {
                    return;
                }
                to.push_str(if i > 0 { "," } else { "" });
                write_json(Some(value), to, max);
            }
            to.push(']');
        }
        Some(Value::KvlistValue(list)) => {
            to.push('{');
            for (i, pair) in list.values.iter().enumerate() {
                if to.len() > max {
                    return;
                }
                to.push_str(if i > 0 { "," } else { "" });
                to.push_str(&head(&pair.key));
                to.push(':');
                write_json(pair.value.as_ref(), to, max);
            }
            to.push('}');
        }
        Some(Value::StringValueStrindex(_)) | None => to.push_str("null"),
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
