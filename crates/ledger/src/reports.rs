//! Uses that services answered by themselves, from strict answers that they had kept, and report afterwards: when a report begins and
//! goes on, and what can't be true of it.
//!
//! A reporter numbers its uses in a session, so each is recorded exactly once. The id of a session tells when it was made: one that
//! was forgotten can't begin again, since by then its id is too old.

use core::net::IpAddr;

use imbl::OrdMap;
use uuid::Uuid;

use crate::body::{ReportDoubt, Reported, Use};
use crate::command::{Refusal, SECOND, UseAddress};
use crate::id::{KeyId, Time, Trace};
use crate::page::UseSalt;
use crate::text::Sealed;

/// Most uses of one report.
pub const MAX_REPORTED: usize = 1_000;
/// Most sessions of one key that are remembered.
pub const MAX_SESSIONS_OF_KEY: usize = 64;
/// Most sessions of a ledger that are remembered.
pub const MAX_SESSIONS: usize = 1_024;
/// A session that reports nothing for longer is over, in microseconds.
pub const LAPSE: i64 = 3_600 * SECOND;
/// How much the time in the id of a new session may differ from now.
pub const FRESH: i64 = 300 * SECOND;
/// How long a session that has ended is remembered: until its id can begin no other.
const REMEMBERED: i64 = 2 * FRESH + SECOND;
/// A use that is recorded later than this after it happened was not reported as it should.
pub const LATE: i64 = 3_600 * SECOND;
/// How far ahead of the page that records it a use may be said to have been.
pub const AHEAD: i64 = SECOND;

/// What is wrong with a receipt that is good, of an answer that is gone.
pub const LOST: &str =
    "is of an answer that this ledger doesn't hold: it has lost its newest entries since";

/// Whose session, and its id: a UUID of version 7.
pub type SessionId = (KeyId, [u8; 16]);

/// Sessions that go on, and those that have ended lately.
pub type Sessions = OrdMap<SessionId, Session>;

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// How many of its uses are recorded: the number of the next.
    pub recorded: u64,
    /// When it was last heard of.
    pub newest: Time,
    pub ended: bool,
}

impl Session {
    pub fn has_lapsed(&self, now: Time) -> bool {
        let remembered = if self.ended { REMEMBERED } else { LAPSE };
        self.newest.plus_micros(remembered) < now
    }
}

/// What a service reports.
#[derive(Clone, Debug)]
pub struct Report {
    pub session: [u8; 16],
    /// Number of the first of these uses in the session.
    pub first_number: u64,
    /// In the order of their numbers.
    pub claims: Vec<Claim>,
    /// Whether the session ends with them.
    pub end: bool,
}

impl Report {
    /// The number after the last of these uses.
    pub fn next_number(&self) -> u64 {
        self.first_number.saturating_add(self.claims.len() as u64)
    }
}

/// A use that a service says it answered, from a strict answer that it has proved to have.
#[derive(Clone, Debug)]
pub struct Claim {
    pub answer: KeptAnswer,
    /// When the service gave it again, as it says.
    pub time: Time,
    /// Where the client came from, as the service saw it.
    pub address: Option<IpAddr>,
    pub trace: Trace,
    pub texts: Vec<Sealed>,
    pub salt: UseSalt,
}

/// A strict answer that was allowed to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    pub key_id: KeyId,
    pub version: u32,
    pub permission: String,
    pub resource: String,
    pub audience: String,
    /// Where the use that records it is found.
    pub at: UseAddress,
    pub time: Time,
    /// In microseconds.
    pub max_staleness: i64,
}

impl KeptAnswer {
    /// Whether a use of a page of this time is this answer, to a question of this key. A receipt names a place; what stands there may
    /// be something else by now, if the ledger has lost its newest entries.
    pub fn is(&self, u: &Use, page_time: Time, asker: KeyId) -> bool {
        let by = u.caller.as_ref().and_then(|caller| KeyId::from_slice(&caller.key_id));
        let about = (KeyId::from_slice(&u.key_id), u.version);
        by == Some(asker)
            && about == (Some(self.key_id), self.version)
            && u.permission == self.permission
            && u.resource == self.resource
            && u.audience == self.audience
            && page_time == self.time
            && u.keep_us == self.max_staleness
            && u.keep_us > 0
    }
}

impl Claim {
    /// About how many bytes it will write.
    pub fn weight(&self) -> usize {
        let answer = &self.answer;
        let named = answer.permission.len() + answer.resource.len() + answer.audience.len();
        256 + named + self.texts.iter().map(|t| t.bytes.len() + 80).sum::<usize>()
    }

    /// What is signed of it, recorded now.
    pub fn reported(&self, session: [u8; 16], number: u64, now: Time) -> Reported {
        let reported = Reported {
            session_id: session.to_vec(),
            number,
            answer_position: self.answer.at.position,
            answer_index: self.answer.at.index,
            answer_time_us: self.answer.time.micros(),
            max_staleness_us: self.answer.max_staleness,
            time_us: self.time.micros(),
            doubts: vec![],
        };
        let doubts = doubts(&reported, now).map(|doubt| doubt as i32).collect();
        Reported { doubts, ..reported }
    }
}

/// Why a use can't have been answered so, or was not reported as it should, if a page of this time records it.
pub fn doubts(r: &Reported, now: Time) -> impl Iterator<Item = ReportDoubt> {
    let (time, now) = (Time(r.time_us), now.micros());
    let last = Time(r.answer_time_us).plus_micros(r.max_staleness_us).micros();
    let wrong = [
        (ReportDoubt::BeforeAnswer, r.time_us < r.answer_time_us),
        (ReportDoubt::Stale, r.time_us > last),
        (ReportDoubt::Ahead, r.time_us > Time(now).plus_micros(AHEAD).micros()),
        (ReportDoubt::Late, time.plus_micros(LATE).micros() < now),
    ];
    wrong.into_iter().filter(|(_, wrong)| *wrong).map(|(doubt, _)| doubt)
}

/// Whether a new session may begin besides those that there are.
pub fn may_begin<'a>(
    sessions: impl Iterator<Item = &'a SessionId>,
    (reporter, id): SessionId,
    now: Time,
) -> Result<(), Refusal> {
    if !is_fresh(id, now) {
        return Err(Refusal::ReportSessionOver);
    }
    let (mut all, mut own) = (0, 0);
    for (of, _) in sessions {
        all += 1;
        own += usize::from(*of == reporter);
    }
    match (own >= MAX_SESSIONS_OF_KEY, all >= MAX_SESSIONS) {
        (true, _) => Err(Refusal::ReportSessions { most: MAX_SESSIONS_OF_KEY as u64 }),
        (_, true) => Err(Refusal::ReportSessions { most: MAX_SESSIONS as u64 }),
        _ => Ok(()),
    }
}

/// Whether the id is a UUID of version 7 that was made about now.
fn is_fresh(id: [u8; 16], now: Time) -> bool {
    let millis = id[..6].iter().fold(0i64, |sum, byte| sum << 8 | i64::from(*byte));
    is_session_id(id) && (millis * 1_000 - now.micros()).abs() <= FRESH
}

/// Whether it is a UUID of version 7 (RFC 9562 §5.7).
pub fn is_session_id(id: [u8; 16]) -> bool {
    let id = Uuid::from_bytes(id);
    id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122
}

/// 49 bytes for each: reporter, id, number of uses, newest time, whether it has ended.
pub fn encode(sessions: &Sessions) -> Vec<u8> {
    let bytes = |((reporter, id), s): (&SessionId, &Session)| {
        let (recorded, newest) = (s.recorded.to_be_bytes(), s.newest.micros().to_be_bytes());
        [&reporter.as_bytes()[..], id, &recorded, &newest, &[u8::from(s.ended)]].concat()
    };
    sessions.iter().flat_map(bytes).collect()
}

/// `None` if they are not as we write them.
pub fn decode(bytes: &[u8]) -> Option<Sessions> {
    let (all, []) = bytes.as_chunks::<49>() else { return None };
    let session = |bytes: &[u8; 49]| {
        let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let id = |at: usize| -> [u8; 16] { bytes[at..at + 16].try_into().expect("16 bytes") };
        let (recorded, newest) = (number(32), Time(number(40) as i64));
        let session = Session { recorded, newest, ended: bytes[48] == 1 };
        ((KeyId::from_bytes(id(0)), id(16)), session)
    };
    Some(all.iter().map(session).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Caller;

    #[test]
    fn an_answer_is_only_what_was_asked_by_whom_and_answered_when() {
        let [asker, key_id] = [1, 2].map(|byte| KeyId::from_bytes([byte; 16]));
        let answer = KeptAnswer {
            key_id,
            version: 3,
            permission: "audit.read".into(),
            resource: "logs/error".into(),
            audience: "exports".into(),
            at: UseAddress { position: 7, index: 0 },
            time: Time(1_000),
            max_staleness: 5,
        };
        let used = Use {
            key_id: key_id.as_bytes().to_vec(),
            version: 3,
            caller: Some(Caller { key_id: asker.as_bytes().to_vec(), version: 9 }),
            permission: "audit.read".into(),
            resource: "logs/error".into(),
            audience: "exports".into(),
            keep_us: 5,
            ..Use::default()
        };
        assert!(answer.is(&used, answer.time, asker), "whichever secret the asker had");
        assert!(!answer.is(&used, Time(1_001), asker));
        assert!(!answer.is(&used, answer.time, key_id));
        let others: [fn(&mut Use); 7] = [
            |u| u.key_id[0] ^= 1,
            |u| u.version = 2,
            |u| u.caller = None,
            |u| u.permission.clear(),
            |u| u.resource.clear(),
            |u| u.audience.clear(),
            |u| u.keep_us = 0,
        ];
        for change in others {
            let mut other = used.clone();
            change(&mut other);
            assert!(!answer.is(&other, answer.time, asker), "{other:?}");
        }
        let never = KeptAnswer { max_staleness: 0, ..answer };
        assert!(!never.is(&Use { keep_us: 0, ..used }, never.time, asker));
    }
}
