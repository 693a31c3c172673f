//! What keys were used for lately, as GetKeyUsage tells it.

use std::sync::Arc;

use keyledger_ledger::batch::Head;
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::state::Key;
use keyledger_ledger::usage::{Meter, Span};
use keyledger_proto::{UsageSummary, show};

use crate::grpc::call::CallContext;
use crate::grpc::status::Failure;
use crate::observer::{self, usage_of};

/// How far back, in days: today included.
const DAYS: i64 = 30;
const HOUR: i64 = 3_600 * Time::MICROS_PER_SECOND;

/// One of each key, counted up to the snapshot, and perhaps a little further.
pub(super) async fn of_keys(
    call: &CallContext,
    head: &Head,
    now: Time,
    keys: &[Arc<Key>],
) -> Result<Vec<UsageSummary>, Failure> {
    if keys.len() > 1 {
        // Once for all, so that no entry is read again for each key.
        observer::advance(&call.ledger).await?;
    }
    let mut usages = vec![];
    for key in keys {
        let withheld = !call.holds("keys.read", &format!("keys/{}", key.id));
        usages.push(match withheld {
            true => UsageSummary { withheld, usage: None },
            false => of_key(call, head, now, key.id).await?,
        });
    }
    Ok(usages)
}

async fn of_key(
    call: &CallContext,
    head: &Head,
    now: Time,
    key_id: KeyId,
) -> Result<UsageSummary, Failure> {
    let hour = now.micros().div_euclid(HOUR);
    let hours = Span::Day.start(hour) - (DAYS - 1) * Span::Day as i64..hour + 1;
    let wants = |id: Option<KeyId>| id == Some(key_id);
    let (size, meters) = (head.state.next_position, [Meter::key(key_id)]);
    let (usage, _) = usage_of(&call.ledger, size, &meters, &hours, wants).await?;
    Ok(UsageSummary { withheld: false, usage: Some(show::usage(&usage, &hours, Span::Day)) })
}
