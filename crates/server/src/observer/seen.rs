//! An entry with what is read out of it, and what it says of the use of keys.

use std::net::IpAddr;

use keyledger_ledger::anomaly::{Addresses, Observation, observe_change, observe_use};
use keyledger_ledger::body::{
    Event, Kind, SealedColumn, SealedText, Texts, Use, UseColumn, UseRecord, decode_canonical,
};
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::page::ReadUse;
use keyledger_ledger::verify::Opening;
use prost::Message;

use crate::sequencer::Ledger;
use crate::store::StoreError;
use crate::store::entries::FullEntry;

/// An entry, decoded once. What can't be read is left out; verification names it.
pub(crate) struct Seen {
    pub(crate) position: u64,
    pub(crate) time: Time,
    pub(crate) event: Option<Event>,
    /// The uses of a page; other entries have none, whatever lies beside them.
    pub(crate) uses: Vec<ReadUse>,
    /// The sealed texts of an entry that is no page.
    sealed: Vec<Vec<u8>>,
}

impl Seen {
    pub(crate) fn of(entry: FullEntry) -> Seen {
        let event = Event::from_signed(&entry.entry.body).ok();
        let kind = event.as_ref().and_then(|event| event.kind.as_ref());
        let (mut uses, mut sealed) = (vec![], vec![]);
        match kind {
            Some(Kind::UsePage(_)) => uses = uses_of_page(&entry.uses),
            // Whose addresses these are is said by whoever recorded them.
            Some(Kind::EventRecorded(_)) => {}
            _ => {
                let column: Option<SealedColumn> =
                    decode_canonical(&entry.sealed, "SealedColumn").ok();
                sealed = column.unwrap_or_default().sealed;
            }
        }
        let (position, time) = (entry.position, Time(entry.columns.time_us));
        Seen { position, time, event, uses, sealed }
    }

    /// All texts that are opened.
    fn texts(&self) -> impl Iterator<Item = &SealedText> {
        let own = self.event.iter().filter(|_| !self.sealed.is_empty()).flat_map(|e| &e.texts);
        own.chain(self.uses.iter().flat_map(|read| &read.r#use.texts))
    }

    /// Observations of the keys that are wanted, and perhaps some others.
    fn observe(
        &self,
        ledger: &Ledger,
        wants: &impl Fn(Option<KeyId>) -> bool,
        observations: &mut Vec<Observation>,
    ) {
        let Some(event) = &self.event else { return };
        match &event.kind {
            Some(Kind::UsePage(_)) => {
                let wanted = |read: &&ReadUse| keys_of(&read.r#use).into_iter().any(wants);
                for read in self.uses.iter().filter(wanted) {
                    let addresses = addresses(ledger, &read.r#use.texts, &read.sealed);
                    observations.extend(observe_use(
                        self.position,
                        self.time,
                        &read.r#use,
                        addresses,
                    ));
                }
            }
            _ if !wants(event.caller.as_ref().and_then(|c| KeyId::from_slice(&c.key_id))) => {}
            _ => {
                let addresses = addresses(ledger, &event.texts, &self.sealed);
                observations.extend(observe_change(self.position, event, addresses));
            }
        }
    }
}

/// What entries say of the use of wanted keys, in order. Addresses of people whose data key is destroyed are not known.
pub(crate) async fn observations(
    ledger: &Ledger,
    seen: &[Seen],
    wants: impl Fn(Option<KeyId>) -> bool,
) -> Result<Vec<Observation>, StoreError> {
    let texts = seen.iter().flat_map(Seen::texts);
    let references: Vec<[u8; 16]> =
        texts.filter_map(|text| text.subject_ref.as_slice().try_into().ok()).collect();
    ledger.sealing.load(ledger.id, &references).await?;
    let mut observations = vec![];
    for seen in seen {
        seen.observe(ledger, &wants, &mut observations);
        tokio::task::yield_now().await;
    }
    observations.retain(|observation| wants(observation.key.map(|(id, _)| id)));
    Ok(observations)
}

/// The key that was used, if it is known, and that which asked.
fn keys_of(r#use: &Use) -> [Option<KeyId>; 2] {
    let asker = r#use.caller.as_ref().map(|c| c.key_id.as_slice());
    [Some(r#use.key_id.as_slice()), asker].map(|id| id.and_then(KeyId::from_slice))
}

/// Where a call came from. Sealed texts that were exchanged for others don't open: the commitment is bound to the seal.
fn addresses(ledger: &Ledger, texts: &[SealedText], sealed: &[Vec<u8>]) -> Addresses {
    let mut addresses = Addresses::default();
    for (text, sealed) in texts.iter().zip(sealed) {
        let Opening::Opened(opened) = ledger.sealing.open(ledger.id, text, sealed) else {
            continue;
        };
        let texts = Texts::decode(opened.texts.as_slice()).unwrap_or_default();
        let address = |text: &str| text.parse::<IpAddr>().ok();
        addresses.peer = addresses.peer.or_else(|| address(&texts.peer_address));
        addresses.client = addresses.client.or_else(|| address(&texts.client_address));
    }
    addresses
}

fn uses_of_page(column: &[u8]) -> Vec<ReadUse> {
    let column: UseColumn = decode_canonical(column, "UseColumn").unwrap_or_default();
    let read = |record: UseRecord| ReadUse {
        r#use: Use::decode(record.r#use.as_slice()).unwrap_or_default(),
        sealed: record.sealed,
    };
    column.uses.into_iter().map(read).collect()
}
