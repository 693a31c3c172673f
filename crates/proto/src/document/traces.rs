//! In which traces a key was changed and used: names of traces, and links to where they are shown.

use super::html::Html;
use super::html::frame::moment_of_time;
use super::markdown::Markdown;
use super::trace_links::TraceLinks;
use super::words::time;
use crate::entry::{Decision, DecisionReason};
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
    let verdict = match Decision::try_from(of_use.decision) {
        Ok(Decision::Allow) => " allowed".into(),
        _ => {
            let reason = DecisionReason::try_from(of_use.decision_reason).unwrap_or_default();
            let name = reason.as_str_name();
            let name = name.strip_prefix("DECISION_REASON_").unwrap_or(name);
            format!(" refused: {}", name.to_lowercase().replace('_', " "))
        }
    };
    let about = match of_use.key_id.as_str() {
        id if id == key_id => String::new(),
        "" => ", asked about a token of no key".into(),
        id => format!(", asked about the key {id}"),
    };
    format!("{}{verdict}{about}", of_use.method)
}

/// Position, and index in the page.
fn address(of_use: &KeyTrace) -> String {
    let position = of_use.position.unwrap_or_default();
    of_use.index.map_or(position.to_string(), |index| format!("{position}.{index}"))
}
