//! The export format: JSON Lines, one entry a line with all that offline verification needs, and a last line with a signed
//! checkpoint. A file without that last line was cut short.

use base64::prelude::{BASE64_STANDARD, Engine};
use keyledger_proto::{OpenedTexts, RawEntry};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest line: a page of 4,096 uses with all its texts stays below it.
pub(crate) const MAX_LINE: u64 = 64 * 1024 * 1024;

/// Bytes, written as standard base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Base64(pub Vec<u8>);

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntryLine {
    pub position: u64,
    pub payload_type: String,
    /// A serialised keyledger.entry.v1.Event: the signed bytes.
    pub body: Base64,
    /// Hexadecimal.
    #[serde(with = "hex")]
    pub public_key_sha256: Vec<u8>,
    pub signature: Base64,
    /// A serialised keyledger.entry.v1.UseColumn; empty for all but pages of uses.
    pub uses: Base64,
    /// Texts of the entry, then those of its uses.
    pub opened: Vec<OpenedLine>,
}

/// Texts with the salt of their commitment; without a salt they couldn't be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpenedLine {
    pub salt: Base64,
    /// A serialised keyledger.entry.v1.Texts.
    pub texts: Base64,
}

/// The last line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndLine {
    /// A signed note (C2SP tlog-checkpoint) that covers no more than the entries before.
    pub checkpoint: String,
    /// The key that verifies it, for people who compare it with one that they know.
    pub verifier_key: String,
}

impl EntryLine {
    pub(crate) fn new(position: u64, raw: RawEntry) -> EntryLine {
        let opened = raw.opened.into_iter();
        EntryLine {
            position,
            payload_type: raw.payload_type,
            body: Base64(raw.body),
            public_key_sha256: raw.public_key_sha256,
            signature: Base64(raw.signature),
            uses: Base64(raw.uses),
            opened: opened
                .map(|o| OpenedLine { salt: Base64(o.salt), texts: Base64(o.texts) })
                .collect(),
        }
    }

    pub(crate) fn into_raw(self) -> RawEntry {
        let opened = self.opened.into_iter();
        RawEntry {
            payload_type: self.payload_type,
            body: self.body.0,
            public_key_sha256: self.public_key_sha256,
            signature: self.signature.0,
            uses: self.uses.0,
            opened: opened.map(|o| OpenedTexts { salt: o.salt.0, texts: o.texts.0 }).collect(),
        }
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Base64, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD.decode(text).map(Base64).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_a_raw_entry_and_gives_it_back() {
        let raw = RawEntry {
            payload_type: "t".into(),
            body: vec![0, 255],
            public_key_sha256: vec![0xab; 32],
            signature: vec![1],
            uses: vec![],
            opened: vec![OpenedTexts { salt: vec![2], texts: vec![3] }],
        };
        let line = serde_json::to_string(&EntryLine::new(7, raw.clone())).unwrap();
        let start = r#"{"position":7,"payload_type":"t","body":"AP8=","public_key_sha256":"abab"#;
        assert!(line.starts_with(start), "{line}");
        assert!(
            line.ends_with(
                r#""signature":"AQ==","uses":"","opened":[{"salt":"Ag==","texts":"Aw=="}]}"#
            ),
            "{line}"
        );
        let read: EntryLine = serde_json::from_str(&line).unwrap();
        assert_eq!(read.into_raw(), raw);
    }
}
