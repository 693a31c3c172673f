//! Fills the index of events, behind the commit: reads entries that it doesn't cover yet, adds for each term the positions at
//! which it is found, counts, and notes when each secret was last used.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Weak;
use std::time::Duration;

use keyledger_ledger::body::{Event, Kind, Use};
use keyledger_ledger::facets::Facets;
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::state::{Owner, State};
use keyledger_ledger::terms::{self, Term};

use crate::last_uses::{self, uses_of_page};
use crate::sequencer::Ledger;
use crate::store::entries::FullEntry;
use crate::store::event_counts::Counts;
use crate::store::event_index::Run;
use crate::store::{StoreError, entries, event_index};

/// How often it looks for new entries. Longer runs make fewer rows; queries read what is newer themselves.
const INTERVAL: Duration = Duration::from_secs(5);
/// Most entries and bytes of one run.
const RUN_ENTRIES: i64 = 8_192;
const RUN_BYTES: usize = 32 << 20;
/// Most traces and folders of uses that one run indexes.
const MAX_DETAILS: usize = 4_096;

/// Runs until the ledger is dropped.
pub(crate) async fn run(ledger: Weak<Ledger>) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let Some(ledger) = ledger.upgrade() else { return };
        if let Err(error) = advance(&ledger).await {
            tracing::warn!(%error, "the index of events could not be filled");
        }
    }
}

/// Comes up to the newest entry that this replica knows.
pub(crate) async fn advance(ledger: &Ledger) -> Result<(), StoreError> {
    let head = ledger.snapshot();
    let size = head.state.next_position;
    loop {
        let client = ledger.database.client().await?;
        let from = event_index::progress(&client, ledger.id).await?;
        if from >= size {
            return Ok(());
        }
        let limit = RUN_ENTRIES.min((size - from) as i64);
        let entries =
            entries::full_from_position(&client, ledger.id, from, limit, RUN_BYTES).await?;
        let Some(to) = entries.last().map(|e| e.position + 1) else { return Ok(()) };
        let mut run = Run::default();
        entries.iter().for_each(|entry| add(&mut run, &head.state, entry));
        settle_details(&mut run);
        last_uses::add(&mut run.last_uses, &entries);
        event_index::advance(&client, ledger.id, from..to, &run).await?;
    }
}

/// What can't be read is left out; verification names it.
fn add(run: &mut Run, state: &State, entry: &FullEntry) {
    let Ok(event) = Event::from_signed(&entry.entry.body) else { return };
    let uses = uses_of(entry, &event);
    count(&mut run.counts, &event, &uses);
    let owner_of =
        |id: KeyId| -> Option<Owner> { state.keys.get(&id).map(|key| key.owner.clone()) };
    let terms = match &event.kind {
        Some(Kind::UsePage(_)) => terms::of_page(&uses),
        _ => terms::of_entry(&event, owner_of),
    };
    note_anomaly(run, entry.position, &event);
    let position = entry.position as i64;
    for term in terms {
        run.terms.entry(term).or_default().push(position);
    }
    for term in terms::details_of_page(&uses) {
        run.details.entry(term).or_default().push(position);
    }
}

/// What an entry says of an anomaly.
fn note_anomaly(run: &mut Run, position: u64, event: &Event) {
    match &event.kind {
        Some(Kind::AnomalyRaised(e)) => run.anomalies.raised(position, e),
        Some(Kind::AnomalyEnded(e)) => run.anomalies.ended(position, e),
        Some(Kind::AnomalyAcknowledged(e)) => {
            run.anomalies.acknowledged(position, e.anomaly_position)
        }
        _ => {}
    }
}

/// Each trace and folder would be a row. Where uses come so fast that these were too many, all their pages are looked at instead.
fn settle_details(run: &mut Run) {
    let details = std::mem::take(&mut run.details);
    // A folder may be that of an event too.
    let rows = match details.len() <= MAX_DETAILS {
        true => details,
        false => {
            let pages: BTreeSet<i64> = details.into_values().flatten().collect();
            BTreeMap::from([(Term::without_details(), pages.into_iter().collect())])
        }
    };
    for (term, positions) in rows {
        let of_term = run.terms.entry(term).or_default();
        of_term.extend(positions);
        of_term.sort_unstable();
    }
}

/// The uses of a page; other entries have none, whatever lies beside them.
fn uses_of(entry: &FullEntry, event: &Event) -> Vec<Use> {
    match &event.kind {
        Some(Kind::UsePage(_)) => uses_of_page(entry),
        _ => vec![],
    }
}

/// Counts the events of one entry, by what they are.
pub(crate) fn count_entry(counts: &mut Counts, entry: &FullEntry, event: &Event) {
    count(counts, event, &uses_of(entry, event));
}

fn count(counts: &mut Counts, event: &Event, uses: &[Use]) {
    // Most uses of a page are alike.
    let mut alike: HashMap<Facets<'_>, i64> = HashMap::new();
    match &event.kind {
        Some(Kind::UsePage(page)) => {
            for u in uses {
                *alike.entry(Facets::of_use(page, u)).or_default() += 1;
            }
        }
        _ => *alike.entry(Facets::of_entry(event)).or_default() += 1,
    }
    for (facets, events) in alike {
        counts.add(&facets, Time(event.time_us), events);
    }
}
