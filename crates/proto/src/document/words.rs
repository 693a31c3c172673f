//! What is known of a key, in sentences: what it may do, under which conditions, and how long.

use std::collections::BTreeMap;

use keyledger_ledger::grant::pattern_matches;
use prost_types::{Duration, Timestamp};

use crate::entry::{Grant, Restrictions, RevocationKind};
use crate::{Ability, Key, KeyState, Owner, Permission, owner};

/// Most permissions that are named for a pattern.
const MAX_NAMED: usize = 100;

/// What each permission is, in words.
pub struct Catalogue(BTreeMap<String, String>);

impl Catalogue {
    pub fn new<'a>(permissions: impl IntoIterator<Item = &'a Permission>) -> Catalogue {
        let named = permissions.into_iter().filter(|p| !p.description.is_empty());
        Catalogue(named.map(|p| (p.name.clone(), p.description.clone())).collect())
    }

    /// The permissions that a pattern stands for, by name: none for a name, and none for `*`, which stands for all.
    fn matching(&self, pattern: &str) -> Vec<String> {
        let matches = |name: &&String| pattern.ends_with(".*") && pattern_matches(pattern, name);
        self.0.keys().filter(matches).take(MAX_NAMED).cloned().collect()
    }

    /// What a permission or pattern is, without a full stop.
    fn meaning(&self, permission: &str) -> String {
        match (permission, permission.strip_suffix(".*"), self.0.get(permission)) {
            ("*", ..) => "Do everything".into(),
            (_, Some(prefix), _) => format!("Do everything whose name begins with {prefix}."),
            (_, None, Some(sentence)) => sentence.trim_end_matches('.').into(),
            (_, None, None) => format!("Do {permission}, of which nobody has said what it is"),
        }
    }

    /// One for each permission and resource, of all these grants. `role` is the one that gives them, or empty.
    pub fn abilities<'a>(
        &'a self,
        grants: &'a [Grant],
        role: &'a str,
    ) -> impl Iterator<Item = Ability> + 'a {
        let pairs = grants.iter().flat_map(|g| g.permissions.iter().map(move |p| (g, p)));
        pairs.map(move |(grant, permission)| self.ability(grant, permission, role))
    }

    fn ability(&self, grant: &Grant, permission: &str, role: &str) -> Ability {
        let (meaning, on) = (self.meaning(permission), on(&grant.resource));
        let to_give = match grant.give_only {
            true => "Hand on to other keys, and not do itself: ",
            false => "",
        };
        let by = if role.is_empty() { String::new() } else { format!(", by the role {role}") };
        // A name that ends the meaning with its own full stop keeps it.
        Ability {
            permission: permission.into(),
            resource: grant.resource.clone(),
            give_only: grant.give_only,
            role: role.into(),
            sentence: format!("{to_give}{meaning}, on {on}{by}."),
            meaning,
            on,
            permissions: self.matching(permission),
        }
    }
}

/// Whether an ability covers a permission on a resource, as VerifyKey would judge it of a key that is accepted.
pub fn covers(ability: &Ability, permission: &str, resource: &str) -> bool {
    let permissions = vec![ability.permission.clone()];
    let grant =
        Grant { permissions, resource: ability.resource.clone(), give_only: ability.give_only };
    let grant = keyledger_ledger::grant::Grant::from_body(&grant);
    grant.is_ok_and(|grant| grant.allows(permission, resource))
}

/// What a resource or pattern is, in words.
fn on(resource: &str) -> String {
    if resource == "**" {
        return "everything".into();
    }
    let (path, below) = match resource.strip_suffix("/**") {
        Some(path) => (path, "everything below "),
        None => (resource, ""),
    };
    let stars = path.split('/').filter(|segment| *segment == "*").count();
    let any = match (path, stars, path.strip_suffix("/*")) {
        ("*", ..) if below.is_empty() => return "anything whose path is one name".into(),
        (_, 0, _) => return format!("{below}{path}"),
        (_, 1, Some(folder)) if below.is_empty() => {
            return format!("anything right below {folder}");
        }
        (_, 1, _) => "with any name for *",
        _ => "with any name for each *",
    };
    format!("{below}{path}, {any}")
}

/// Whose a key is and whether it is accepted. Of somebody who left that is the first to know.
pub fn summary(key: &Key) -> String {
    let owner = owner_name(key.owner.as_ref());
    let state = match key.state() {
        KeyState::Active => "is accepted",
        KeyState::Suspended => "is suspended: it is not accepted until it is resumed",
        KeyState::Revoked => "was revoked: it is never accepted again",
        KeyState::Expired => "has expired: it is never accepted again",
        KeyState::Unspecified => "is in an unknown state",
    };
    let left = match (&key.owner_left_time, key.state()) {
        (None, _) => "",
        (Some(_), KeyState::Active) => ", though its owner has left",
        (Some(_), _) => "; its owner has left",
    };
    format!("The key of {owner} {state}{left}.")
}

/// The name of an owner, if there is still one.
pub fn owner_name(owner: Option<&Owner>) -> &str {
    match owner.and_then(|o| o.owner.as_ref()) {
        Some(owner::Owner::User(name)) if name.is_empty() => "a person who was erased",
        Some(owner::Owner::User(name)) | Some(owner::Owner::Service(name)) => name,
        None => "nobody",
    }
}

/// The same, saying whether it is a person or a service: they may have the same name.
pub fn owner_in_full(owner: Option<&Owner>) -> String {
    let name = owner_name(owner);
    match owner.and_then(|o| o.owner.as_ref()) {
        Some(owner::Owner::User(user)) if !user.is_empty() => format!("{name} (a person)"),
        Some(owner::Owner::Service(_)) => format!("{name} (a service)"),
        _ => name.into(),
    }
}

/// Under which conditions a key is accepted.
pub fn conditions(key: &Key) -> Vec<String> {
    let none = Restrictions::default();
    let restrictions = key.restrictions.as_ref().unwrap_or(&none);
    let listed = |list: &[String], what: &str| {
        (!list.is_empty()).then(|| format!("{what} {}.", list.join(", ")))
    };
    let networks = listed(&restrictions.networks, "Only from the networks");
    let audiences = listed(&restrictions.audiences, "Only where it is presented to");
    let uses = (restrictions.max_uses > 0).then(|| {
        let left = key
            .uses_left
            .map_or(String::new(), |left| format!(", of which {} are left", grouped(left)));
        format!("At most {} in all{left}.", count(restrictions.max_uses, "allowed use"))
    });
    let rate = restrictions.rate.as_ref().map(|rate| {
        let window = span(&micros(rate.window_us));
        let window = window.strip_prefix("1 ").unwrap_or(&window);
        format!("At most {} in each {window}.", count(rate.uses.into(), "allowed use"))
    });
    let all: Vec<String> = [networks, audiences, uses, rate].into_iter().flatten().collect();
    match all.is_empty() {
        true => vec![
            "None: it is accepted from anywhere, for any audience, and as often as one likes."
                .into(),
        ],
        false => all,
    }
}

/// From when to when a key lives.
pub fn life(key: &Key) -> Vec<String> {
    let by = match key.creator_key_id.as_str() {
        "" => "Keyledger itself".to_string(),
        id => format!("the key {id}"),
    };
    let created = key.create_time.as_ref().map(|t| format!("It was made on {}, by {by}.", time(t)));
    let ends = match (&key.expire_time, key.state()) {
        (None, _) => "It never ends by itself.".to_string(),
        (Some(end), KeyState::Expired) => format!("It ended on {}.", time(end)),
        (Some(end), _) => format!("It ends on {}.", time(end)),
    };
    let suspended = key.suspend_time.as_ref();
    let suspended = suspended.map(|t| format!("It has been suspended since {}.", time(t)));
    let revoked = key.revocation.as_ref().and_then(|r| {
        let why = revoked_for(r.kind());
        r.time.as_ref().map(|t| format!("It was revoked on {}: {why}.", time(t)))
    });
    let used = match &key.last_use_time {
        Some(last) => format!("It was last used on {}.", time(last)),
        None => "It has never been used with success.".into(),
    };
    let known = |who: &str, since: &Option<Timestamp>| {
        since.as_ref().map(|t| format!("{who} has left, as is known since {}.", time(t)))
    };
    let left = [
        known("Its owner", &key.owner_left_time),
        known("The person responsible for it", &key.responsible_left_time),
    ];
    let ended = suspended.into_iter().chain(revoked).chain(left.into_iter().flatten());
    created.into_iter().chain([ends]).chain(ended).chain([used]).collect()
}

/// Why a key was revoked.
pub(super) fn revoked_for(kind: RevocationKind) -> &'static str {
    match kind {
        RevocationKind::Unspecified => "no kind of reason was said",
        RevocationKind::Compromised => "its secret is, or may be, known to others",
        RevocationKind::OwnerLeft => "its owner left",
        RevocationKind::Unused => "it was not used",
        RevocationKind::Policy => "a policy asked for it",
        RevocationKind::Admin => "an administrator decided so",
        RevocationKind::Superseded => "another key took its place",
    }
}

/// How old the secrets of a key may grow.
pub fn rotation(key: &Key) -> Vec<String> {
    let own = key.rotation.as_ref().map(|r| {
        let age = r.max_age.as_ref().map(span).unwrap_or_default();
        let then = match &r.suspend_after {
            Some(later) => format!("; {} later it is suspended", span(later)),
            None => String::new(),
        };
        format!("Its secret is to be replaced when it is {age} old{then}.")
    });
    let due = key.rotation_due_time.as_ref();
    let due =
        due.map(|due| format!("By its own policy or that of a role, it is due on {}.", time(due)));
    let all: Vec<String> = [own, due].into_iter().flatten().collect();
    match all.is_empty() {
        true => vec!["Nobody has said how old its secret may grow.".into()],
        false => all,
    }
}

/// A resource on which a permission is asked for: `logs/{category=**}` is `logs/<category>` to people.
pub fn template(resource: &str) -> String {
    let segment = |rest: &str| match rest.split_once('}') {
        Some((name, rest)) => format!("<{}>{rest}", name.split('=').next().unwrap_or(name)),
        None => format!("{{{rest}"),
    };
    let mut parts = resource.split('{');
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |text, rest| text + &segment(rest))
}

/// `2026-11-22 08:00:24 UTC`
pub fn time(time: &Timestamp) -> String {
    let text = time.to_string();
    match text.get(..19).and_then(|second| second.split_once('T')) {
        Some((date, second)) => format!("{date} {second} UTC"),
        None => text,
    }
}

/// `2026-11-22`
pub fn date(time: &Timestamp) -> String {
    let text = time.to_string();
    text.split_once('T').map_or(text.clone(), |(date, _)| date.into())
}

/// `1 use`, `1,000 uses`
pub fn count(n: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// `1,234,567`
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(crate) fn micros(micros: i64) -> Duration {
    crate::show::duration(micros)
}

/// `90 days`, `1 hour`: in the largest unit of which it is a whole number.
pub(crate) fn span(duration: &Duration) -> String {
    let seconds = duration.seconds.unsigned_abs();
    if duration.nanos != 0 {
        return format!(
            "{} milliseconds",
            seconds * 1_000 + u64::from(duration.nanos.unsigned_abs()) / 1_000_000
        );
    }
    match seconds {
        s if s > 0 && s.is_multiple_of(86_400) => count(s / 86_400, "day"),
        s if s > 0 && s.is_multiple_of(3_600) => count(s / 3_600, "hour"),
        s if s > 0 && s.is_multiple_of(60) => count(s / 60, "minute"),
        s => count(s, "second"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue() -> Catalogue {
        Catalogue::new(&crate::permissions::all())
    }

    fn of(permission: &str, resource: &str, give_only: bool, role: &str) -> Ability {
        let permissions = vec![permission.into()];
        let grants = [Grant { permissions, resource: resource.into(), give_only }];
        catalogue().abilities(&grants, role).next().unwrap()
    }

    #[test]
    fn each_permission_is_said_in_one_sentence() {
        for (permission, resource, give_only, role, expected) in [
            ("keys.revoke", "keys/**", false, "", "End a key for good, on everything below keys."),
            ("*", "**", false, "admin", "Do everything, on everything, by the role admin."),
            (
                "audit.*",
                "logs/*",
                false,
                "",
                "Do everything whose name begins with audit., on anything right below logs.",
            ),
            (
                "audit.write",
                "logs/error",
                true,
                "",
                "Hand on to other keys, and not do itself: Record events of a category, on logs/error.",
            ),
            (
                "billing.read",
                "a/*/b/*",
                false,
                "",
                "Do billing.read, of which nobody has said what it is, on a/*/b/*, with any name for each *.",
            ),
            (
                "keys.read",
                "*/x/**",
                false,
                "",
                "See keys, what they may do, and who has access to what, on everything below */x, with any name for *.",
            ),
        ] {
            assert_eq!(of(permission, resource, give_only, role).sentence, expected);
        }
    }

    #[test]
    fn a_pattern_names_the_permissions_that_it_stands_for() {
        let named = of("roles.*", "roles", false, "").permissions;
        assert_eq!(named, ["roles.create", "roles.read", "roles.retire", "roles.update"]);
        assert_eq!(of("*", "**", false, "").permissions, Vec::<String>::new());
        assert_eq!(of("roles.read", "roles", false, "").permissions, Vec::<String>::new());
    }

    #[test]
    fn what_an_ability_covers_is_what_a_grant_allows() {
        assert!(covers(&of("audit.*", "logs/**", false, ""), "audit.read", "logs/a/b"));
        assert!(!covers(&of("audit.*", "logs/**", true, ""), "audit.read", "logs/a/b"));
        assert!(!covers(&of("audit.*", "logs/*", false, ""), "audit.read", "logs/a/b"));
    }

    #[test]
    fn what_stands_for_a_name_is_said_to() {
        for (resource, expected) in [
            ("logs/{category=**}", "logs/<category>"),
            ("keys/{key_id}", "keys/<key_id>"),
            ("a/{b}/{c=*}/d", "a/<b>/<c>/d"),
            ("keys", "keys"),
            ("odd/{b", "odd/{b"),
        ] {
            assert_eq!(template(resource), expected);
        }
    }

    #[test]
    fn numbers_and_spans_are_said_as_people_say_them() {
        assert_eq!(count(1, "use"), "1 use");
        assert_eq!(count(1_234_567, "use"), "1,234,567 uses");
        assert_eq!(span(&micros(90 * 86_400 * 1_000_000)), "90 days");
        assert_eq!(span(&micros(60 * 1_000_000)), "1 minute");
        assert_eq!(span(&micros(1_500_000)), "1500 milliseconds");
    }

    #[test]
    fn that_somebody_left_is_said_first_and_with_its_time() {
        let since = Timestamp { seconds: 1_795_000_000, nanos: 0 };
        let left = Some(since);
        let owner = Some(Owner { owner: Some(owner::Owner::User("bob".into())) });
        let key = Key { state: KeyState::Active as i32, owner, ..Key::default() };
        assert_eq!(summary(&key), "The key of bob is accepted.");
        assert!(!life(&key).iter().any(|line| line.contains("left")));
        let key = Key { owner_left_time: left, responsible_left_time: left, ..key };
        assert_eq!(summary(&key), "The key of bob is accepted, though its owner has left.");
        let life = life(&key);
        assert!(life.contains(&format!("Its owner has left, as is known since {}.", time(&since))));
        assert!(life.iter().any(|line| line.starts_with("The person responsible for it has left")));
    }

    #[test]
    fn who_is_not_restricted_is_said_to_be_so() {
        assert!(conditions(&Key::default())[0].starts_with("None: "));
        let restrictions = Restrictions {
            networks: vec!["10.0.0.0/8".into(), "192.0.2.0/24".into()],
            audiences: vec!["billing".into()],
            max_uses: 1_000,
            rate: Some(crate::entry::Rate { uses: 1, window_us: 60_000_000 }),
        };
        let key = Key { restrictions: Some(restrictions), uses_left: Some(7), ..Key::default() };
        assert_eq!(
            conditions(&key),
            [
                "Only from the networks 10.0.0.0/8, 192.0.2.0/24.",
                "Only where it is presented to billing.",
                "At most 1,000 allowed uses in all, of which 7 are left.",
                "At most 1 allowed use in each minute.",
            ]
        );
    }
}
