//! `keyledger audit signed-counts`.

use std::collections::BTreeMap;

use anyhow::Context;
use keyledger_ledger::body::{CategoryCount, CategoryCounted, CountRecord, Event, Kind};
use keyledger_ledger::category::check_count;
use keyledger_proto::{
    EventView, GetCategoryCountsRequest, GetCategoryCountsResponse, ProvenCount,
    StreamEventsRequest,
};
use prost::Message;

use crate::Ending;
use crate::connection::Session;
use crate::failure::Failure;
use crate::json::{self, Output};
use crate::screen::{Screen, Tone};
use crate::table::List;

/// Print how many events there are of each category that the key may read, as the ledger has signed it.
///
/// Each count is checked against the signed root. With --complete all events that the key may read are fetched and counted: then
/// you know that none was withheld from you up to that position.
#[derive(clap::Args)]
#[command(after_help = "Example: keyledger audit signed-counts --complete")]
pub(super) struct SignedCounts {
    /// Fetch all events, and compare.
    #[arg(long)]
    complete: bool,
    #[command(flatten)]
    output: Output,
}

impl SignedCounts {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<Ending> {
        let request = session.call(GetCategoryCountsRequest {});
        let reply = session.audit().get_category_counts(request).await;
        let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
        check(&reply)?;
        let given = match self.complete {
            true => Some(count_all(session, reply.position).await?),
            false => None,
        };
        if self.output.is_json() {
            json::print_reply(screen, "GetCategoryCountsResponse", &reply)?;
        } else {
            print(screen, &reply, given.as_ref())?;
        }
        Ok(match given.is_none_or(|given| is_complete(&reply, &given)) {
            true => Ending::Good,
            false => Ending::NotGood,
        })
    }
}

/// Each count is one of those that were signed.
fn check(reply: &GetCategoryCountsResponse) -> anyhow::Result<()> {
    let body = reply.entry.as_ref().map(|entry| entry.body.as_slice()).unwrap_or_default();
    let Ok(Some(Kind::CategoryCounted(counted))) = Event::from_signed(body).map(|e| e.kind) else {
        return Err(Failure::new("the server sent an entry that tells no counts").into());
    };
    let wrong = reply.counts.iter().find(|count| !is_signed(&counted, count));
    match wrong {
        None => Ok(()),
        Some(count) => {
            let what = format!("the count of {} is not one that was signed", count.category);
            Err(Failure::new(&what).into())
        }
    }
}

fn is_signed(counted: &CategoryCounted, proven: &ProvenCount) -> bool {
    let count = CategoryCount { category: proven.category.clone(), count: proven.count };
    let record = CountRecord { count: count.encode_to_vec(), salt: proven.salt.clone() };
    let path: Option<Vec<[u8; 32]>> =
        proven.path.iter().map(|hash| hash.as_slice().try_into().ok()).collect();
    path.is_some_and(|path| check_count(counted, &record, proven.leaf_index, &path))
}

/// How many events of each category the server gives before a position.
async fn count_all(session: &Session, position: u64) -> anyhow::Result<BTreeMap<String, u64>> {
    let request = StreamEventsRequest {
        from_position: Some(0),
        view: EventView::Basic as i32,
        stop_at_head: true,
        ..StreamEventsRequest::default()
    };
    let stream = session.audit().stream_events(session.stream(request)).await;
    let mut stream = stream.map_err(|s| session.failure(&s))?.into_inner();
    let mut given = BTreeMap::new();
    while let Some(reply) = stream.message().await.map_err(|s| session.failure(&s))? {
        let Some(event) = reply.event else { continue };
        if event.position.context("an event has a position")? >= position {
            break;
        }
        *given.entry(event.category).or_default() += 1;
    }
    Ok(given)
}

fn is_complete(reply: &GetCategoryCountsResponse, given: &BTreeMap<String, u64>) -> bool {
    let signed = reply.counts.iter().map(|c| (&c.category, &c.count));
    signed.eq(given.iter())
}

fn print(
    screen: &Screen,
    reply: &GetCategoryCountsResponse,
    given: Option<&BTreeMap<String, u64>>,
) -> anyhow::Result<()> {
    let mut list = match given {
        Some(_) => List::new(screen, &["CATEGORY", "SIGNED", "GIVEN"], &[0]),
        None => List::new(screen, &["CATEGORY", "EVENTS"], &[0]),
    };
    for count in &reply.counts {
        let signed = count.count.to_string();
        let given = given.map(|given| given.get(&count.category).copied().unwrap_or_default());
        let tone = if given.is_none_or(|n| n == count.count) { Tone::Good } else { Tone::Bad };
        let mut row = vec![(count.category.as_str(), Tone::Strong), (&signed, Tone::Plain)];
        let given = given.map(|n| n.to_string());
        row.extend(given.as_deref().map(|text| (text, tone)));
        list.row(&row);
    }
    list.print()?;
    screen.line(&format!("As signed at position {}.", reply.position))?;
    if let Some(given) = given {
        screen.line(match is_complete(reply, given) {
            true => "Complete: every event that you may read was given to you.",
            false => "NOT COMPLETE: what was given is not what was signed.",
        })?;
    }
    Ok(())
}
