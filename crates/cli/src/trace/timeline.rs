//! A trace as a timeline.

use keyledger_proto::document::trace_links::TraceLinks;
use keyledger_proto::{AuditEvent, TraceEvent, TraceKey};
use uuid::{Uuid, Variant};

use super::links::{of_spans, url};
use super::{address, micros, show_offset};
use crate::audit::event::{detail, what};
use crate::keys::owner;
use crate::screen::{Screen, Tone};
use crate::table::{Facts, List};
use crate::usage::line;
use crate::values::show_time;

/// How many marks a timeline is wide.
const WIDTH: usize = 24;

pub(super) fn print(
    screen: &Screen,
    id: &str,
    events: &[TraceEvent],
    keys: &[TraceKey],
    links: Option<&TraceLinks>,
) -> std::io::Result<()> {
    if events.is_empty() {
        return nothing(screen, id);
    }
    let times = || events.iter().filter_map(|e| e.event.as_ref()?.time.as_ref());
    let first = micros(times().next());
    let length = micros(times().next_back()) - first;
    let mut facts = Facts::new(screen);
    facts.add_in("trace", id, Tone::Strong);
    facts.add("shown at", &url(links, id, ""));
    facts.add("from", &times().next().map(show_time).unwrap_or_default());
    facts.add("to", &times().next_back().map(show_time).unwrap_or_default());
    facts.add("events", &events.len().to_string());
    facts.print()?;
    screen.line("")?;
    print_keys(screen, keys, first)?;
    screen.line("")?;
    let span_links = of_spans(links);
    let headers = ["TIME", "OFFSET", "WHEN", "AT", "EVENT", "KEY", "SPAN", "DETAIL", "SHOWN AT"];
    let shown = if span_links { headers.len() } else { headers.len() - 1 };
    let mut list = List::new(screen, &headers[..shown], &[0, 1, 2, 3, 4, 5, 6]);
    for told in events {
        let event = told.event.clone().unwrap_or_default();
        let offset = micros(event.time.as_ref()) - first;
        let (what, tone) = what(&event);
        let cells = [
            (event.time.as_ref().map(show_time).unwrap_or_default(), Tone::Faint),
            (show_offset(offset), Tone::Plain),
            (mark(screen, offset, length), tone),
            (address(event.position, event.index), Tone::Plain),
            (what, tone),
            (key_of(&event).into(), Tone::Plain),
            (spans(told), Tone::Plain),
            (detail(&event), Tone::Plain),
            (first_span_shown_at(links, id, told), Tone::Faint),
        ];
        let cells: Vec<(&str, Tone)> = cells.iter().map(|(text, t)| (text.as_str(), *t)).collect();
        list.row(&cells[..shown]);
    }
    list.print()
}

fn print_keys(screen: &Screen, keys: &[TraceKey], first: i64) -> std::io::Result<()> {
    let headers = ["KEY", "EVENTS", "FROM", "TO", "OWNER", "PURPOSE"];
    let mut list = List::new(screen, &headers, &[0, 1, 2, 3]);
    for told in keys {
        let key = told.key.clone().unwrap_or_default();
        let offset = |time| show_offset(micros(time) - first);
        list.row(&[
            (&told.key_id, Tone::Strong),
            (&told.events.to_string(), Tone::Plain),
            (&offset(told.first_time.as_ref()), Tone::Plain),
            (&offset(told.last_time.as_ref()), Tone::Plain),
            (&owner(key.owner.as_ref()), Tone::Plain),
            (&key.purpose, Tone::Plain),
        ]);
    }
    list.print()
}

/// Who called where an event is about no key.
fn key_of(event: &AuditEvent) -> &str {
    if event.key_id.is_empty() { &event.caller_key_id } else { &event.key_id }
}

/// A line with one mark, as far to the right as the event is late.
fn mark(screen: &Screen, offset: i64, length: i64) -> String {
    let mut marks = [0; WIDTH];
    let last = (WIDTH - 1) as i128;
    let at = if length > 0 { i128::from(offset) * last / i128::from(length) } else { 0 };
    marks[at.clamp(0, last) as usize] = 1;
    line(&marks, screen.blocks)
}

/// The first span, and how many more there are: a record of folded refusals has several.
fn spans(told: &TraceEvent) -> String {
    match told.span_ids.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first, more @ ..] => format!("{first} and {} more", more.len()),
    }
}

fn first_span_shown_at(links: Option<&TraceLinks>, id: &str, told: &TraceEvent) -> String {
    told.span_ids.first().map_or(String::new(), |span_id| url(links, id, span_id))
}

/// Nothing is drawn: why that may be.
fn nothing(screen: &Screen, id: &str) -> std::io::Result<()> {
    screen
        .line("Nothing is known of this trace in this ledger, or may be read with this token.")?;
    screen.line(
        "It may be in another ledger; or the replica was told by --trace-context not to continue the traces of callers.",
    )?;
    match as_key_id(id) {
        Some(key_id) => {
            screen.line(&format!("If it is the id of a key: `keyledger trace {key_id}`."))
        }
        None => Ok(()),
    }
}

/// The same digits as the id of a key, if they have its form: a UUID of version 8.
fn as_key_id(id: &str) -> Option<String> {
    let id: Uuid = id.parse().ok()?;
    let is_of_key = id.get_version_num() == 8 && id.get_variant() == Variant::RFC4122;
    is_of_key.then(|| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_stands_as_far_to_the_right_as_it_is_late() {
        let screen = Screen { colour: false, blocks: false };
        let at = |offset, length| mark(&screen, offset, length).find('#');
        assert_eq!(at(0, 0), Some(0));
        assert_eq!(at(0, 100), Some(0));
        assert_eq!(at(50, 100), Some(11));
        assert_eq!(at(100, 100), Some(WIDTH - 1));
        assert_eq!(at(-7, 100), Some(0));
        assert_eq!(at(i64::MAX, 1), Some(WIDTH - 1));
    }

    #[test]
    fn many_spans_of_one_event_are_counted() {
        let told = |ids: &[&str]| {
            let span_ids = ids.iter().map(|id| id.to_string()).collect();
            spans(&TraceEvent { span_ids, ..TraceEvent::default() })
        };
        assert_eq!(told(&[]), "");
        assert_eq!(told(&["a"]), "a");
        assert_eq!(told(&["a", "b", "c"]), "a and 2 more");
    }

    #[test]
    fn a_trace_that_has_the_form_of_a_key_id_is_told_as_one() {
        let key_id = "0198c5a0-0000-8000-8000-000000000001";
        assert_eq!(as_key_id(&key_id.replace('-', "")).as_deref(), Some(key_id));
        assert_eq!(as_key_id("0af7651916cd43dd8448eb211c80319c"), None);
    }
}
