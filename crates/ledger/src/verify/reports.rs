//! Verifying uses that services reported: each belongs to a strict answer that was allowed to be kept, has the number that
//! is next in its session, and says of itself what is doubtful.

use std::collections::BTreeMap;

use imbl::OrdMap;
use sha2::{Digest, Sha256};

use crate::body::{Event, ReportedUses, Use};
use crate::bounded::{self, Parties};
use crate::id::{KeyId, Time};
use crate::judge::Asked;
use crate::page::ReadUse;
use crate::policy::LONGEST_STALENESS;
use crate::reports::{self, LATE, SessionId};
use crate::restrict::{Circumstances, OWN_AUDIENCE, Source};
use crate::state::State;

/// Most answers that are remembered; for uses of older ones it is not looked whether there was such an answer,
/// and they are counted.
const MOST: usize = 100_000;

/// Answers that were allowed to be kept, as long as uses of them may be reported without a doubt.
#[derive(Clone, Default)]
pub(super) struct KeptAnswers {
    /// By position and index: when, and a hash of what was asked and answered.
    answers: OrdMap<(u64, u32), (Time, [u8; 32])>,
    /// Answers before this position were dropped to keep within the bound.
    dropped_before: u64,
}

impl KeptAnswers {
    /// Takes over the answers of a page.
    pub(super) fn note(&mut self, position: u64, time: Time, uses: &[ReadUse]) {
        let first_of_interest = time.plus_micros(-(LATE + LONGEST_STALENESS));
        while let Some((at, (given, _))) = self.answers.get_min().cloned() {
            let full = self.answers.len() >= MOST;
            if given >= first_of_interest && !full {
                break;
            }
            if full {
                self.dropped_before = at.0 + 1;
            }
            self.answers.remove(&at);
        }
        for (index, read) in uses.iter().enumerate().filter(|(_, read)| read.r#use.keep_us != 0) {
            let digest = digest(&read.r#use, read.r#use.keep_us, time);
            self.answers.insert((position, index as u32), (time, digest));
        }
    }

    /// How many uses of a page are said to be of answers that were dropped.
    pub(super) fn untraced(&self, uses: &[ReadUse]) -> u64 {
        let held = uses.iter().filter_map(|read| read.r#use.reported.as_ref());
        let held = held.filter(|r| r.doubts.is_empty());
        held.filter(|r| r.answer_position < self.dropped_before).count() as u64
    }

    /// Whether a use that was reported without a doubt is of such an answer.
    fn hold(&self, u: &Use) -> bool {
        let Some(r) = u.reported.as_ref().filter(|r| r.doubts.is_empty()) else { return true };
        let expected = digest(u, r.max_staleness_us, Time(r.answer_time_us));
        let found = self.answers.get(&(r.answer_position, r.answer_index));
        (1..=LONGEST_STALENESS).contains(&r.max_staleness_us)
            && (r.answer_position < self.dropped_before
                || found.is_some_and(|(_, digest)| *digest == expected))
    }

    /// What is wrong with the reported uses of a page, and with what it says of them: the index of a use, or the page.
    pub(super) fn check(
        &self,
        state: &State,
        event: &Event,
        told: &[ReportedUses],
        uses: &[ReadUse],
    ) -> Result<(), Wrong> {
        let mut counted: BTreeMap<SessionId, u64> = BTreeMap::new();
        for (index, read) in uses.iter().enumerate() {
            let Some(r) = &read.r#use.reported else { continue };
            let reporter = read.r#use.caller.as_ref().and_then(|c| KeyId::from_slice(&c.key_id));
            let session = r.session_id.as_slice().try_into().ok();
            let id = reporter.zip(session).ok_or(Wrong::Use { index })?;
            let seen = counted.entry(id).or_default();
            let live = state.sessions.get(&id).filter(|s| !s.has_lapsed(Time(event.time_us)));
            let next = live.map_or(0, |session| session.recorded) + *seen;
            *seen += 1;
            let doubts = reports::doubts(r, Time(event.time_us)).map(|doubt| doubt as i32);
            if r.number != next || !doubts.eq(r.doubts.iter().copied()) || !self.hold(&read.r#use) {
                return Err(Wrong::Use { index });
            }
        }
        let told = told.iter().filter(|r| r.uses > 0);
        let told = told.map(|r| (&r.reporter[..], &r.session_id[..], u64::from(r.uses)));
        let right = told.eq(counted.iter().map(|((of, id), n)| (&of.as_bytes()[..], &id[..], *n)));
        if right { Ok(()) } else { Err(Wrong::Page) }
    }
}

/// Where something is wrong.
pub(super) enum Wrong {
    Page,
    Use { index: usize },
}

/// Whether an answer may be kept for as long as it says, as of the state before it.
pub(super) fn may_keep(state: &State, u: &Use, now: Time) -> bool {
    if u.keep_us == 0 {
        return true;
    }
    let caller = u.caller.as_ref().and_then(|c| Some((KeyId::from_slice(&c.key_id)?, c.version)));
    let subject = KeyId::from_slice(&u.key_id).map(|id| (id, u.version));
    let (Some(caller), Some(subject)) = (caller, subject) else { return false };
    let circumstances = |audience| Circumstances { from: Source::Judged, audience };
    let by_caller = Asked {
        permission: "",
        resource: "",
        circumstances: circumstances(Some(OWN_AUDIENCE)),
        more_uses: 0,
    };
    let of_subject = Asked {
        permission: &u.permission,
        resource: &u.resource,
        circumstances: circumstances(Some(u.audience.as_str())),
        more_uses: 0,
    };
    let parties = Parties { caller, subject };
    let most = bounded::may_keep(state, parties, by_caller, of_subject, LONGEST_STALENESS, now);
    (1..=most).contains(&u.keep_us)
}

/// What an answer and its uses have in common. The reporter is the key that asked, maybe with another secret by now.
fn digest(u: &Use, max_staleness: i64, answered: Time) -> [u8; 32] {
    let caller = u.caller.as_ref().map_or(&[][..], |c| &c.key_id);
    let (version, times) = (u.version.to_be_bytes(), [max_staleness, answered.micros()]);
    let times = times.map(i64::to_be_bytes).concat();
    let parts: [&[u8]; 7] = [
        caller,
        &u.key_id,
        &version,
        u.permission.as_bytes(),
        u.resource.as_bytes(),
        u.audience.as_bytes(),
        &times,
    ];
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}
