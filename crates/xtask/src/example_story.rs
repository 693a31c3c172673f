//! What each example must have said, and what the ledger must hold of it.

use crate::examples::{Example, Surroundings};
use crate::grpcurl::Grpcurl;
use crate::process::Result;
use crate::replies::{ensure, passed};
use crate::traces::{Event, events_of_trace};

/// Reading the log is recorded, too; the examples don't list that of their own.
const READS: &str = "keyledger/access";

/// Each event with the verdict, if it is one.
const HAPPENED: [(&str, &str); 6] = [
    ("key.created", ""),
    ("key.used", "DECISION_ALLOW"),
    ("key.used", "DECISION_DENY"),
    ("event.recorded", ""),
    ("key.revoked", ""),
    ("key.used", "DECISION_DENY"),
];
const VERDICTS: [&str; 3] = [
    "verified logs/error DECISION_ALLOW DECISION_REASON_GRANTED",
    "verified logs/payroll DECISION_DENY DECISION_REASON_NO_GRANT",
    "verified logs/error DECISION_DENY DECISION_REASON_REVOKED",
];

/// What one example did, as the ledger tells it.
pub(crate) struct Story {
    pub(crate) language: &'static str,
    pub(crate) trace_id: String,
    pub(crate) key_id: String,
    pub(crate) events: Vec<Event>,
}

/// Runs an example; what it says and what the ledger holds of its trace must agree.
pub(crate) fn told_by(example: &Example, around: &Surroundings, client: &Grpcurl) -> Result<Story> {
    let language = example.language;
    let said = example.run(around)?;
    let trace_id = word_after(&said, "trace")?;
    let key_id = word_after(&said, "created")?;
    let verdicts: Vec<&str> = said.lines().filter(|line| line.starts_with("verified ")).collect();
    ensure(verdicts == VERDICTS, || format!("{language}: the verdicts were {verdicts:?}"))?;
    let mut events = events_of_trace(client, &trace_id)?;
    events.retain(|event| event.category != READS);
    holds_what_happened(&events, &key_id).map_err(|reason| format!("{language}: {reason}"))?;
    for event in &events {
        let line = format!("listed {} {} {}", event.position, event.name, event.key_id);
        ensure(said.lines().any(|said| said.trim_end() == line.trim_end()), || {
            format!("{language} didn't say `{line}`")
        })?;
    }
    passed(&format!("the example in {language}, and the ledger holds its trace: {trace_id}"));
    Ok(Story { language, trace_id, key_id, events })
}

fn holds_what_happened(events: &[Event], key_id: &str) -> Result {
    let happened: Vec<(&str, &str)> =
        events.iter().map(|event| (event.name.as_str(), event.decision.as_str())).collect();
    ensure(happened == HAPPENED, || format!("the ledger holds of its trace: {happened:?}"))?;
    let about_key = |event: &&Event| event.name.starts_with("key.");
    match events.iter().filter(about_key).find(|event| event.key_id != key_id) {
        None => Ok(()),
        Some(other) => Err(format!("not about key {key_id}: {other:?}")),
    }
}

/// The second word of the line that begins with a word.
pub(crate) fn word_after(said: &str, first: &str) -> Result<String> {
    let mut lines = said.lines().map(|line| line.split_whitespace());
    let found = lines.find_map(|mut words| (words.next() == Some(first)).then(|| words.next())?);
    found.map(str::to_owned).ok_or_else(|| format!("no line `{first} …` in what it said:\n{said}"))
}
