//! KeyService: how often keys were used, and for what.

use std::ops::Range;

use keyledger_ledger::command::Refusal;
use keyledger_ledger::id::KeyId;
use keyledger_ledger::state::{Owner, State};
use keyledger_ledger::usage::{Meter, Usage};
use keyledger_proto::parse::{self, OwnerName, Period};
use keyledger_proto::{GetKeyUsageResponse, GetUsageResponse, show};

use super::call::CallContext;
use super::keys::find;
use super::reviews::known_owner;
use super::status::Failure;
use crate::observer::usage_of;
use crate::replica::own_clock;

pub(super) async fn get_key_usage(
    call: CallContext,
    r: parse::KeyUsage,
) -> Result<GetKeyUsageResponse, Failure> {
    let hours = hours(&call, &r.period)?;
    let key_id = find(&call, r.key_id).ok_or(Refusal::KeyNotFound)?.id;
    let wants = |id: Option<KeyId>| id == Some(key_id);
    let size = call.ledger.snapshot().state.next_position;
    let (usage, position) =
        usage_of(&call.ledger, size, &[Meter::key(key_id)], &hours, wants).await?;
    let usage = Some(show::usage(&usage, &hours, r.period.step));
    Ok(GetKeyUsageResponse { usage, position: Some(position) })
}

pub(super) async fn get_usage(
    call: CallContext,
    r: parse::LedgerUsage,
) -> Result<GetUsageResponse, Failure> {
    let hours = hours(&call, &r.period)?;
    let (usage, position) = match &r.owner {
        None => {
            let size = call.ledger.snapshot().state.next_position;
            usage_of(&call.ledger, size, &[Meter::LEDGER], &hours, |_| true).await?
        }
        Some(name) => of_owner(&call, name, &hours).await?,
    };
    let usage = Some(show::usage(&usage, &hours, r.period.step));
    Ok(GetUsageResponse { usage, position: Some(position) })
}

/// Somebody who only answers for keys has used none; of whom no key knows is not known, as it may be a slip of the pen.
async fn of_owner(
    call: &CallContext,
    name: &OwnerName,
    hours: &Range<i64>,
) -> Result<(Usage, u64), Failure> {
    let state = &call.ledger.snapshot().state;
    let owner = known_owner(call, name.clone()).await?.ok_or(Failure::OwnerNotFound)?;
    let Some(first) = first_key_of(state, &owner) else {
        return Ok((Usage::default(), state.next_position));
    };
    let meters = [Meter::key(first), Meter::further_keys_of(&owner)];
    let wants = |id: Option<KeyId>| {
        id.and_then(|id| state.keys.get(&id)).is_some_and(|key| key.owner == owner)
    };
    Ok(usage_of(&call.ledger, state.next_position, &meters, hours, wants).await?)
}

/// All keys are looked at, as a list does.
fn first_key_of(state: &State, owner: &Owner) -> Option<KeyId> {
    let own = state.keys.values().filter(|key| key.owner == *owner);
    own.min_by_key(|key| key.created_position).map(|key| key.id)
}

fn hours(call: &CallContext, period: &Period) -> Result<Range<i64>, Failure> {
    let newest = call.ledger.snapshot().state.newest_time;
    Ok(period.hours(newest.max(own_clock()))?)
}
