//! Entries about a key, in words.

use keyledger_ledger::body::{KeySuspended, Kind, MonitoringRule, RevocationKind};
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
        Kind::KeySuspended(suspended) => suspended_for(suspended),
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

fn suspended_for(e: &KeySuspended) -> String {
    match (e.overdue_version, e.idle_since_us, e.anomaly_position) {
        (0, 0, Some(position)) => format!("Suspended for its unusual use: see entry {position}."),
        (0, 0, None) => "Suspended: not accepted until it is resumed.".into(),
        (0, idle, _) => format!("Suspended, since it had not been used after {}.", at(idle)),
        (version, ..) => format!("Suspended, since version {version} of its secret grew too old."),
    }
}

/// What is said besides of a key that was suspended for its unusual use: `None` for who may not read what was noticed.
pub fn noticed_by(rule: Option<MonitoringRule>) -> String {
    let Some(rule) = rule else { return " By which rule it was noticed is withheld.".into() };
    let name = rule.as_str_name();
    let name = name.strip_prefix("MONITORING_RULE_").unwrap_or(name);
    format!(" It was noticed by the rule {}.", name.to_lowercase().replace('_', "-"))
}

fn at(micros: i64) -> String {
    time(&timestamp(Time(micros)))
}

#[cfg(test)]
mod tests {
    use keyledger_ledger::body::{KeyRevoked, KeyUpdated};

    use super::*;

    #[test]
    fn an_entry_is_said_in_one_sentence() {
        let changed = vec!["grants".into(), "restrictions.networks".into()];
        let updated = Kind::KeyUpdated(KeyUpdated { changed, ..KeyUpdated::default() });
        assert_eq!(what(&updated), "Changed: grants, restrictions networks.");
        let suspended = KeySuspended { overdue_version: 2, ..KeySuspended::default() };
        let suspended = what(&Kind::KeySuspended(suspended));
        assert_eq!(suspended, "Suspended, since version 2 of its secret grew too old.");
        let noticed = KeySuspended { anomaly_position: Some(17), ..KeySuspended::default() };
        let noticed = what(&Kind::KeySuspended(noticed));
        assert_eq!(noticed, "Suspended for its unusual use: see entry 17.");
        let by = noticed_by(Some(MonitoringRule::RefusalBurst));
        assert_eq!(by, " It was noticed by the rule refusal-burst.");
        let kind = RevocationKind::OwnerLeft as i32;
        let revoked = Kind::KeyRevoked(KeyRevoked { kind, ..KeyRevoked::default() });
        assert_eq!(what(&revoked), "Revoked for good: its owner left.");
    }
}
