//! A file of another system, taken apart into records, each with the number of its line and an id that stays the same.

use std::collections::BTreeMap;

use keyledger_proto::NewEvent;
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};

use super::facts::{Facts, Unmapped};
use super::{Format, auditd};

/// Longest record that is read.
const MAX_RECORD: usize = 1024 * 1024;
/// Longest id of an event.
const MAX_ID: usize = 128;

/// A record as it stands in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where it stands, counted from 1: `line 7`, or `record 7` where a line holds many.
    pub place: String,
    pub text: Result<String, Unmapped>,
}

/// The records of a file, in its order. An event of several lines stands where its first line stands.
pub(super) fn pieces(format: Format, file: &[u8]) -> Vec<Piece> {
    let lines = file.split(|b| *b == b'\n').enumerate();
    let lines = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    let lines = lines
        .map(|(index, line)| Piece { place: format!("line {}", index + 1), text: read_line(line) });
    match format {
        Format::Auditd => group(lines),
        Format::Cloudtrail => records(file).unwrap_or_else(|| lines.collect()),
        _ => lines.collect(),
    }
}

fn read_line(line: &[u8]) -> Result<String, Unmapped> {
    if line.len() > MAX_RECORD {
        return Err("it is longer than 1 MiB".into());
    }
    let text = std::str::from_utf8(line.trim_ascii()).map_err(|_| "it is not UTF-8")?;
    Ok(text.into())
}

/// Lines of one event are put together, wherever they stand.
fn group(lines: impl Iterator<Item = Piece>) -> Vec<Piece> {
    let mut events: Vec<Piece> = vec![];
    let mut begun: BTreeMap<String, usize> = BTreeMap::new();
    for piece in lines {
        let event = piece.text.as_deref().ok().and_then(auditd::event_of);
        let known = event.as_ref().and_then(|event| begun.get(event));
        match (known.and_then(|index| events.get_mut(*index)), &piece.text) {
            (Some(Piece { text: Ok(begun), .. }), Ok(line))
                if begun.len() + line.len() < MAX_RECORD =>
            {
                begun.push('\n');
                begun.push_str(line);
            }
            _ => {
                begun.extend(event.map(|event| (event, events.len())));
                events.push(piece);
            }
        }
    }
    events
}

/// What stands in `{"Records": […]}`, byte by byte as it is there; `None` if the file is something else.
fn records(file: &[u8]) -> Option<Vec<Piece>> {
    let mut rest = file;
    for token in ["{", "\"Records\"", ":", "["] {
        rest = rest.trim_ascii_start().strip_prefix(token.as_bytes())?;
    }
    let mut pieces = vec![];
    loop {
        rest = rest.trim_ascii_start();
        if rest.starts_with(b"]") {
            return Some(pieces);
        }
        let place = format!("record {}", pieces.len() + 1);
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
        if !matches!(values.next(), Some(Ok(_))) {
            let text = Err("it is not JSON, and what follows can't be told apart".into());
            pieces.push(Piece { place, text });
            return Some(pieces);
        }
        let (record, later) = rest.split_at(values.byte_offset());
        pieces.push(Piece { place, text: read_line(record) });
        rest = later.trim_ascii_start();
        rest = rest.strip_prefix(b",").unwrap_or(rest);
    }
}

/// Gives events the ids by which a repeated import is recognised.
#[derive(Default)]
pub(super) struct Ids {
    /// Own ids that were given out, with the digest of the record that has them.
    own: BTreeMap<String, [u8; 32]>,
    /// How often each record without an id of its own was seen.
    seen: BTreeMap<[u8; 32], u64>,
}

impl Ids {
    /// The record's own id; if another record of the file has the same, or if there is none, one that follows from its bytes.
    pub(super) fn give(&mut self, format: &str, own: Option<&str>, record: &str) -> String {
        let digest: [u8; 32] = Sha256::digest(record).into();
        match own {
            Some(own) => {
                let id = bounded(format!("{format}:{own}"), own);
                match *self.own.entry(id.clone()).or_insert(digest) == digest {
                    true => id,
                    false => format!("{format}:{}", hex::encode(digest)),
                }
            }
            None => {
                let count = self.seen.entry(digest).or_default();
                *count += 1;
                format!("{format}:{}:{count}", hex::encode(digest))
            }
        }
    }
}

/// An id that is too long, or holds what no line may hold, gives way to its digest.
fn bounded(id: String, own: &str) -> String {
    let fits = id.len() <= MAX_ID && !id.chars().any(keyledger_ledger::text::is_unsafe_in_a_line);
    let format = id.split(':').next().unwrap_or_default();
    if fits { id } else { format!("{format}:{}", hex::encode(Sha256::digest(own))) }
}

/// The event that a record becomes.
pub(super) fn to_event(
    format: Format,
    category: &str,
    record: &str,
    ids: &mut Ids,
) -> Result<NewEvent, Unmapped> {
    let mut facts = map(format, record)?;
    let own = facts.id.take();
    let mut event = facts.into_event(record)?;
    event.category = category.into();
    event.event_id = ids.give(format.name(), own.as_deref(), record);
    Ok(event)
}

fn map(format: Format, record: &str) -> Result<Facts, Unmapped> {
    if format == Format::Auditd {
        return auditd::map(record);
    }
    let json = serde_json::from_str(record).map_err(|e| format!("it is not JSON: {e}"))?;
    format.map_json(&json)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn texts(format: Format, file: &str) -> Vec<(String, Option<String>)> {
        pieces(format, file.as_bytes()).into_iter().map(|p| (p.place, p.text.ok())).collect()
    }

    #[test]
    fn lines_of_one_event_are_one_record_wherever_they_stand() {
        let line = |serial: u32, kind: &str| format!("type={kind} msg=audit(1.0:{serial}): a=b");
        let file = [line(1, "A"), line(2, "B"), line(1, "C"), "type=X msg=?".into()].join("\n");
        let first = format!("{}\n{}", line(1, "A"), line(1, "C"));
        let expected = [
            ("line 1".into(), Some(first)),
            ("line 2".into(), Some(line(2, "B"))),
            ("line 4".into(), Some("type=X msg=?".into())),
        ];
        assert_eq!(texts(Format::Auditd, &file), expected);
    }

    #[test]
    fn records_of_cloudtrail_stay_as_they_are_written_and_a_broken_end_is_told() {
        let file = "{ \"Records\" : [ {\"b\": 1,\"a\":2} ,\n{\"c\":3}]}";
        let expected = [
            ("record 1".into(), Some("{\"b\": 1,\"a\":2}".into())),
            ("record 2".into(), Some("{\"c\":3}".into())),
        ];
        assert_eq!(texts(Format::Cloudtrail, file), expected);
        assert_eq!(texts(Format::Cloudtrail, "{\"a\":1}\n\n{\"b\":2}").len(), 2, "JSON lines");
        let broken = texts(Format::Cloudtrail, "{\"Records\":[{\"a\":1},{\"b\"");
        assert_eq!(
            broken,
            [("record 1".into(), Some("{\"a\":1}".into())), ("record 2".into(), None)]
        );
    }

    #[test]
    fn what_is_too_long_or_too_deep_or_no_text_is_no_record() {
        let mut file = vec![b'x'; MAX_RECORD + 1];
        file.extend(b"\n\xff\n");
        let pieces = pieces(Format::Okta, &file);
        assert!(pieces.len() == 2 && pieces.iter().all(|piece| piece.text.is_err()));
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let mut ids = Ids::default();
        assert!(to_event(Format::Okta, "identity/okta", &deep, &mut ids).is_err());
    }

    #[test]
    fn an_id_follows_from_the_record_and_no_two_records_share_one() {
        let give = || {
            let mut ids = Ids::default();
            [
                ids.give("okta", Some("1"), "a"),
                ids.give("okta", Some("1"), "a"),
                ids.give("okta", Some("1"), "b"),
                ids.give("okta", None, "c"),
                ids.give("okta", None, "c"),
                ids.give("okta", Some(&"x".repeat(200)), "d"),
            ]
        };
        let ids = give();
        assert_eq!(ids, give(), "again the same");
        assert_eq!((ids[0].as_str(), &ids[0]), ("okta:1", &ids[1]), "the same record twice");
        let distinct: BTreeSet<&String> = ids.iter().collect();
        assert_eq!(distinct.len(), 5);
        assert!(ids.iter().all(|id| id.len() <= MAX_ID));
    }
}
