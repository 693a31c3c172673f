//! What a scenario must keep secret. Each token and each personal text that passes through a [`super::Caller`] is noted
//! here by itself; at the end of the scenario none of it may be found in a log or a dump.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use aho_corasick::AhoCorasick;
use keyledger_ledger::token::Token;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};

/// String fields of requests that hold texts about people, or words that people chose.
const TEXT_FIELDS: [&str; 7] =
    ["reason", "purpose", "description", "user", "responsible", "address", "user_agent"];
/// Shorter ones would be found by chance in random bytes.
const SHORTEST: usize = 6;
/// The beginning of a long text stands for all of it.
const LONGEST: usize = 256;

/// Secrets by their bytes, with a word for what each is.
#[derive(Default)]
pub(crate) struct Secrets(Mutex<BTreeMap<Vec<u8>, String>>);

impl Secrets {
    /// Notes any secret bytes, and their hexadecimal form.
    pub(crate) fn bytes(&self, what: &str, bytes: &[u8]) {
        self.note(what, bytes);
        self.note(&format!("{what} in hexadecimal"), hex::encode(bytes).as_bytes());
    }

    /// Notes a text about a person, or in a person's words.
    pub(crate) fn text(&self, what: &str, text: &str) {
        self.note(what, text.trim().as_bytes());
    }

    /// Notes a token, and its secret part.
    pub(crate) fn token(&self, text: &str) {
        self.note("a token", text.as_bytes());
        if let Ok(token) = Token::parse(text) {
            let secret = text.rsplit_once('_').map_or(text, |(_, secret)| secret);
            self.note("the secret of a token", &secret.as_bytes()[..43]);
            self.bytes("the secret of a token", token.secret.expose());
        }
    }

    /// Notes the keys of a key directory.
    pub(crate) fn key_directory(&self, folder: &Path) {
        for file in std::fs::read_dir(folder).expect("the key directory is there").flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(file.path()).expect("a key file holds text");
            if let Ok(bytes) = hex::decode(text.trim()) {
                self.bytes(&format!("the key {name}"), &bytes);
            }
        }
    }

    /// Notes what a request says about people.
    pub(crate) fn request(&self, descriptor: MessageDescriptor, bytes: &[u8]) {
        if let Ok(message) = DynamicMessage::decode(descriptor, bytes) {
            walk(&message, &mut |field, text| match field {
                "token" => self.token(text),
                field if TEXT_FIELDS.contains(&field) => self.text(&format!("a {field}"), text),
                _ => {}
            });
        }
    }

    /// Notes the token that a reply brings.
    pub(crate) fn reply(&self, descriptor: MessageDescriptor, bytes: &[u8]) {
        if let Ok(message) = DynamicMessage::decode(descriptor, bytes) {
            walk(&message, &mut |field, text| {
                if field == "token" {
                    self.token(text);
                }
            });
        }
    }

    pub(crate) fn scanner(&self) -> Scanner {
        let noted = self.0.lock().expect("no holder of this lock panics");
        let (needles, labels): (Vec<Vec<u8>>, Vec<String>) = noted.clone().into_iter().unzip();
        let automaton = AhoCorasick::new(needles).expect("secrets are short");
        Scanner { automaton, labels, found: vec![] }
    }

    fn note(&self, what: &str, bytes: &[u8]) {
        if bytes.len() >= SHORTEST {
            let mut noted = self.0.lock().expect("no holder of this lock panics");
            let bytes = &bytes[..bytes.len().min(LONGEST)];
            noted.entry(bytes.to_vec()).or_insert_with(|| what.to_string());
        }
    }
}

/// Calls `see` with each non-empty string of a message and the name of its field.
fn walk(message: &DynamicMessage, see: &mut dyn FnMut(&str, &str)) {
    for (field, value) in message.fields() {
        walk_value(field.name(), value, see);
    }
}

fn walk_value(field: &str, value: &Value, see: &mut dyn FnMut(&str, &str)) {
    match value {
        Value::String(text) => see(field, text),
        Value::Message(message) => walk(message, see),
        Value::List(values) => values.iter().for_each(|value| walk_value(field, value, see)),
        _ => {}
    }
}

/// Looks for secrets where none may be.
pub(crate) struct Scanner {
    automaton: AhoCorasick,
    labels: Vec<String>,
    found: Vec<String>,
}

impl Scanner {
    pub(crate) fn look_into(&mut self, place: &str, bytes: &[u8]) {
        for found in self.automaton.find_iter(bytes) {
            let what = &self.labels[found.pattern().as_usize()];
            self.found.push(format!("{what} in {place} at byte {}", found.start()));
        }
    }

    /// Panics with a list of what was found, and never with the secrets themselves.
    pub(crate) fn finish(self) {
        assert!(self.found.is_empty(), "secrets show in the clear:\n  {}", self.found.join("\n  "));
    }
}
