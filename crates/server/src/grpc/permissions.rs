//! KeyService: the catalogue of permissions, Keyledger's own and those that services register.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;

use keyledger_ledger::body::Texts;
use keyledger_ledger::command::{ChangeKind, Changed};
use keyledger_ledger::state::{RegisteredPermissions, State};
use keyledger_proto::{
    ListPermissionsRequest, ListPermissionsResponse, Permission, RegisterPermissionsResponse,
    parse, permissions, show,
};

use super::call::{CallContext, Outcome};
use super::page_token;
use super::status::Failure;
use crate::sealing::About;

/// Keyledger's own come first, on the first page, whatever its size.
pub(super) async fn list_permissions(
    call: CallContext,
    r: (ListPermissionsRequest, usize),
) -> Result<ListPermissionsResponse, Failure> {
    let (request, size) = r;
    let query = ["ListPermissions"];
    let after = match page_token::read(&query, &request.page_token)? {
        None => None,
        Some(bytes) => Some(String::from_utf8(bytes).map_err(|_| Failure::PageToken)?),
    };
    let first = if after.is_none() { permissions::all() } else { vec![] };
    let head = call.head();
    let sets = sets_from(&head.state, after.as_deref(), size);
    let places: Vec<u64> = sets.iter().map(|set| set.position).collect();
    let texts = call.texts_at(&places).await?;
    let mut registered = shown(&sets, &texts, after.as_deref());
    let more = registered.len() > size;
    registered.truncate(size);
    let last = registered.last().filter(|_| more);
    let next = last.map(|p| page_token::write(&query, p.name.as_bytes())).unwrap_or_default();
    let permissions = first.into_iter().chain(registered).collect();
    Ok(ListPermissionsResponse { permissions, next_page_token: next })
}

/// The sets from the one on that a name belongs to, until they hold more than a page.
fn sets_from(state: &State, after: Option<&str>, size: usize) -> Vec<Arc<RegisteredPermissions>> {
    let first = after.map_or("", prefix_of);
    let (mut sets, mut names) = (vec![], 0);
    for (_, set) in state.permissions.range::<_, str>((Bound::Included(first), Bound::Unbounded)) {
        sets.push(set.clone());
        // Of the first set, all but one may have been on the page before.
        names += if sets.len() > 1 { set.names.len() } else { 0 };
        if names > size {
            break;
        }
    }
    sets
}

fn prefix_of(name: &str) -> &str {
    name.split_once('.').map_or(name, |(prefix, _)| prefix)
}

/// All of the sets, in order, without those up to a name in its own set.
fn shown(
    sets: &[Arc<RegisteredPermissions>],
    texts: &HashMap<u64, Texts>,
    after: Option<&str>,
) -> Vec<Permission> {
    let empty = Texts::default();
    let of_set = |set| {
        let set: &Arc<RegisteredPermissions> = set;
        show::registered_permissions(set, texts.get(&set.position).unwrap_or(&empty))
            .collect::<Vec<_>>()
    };
    let is_past =
        |name: &str| after.is_none_or(|after| prefix_of(name) != prefix_of(after) || name > after);
    sets.iter().flat_map(of_set).filter(|p| is_past(&p.name)).collect()
}

/// A repeated request is answered with what is registered under the prefix now.
pub(super) async fn register_permissions(
    mut call: CallContext,
    r: parse::RegisterPermissions,
) -> Result<RegisterPermissionsResponse, Failure> {
    let (reason, descriptions) = (r.common.reason.clone(), r.descriptions);
    let texts = Texts { reason, descriptions, ..Texts::default() };
    let sealed = call.seal(About::Nobody, &texts).await?;
    let kind = ChangeKind::RegisterPermissions { prefix: r.prefix.clone(), names: r.names };
    let (set, position) = match call.change(kind, sealed, &r.common).await? {
        Outcome::Done { position, result: Changed::Permissions(set) } => (set, Some(position)),
        Outcome::Validated { result: Changed::Permissions(set) } => (set, None),
        Outcome::Done { .. } | Outcome::Validated { .. } | Outcome::Seen => {
            return Err(Failure::Internal("a registration changed something else"));
        }
        Outcome::Replayed { position } => {
            let set = call.head().state.permissions.get(r.prefix.as_str()).cloned();
            let gone = Failure::Internal("the prefix of an answered request is gone");
            (set.ok_or(gone)?, Some(position))
        }
    };
    // What a dry run would register lies beside no entry.
    let known = match position {
        Some(_) => call.texts_at(&[set.position]).await?,
        None => HashMap::new(),
    };
    let texts = known.get(&set.position).unwrap_or(&texts);
    let permissions = show::registered_permissions(&set, texts).collect();
    Ok(RegisterPermissionsResponse { permissions, position })
}
