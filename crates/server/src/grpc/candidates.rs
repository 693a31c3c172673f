//! Which entries may hold the events that are asked for: positions from the index that narrows it most, and all of what the
//! index has not come to yet. What stands there is looked at afterwards, so it may be too much here, and never too little.

use std::ops::Range;

use crate::store::client::Client;
use keyledger_ledger::body::Severity;
use keyledger_ledger::category::{ANOMALY, LIFECYCLE};
use keyledger_ledger::id::KeyId;
use keyledger_ledger::state::Owner;
use keyledger_ledger::terms::{Term, folder_of_prefix};
use uuid::Uuid;

use super::call::CallContext;
use super::events::{Selection, Viewer, Who};
use super::status::Failure;
use crate::sequencer::Ledger;
use crate::store::StoreError;
use crate::store::event_index::{self, Order, Positions};
use crate::store::positions::{self, Which};

/// Most keys of an owner whose uses are looked up one by one. Of those who have more, all uses are looked at.
const MAX_KEYS: usize = 64;

/// From where positions come.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    Columns(Which),
    /// By any of these terms. Beyond the index: all that are no pages, or all pages.
    Terms(Which, Vec<Term>),
}

/// Some of what may be found in a range. `limit` is about how many are wanted at once.
pub(super) async fn candidates(
    call: &CallContext,
    s: &Selection,
    who: &Who,
    range: &Range<u64>,
    order: Order,
    limit: usize,
) -> Result<Positions, Failure> {
    let viewer = Viewer::Caller(call);
    let mut sources = of_entries(s, who);
    if s.wants_uses(&viewer) {
        sources.extend(of_pages(s, who, |owner| keys_of(call, owner)));
    }
    let client = call.ledger.database.client().await?;
    let from = Place { client: &client, ledger_id: call.ledger.id, order, limit: limit as i64 };
    let mut found = Positions::default();
    for source in sources {
        found = merge(found, from.read(source, range).await?, order);
    }
    Ok(found)
}

/// Some of the pages that hold uses of a key, or by it, newest first.
pub(super) async fn pages_of_key(
    ledger: &Ledger,
    key_id: KeyId,
    range: &Range<u64>,
    limit: usize,
) -> Result<Positions, Failure> {
    let client = ledger.database.client().await?;
    let order = Order::NewestFirst;
    let from = Place { client: &client, ledger_id: ledger.id, order, limit: limit as i64 };
    Ok(from.read(Source::Terms(Which::Pages, vec![Term::key(key_id)]), range).await?)
}

/// Entries that are no pages.
fn of_entries(s: &Selection, who: &Who) -> Vec<Source> {
    let f = &s.filter;
    let only_events = s.is_of_events();
    let only_changes = s.category == LIFECYCLE;
    let only_uses = !only_events && !only_changes && !s.category.is_empty();
    if only_uses || f.decision.is_some() || (only_changes && f.excludes_changes()) {
        return vec![];
    }
    let category = only_events.then_some(s.category.as_str());
    let terms = |terms: Vec<Term>| vec![Source::Terms(Which::NoPages, terms)];
    let called_by = |id: KeyId| match category {
        Some(category) => Source::Terms(Which::NoPages, vec![Term::caller(category, id)]),
        None => Source::Columns(Which::CalledBy(id)),
    };
    let unusual = |id: KeyId| {
        let asked = s.category.is_empty() || s.category == ANOMALY;
        asked.then(|| Source::Terms(Which::NoPages, vec![Term::anomaly_of(id)]))
    };
    let folder = folder_of_prefix(&f.resource_prefix);
    let deep = folder.filter(|folder| folder.matches('/').count() > 1);
    if let Some(trace) = f.trace_id {
        vec![Source::Columns(Which::OfTrace(trace))]
    } else if let (Some(id), true) = (s.key_id, only_events) {
        // A service's events are about no key. Anomalies may be.
        unusual(id).into_iter().chain([called_by(id)]).collect()
    } else if let Some(id) = s.key_id {
        let changes = [Source::Columns(Which::ChangesOf(id)), called_by(id)];
        changes.into_iter().chain(unusual(id)).collect()
    } else if let Some(actor) = &who.actor {
        terms(vec![match f.action.is_empty() {
            true => Term::actor(actor),
            false => Term::actor_and_action(actor, &f.action),
        }])
    } else if let Some(folder) = deep {
        terms(vec![Term::folder(folder)])
    } else if !f.action.is_empty() {
        terms(vec![Term::action(category, &f.action)])
    } else if let Some(id) = f.caller {
        // What nobody called may be found by the key that it is about.
        let about = category.is_none().then_some(Source::Columns(Which::ChangesOf(id)));
        about.into_iter().chain(unusual(id)).chain([called_by(id)]).collect()
    } else if let Some(owner) = &who.owner {
        terms(vec![Term::owner(owner)])
    } else if let Some(outcome) = f.outcome {
        terms(vec![Term::outcome(category, outcome)])
    } else if let Some(least) = f.min_severity {
        let grave = ALL_SEVERITIES.into_iter().filter(|s| *s >= least);
        terms(grave.map(|s| Term::severity(category, s)).collect())
    } else if let Some(folder) = folder {
        terms(vec![Term::folder(folder)])
    } else if let Some(category) = category {
        vec![Source::Columns(Which::OfCategory(category.into()))]
    } else if only_changes {
        vec![Source::Columns(Which::Changes), Source::Columns(Which::Counts)]
    } else {
        vec![Source::Columns(Which::NoPages)]
    }
}

const ALL_SEVERITIES: [Severity; 6] = [
    Severity::Informational,
    Severity::Low,
    Severity::Medium,
    Severity::High,
    Severity::Critical,
    Severity::Fatal,
];

/// Pages of uses.
fn of_pages(
    s: &Selection,
    who: &Who,
    keys_of: impl Fn(&Owner) -> Option<Vec<KeyId>>,
) -> Vec<Source> {
    let terms = |terms: Vec<Term>| vec![Source::Terms(Which::Pages, terms)];
    if s.filter.excludes_uses() {
        vec![]
    } else if let Some(trace) = s.filter.trace_id {
        terms(vec![Term::trace(&trace), Term::without_details()])
    } else if let Some(id) = s.key_id.or(s.filter.caller) {
        terms(vec![Term::key(id)])
    } else if let Some(actor) = &who.actor {
        terms(vec![Term::actor(actor)])
    } else if let Some(keys) = who.owner.as_ref().and_then(keys_of) {
        terms(keys.into_iter().map(Term::key).collect())
    } else if let Some(folder) = folder_of_prefix(&s.filter.resource_prefix) {
        terms(vec![Term::folder(folder), Term::without_details()])
    } else {
        vec![Source::Columns(Which::Pages)]
    }
}

/// The keys of an owner, unless they are too many.
fn keys_of(call: &CallContext, owner: &Owner) -> Option<Vec<KeyId>> {
    let head = call.head();
    let owned = head.state.keys.values().filter(|key| key.owner == *owner);
    let keys: Vec<KeyId> = owned.map(|key| key.id).take(MAX_KEYS + 1).collect();
    (keys.len() <= MAX_KEYS).then_some(keys)
}

/// Where positions are read, and how.
struct Place<'a> {
    client: &'a Client,
    ledger_id: Uuid,
    order: Order,
    limit: i64,
}

impl Place<'_> {
    async fn read(&self, source: Source, range: &Range<u64>) -> Result<Positions, StoreError> {
        match source {
            Source::Columns(which) => self.by_columns(&which, range).await,
            Source::Terms(which, terms) => self.by_terms(&which, &terms, range).await,
        }
    }

    async fn by_columns(&self, which: &Which, range: &Range<u64>) -> Result<Positions, StoreError> {
        let (client, id) = (self.client, self.ledger_id);
        if range.is_empty() {
            return Ok(Positions::default());
        }
        let positions = positions::of(client, id, which, range, self.order, self.limit).await?;
        let last = positions.last().filter(|_| positions.len() as i64 == self.limit);
        let edge = last.map(|last| self.order.after(*last));
        Ok(Positions { positions, edge })
    }

    /// What the index covers, and what it doesn't: whichever comes first in the order comes first.
    async fn by_terms(
        &self,
        which: &Which,
        terms: &[Term],
        range: &Range<u64>,
    ) -> Result<Positions, StoreError> {
        // How far it has come is asked first: what it takes over in between is then read twice at worst.
        let indexed = event_index::progress(self.client, self.ledger_id).await?;
        let covered = range.start..range.end.min(indexed);
        let beyond = range.start.max(indexed)..range.end;
        let newest_first = self.order == Order::NewestFirst;
        let mut found = match newest_first {
            true => self.by_columns(which, &beyond).await?,
            false => self.indexed(terms, &covered).await?,
        };
        if found.edge.is_none() {
            let more = match newest_first {
                true => self.indexed(terms, &covered).await?,
                false => self.by_columns(which, &beyond).await?,
            };
            found.positions.extend(more.positions);
            found.edge = more.edge;
        }
        Ok(found)
    }

    async fn indexed(&self, terms: &[Term], range: &Range<u64>) -> Result<Positions, StoreError> {
        let mut found = Positions::default();
        for term in terms.iter().filter(|_| !range.is_empty()) {
            let (client, id) = (self.client, self.ledger_id);
            let read = event_index::positions(client, id, term, range, self.order).await?;
            found = merge(found, read, self.order);
        }
        Ok(found)
    }
}

/// Both together, as far as both are complete.
fn merge(mut a: Positions, b: Positions, order: Order) -> Positions {
    a.positions.extend(b.positions);
    order.sort(&mut a.positions);
    let edges = a.edge.into_iter().chain(b.edge);
    a.edge = match order {
        Order::NewestFirst => edges.max(),
        Order::OldestFirst => edges.min(),
    };
    if let Some(edge) = a.edge {
        a.positions.retain(|p| match order {
            Order::NewestFirst => *p >= edge,
            Order::OldestFirst => *p < edge,
        });
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(positions: &[u64], edge: Option<u64>) -> Positions {
        Positions { positions: positions.to_vec(), edge }
    }

    #[test]
    fn two_sources_together_are_complete_as_far_as_both_are() {
        let newest = Order::NewestFirst;
        let merged = merge(found(&[9, 5], Some(5)), found(&[8, 7, 6], Some(6)), newest);
        assert_eq!(merged, found(&[9, 8, 7, 6], Some(6)));
        let merged = merge(found(&[9, 5], None), found(&[9, 7], Some(7)), newest);
        assert_eq!(merged, found(&[9, 7], Some(7)));
        let oldest = Order::OldestFirst;
        let merged = merge(found(&[1, 4], Some(5)), found(&[2, 3], Some(4)), oldest);
        assert_eq!(merged, found(&[1, 2, 3], Some(4)));
        assert_eq!(merge(found(&[], None), found(&[], None), oldest), found(&[], None));
    }
}
