//! ListForwarders: how far what the server sends on has come. All of it stands in the database: any replica can tell.

use keyledger_ledger::id::Time;
use keyledger_proto::{Forwarder, ForwarderState, ListForwardersResponse, show};

use super::call::CallContext;
use super::status::Failure;
use crate::store::forwarders::{self, Listed};

pub(super) async fn list_forwarders(
    call: CallContext,
    _: (),
) -> Result<ListForwardersResponse, Failure> {
    let client = call.ledger.database.client().await?;
    let listed = forwarders::list(&client, call.ledger.id).await?;
    drop(client);
    let head = call.head();
    let ledger = head.state.ledger.as_ref().map(|l| l.name.clone()).unwrap_or_default();
    let size = head.state.next_position;
    let forwarders = listed.into_iter().map(|one| forwarder(one, &ledger, size)).collect();
    Ok(ListForwardersResponse { forwarders })
}

fn forwarder(listed: Listed, ledger: &str, size: u64) -> Forwarder {
    let state = match listed.holder {
        None => ForwarderState::Unheld,
        Some(_) if listed.failures > 0 => ForwarderState::Failing,
        Some(_) => ForwarderState::Running,
    };
    let time = |us: Option<i64>| us.map(|us| show::timestamp(Time(us)));
    Forwarder {
        name: listed.name,
        kind: listed.kind.into(),
        ledger: ledger.into(),
        next_position: Some(listed.next_position),
        lag_entries: size.saturating_sub(listed.next_position),
        lag: Some(show::duration(listed.behind_us)),
        state: state as i32,
        last_error: listed.last_error,
        last_error_time: time(listed.failed_us),
        consecutive_failures: listed.failures,
        holder: listed.holder.map(|id| id.to_string()).unwrap_or_default(),
        last_sent_time: time(listed.sent_us),
    }
}
