//! What is followed: for a rule and a subject a window of what came lately, and later an episode of what goes on.

use std::collections::BTreeMap;

use super::rules::{FORBIDDEN_REMEMBERED, quiet, window};
use super::{Episode, Step};
use crate::anomaly::{MAX_OPEN, Subject};
use crate::body::MonitoringRule;
use crate::id::Time;
use crate::refusals::Network;

/// A window slides by an eighth: it holds what came in the running eighth and the seven before.
pub(super) const BUCKETS: usize = 8;
/// Most windows of keys and owners, and of peers. The ones to which nothing was added for longest are forgotten first, a quarter
/// at once: their counts begin at 0 again. Peers have a share of their own, so that strangers can't push keys out.
pub const MAX_WINDOWS: usize = 2_048;
pub const MAX_PEER_WINDOWS: usize = 1_024;
/// Most episodes at once, and of these, of peers. Beyond these none is raised; those that are there go on. Peers are few: anybody can
/// be many of them, and each leaves entries for ever.
pub const MAX_EPISODES: usize = MAX_OPEN;
pub const MAX_PEER_EPISODES: usize = 64;
/// Networks of one episode of NEW_NETWORK whose uses are counted: the newest.
pub(super) const MAX_NETWORKS: usize = 8;

type Which = (MonitoringRule, Subject);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) first: Time,
    /// From the key's own networks, and from elsewhere.
    pub(super) own: u64,
    pub(super) strange: u64,
}

/// A window before it is raised, an episode after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Track {
    pub(super) raised: bool,
    pub(super) first: Time,
    pub(super) last: Time,
    /// Of the episode.
    pub(super) occurrences: u64,
    /// From then on it is over, or forgotten.
    pub(super) due: Time,
    /// Number of the newest bucket since 1970; before it in turn the older ones.
    pub(super) newest: i64,
    pub(super) buckets: [Bucket; BUCKETS],
    /// What was tried, as digests, each with the bucket in which it last was.
    pub(super) things: Vec<(u64, i64)>,
    /// Networks that are new in this episode.
    pub(super) networks: Vec<Network>,
    /// Of an owner: until then an anomaly of one of its keys stands for it.
    pub(super) covered: Time,
}

/// What a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) own: u64,
    pub(super) strange: u64,
}

impl Sum {
    pub(super) fn all(self) -> u64 {
        self.own.saturating_add(self.strange)
    }

    /// Whether `number` is reached where so many of its own count as one.
    pub(super) fn reaches(self, number: u64, own_worth: u64) -> bool {
        let points = self.strange.saturating_mul(own_worth).saturating_add(self.own);
        points >= number.saturating_mul(own_worth)
    }
}

impl Track {
    /// Adds to the window. What comes late is added to the oldest bucket that is still there.
    pub(super) fn add(&mut self, rule: MonitoringRule, time: Time, count: u64, own: bool) {
        let bucket = bucket_of(rule, time);
        self.slide_to(bucket);
        let back = self.newest.saturating_sub(bucket).clamp(0, BUCKETS as i64 - 1) as usize;
        let bucket = &mut self.buckets[back];
        if bucket.own == 0 && bucket.strange == 0 || time < bucket.first {
            bucket.first = time;
        }
        let sum = if own { &mut bucket.own } else { &mut bucket.strange };
        *sum = sum.saturating_add(count);
        self.last = self.last.max(time);
        self.due = self.last.plus_micros(window(rule));
    }

    /// Remembers what was tried. Says how many different things were, as far as they are told apart.
    pub(super) fn tried(&mut self, rule: MonitoringRule, time: Time, thing: u64) -> u64 {
        let bucket = bucket_of(rule, time).max(self.newest.saturating_sub(BUCKETS as i64 - 1));
        let oldest = self.newest.saturating_sub(BUCKETS as i64);
        self.things.retain(|(_, at)| *at > oldest);
        let full = self.things.len() >= FORBIDDEN_REMEMBERED;
        match self.things.iter_mut().find(|(known, _)| *known == thing) {
            Some((_, at)) => *at = bucket.max(*at),
            None if !full => self.things.push((thing, bucket)),
            None => {}
        }
        self.things.len() as u64
    }

    pub(super) fn sum(&self) -> Sum {
        self.buckets.iter().fold(Sum::default(), |sum, bucket| Sum {
            own: sum.own.saturating_add(bucket.own),
            strange: sum.strange.saturating_add(bucket.strange),
        })
    }

    /// When the oldest happened that the window holds.
    fn oldest(&self) -> Option<Time> {
        let full = |bucket: &&Bucket| bucket.own > 0 || bucket.strange > 0;
        self.buckets.iter().filter(full).map(|bucket| bucket.first).min()
    }

    fn slide_to(&mut self, bucket: i64) {
        let ahead = bucket.saturating_sub(self.newest);
        if ahead >= BUCKETS as i64 {
            self.buckets = Default::default();
        } else if ahead > 0 {
            self.buckets.rotate_right(ahead as usize);
            self.buckets[..ahead as usize].fill(Bucket::default());
        }
        self.newest = self.newest.max(bucket);
    }

    /// A network that is new in this episode; the newest few are kept.
    pub(super) fn met(&mut self, network: Network) {
        if !self.networks.contains(&network) {
            self.networks.truncate(MAX_NETWORKS - 1);
            self.networks.insert(0, network);
        }
    }

    /// More of what goes on.
    pub(super) fn more(&mut self, time: Time, count: u64) {
        self.occurrences = self.occurrences.saturating_add(count);
        self.first = self.first.min(time);
        self.last = self.last.max(time);
    }
}

fn bucket_of(rule: MonitoringRule, time: Time) -> i64 {
    time.micros().div_euclid(window(rule).max(BUCKETS as i64) / BUCKETS as i64)
}

/// All that is followed, within its bounds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tracks {
    map: BTreeMap<Which, Track>,
    windows: Share,
    episodes: Share,
    /// Episodes by rule: most rules have none, and need not look.
    by_rule: [usize; 8],
}

/// How many there are of keys and owners, and of peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    others: usize,
    peers: usize,
}

impl Share {
    fn of(&mut self, subject: &Subject) -> &mut usize {
        match subject {
            Subject::Peer(_) => &mut self.peers,
            Subject::Key(_) | Subject::Owner(_) => &mut self.others,
        }
    }
}

impl Tracks {
    /// How many episodes of a rule there are.
    pub(super) fn episodes_of(&self, rule: MonitoringRule) -> usize {
        self.by_rule[rule as usize]
    }

    /// The episode that goes on at a time. If it was over by then, it is ended first.
    pub(super) fn episode(
        &mut self,
        which: &Which,
        time: Time,
        steps: &mut Vec<Step>,
    ) -> Option<&mut Track> {
        if self.episodes_of(which.0) == 0 {
            return None;
        }
        let track = self.map.get(which).filter(|track| track.raised)?;
        if track.due <= time {
            self.end(which, steps);
            return None;
        }
        self.map.get_mut(which)
    }

    /// The window of a rule and subject, made if there is none.
    pub(super) fn window(&mut self, which: &Which, time: Time) -> &mut Track {
        if !self.map.contains_key(which) {
            self.make_room(&which.1);
            *self.windows.of(&which.1) += 1;
            let track = Track { first: time, last: time, due: time, ..Track::default() };
            self.map.insert(which.clone(), track);
        }
        self.map.get_mut(which).expect("it was there or has just been made")
    }

    pub(super) fn covered(&self, which: &Which, time: Time) -> bool {
        self.map.get(which).is_some_and(|track| time < track.covered)
    }

    /// Makes an episode of what a window holds, if there is room. It began at `first` or with the window.
    pub(super) fn raise(
        &mut self,
        which: &Which,
        first: Time,
        time: Time,
        count: u64,
    ) -> Option<&mut Track> {
        let most = match which.1 {
            Subject::Peer(_) => MAX_PEER_EPISODES,
            Subject::Key(_) | Subject::Owner(_) => MAX_EPISODES,
        };
        let all = self.episodes.others + self.episodes.peers;
        if all >= MAX_EPISODES || *self.episodes.of(&which.1) >= most {
            return None;
        }
        self.window(which, time);
        *self.windows.of(&which.1) -= 1;
        *self.episodes.of(&which.1) += 1;
        self.by_rule[which.0 as usize] += 1;
        let track = self.map.get_mut(which).expect("its window is there");
        let covered = track.covered;
        let first = track.oldest().unwrap_or(first).min(first);
        let last = track.last.max(time);
        let due = last.plus_micros(quiet(which.0));
        *track = Track {
            raised: true,
            first,
            last,
            occurrences: count,
            due,
            covered,
            ..Track::default()
        };
        Some(track)
    }

    fn end(&mut self, which: &Which, steps: &mut Vec<Step>) {
        let Some(track) = self.map.remove(which) else { return };
        *self.episodes.of(&which.1) -= 1;
        self.by_rule[which.0 as usize] -= 1;
        let (rule, subject) = which.clone();
        steps.push(Step::End { rule, subject, last: track.last, occurrences: track.occurrences });
    }

    /// Ends what is over, forgets windows that hold nothing any more.
    pub(super) fn pass(&mut self, now: Time) -> Vec<Step> {
        let over = |(_, track): &(&Which, &Track)| track.due.max(track.covered) <= now;
        let over: Vec<(Which, bool)> = self
            .map
            .iter()
            .filter(over)
            .map(|(which, track)| (which.clone(), track.raised))
            .collect();
        let mut steps = vec![];
        for (which, raised) in over {
            if raised { self.end(&which, &mut steps) } else { self.forget(&which) }
        }
        steps
    }

    fn forget(&mut self, which: &Which) {
        if self.map.remove(which).is_some() {
            *self.windows.of(&which.1) -= 1;
        }
    }

    /// Forgets the oldest quarter of the windows of this share, if it is full.
    fn make_room(&mut self, subject: &Subject) {
        let peer = matches!(subject, Subject::Peer(_));
        let most = if peer { MAX_PEER_WINDOWS } else { MAX_WINDOWS };
        if *self.windows.of(subject) < most {
            return;
        }
        let ours = |(which, track): &(&Which, &Track)| {
            !track.raised && matches!(which.1, Subject::Peer(_)) == peer
        };
        let mut oldest: Vec<(Time, Which)> = self
            .map
            .iter()
            .filter(ours)
            .map(|(which, track)| (track.last, which.clone()))
            .collect();
        oldest.sort();
        oldest.iter().take(most / 4).for_each(|(_, which)| self.forget(which));
    }

    pub(super) fn episodes(&self) -> impl Iterator<Item = Episode> + '_ {
        self.map.iter().filter(|(_, track)| track.raised).map(|((rule, subject), track)| Episode {
            rule: *rule,
            subject: subject.clone(),
            occurrences: track.occurrences,
            first: track.first,
            last: track.last,
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Which, &Track)> {
        self.map.iter()
    }

    /// Of what was stored: `None` if there is more than there may be, or one twice.
    pub(super) fn of(tracks: Vec<(Which, Track)>) -> Option<Tracks> {
        let mut all = Tracks::default();
        for (which, track) in tracks {
            let share = if track.raised { &mut all.episodes } else { &mut all.windows };
            *share.of(&which.1) += 1;
            all.by_rule[which.0 as usize] += usize::from(track.raised);
            if all.map.insert(which, track).is_some() {
                return None;
            }
        }
        let good = all.windows.others <= MAX_WINDOWS
            && all.windows.peers <= MAX_PEER_WINDOWS
            && all.episodes.others + all.episodes.peers <= MAX_EPISODES
            && all.episodes.peers <= MAX_PEER_EPISODES;
        good.then_some(all)
    }
}
