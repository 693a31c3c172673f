//! What changes give or set, in words.

use super::{grants, short};
use crate::document::words::{grouped, micros, owner_in_full, span, time};
use crate::entry::Restrictions;
use crate::{LedgerLimits, LedgerPolicy, ReviewChange, ReviewGiven, RotationPolicy};

/// One text a field: of an update those that were changed, else those that there are.
pub(crate) fn given(change: &ReviewChange) -> Vec<String> {
    let Some(given) = &change.given else { return vec![] };
    let changes = |field: &str| {
        let below = format!("{field}.");
        change.changed.iter().any(|c| c == field || c.starts_with(&below))
    };
    let updates = !change.changed.is_empty();
    let mut texts = vec![];
    for (field, text) in fields(change, given) {
        // What is empty is told where it was made empty.
        match (updates, text) {
            (true, text) if changes(field) => {
                let text = text.unwrap_or_else(|| "none".into());
                texts.push(format!("{}: {text}", field.replace('_', " ")));
            }
            (false, Some(text)) => texts.push(format!("{}: {text}", field.replace('_', " "))),
            _ => {}
        }
    }
    texts
}

type Field = (&'static str, Option<String>);

fn fields(change: &ReviewChange, given: &ReviewGiven) -> Vec<Field> {
    if let Some(policy) = &given.policy {
        return of_policy(policy, given.limits.as_ref());
    }
    let ends = given.expire_time.as_ref().map_or("never".into(), time);
    let is_key = !change.key_id.is_empty();
    let labels: Vec<String> =
        given.labels.iter().map(|l| format!("{}={}", l.name, l.value)).collect();
    vec![
        ("owner", given.owner.as_ref().map(|owner| owner_in_full(Some(owner)))),
        ("purpose", some(given.purpose.clone())),
        ("responsible", some(given.responsible.clone())),
        ("grants", some(grants(&given.grants))),
        ("roles", some(given.roles.join(", "))),
        ("expiry", is_key.then_some(ends)),
        ("restrictions", given.restrictions.as_ref().map(restricted)),
        ("labels", some(labels.join(", "))),
        ("rotation", given.rotation.as_ref().map(rotation)),
        ("max_staleness", given.max_staleness.as_ref().map(span)),
        ("permissions", some(given.permissions.join(", "))),
    ]
}

fn of_policy(policy: &LedgerPolicy, limits: Option<&LedgerLimits>) -> Vec<Field> {
    let days: Vec<String> = policy.notice_days.iter().map(ToString::to_string).collect();
    let rule = |rule: &crate::entry::RuleSetting| {
        let name = short("keyledger.entry.v1.MonitoringRule", rule.rule);
        let response = short("keyledger.entry.v1.AnomalyResponse", rule.response);
        match rule.threshold {
            0 => format!("{name}: {response}"),
            threshold => format!("{name}: {response} from {}", grouped(threshold.into())),
        }
    };
    let rules: Vec<String> = policy.rules.iter().map(rule).collect();
    let limits = limits.map(|l| {
        format!(
            "{} keys, {} roles, {} streams, {} bytes a second",
            grouped(l.max_keys),
            grouped(l.max_roles),
            grouped(l.max_streams.into()),
            grouped(l.max_bytes_per_second)
        )
    });
    vec![
        ("default_life", policy.default_life.as_ref().map(span)),
        ("max_life", policy.max_life.as_ref().map(span)),
        ("max_overlap", policy.max_overlap.as_ref().map(span)),
        ("notice_days", some(days.join(", "))),
        ("approval_permissions", some(policy.approval_permissions.join(", "))),
        ("max_staleness", policy.max_staleness.as_ref().map(span)),
        ("rules", some(rules.join(", "))),
        ("idle_suspend_after", policy.idle_suspend_after.as_ref().map(span)),
        ("idle_revoke_after", policy.idle_revoke_after.as_ref().map(span)),
        ("digest_days", some(policy.digest_days.to_string())),
        ("limits", limits),
    ]
}

fn restricted(restrictions: &Restrictions) -> String {
    let listed = |what: &str, list: &[String]| {
        (!list.is_empty()).then(|| format!("{what} {}", list.join(", ")))
    };
    let all = [
        listed("networks", &restrictions.networks),
        listed("audiences", &restrictions.audiences),
        (restrictions.max_uses > 0).then(|| format!("{} uses in all", restrictions.max_uses)),
        restrictions
            .rate
            .as_ref()
            .map(|rate| format!("{} uses each {}", rate.uses, span(&micros(rate.window_us)))),
    ];
    all.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn rotation(rotation: &RotationPolicy) -> String {
    let age = rotation.max_age.as_ref().map(span).unwrap_or_default();
    match &rotation.suspend_after {
        Some(later) => format!("due after {age}, suspended {} later", span(later)),
        None => format!("due after {age}"),
    }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Grant;

    fn grant(permission: &str) -> Grant {
        let permissions = vec![permission.into()];
        Grant { permissions, resource: "logs/**".into(), ..Grant::default() }
    }

    #[test]
    fn an_update_tells_what_was_changed_and_what_was_emptied() {
        let given_now = ReviewGiven {
            grants: vec![grant("audit.read")],
            purpose: "not changed".into(),
            ..ReviewGiven::default()
        };
        let change = ReviewChange {
            key_id: "x".into(),
            changed: ["grants", "roles", "expiry", "restrictions.networks"]
                .map(String::from)
                .into(),
            given: Some(given_now),
            ..ReviewChange::default()
        };
        let told = ["grants: audit.read on logs/**", "roles: none", "expiry: never"];
        assert_eq!(given(&change)[..3], told);
        assert_eq!(given(&change)[3..], ["restrictions: none"]);
    }

    #[test]
    fn what_is_made_tells_all_that_it_is_and_a_role_has_no_end() {
        let role = ReviewGiven { grants: vec![grant("audit.write")], ..ReviewGiven::default() };
        let role = ReviewChange { given: Some(role), ..ReviewChange::default() };
        assert_eq!(given(&role), ["grants: audit.write on logs/**"]);
        let policy = LedgerPolicy {
            rules: vec![crate::entry::RuleSetting { rule: 1, response: 1, threshold: 1_500 }],
            ..LedgerPolicy::default()
        };
        let policy = ReviewGiven { policy: Some(policy), ..ReviewGiven::default() };
        let changed = vec!["rules".into()];
        let policy = ReviewChange { changed, given: Some(policy), ..ReviewChange::default() };
        assert!(given(&policy)[0].ends_with(" from 1,500"), "{:?}", given(&policy));
    }
}
