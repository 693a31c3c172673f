//! Events as many services might record them over months: some actors, actions and folders are far more frequent than others.

use keyledger_ledger::body::{Outcome, Severity};
use keyledger_proto::parse::{ActorName, RecordedEvent};

use crate::random::SplitMix64;

const PEOPLE: u64 = 2_000;
const SERVICES: u64 = 40;
pub(crate) const ACTIONS: u64 = 40;
pub(crate) const CATEGORIES: u64 = 12;
/// Folders, and resources in each: 200,000 in all.
const FOLDERS: u64 = 1_000;
const FILES: u64 = 200;
/// Events of one trace.
const PER_TRACE: u64 = 4;

/// The same events in each run.
pub(crate) struct Random(SplitMix64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(SplitMix64(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.next()
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// The smaller, the more frequent: a quarter of the values makes half of the events.
    fn skewed(&mut self, end: u64) -> u64 {
        let (a, b) = (self.below(1 << 20), self.below(1 << 20));
        (a * b / (1 << 20) * end) >> 20
    }
}

pub(crate) fn person(n: u64) -> String {
    format!("person-{n:04}@example.com")
}

pub(crate) fn service(n: u64) -> String {
    format!("service-{n:02}")
}

pub(crate) fn action(n: u64) -> String {
    format!("area-{:02}.thing.do-{n:02}", n % CATEGORIES)
}

/// Each action belongs to one.
pub(crate) fn category(action: u64) -> String {
    format!("area-{:02}/activity", action % CATEGORIES)
}

pub(crate) fn folder(n: u64) -> String {
    format!("buckets/b-{n:03}/")
}

pub(crate) fn trace(event: u64) -> [u8; 16] {
    let mut of_trace = Random::new(event / PER_TRACE + 1);
    let (a, b) = (of_trace.next().to_be_bytes(), of_trace.next().to_be_bytes());
    [a, b].concat().try_into().expect("twice 8 bytes")
}

pub(crate) fn people() -> Vec<String> {
    (0..PEOPLE).map(person).collect()
}

/// What a query may ask for, as frequent as it is in the log.
pub(crate) struct Subject {
    pub(crate) person: String,
    pub(crate) service: String,
    pub(crate) action: u64,
    pub(crate) folder: String,
}

impl Subject {
    pub(crate) fn new(random: &mut Random) -> Subject {
        Subject {
            person: person(random.skewed(PEOPLE)),
            service: service(random.skewed(SERVICES)),
            action: random.skewed(ACTIONS),
            folder: folder(random.skewed(FOLDERS)),
        }
    }
}

/// The n-th event of a log.
pub(crate) fn event(n: u64) -> RecordedEvent {
    let random = &mut Random::new(n);
    let Subject { person, service, action, folder } = Subject::new(random);
    let actor = match random.below(5) {
        0 => ActorName::Service(service),
        _ => ActorName::User(person),
    };
    let outcome = match random.below(100) {
        0..90 => Outcome::Success,
        90..95 => Outcome::Failure,
        _ => Outcome::Denied,
    };
    let severity = match random.below(1_000) {
        0..850 => Severity::Informational,
        850..950 => Severity::Low,
        950..980 => Severity::Medium,
        980..995 => Severity::High,
        _ => Severity::Critical,
    };
    RecordedEvent {
        actor,
        on_behalf_of: vec![],
        action: self::action(action),
        resource: format!("{folder}o-{:03}", random.below(FILES)),
        outcome,
        reason: "quarterly closing".into(),
        category: category(action),
        severity,
        occurred: None,
        address: Some([203, 0, 113, (n % 250) as u8].into()),
        user_agent: String::new(),
        device: String::new(),
        trace: Some((trace(n), [1; 8])),
        attributes: vec![],
        personal: vec![],
        event_id: String::new(),
        signed: None,
    }
}
