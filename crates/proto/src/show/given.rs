//! What a change gives or sets, as its signed entry says.

use keyledger_ledger::body::{self, Kind, OwnerKind, Texts};
use keyledger_ledger::id::Time;
use keyledger_ledger::policy::{Policy, Rotation};

use super::{duration, limits, policy, rotation, timestamp};
use crate::document::changes::what;
use crate::{Owner, ReviewGiven, owner};

/// `None` for an entry that gives nothing; `texts` are its own.
pub fn given(kind: &Kind, texts: &Texts) -> Option<ReviewGiven> {
    Some(match kind {
        Kind::KeyCreated(e) => ReviewGiven {
            grants: e.grants.clone(),
            roles: e.roles.clone(),
            expire_time: end(e.expire_time_us),
            restrictions: e.restrictions.clone(),
            labels: e.labels.clone(),
            rotation: age(e.rotation.as_ref()),
            owner: e.owner.as_ref().and_then(|o| whose(o, texts)),
            ..of_texts(texts)
        },
        Kind::KeyImported(e) => ReviewGiven {
            grants: e.grants.clone(),
            roles: e.roles.clone(),
            expire_time: end(e.expire_time_us),
            restrictions: e.restrictions.clone(),
            labels: e.labels.clone(),
            rotation: age(e.rotation.as_ref()),
            owner: e.owner.as_ref().and_then(|o| whose(o, texts)),
            ..of_texts(texts)
        },
        Kind::KeyUpdated(e) => ReviewGiven {
            grants: e.grants.clone(),
            roles: e.roles.clone(),
            expire_time: end(e.expire_time_us),
            restrictions: e.restrictions.clone(),
            labels: e.labels.clone(),
            rotation: age(e.rotation.as_ref()),
            ..of_texts(texts)
        },
        Kind::RoleCreated(e) => of_role(&e.grants, e.rotation.as_ref(), e.max_staleness_us),
        Kind::RoleUpdated(e) => of_role(&e.grants, e.rotation.as_ref(), e.max_staleness_us),
        Kind::LedgerPolicyUpdated(e) => {
            let from = |policy| Policy::from_body(policy).ok();
            let set = e.policy.as_ref().and_then(from)?;
            ReviewGiven {
                policy: Some(policy(&set)),
                limits: Some(limits(&set.limits)),
                ..ReviewGiven::default()
            }
        }
        Kind::PermissionsRegistered(e) => {
            ReviewGiven { permissions: e.names.clone(), ..ReviewGiven::default() }
        }
        _ => return None,
    })
}

/// What a change says besides what it gives: for what a key was suspended or revoked, until when its old secret is accepted.
pub fn why_changed(kind: &Kind) -> String {
    match kind {
        Kind::KeySuspended(e) => match e.anomaly_position {
            Some(position) => format!("Suspended by a rule, for the anomaly of entry {position}."),
            None => what(kind),
        },
        Kind::KeyRotated(_) | Kind::RotationDue(_) | Kind::KeyExpiring(_) | Kind::KeyRevoked(_) => {
            what(kind)
        }
        _ => String::new(),
    }
}

fn of_texts(texts: &Texts) -> ReviewGiven {
    ReviewGiven {
        purpose: texts.purpose.clone(),
        responsible: texts.responsible.clone(),
        ..ReviewGiven::default()
    }
}

fn of_role(
    grants: &[body::Grant],
    rotation: Option<&body::Rotation>,
    max_staleness: i64,
) -> ReviewGiven {
    ReviewGiven {
        grants: grants.to_vec(),
        rotation: age(rotation),
        max_staleness: (max_staleness != 0).then(|| duration(max_staleness)),
        ..ReviewGiven::default()
    }
}

fn end(micros: i64) -> Option<prost_types::Timestamp> {
    (micros != 0).then(|| timestamp(Time(micros)))
}

fn age(of: Option<&body::Rotation>) -> Option<crate::RotationPolicy> {
    of.and_then(|of| Rotation::from_body(of).ok()).map(rotation)
}

fn whose(of: &body::Owner, texts: &Texts) -> Option<Owner> {
    let owner = match of.owner.as_ref()? {
        OwnerKind::UserRef(_) => owner::Owner::User(texts.owner.clone()),
        OwnerKind::Service(name) => owner::Owner::Service(name.clone()),
    };
    Some(Owner { owner: Some(owner) })
}
