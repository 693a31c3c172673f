//! KeyService: owners who left, and reviews that are signed off.

use keyledger_ledger::body::{DecisionReason, Texts};
use keyledger_ledger::command::ChangeKind;
use keyledger_ledger::id::Time;
use keyledger_ledger::state::{Key, KeyStatus, Owner, State};
use keyledger_proto::parse::{self, OwnerName};
use keyledger_proto::{SetOwnerStatusResponse, SignAccessReviewResponse};

use super::call::{CallContext, Outcome};
use super::status::Failure;
use crate::sealing::About;

pub(super) async fn set_owner_status(
    mut call: CallContext,
    r: parse::SetOwnerStatus,
) -> Result<SetOwnerStatusResponse, Failure> {
    let name = match &r.owner {
        OwnerName::User(name) => name.clone(),
        OwnerName::Service(_) => String::new(),
    };
    let Some(owner) = known_owner(&call, r.owner).await? else {
        call.refuse(DecisionReason::Refused).await?;
        return Err(Failure::OwnerNotFound);
    };
    let (head, now) = (call.head(), call.now());
    let texts = Texts { owner: name, reason: r.common.reason.clone(), ..Texts::default() };
    let about = match &owner {
        Owner::User(reference) => About::Reference(*reference),
        Owner::Service(_) => About::Nobody,
    };
    let sealed = call.seal(about, &texts).await?;
    let kind = ChangeKind::SetOwnerStatus { owner: owner.clone(), left: r.left };
    let position = position_of(call.change(kind, sealed, &r.common).await?);
    let count = |theirs: fn(&Key, &Owner) -> bool| count(&head.state, now, &owner, theirs);
    Ok(SetOwnerStatusResponse {
        keys: count(is_theirs),
        responsible_for: count(answers_for),
        position,
    })
}

/// Whoever has, had, or answers for a key. Keys that have ended stay, so that whoever ever had one is known.
pub(super) async fn known_owner(
    call: &CallContext,
    name: OwnerName,
) -> Result<Option<Owner>, Failure> {
    let owner = match name {
        OwnerName::Service(name) => Some(Owner::Service(name.into())),
        OwnerName::User(name) => {
            let known = call.replica.sealing.find_person(call.ledger.id, &name).await?;
            known.map(Owner::User)
        }
    };
    let head = call.head();
    let theirs = |owner: &Owner| {
        head.state.keys.values().any(|key| is_theirs(key, owner) || answers_for(key, owner))
    };
    Ok(owner.filter(theirs))
}

fn is_theirs(key: &Key, owner: &Owner) -> bool {
    key.owner == *owner
}

fn answers_for(key: &Key, owner: &Owner) -> bool {
    matches!(owner, Owner::User(reference) if key.responsible == Some(*reference))
}

/// How many keys that are accepted now are theirs.
fn count(state: &State, now: Time, owner: &Owner, theirs: fn(&Key, &Owner) -> bool) -> u64 {
    let active = state.keys.values().filter(|key| key.status(now) == KeyStatus::Active);
    active.filter(|key| theirs(key, owner)).count() as u64
}

pub(super) async fn sign_access_review(
    mut call: CallContext,
    r: parse::SignAccessReview,
) -> Result<SignAccessReviewResponse, Failure> {
    let texts = Texts { reason: r.common.reason.clone(), ..Texts::default() };
    let sealed = call.seal(About::Nobody, &texts).await?;
    let outcome = call.change(ChangeKind::SignReview(r.review), sealed, &r.common).await?;
    Ok(SignAccessReviewResponse { position: position_of(outcome) })
}

fn position_of(outcome: Outcome) -> Option<u64> {
    match outcome {
        Outcome::Done { position, .. } | Outcome::Replayed { position } => Some(position),
        Outcome::Validated { .. } | Outcome::Seen => None,
    }
}
