//! Findings for people: what was found in a plain sentence, and what to do as a command that can be typed.

use keyledger_ledger::body::RevocationKind;
use keyledger_ledger::findings::{Found, Kind};
use keyledger_ledger::grant::Grant;
use keyledger_ledger::state::Key;

use crate::{Finding, FindingNumber, Owner, owner};

/// What a finding is about, as far as people read it.
pub enum About<'a> {
    Key { key: &'a Key, owner: Owner },
    Role(&'a str),
    Owner(Owner),
}

/// A finding as it is shown.
pub fn finding(about: About<'_>, found: &Found) -> Finding {
    let (sentence, command) = (sentence(&about, found), command(&about, found));
    let number =
        |(name, value): &(&str, i64)| FindingNumber { name: name.to_string(), value: *value };
    let (key_id, role, owner) = match about {
        About::Key { key, owner } => (key.id.to_string(), String::new(), Some(owner)),
        About::Role(name) => (String::new(), name.to_string(), None),
        About::Owner(owner) => (String::new(), String::new(), Some(owner)),
    };
    Finding {
        kind: found.kind as i32,
        key_id,
        role,
        owner,
        numbers: found.numbers.iter().map(number).collect(),
        sentence,
        command,
        unused_grants: found.unused.iter().map(Grant::to_body).collect(),
    }
}

fn sentence(about: &About<'_>, found: &Found) -> String {
    let days = |name| days(found.number(name));
    match found.kind {
        Kind::KeyExpiring => match found.number("days_left") {
            0 => "The key ends in less than a day.".into(),
            _ => format!("The key ends in {}.", days("days_left")),
        },
        Kind::KeyRotationDue => format!(
            "The newest secret of the key is {} old; it was due to be rotated {} ago.",
            days("days_old"),
            days("days_overdue")
        ),
        Kind::KeyUnused => format!("The key was not used for {}.", days("days_unused")),
        Kind::KeyNeverUsed => {
            format!("The key is {} old and was never used.", days("days_old"))
        }
        Kind::KeyBroaderThanUsed => format!(
            "Of {} rights of the key, {} were not used: {}.",
            found.number("rights"),
            found.number("rights_unused"),
            found.unused.iter().map(Grant::to_string).collect::<Vec<_>>().join("; ")
        ),
        Kind::KeyWithoutResponsible => {
            "Nobody is named as responsible for the key of a service.".into()
        }
        Kind::KeyOwnerLeft => format!(
            "The owner of the key left, as is known {}, and the key is still accepted.",
            since(found)
        ),
        Kind::KeyResponsibleLeft => {
            format!("The person responsible for the key left, as is known {}.", since(found))
        }
        Kind::RoleWithoutHolders => "No key that lives holds the role.".into(),
        Kind::RoleEqual => {
            let other = &found.other;
            let also = match found.has("other_holders") {
                true => format!(", and {other} by {}", keys(found.number("other_holders"))),
                false => format!("; every ledger has {other}"),
            };
            let holders = keys(found.number("holders"));
            format!("The role gives exactly what {other} gives. It is held by {holders}{also}.")
        }
        Kind::OwnerManyKeys => {
            let who = match about {
                About::Owner(Owner { owner: Some(owner::Owner::Service(name)) }) => name,
                _ => "One person",
            };
            format!("{who} has {} keys that are accepted.", found.number("keys"))
        }
    }
}

fn days(days: i64) -> String {
    if days == 1 { "1 day".into() } else { format!("{days} days") }
}

fn keys(count: i64) -> String {
    if count == 1 { "1 key".into() } else { format!("{count} keys") }
}

fn since(found: &Found) -> String {
    match found.number("days_since") {
        0 => "since today".into(),
        n => format!("for {}", days(n)),
    }
}

/// As one would type it; what only people know stands in capitals. Values of options stand behind `=`, so that one that begins
/// with `-` is no option.
fn command(about: &About<'_>, found: &Found) -> String {
    const REASON: &str = "--reason REASON";
    match about {
        About::Key { key, owner } => {
            let id = key.id;
            match found.kind {
                Kind::KeyExpiring => {
                    let again = span(found.number("life_seconds"));
                    format!("keyledger keys update {id} --ttl {again} {REASON}")
                }
                Kind::KeyRotationDue => format!("keyledger keys rotate {id} --overlap 1d {REASON}"),
                Kind::KeyBroaderThanUsed => narrowed(key, &found.unused, REASON),
                Kind::KeyWithoutResponsible | Kind::KeyResponsibleLeft => {
                    format!("keyledger keys update {id} --responsible NAME {REASON}")
                }
                Kind::KeyOwnerLeft => {
                    let kind = short(RevocationKind::OwnerLeft);
                    match filter(owner) {
                        Some(filter) => {
                            format!("keyledger keys revoke-all {filter} --kind {kind} {REASON}")
                        }
                        None => format!("keyledger keys revoke {id} --kind {kind} {REASON}"),
                    }
                }
                _ => format!("keyledger keys suspend {id} {REASON}"),
            }
        }
        // Whose keys hold both is for people to look at: they can be given the other role.
        About::Role(name) => match unheld(name, found) {
            Some(unheld) => format!("keyledger roles retire {REASON} -- {unheld}"),
            None => format!("keyledger keys list --role={name} --all"),
        },
        About::Owner(owner) => match filter(owner) {
            Some(filter) => format!("keyledger keys list {filter} --all"),
            None => "keyledger keys list --all".into(),
        },
    }
}

/// The role that can be retired without anybody losing anything.
fn unheld<'a>(name: &'a str, found: &'a Found) -> Option<&'a str> {
    match found.kind {
        Kind::RoleWithoutHolders => Some(name),
        _ if found.number("holders") == 0 => Some(name),
        _ if found.has("other_holders") && found.number("other_holders") == 0 => Some(&found.other),
        _ => None,
    }
}

/// As the command line reads it, in the largest unit of which it is a whole number.
fn span(seconds: i64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let whole = units.into_iter().find(|(length, _)| seconds % length == 0);
    let (length, unit) = whole.unwrap_or((1, "s"));
    format!("{}{unit}", seconds / length)
}

/// The grants that are left, if all that isn't used is the key's own; what roles give is for people to look at.
fn narrowed(key: &Key, unused: &[Grant], reason: &str) -> String {
    let own = |grant: &&Grant| key.grants.iter().any(|g| g.covers(grant));
    if !unused.iter().all(|grant| own(&grant)) || key.grants.is_empty() {
        return format!("keyledger access describe {}", key.id);
    }
    let rest = |grant: &Grant| {
        let gone = |p: &str| {
            unused
                .iter()
                .any(|g| g.resource() == grant.resource() && g.permissions().any(|q| q == p))
        };
        if grant.is_give_only() { Some(grant.clone()) } else { grant.only(|p| !gone(p)) }
    };
    let left: Vec<Grant> = key.grants.iter().filter_map(rest).collect();
    let options: Vec<String> = left
        .iter()
        .map(|grant| match grant.is_give_only() {
            false => format!("--grant={}", quoted(&grant.to_string())),
            true => {
                let text = grant.to_string();
                let text = text.strip_suffix(" (to hand on only)").unwrap_or(&text);
                format!("--give-grant={}", quoted(text))
            }
        })
        .collect();
    match options.is_empty() {
        true => format!("keyledger keys update {} --clear grants {reason}", key.id),
        false => format!("keyledger keys update {} {} {reason}", key.id, options.join(" ")),
    }
}

/// Selects the keys of an owner. Of a person who was erased no name is left.
fn filter(owner: &Owner) -> Option<String> {
    match owner.owner.as_ref()? {
        owner::Owner::User(name) if name.is_empty() => None,
        owner::Owner::User(name) => Some(format!("--user={}", quoted(name))),
        owner::Owner::Service(name) => Some(format!("--service={}", quoted(name))),
    }
}

fn short(kind: RevocationKind) -> String {
    let names = crate::methods::short_names("keyledger.entry.v1.RevocationKind");
    let name = names.into_iter().find(|(_, number)| *number == kind as i32);
    name.map(|(name, _)| name).unwrap_or_default()
}

/// One word for a POSIX shell, whatever stands in it.
pub fn quoted(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"@._/-+:,=".contains(&b);
    match !text.is_empty() && text.bytes().all(plain) && !text.starts_with('-') {
        true => text.into(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_looks_like_an_option_is_the_value_of_one() {
        let user = |name: &str| Owner { owner: Some(owner::Owner::User(name.into())) };
        assert_eq!(filter(&user("-rf")).unwrap(), "--user='-rf'");
        assert_eq!(filter(&user("ann@example.com")).unwrap(), "--user=ann@example.com");
        assert_eq!(filter(&user("")), None);
    }

    #[test]
    fn a_key_is_to_live_as_long_again() {
        for (seconds, expected) in
            [(44 * 86_400, "44d"), (50 * 3_600, "50h"), (200_040, "3334m"), (200_041, "200041s")]
        {
            assert_eq!(span(seconds), expected);
        }
    }

    #[test]
    fn of_two_equal_roles_the_one_that_nobody_holds_is_retired() {
        let equal = |numbers: &[(&'static str, i64)]| Found {
            kind: Kind::RoleEqual,
            numbers: numbers.to_vec(),
            unused: vec![],
            other: "readers".into(),
        };
        for (numbers, expected) in [
            (
                &[("holders", 0), ("other_holders", 0)][..],
                "keyledger roles retire --reason REASON -- viewers",
            ),
            (
                &[("holders", 2), ("other_holders", 0)],
                "keyledger roles retire --reason REASON -- readers",
            ),
            (&[("holders", 2), ("other_holders", 1)], "keyledger keys list --role=viewers --all"),
            // Every ledger has the other one.
            (&[("holders", 2)], "keyledger keys list --role=viewers --all"),
        ] {
            assert_eq!(command(&About::Role("viewers"), &equal(numbers)), expected);
        }
        let both =
            sentence(&About::Role("viewers"), &equal(&[("holders", 1), ("other_holders", 2)]));
        assert_eq!(
            both,
            "The role gives exactly what readers gives. It is held by 1 key, and readers by 2 keys."
        );
    }

    #[test]
    fn a_name_is_one_word_of_a_shell_whatever_stands_in_it() {
        assert_eq!(quoted("ann@example.com"), "ann@example.com");
        assert_eq!(quoted("Ann O'Neil; rm -rf $HOME"), r"'Ann O'\''Neil; rm -rf $HOME'");
        assert_eq!(quoted("-o"), "'-o'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("`id`\u{202e}"), "'`id`\u{202e}'");
    }
}
