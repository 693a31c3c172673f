//! KeyService: the ledgers of a deployment, and what holds in each.

use std::sync::Arc;

use keyledger_ledger::body::{DecisionReason, Texts};
use keyledger_ledger::command::{ChangeKind, Changed, Refusal, RegisterLedger, UpdatePolicy};
use keyledger_ledger::id::LedgerNumber;
use keyledger_ledger::policy::CurrentPolicy;
use keyledger_ledger::state::RegisteredLedger;
use keyledger_proto::parse;
use keyledger_proto::{
    GetLedgerResponse, Ledger, ListLedgersRequest, ListLedgersResponse, OpenLedgerResponse,
    UpdateLedgerPolicyResponse, show,
};
use uuid::Uuid;

use super::call::{CallContext, Outcome};
use super::page_token;
use super::status::Failure;
use crate::replica::create_admin;
use crate::sealing::About;

/// Where a call about a ledger goes: it stays in the caller's own, or crosses into the one that is named.
async fn named(call: CallContext, name: &str) -> Result<CallContext, Failure> {
    let head = call.head();
    if head.state.ledger.as_ref().is_some_and(|ledger| ledger.name == name) {
        return Ok(call);
    }
    let there = match find(&call, name).await? {
        Some(number) => call.elsewhere(number).await?,
        None => None,
    };
    match there {
        Some(there) => call.cross(&there, format!("ledgers/{name}")).await,
        None => {
            call.refuse(DecisionReason::Refused).await?;
            Err(Refusal::LedgerNotFound.into())
        }
    }
}

/// The ledger of a name; also one that was registered through another replica a moment ago.
async fn find(call: &CallContext, name: &str) -> Result<Option<LedgerNumber>, Failure> {
    let known = || {
        let head = call.head();
        head.state.registered.values().find(|l| l.name == name).map(|l| l.number)
    };
    if known().is_none() && call.ledger.number == LedgerNumber::SYSTEM.0 {
        call.ledger.catch_up().await?;
    }
    Ok(known())
}

pub(super) async fn get_ledger(
    call: CallContext,
    name: String,
) -> Result<GetLedgerResponse, Failure> {
    let mut call = named(call, &name).await?;
    call.record_read().await?;
    let head = call.head();
    let policy = &head.state.policy;
    Ok(GetLedgerResponse {
        ledger: head.state.ledger.as_deref().map(show::ledger),
        policy: Some(show::policy(&policy.policy)),
        limits: Some(show::limits(&policy.policy.limits)),
        keys: head.state.keys.len() as u64,
        roles: head.state.roles.len() as u64,
        etag: policy.etag(),
        position: Some(head.state.next_position),
    })
}

pub(super) async fn update_policy(
    call: CallContext,
    r: parse::UpdatePolicy,
) -> Result<UpdateLedgerPolicyResponse, Failure> {
    let mut call = named(call, &r.name).await?;
    let texts = Texts { reason: r.common.reason.clone(), ..Texts::default() };
    let sealed = call.seal(About::Nobody, &texts).await?;
    let kind = UpdatePolicy { etag: r.etag, changed: r.changed, to: r.to };
    let shown = |policy: &CurrentPolicy, position| UpdateLedgerPolicyResponse {
        policy: Some(show::policy(&policy.policy)),
        limits: Some(show::limits(&policy.policy.limits)),
        etag: policy.etag(),
        position,
    };
    match call.change(ChangeKind::UpdatePolicy(kind), sealed, &r.common).await? {
        Outcome::Done { position, result: Changed::Policy(policy) } => {
            Ok(shown(&policy, Some(position)))
        }
        Outcome::Validated { result: Changed::Policy(policy) } => Ok(shown(&policy, None)),
        // A repeated request is answered with the policy as it is now.
        Outcome::Replayed { position } => Ok(shown(&call.head().state.policy, Some(position))),
        Outcome::Done { .. } | Outcome::Validated { .. } | Outcome::Seen => {
            Err(Failure::Internal("a change of a policy changed something else"))
        }
    }
}

/// Registers a ledger in ledger 0, then opens it and makes its admin key. Whoever repeats the call after a crash finishes
/// what was begun, and gets the token if nobody has.
pub(super) async fn open_ledger(
    mut call: CallContext,
    r: parse::OpenLedger,
) -> Result<OpenLedgerResponse, Failure> {
    let texts = Texts { reason: r.common.reason.clone(), ..Texts::default() };
    let sealed = call.seal(About::Nobody, &texts).await?;
    let origin = origin_of(&call, &r.name)?;
    let kind = ChangeKind::RegisterLedger(RegisterLedger {
        id: *Uuid::new_v4().as_bytes(),
        name: r.name.clone(),
        origin: origin.clone(),
    });
    let outcome = call.change(kind, sealed, &r.common).await?;
    let (number, position) = match outcome {
        Outcome::Validated { result: Changed::Ledger(number) } => {
            let ledger = Ledger { name: r.name, number: number.0, origin, ..Ledger::default() };
            return Ok(OpenLedgerResponse { ledger: Some(ledger), ..Default::default() });
        }
        Outcome::Done { position, result: Changed::Ledger(number) } => (number, position),
        Outcome::Done { .. } | Outcome::Validated { .. } | Outcome::Seen => {
            return Err(Failure::Internal("a new ledger changed something else"));
        }
        Outcome::Replayed { position } => (registered_at(&call, position)?, position),
    };
    // A task of its own: a client that goes away must not leave a ledger half opened.
    let task = tokio::spawn(async move { finish_opening(&call, number, position).await });
    task.await.map_err(|_| Failure::Internal("opening a ledger panicked"))?
}

async fn finish_opening(
    call: &CallContext,
    number: LedgerNumber,
    position: u64,
) -> Result<OpenLedgerResponse, Failure> {
    let gone = Failure::Internal("a registered ledger is gone");
    let registered: Arc<RegisteredLedger> =
        call.head().state.registered.get(&number).cloned().ok_or(gone)?;
    let ledger = call.replica.open_registered(&registered).await?;
    let token = match ledger.snapshot().state.keys.is_empty() {
        true => create_admin(&ledger, &call.replica.sealing, number, "opening of the ledger")
            .await?
            .0
            .reveal(),
        false => String::new(),
    };
    Ok(OpenLedgerResponse {
        ledger: Some(show::registered_ledger(&registered)),
        token,
        position: Some(position),
    })
}

pub(super) async fn list_ledgers(
    call: CallContext,
    r: (ListLedgersRequest, usize),
) -> Result<ListLedgersResponse, Failure> {
    let (request, size) = r;
    let cursor = page_token::read(&["ListLedgers"], &request.page_token)?;
    let after = cursor
        .map(|c| c.try_into().map(u32::from_be_bytes).map_err(|_| Failure::PageToken))
        .transpose()?;
    let head = call.head();
    let own = head.state.ledger.as_deref().map(show::ledger);
    let others = head.state.registered.values().map(|l| show::registered_ledger(l));
    let mut ledgers: Vec<_> =
        own.into_iter().chain(others).filter(|l| after.is_none_or(|a| l.number > a)).collect();
    let more = ledgers.len() > size;
    ledgers.truncate(size);
    let next = ledgers
        .last()
        .filter(|_| more)
        .map(|l| page_token::write(&["ListLedgers"], &l.number.to_be_bytes()));
    Ok(ListLedgersResponse { ledgers, next_page_token: next.unwrap_or_default() })
}

/// `<host>/<ledger>`, the host being that of ledger 0.
fn origin_of(call: &CallContext, name: &str) -> Result<String, Failure> {
    let head = call.head();
    let own = head.state.ledger.as_ref().ok_or(Failure::Internal("no ledger"))?;
    let host = own.origin.rsplit_once('/').map_or(own.origin.as_str(), |(host, _)| host);
    Ok(format!("{host}/{name}"))
}

fn registered_at(call: &CallContext, position: u64) -> Result<LedgerNumber, Failure> {
    let head = call.head();
    let found = head.state.registered.values().find(|l| l.position == position);
    found.map(|l| l.number).ok_or(Failure::Internal("the ledger of an answered request is gone"))
}
