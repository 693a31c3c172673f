//! The export format: JSON Lines, one entry a line with all that offline verification needs, and a last line with a signed
//! checkpoint. A file without that last line was cut short.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

pub(crate) use keyledger_proto::export::json_lines::Base64;
use keyledger_proto::{OpenedTexts, RawEntry};
use serde::{Deserialize, Serialize};

/// Longest line: a page of 4,096 uses with all its texts stays below it.
pub(crate) const MAX_LINE: u64 = 64 * 1024 * 1024;

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

/// A new file for its owner alone. What an earlier export left is removed, never written into.
pub(crate) fn create(part: &Path) -> io::Result<File> {
    match std::fs::remove_file(part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => OpenOptions::new().write(true).create_new(true).mode(0o600).open(part),
    }
}

/// Reads one line, with its newline. False at the end of the file.
pub(crate) fn read_line(lines: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    lines.take(MAX_LINE).read_until(b'\n', line)?;
    if line.len() as u64 == MAX_LINE {
        return Err(io::Error::other(format!("a line has more than {MAX_LINE} bytes")));
    }
    Ok(!line.is_empty())
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
