//! The index of events and their counts: for each term the positions at which something is found by it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use keyledger_ledger::body::Kind;
use keyledger_ledger::facets::Facets;
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::state::{Owner, State};
use keyledger_ledger::terms::{self, Term};

use super::seen::Seen;
use crate::store::event_counts::Counts;
use crate::store::event_index::Run;

/// Most traces and folders of uses that one run indexes.
const MAX_DETAILS: usize = 4_096;

/// Terms and counts of a run of entries.
pub(super) fn run_of(state: &State, seen: &[Seen]) -> Run {
    let mut run = Run::default();
    seen.iter().for_each(|seen| add(&mut run, state, seen));
    settle_details(&mut run);
    run
}

fn add(run: &mut Run, state: &State, seen: &Seen) {
    let Some(event) = &seen.event else { return };
    count_entry(&mut run.counts, seen);
    match &event.kind {
        Some(Kind::AnomalyRaised(e)) => run.anomalies.raised(seen.position, e),
        Some(Kind::AnomalyEnded(e)) => run.anomalies.ended(seen.position, e),
        Some(Kind::AnomalyAcknowledged(e)) => {
            run.anomalies.acknowledged(seen.position, e.anomaly_position)
        }
        _ => {}
    }
    let owner_of =
        |id: KeyId| -> Option<Owner> { state.keys.get(&id).map(|key| key.owner.clone()) };
    let terms = match &event.kind {
        Some(Kind::UsePage(_)) => terms::of_page(&seen.uses),
        _ => terms::of_entry(event, owner_of),
    };
    let position = seen.position as i64;
    for term in terms {
        run.terms.entry(term).or_default().push(position);
    }
    for term in terms::details_of_page(&seen.uses) {
        run.details.entry(term).or_default().push(position);
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

/// Counts the events of one entry, by what they are.
pub(crate) fn count_entry(counts: &mut Counts, seen: &Seen) {
    let Some(event) = &seen.event else { return };
    // Most uses of a page are alike.
    let mut alike: HashMap<Facets<'_>, i64> = HashMap::new();
    match &event.kind {
        Some(Kind::UsePage(page)) => {
            for read in &seen.uses {
                *alike.entry(Facets::of_use(page, &read.r#use)).or_default() += 1;
            }
        }
        _ => *alike.entry(Facets::of_entry(event)).or_default() += 1,
    }
    for (facets, events) in alike {
        counts.add(&facets, Time(event.time_us), events);
    }
}
