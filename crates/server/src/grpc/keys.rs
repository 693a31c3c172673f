//! KeyService: keys.

use std::ops::Bound;
use std::sync::Arc;

use keyledger_ledger::body::Texts;
use keyledger_ledger::command::{ChangeKind, Changed, Check, CheckAnswer, CreateKey, Refusal};
use keyledger_ledger::id::KeyId;
use keyledger_ledger::judge::Credential;
use keyledger_ledger::state::{Key, Owner};
use keyledger_ledger::token::Token;
use keyledger_proto::parse::{self, MAX_TOKEN, OwnerName};
use keyledger_proto::{
    CreateKeyResponse, GetKeyResponse, ListKeysRequest, ListKeysResponse, RevokeKeyResponse,
    RotateKeyResponse, VerifyKeyRequest, VerifyKeyResponse, WhoAmIResponse, show,
};

use super::call::{CallContext, Outcome};
use super::page_token;
use super::status::Failure;
use crate::replica::{new_secret, own_clock};
use crate::sealing::{About, random};
use crate::sequencer::key_as_of;

pub(super) async fn create_key(
    mut call: CallContext,
    r: parse::CreateKey,
) -> Result<CreateKeyResponse, Failure> {
    let number = call
        .head()
        .state
        .ledger
        .as_ref()
        .map(|l| l.number)
        .ok_or(Failure::Internal("no ledger"))?;
    let key_id = KeyId::new(own_clock(), number, u64::from_be_bytes(random()));
    let mut texts = Texts { purpose: r.purpose, reason: r.reason, ..Texts::default() };
    let (owner, sealed) = match r.owner {
        OwnerName::Service(name) => {
            (Owner::Service(name.into()), call.seal(About::Nobody, &texts).await?)
        }
        OwnerName::User(name) => {
            texts.owner = name.clone();
            let sealed = call.seal(About::Person(&name), &texts).await?;
            (Owner::User(sealed[0].subject_ref), sealed)
        }
    };
    let secret = new_secret();
    let token = Token { key_id, secret: secret.secret.clone() };
    let kind = ChangeKind::CreateKey(CreateKey {
        key_id,
        owner,
        grants: r.grants,
        roles: r.roles,
        expiry: r.expiry,
        secret,
    });
    let outcome = call.change(kind, sealed, r.request_id).await?;
    let (key, position, fresh) = changed_key(&call, outcome).await?;
    let token = if fresh { token.reveal() } else { String::new() };
    Ok(CreateKeyResponse { key: Some(key), token, position: Some(position) })
}

pub(super) async fn rotate_key(
    mut call: CallContext,
    r: parse::RotateKey,
) -> Result<RotateKeyResponse, Failure> {
    let texts = Texts { reason: r.reason, ..Texts::default() };
    let about = find_anywhere(&call, r.key_id).await?;
    let sealed = call.seal_about_key(about.as_deref(), &texts).await?;
    let secret = new_secret();
    let token = Token { key_id: r.key_id, secret: secret.secret.clone() };
    let kind = ChangeKind::RotateKey { key_id: r.key_id, overlap_micros: r.overlap_micros, secret };
    let outcome = call.change(kind, sealed, r.request_id).await?;
    let (key, position, fresh) = changed_key(&call, outcome).await?;
    let token = if fresh { token.reveal() } else { String::new() };
    Ok(RotateKeyResponse { key: Some(key), token, position: Some(position) })
}

pub(super) async fn revoke_key(
    mut call: CallContext,
    r: parse::RevokeKey,
) -> Result<RevokeKeyResponse, Failure> {
    let texts = Texts { reason: r.reason, ..Texts::default() };
    let about = find_anywhere(&call, r.key_id).await?;
    let sealed = call.seal_about_key(about.as_deref(), &texts).await?;
    let kind = ChangeKind::RevokeKey { key_id: r.key_id, kind: r.kind };
    let outcome = call.change(kind, sealed, r.request_id).await?;
    let (key, position, _) = changed_key(&call, outcome).await?;
    Ok(RevokeKeyResponse { key: Some(key), position: Some(position) })
}

pub(super) async fn get_key(call: CallContext, key_id: KeyId) -> Result<GetKeyResponse, Failure> {
    let key = find(&call, key_id).ok_or(Refusal::KeyNotFound)?;
    Ok(GetKeyResponse { key: Some(show_key(&call, &key).await?) })
}

pub(super) async fn list_keys(
    call: CallContext,
    r: (ListKeysRequest, usize),
) -> Result<ListKeysResponse, Failure> {
    let (request, size) = r;
    let cursor = page_token::read(&["ListKeys"], &request.page_token)?;
    let after = match cursor {
        None => Bound::Unbounded,
        Some(bytes) => Bound::Excluded(KeyId::from_slice(&bytes).ok_or(Failure::PageToken)?),
    };
    let head = call.head();
    let mut keys: Vec<Arc<Key>> = head
        .state
        .keys
        .range((after, Bound::Unbounded))
        .take(size + 1)
        .map(|(_, key)| key.clone())
        .collect();
    let more = keys.len() > size;
    keys.truncate(size);
    let next =
        keys.last().filter(|_| more).map(|k| page_token::write(&["ListKeys"], k.id.as_bytes()));
    let texts = call.texts_at(&keys.iter().map(|k| k.created_position).collect::<Vec<_>>()).await?;
    let (empty, now) = (Texts::default(), call.now());
    let show = |k: &Arc<Key>| show::key(k, texts.get(&k.created_position).unwrap_or(&empty), now);
    Ok(ListKeysResponse {
        keys: keys.iter().map(show).collect(),
        next_page_token: next.unwrap_or_default(),
        position: Some(head.state.next_position),
    })
}

pub(super) async fn verify_key(
    call: CallContext,
    r: VerifyKeyRequest,
) -> Result<VerifyKeyResponse, Failure> {
    // What leads up to the question is gone while the answer is awaited.
    let answer = Box::pin(ask(call, r)).await?;
    Ok(show::verdict(&*answer.await?))
}

/// Puts the question of VerifyKey to the sequencer.
async fn ask(
    call: CallContext,
    r: VerifyKeyRequest,
) -> Result<impl Future<Output = Result<Box<CheckAnswer>, Failure>>, Failure> {
    let mut credential = match r.token.len() {
        0 => Credential::Missing,
        n if n > MAX_TOKEN => Credential::Malformed,
        _ => Credential::from_text(&r.token),
    };
    let subject = match credential.key_id() {
        Some(key_id) => find_anywhere(&call, key_id).await?,
        None => None,
    };
    // The digest is computed before the lock; only if it matches nothing here it is computed again under it.
    credential.identify(&call.head().state, &call.replica.keys.peppers);
    let client = r.client.unwrap_or_default();
    let texts = Texts {
        reason: r.reason,
        client_address: client.address,
        client_user_agent: client.user_agent,
        ..Texts::default()
    };
    let sealed = match texts == Texts::default() {
        true => vec![],
        false => call.seal_about_key(subject.as_deref(), &texts).await?,
    };
    let check = Check {
        credential,
        permission: r.permission,
        resource: r.resource,
        audience: r.audience,
        texts: sealed,
    };
    Ok(call.verify(check))
}

pub(super) async fn who_am_i(call: CallContext, _: ()) -> Result<WhoAmIResponse, Failure> {
    let key = show_key(&call, call.caller()?).await?;
    let ledger = call.head().state.ledger.as_deref().map(show::ledger);
    Ok(WhoAmIResponse { key: Some(key), ledger })
}

fn find(call: &CallContext, key_id: KeyId) -> Option<Arc<Key>> {
    tracing::Span::current().record("keyledger.key.id", tracing::field::display(key_id));
    call.head().state.keys.get(&key_id).cloned()
}

/// Also a key that was made through another replica a moment ago: what is said about its owner is sealed under the owner's
/// key, and that can't be made good later.
async fn find_anywhere(call: &CallContext, key_id: KeyId) -> Result<Option<Arc<Key>>, Failure> {
    if let Some(key) = find(call, key_id) {
        return Ok(Some(key));
    }
    if call.head().state.ledger.as_ref().is_some_and(|ledger| ledger.number == key_id.ledger()) {
        call.ledger.catch_up().await?;
    }
    Ok(find(call, key_id))
}

async fn show_key(call: &CallContext, key: &Key) -> Result<keyledger_proto::Key, Failure> {
    let texts = call.texts_at(&[key.created_position]).await?;
    Ok(show::key(key, texts.get(&key.created_position).unwrap_or(&Texts::default()), call.now()))
}

/// The key as a change left it: now, or when the same request was answered before. Also whether it was made now.
async fn changed_key(
    call: &CallContext,
    outcome: Outcome,
) -> Result<(keyledger_proto::Key, u64, bool), Failure> {
    match outcome {
        Outcome::Done { position, result: Changed::Key(key) } => {
            Ok((show_key(call, &key).await?, position, true))
        }
        Outcome::Done { .. } => Err(Failure::Internal("a change of a key changed something else")),
        Outcome::Replayed { position } => {
            let key = key_at(call, position).await?;
            Ok((show_key(call, &key).await?, position, false))
        }
    }
}

/// The key that the entry at a position is about, as that entry left it.
async fn key_at(call: &CallContext, position: u64) -> Result<Arc<Key>, Failure> {
    let gone = || Failure::Internal("the entry of an answered request is not about a key");
    let client = call.ledger.database.client().await?;
    let entries = crate::store::entries::at_positions(&client, call.ledger.id, &[position]).await?;
    let key_id = entries.first().and_then(|e| e.columns.key_id).ok_or_else(gone)?;
    key_as_of(&client, call.ledger.id, &call.head().state, key_id, position).await?.ok_or_else(gone)
}
