//! Syslog: events as messages of RFC 5424, over TLS (RFC 5425) or, on this machine alone, plain TCP (RFC 6587 §3.4.1), each
//! counted in octets.
//!
//! The message itself is the event as JSON, in UTF-8 with a byte order mark, cut at 8 KiB in all; position, index, category and
//! leaf hash stand in the structured data, so that a message that was cut can be looked up.
//!
//! Syslog knows no acknowledgement. So each batch has a connection of its own, which we end; a receiver that has read to that
//! end closes its side (RFC 5425 §4.4), and only then was the batch sent. One that dies before breaks the connection.

use keyledger_proto::AuditEvent;
use keyledger_proto::entry::{Decision, Severity};
use keyledger_proto::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Failed;
use super::connect::Destination;

/// Longest message, in bytes, without its count.
const MAX_MESSAGE: usize = 8 << 10;
/// Stands at the end of a message that was cut.
const CUT: &str = "…";
/// Log audit.
const FACILITY: u8 = 13;
/// RFC 5424 §7.2.2: an enterprise number kept for documentation (RFC 5612), since we have none.
const SD_ID: &str = "keyledger@32473";
/// Most bytes that a receiver may say. Syslog receivers say nothing.
const MAX_ANSWER: usize = 4 << 10;

pub(super) struct Syslog {
    pub(super) destination: Destination,
    /// Stands in each message; `-` if unknown.
    pub(super) hostname: String,
}

impl Syslog {
    pub(super) async fn send(&self, frames: &[Vec<u8>]) -> Result<(), Failed> {
        let broken = |e: std::io::Error| Failed::new(format!("the connection broke: {e}"));
        let mut stream = self.destination.connect().await?;
        stream.write_all(&frames.concat()).await.map_err(broken)?;
        stream.shutdown().await.map_err(broken)?;
        let mut read = 0;
        let mut buffer = [0; 512];
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) => return Ok(()),
                // It closed without saying goodbye in TLS: it has read to our end all the same, or the connection were reset.
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
                Ok(bytes) => read += bytes,
                Err(error) => return Err(broken(error)),
            }
            if read > MAX_ANSWER {
                return Err(Failed::new("the receiver talks, which syslog receivers don't"));
            }
        }
    }

    /// An event as a counted message.
    pub(super) fn frame(&self, event: &AuditEvent) -> Vec<u8> {
        let message = message(event, &self.hostname);
        [format!("{} ", message.len()).as_bytes(), &message].concat()
    }
}

fn message(event: &AuditEvent, hostname: &str) -> Vec<u8> {
    let priority = FACILITY * 8 + severity(event);
    let time = event.time.as_ref().map_or("-".into(), |time| time.to_string());
    let position = event.position.unwrap_or_default().to_string();
    let index = event.index.map(|index| index.to_string());
    let leaf = hex::encode(&event.leaf_hash);
    let mut parameters = vec![("position", position.as_str())];
    parameters.extend(index.as_deref().map(|index| ("index", index)));
    parameters.extend([("category", event.category.as_str()), ("leaf", &leaf)]);
    let head = |parameters: &[(&str, &str)]| {
        let data: String = parameters
            .iter()
            .map(|(name, value)| format!(" {name}=\"{}\"", escaped(value)))
            .collect();
        let id = msgid(&event.r#type);
        format!("<{priority}>1 {time} {hostname} keyledger - {id} [{SD_ID}{data}] \u{feff}")
    };
    let whole = head(&parameters);
    let json = json::line("AuditEvent", event);
    if whole.len() + json.len() <= MAX_MESSAGE {
        return (whole + &json).into_bytes();
    }
    parameters.push(("cut", "true"));
    let cut = head(&parameters);
    let room = MAX_MESSAGE.saturating_sub(cut.len() + CUT.len());
    format!("{cut}{}{CUT}", &json[..json.floor_char_boundary(room)]).into_bytes()
}

/// RFC 5424 §6.2.1. What a service says of its event; unusual use is a warning, and a use that was denied worth a notice.
fn severity(event: &AuditEvent) -> u8 {
    match event.severity() {
        Severity::Fatal => 1,
        Severity::Critical => 2,
        Severity::High => 3,
        Severity::Medium => 4,
        Severity::Low => 5,
        Severity::Informational => 6,
        Severity::Unspecified if event.r#type == "anomaly.raised" => 4,
        Severity::Unspecified if event.decision() == Decision::Deny => 5,
        Severity::Unspecified => 6,
    }
}

/// RFC 5424 §6.2.7: at most 32 characters of visible ASCII.
fn msgid(text: &str) -> &str {
    let good = (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if good { text } else { "-" }
}

/// RFC 5424 §6.3.3: `"`, `\` and `]` are escaped. Controls, which would be allowed, are not let through.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '"' | '\\' | ']' => text.extend(['\\', c]),
            c if keyledger_ledger::text::is_unsafe_in_a_line(c) => text.push('\u{fffd}'),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use keyledger_ledger::id::Time;

    use super::*;

    fn event() -> AuditEvent {
        AuditEvent {
            position: Some(17),
            index: Some(3),
            r#type: "key.used".into(),
            category: "keyledger/use".into(),
            time: Some(keyledger_proto::show::timestamp(Time(1_790_000_000_000_005))),
            decision: Decision::Deny as i32,
            leaf_hash: vec![0xab; 2],
            ..AuditEvent::default()
        }
    }

    fn text(event: &AuditEvent) -> String {
        String::from_utf8(message(event, "-")).unwrap()
    }

    #[test]
    fn a_message_has_the_form_of_rfc_5424() {
        let text = text(&event());
        let (head, json) = text.split_once('\u{feff}').unwrap();
        assert_eq!(
            head,
            "<109>1 2026-09-21T14:13:20.000005Z - keyledger - key.used [keyledger@32473 position=\"17\" \
             index=\"3\" category=\"keyledger/use\" leaf=\"abab\"] "
        );
        assert!(json.starts_with(r#"{"position":"17","index":3,"type":"key.used""#), "{json}");
    }

    #[test]
    fn nothing_in_an_event_can_end_its_structured_data_or_its_message() {
        let evil = AuditEvent {
            category: "a\"]\\ [x\n<13>1 - \r\0\u{85}\u{2028}\u{202e}".into(),
            reason: "line\r\n<13>1 - - - - - - forged\u{feff}\0\u{1b}[2J".into(),
            r#type: "two words".into(),
            ..event()
        };
        let text = text(&evil);
        assert!(text.contains(r#"category="a\"\]\\ [x"#), "{text}");
        assert!(text.contains(" keyledger - - ["), "{text}");
        let unsafe_ones: Vec<char> =
            text.chars().filter(|c| keyledger_ledger::text::is_unsafe_in_a_line(*c)).collect();
        assert_eq!(unsafe_ones, ['\u{feff}'], "only the byte order mark of the message");
    }

    #[test]
    fn a_long_message_is_cut_at_a_character_and_says_so() {
        for length in [7_000, 8_000, 8_001, 8_002, 8_003, 100_000] {
            let long = AuditEvent { reason: "€".repeat(length / 3), ..event() };
            let message = message(&long, "-");
            assert!(message.len() <= MAX_MESSAGE);
            let text = String::from_utf8(message).unwrap();
            assert_eq!(text.contains(r#" cut="true"]"#), text.ends_with(CUT), "{length}");
            assert_eq!(text.ends_with('}'), !text.ends_with(CUT), "{length}");
        }
    }

    #[test]
    fn the_count_is_that_of_bytes() {
        let destination = Destination { host: "h".into(), port: 1, tls: None, allow_private: true };
        let syslog = Syslog { destination, hostname: "keys-1".into() };
        let frame = syslog.frame(&AuditEvent { reason: "grüße".into(), ..event() });
        let space = frame.iter().position(|b| *b == b' ').unwrap();
        let count: usize = std::str::from_utf8(&frame[..space]).unwrap().parse().unwrap();
        assert_eq!(count, frame.len() - space - 1);
    }

    #[test]
    fn severities_are_those_of_syslog() {
        let of = |severity: Severity, decision: Decision| {
            super::severity(&AuditEvent {
                severity: severity as i32,
                decision: decision as i32,
                ..AuditEvent::default()
            })
        };
        let none = Decision::Unspecified;
        assert_eq!(of(Severity::Fatal, none), 1);
        assert_eq!(of(Severity::Critical, none), 2);
        assert_eq!(of(Severity::High, none), 3);
        assert_eq!(of(Severity::Medium, none), 4);
        assert_eq!(of(Severity::Low, none), 5);
        assert_eq!(of(Severity::Informational, none), 6);
        assert_eq!(of(Severity::Unspecified, none), 6);
        assert_eq!(of(Severity::Unspecified, Decision::Deny), 5);
    }
}
