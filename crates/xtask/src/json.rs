//! Just enough JSON to read what grpcurl and cargo print: RFC 8259, numbers kept as text.

use std::collections::VecDeque;
use std::iter::Peekable;
use std::str::Chars;

use crate::process::Result;

/// Deeper input is refused: parsing recurses.
const MAX_DEPTH: usize = 100;

#[derive(Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// One value and nothing after it.
    pub(crate) fn parse(text: &str) -> Result<Json> {
        let mut values = Json::parse_all(text)?;
        match (values.pop(), values.is_empty()) {
            (Some(value), true) => Ok(value),
            _ => Err("expected exactly one JSON value".to_owned()),
        }
    }

    /// Values one after the other, as grpcurl prints a stream.
    pub(crate) fn parse_all(text: &str) -> Result<Vec<Json>> {
        let mut parser = Parser { rest: text.chars().peekable() };
        let mut values = Vec::new();
        while parser.next_is_something() {
            values.push(parser.value(0)?);
        }
        Ok(values)
    }

    /// The value at a path of names, such as `key.keyId`.
    pub(crate) fn at(&self, path: &str) -> Option<&Json> {
        path.split('.').try_fold(self, |value, name| match value {
            Json::Object(fields) => {
                fields.iter().find(|(field, _)| field == name).map(|(_, value)| value)
            }
            _ => None,
        })
    }

    /// All values of fields of that name at any depth, the outermost first.
    pub(crate) fn fields_named(&self, name: &str) -> Vec<&Json> {
        let mut found = Vec::new();
        let mut waiting = VecDeque::from([self]);
        while let Some(value) = waiting.pop_front() {
            match value {
                Json::List(items) => waiting.extend(items),
                Json::Object(fields) => {
                    found.extend(
                        fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value),
                    );
                    waiting.extend(fields.iter().map(|(_, value)| value));
                }
                _ => {}
            }
        }
        found
    }

    /// All strings at any depth.
    pub(crate) fn texts(&self) -> Vec<&str> {
        match self {
            Json::Text(text) => vec![text],
            Json::List(items) => items.iter().flat_map(Json::texts).collect(),
            Json::Object(fields) => fields.iter().flat_map(|(_, value)| value.texts()).collect(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A number, also as the string that protobuf's JSON makes of 64-bit ones.
    pub(crate) fn number(&self) -> Option<u64> {
        match self {
            Json::Number(digits) | Json::Text(digits) => digits.parse().ok(),
            _ => None,
        }
    }
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Parser<'_> {
    fn value(&mut self, depth: usize) -> Result<Json> {
        if depth > MAX_DEPTH {
            return Err(format!("JSON is nested deeper than {MAX_DEPTH}"));
        }
        self.next_is_something();
        match self.rest.peek() {
            Some('{') => self.object(depth),
            Some('[') => self.list(depth),
            Some('"') => Ok(Json::Text(self.string()?)),
            Some(c) if c.is_ascii_digit() || *c == '-' => Ok(Json::Number(self.word())),
            Some(_) => match self.word().as_str() {
                "null" => Ok(Json::Null),
                "true" => Ok(Json::Bool(true)),
                "false" => Ok(Json::Bool(false)),
                other => Err(format!("not JSON: `{other}`")),
            },
            None => Err("JSON ends too early".to_owned()),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json> {
        self.expect('{')?;
        let mut fields = Vec::new();
        while !self.closes('}', fields.is_empty())? {
            self.next_is_something();
            let name = self.string()?;
            self.expect(':')?;
            fields.push((name, self.value(depth + 1)?));
        }
        Ok(Json::Object(fields))
    }

    fn list(&mut self, depth: usize) -> Result<Json> {
        self.expect('[')?;
        let mut items = Vec::new();
        while !self.closes(']', items.is_empty())? {
            items.push(self.value(depth + 1)?);
        }
        Ok(Json::List(items))
    }

    /// True at the end of a list or object; before any but the first item, takes the comma.
    fn closes(&mut self, end: char, first: bool) -> Result<bool> {
        self.next_is_something();
        if self.rest.next_if_eq(&end).is_some() {
            return Ok(true);
        }
        if !first {
            self.expect(',')?;
        }
        Ok(false)
    }

    fn string(&mut self) -> Result<String> {
        self.expect('"')?;
        let mut text = String::new();
        loop {
            match self.rest.next() {
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.escape()?),
                Some(c) => text.push(c),
                None => return Err("a JSON string doesn't end".to_owned()),
            }
        }
    }

    fn escape(&mut self) -> Result<char> {
        match self.rest.next() {
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('b') => Ok('\u{8}'),
            Some('f') => Ok('\u{c}'),
            Some('u') => self.unicode_escape(),
            Some(c @ ('"' | '\\' | '/')) => Ok(c),
            other => Err(format!("unknown escape in a JSON string: {other:?}")),
        }
    }

    fn unicode_escape(&mut self) -> Result<char> {
        let mut unit = u32::from(self.four_hex_digits()?);
        if (0xD800..0xDC00).contains(&unit) {
            self.expect('\\')?;
            self.expect('u')?;
            let low = u32::from(self.four_hex_digits()?);
            if (0xDC00..0xE000).contains(&low) {
                unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
            }
        }
        char::from_u32(unit).ok_or_else(|| "half a character in a JSON string".to_owned())
    }

    fn four_hex_digits(&mut self) -> Result<u16> {
        let digits: String = self.rest.by_ref().take(4).collect();
        u16::from_str_radix(&digits, 16).map_err(|_| format!("not four hex digits: `{digits}`"))
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(c) = self.rest.next_if(|c| c.is_ascii_alphanumeric() || "+-.".contains(*c)) {
            word.push(c);
        }
        word
    }

    fn expect(&mut self, wanted: char) -> Result {
        self.next_is_something();
        match self.rest.next() {
            Some(c) if c == wanted => Ok(()),
            other => Err(format!("JSON: expected {wanted:?}, found {other:?}")),
        }
    }

    /// Skips white space; false at the end.
    fn next_is_something(&mut self) -> bool {
        while self.rest.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        self.rest.peek().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read() {
        let reply = Json::parse(
            r#"{"key": {"keyId": "k1", "grants": [{"resource": "a/**"}, {}]}, "position": "12",
                "index": 0, "allowed": true, "none": null, "rate": -1.5e3}"#,
        )
        .unwrap();
        assert_eq!(reply.at("key.keyId").and_then(Json::text), Some("k1"));
        assert_eq!(reply.at("position").and_then(Json::number), Some(12));
        assert_eq!(reply.at("index").and_then(Json::number), Some(0));
        assert_eq!(reply.at("allowed"), Some(&Json::Bool(true)));
        assert_eq!(reply.at("rate"), Some(&Json::Number("-1.5e3".to_owned())));
        assert_eq!(reply.at("key.missing"), None);
        assert_eq!(reply.fields_named("resource"), [&Json::Text("a/**".to_owned())]);
        assert_eq!(reply.texts(), ["k1", "a/**", "12"]);
    }

    #[test]
    fn a_stream_is_read_value_by_value() {
        let values = Json::parse_all("{\"position\":\"0\"}\n{\n}\n [] ").unwrap();
        assert_eq!(values.len(), 3);
        assert_eq!(Json::parse_all("").unwrap(), []);
    }

    #[test]
    fn the_outermost_field_comes_first() {
        let value = Json::parse(r#"{"inner": {"position": 2}, "position": 1}"#).unwrap();
        let positions: Vec<_> =
            value.fields_named("position").into_iter().map(Json::number).collect();
        assert_eq!(positions, [Some(1), Some(2)]);
    }

    #[test]
    fn escapes_are_undone() {
        let value = Json::parse(r#""a\"\\\/\n\u00e9\ud83d\ude00""#).unwrap();
        assert_eq!(value.text(), Some("a\"\\/\né😀"));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        let deep = "[".repeat(MAX_DEPTH + 2);
        for bad in [
            "",
            "{",
            "[1 2]",
            "{\"a\"}",
            "\"x",
            "yes",
            "{} {}",
            r#""\ud83d""#,
            r#""\ud83d\u0041""#,
            r#""\x""#,
            ",",
            &deep,
        ] {
            assert!(Json::parse(bad).is_err(), "accepted: {bad}");
        }
    }
}
