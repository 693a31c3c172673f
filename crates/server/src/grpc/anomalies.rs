//! Unusual use: listed as of now, followed as it is noticed, and said to have been looked at.

use std::collections::HashMap;

use keyledger_ledger::anomaly;
use keyledger_ledger::body::{AnomalyRaised, DecisionReason, Event, Kind, Texts};
use keyledger_ledger::category::ANOMALY;
use keyledger_ledger::command::ChangeKind;
use keyledger_ledger::id::Time;
use keyledger_proto::parse::{AcknowledgeAnomaly, AnomalyFilter, ListAnomalies};
use keyledger_proto::{
    AcknowledgeAnomalyResponse, Anomaly, AnomalyChange, ListAnomaliesResponse,
    WatchAnomaliesRequest, WatchAnomaliesResponse, show,
};

use super::call::{CallContext, Outcome};
use super::follow::{Ended, Reader, Source, follow};
use super::gate::GivesEvents;
use super::page_token;
use super::replies::Replies;
use super::status::Failure;
use crate::observer;
use crate::sealing::About;
use crate::store::anomalies::{self, Row};
use crate::store::entries::{self, FullEntry};
use crate::store::event_index::Order;
use crate::store::positions::{self, Which};

/// Changes of anomalies that a stream reads at once.
const CHUNK: i64 = 64;

impl GivesEvents for ListAnomaliesResponse {
    fn events_given(&self) -> u64 {
        self.anomalies.len() as u64
    }
}

pub(super) async fn list_anomalies(
    call: CallContext,
    r: ListAnomalies,
) -> Result<ListAnomaliesResponse, Failure> {
    let query = ["ListAnomalies", &r.query];
    let before = match page_token::read(&query, &r.page_token)? {
        None => i64::MAX as u64,
        Some(bytes) => {
            let position = bytes.as_slice().try_into().map_err(|_| Failure::PageToken)?;
            u64::from_be_bytes(position)
        }
    };
    come_up(&call).await?;
    let client = call.ledger.database.client().await?;
    let (start, end) = range_of(&call, &r.filter).await?;
    let range = start..end.min(before);
    let id = call.ledger.id;
    let mut rows = anomalies::list(&client, id, &r.filter, &range, r.page_size + 1).await?;
    drop(client);
    let has_more = rows.len() > r.page_size;
    rows.truncate(r.page_size);
    let next = rows.last().filter(|_| has_more).map(|row| row.position.to_be_bytes());
    let entries = Opened::read(&call, rows.iter().flat_map(positions_of).collect()).await?;
    Ok(ListAnomaliesResponse {
        anomalies: rows.iter().filter_map(|row| as_of_now(&entries, row)).collect(),
        next_page_token: next.map(|at| page_token::write(&query, &at)).unwrap_or_default(),
    })
}

/// What has happened up to now is looked at before it is told. What is then raised is an entry of its own, and looked at too.
async fn come_up(call: &CallContext) -> Result<(), Failure> {
    call.ledger.catch_up().await?;
    let before = call.head().state.next_position;
    observer::advance(&call.ledger).await?;
    if call.head().state.next_position > before {
        observer::advance(&call.ledger).await?;
    }
    Ok(())
}

/// The positions at which something was recorded in the time that was asked for: times never run backwards.
async fn range_of(call: &CallContext, filter: &AnomalyFilter) -> Result<(u64, u64), Failure> {
    let size = call.head().state.next_position;
    let client = call.ledger.database.client().await?;
    let first = async |time: Time| entries::first_at(&client, call.ledger.id, size, time).await;
    let start = match filter.start {
        Some(time) => first(time).await?,
        None => 0,
    };
    let end = match filter.end {
        Some(time) => first(time).await?,
        None => i64::MAX as u64,
    };
    Ok((start, end))
}

fn positions_of(row: &Row) -> Vec<u64> {
    let others = row.ended.iter().chain(&row.acknowledged);
    std::iter::once(row.position).chain(others.copied()).collect()
}

/// `None` if its entry can't be read, which verification names.
fn as_of_now(entries: &Opened, row: &Row) -> Option<Anomaly> {
    let anomaly = entries.raised(row.position)?;
    let ended = row.ended.and_then(|at| entries.0.get(&at));
    Some(Anomaly {
        occurrences: row.occurrences.max(anomaly.occurrences),
        last_time: Some(show::timestamp(row.last)),
        end_time: ended.map(|(event, _)| show::timestamp(Time(event.time_us))),
        acknowledgements: row
            .acknowledged
            .iter()
            .filter_map(|at| acknowledgement(entries, *at))
            .collect(),
        ..anomaly
    })
}

fn acknowledgement(
    entries: &Opened,
    position: u64,
) -> Option<keyledger_proto::AnomalyAcknowledgement> {
    let (event, texts) = entries.0.get(&position)?;
    match &event.kind {
        Some(Kind::AnomalyAcknowledged(e)) => {
            Some(show::acknowledgement(position, event, e, texts))
        }
        _ => None,
    }
}

/// Entries by position, with their texts opened.
struct Opened(HashMap<u64, (Event, Texts)>);

impl Opened {
    async fn read(call: &CallContext, mut positions: Vec<u64>) -> Result<Opened, Failure> {
        positions.sort_unstable();
        positions.dedup();
        let client = call.ledger.database.client().await?;
        let entries = entries::at_positions(&client, call.ledger.id, &positions).await?;
        drop(client);
        let mut all = HashMap::new();
        for entry in &entries {
            let Ok(event) = Event::from_signed(&entry.entry.body) else { continue };
            all.insert(entry.position, (event, show::merged(&call.open_entry(entry).await?)));
        }
        Ok(Opened(all))
    }

    fn raised(&self, position: u64) -> Option<Anomaly> {
        let (event, texts) = self.0.get(&position)?;
        let raised = raised_by(event)?;
        Some(show::raised_anomaly(position, event, raised, texts))
    }
}

fn raised_by(event: &Event) -> Option<&AnomalyRaised> {
    match &event.kind {
        Some(Kind::AnomalyRaised(raised)) => Some(raised),
        _ => None,
    }
}

pub(super) async fn watch_anomalies(
    call: CallContext,
    r: WatchAnomaliesRequest,
) -> Result<Replies<WatchAnomaliesResponse>, Failure> {
    let next = r.from_position.unwrap_or(call.head().state.next_position);
    let (replica, ledger) = (call.replica.clone(), call.ledger.clone());
    follow(&replica.streams, ledger, Changes { call, seen: None }, next, None)
}

struct Changes {
    call: CallContext,
    /// How many changes of anomalies the ledger had, once the cursor has come to its head.
    seen: Option<u64>,
}

impl Source for Changes {
    type Reply = WatchAnomaliesResponse;

    async fn send_some(
        &mut self,
        reader: &mut Reader<WatchAnomaliesResponse>,
        end: u64,
    ) -> Result<(), Ended> {
        self.check()?;
        let head = self.call.head();
        let count = head.state.counts.iter().find(|(category, _)| *category == ANOMALY);
        let count = count.map_or(0, |(_, count)| count);
        // Nothing of it has come since.
        if self.seen == Some(count) {
            reader.next = end;
            return Ok(());
        }
        let (which, range) = (Which::OfCategory(ANOMALY.into()), reader.next..end);
        let client = self.call.ledger.database.client().await?;
        let (id, order) = (self.call.ledger.id, Order::OldestFirst);
        let found = positions::of(&client, id, &which, &range, order, CHUNK).await?;
        let chunk = entries::at_positions(&client, id, &found).await?;
        drop(client);
        for entry in &chunk {
            let next = entry.position + 1;
            if let Some(change) = self.change(entry).await? {
                self.check()?;
                let reply = reply(Some(change), next);
                reader.send(reply, next, 1).await?;
            }
            reader.next = next;
        }
        if (found.len() as i64) < CHUNK {
            reader.next = end;
            self.seen = (end == head.state.next_position).then_some(count);
        }
        Ok(())
    }

    fn heartbeat(&self, next_position: u64) -> Result<WatchAnomaliesResponse, Failure> {
        self.check()?;
        Ok(reply(None, next_position))
    }

    /// Whoever opened it used its key; so does whoever has read it.
    async fn closed(&mut self, events: u64) -> Result<(), Failure> {
        self.call.again().record_access(Some(events)).await
    }
}

impl Changes {
    /// An error once the reader's key has ended, or may not read this any more.
    fn check(&self) -> Result<(), Failure> {
        match (self.call.still_stands(), self.call.may_read(ANOMALY)) {
            (false, _) => Err(Failure::KeyEnded),
            (true, false) => Err(self.call.denied(&format!("logs/{ANOMALY}"))),
            (true, true) => Ok(()),
        }
    }

    /// What an entry says, together with the one that raised the anomaly.
    async fn change(&self, entry: &FullEntry) -> Result<Option<AnomalyChange>, Failure> {
        let event = Event::from_signed(&entry.entry.body)
            .map_err(|_| Failure::Internal("a stored entry can't be read"))?;
        let position = entry.position;
        let Some(kind) = &event.kind else { return Ok(None) };
        let raised_at = match kind {
            Kind::AnomalyRaised(_) => position,
            Kind::AnomalyEnded(e) => e.anomaly_position,
            Kind::AnomalyAcknowledged(e) => e.anomaly_position,
            _ => return Ok(None),
        };
        let entries = Opened::read(&self.call, vec![raised_at, position]).await?;
        let mut anomaly = entries.raised(raised_at);
        let time = show::timestamp(Time(event.time_us));
        if let (Some(anomaly), Kind::AnomalyEnded(e)) = (&mut anomaly, kind) {
            anomaly.occurrences = e.occurrences;
            anomaly.last_time = Some(show::timestamp(Time(e.last_time_us)));
            anomaly.end_time = Some(time);
        }
        if let Some(anomaly) = &mut anomaly {
            anomaly.acknowledgements.extend(acknowledgement(&entries, position));
        }
        let (position, r#type) = (Some(position), kind.name().to_string());
        Ok(Some(AnomalyChange { position, time: Some(time), r#type, anomaly }))
    }
}

fn reply(change: Option<AnomalyChange>, next: u64) -> WatchAnomaliesResponse {
    WatchAnomaliesResponse { change, next_position: Some(next) }
}

pub(super) async fn acknowledge_anomaly(
    mut call: CallContext,
    r: AcknowledgeAnomaly,
) -> Result<AcknowledgeAnomalyResponse, Failure> {
    let entries = Opened::read(&call, vec![r.position]).await?;
    if entries.raised(r.position).is_none() {
        // Whoever may not say anything is told so, and nothing else.
        call.refuse(DecisionReason::Refused).await?;
        return Err(Failure::AnomalyNotFound);
    }
    let texts = Texts { reason: r.common.reason.clone(), ..Texts::default() };
    let sealed = call.seal(About::Nobody, &texts).await?;
    let kind = ChangeKind::Anomaly(anomaly::AnomalyChange::Acknowledge {
        position: r.position,
        verdict: r.verdict,
    });
    let position = match call.change(kind, sealed, &r.common).await? {
        Outcome::Done { position, .. } | Outcome::Replayed { position } => Some(position),
        Outcome::Validated { .. } | Outcome::Seen => None,
    };
    Ok(AcknowledgeAnomalyResponse { position })
}
