//! KeyService: keys that were made elsewhere.

use futures_util::future::try_join_all;
use keyledger_ledger::command::{ChangeKind, Changed, FirstSecret, Refusal};
use keyledger_ledger::imported::NewImport;
use keyledger_proto::parse::{self, Common, KeyToImport};
use keyledger_proto::{ImportKeysResponse, ImportResult};
use sha2::{Digest, Sha256};

use super::call::{CallContext, Outcome};
use super::keys::{key_at, new_key};
use super::status::{self, Failure};
use crate::sealing::random;

const ITEM_DOMAIN: &[u8] = b"keyledger import item v1\n";

/// The first item goes ahead: if it is refused for the sake of the caller or the whole call, so is the call. The others are put at once, and each is
/// answered when it is durable.
pub(super) async fn import_keys(
    call: CallContext,
    r: parse::ImportKeys,
) -> Result<ImportKeysResponse, Failure> {
    let mut items = r.items.into_iter().enumerate();
    let mut results = vec![];
    if let Some((index, item)) = items.next() {
        let first = import(call.again(), index, item, &r.common).await;
        if let Err(Failure::Refused(refusal)) = &first
            && is_about_the_call(&call, refusal)
        {
            return Err(refusal.clone().into());
        }
        results.push(answered(first)?);
    }
    let others = items
        .map(async |(index, item)| answered(import(call.again(), index, item, &r.common).await));
    results.extend(try_join_all(others).await?);
    Ok(ImportKeysResponse { results })
}

async fn import(
    mut call: CallContext,
    index: usize,
    item: KeyToImport,
    common: &Common,
) -> Result<ImportResult, Failure> {
    let secret = FirstSecret::Imported(NewImport { hash: item.hash, salt: random() });
    let (kind, sealed, _) = new_key(&call, item.key, secret).await?;
    let request_id = common.request_id.map(|id| item_request_id(id, index));
    let common = Common { request_id, ..common.clone() };
    match call.change(ChangeKind::CreateKey(kind), sealed, &common).await? {
        Outcome::Done { position, result: Changed::Key(key) } => Ok(ImportResult {
            key_id: key.id.to_string(),
            position: Some(position),
            ..ImportResult::default()
        }),
        Outcome::Replayed { position } => Ok(ImportResult {
            key_id: key_at(&call, position).await?.id.to_string(),
            position: Some(position),
            ..ImportResult::default()
        }),
        // A key that wasn't made has no id.
        Outcome::Validated { .. } => Ok(ImportResult::default()),
        Outcome::Done { .. } | Outcome::Seen => {
            Err(Failure::Internal("an import changed something else"))
        }
    }
}

/// Each item is a request of its own: after a crash a repeat finds those that were made.
fn item_request_id(call: [u8; 16], index: usize) -> [u8; 16] {
    let hash = Sha256::new().chain_update(ITEM_DOMAIN).chain_update(call);
    let hash = hash.chain_update((index as u32).to_be_bytes()).finalize();
    hash[..16].try_into().expect("a SHA-256 has 32 bytes")
}

/// What was refused is the item's answer; what failed otherwise fails the call, which may be repeated.
fn answered(result: Result<ImportResult, Failure>) -> Result<ImportResult, Failure> {
    match result {
        Err(refused @ Failure::Refused(_)) => {
            let (error, _, message) = status::item(refused);
            Ok(ImportResult { error: error as i32, message, ..ImportResult::default() })
        }
        other => other,
    }
}

fn is_about_the_call(call: &CallContext, refusal: &Refusal) -> bool {
    match refusal {
        Refusal::Unauthenticated | Refusal::UsesSpent | Refusal::Rate { .. } => true,
        // Others are those of one item, such as a life without an end.
        Refusal::PermissionDenied { permission, .. } | Refusal::ApprovalRequired { permission } => {
            permission == call.permission()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_has_a_request_id_of_its_own_and_always_the_same() {
        let of = |index| item_request_id([7; 16], index);
        assert_eq!(of(0), of(0));
        assert_ne!(of(0), of(1));
        assert_ne!(of(0), item_request_id([8; 16], 0));
    }
}
