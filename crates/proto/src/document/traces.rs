//! In which traces a key was changed and used: names of traces, and links to where they are shown.

use keyledger_ledger::id::Time;

use super::html::Html;
use super::html::frame::moment_of_time;
use super::markdown::Markdown;
use super::trace_links::TraceLinks;
use super::words::time;
use crate::entry::{Decision, DecisionReason, ReportDoubt, Reported};
use crate::show::timestamp;
use crate::{KeyTrace, KeyTraces, SpanReference};

const NONE: &str = "None is known: a use has a trace if whoever called has sampled one.";
const OLDER: &str = "There may be older ones: see the log.";

/// A trace by its id; a link if it is known where it is shown.
pub(super) fn html_trace(h: &mut Html, span: &SpanReference, links: Option<&TraceLinks>) {
    h.words("trace ");
    match links.and_then(|links| links.url(span)) {
        Some(url) => h.trace_link(&url, |h| h.code(&span.trace_id)),
        None => h.code(&span.trace_id),
    }
}

/// The same in Markdown.
pub(super) fn markdown_trace(m: &mut Markdown, span: &SpanReference, links: Option<&TraceLinks>) {
    m.words("trace ");
    match links.and_then(|links| links.url(span)) {
        Some(url) => m.trace_link(&url, &span.trace_id),
        None => m.code(&span.trace_id),
    };
}

/// The latest uses of a key in traces.
pub(super) fn html(h: &mut Html, key_id: &str, traces: &KeyTraces, links: Option<&TraceLinks>) {
    if traces.uses_withheld {
        return h.classed("p", "note", |h| {
            h.words("Withheld: whoever asked may not read ");
            h.code("logs/keyledger/use");
            h.words(".");
        });
    }
    if traces.uses.is_empty() {
        h.classed("p", "soft", |h| h.words(NONE));
    }
    h.classed("ul", "plain", |h| {
        for of_use in &traces.uses {
            h.plainly("li", |h| {
                if let Some(when) = &of_use.time {
                    moment_of_time(h, when);
                    h.words(": ");
                }
                h.text(&what(key_id, of_use));
                h.words(" · ");
                html_trace(h, &of_use.span.clone().unwrap_or_default(), links);
                h.words(" · entry ");
                h.plain(&address(of_use));
            });
        }
    });
    if traces.older_uses {
        h.classed("p", "soft", |h| h.words(OLDER));
    }
}

/// The same in Markdown.
pub(super) fn markdown(
    m: &mut Markdown,
    key_id: &str,
    traces: &KeyTraces,
    links: Option<&TraceLinks>,
) {
    if traces.uses_withheld {
        return m.paragraph(|m| {
            m.words("Withheld: whoever asked may not read ").code("logs/keyledger/use").words(".");
        });
    }
    if traces.uses.is_empty() {
        m.paragraph(|m| {
            m.words(NONE);
        });
    }
    m.items(&traces.uses, |m, of_use| {
        if let Some(when) = &of_use.time {
            m.text(&time(when)).words(": ");
        }
        m.text(&what(key_id, of_use)).words(", ");
        markdown_trace(m, &of_use.span.clone().unwrap_or_default(), links);
        m.words(" (entry ").text(&address(of_use)).words(")");
    });
    if traces.older_uses {
        m.paragraph(|m| {
            m.words(OLDER);
        });
    }
}

/// `KeyService/VerifyKey refused: no grant`
fn what(key_id: &str, of_use: &KeyTrace) -> String {
    let reason = DecisionReason::try_from(of_use.decision_reason).unwrap_or_default();
    let reason = plain(reason.as_str_name(), "DECISION_REASON_");
    let verdict = match (&of_use.reported, Decision::try_from(of_use.decision)) {
        (Some(reported), _) => self::reported(reported, &of_use.caller_key_id, &reason),
        (None, Ok(Decision::Allow)) => " allowed".into(),
        _ => format!(" refused: {reason}"),
    };
    let about = match of_use.key_id.as_str() {
        id if id == key_id => String::new(),
        "" => ", asked about a token of no key".into(),
        id => format!(", asked about the key {id}"),
    };
    format!("{}{verdict}{about}", of_use.method)
}

/// What a service answered by itself, and what Keyledger says of it where that is doubtful.
fn reported(r: &Reported, by: &str, reason_now: &str) -> String {
    let when = time(&timestamp(Time(r.time_us)));
    let (position, index) = (r.answer_position, r.answer_index);
    let answer = format!(" reported by {by}, answered at {when} from {position}.{index}");
    if r.doubts.is_empty() {
        return answer;
    }
    let doubt = |doubt: &i32| {
        let doubt = ReportDoubt::try_from(*doubt).unwrap_or_default();
        plain(doubt.as_str_name(), "REPORT_DOUBT_")
    };
    let doubts: Vec<String> = r.doubts.iter().map(doubt).collect();
    format!("{answer}, doubtful: {} ({reason_now} when it was recorded)", doubts.join(" and "))
}

/// The name of a value, as people read it.
fn plain(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase().replace('_', " ")
}

/// Position, and index in the page.
fn address(of_use: &KeyTrace) -> String {
    let position = of_use.position.unwrap_or_default();
    of_use.index.map_or(position.to_string(), |index| format!("{position}.{index}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_that_a_service_reported_does_not_read_like_a_verdict() {
        let held = Reported { answer_position: 12, answer_index: 3, ..Reported::default() };
        let of_use = KeyTrace {
            key_id: "k".into(),
            caller_key_id: "c".into(),
            method: "KeyService/ReportUses".into(),
            decision: Decision::Allow as i32,
            decision_reason: DecisionReason::Revoked as i32,
            reported: Some(held.clone()),
            ..KeyTrace::default()
        };
        let told = what("k", &of_use);
        assert!(told.starts_with("KeyService/ReportUses reported by c, answered at "), "{told}");
        assert!(told.ends_with(" from 12.3"), "{told}");
        let doubts = vec![ReportDoubt::Stale as i32, ReportDoubt::Late as i32];
        let doubtful = KeyTrace { reported: Some(Reported { doubts, ..held }), ..of_use };
        let told = what("k", &doubtful);
        assert!(told.ends_with(", doubtful: stale and late (revoked when it was recorded)"));
        assert!(!told.contains("allowed"));
    }
}
