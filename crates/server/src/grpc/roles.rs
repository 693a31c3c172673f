//! KeyService: roles, and the ledgers of a deployment.

use std::ops::Bound;
use std::sync::Arc;

use keyledger_ledger::body::Texts;
use keyledger_ledger::command::{ChangeKind, Changed, RegisterLedger};
use keyledger_ledger::id::LedgerNumber;
use keyledger_ledger::state::{RegisteredLedger, Role};
use keyledger_proto::{
    CreateRoleResponse, ListLedgersRequest, ListLedgersResponse, ListRolesRequest,
    ListRolesResponse, OpenLedgerResponse, parse, show,
};
use uuid::Uuid;

use super::call::{CallContext, Outcome};
use super::page_token;
use super::status::Failure;
use crate::replica::create_admin;
use crate::sealing::About;

pub(super) async fn create_role(
    mut call: CallContext,
    r: parse::CreateRole,
) -> Result<CreateRoleResponse, Failure> {
    let texts = Texts { reason: r.reason, description: r.description, ..Texts::default() };
    let sealed = call.seal(About::Nobody, &texts).await?;
    let kind = ChangeKind::CreateRole { name: r.name.clone(), grants: r.grants };
    let (role, position) = match call.change(kind, sealed, r.request_id).await? {
        Outcome::Done { position, result: Changed::Role(role) } => (role, position),
        Outcome::Done { .. } => return Err(Failure::Internal("a new role changed something else")),
        Outcome::Replayed { position } => {
            let role = call.head().state.roles.get(r.name.as_str()).cloned();
            (role.ok_or(Failure::Internal("the role of an answered request is gone"))?, position)
        }
    };
    Ok(CreateRoleResponse { role: Some(show::role(&role, &texts)), position: Some(position) })
}

pub(super) async fn list_roles(
    call: CallContext,
    r: (ListRolesRequest, usize),
) -> Result<ListRolesResponse, Failure> {
    let (request, size) = r;
    let cursor = page_token::read(&["ListRoles"], &request.page_token)?;
    let cursor =
        cursor.map(|c| String::from_utf8(c).map_err(|_| Failure::PageToken)).transpose()?;
    let head = call.head();
    let after = cursor.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut roles: Vec<Arc<Role>> = head
        .state
        .roles
        .range::<_, str>((after, Bound::Unbounded))
        .take(size + 1)
        .map(|(_, role)| role.clone())
        .collect();
    let more = roles.len() > size;
    roles.truncate(size);
    let next =
        roles.last().filter(|_| more).map(|r| page_token::write(&["ListRoles"], r.name.as_bytes()));
    let texts = call.texts_at(&roles.iter().map(|r| r.position).collect::<Vec<_>>()).await?;
    let empty = Texts::default();
    let roles =
        roles.iter().map(|r| show::role(r, texts.get(&r.position).unwrap_or(&empty))).collect();
    Ok(ListRolesResponse { roles, next_page_token: next.unwrap_or_default() })
}

/// Registers a ledger in ledger 0, then opens it and makes its admin key. Whoever repeats the call after a crash finishes
/// what was begun, and gets the token if nobody has.
pub(super) async fn open_ledger(
    mut call: CallContext,
    r: parse::OpenLedger,
) -> Result<OpenLedgerResponse, Failure> {
    let texts = Texts { reason: r.reason.clone(), ..Texts::default() };
    let sealed = call.seal(About::Nobody, &texts).await?;
    let origin = origin_of(&call, &r.name)?;
    let kind = ChangeKind::RegisterLedger(RegisterLedger {
        id: *Uuid::new_v4().as_bytes(),
        name: r.name.clone(),
        origin,
    });
    let outcome = call.change(kind, sealed, r.request_id).await?;
    let (number, position) = match outcome {
        Outcome::Done { position, result: Changed::Ledger(number) } => (number, position),
        Outcome::Done { .. } => {
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
