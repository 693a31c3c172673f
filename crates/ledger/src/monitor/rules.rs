//! The numbers of the rules, each with its unit and why. `keyledger-bench simulate` shows what they find and what they cost; the
//! defaults were chosen by it.

use crate::body::{AnomalyResponse, MonitoringRule};
use crate::command::{DAY, SECOND};
use crate::policy::Policy;

pub(super) const MINUTE: i64 = 60 * SECOND;
pub(super) const HOUR: i64 = 60 * MINUTE;

/// SPIKE, the rule's number: how many spreads above the median an hour must be.
pub const SPIKE_SPREADS: u32 = 8;
/// Uses of an hour that are never a spike up to here: seldom used keys have no rhythm to differ from.
pub const SPIKE_FLOOR: u64 = 1_000;
/// The spread is at least a quarter (one by this) of the median: steady keys vary little for weeks, and then a little more.
pub const SPIKE_LEAST_SPREAD: u64 = 4;
/// An hour must also be twice as far (percent) above the busiest hours of its busiest days as these are above those of a usual day, by
/// factors: so twice as much at least. Work that was done at another time than usual is no spike, and bursty clients burst.
pub const SPIKE_BEYOND_PERCENT: u64 = 200;
/// But eight times as much (percent) is a spike in any case; and is what it takes with few days in use.
pub const SPIKE_MOST_PERCENT: u64 = 800;
pub const SPIKE_FEWEST_DAYS: usize = 10;
/// Of so many days in use the busiest one is left out there, so that four accidents or attacks in 8 weeks don't raise it.
pub const SPIKE_DAYS_PER_ACCIDENT: usize = 14;
/// Microseconds since the first use before which nothing is a spike: each hour of the week was there twice.
pub const SPIKE_WARM_UP: i64 = 14 * DAY;
/// An hour of the week is judged alone, with the hour before and after, from this many values on (three weeks); with fewer, the
/// same hours of all days of the last four weeks are taken together.
pub const SPIKE_FEWEST_VALUES: usize = 9;

/// REFUSAL_BURST, the rule's number: refusals within [`REFUSAL_WINDOW`] from where the key isn't used.
pub const REFUSALS: u32 = 50;
/// Microseconds.
pub const REFUSAL_WINDOW: i64 = 10 * MINUTE;
/// So many refusals from a key's own networks count as one: clients that try again after an outage or with a key that ended are
/// no attack until there are very many.
pub const OWN_REFUSALS: u64 = 10;

/// FORBIDDEN, the rule's number: different things (permission and resource) that were tried within [`FORBIDDEN_WINDOW`].
/// A client that lacks a right tries one thing again and again; who looks around tries many.
pub const FORBIDDEN_THINGS: u32 = 5;
/// So many tries at the same things are as good as a different one.
pub const FORBIDDEN_REPEATS: u64 = 250;
/// Microseconds.
pub const FORBIDDEN_WINDOW: i64 = 60 * MINUTE;
/// Different things that are told apart. A larger number than this counts as this.
pub const FORBIDDEN_REMEMBERED: usize = 16;

/// NEW_NETWORK, the rule's number: days that a key must have been in use, while its networks are learned.
pub const NETWORK_WARM_UP_DAYS: u32 = 14;
/// A key to which a new network comes more often than once in so many weeks roams: for it none is new. The first two don't count.
pub const ROAMING_WEEKS: i64 = 13;

/// LONG_SILENCE, the rule's number: days. Longer than a month and a holiday, since monthly work is silent for 31.
pub const SILENT_DAYS: u32 = 45;
/// Microseconds from first to last use that a key must have been in use before.
pub const SILENCE_IN_USE: i64 = 7 * DAY;

/// SUPERSEDED_VERSION, the rule's number: tries within [`SUPERSEDED_WINDOW`] from where the key isn't used.
pub const SUPERSEDED_TRIES: u32 = 1;
/// So many tries from a key's own networks count as one: a client that lags behind a rotation, or a forgotten hourly job.
pub const OWN_SUPERSEDED: u64 = 50;
/// Microseconds.
pub const SUPERSEDED_WINDOW: i64 = DAY;

/// SCANNING, the rule's number: tokens that no key has, within [`SCANNING_WINDOW`], from one peer.
pub const SCANNED_TOKENS: u32 = 100;
/// Microseconds. A day, so that whoever tries slowly is found too.
pub const SCANNING_WINDOW: i64 = DAY;

/// An owner's number of REFUSAL_BURST and FORBIDDEN is this many times a key's.
pub const OWNER_TIMES: u64 = 2;

/// Microseconds without anything that belongs to it, after which an anomaly is over. (NEW_NETWORK: without a further new network.
/// LONG_SILENCE: since the first use.)
pub const QUIET: i64 = DAY;
/// The same for REFUSAL_BURST and SCANNING.
pub const QUIET_BURST: i64 = 6 * HOUR;

const RULES: [MonitoringRule; 7] = [
    MonitoringRule::Spike,
    MonitoringRule::RefusalBurst,
    MonitoringRule::Forbidden,
    MonitoringRule::NewNetwork,
    MonitoringRule::LongSilence,
    MonitoringRule::SupersededVersion,
    MonitoringRule::Scanning,
];

/// The rules with the numbers that hold in a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// By rule; `None` if it is off.
    numbers: [Option<u32>; RULES.len() + 1],
}

impl Default for Rules {
    fn default() -> Rules {
        let mut numbers = [None; RULES.len() + 1];
        RULES.into_iter().for_each(|rule| numbers[rule as usize] = Some(default_number(rule)));
        Rules { numbers }
    }
}

impl Rules {
    /// A threshold other than 0 replaces the rule's number; OFF turns it off.
    pub fn of(policy: &Policy) -> Rules {
        let mut rules = Rules::default();
        for setting in &policy.rules {
            let Ok(rule) = MonitoringRule::try_from(setting.rule) else { continue };
            let number = &mut rules.numbers[rule as usize];
            if setting.response == AnomalyResponse::Off as i32 {
                *number = None;
            } else if setting.threshold != 0 && rule != MonitoringRule::Unspecified {
                *number = Some(setting.threshold);
            }
        }
        rules
    }

    /// The rule's number; `None` if it is off.
    pub fn number(&self, rule: MonitoringRule) -> Option<u64> {
        self.numbers[rule as usize].map(u64::from)
    }
}

/// What a threshold of the policy replaces.
pub fn default_number(rule: MonitoringRule) -> u32 {
    match rule {
        MonitoringRule::Unspecified => 0,
        MonitoringRule::Spike => SPIKE_SPREADS,
        MonitoringRule::RefusalBurst => REFUSALS,
        MonitoringRule::Forbidden => FORBIDDEN_THINGS,
        MonitoringRule::NewNetwork => NETWORK_WARM_UP_DAYS,
        MonitoringRule::LongSilence => SILENT_DAYS,
        MonitoringRule::SupersededVersion => SUPERSEDED_TRIES,
        MonitoringRule::Scanning => SCANNED_TOKENS,
    }
}

/// How long the window of a rule is; 0 for those that have none.
pub(super) fn window(rule: MonitoringRule) -> i64 {
    match rule {
        MonitoringRule::RefusalBurst => REFUSAL_WINDOW,
        MonitoringRule::Forbidden => FORBIDDEN_WINDOW,
        MonitoringRule::SupersededVersion => SUPERSEDED_WINDOW,
        MonitoringRule::Scanning => SCANNING_WINDOW,
        _ => 0,
    }
}

/// How long nothing must come until it is over.
pub(super) fn quiet(rule: MonitoringRule) -> i64 {
    match rule {
        MonitoringRule::RefusalBurst | MonitoringRule::Scanning => QUIET_BURST,
        _ => QUIET,
    }
}
