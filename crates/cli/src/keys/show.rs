//! Keys as people see them.

use keyledger_proto::{Key, KeyState, KeyVersion, Owner, owner};

use crate::change::show_rotation;
use crate::json::enum_value_name;
use crate::screen::{Screen, Tone};
use crate::table::{Facts, List};
use crate::values::{show_grant, show_rate, show_second, show_time, words};

/// All of one key.
pub(super) fn facts<'a>(screen: &'a Screen, key: &Key) -> Facts<'a> {
    let mut facts = Facts::new(screen);
    facts.add_in("key", &key.key_id, Tone::Strong);
    facts.add_in("state", &state(key), tone(key));
    facts.add("owner", &owner(key.owner.as_ref()));
    facts.add_in("owner left", &known_since(&key.owner_left_time), Tone::Bad);
    facts.add("purpose", &key.purpose);
    facts.add_lines("grants", grants(key));
    facts.add("roles", &key.roles.join(", "));
    let restrictions = key.restrictions.clone().unwrap_or_default();
    facts.add("only from", &restrictions.networks.join(", "));
    facts.add("only for", &restrictions.audiences.join(", "));
    facts.add("uses left", &key.uses_left.map(|n| n.to_string()).unwrap_or_default());
    facts.add("rate", &restrictions.rate.as_ref().map(show_rate).unwrap_or_default());
    facts.add_lines("labels", key.labels.iter().map(|l| format!("{}={}", l.name, l.value)));
    facts.add("responsible", &key.responsible);
    facts.add_in("responsible left", &known_since(&key.responsible_left_time), Tone::Bad);
    facts.add("created", &key.create_time.as_ref().map(show_time).unwrap_or_default());
    facts.add("created by", &key.creator_key_id);
    facts.add("expires", &key.expire_time.as_ref().map_or("never".into(), show_time));
    facts.add_lines("secrets", key.versions.iter().map(version));
    facts.add("rotation", &rotation(key));
    facts.add("last used", &key.last_use_time.as_ref().map(show_time).unwrap_or_default());
    facts.add("suspended", &key.suspend_time.as_ref().map(show_time).unwrap_or_default());
    facts.add("revoked", &revocation(key));
    facts.add("position", &position(key));
    facts
}

/// A line for each key.
pub(super) fn list(screen: &Screen, keys: &[Key]) -> std::io::Result<()> {
    let headers = ["KEY", "STATE", "EXPIRES", "OWNER", "PURPOSE"];
    let mut list = List::new(screen, &headers, &[0, 1, 2]);
    for key in keys {
        list.row(&[
            (&key.key_id, Tone::Plain),
            (&state(key), tone(key)),
            (&key.expire_time.as_ref().map_or("never".into(), show_second), Tone::Plain),
            (&owner(key.owner.as_ref()), Tone::Plain),
            (&key.purpose, Tone::Plain),
        ]);
    }
    list.print()
}

/// A person by name, a service with the word before it.
pub(crate) fn owner(owner: Option<&Owner>) -> String {
    match owner.and_then(|o| o.owner.as_ref()) {
        Some(owner::Owner::User(name)) if name.is_empty() => "(erased)".into(),
        Some(owner::Owner::User(name)) => name.clone(),
        Some(owner::Owner::Service(name)) => format!("service {name}"),
        None => String::new(),
    }
}

pub(crate) fn state(key: &Key) -> String {
    words(&enum_value_name("keyledger.v1.KeyState", key.state))
}

fn tone(key: &Key) -> Tone {
    if key.state == KeyState::Active as i32 { Tone::Good } else { Tone::Bad }
}

fn grants(key: &Key) -> Vec<String> {
    match key.grants.is_empty() && key.roles.is_empty() {
        true => vec!["(none: it may do nothing)".into()],
        false => key.grants.iter().map(show_grant).collect(),
    }
}

fn position(key: &Key) -> String {
    let position = key.position.map(|p| p.to_string()).unwrap_or_default();
    format!("{position} (entry {} about this key)", key.stream_version)
}

pub(super) fn version(version: &KeyVersion) -> String {
    let made = version.create_time.as_ref().map(show_time).unwrap_or_default();
    let end = version.expire_time.as_ref().map(|t| format!(", accepted until {}", show_time(t)));
    let until = if version.until_first_use { " or the first use of the next" } else { "" };
    let used = version.last_use_time.as_ref().map(|t| format!(", last used {}", show_time(t)));
    let (end, used) = (end.unwrap_or_default(), used.unwrap_or_default());
    format!("{} of {made}{end}{until}{used}", version.number)
}

fn rotation(key: &Key) -> String {
    let own = key.rotation.as_ref().map(show_rotation);
    let due = key.rotation_due_time.as_ref().map(|t| format!("due {}", show_time(t)));
    own.into_iter().chain(due).collect::<Vec<_>>().join("; ")
}

/// When somebody left was told us, not when they did.
fn known_since(left: &Option<prost_types::Timestamp>) -> String {
    left.as_ref().map(|time| format!("known since {}", show_time(time))).unwrap_or_default()
}

fn revocation(key: &Key) -> String {
    let Some(revocation) = &key.revocation else { return String::new() };
    let kind = words(&enum_value_name("keyledger.entry.v1.RevocationKind", revocation.kind));
    let time = revocation.time.as_ref().map(show_time).unwrap_or_default();
    format!("{time} ({kind})")
}
