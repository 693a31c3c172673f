//! KeyService: roles and permissions.

use std::ops::Bound;
use std::sync::Arc;

use keyledger_ledger::body::Texts;
use keyledger_ledger::command::{ChangeKind, Changed, Refusal, UpdateRole};
use keyledger_ledger::roles::PREDEFINED;
use keyledger_ledger::state::Role;
use keyledger_proto::parse::{self, AsOf, Common};
use keyledger_proto::{
    CreateRoleResponse, GetRoleResponse, ListRolesRequest, ListRolesResponse, RetireRoleResponse,
    UpdateRoleResponse, show,
};

use super::call::{CallContext, Outcome};
use super::moment::Moment;
use super::page_token;
use super::status::Failure;
use crate::sealing::About;

pub(super) async fn create_role(
    mut call: CallContext,
    r: parse::CreateRole,
) -> Result<CreateRoleResponse, Failure> {
    let kind = ChangeKind::CreateRole {
        name: r.name.clone(),
        grants: r.grants,
        rotation: r.rotation,
        max_staleness: r.max_staleness,
    };
    let (role, position) = change_role(&mut call, &r.name, kind, r.description, &r.common).await?;
    Ok(CreateRoleResponse { role: Some(role), position })
}

pub(super) async fn update_role(
    mut call: CallContext,
    r: parse::UpdateRole,
) -> Result<UpdateRoleResponse, Failure> {
    let described = r.description.is_some();
    let kind = ChangeKind::UpdateRole(UpdateRole {
        name: r.name.clone(),
        etag: r.etag,
        grants: r.grants,
        described,
        rotation: r.rotation,
        max_staleness: r.max_staleness,
    });
    let description = r.description.unwrap_or_default();
    let (role, position) = change_role(&mut call, &r.name, kind, description, &r.common).await?;
    Ok(UpdateRoleResponse { role: Some(role), position })
}

pub(super) async fn retire_role(
    mut call: CallContext,
    r: parse::RetireRole,
) -> Result<RetireRoleResponse, Failure> {
    let kind = ChangeKind::RetireRole { name: r.name.clone(), etag: r.etag };
    let (role, position) = change_role(&mut call, &r.name, kind, String::new(), &r.common).await?;
    Ok(RetireRoleResponse { role: Some(role), position })
}

/// Changes a role. A repeated request is answered with the role as it is now.
async fn change_role(
    call: &mut CallContext,
    name: &str,
    kind: ChangeKind,
    description: String,
    common: &Common,
) -> Result<(keyledger_proto::Role, Option<u64>), Failure> {
    let texts = Texts { reason: common.reason.clone(), description, ..Texts::default() };
    let sealed = call.seal(About::Nobody, &texts).await?;
    let (role, position) = match call.change(kind, sealed, common).await? {
        Outcome::Done { position, result: Changed::Role(role) } => (role, Some(position)),
        Outcome::Validated { result: Changed::Role(role) } => (role, None),
        Outcome::Done { .. } | Outcome::Validated { .. } | Outcome::Seen => {
            return Err(Failure::Internal("a change of a role changed something else"));
        }
        Outcome::Replayed { position } => {
            let role = call.head().state.roles.get(name).cloned();
            let gone = Failure::Internal("the role of an answered request is gone");
            (role.ok_or(gone)?, Some(position))
        }
    };
    let known = call.texts_at(&[role.described_position]).await?;
    let texts = known.get(&role.described_position).unwrap_or(&texts);
    Ok((show::role(&role, texts), position))
}

pub(super) async fn get_role(
    call: CallContext,
    (name, as_of): (String, AsOf),
) -> Result<GetRoleResponse, Failure> {
    let moment = Moment::of(&call, as_of).await?;
    let own = moment.roles(&call).await?.roles.get(name.as_str()).cloned();
    let role = match own {
        Some(role) => {
            let texts = call.texts_at(&[role.described_position]).await?;
            show::role(&role, texts.get(&role.described_position).unwrap_or(&Texts::default()))
        }
        None => {
            let predefined = PREDEFINED.iter().find(|r| r.name == name);
            show::predefined_role(predefined.ok_or(Refusal::RoleNotFound { name })?)
        }
    };
    Ok(GetRoleResponse { role: Some(role), position: Some(moment.position) })
}

/// The predefined ones come first, on the first page, whatever its size.
pub(super) async fn list_roles(
    call: CallContext,
    r: (ListRolesRequest, usize),
) -> Result<ListRolesResponse, Failure> {
    let (request, size) = r;
    let cursor = page_token::read(&["ListRoles"], &request.page_token)?;
    let cursor =
        cursor.map(|c| String::from_utf8(c).map_err(|_| Failure::PageToken)).transpose()?;
    let first = if cursor.is_none() { PREDEFINED } else { &[] };
    let head = call.head();
    let after = cursor.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let own = head.state.roles.range::<_, str>((after, Bound::Unbounded));
    let mut own: Vec<Arc<Role>> = own.take(size + 1).map(|(_, role)| role.clone()).collect();
    let more = own.len() > size;
    own.truncate(size);
    let next =
        own.last().filter(|_| more).map(|r| page_token::write(&["ListRoles"], r.name.as_bytes()));
    let places: Vec<u64> = own.iter().map(|r| r.described_position).collect();
    let (texts, empty) = (call.texts_at(&places).await?, Texts::default());
    let own = own.iter().map(|r| show::role(r, texts.get(&r.described_position).unwrap_or(&empty)));
    let roles = first.iter().map(show::predefined_role).chain(own).collect();
    Ok(ListRolesResponse { roles, next_page_token: next.unwrap_or_default() })
}
