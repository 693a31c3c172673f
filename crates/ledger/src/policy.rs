//! The policy of a ledger: what its keys and changes must keep to, and how much of a deployment it may take.
//!
//! Whoever administers the ledger sets the policy. Limits are there so that one tenant can't fill every replica: only
//! callers of the system ledger set them.

use crate::body::{self, AnomalyResponse, MonitoringRule, RuleSetting};
use crate::command::{DAY, Refusal, SECOND};
use crate::grant::check_pattern;
use crate::id::Time;
use crate::merkle::Hash;

/// Longest life that a policy may allow.
pub const LONGEST_LIFE: i64 = 3_660 * DAY;
/// Longest overlap of a rotation that a policy may allow.
pub const LONGEST_OVERLAP: i64 = 90 * DAY;
/// Oldest state from which a policy may allow an answer.
pub const LONGEST_STALENESS: i64 = 60 * SECOND;
/// Most distances at which the end of a key is noted.
pub const MAX_NOTICES: usize = 8;
/// Farthest of them, in days.
pub const FARTHEST_NOTICE: u32 = 366;
/// Most permissions that need an approval.
pub const MAX_APPROVALS: usize = 32;

/// What holds in a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Life of a key that names none, in microseconds like all that follows.
    pub default_life: i64,
    pub max_life: i64,
    /// Longest overlap of a rotation.
    pub max_overlap: i64,
    /// How many days before its end a key is noted to be about to end. Farthest first, each once.
    pub notice_days: Vec<u32>,
    /// Patterns of permissions by which nothing is changed without an `approval_ref`.
    pub approvals: Vec<String>,
    /// How old an answer from memory may be; 0 if there must be none.
    pub max_staleness: i64,
    pub limits: Limits,
    /// What is done otherwise than by default about unusual use. In the order of the rules, each once.
    pub rules: Vec<RuleSetting>,
    /// How long a key may be unused before it is suspended; 0: it never is.
    pub idle_suspend_after: i64,
    /// How much later it is revoked; 0: never.
    pub idle_revoke_after: i64,
    /// Every how many days findings are counted; 0: never.
    pub digest_days: u32,
}

/// How much of each replica a ledger may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Keys, those that have ended included: they are kept in memory.
    pub keys: u64,
    pub roles: u64,
    /// Streams that are open at once.
    pub streams: u32,
    /// What is written to it, about.
    pub bytes_per_second: u64,
}

/// The policy as the ledger's entries have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CurrentPolicy {
    pub policy: Policy,
    /// Position of the entry that set it; 0 while it is the default.
    pub position: u64,
    pub leaf_hash: Hash,
}

/// Why a policy is refused: field and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct PolicyError {
    pub field: &'static str,
    pub problem: String,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            default_life: 90 * DAY,
            max_life: 400 * DAY,
            max_overlap: 30 * DAY,
            notice_days: vec![30, 7, 1],
            approvals: vec![],
            max_staleness: 0,
            limits: Limits::default(),
            rules: vec![],
            idle_suspend_after: 0,
            idle_revoke_after: 0,
            digest_days: 0,
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { keys: 2_000_000, roles: 1_000, streams: 1_000, bytes_per_second: 256 << 20 }
    }
}

impl Policy {
    pub fn from_body(policy: &body::LedgerPolicy) -> Result<Policy, PolicyError> {
        let limits = policy.limits.unwrap_or_default();
        let policy = Policy {
            default_life: policy.default_life_us,
            max_life: policy.max_life_us,
            max_overlap: policy.max_overlap_us,
            notice_days: policy.notice_days.clone(),
            approvals: policy.approval_permissions.clone(),
            max_staleness: policy.max_staleness_us,
            limits: Limits {
                keys: limits.max_keys,
                roles: limits.max_roles,
                streams: limits.max_streams,
                bytes_per_second: limits.max_bytes_per_second,
            },
            rules: policy.rules.clone(),
            idle_suspend_after: policy.idle_suspend_after_us,
            idle_revoke_after: policy.idle_revoke_after_us,
            digest_days: policy.digest_days,
        };
        policy.check()?;
        Ok(policy)
    }

    pub fn to_body(&self) -> body::LedgerPolicy {
        body::LedgerPolicy {
            default_life_us: self.default_life,
            max_life_us: self.max_life,
            max_overlap_us: self.max_overlap,
            notice_days: self.notice_days.clone(),
            approval_permissions: self.approvals.clone(),
            max_staleness_us: self.max_staleness,
            limits: Some(body::LedgerLimits {
                max_keys: self.limits.keys,
                max_roles: self.limits.roles,
                max_streams: self.limits.streams,
                max_bytes_per_second: self.limits.bytes_per_second,
            }),
            rules: self.rules.clone(),
            idle_suspend_after_us: self.idle_suspend_after,
            idle_revoke_after_us: self.idle_revoke_after,
            digest_days: self.digest_days,
        }
    }

    pub fn check(&self) -> Result<(), PolicyError> {
        let good = [
            (
                (SECOND..=LONGEST_LIFE).contains(&self.max_life),
                "max_life",
                "must be 1 second to 3,660 days",
            ),
            (
                (SECOND..=self.max_life).contains(&self.default_life),
                "default_life",
                "must be 1 second to max_life",
            ),
            (
                (0..=LONGEST_OVERLAP).contains(&self.max_overlap),
                "max_overlap",
                "must be 0 to 90 days",
            ),
            (
                self.notice_days.len() <= MAX_NOTICES
                    && self.notice_days.is_sorted_by(|a, b| a > b)
                    && self.notice_days.iter().all(|d| (1..=FARTHEST_NOTICE).contains(d)),
                "notice_days",
                "must be at most 8 distances of 1 to 366 days, farthest first, each once",
            ),
            (
                self.approvals.len() <= MAX_APPROVALS
                    && self.approvals.iter().all(|p| check_pattern(p).is_ok()),
                "approval_permissions",
                "must be at most 32 permissions such as `keys.revoke`, `roles.*` or `*`",
            ),
            (
                (0..=LONGEST_STALENESS).contains(&self.max_staleness),
                "max_staleness",
                "must be 0 to 60 seconds",
            ),
            (
                self.limits.keys > 0
                    && self.limits.roles > 0
                    && self.limits.streams > 0
                    && self.limits.bytes_per_second >= 1 << 10,
                "limits",
                "must all be at least 1, and bytes per second at least 1,024",
            ),
            (
                self.idle_suspend_after == 0
                    || (DAY..=LONGEST_LIFE).contains(&self.idle_suspend_after),
                "idle_suspend_after",
                "must be 0 or 1 to 3,660 days",
            ),
            (
                self.idle_revoke_after == 0
                    || self.idle_suspend_after != 0
                        && (DAY..=LONGEST_LIFE).contains(&self.idle_revoke_after),
                "idle_revoke_after",
                "must be 0 or 1 to 3,660 days, and 0 where idle_suspend_after is 0: nothing is revoked that was not suspended",
            ),
            (self.digest_days <= 366, "digest_days", "must be 0 to 366"),
        ];
        match good.iter().find(|(good, ..)| !good) {
            Some((_, field, problem)) => Err(PolicyError { field, problem: problem.to_string() }),
            None => {
                check_rules(&self.rules).map_err(|problem| PolicyError { field: "rules", problem })
            }
        }
    }

    /// Whether a change that needs this permission must name an approval, and doesn't.
    pub fn check_approval(&self, permission: &str, approval_ref: &str) -> Result<(), Refusal> {
        let asked = self.approvals.iter().any(|p| crate::grant::pattern_matches(p, permission));
        match asked && !permission.is_empty() && approval_ref.is_empty() {
            true => Err(Refusal::ApprovalRequired { permission: permission.into() }),
            false => Ok(()),
        }
    }
}

/// Largest threshold that a rule may be given.
pub const MAX_THRESHOLD: u32 = 1_000_000;

/// The rules are in order, each once, and each says something that means something. What is wrong, if they don't.
fn check_rules(rules: &[RuleSetting]) -> Result<(), String> {
    rules.iter().try_for_each(check_rule)?;
    match rules.windows(2).find(|two| two[0].rule >= two[1].rule) {
        None => Ok(()),
        Some(two) if two[0].rule == two[1].rule => {
            Err(format!("must name each rule at most once: {} stands twice", rule_name(&two[0])))
        }
        Some(two) => Err(format!(
            "must stand in order: {} comes before {}",
            rule_name(&two[1]),
            rule_name(&two[0])
        )),
    }
}

/// What is wrong with what a rule is set to by itself.
pub fn check_rule(setting: &RuleSetting) -> Result<(), String> {
    let rule = MonitoringRule::try_from(setting.rule).unwrap_or(MonitoringRule::Unspecified);
    let name = rule_name(setting);
    if rule == MonitoringRule::Unspecified {
        return Err(format!("must name known rules, and {} is none", setting.rule));
    }
    let Ok(response) = AnomalyResponse::try_from(setting.response) else {
        return Err(format!("must be off, note or suspend for {name}"));
    };
    if response == AnomalyResponse::Off && setting.threshold != 0 {
        return Err(format!("must not give {name} a threshold: it is off"));
    }
    if response == AnomalyResponse::Suspend && rule == MonitoringRule::Scanning {
        return Err(
            "must be off or note for scanning: it is about networks, so there is no key to suspend"
                .into(),
        );
    }
    if response == AnomalyResponse::Suspend && rule == MonitoringRule::RefusalBurst {
        return Err("must be off or note for refusal-burst: whoever knows a key's id could have it suspended, by wrong secrets".into());
    }
    if setting.threshold > MAX_THRESHOLD {
        return Err(format!("must give {name} a threshold of at most 1,000,000"));
    }
    Ok(())
}

/// As people write it: `new-network`.
fn rule_name(setting: &RuleSetting) -> String {
    let name = setting.rule().as_str_name().trim_start_matches("MONITORING_RULE_");
    name.to_lowercase().replace('_', "-")
}

impl CurrentPolicy {
    /// What an update must name to be made only if nothing has changed in between (AIP-154).
    pub fn etag(&self) -> String {
        crate::state::etag(&self.leaf_hash)
    }
}

/// How old a secret may grow, for one key or for all holders of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// From when on rotation is due, in microseconds after the secret was made.
    pub max_age: i64,
    /// How much later a key that wasn't rotated is suspended; `None` if it is only noted.
    pub suspend_after: Option<i64>,
}

impl Rotation {
    pub fn from_body(rotation: &body::Rotation) -> Result<Rotation, PolicyError> {
        let rotation =
            Rotation { max_age: rotation.max_age_us, suspend_after: rotation.suspend_after_us };
        let error = |field, problem: &str| Err(PolicyError { field, problem: problem.into() });
        if !(SECOND..=LONGEST_LIFE).contains(&rotation.max_age) {
            return error("rotation.max_age", "must be 1 second to 3,660 days");
        }
        if rotation.suspend_after.is_some_and(|s| !(0..=LONGEST_LIFE).contains(&s)) {
            return error("rotation.suspend_after", "must be 0 to 3,660 days");
        }
        Ok(rotation)
    }

    pub fn to_body(self) -> body::Rotation {
        body::Rotation { max_age_us: self.max_age, suspend_after_us: self.suspend_after }
    }

    pub fn due(&self, made: Time) -> Time {
        made.plus_micros(self.max_age)
    }

    pub fn overdue(&self, made: Time) -> Option<Time> {
        self.suspend_after.map(|after| self.due(made).plus_micros(after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_refused_with_the_field_that_is_wrong() {
        type Change = fn(&mut Policy);
        let table: [(Change, &str); 15] = [
            (|_| {}, ""),
            (|p| p.max_life = LONGEST_LIFE + 1, "max_life"),
            (|p| p.max_life = 0, "max_life"),
            (|p| p.default_life = p.max_life + 1, "default_life"),
            (|p| p.default_life = -1, "default_life"),
            (|p| p.max_overlap = LONGEST_OVERLAP + 1, "max_overlap"),
            (|p| p.notice_days = vec![1, 7], "notice_days"),
            (|p| p.notice_days = vec![7, 0], "notice_days"),
            (|p| p.approvals = vec!["Keys".into()], "approval_permissions"),
            (|p| p.max_staleness = -1, "max_staleness"),
            (|p| p.limits.keys = 0, "limits"),
            (|p| p.notice_days = vec![], ""),
            (|p| p.idle_suspend_after = 5, "idle_suspend_after"),
            (|p| p.idle_revoke_after = DAY, "idle_revoke_after"),
            (|p| p.rules = vec![RuleSetting { rule: 99, response: 2, threshold: 0 }], "rules"),
        ];
        for (i, (change, field)) in table.into_iter().enumerate() {
            let mut policy = Policy::default();
            change(&mut policy);
            let wrong = policy.check().map_or_else(|e| e.field, |()| "");
            assert_eq!(wrong, field, "case {i}");
            if field.is_empty() {
                assert_eq!(Policy::from_body(&policy.to_body()), Ok(policy));
            }
        }
    }

    #[test]
    fn what_a_rule_is_set_to_means_something() {
        use AnomalyResponse::{Note, Off, Suspend};
        use MonitoringRule::{Forbidden, RefusalBurst, Scanning, Spike};
        let of = |rule: MonitoringRule, response: AnomalyResponse, threshold| RuleSetting {
            rule: rule as i32,
            response: response as i32,
            threshold,
        };
        for (rules, wrong) in [
            (vec![of(Spike, Suspend, 0), of(Forbidden, Off, 0), of(Scanning, Note, 7)], ""),
            (vec![of(Scanning, Suspend, 0)], "no key to suspend"),
            (vec![of(RefusalBurst, Suspend, 0)], "by wrong secrets"),
            (vec![of(Forbidden, Off, 3)], "must not give forbidden a threshold: it is off"),
            (vec![of(Spike, Note, 0), of(Spike, Off, 0)], "spike stands twice"),
            (vec![of(Forbidden, Note, 0), of(Spike, Off, 0)], "spike comes before forbidden"),
            (vec![of(Spike, Note, MAX_THRESHOLD + 1)], "at most 1,000,000"),
            (vec![RuleSetting { response: 9, ..of(Spike, Note, 0) }], "off, note or suspend"),
            (vec![RuleSetting { rule: 0, ..of(Spike, Note, 0) }], "0 is none"),
        ] {
            let policy = Policy { rules, ..Policy::default() };
            match policy.check() {
                Ok(()) => assert_eq!(wrong, ""),
                Err(e) => {
                    assert!(!wrong.is_empty() && e.problem.contains(wrong), "{e}");
                    assert_eq!(e.field, "rules");
                }
            }
        }
    }

    #[test]
    fn an_approval_is_asked_for_where_a_pattern_says_so() {
        let approvals = vec!["keys.revoke".into(), "roles.*".into()];
        let policy = Policy { approvals, ..Policy::default() };
        for (permission, approval, good) in [
            ("keys.revoke", "", false),
            ("keys.revoke", "CHG-7", true),
            ("keys.rotate", "", true),
            ("roles.create", "", false),
            ("", "", true),
        ] {
            assert_eq!(policy.check_approval(permission, approval).is_ok(), good, "{permission}");
        }
        let all = Policy { approvals: vec!["*".into()], ..Policy::default() };
        assert!(all.check_approval("keys.create", "").is_err());
        assert!(all.check_approval("", "").is_ok(), "what a key may always do needs nobody's word");
    }
}
