//! The life of a key, by its traces.

use keyledger_proto::document::trace_links::TraceLinks;
use keyledger_proto::entry::Decision;
use keyledger_proto::{Key, KeyTrace, KeyTraces};

use super::links::{of_spans, url};
use super::{address, micros, show_offset};
use crate::audit::event::{reported, verdict};
use crate::json::enum_value_name;
use crate::keys::{owner, state};
use crate::screen::{Screen, Tone, inert};
use crate::table::{Facts, List};
use crate::values::{show_time, words};

pub(super) fn print(
    screen: &Screen,
    key: &Key,
    traces: &KeyTraces,
    links: Option<&TraceLinks>,
) -> std::io::Result<()> {
    let mut facts = Facts::new(screen);
    facts.add_in("key", &key.key_id, Tone::Strong);
    facts.add("state", &state(key));
    facts.add("owner", &owner(key.owner.as_ref()));
    facts.add("purpose", &key.purpose);
    facts.print()?;
    for trace in by_trace(traces) {
        screen.line("")?;
        print_trace(screen, key, &trace, links)?;
    }
    remarks(traces).into_iter().try_for_each(|remark| {
        screen.line("")?;
        screen.line(remark)
    })
}

/// Changes and uses by their trace, each oldest first; the traces by their first.
fn by_trace(traces: &KeyTraces) -> Vec<Vec<&KeyTrace>> {
    let mut all: Vec<&KeyTrace> = traces.changes.iter().chain(&traces.uses).collect();
    all.sort_by_key(|told| (told.position, told.index));
    let mut groups: Vec<Vec<&KeyTrace>> = vec![];
    for told in all {
        match groups.iter_mut().find(|group| trace_of(group[0]) == trace_of(told)) {
            Some(group) => group.push(told),
            None => groups.push(vec![told]),
        }
    }
    groups
}

fn trace_of(told: &KeyTrace) -> &str {
    told.span.as_ref().map_or("", |span| &span.trace_id)
}

fn print_trace(
    screen: &Screen,
    key: &Key,
    trace: &[&KeyTrace],
    links: Option<&TraceLinks>,
) -> std::io::Result<()> {
    let id = trace_of(trace[0]);
    let heading = screen.paint(&format!("trace {}", inert(id)), Tone::Strong);
    screen.line(format!("{heading}  {}", url(links, id, "")).trim_end())?;
    let span_links = of_spans(links);
    let headers = ["TIME", "OFFSET", "AT", "EVENT", "SPAN", "DETAIL", "SHOWN AT"];
    let shown = if span_links { headers.len() } else { headers.len() - 1 };
    let mut list = List::new(screen, &headers[..shown], &[0, 1, 2, 3, 4]);
    let first = micros(trace[0].time.as_ref());
    for told in trace {
        let (what, tone) = what(told);
        let span_id = told.span.as_ref().map_or("", |span| &span.span_id);
        let cells = [
            (told.time.as_ref().map(show_time).unwrap_or_default(), Tone::Faint),
            (show_offset(micros(told.time.as_ref()) - first), Tone::Plain),
            (address(told.position, told.index), Tone::Plain),
            (what, tone),
            (span_id.into(), Tone::Plain),
            (detail(key, told), Tone::Plain),
            (url(links, id, span_id), Tone::Faint),
        ];
        let cells: Vec<(&str, Tone)> = cells.iter().map(|(text, t)| (text.as_str(), *t)).collect();
        list.row(&cells[..shown]);
    }
    list.print()
}

fn what(told: &KeyTrace) -> (String, Tone) {
    let verdict = verdict(&told.r#type, told.decision, told.reported.as_ref());
    verdict.unwrap_or_else(|| (told.r#type.clone(), Tone::Plain))
}

/// Why denied, by what method, how a service answered it by itself, and which other key took part.
fn detail(key: &Key, told: &KeyTrace) -> String {
    let denied = told.decision == Decision::Deny as i32;
    let cause =
        || words(&enum_value_name("keyledger.entry.v1.DecisionReason", told.decision_reason));
    let about = (told.key_id != key.key_id).then(|| match told.key_id.as_str() {
        "" => "about a token of no key".into(),
        id => format!("about the key {id}"),
    });
    let by = Some(&told.caller_key_id).filter(|id| !id.is_empty() && **id != key.key_id);
    let method = Some(told.method.clone()).filter(|method| !method.is_empty());
    let reported = told.reported.as_ref().map(|r| reported(r, told.decision_reason));
    let by = by.map(|id| format!("by {id}"));
    let parts = [denied.then(cause), method, reported, about, by];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What is not shown, and why.
fn remarks(traces: &KeyTraces) -> Vec<&'static str> {
    let nothing = traces.changes.is_empty() && traces.uses.is_empty();
    let withheld = traces.changes_withheld || traces.uses_withheld;
    let all = [
        (
            nothing && !withheld,
            "No trace is known of it: its calls were neither sampled by Keyledger nor came with a trace that it continued.",
        ),
        (
            traces.changes_withheld,
            "Its changes are withheld: this token may not read logs/keyledger/lifecycle.",
        ),
        (
            traces.uses_withheld,
            "Its uses are withheld: this token may not read logs/keyledger/use.",
        ),
        (
            traces.older_changes,
            "It has older changes: `keyledger audit list --key-id KEY_ID` gives all.",
        ),
        (
            traces.older_uses,
            "It may have older uses: `keyledger audit list --key-id KEY_ID` gives all.",
        ),
    ];
    all.into_iter().filter(|(holds, _)| *holds).map(|(_, remark)| remark).collect()
}

#[cfg(test)]
mod tests {
    use keyledger_proto::SpanReference;
    use keyledger_proto::entry::{DecisionReason, ReportDoubt, Reported};

    use super::*;

    fn told(trace_id: &str, position: u64) -> KeyTrace {
        let span = Some(SpanReference { trace_id: trace_id.into(), span_id: String::new() });
        KeyTrace { span, position: Some(position), ..KeyTrace::default() }
    }

    #[test]
    fn changes_and_uses_of_a_trace_stand_together_in_their_order() {
        let traces = KeyTraces {
            changes: vec![told("b", 5), told("a", 1)],
            uses: vec![told("a", 7), told("b", 6)],
            ..KeyTraces::default()
        };
        let groups: Vec<Vec<u64>> = by_trace(&traces)
            .iter()
            .map(|group| group.iter().map(|told| told.position.unwrap()).collect())
            .collect();
        assert_eq!(groups, [[1, 7], [5, 6]]);
    }

    #[test]
    fn a_refused_use_says_why_and_who_took_part() {
        let key = Key { key_id: "k".into(), ..Key::default() };
        let refused = KeyTrace {
            key_id: "other".into(),
            caller_key_id: "k".into(),
            method: "KeyService/VerifyKey".into(),
            decision: Decision::Deny as i32,
            decision_reason: DecisionReason::NoGrant as i32,
            ..KeyTrace::default()
        };
        assert_eq!(detail(&key, &refused), "no grant, KeyService/VerifyKey, about the key other");
        let of_it = KeyTrace { key_id: "k".into(), caller_key_id: "c".into(), ..refused };
        assert_eq!(detail(&key, &of_it), "no grant, KeyService/VerifyKey, by c");
    }

    #[test]
    fn a_use_that_a_service_reported_does_not_look_like_a_verdict() {
        let key = Key { key_id: "k".into(), ..Key::default() };
        let held = Reported { answer_position: 12, answer_index: 3, ..Reported::default() };
        let told = KeyTrace {
            key_id: "k".into(),
            r#type: "key.used".into(),
            caller_key_id: "c".into(),
            decision: Decision::Allow as i32,
            decision_reason: DecisionReason::Granted as i32,
            reported: Some(held.clone()),
            ..KeyTrace::default()
        };
        assert_eq!(what(&told), ("key.used reported".into(), Tone::Good));
        assert_eq!(detail(&key, &told), "answered at 1970-01-01T00:00:00.000000Z from 12.3, by c");
        let doubtful = Reported { doubts: vec![ReportDoubt::Stale as i32], ..held };
        let told = KeyTrace { reported: Some(doubtful), ..told };
        assert_eq!(what(&told), ("key.used reported".into(), Tone::Bad));
        assert!(detail(&key, &told).contains("doubtful: stale (granted when it was recorded)"));
    }

    #[test]
    fn what_is_not_shown_is_said() {
        assert_eq!(remarks(&KeyTraces::default()).len(), 1);
        let withheld =
            KeyTraces { changes_withheld: true, uses_withheld: true, ..KeyTraces::default() };
        assert!(remarks(&withheld).iter().all(|remark| remark.contains("withheld")));
    }
}
