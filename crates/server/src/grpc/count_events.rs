//! CountEvents: from counts that the index keeps, and from the newest entries that it hasn't come to.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use keyledger_ledger::facets::Dimension;
use keyledger_ledger::id::Time;
use keyledger_ledger::usage::hour_of;
use keyledger_proto::parse::{CountEvents, Group};
use keyledger_proto::{CountEventsResponse, EventCount, show};

use super::call::CallContext;
use super::events::Selection;
use super::gate::GivesEvents;
use super::status::Failure;
use crate::observer;
use crate::observer::seen::Seen;
use crate::store::entries;
use crate::store::event_counts::{Counts, Snapshot};
use crate::store::event_index;

/// Most values that are told one by one.
const MAX_VALUES: usize = 100;
/// Most entries and bytes that are read beyond the index.
const MAX_BEYOND: i64 = 4_096;
const MAX_BEYOND_BYTES: usize = 8 << 20;

type Values = BTreeMap<String, u64>;

impl GivesEvents for CountEventsResponse {
    /// None is given; so many were counted.
    fn events_given(&self) -> u64 {
        self.total_events
    }
}

pub(super) async fn count_events(
    call: CallContext,
    r: CountEvents,
) -> Result<CountEventsResponse, Failure> {
    let selection = Selection { category: r.category.clone(), ..Selection::default() };
    selection.check_for(&call)?;
    // First those that the index may not have, then the index: what it takes over in between is left out of them.
    let newest = newest(&call).await?;
    let mut client = call.ledger.database.client().await?;
    let snapshot = Snapshot::take(&mut client, call.ledger.id).await?;
    let before = newest.last().map_or(0, |e| e.position + 1).max(snapshot.indexed);
    let newest = count_newest(&newest, snapshot.indexed, &r.hours)?;
    let categories = categories(&call, &r, &snapshot, &newest).await?;
    let total = categories.values().sum();
    let names: Vec<&str> = categories.keys().map(String::as_str).collect();
    let counts = match r.group {
        Group::Category => most_frequent(categories),
        Group::Value(dimension) => {
            let beyond = newest.values(dimension, &names);
            most_frequent(by_value(&snapshot, dimension, &r.hours, &names, beyond).await?)
        }
        Group::Hour => {
            let mut hours = newest.hours(&names);
            for (hour, events) in snapshot.by_hour(&r.hours, &names).await? {
                *hours.entry(hour).or_default() += events;
            }
            hours.into_iter().map(|(hour, n)| count(hour_text(hour), n)).collect()
        }
    };
    let told: u64 = counts.iter().map(|c| c.events).sum();
    Ok(CountEventsResponse {
        counts,
        other_events: total - told,
        total_events: total,
        before_position: Some(before),
    })
}

/// The entries that the index hasn't come to: the first of them, if they are very many.
async fn newest(call: &CallContext) -> Result<Vec<Seen>, Failure> {
    let (client, id) = (call.ledger.database.client().await?, call.ledger.id);
    let from = event_index::progress(&client, id).await?;
    let read = entries::full_from_position(&client, id, from, MAX_BEYOND, MAX_BEYOND_BYTES).await?;
    Ok(read.into_iter().map(Seen::of).collect())
}

fn count_newest(entries: &[Seen], indexed: u64, hours: &Range<i64>) -> Result<Counts, Failure> {
    let mut counts = Counts::default();
    for seen in entries.iter().filter(|e| e.position >= indexed) {
        let event = seen.event.as_ref();
        let event = event.ok_or(Failure::Internal("a stored entry can't be read"))?;
        if hours.contains(&hour_of(Time(event.time_us))) {
            observer::count_entry(&mut counts, seen);
        }
    }
    Ok(counts)
}

/// Events of each category that is meant and may be read. A ledger has at most 500, and three of its own.
async fn categories(
    call: &CallContext,
    r: &CountEvents,
    snapshot: &Snapshot<'_>,
    newest: &Counts,
) -> Result<Values, Failure> {
    let only = (!r.category.is_empty()).then_some(r.category.as_str());
    let mut found = newest.categories();
    for (category, events) in snapshot.by_category(&r.hours, only).await? {
        *found.entry(category).or_default() += events;
    }
    found.retain(|category, _| only.is_none_or(|only| only == category) && call.may_read(category));
    Ok(found)
}

/// Whatever is among the most frequent in all is so in the index, or stands beyond it: so those are asked for too.
async fn by_value(
    snapshot: &Snapshot<'_>,
    dimension: Dimension,
    hours: &Range<i64>,
    categories: &[&str],
    beyond: Values,
) -> Result<Values, Failure> {
    let named: BTreeSet<&str> = beyond.keys().map(String::as_str).collect();
    let named: Vec<&str> = named.into_iter().collect();
    let limit = MAX_VALUES as i64;
    let indexed = snapshot.by_value(dimension, hours, categories, &named, limit).await?;
    let mut values = beyond;
    for (value, events) in indexed {
        *values.entry(value).or_default() += events;
    }
    Ok(values)
}

fn most_frequent(values: Values) -> Vec<EventCount> {
    let mut counts: Vec<EventCount> = values.into_iter().map(|(v, n)| count(v, n)).collect();
    // They come in the order of their names: so do those that are equally frequent.
    counts.sort_by_key(|c| std::cmp::Reverse(c.events));
    counts.truncate(MAX_VALUES);
    counts
}

fn count(value: String, events: u64) -> EventCount {
    EventCount { value, events }
}

/// `2026-11-22T08:00:00Z`
fn hour_text(hour: i64) -> String {
    show::timestamp(Time(hour * 3_600 * Time::MICROS_PER_SECOND)).to_string()
}
