//! KeyService: what is to be tidied up.

use std::collections::HashMap;
use std::sync::Arc;

use keyledger_ledger::body::Texts;
use keyledger_ledger::id::KeyId;
use keyledger_ledger::state::Key;
use keyledger_proto::findings::{self, finding};
use keyledger_proto::{Finding, ListFindingsResponse, parse, show};

use super::call::CallContext;
use super::keys::key_texts;
use super::page_token;
use super::status::Failure;
use crate::findings::{About, Item, Place, Search};

/// How many steps one call goes: a page may be short.
const MAX_STEPS: usize = 100;

pub(super) async fn list_findings(
    call: CallContext,
    r: parse::ListFindings,
) -> Result<ListFindingsResponse, Failure> {
    let query = ["ListFindings", &r.query];
    let mut place = match page_token::read(&query, &r.page_token)? {
        None => Some(Place::begin()),
        Some(bytes) => Some(Place::decode(&bytes).ok_or(Failure::PageToken)?),
    };
    let (state, now) = (call.head().state.clone(), call.now());
    let position = state.next_position;
    let search = Search { state, now, thresholds: r.thresholds, kinds: r.kinds };
    let mut items: Vec<Item> = vec![];
    for _ in 0..MAX_STEPS {
        let Some(from) = place.take() else { break };
        let step = search.step(&call.ledger, &from).await?;
        items.extend(step.items);
        place = step.next;
        if items.len() >= r.page_size {
            break;
        }
    }
    if items.len() > r.page_size {
        // The next page looks at those again.
        items.truncate(r.page_size);
        place = items.last().map(Place::after);
    }
    let next = place.map(|place| page_token::write(&query, &place.encode()));
    Ok(ListFindingsResponse {
        findings: show_all(&call, &items).await?,
        next_page_token: next.unwrap_or_default(),
        position: Some(position),
    })
}

/// Findings with the names of the people in them.
pub(super) async fn show_all(call: &CallContext, items: &[Item]) -> Result<Vec<Finding>, Failure> {
    let mut keys: Vec<Arc<Key>> = items.iter().filter_map(key_of).cloned().collect();
    keys.dedup_by_key(|key| key.id);
    let texts = key_texts(call, &keys).await?;
    let texts: HashMap<KeyId, Texts> = keys.iter().map(|key| key.id).zip(texts).collect();
    let owner = |key: &Key| show::key_owner(&key.owner, &texts[&key.id]);
    let show = |item: &Item| {
        let about = match &item.about {
            About::Key(key) => findings::About::Key { key, owner: owner(key) },
            About::Role(name) => findings::About::Role(name),
            About::Owner(key) => findings::About::Owner(owner(key)),
        };
        finding(about, &item.found)
    };
    Ok(items.iter().map(show).collect())
}

fn key_of(item: &Item) -> Option<&Arc<Key>> {
    match &item.about {
        About::Key(key) | About::Owner(key) => Some(key),
        About::Role(_) => None,
    }
}
