//! Entries about a key, in words.

use keyledger_ledger::body::{Kind, RevocationKind};
use keyledger_ledger::id::Time;

use super::words::{count, revoked_for, time};
use crate::show::timestamp;

/// What an entry about a key says has happened.
pub fn what(kind: &Kind) -> String {
    match kind {
        Kind::KeyCreated(_) => "Made.".into(),
        Kind::KeyImported(_) => "Taken over from elsewhere.".into(),
        Kind::KeyUpdated(updated) => {
            let changed: Vec<String> =
                updated.changed.iter().map(|c| c.replace(['_', '.'], " ")).collect();
            format!("Changed: {}.", changed.join(", "))
        }
        Kind::KeySuspended(suspended) => match (suspended.overdue_version, suspended.idle_since_us)
        {
            (0, 0) if suspended.anomaly_position.is_some() => {
                "Suspended for its unusual use.".into()
            }
            (0, 0) => "Suspended: not accepted until it is resumed.".into(),
            (0, idle) => format!("Suspended, since it had not been used after {}.", at(idle)),
            (version, _) => {
                format!("Suspended, since version {version} of its secret grew too old.")
            }
        },
        Kind::KeyResumed(_) => "Resumed: accepted again.".into(),
        Kind::KeyRotated(rotated) => {
            let version = rotated.version.as_ref().map_or(0, |v| v.number);
            let until = match rotated.until_first_use {
                true => "until the new one is used, or".to_string(),
                false => "until".into(),
            };
            let end = at(rotated.previous_expire_time_us);
            format!(
                "Given a new secret, version {version}; the one before is accepted {until} {end}."
            )
        }
        Kind::RotationDue(due) => {
            format!("Version {} of its secret is as old as it may grow.", due.version)
        }
        Kind::RotationCompleted(done) => {
            format!("Version {} of its secret was used, so the one before has ended.", done.version)
        }
        Kind::KeyExpiring(expiring) => {
            format!("Noted that it ends within {}.", count(expiring.days.into(), "day"))
        }
        Kind::KeyExpired(_) => "Its time ran out.".into(),
        Kind::KeyRevoked(revoked) => {
            let why = RevocationKind::try_from(revoked.kind).unwrap_or_default();
            format!("Revoked for good: {}.", revoked_for(why))
        }
        Kind::VerifierMigrated(_) => {
            "First used here: its old hash was replaced by a verifier of our own.".into()
        }
        other => other.name().into(),
    }
}

fn at(micros: i64) -> String {
    time(&timestamp(Time(micros)))
}

#[cfg(test)]
mod tests {
    use keyledger_ledger::body::{KeyRevoked, KeySuspended, KeyUpdated};

    use super::*;

    #[test]
    fn an_entry_is_said_in_one_sentence() {
        let changed = vec!["grants".into(), "restrictions.networks".into()];
        let updated = Kind::KeyUpdated(KeyUpdated { changed, ..KeyUpdated::default() });
        assert_eq!(what(&updated), "Changed: grants, restrictions networks.");
        let suspended = KeySuspended { overdue_version: 2, ..KeySuspended::default() };
        let suspended = what(&Kind::KeySuspended(suspended));
        assert_eq!(suspended, "Suspended, since version 2 of its secret grew too old.");
        let kind = RevocationKind::OwnerLeft as i32;
        let revoked = Kind::KeyRevoked(KeyRevoked { kind, ..KeyRevoked::default() });
        assert_eq!(what(&revoked), "Revoked for good: its owner left.");
    }
}
