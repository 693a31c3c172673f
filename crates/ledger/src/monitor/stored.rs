//! The bytes of windows and episodes. They are only for whoever observes next, are never signed, and may be thrown away: then
//! what is in the windows is forgotten, and what goes on is noticed anew.

use prost::Message;

use super::rules::FORBIDDEN_REMEMBERED;
use super::track::{BUCKETS, Bucket, MAX_NETWORKS, Track, Tracks};
use crate::anomaly::Subject;
use crate::body::{AnomalySubject, MonitoringRule};
use crate::id::Time;
use crate::refusals::Network;

/// Of this layout. Another one is not read.
const FORMAT: u32 = 1;

#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(message, repeated, tag = "2")]
    tracks: Vec<StoredTrack>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredTrack {
    #[prost(enumeration = "MonitoringRule", tag = "1")]
    rule: i32,
    #[prost(message, optional, tag = "2")]
    subject: Option<AnomalySubject>,
    #[prost(bool, tag = "3")]
    raised: bool,
    #[prost(int64, tag = "4")]
    first_us: i64,
    #[prost(int64, tag = "5")]
    last_us: i64,
    #[prost(uint64, tag = "6")]
    occurrences: u64,
    #[prost(int64, tag = "7")]
    due_us: i64,
    #[prost(int64, tag = "8")]
    newest: i64,
    /// Those that hold something.
    #[prost(message, repeated, tag = "9")]
    buckets: Vec<StoredBucket>,
    #[prost(fixed64, repeated, tag = "10")]
    things: Vec<u64>,
    /// How many buckets before the newest each of them was tried.
    #[prost(int64, repeated, tag = "11")]
    things_back: Vec<i64>,
    #[prost(bytes = "vec", repeated, tag = "12")]
    networks: Vec<Vec<u8>>,
    #[prost(int64, tag = "13")]
    covered_us: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct StoredBucket {
    #[prost(uint32, tag = "1")]
    back: u32,
    #[prost(int64, tag = "2")]
    first_us: i64,
    #[prost(uint64, tag = "3")]
    own: u64,
    #[prost(uint64, tag = "4")]
    strange: u64,
}

pub(super) fn encode(tracks: &Tracks) -> Vec<u8> {
    let tracks = tracks.iter().map(|((rule, subject), track)| store(*rule, subject, track));
    Stored { format: FORMAT, tracks: tracks.collect() }.encode_to_vec()
}

/// Nothing at all is what there is at first.
pub(super) fn decode(bytes: &[u8]) -> Option<Tracks> {
    if bytes.is_empty() {
        return Some(Tracks::default());
    }
    let stored = Stored::decode(bytes).ok().filter(|stored| stored.format == FORMAT)?;
    Tracks::of(stored.tracks.into_iter().map(restore).collect::<Option<_>>()?)
}

fn store(rule: MonitoringRule, subject: &Subject, track: &Track) -> StoredTrack {
    let buckets = track.buckets.iter().enumerate().filter(|(_, b)| **b != Bucket::default());
    StoredTrack {
        rule: rule as i32,
        subject: Some(subject.to_body()),
        raised: track.raised,
        first_us: track.first.micros(),
        last_us: track.last.micros(),
        occurrences: track.occurrences,
        due_us: track.due.micros(),
        newest: track.newest,
        buckets: buckets
            .map(|(back, bucket)| StoredBucket {
                back: back as u32,
                first_us: bucket.first.micros(),
                own: bucket.own,
                strange: bucket.strange,
            })
            .collect(),
        things: track.things.iter().map(|(thing, _)| *thing).collect(),
        things_back: track.things.iter().map(|(_, at)| track.newest - at).collect(),
        networks: track.networks.iter().map(|network| network.to_vec()).collect(),
        covered_us: track.covered.micros(),
    }
}

fn restore(stored: StoredTrack) -> Option<((MonitoringRule, Subject), Track)> {
    let rule = MonitoringRule::try_from(stored.rule).ok()?;
    let rule = Some(rule).filter(|rule| *rule != MonitoringRule::Unspecified)?;
    let subject = Subject::from_body(stored.subject.as_ref()?)?;
    let mut buckets = [Bucket::default(); BUCKETS];
    for bucket in stored.buckets {
        *buckets.get_mut(bucket.back as usize)? =
            Bucket { first: Time(bucket.first_us), own: bucket.own, strange: bucket.strange };
    }
    let good = stored.things.len() == stored.things_back.len()
        && stored.things.len() <= FORBIDDEN_REMEMBERED
        && stored.networks.len() <= MAX_NETWORKS;
    let at = |back: i64| stored.newest.checked_sub(back);
    let things = stored.things.iter().zip(&stored.things_back);
    let networks = stored.networks.iter().map(|network| Network::try_from(network.as_slice()).ok());
    let track = Track {
        raised: stored.raised,
        first: Time(stored.first_us),
        last: Time(stored.last_us),
        occurrences: stored.occurrences,
        due: Time(stored.due_us),
        newest: stored.newest,
        buckets,
        things: things.map(|(thing, back)| Some((*thing, at(*back)?))).collect::<Option<_>>()?,
        networks: networks.collect::<Option<_>>()?,
        covered: Time(stored.covered_us),
    };
    good.then_some(((rule, subject), track))
}
