//! `keyledger keys describe`: a key in plain words, put together from what the caller may read.

use std::collections::BTreeMap;

use keyledger_proto::entry::Grant;
use keyledger_proto::{
    AuditEvent, GetKeyRequest, GetRoleRequest, Key, KeyState, ListEventsRequest,
    ListPermissionsRequest,
};
use tonic::Code;
use uuid::Uuid;

use super::show;
use crate::audit::event;
use crate::change::show_rotation;
use crate::connection::Session;
use crate::screen::{Screen, Tone, inert};
use crate::values::{show_rate, show_time};

/// How many events the last part shows.
const EVENTS: i32 = 10;

/// Describe one key in plain words: whose it is and what for, what it may do and where from, how long, and what happened lately.
///
/// What the token may not read (roles, the log) is left out, and said to be.
#[derive(clap::Args)]
#[command(after_help = "Example: keyledger keys describe 0198c5a0-0000-8000-8000-000000000001")]
pub(super) struct Describe {
    /// Which key: a UUID.
    key_id: Uuid,
}

/// A part of the description: its lines, or that the token may not read it.
type Part<T> = Result<T, &'static str>;

const NOT_FOR_YOU: &str = "(not for this token to see)";

impl Describe {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let key_id = self.key_id.to_string();
        let request = GetKeyRequest { key_id: key_id.clone(), as_of: None };
        let reply = session.keys().get_key(session.call(request)).await;
        let key = reply.map_err(|s| session.failure(&s))?.into_inner().key.unwrap_or_default();
        let sentences = sentences(session).await?;
        let mut sources = vec![(String::new(), key.grants.clone())];
        for role in &key.roles {
            match grants_of_role(session, role).await? {
                Ok(grants) => sources.push((role.clone(), grants)),
                Err(why) => sources.push((format!("{role} {why}"), vec![])),
            }
        }
        let events = events(session, key_id).await?;

        screen.line(&screen.paint(&inert(&headline(&key)), Tone::Strong))?;
        for (title, lines) in [
            ("What for", vec![key.purpose.clone()]),
            ("What it may do", abilities(&sources, &sentences, false)),
            ("What it may hand on, and not do itself", abilities(&sources, &sentences, true)),
            ("Under which conditions", conditions(&key)),
            ("How long", life(&key)),
            ("Its secrets", key.versions.iter().map(show::version).collect()),
        ] {
            section(screen, title, &lines)?;
        }
        screen.line("\nWhat happened lately")?;
        match events {
            Ok(events) => event::print_list(screen, &events)?,
            Err(why) => screen.line(&format!("  {why}"))?,
        }
        Ok(())
    }
}

fn section(screen: &Screen, title: &str, lines: &[String]) -> std::io::Result<()> {
    let lines: Vec<&String> = lines.iter().filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return Ok(());
    }
    screen.line(&format!("\n{title}"))?;
    lines.iter().try_for_each(|line| screen.line(&format!("  {}", inert(line))))
}

fn headline(key: &Key) -> String {
    let owner = show::owner(key.owner.as_ref());
    let state = match key.state() {
        KeyState::Active => "is accepted",
        KeyState::Suspended => "is suspended: it is not accepted until it is resumed",
        KeyState::Revoked => "was revoked: it is never accepted again",
        KeyState::Expired => "has expired: it is never accepted again",
        KeyState::Unspecified => "is in a state that this program doesn't know",
    };
    format!("Key {} of {owner} {state}.", key.key_id)
}

/// A line for each grant: the sentences of its permissions, on what, and by which role.
fn abilities(
    sources: &[(String, Vec<Grant>)],
    sentences: &BTreeMap<String, String>,
    to_give: bool,
) -> Vec<String> {
    let mut lines = vec![];
    for (role, grants) in sources {
        let by = if role.is_empty() { String::new() } else { format!(" (by the role {role})") };
        if role.ends_with(NOT_FOR_YOU) && !to_give {
            lines.push(format!("What the role {role} gives."));
        }
        for grant in grants.iter().filter(|g| g.give_only == to_give) {
            let on = match grant.resource.as_str() {
                "**" => "everything".to_string(),
                resource => resource.to_string(),
            };
            for permission in &grant.permissions {
                lines.push(format!("On {on}: {}{by}", sentence(permission, sentences)));
            }
        }
    }
    if lines.is_empty() && !to_give {
        lines.push("Nothing: it has no grants, and no role that gives any.".into());
    }
    lines
}

/// What a permission or pattern allows.
fn sentence(permission: &str, sentences: &BTreeMap<String, String>) -> String {
    match (permission, permission.strip_suffix(".*"), sentences.get(permission)) {
        ("*", ..) => "Do everything. [*]".into(),
        (_, Some(below), _) => format!("Do everything that {below} names. [{permission}]"),
        (_, None, Some(sentence)) => format!("{sentence} [{permission}]"),
        (_, None, None) => format!("[{permission}]"),
    }
}

fn conditions(key: &Key) -> Vec<String> {
    let Some(restrictions) = &key.restrictions else {
        return vec!["None: from anywhere, for anybody, as often as one likes.".into()];
    };
    let listed = |what: &str, list: &[String]| {
        (!list.is_empty()).then(|| format!("{what} {}.", list.join(", ")))
    };
    let left = key.uses_left.map(|left| {
        format!("At most {} uses from when that was said; {left} are left.", restrictions.max_uses)
    });
    let rate = restrictions.rate.as_ref().map(|r| format!("At most {} uses.", show_rate(r)));
    let from = listed("Only from", &restrictions.networks);
    let audience = listed("Only presented to", &restrictions.audiences);
    [from, audience, left, rate].into_iter().flatten().collect()
}

fn life(key: &Key) -> Vec<String> {
    let time = |label: &str, time: &Option<prost_types::Timestamp>| {
        time.as_ref().map(|t| format!("{label} {}.", show_time(t)))
    };
    let creator = match key.creator_key_id.as_str() {
        "" => "Keyledger itself".to_string(),
        id => format!("key {id}"),
    };
    let ends = match key.expire_time {
        None => Some("It never ends by itself.".to_string()),
        some => time("It ends at", &some),
    };
    let rotation = key.rotation.as_ref().map(|r| format!("To be rotated {}.", show_rotation(r)));
    let responsible = (!key.responsible.is_empty())
        .then(|| format!("Responsible for it is {}.", key.responsible));
    [
        time("Created at", &key.create_time).map(|t| format!("{t} By {creator}.")),
        ends,
        time("Suspended since", &key.suspend_time),
        time("Revoked at", &key.revocation.and_then(|r| r.time)),
        rotation,
        time("Rotation is due at", &key.rotation_due_time),
        time("Last used at", &key.last_use_time),
        responsible,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What each permission allows, as far as the token may read it.
async fn sentences(session: &Session) -> anyhow::Result<BTreeMap<String, String>> {
    let mut sentences = BTreeMap::new();
    let mut page_token = String::new();
    loop {
        let request = ListPermissionsRequest { page_size: 1_000, page_token };
        let reply = session.keys().list_permissions(session.call(request)).await;
        let reply = match reply {
            Ok(reply) => reply.into_inner(),
            Err(status) if status.code() == Code::PermissionDenied => return Ok(sentences),
            Err(status) => return Err(session.failure(&status).into()),
        };
        sentences.extend(reply.permissions.into_iter().map(|p| (p.name, p.description)));
        page_token = reply.next_page_token;
        if page_token.is_empty() {
            return Ok(sentences);
        }
    }
}

/// What a role gives, by the name that a key holds it by.
async fn grants_of_role(session: &Session, held: &str) -> anyhow::Result<Part<Vec<Grant>>> {
    let (name, parameter) = match held.strip_suffix(')').and_then(|h| h.split_once('(')) {
        Some((name, parameter)) => (name, Some(parameter)),
        None => (held, None),
    };
    let request = GetRoleRequest { name: name.into(), ..Default::default() };
    let role = match session.keys().get_role(session.call(request)).await {
        Ok(reply) => reply.into_inner().role.unwrap_or_default(),
        Err(status) if status.code() == Code::PermissionDenied => return Ok(Err(NOT_FOR_YOU)),
        Err(status) => return Err(session.failure(&status).into()),
    };
    if role.retire_time.is_some() {
        return Ok(Ok(vec![]));
    }
    // A predefined role shows the name of its parameter where the value stands.
    let with_value = |mut grant: Grant| {
        if let Some(value) = parameter {
            grant.resource = grant.resource.replace(&role.parameter, value);
        }
        grant
    };
    Ok(Ok(role.grants.into_iter().map(with_value).collect()))
}

async fn events(session: &Session, key_id: String) -> anyhow::Result<Part<Vec<AuditEvent>>> {
    let request = ListEventsRequest { key_id, page_size: EVENTS, ..Default::default() };
    match session.audit().list_events(session.call(request)).await {
        Ok(reply) => Ok(Ok(reply.into_inner().events)),
        Err(status) if status.code() == Code::PermissionDenied => Ok(Err(NOT_FOR_YOU)),
        Err(status) => Err(session.failure(&status).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_grant_is_said_in_words_with_its_role() {
        let grant = |permission: &str, resource: &str, give_only| Grant {
            permissions: vec![permission.into()],
            resource: resource.into(),
            give_only,
        };
        let sources = [
            (String::new(), vec![grant("audit.read", "logs/error", false), grant("*", "**", true)]),
            ("ops".to_string(), vec![grant("keys.*", "keys/**", false)]),
        ];
        let known = [("audit.read".to_string(), "Read the log.".to_string())].into();
        assert_eq!(
            abilities(&sources, &known, false),
            [
                "On logs/error: Read the log. [audit.read]",
                "On keys/**: Do everything that keys names. [keys.*] (by the role ops)",
            ]
        );
        assert_eq!(abilities(&sources, &known, true), ["On everything: Do everything. [*]"]);
        assert_eq!(
            abilities(&[], &known, false),
            ["Nothing: it has no grants, and no role that gives any."]
        );
    }
}
