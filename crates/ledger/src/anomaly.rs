//! Anomalies: unusual use that was noticed, and is still going on. What they were is for ever in their entries; the state holds
//! only what is needed so that each is raised once, whatever the number of replicas that look.

use std::sync::Arc;

use imbl::OrdMap;

use crate::body::{self, AnomalyResponse, AnomalyVerdict, MonitoringRule, OwnerKind, SubjectKind};
use crate::id::{KeyId, Time};
use crate::idle::is_last_resort;
use crate::monitor::Raise;
use crate::refusals::Network;
use crate::state::{Key, KeyStatus, Owner, State, Suspension};

/// Most anomalies of a ledger that go on at once. Beyond this none is raised; those that are there go on being counted.
pub const MAX_OPEN: usize = 1_000;

/// Whose use is unusual.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    Key(KeyId),
    Owner(Owner),
    /// Whoever calls from a network, known by a keyed digest: the network itself lies sealed in the texts.
    Peer([u8; 16]),
}

/// An anomaly that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenAnomaly {
    /// Position of the entry that raised it: by this it is known.
    pub position: u64,
    pub raised: Time,
    /// The position at which it was noticed. What was over by then is another one.
    pub observed: u64,
    /// How many uses led to it, and when the last of them happened.
    pub occurrences: u64,
    pub last: Time,
    pub response: AnomalyResponse,
    /// The key that is to be suspended if the response says so.
    pub key: Option<KeyId>,
}

/// What goes on, and how far it was looked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anomalies {
    pub open: OrdMap<(MonitoringRule, Subject), OpenAnomaly>,
    /// The newest position at which one was noticed, or found to be over. Whoever looks again at what lies before raises nothing.
    pub observed: u64,
}

/// What becomes of unusual use. All but the last is Keyledger's own.
#[derive(Clone, Debug)]
pub enum AnomalyChange {
    /// It was noticed.
    Raise(Box<Raise>),
    /// It is over, as of what stands before the position `observed`.
    End { rule: MonitoringRule, subject: Subject, observed: u64, last: Time, occurrences: u64 },
    /// Suspends the key of one whose response says so.
    Suspend { position: u64 },
    /// Somebody looked at it. Whether something was raised at this position has been checked before.
    Acknowledge { position: u64, verdict: AnomalyVerdict },
}

impl Anomalies {
    /// The one that was raised at a position, if it goes on.
    pub fn at(&self, position: u64) -> Option<(&(MonitoringRule, Subject), &OpenAnomaly)> {
        self.open.iter().find(|(_, open)| open.position == position)
    }

    /// Whether one may be raised for what was noticed at a position.
    pub fn takes(&self, rule: MonitoringRule, subject: &Subject, observed: u64) -> bool {
        observed >= self.observed
            && self.open.len() < MAX_OPEN
            && !self.open.contains_key(&(rule, subject.clone()))
    }
}

impl State {
    /// The key that is to be suspended for an anomaly: while that goes on, and once. Whoever resumes the key after it was raised
    /// is not contradicted, and the last key that may do everything is left.
    pub fn to_suspend(&self, open: &OpenAnomaly, now: Time) -> Option<&Arc<Key>> {
        let key = self.keys.get(&open.key?)?;
        let resumed = matches!(key.suspension, Suspension::Resumed(at) if at >= open.raised);
        let due = open.response == AnomalyResponse::Suspend
            && key.status(now) == KeyStatus::Active
            && !resumed
            && !is_last_resort(self, key, now);
        due.then_some(key)
    }
}

/// Whose use an entry calls unusual, if that is all keys of an owner together.
pub fn owner_of(kind: &body::Kind) -> Option<Owner> {
    match kind {
        body::Kind::AnomalyRaised(e) => match Subject::from_body(e.subject.as_ref()?)? {
            Subject::Owner(owner) => Some(owner),
            Subject::Key(_) | Subject::Peer(_) => None,
        },
        _ => None,
    }
}

impl Subject {
    pub fn from_body(subject: &body::AnomalySubject) -> Option<Subject> {
        Some(match subject.subject.as_ref()? {
            SubjectKind::KeyId(id) => Subject::Key(KeyId::from_slice(id)?),
            SubjectKind::UserRef(reference) => {
                Subject::Owner(Owner::User(reference.as_slice().try_into().ok()?))
            }
            SubjectKind::Service(name) if !name.is_empty() => {
                Subject::Owner(Owner::Service(name.as_str().into()))
            }
            SubjectKind::Service(_) => return None,
            SubjectKind::Peer(digest) => Subject::Peer(digest.as_slice().try_into().ok()?),
        })
    }

    pub fn to_body(&self) -> body::AnomalySubject {
        let subject = match self {
            Subject::Key(id) => SubjectKind::KeyId(id.as_bytes().to_vec()),
            Subject::Owner(Owner::User(reference)) => SubjectKind::UserRef(reference.to_vec()),
            Subject::Owner(Owner::Service(name)) => SubjectKind::Service(name.to_string()),
            Subject::Peer(digest) => SubjectKind::Peer(digest.to_vec()),
        };
        body::AnomalySubject { subject: Some(subject) }
    }
}

/// One use, or change, as usage and monitoring see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    pub position: u64,
    /// When it happened; of several alike, the last of them.
    pub time: Time,
    /// The key that was used, if it is known, and the version of its secret (0 if not known).
    pub key: Option<(KeyId, u32)>,
    pub allowed: bool,
    pub reason: body::DecisionReason,
    /// What was asked for; empty if nothing in particular.
    pub permission: String,
    pub resource: String,
    /// Where it came from, if that is known: the client whose token was checked, or the caller itself.
    pub network: Option<Network>,
    /// How many alike: at least 1.
    pub count: u32,
}

/// Where a call came from, out of its sealed texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    pub peer: Option<core::net::IpAddr>,
    pub client: Option<core::net::IpAddr>,
}

/// Permission and resource under which it is counted that a key asked for a verdict on another.
const ASKED: (&str, &str) = ("keys.verify", "keys");

/// What one use says: of the key that was used, and of the one that asked for the verdict.
pub fn observe_use(
    position: u64,
    page_time: Time,
    u: &body::Use,
    addresses: Addresses,
) -> impl Iterator<Item = Observation> + use<> {
    let time = if u.last_time_us == 0 { page_time } else { Time(u.last_time_us) };
    // Who reports what it answered by itself asked for nothing.
    let asker = u.caller.as_ref().filter(|_| u.reported.is_none());
    let asker = asker.and_then(|c| Some((KeyId::from_slice(&c.key_id)?, c.version)));
    let network = |address: Option<_>| address.map(|a| crate::refusals::network_of(Some(a)));
    // What can't be true of a report is no use of a key: nobody teaches with it what is usual.
    let holds = u.reported.as_ref().is_none_or(|reported| reported.doubts.is_empty());
    let own = Observation {
        position,
        time,
        key: KeyId::from_slice(&u.key_id).map(|id| (id, u.version)),
        allowed: u.decision == body::Decision::Allow as i32,
        reason: body::DecisionReason::try_from(u.reason).unwrap_or_default(),
        permission: u.permission.clone(),
        resource: u.resource.clone(),
        network: match u.caller {
            Some(_) => network(addresses.client),
            None => network(addresses.peer),
        },
        count: u.count.max(1),
    };
    let asked = asker.map(|key| Observation {
        key: Some(key),
        allowed: true,
        reason: body::DecisionReason::Granted,
        permission: ASKED.0.into(),
        resource: ASKED.1.into(),
        network: network(addresses.peer),
        ..own.clone()
    });
    [holds.then_some(own), asked].into_iter().flatten()
}

/// What a change says of the key it was made with. Its permission is what it did: `key.created`.
pub fn observe_change(
    position: u64,
    event: &body::Event,
    addresses: Addresses,
) -> Option<Observation> {
    let caller = event.caller.as_ref()?;
    let kind = event.kind.as_ref()?;
    let about = kind.key_link().and_then(|link| KeyId::from_slice(&link.key_id));
    Some(Observation {
        position,
        time: Time(event.time_us),
        key: Some((KeyId::from_slice(&caller.key_id)?, caller.version)),
        allowed: true,
        reason: body::DecisionReason::Granted,
        permission: kind.name().into(),
        resource: match kind {
            body::Kind::EventRecorded(recorded) => format!("logs/{}", recorded.category),
            _ => about.map_or(String::new(), |id| format!("keys/{id}")),
        },
        network: addresses.peer.map(|a| crate::refusals::network_of(Some(a))),
        count: 1,
    })
}

impl From<&Owner> for OwnerKind {
    fn from(owner: &Owner) -> OwnerKind {
        match owner {
            Owner::User(reference) => OwnerKind::UserRef(reference.to_vec()),
            Owner::Service(name) => OwnerKind::Service(name.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubtful_report_is_observed_of_nobody() {
        let observed = |doubts: Vec<i32>| {
            let key_id = vec![7; 16];
            let caller = Some(body::Caller { key_id: vec![8; 16], version: 1 });
            let reported = Some(body::Reported { doubts, ..body::Reported::default() });
            let r#use = body::Use { key_id, caller, reported, ..body::Use::default() };
            observe_use(1, Time(5), &r#use, Addresses::default()).count()
        };
        assert_eq!(observed(vec![]), 1, "of the key, and not of who reports");
        assert_eq!(observed(vec![body::ReportDoubt::Stale as i32]), 0);
    }
}
