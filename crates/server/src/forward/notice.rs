//! Notices: what whoever is responsible for some keys should hear of, and the record that they were told.
//!
//! A notice is a forwarder with a narrower filter and a longer memory: that a receiver has taken something becomes an entry of
//! the ledger.

use keyledger_ledger::body::{Event, Kind};
use keyledger_ledger::command::{Answer, Change, ChangeKind, NoteDelivery};
use keyledger_ledger::id::KeyId;
use keyledger_ledger::state::{Label, State};
use sha2::{Digest, Sha256};

use super::{Batch, Failed};
use crate::replica::by_itself;
use crate::sequencer::Ledger;

/// What notices may be about, by the names of kinds of entries.
pub(super) const KINDS: [&str; 4] =
    ["anomaly.raised", "findings.digested", "key.expiring", "key.rotation-due"];

/// About what, and about which keys.
pub(super) struct Notice {
    /// Some of [`KINDS`].
    pub(super) kinds: Vec<String>,
    /// A key must have all of them.
    pub(super) labels: Vec<Label>,
}

impl Notice {
    /// Whether an entry is of a kind that is meant, and about a key with the labels that are meant.
    pub(super) fn means(&self, event: &Event, state: &State) -> bool {
        let Some(kind) = &event.kind else { return false };
        if !self.kinds.iter().any(|name| name == kind.name()) {
            return false;
        }
        let labelled = |id| {
            let key = state.keys.get(&id);
            key.is_some_and(|key| self.labels.iter().all(|label| key.labels.contains(label)))
        };
        is_about_all(event) || self.labels.is_empty() || key_of(kind).is_some_and(labelled)
    }
}

/// What is about no key or owner goes to everybody who asked for its kind.
pub(super) fn is_about_all(event: &Event) -> bool {
    matches!(event.kind, Some(Kind::FindingsDigested(_)))
}

/// The key that a notice is about.
fn key_of(kind: &Kind) -> Option<KeyId> {
    match kind {
        Kind::AnomalyRaised(raised) => KeyId::from_slice(&raised.key_id),
        kind => kind.key_link().and_then(|link| KeyId::from_slice(&link.key_id)),
    }
}

/// Says in the ledger that a receiver has what was sent. Whoever dies before this sends it again, and says so then.
pub(super) async fn record(
    ledger: &Ledger,
    receiver: &str,
    batch: &Batch,
    body: &[u8],
    failures: u32,
) -> Result<(), Failed> {
    let delivery = NoteDelivery {
        receiver: receiver.into(),
        positions: batch.positions.clone(),
        failures,
        body_sha256: Sha256::digest(body).into(),
    };
    let change = Change::new(ChangeKind::NoteDelivery(delivery), vec![]);
    match by_itself(ledger, change).await {
        Ok(Answer::Changed { .. }) => Ok(()),
        Ok(other) => {
            tracing::error!(?other, receiver, "the delivery of a notice could not be recorded");
            Err(Failed::new("it was sent, and the ledger could not record that it was"))
        }
        Err(error) => {
            tracing::warn!(%error, receiver, "the delivery of a notice could not be recorded");
            Err(Failed::new("it was sent, and the ledger could not record that it was"))
        }
    }
}

#[cfg(test)]
mod tests {
    use keyledger_ledger::body::{AnomalyRaised, FindingsDigested, KeyExpiring, KeyLink};

    use super::*;

    fn event(kind: Kind) -> Event {
        Event { kind: Some(kind), ..Event::default() }
    }

    #[test]
    fn a_notice_is_about_its_kinds_and_about_keys_with_its_labels() {
        let label = Label { name: "team".into(), value: "billing".into() };
        let notice = |kinds: &[&str], labels: &[Label]| Notice {
            kinds: kinds.iter().map(ToString::to_string).collect(),
            labels: labels.to_vec(),
        };
        let link = KeyLink { key_id: vec![7; 16], ..KeyLink::default() };
        let expiring = event(Kind::KeyExpiring(KeyExpiring { link: Some(link), days: 7 }));
        let raised = AnomalyRaised { key_id: vec![7; 16], ..AnomalyRaised::default() };
        let raised = event(Kind::AnomalyRaised(raised));
        let digest = event(Kind::FindingsDigested(FindingsDigested::default()));
        let state = State::default();
        for (kinds, labels, expected) in [
            (&KINDS[..], vec![], [true, true, true]),
            (&["key.expiring"][..], vec![], [true, false, false]),
            (&["anomaly.raised"][..], vec![], [false, true, false]),
            // Nobody knows the key, so it has no labels; a digest is about all keys.
            (&KINDS[..], vec![label], [false, false, true]),
        ] {
            let notice = notice(kinds, &labels);
            let means = [&expiring, &raised, &digest].map(|e| notice.means(e, &state));
            assert_eq!(means, expected, "{kinds:?}");
        }
    }
}
