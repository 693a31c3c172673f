//! What the ledgers hold, read straight from the database: entries, and each use of a page.

use std::collections::BTreeMap;

use keyledger_ledger::body::{Decision, DecisionReason, Event, Kind, Use};
use keyledger_ledger::page::read_uses;
use tokio_postgres::Client;

use super::deployment::Deployment;

/// One record of a ledger, at its address.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    Change { position: u64, event: Box<Event> },
    Use { position: u64, index: u32, r#use: Box<Use> },
}

impl Record {
    /// Position, and index if it is a use: what an `AuditEvent` of it names.
    pub(crate) fn address(&self) -> (u64, Option<u32>) {
        match self {
            Record::Change { position, .. } => (*position, None),
            Record::Use { position, index, .. } => (*position, Some(*index)),
        }
    }

    /// The use, if it is one.
    #[track_caller]
    pub(crate) fn as_use(&self) -> &Use {
        match self {
            Record::Use { r#use, .. } => r#use,
            Record::Change { event, .. } => panic!("{:?} is a change: {event:?}", self.address()),
        }
    }

    /// The change, if it is one.
    #[track_caller]
    pub(crate) fn as_change(&self) -> &Event {
        match self {
            Record::Change { event, .. } => event,
            Record::Use { r#use, .. } => panic!("{:?} is a use: {use:?}", self.address()),
        }
    }
}

/// Decision and reason of a use, in words.
pub(crate) fn verdict(r#use: &Use) -> (Decision, DecisionReason) {
    let decision =
        Decision::try_from(r#use.decision).expect("a decision that was written is known");
    (decision, DecisionReason::try_from(r#use.reason).expect("a reason that was written is known"))
}

/// How far each ledger has come, by number.
#[derive(Clone, Debug)]
pub(crate) struct Mark(BTreeMap<u32, u64>);

impl Deployment {
    /// Remembers where all ledgers stand.
    pub(crate) async fn mark(&self) -> Mark {
        let sizes = "SELECT number, (SELECT count(*) FROM entries e WHERE e.ledger_id = l.ledger_id) FROM ledgers l";
        let rows =
            self.superuser().await.query(sizes, &[]).await.expect("a superuser reads ledgers");
        Mark(rows.iter().map(|r| (r.get::<_, i32>(0) as u32, r.get::<_, i64>(1) as u64)).collect())
    }

    /// What was recorded since, by number of ledger. Ledgers with nothing new are left out, and so is what was noticed meanwhile of
    /// what happened before.
    pub(crate) async fn since(&self, mark: &Mark) -> BTreeMap<u32, Vec<Record>> {
        let client = self.superuser().await;
        let rows = client.query("SELECT number FROM ledgers ORDER BY number", &[]).await;
        let mut found = BTreeMap::new();
        for row in rows.expect("a superuser reads ledgers") {
            let number = row.get::<_, i32>(0) as u32;
            let from = mark.0.get(&number).copied().unwrap_or(0);
            let mut records = records_from(&client, number, from).await;
            records.retain(|record| !is_noticed(record));
            if !records.is_empty() {
                found.insert(number, records);
            }
        }
        found
    }

    /// What was recorded since, in the one ledger that was written to.
    pub(crate) async fn since_in_one(&self, mark: &Mark) -> (u32, Vec<Record>) {
        let mut found = self.since(mark).await.into_iter();
        let one = found.next().expect("something was recorded");
        assert!(found.next().is_none(), "only one ledger was written to");
        one
    }

    /// The same once so many records are there: the end of a stream of events is recorded after its reader has gone.
    pub(crate) async fn since_in_one_until(&self, mark: &Mark, count: usize) -> (u32, Vec<Record>) {
        loop {
            let found = self.since_in_one(mark).await;
            if found.1.len() >= count {
                return found;
            }
        }
    }

    /// Everything that a ledger holds.
    pub(crate) async fn records(&self, number: u32) -> Vec<Record> {
        records_from(&self.superuser().await, number, 0).await
    }
}

fn is_noticed(record: &Record) -> bool {
    let Record::Change { event, .. } = record else { return false };
    matches!(event.kind, Some(Kind::AnomalyRaised(_) | Kind::AnomalyEnded(_)))
}

async fn records_from(client: &Client, number: u32, position: u64) -> Vec<Record> {
    let entries =
        "SELECT e.position, e.body, e.uses FROM entries e JOIN ledgers l USING (ledger_id)
                   WHERE l.number = $1 AND e.position >= $2 ORDER BY e.position";
    let rows = client.query(entries, &[&(number as i32), &(position as i64)]).await;
    let rows = rows.expect("a superuser reads entries");
    rows.iter()
        .flat_map(|row| records_of(row.get::<_, i64>(0) as u64, row.get(1), row.get(2)))
        .collect()
}

fn records_of(position: u64, body: &[u8], uses: &[u8]) -> Vec<Record> {
    let event = Event::from_signed(body).expect("a stored body can be decoded");
    let Some(Kind::UsePage(page)) = &event.kind else {
        return vec![Record::Change { position, event: Box::new(event) }];
    };
    let uses = read_uses(page, uses).expect("the uses beside a page are those of the page");
    let record = |(index, read): (usize, keyledger_ledger::page::ReadUse)| Record::Use {
        position,
        index: index as u32,
        r#use: Box::new(read.r#use),
    };
    uses.into_iter().enumerate().map(record).collect()
}
