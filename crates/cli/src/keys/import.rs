//! `keyledger keys import`.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use keyledger_proto::{ErrorReason, ImportKeysRequest, ImportResult, KeyToImport};
use prost::Message;
use prost_reflect::DynamicMessage;
use sha2::{Digest, Sha256};

use crate::Ending;
use crate::connection::Session;
use crate::failure::Failure;
use crate::json::{self, Output};
use crate::screen::Screen;

/// Most keys of one call.
const MOST_KEYS: usize = 100;
/// A call stays well below the longest message that the server reads.
const MOST_BYTES: usize = 768 * 1024;

/// Take over keys that were made elsewhere, by hashes of their tokens.
///
/// The file holds JSON Lines: one key a line, in the proto JSON of `keyledger.v1.KeyToImport`, in which `sha256` is base64. Each
/// line is answered by a line: the id of the new key, or why there is none.
///
/// Whoever stops may run the same command again: the request id of each call follows from the lines in it, so that keys that
/// were imported are answered as before. If the file was changed in between, they are refused as imported before, which does
/// no harm.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Import {
    /// File with a key a line; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Why, in words of at most 1,024 bytes. Kept sealed.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Ticket or change id that approves it, at most 128 bytes of `A-Z a-z 0-9 - _ . : / #`. Kept in the clear. The ledger's
    /// policy may ask for it.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    approval_ref: String,
    /// Only say what would become of each line: nothing is changed.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

const EXAMPLE: &str = r#"Example: keyledger keys import --file keys.jsonl --reason 'ticket 4712' with lines such as
{"owner":{"service":"billing"},"purpose":"invoices","grants":[{"permissions":["audit.read"],"resource":"logs/error"}],"sha256":"n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg="}
{"owner":{"user":"alice@example.com"},"purpose":"exports","argon2id":{"prefix":"acme_live_4711","phc":"$argon2id$v=19$m=19456,t=2,p=1$…$…"}}"#;

/// A line of the file that is no blank one.
struct Line {
    number: usize,
    key: KeyToImport,
}

impl Import {
    /// All lines; the first that is no key is an error before anything is imported.
    pub(super) fn read(&self) -> anyhow::Result<Lines> {
        let text = read(&self.file)?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let parse = |(index, line): (usize, &str)| {
            let number = index + 1;
            let key = parse(line).with_context(|| format!("line {number} is not a key"))?;
            Ok(Line { number, key })
        };
        lines.map(parse).collect::<anyhow::Result<_>>().map(Lines)
    }

    pub(super) async fn run(
        self,
        session: &Session,
        screen: &Screen,
        lines: Lines,
    ) -> anyhow::Result<Ending> {
        let mut ending = Ending::Good;
        for lines in lines.calls() {
            let request = self.request(lines);
            let request_id = request.request_id.clone();
            let reply = session.keys().import_keys(session.call(request)).await;
            let failed = |s| describe(session.change_failure(&s, &request_id), lines);
            let results = reply.map_err(failed)?.into_inner().results;
            for (line, result) in lines.iter().zip(&results) {
                self.print(screen, line, result)?;
                if result.error() != ErrorReason::Unspecified {
                    ending = Ending::NotGood;
                }
            }
        }
        if self.dry_run && !self.output.is_json() {
            screen.line("\nA dry run: nothing was changed.")?;
        }
        Ok(ending)
    }

    fn request(&self, lines: &[Line]) -> ImportKeysRequest {
        let mut request = ImportKeysRequest {
            items: lines.iter().map(|line| line.key.clone()).collect(),
            reason: self.reason.clone(),
            request_id: String::new(),
            validate_only: self.dry_run,
            approval_ref: self.approval_ref.clone(),
        };
        let digest = Sha256::digest(request.encode_to_vec());
        let id = digest[..16].try_into().expect("a SHA-256 has 32 bytes");
        request.request_id = uuid::Builder::from_custom_bytes(id).into_uuid().to_string();
        request
    }

    fn print(&self, screen: &Screen, line: &Line, result: &ImportResult) -> anyhow::Result<()> {
        if self.output.is_json() {
            return json::print_line(screen, "ImportResult", result);
        }
        let became = match (result.error(), result.key_id.as_str()) {
            (ErrorReason::Unspecified, "") => "could be imported".to_string(),
            (ErrorReason::Unspecified, key_id) => key_id.to_string(),
            _ => format!("refused: {}", result.message),
        };
        Ok(screen.line(&format!("line {}: {became}", line.number))?)
    }
}

/// Says which lines a call was about: its field paths count from its own first one.
fn describe(failure: Failure, lines: &[Line]) -> anyhow::Error {
    let first = lines.first().map_or(0, |line| line.number);
    anyhow::Error::from(failure.and_next(&format!("items[0] is line {first} of the file")))
}

pub(super) struct Lines(Vec<Line>);

impl Lines {
    /// As many lines at once as one call takes.
    fn calls(&self) -> Vec<&[Line]> {
        let (mut calls, mut rest) = (vec![], self.0.as_slice());
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |line: &&Line| {
                bytes += line.key.encoded_len() + 8;
                bytes <= MOST_BYTES
            };
            let count = rest.iter().take(MOST_KEYS).take_while(fits).count().max(1);
            let (call, later) = rest.split_at(count);
            calls.push(call);
            rest = later;
        }
        calls
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input can't be read")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("{} can't be read", file.display()))
}

fn parse(line: &str) -> anyhow::Result<KeyToImport> {
    let descriptor = keyledger_proto::methods::pool()
        .get_message_by_name("keyledger.v1.KeyToImport")
        .context("our own protos declare it")?;
    let mut json = serde_json::Deserializer::from_str(line);
    let message = DynamicMessage::deserialize(descriptor, &mut json)?;
    json.end()?;
    Ok(KeyToImport::decode(message.encode_to_vec().as_slice())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"owner":{"service":"billing"},"purpose":"p","sha256":"n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg="}"#;

    fn import() -> Import {
        #[derive(clap::Parser)]
        struct All {
            #[command(flatten)]
            import: Import,
        }
        let line = ["import", "--file", "-", "--reason", "r"];
        <All as clap::Parser>::parse_from(line).import
    }

    fn lines(count: usize) -> Lines {
        let line = |number| Line { number, key: parse(LINE).unwrap() };
        Lines((1..=count).map(line).collect())
    }

    #[test]
    fn a_line_is_a_key_as_proto_json_writes_it() {
        let key = parse(LINE).unwrap();
        assert!(
            matches!(key.hash, Some(keyledger_proto::key_to_import::Hash::Sha256(h)) if h.len() == 32)
        );
        for bad in ["", "{", r#"{"purposes":"p"}"#, r#"{"sha256":"?"}"#, "{} {}"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_call_takes_a_hundred_lines_and_its_request_id_follows_from_them() {
        let lines = lines(250);
        let sizes: Vec<usize> = lines.calls().iter().map(|call| call.len()).collect();
        assert_eq!(sizes, [100, 100, 50]);
        let id = |lines: &[Line]| import().request(lines).request_id;
        let calls = lines.calls();
        assert_eq!(id(calls[0]), id(calls[1]), "the same lines");
        assert_ne!(id(calls[0]), id(calls[2]), "other lines");
    }

    #[test]
    fn a_call_stays_below_the_longest_message() {
        let long = "x".repeat(MOST_BYTES / 3);
        let key = KeyToImport { purpose: long, ..Default::default() };
        let lines = Lines((1..=5).map(|number| Line { number, key: key.clone() }).collect());
        let sizes: Vec<usize> = lines.calls().iter().map(|call| call.len()).collect();
        assert_eq!(sizes, [2, 2, 1]);
    }
}
