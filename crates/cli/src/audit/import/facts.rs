//! What a record of another system says, and the event that it becomes: within the bounds of the ledger, and without names of
//! persons where an event stands in the clear.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use keyledger_ledger::text::{MAX_TEXT, is_unsafe_in_a_line};
use keyledger_proto::entry::{Outcome, Severity};
use keyledger_proto::event_attribute::Value;
use keyledger_proto::parse::events::{
    MAX_ACTION, MAX_ATTRIBUTE, MAX_CHAIN, MAX_DEVICE, MAX_RESOURCE,
};
use keyledger_proto::parse::{MAX_USER, MAX_USER_AGENT};
use keyledger_proto::{Actor, EventAttribute, EventClient, NewEvent, actor};

/// Longest target or detail that is kept beside the original.
const MAX_DETAIL: usize = 512;
/// Longest part of the original that is kept.
const MAX_ORIGINAL: usize = MAX_ATTRIBUTE;
/// What stands for the part of a path that may name a person.
const HIDDEN: &str = "…";

/// Why a record can't be an event.
pub(super) type Unmapped = String;

/// Who acted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Kept sealed: whoever is not known to be a service.
    Person(String),
    /// Kept in the clear.
    Service(String),
}

impl Who {
    /// A person unless the name is missing: then what `otherwise` names.
    pub(super) fn person_or(name: Option<String>, otherwise: &str) -> Who {
        name.map_or_else(|| Who::Service(otherwise.into()), Who::Person)
    }
}

/// What a record says. Texts are as the record holds them.
#[derive(Default)]
pub(super) struct Facts {
    /// The record's own id, if it has one.
    pub id: Option<String>,
    pub who: Option<Who>,
    /// On whose behalf, nearest first.
    pub on_behalf_of: Vec<Who>,
    pub action: String,
    pub resource: String,
    /// The person that it was done to, if so.
    pub target: Option<String>,
    pub outcome: Outcome,
    pub reason: Option<String>,
    pub severity: Severity,
    pub time: Option<Timestamp>,
    pub address: Option<String>,
    pub user_agent: Option<String>,
    pub device: Option<String>,
    pub trace: Option<String>,
    pub span: Option<String>,
    /// What else is worth to be found: in the clear, so never about persons.
    pub details: Vec<(&'static str, Option<String>)>,
}

impl Facts {
    /// The event, without its category and id.
    pub(super) fn into_event(self, original: &str) -> Result<NewEvent, Unmapped> {
        if self.action.trim().is_empty() {
            return Err("it doesn't say what was done".into());
        }
        let actor = to_actor(self.who.ok_or("it doesn't say who acted")?);
        let (action, resource) = (hide_persons(&self.action), hide_persons(&self.resource));
        let mut attributes = vec![];
        let target = self.target.or((resource != self.resource).then_some(self.resource));
        attributes.extend(target.map(|text| personal("target", cut(&line(&text), MAX_DETAIL))));
        let address = self.address.as_deref().and_then(ip_address);
        if address.is_none() {
            let name = self.address.filter(|a| !a.is_empty());
            attributes.extend(name.map(|a| personal("client", cut(&line(&a), MAX_DETAIL))));
        }
        for (name, value) in self.details {
            attributes.extend(value.map(|text| clear(name, cut(&line(&text), MAX_DETAIL))));
        }
        attributes.extend(keep_original(original));
        let trace_id = self.trace.filter(|id| is_hex(id, 32)).unwrap_or_default();
        let span_id = self.span.filter(|id| is_hex(id, 16) && !trace_id.is_empty());
        let optional = |text: Option<String>, max| cut(&line(&text.unwrap_or_default()), max);
        Ok(NewEvent {
            actor: Some(actor),
            on_behalf_of: self.on_behalf_of.into_iter().take(MAX_CHAIN).map(to_actor).collect(),
            action: cut(&line(&action), MAX_ACTION),
            resource: cut(&line(&resource), MAX_RESOURCE),
            outcome: self.outcome as i32,
            reason: optional(self.reason, MAX_TEXT),
            category: String::new(),
            severity: self.severity as i32,
            occur_time: self.time.map(to_wire),
            client: Some(EventClient {
                address: address.map(|ip| ip.to_string()).unwrap_or_default(),
                user_agent: optional(self.user_agent, MAX_USER_AGENT),
                device: optional(self.device, MAX_DEVICE),
            }),
            trace_id,
            span_id: span_id.unwrap_or_default(),
            attributes,
            event_id: String::new(),
            signature: None,
        })
    }
}

/// A name with a `@` is a mail address, and so a person's, unless it is one that only machines have.
fn to_actor(who: Who) -> Actor {
    let actor = match who {
        Who::Service(name) if !names_a_person(&name) => {
            actor::Actor::Service(cut(&line(&name), MAX_USER))
        }
        Who::Service(name) | Who::Person(name) => actor::Actor::User(cut(&line(&name), MAX_USER)),
    };
    Actor { actor: Some(actor) }
}

fn names_a_person(text: &str) -> bool {
    (text.contains('@') || text.contains("%40")) && !text.ends_with(".gserviceaccount.com")
}

/// A path whose parts that may name a person are replaced: mail addresses, and what comes after `users`, `home` and the like.
fn hide_persons(path: &str) -> String {
    let mut hide_next = 0;
    let parts = path.split('/').map(|part| {
        let hidden = hide_next == 1 && !part.is_empty() || names_a_person(part);
        hide_next = match part.rsplit(':').next().unwrap_or_default().to_lowercase().as_str() {
            "user" | "users" | "login" | "home" | "people" | "members" | "federated-user" => 1,
            // A role, then the session that a person names.
            "assumed-role" => 2,
            _ if hide_next > 1 => hide_next - 1,
            _ => 0,
        };
        if hidden { HIDDEN } else { part }
    });
    parts.collect::<Vec<_>>().join("/")
}

/// One line: what changes how a line looks without being seen is replaced, never refused.
fn line(text: &str) -> String {
    let safe = |c| if is_unsafe_in_a_line(c) { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(safe).collect()
}

/// The longest beginning that fits, up to a character boundary.
fn cut(text: &str, max: usize) -> String {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_string()
}

fn keep_original(original: &str) -> Vec<EventAttribute> {
    let whole = original.replace('\0', "\u{fffd}");
    let kept = cut(&whole, MAX_ORIGINAL);
    let truncated = (kept.len() < whole.len()).then(|| EventAttribute {
        name: "original_truncated".into(),
        value: Some(Value::Flag(true)),
        personal: false,
    });
    [Some(personal("original", kept)), truncated].into_iter().flatten().collect()
}

fn personal(name: &str, text: String) -> EventAttribute {
    EventAttribute { name: name.into(), value: Some(Value::Text(text)), personal: true }
}

fn clear(name: &str, text: String) -> EventAttribute {
    EventAttribute { personal: false, ..personal(name, text) }
}

/// An address with or without a port.
fn ip_address(text: &str) -> Option<IpAddr> {
    let socket = || text.parse::<SocketAddr>().ok().map(|socket| socket.ip());
    text.parse().ok().or_else(socket)
}

fn is_hex(text: &str, digits: usize) -> bool {
    let hex = text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    hex && text.bytes().any(|b| b != b'0')
}

fn to_wire(time: Timestamp) -> prost_types::Timestamp {
    let nanos = time.subsec_nanosecond();
    prost_types::Timestamp { seconds: time.as_second(), nanos }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            who: Some(Who::Service("cron".into())),
            action: "job.start".into(),
            ..Facts::default()
        }
    }

    #[test]
    fn a_path_in_the_clear_names_no_person() {
        for (path, shown) in [
            ("arn:aws:iam::1:user/alice", "arn:aws:iam::1:user/…"),
            ("arn:aws:sts::1:assumed-role/admin/alice", "arn:aws:sts::1:assumed-role/admin/…"),
            ("auth/userpass/login/alice", "auth/userpass/login/…"),
            ("/home/alice/notes", "/home/…/notes"),
            ("projects/p/serviceAccounts/alice@example.com", "projects/p/serviceAccounts/…"),
            ("buckets/invoices/2026.pdf", "buckets/invoices/2026.pdf"),
        ] {
            assert_eq!(hide_persons(path), shown);
            let event = Facts { resource: path.into(), ..facts() }.into_event("{}").unwrap();
            let target = event.attributes.iter().find(|a| a.name == "target");
            assert_eq!(target.is_some(), path != shown, "{path}");
            assert!(target.is_none_or(|t| t.personal && t.value == Some(Value::Text(path.into()))));
        }
        let mail = Facts { who: Some(Who::Service("alice@example.com".into())), ..facts() };
        let actor = mail.into_event("{}").unwrap().actor.unwrap().actor.unwrap();
        assert_eq!(actor, actor::Actor::User("alice@example.com".into()));
    }

    #[test]
    fn what_is_too_long_is_cut_and_what_is_not_seen_is_replaced() {
        let long = Facts {
            resource: "é".repeat(400),
            reason: Some("a\nb\u{202e}c\u{0}".into()),
            address: Some("[2001:db8::1]:22".into()),
            ..facts()
        };
        let event = long.into_event(&"€".repeat(6_000)).unwrap();
        assert_eq!(event.resource.len(), 512);
        assert_eq!(event.reason, "a\u{fffd}b\u{fffd}c\u{fffd}");
        assert_eq!(event.client.unwrap().address, "2001:db8::1");
        let [original, truncated] = &event.attributes[..] else { panic!("{:?}", event.attributes) };
        let Some(Value::Text(text)) = &original.value else { panic!("it is text") };
        assert_eq!((text.len(), original.personal), (16_383, true));
        assert_eq!(truncated.value, Some(Value::Flag(true)));
    }

    #[test]
    fn a_record_that_names_no_actor_or_action_is_no_event() {
        assert!(Facts { who: None, ..facts() }.into_event("{}").is_err());
        assert!(Facts { action: " ".into(), ..facts() }.into_event("{}").is_err());
        assert!(facts().into_event("{}").is_ok());
    }
}
