//! KeyService: keys.

use std::sync::Arc;

use keyledger_ledger::body::{RevocationKind, Texts};
use keyledger_ledger::command::{
    ChangeKind, Changed, CreateKey, FirstSecret, Refusal, RotateKey, UpdateKey,
};
use keyledger_ledger::id::{KeyId, LedgerNumber};
use keyledger_ledger::judge::Credential;
use keyledger_ledger::state::{Key, Owner};
use keyledger_ledger::text::Sealed;
use keyledger_ledger::token::Token;
use keyledger_proto::parse::{self, AsOf, Common, OwnerName};
use keyledger_proto::{
    CreateKeyResponse, GetKeyResponse, ResumeKeyResponse, RevokeBySecretRequest,
    RevokeBySecretResponse, RevokeKeyResponse, RotateKeyResponse, SuspendKeyResponse,
    UpdateKeyResponse, show,
};

use super::call::{CallContext, Outcome, recognise};
use super::moment::Moment;
use super::status::Failure;
use super::traces;
use crate::replica::{new_secret, own_clock};
use crate::sealing::{About, random};
use crate::sequencer::{Ledger, key_as_of};
use crate::store::entries;

pub(super) async fn create_key(
    mut call: CallContext,
    r: parse::CreateKey,
) -> Result<CreateKeyResponse, Failure> {
    let (secret, common) = (new_secret(), r.common.clone());
    let (kind, sealed, texts) = new_key(&call, r, secret.clone().into()).await?;
    let token = Token { key_id: kind.key_id, secret: secret.secret };
    let outcome = call.change(ChangeKind::CreateKey(kind), sealed, &common).await?;
    let changed = changed_key(&call, outcome, &texts).await?;
    let token = if changed.fresh { token.reveal() } else { String::new() };
    Ok(CreateKeyResponse { key: Some(changed.key), token, position: changed.position })
}

/// A key that is to be made, with its id; its texts sealed, and as they are.
pub(super) async fn new_key(
    call: &CallContext,
    r: parse::CreateKey,
    secret: FirstSecret,
) -> Result<(CreateKey, Vec<Sealed>, Texts), Failure> {
    let number = call
        .head()
        .state
        .ledger
        .as_ref()
        .map(|l| l.number)
        .ok_or(Failure::Internal("no ledger"))?;
    let key_id = KeyId::new(own_clock(), number, u64::from_be_bytes(random()));
    let mut texts = Texts { purpose: r.purpose, reason: r.common.reason, ..Texts::default() };
    let (owner, mut sealed) = match r.owner {
        OwnerName::Service(name) => {
            (Owner::Service(name.into()), call.seal(About::Nobody, &texts).await?)
        }
        OwnerName::User(name) => {
            texts.owner = name.clone();
            let sealed = call.seal(About::Person(&name), &texts).await?;
            (Owner::User(sealed[0].subject_ref), sealed)
        }
    };
    let responsible = seal_responsible(call, r.responsible.as_deref(), &mut sealed).await?;
    texts.responsible = r.responsible.unwrap_or_default();
    let kind = CreateKey {
        key_id,
        owner,
        grants: r.grants,
        roles: r.roles,
        expiry: r.expiry,
        restrictions: r.restrictions,
        labels: r.labels,
        responsible,
        rotation: r.rotation,
        secret,
    };
    Ok((kind, sealed, texts))
}

pub(super) async fn update_key(
    mut call: CallContext,
    r: parse::UpdateKey,
) -> Result<UpdateKeyResponse, Failure> {
    let mut texts = Texts {
        purpose: r.purpose.unwrap_or_default(),
        reason: r.common.reason.clone(),
        ..Texts::default()
    };
    let kind = UpdateKey {
        key_id: r.key_id,
        etag: r.etag,
        changed: r.changed,
        grants: r.grants,
        roles: r.roles,
        expiry: r.expiry,
        restrictions: r.restrictions,
        labels: r.labels,
        responsible: None,
        rotation: r.rotation,
    };
    // Twice at most: what was seen once is known.
    for _ in 0..2 {
        let mut sealed = seal_about(&mut call, r.key_id, &texts).await?;
        let responsible = match &r.responsible {
            None => None,
            Some(name) => Some(seal_responsible(&call, name.as_deref(), &mut sealed).await?),
        };
        let kind = ChangeKind::UpdateKey(UpdateKey { responsible, ..kind.clone() });
        match call.change(kind, sealed, &r.common).await? {
            Outcome::Seen => {}
            outcome => {
                texts.responsible = r.responsible.flatten().unwrap_or_default();
                let changed = changed_key(&call, outcome, &texts).await?;
                return Ok(UpdateKeyResponse {
                    key: Some(changed.key),
                    position: changed.position,
                });
            }
        }
    }
    Err(Failure::Internal("a key was seen twice"))
}

/// Seals what is said about the owner of a key under the owner's key. If this replica doesn't know the key, the change says
/// so: should it be there after all, nothing is done, and the change is asked for again.
async fn seal_about(
    call: &mut CallContext,
    key_id: KeyId,
    texts: &Texts,
) -> Result<Vec<Sealed>, Failure> {
    let about = find(call, key_id);
    call.set_unseen(about.is_none().then_some(key_id));
    call.seal_about_key(about.as_deref(), texts).await
}

/// Seals the name of the person responsible for a key, if there is one, under that person's key. Returns the reference.
async fn seal_responsible(
    call: &CallContext,
    name: Option<&str>,
    sealed: &mut Vec<Sealed>,
) -> Result<Option<[u8; 16]>, Failure> {
    let Some(name) = name else { return Ok(None) };
    let texts = Texts { responsible: name.into(), ..Texts::default() };
    let about_them = call.seal(About::Person(name), &texts).await?;
    let reference = about_them[0].subject_ref;
    sealed.extend(about_them);
    Ok(Some(reference))
}

pub(super) async fn rotate_key(
    mut call: CallContext,
    r: parse::RotateKey,
) -> Result<RotateKeyResponse, Failure> {
    let secret = new_secret();
    let token = Token { key_id: r.key_id, secret: secret.secret.clone() };
    let kind = ChangeKind::RotateKey(RotateKey {
        key_id: r.key_id,
        overlap_micros: r.overlap_micros,
        until_first_use: r.until_first_use,
        secret,
    });
    let changed = change_key(&mut call, r.key_id, kind, &r.common).await?;
    let token = if changed.fresh { token.reveal() } else { String::new() };
    Ok(RotateKeyResponse { key: Some(changed.key), token, position: changed.position })
}

pub(super) async fn revoke_key(
    mut call: CallContext,
    r: parse::RevokeKey,
) -> Result<RevokeKeyResponse, Failure> {
    let kind = ChangeKind::RevokeKey { key_id: r.key_id, kind: r.kind };
    let changed = change_key(&mut call, r.key_id, kind, &r.common).await?;
    Ok(RevokeKeyResponse { key: Some(changed.key), position: changed.position })
}

/// The answer is the same whether or not there was such a key, and whatever its state: only the ledger knows.
pub(super) async fn revoke_by_secret(
    call: CallContext,
    r: RevokeBySecretRequest,
) -> Result<RevokeBySecretResponse, Failure> {
    let common = Common {
        reason: r.reason,
        request_id: None,
        validate_only: false,
        approval_ref: String::new(),
    };
    let credential = parse::credential(&r.token);
    if matches!(credential, Credential::Foreign(_)) {
        return revoke_imported(call, credential, &r.token, &common).await;
    }
    let number = credential.key_id().map_or(LedgerNumber::SYSTEM, |id| id.ledger());
    let ledger = call.replica.ledger(number).await?;
    let ledger = ledger.unwrap_or_else(|| call.replica.system.clone());
    end_by_secret(&call, ledger, credential, &common).await
}

/// The token of an imported key names no ledger: it is ended in each that knows it, as far as this replica has heard. A ledger
/// more costs a look into a map; a slow hash is computed only where a prefix is found, in places that only strangers take.
async fn revoke_imported(
    call: CallContext,
    presented: Credential,
    token: &str,
    common: &Common,
) -> Result<RevokeBySecretResponse, Failure> {
    let slow_hashes = &call.replica.slow_hashes_of_strangers;
    let mut known = vec![];
    for ledger in call.replica.all() {
        let credential = recognise(&ledger, slow_hashes, presented.clone(), token).await?;
        if credential.key_id().is_some() {
            known.push((ledger, credential));
        }
    }
    // Nobody's token is refused, and recorded, by ledger 0.
    if known.is_empty() {
        known.push((call.replica.system.clone(), presented));
    }
    for (ledger, credential) in known {
        end_by_secret(&call, ledger, credential, common).await?;
    }
    Ok(RevokeBySecretResponse {})
}

async fn end_by_secret(
    call: &CallContext,
    ledger: Arc<Ledger>,
    credential: Credential,
    common: &Common,
) -> Result<RevokeBySecretResponse, Failure> {
    // A token that names no key is refused like one that does: as a change that nobody may make.
    let key_id = credential.key_id().unwrap_or(KeyId::from_bytes([0; 16]));
    let mut call = call.presented(ledger, credential).await?;
    let kind = ChangeKind::RevokeKey { key_id, kind: RevocationKind::Compromised };
    match change_key(&mut call, key_id, kind, common).await {
        Ok(_) | Err(Failure::Refused(_)) => Ok(RevokeBySecretResponse {}),
        Err(failure) => Err(failure),
    }
}

pub(super) async fn suspend_key(
    mut call: CallContext,
    r: parse::KeyChange,
) -> Result<SuspendKeyResponse, Failure> {
    let kind = ChangeKind::SuspendKey { key_id: r.key_id };
    let changed = change_key(&mut call, r.key_id, kind, &r.common).await?;
    Ok(SuspendKeyResponse { key: Some(changed.key), position: changed.position })
}

pub(super) async fn resume_key(
    mut call: CallContext,
    r: parse::KeyChange,
) -> Result<ResumeKeyResponse, Failure> {
    let kind = ChangeKind::ResumeKey { key_id: r.key_id };
    let changed = change_key(&mut call, r.key_id, kind, &r.common).await?;
    Ok(ResumeKeyResponse { key: Some(changed.key), position: changed.position })
}

/// A change whose only text is its reason, which is about the owner of the key.
pub(super) async fn change_key(
    call: &mut CallContext,
    key_id: KeyId,
    kind: ChangeKind,
    common: &Common,
) -> Result<ChangedKey, Failure> {
    let texts = Texts { reason: common.reason.clone(), ..Texts::default() };
    // Twice at most: what was seen once is known.
    for _ in 0..2 {
        let sealed = seal_about(call, key_id, &texts).await?;
        match call.change(kind.clone(), sealed, common).await? {
            Outcome::Seen => {}
            outcome => return changed_key(call, outcome, &texts).await,
        }
    }
    Err(Failure::Internal("a key was seen twice"))
}

pub(super) async fn get_key(
    call: CallContext,
    parse::GetKey { key_id, as_of, include_traces }: parse::GetKey,
) -> Result<GetKeyResponse, Failure> {
    let moment = Moment::of(&call, as_of).await?;
    let key = match as_of {
        AsOf::Now => find(&call, key_id),
        AsOf::Position(_) | AsOf::Time(_) => {
            let client = call.ledger.database.client().await?;
            // Position 0 is about no key.
            let newest = moment.position.saturating_sub(1);
            key_as_of(&client, call.ledger.id, &call.head().state, key_id, newest).await?
        }
    };
    let key = key.ok_or(Refusal::KeyNotFound)?;
    let traces = match include_traces {
        true => Some(traces::of_key(&call, &key, moment.position).await?),
        false => None,
    };
    let shown = moment.show_keys(&call, &call.head().state, &[key]).await?;
    let position = Some(moment.position);
    Ok(GetKeyResponse { key: shown.into_iter().next(), position, traces })
}

pub(super) fn find(call: &CallContext, key_id: KeyId) -> Option<Arc<Key>> {
    call.head().state.keys.get(&key_id).cloned()
}

pub(super) async fn show_key(
    call: &CallContext,
    key: &Arc<Key>,
) -> Result<keyledger_proto::Key, Failure> {
    let texts = key_texts(call, std::slice::from_ref(key)).await?;
    Ok(show::key(&call.head().state, key, &texts[0], call.now()))
}

/// The texts of keys, in the order of the keys: each lies beside the entry that last said it.
pub(super) async fn key_texts(
    call: &CallContext,
    keys: &[Arc<Key>],
) -> Result<Vec<Texts>, Failure> {
    let places = |k: &Arc<Key>| [k.created_position, k.purpose_position, k.responsible_position];
    let mut positions: Vec<u64> = keys.iter().flat_map(places).collect();
    positions.sort();
    positions.dedup();
    let texts = call.texts_at(&positions).await?;
    let at = |position: &u64, field: fn(&Texts) -> &String| {
        texts.get(position).map(|t| field(t).clone()).unwrap_or_default()
    };
    let of_key = |k: &Arc<Key>| Texts {
        owner: at(&k.created_position, |t| &t.owner),
        purpose: at(&k.purpose_position, |t| &t.purpose),
        responsible: k
            .responsible
            .map_or(String::new(), |_| at(&k.responsible_position, |t| &t.responsible)),
        ..Texts::default()
    };
    Ok(keys.iter().map(of_key).collect())
}

/// A key after a change.
pub(super) struct ChangedKey {
    pub(super) key: keyledger_proto::Key,
    /// `None` after a dry run.
    position: Option<u64>,
    /// Whether the change was made by this very call: only then may a secret be shown.
    fresh: bool,
}

/// The key as a change left it: now, when the same request was answered before, or as it would leave it. `texts` are those
/// of the request.
async fn changed_key(
    call: &CallContext,
    outcome: Outcome,
    texts: &Texts,
) -> Result<ChangedKey, Failure> {
    match outcome {
        Outcome::Done { position, result: Changed::Key(key) } => {
            let key = show_key(call, &key).await?;
            Ok(ChangedKey { key, position: Some(position), fresh: true })
        }
        Outcome::Validated { result: Changed::Key(key) } => {
            let mut known = key_texts(call, std::slice::from_ref(&key)).await?.remove(0);
            for (known, new) in [
                (&mut known.owner, &texts.owner),
                (&mut known.purpose, &texts.purpose),
                (&mut known.responsible, &texts.responsible),
            ] {
                if known.is_empty() {
                    known.clone_from(new);
                }
            }
            let key = show::key(&call.head().state, &key, &known, call.now());
            Ok(ChangedKey { key, position: None, fresh: false })
        }
        Outcome::Done { .. } | Outcome::Validated { .. } | Outcome::Seen => {
            Err(Failure::Internal("a change of a key changed something else"))
        }
        Outcome::Replayed { position } => {
            let key = key_at(call, position).await?;
            let key = show_key(call, &key).await?;
            Ok(ChangedKey { key, position: Some(position), fresh: false })
        }
    }
}

/// The key that the entry at a position is about, as that entry left it.
pub(super) async fn key_at(call: &CallContext, position: u64) -> Result<Arc<Key>, Failure> {
    let gone = || Failure::Internal("the entry of an answered request is not about a key");
    let client = call.ledger.database.client().await?;
    let entries = entries::at_positions(&client, call.ledger.id, &[position]).await?;
    let key_id = entries.first().and_then(|e| e.columns.key_id).ok_or_else(gone)?;
    key_as_of(&client, call.ledger.id, &call.head().state, key_id, position).await?.ok_or_else(gone)
}
