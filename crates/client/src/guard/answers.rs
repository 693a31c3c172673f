//! Answers that may be kept, and when they may not be given any more. Pure: moments and what WatchKeys tells are arguments.
//!
//! Why no change is missed: a verdict at position p is made from all entries before p. It is kept only while a stream of WatchKeys
//! stands that began at or before p, and only if that stream has told of no change at or after p. Every change after p drops what
//! it is about. When the stream breaks or is silent, nothing is given, and what was kept is dropped.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use keyledger_proto::{KeyChange, WatchKeysResponse};

use super::Verified;

/// Longest silence of a stream of WatchKeys, which says something each second.
pub(super) const SILENCE: Duration = Duration::from_secs(3);

/// A moment, by the clock that only goes forward and by that of the calendar: the first may stand still while a machine sleeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) at: Instant,
    pub(super) wall: SystemTime,
}

impl Moment {
    pub(super) fn now() -> Moment {
        Moment { at: Instant::now(), wall: SystemTime::now() }
    }

    /// Whether less than this has passed until `now`, by both clocks.
    fn is_within(&self, most: Duration, now: Moment) -> bool {
        let by_wall = now.wall.duration_since(self.wall);
        now.at.saturating_duration_since(self.at) < most && by_wall.is_ok_and(|past| past < most)
    }
}

/// A keyed digest of a question.
pub(super) type Digest = [u8; 32];

/// A strict answer that may be given again.
#[derive(Debug)]
pub(super) struct Answer {
    /// Of the token alone.
    pub(super) token: Digest,
    pub(super) verified: Verified,
    /// When the question was sent.
    pub(super) sent: Moment,
    pub(super) received: Moment,
    /// For how long, counted from then.
    pub(super) granted: Duration,
    /// When it was answered, by Keyledger's clock.
    pub(super) answer_time: SystemTime,
    pub(super) receipt: Vec<u8>,
}

/// A stream of WatchKeys that stands.
#[derive(Debug)]
struct Watched {
    /// It tells of every change from here on.
    from: u64,
    /// The newest change that it has told of.
    changed: Option<u64>,
    heard: Moment,
}

/// What is kept: nothing, while no stream stands.
#[derive(Debug)]
pub(super) struct Answers {
    kept: HashMap<Digest, Arc<Answer>>,
    most: usize,
    watched: Option<Watched>,
    /// There is no place before this, unless a change makes one.
    full_until: Option<Instant>,
}

impl Answers {
    pub(super) fn new(most: usize) -> Answers {
        Answers { kept: HashMap::new(), most, watched: None, full_until: None }
    }

    /// A stream has told something.
    pub(super) fn hear(&mut self, told: &WatchKeysResponse, now: Moment) {
        let Some(next) = told.next_position else { return self.broke() };
        if self.watched.as_ref().is_some_and(|watched| !watched.heard.is_within(SILENCE, now)) {
            self.broke();
        }
        if let Some(change) = &told.change {
            self.drop_changed(change);
        }
        // Of a stream that begins with a change, this is its first position.
        let first = told.change.as_ref().map_or(next, |change| change.position.unwrap_or(next));
        let watched =
            self.watched.get_or_insert(Watched { from: first, changed: None, heard: now });
        watched.heard = now;
        if let Some(position) = told.change.as_ref().and_then(|change| change.position) {
            watched.changed = Some(position);
        }
    }

    /// The stream has ended, or tells what we don't understand.
    pub(super) fn broke(&mut self) {
        self.watched = None;
        self.kept.clear();
        self.full_until = None;
    }

    /// What may be given now.
    pub(super) fn find(&self, questions: [&Digest; 2], now: Moment) -> Option<Arc<Answer>> {
        self.standing(now)?;
        let mut found = questions.into_iter().filter_map(|question| self.kept.get(question));
        found.find(|answer| answer.sent.is_within(answer.granted, now)).cloned()
    }

    /// Keeps an answer, if there is a place, and no change that it doesn't know can be missed.
    pub(super) fn keep(&mut self, question: Digest, answer: Answer, now: Moment) {
        let Some(position) = answer.verified.position else { return };
        let Some(watched) = self.standing(now) else { return };
        let changed_since = watched.changed.is_some_and(|changed| changed >= position);
        if watched.from > position || changed_since || !self.has_place(now) {
            return;
        }
        self.kept.insert(question, Arc::new(answer));
    }

    /// A strict answer says that this token, or this key if it is named, is not accepted: also where the stream hasn't told it yet.
    pub(super) fn drop_denied(&mut self, token: &Digest, key_id: &str) {
        self.full_until = None;
        self.kept.retain(|_, answer| answer.token != *token && answer.verified.key_id != key_id);
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        self.kept.len()
    }

    fn standing(&self, now: Moment) -> Option<&Watched> {
        self.watched.as_ref().filter(|watched| watched.heard.is_within(SILENCE, now))
    }

    /// A change of a key or role drops what is about it; any other may be about all.
    fn drop_changed(&mut self, change: &KeyChange) {
        self.full_until = None;
        match (change.key_id.as_str(), change.role.as_str()) {
            ("", "") => self.kept.clear(),
            (key, role) => self.kept.retain(|_, answer| {
                let verified = &answer.verified;
                let of_role = !role.is_empty() && verified.matched_role == role;
                verified.key_id != key && !of_role
            }),
        }
    }

    /// Drops what has run out when all places are taken, and not again before something else does.
    fn has_place(&mut self, now: Moment) -> bool {
        if self.kept.len() < self.most {
            return true;
        }
        if self.full_until.is_some_and(|until| now.at < until) {
            return false;
        }
        self.kept.retain(|_, answer| answer.sent.is_within(answer.granted, now));
        let ends =
            self.kept.values().filter_map(|answer| answer.sent.at.checked_add(answer.granted));
        self.full_until = ends.min();
        self.kept.len() < self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::{Ask, verified};

    const GRANTED: Duration = Duration::from_secs(10);

    struct Story {
        answers: Answers,
        now: Moment,
    }

    impl Story {
        fn new(most: usize) -> Story {
            Story { answers: Answers::new(most), now: Moment::now() }
        }

        fn pass(&mut self, seconds: u64) {
            self.now.at += Duration::from_secs(seconds);
            self.now.wall += Duration::from_secs(seconds);
        }

        fn heartbeat(&mut self, next: u64) {
            let told = WatchKeysResponse { change: None, next_position: Some(next) };
            self.answers.hear(&told, self.now);
        }

        fn change(&mut self, position: u64, key_id: &str, role: &str) {
            let change = KeyChange {
                position: Some(position),
                key_id: key_id.into(),
                role: role.into(),
                ..KeyChange::default()
            };
            let told =
                WatchKeysResponse { change: Some(change), next_position: Some(position + 1) };
            self.answers.hear(&told, self.now);
        }

        fn keep(&mut self, question: u8, key_id: &str, role: &str, position: u64) {
            let answer = keyledger_proto::VerifyKeyResponse {
                key_id: key_id.into(),
                matched_role: role.into(),
                position: Some(position),
                ..Default::default()
            };
            let answer = Answer {
                token: [question; 32],
                verified: verified(&answer, &Ask::new("a.b", "c")),
                sent: self.now,
                received: self.now,
                granted: GRANTED,
                answer_time: self.now.wall,
                receipt: vec![],
            };
            self.answers.keep([question; 32], answer, self.now);
        }

        fn has(&self, question: u8) -> bool {
            self.answers.find([&[99; 32], &[question; 32]], self.now).is_some()
        }
    }

    #[test]
    fn an_answer_is_given_for_as_long_as_was_granted_and_not_a_moment_longer() {
        let mut story = Story::new(9);
        story.heartbeat(5);
        story.keep(1, "a", "readers", 5);
        for second in 0..10 {
            assert!(story.has(1), "{second}");
            story.pass(1);
            story.heartbeat(5);
        }
        assert!(!story.has(1));
    }

    #[test]
    fn a_machine_that_slept_or_set_its_clock_back_gives_nothing() {
        let mut story = Story::new(9);
        story.heartbeat(5);
        story.keep(1, "a", "readers", 5);
        for wall in [story.now.wall + GRANTED, story.now.wall - Duration::from_secs(60)] {
            let woken = Moment { wall, ..story.now };
            assert!(story.answers.find([&[1; 32], &[1; 32]], woken).is_none());
        }
    }

    #[test]
    fn changes_drop_what_they_are_about() {
        let mut story = Story::new(9);
        story.heartbeat(5);
        story.keep(1, "a", "readers", 5);
        story.keep(2, "b", "readers", 6);
        story.keep(3, "c", "", 7);
        story.change(8, "a", "");
        assert_eq!([1, 2, 3].map(|q| story.has(q)), [false, true, true]);
        story.change(9, "", "readers");
        assert_eq!([1, 2, 3].map(|q| story.has(q)), [false, false, true]);
        story.change(10, "", "");
        assert_eq!(story.answers.count(), 0);
    }

    #[test]
    fn a_strict_denial_drops_what_is_kept_of_the_token_or_the_key() {
        let mut story = Story::new(9);
        story.heartbeat(5);
        for (question, key) in [(1, "a"), (2, "b"), (3, "b"), (4, "c")] {
            story.keep(question, key, "readers", 5);
        }
        story.answers.drop_denied(&[2; 32], "");
        assert_eq!([1, 2, 3, 4].map(|q| story.has(q)), [true, false, true, true]);
        story.answers.drop_denied(&[99; 32], "a");
        assert_eq!([1, 2, 3, 4].map(|q| story.has(q)), [false, false, true, true]);
    }

    #[test]
    fn nothing_is_kept_that_a_change_may_have_overtaken() {
        let mut story = Story::new(9);
        story.keep(1, "a", "readers", 5);
        story.heartbeat(6);
        story.keep(2, "a", "readers", 5);
        story.change(8, "b", "");
        story.keep(3, "a", "readers", 7);
        story.keep(4, "a", "readers", 9);
        assert_eq!([1, 2, 3, 4].map(|q| story.has(q)), [false, false, false, true]);
    }

    #[test]
    fn a_stream_that_broke_or_is_silent_ends_all_that_was_kept() {
        let mut story = Story::new(9);
        story.heartbeat(5);
        story.keep(1, "a", "readers", 5);
        story.pass(2);
        assert!(story.has(1));
        story.pass(1);
        assert!(!story.has(1), "silent");
        story.heartbeat(6);
        assert!(!story.has(1), "also when it is heard again");
        story.keep(1, "a", "readers", 6);
        story.answers.broke();
        assert!(!story.has(1));
        story.heartbeat(7);
        assert!(!story.has(1));
    }

    #[test]
    fn places_are_bounded_and_what_has_run_out_makes_some() {
        let mut story = Story::new(2);
        story.heartbeat(5);
        story.keep(1, "a", "readers", 5);
        story.pass(1);
        story.keep(2, "b", "readers", 6);
        story.keep(3, "c", "readers", 7);
        assert_eq!([1, 2, 3].map(|q| story.has(q)), [true, true, false]);
        for _ in 0..9 {
            story.pass(1);
            story.heartbeat(7);
        }
        story.keep(3, "c", "readers", 7);
        assert_eq!([1, 2, 3].map(|q| story.has(q)), [false, true, true]);
    }
}
