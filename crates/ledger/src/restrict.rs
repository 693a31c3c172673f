//! Restrictions: the conditions under which a key is accepted, whatever its grants say. What is not restricted is free.

use core::net::IpAddr;
use std::fmt;
use std::str::FromStr;

use crate::body::{self, DecisionReason};
use crate::id::Time;
use crate::text::{LineError, check_required_line};

/// Most networks of one key.
pub const MAX_NETWORKS: usize = 64;
/// Most audiences of one key.
pub const MAX_AUDIENCES: usize = 32;
/// Longest audience, in bytes.
pub const MAX_AUDIENCE: usize = 128;
/// Most uses of a rate.
pub const MAX_RATE: u32 = 1_000_000_000;
/// Longest window of a rate.
pub const MAX_WINDOW: i64 = 86_400 * Time::MICROS_PER_SECOND;
/// The audience of Keyledger itself: who calls it with a key presents the key to it.
pub const OWN_AUDIENCE: &str = "keyledger";

/// The conditions of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restrictions {
    networks: Box<[Network]>,
    audiences: Box<[Box<str>]>,
    /// 0: as often as one likes.
    max_uses: u64,
    rate: Option<Rate>,
}

/// So many allowed uses in each window of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    uses: u32,
    window_us: i64,
}

/// How often a key with a limit was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    pub total: u64,
    /// When the newest window began in which it was used, in microseconds.
    pub window: i64,
    pub in_window: u32,
}

/// A network in CIDR notation (RFC 4632 §3.1, RFC 4291 §2.3), all bits after the prefix 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// What is to be changed of a key's restrictions: of `to`, the parts that are named.
#[derive(Clone, Debug)]
pub struct RestrictionChange {
    pub to: Restrictions,
    pub networks: bool,
    pub audiences: bool,
    pub max_uses: bool,
    pub rate: bool,
}

impl RestrictionChange {
    /// All of it.
    pub fn all(to: Restrictions) -> RestrictionChange {
        RestrictionChange { to, networks: true, audiences: true, max_uses: true, rate: true }
    }

    /// What the restrictions are after the change.
    pub fn of(&self, old: &Restrictions) -> Restrictions {
        let from = |named: bool| if named { &self.to } else { old };
        Restrictions {
            networks: from(self.networks).networks.clone(),
            audiences: from(self.audiences).audiences.clone(),
            max_uses: from(self.max_uses).max_uses,
            rate: from(self.rate).rate,
        }
    }
}

/// How a key is presented.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    pub from: Source,
    /// `None` where the audience doesn't matter.
    pub audience: Option<&'a str>,
}

/// Where a key is used from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Address(IpAddr),
    /// Nobody said: no restricted key is accepted.
    Unknown,
    /// It was judged when it happened; addresses are sealed, so it can't be judged again.
    Judged,
}

impl Source {
    /// From an address that somebody may have said.
    pub fn of(address: Option<IpAddr>) -> Source {
        address.map_or(Source::Unknown, Source::Address)
    }
}

/// Why restrictions are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestrictionError {
    #[error(
        "must be a network such as 203.0.113.0/24 or 2001:db8::/32, with all bits after the prefix 0"
    )]
    Network,
    #[error("must name at most {MAX_NETWORKS} networks")]
    TooManyNetworks,
    #[error("must name at most {MAX_AUDIENCES} audiences")]
    TooManyAudiences,
    #[error(transparent)]
    Audience(#[from] LineError),
    #[error("must be 1 to {MAX_RATE} uses in 1 second to 1 day")]
    Rate,
}

impl Restrictions {
    pub fn from_body(
        restrictions: Option<&body::Restrictions>,
    ) -> Result<Restrictions, RestrictionError> {
        let Some(r) = restrictions else { return Ok(Restrictions::default()) };
        if r.networks.len() > MAX_NETWORKS {
            return Err(RestrictionError::TooManyNetworks);
        }
        if r.audiences.len() > MAX_AUDIENCES {
            return Err(RestrictionError::TooManyAudiences);
        }
        r.audiences.iter().try_for_each(|a| check_required_line(a, MAX_AUDIENCE))?;
        Ok(Restrictions {
            networks: r.networks.iter().map(|n| n.parse()).collect::<Result<_, _>>()?,
            audiences: r.audiences.iter().map(|a| a.as_str().into()).collect(),
            max_uses: r.max_uses,
            rate: r.rate.map(Rate::from_body).transpose()?,
        })
    }

    /// `None` if nothing is restricted.
    pub fn to_body(&self) -> Option<body::Restrictions> {
        (!self.is_empty()).then(|| body::Restrictions {
            networks: self.networks.iter().map(Network::to_string).collect(),
            audiences: self.audiences.iter().map(|a| a.to_string()).collect(),
            max_uses: self.max_uses,
            rate: self.rate.map(|r| body::Rate { uses: r.uses, window_us: r.window_us }),
        })
    }

    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.audiences.is_empty() && !self.is_limited()
    }

    /// Whether it matters where the key is used from.
    pub fn names_networks(&self) -> bool {
        !self.networks.is_empty()
    }

    /// Whether its uses are counted.
    pub fn is_limited(&self) -> bool {
        self.max_uses != 0 || self.rate.is_some()
    }

    /// Whether one more use is left at this time, after those that are counted and `more` that are not yet.
    pub fn check_uses(&self, used: &Used, more: u32, now: Time) -> Result<(), DecisionReason> {
        if self.max_uses != 0 && used.total.saturating_add(more.into()) >= self.max_uses {
            return Err(DecisionReason::UsesSpent);
        }
        let Some(rate) = self.rate else { return Ok(()) };
        let so_far = if used.window == rate.window(now) { used.in_window } else { 0 };
        match so_far.saturating_add(more) >= rate.uses {
            true => Err(DecisionReason::Rate),
            false => Ok(()),
        }
    }

    /// Counts uses. `None` if they are more than were left.
    pub fn count(&self, used: &Used, uses: u32, now: Time) -> Option<Used> {
        let more = uses.checked_sub(1)?;
        self.check_uses(used, more, now).ok()?;
        let window = self.rate.map_or(0, |rate| rate.window(now));
        let so_far = if used.window == window { used.in_window } else { 0 };
        let in_window = so_far.saturating_add(uses);
        Some(Used { total: used.total.saturating_add(uses.into()), window, in_window })
    }

    /// How many uses are left in all; `None` for as many as one likes.
    pub fn uses_left(&self, used: &Used) -> Option<u64> {
        (self.max_uses != 0).then(|| self.max_uses.saturating_sub(used.total))
    }

    /// When the next window begins, if there is a rate.
    pub fn next_window(&self, now: Time) -> Option<Time> {
        self.rate.map(|rate| Time(rate.window(now).saturating_add(rate.window_us)))
    }

    /// Whether a key with these restrictions is accepted so. The network first: who is in the wrong place is told no more.
    pub fn check(&self, circumstances: Circumstances<'_>) -> Result<(), DecisionReason> {
        let from_here = match circumstances.from {
            Source::Address(address) => self.networks.iter().any(|n| n.contains(address)),
            Source::Unknown => false,
            Source::Judged => true,
        };
        if !self.networks.is_empty() && !from_here {
            return Err(DecisionReason::Network);
        }
        let Some(audience) = circumstances.audience else { return Ok(()) };
        if !self.audiences.is_empty() && !self.audiences.iter().any(|a| &**a == audience) {
            return Err(DecisionReason::Audience);
        }
        Ok(())
    }

    /// Whether a key restricted so is accepted nowhere where one restricted as `outer` isn't, and no more often.
    pub fn inside(&self, outer: &Restrictions) -> bool {
        self.beyond(outer).is_none()
    }

    /// What of it goes beyond `outer`.
    pub fn beyond(&self, outer: &Restrictions) -> Option<&'static str> {
        let networks = outer.networks.is_empty()
            || !self.networks.is_empty()
                && self.networks.iter().all(|n| outer.networks.iter().any(|o| o.covers(n)));
        let audiences = outer.audiences.is_empty()
            || !self.audiences.is_empty()
                && self.audiences.iter().all(|a| outer.audiences.contains(a));
        let max_uses = outer.max_uses == 0 || (1..=outer.max_uses).contains(&self.max_uses);
        let rate = outer.rate.is_none_or(|o| self.rate.is_some_and(|r| r.inside(o)));
        [
            (networks, "networks"),
            (audiences, "audiences"),
            (max_uses, "a number of uses"),
            (rate, "a rate"),
        ]
        .into_iter()
        .find_map(|(inside, what)| (!inside).then_some(what))
    }
}

impl Rate {
    fn from_body(rate: body::Rate) -> Result<Rate, RestrictionError> {
        let body::Rate { uses, window_us } = rate;
        let good = (1..=MAX_RATE).contains(&uses)
            && (Time::MICROS_PER_SECOND..=MAX_WINDOW).contains(&window_us);
        if good { Ok(Rate { uses, window_us }) } else { Err(RestrictionError::Rate) }
    }

    /// When the window of a time began.
    fn window(&self, now: Time) -> i64 {
        now.micros() - now.micros().rem_euclid(self.window_us)
    }

    /// Neither more at once nor more in the long run.
    fn inside(&self, outer: Rate) -> bool {
        let pace = |a: &Rate, b: &Rate| i128::from(a.uses) * i128::from(b.window_us);
        self.uses <= outer.uses && pace(self, &outer) <= pace(&outer, self)
    }
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.address.is_ipv4() == address.is_ipv4() && masked(address, self.prefix) == self.address
    }

    /// Whether every address of `other` is one of this network.
    pub fn covers(&self, other: &Network) -> bool {
        self.prefix <= other.prefix && self.contains(other.address)
    }
}

impl FromStr for Network {
    type Err = RestrictionError;

    /// Exactly one text for each network: a second one would be a second meaning of the same signed bytes.
    fn from_str(text: &str) -> Result<Network, RestrictionError> {
        let network = || {
            let (address, prefix) = text.split_once('/')?;
            let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
            let longest = if address.is_ipv4() { 32 } else { 128 };
            let canonical = address.to_canonical() == address && prefix <= longest;
            let network = Network { address, prefix };
            (canonical && masked(address, prefix) == address && network.to_string() == text)
                .then_some(network)
        };
        network().ok_or(RestrictionError::Network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The address with all bits after the prefix 0.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn restrictions(networks: &[&str], audiences: &[&str]) -> Restrictions {
        let texts = |all: &[&str]| all.iter().map(|t| t.to_string()).collect();
        let body = body::Restrictions {
            networks: texts(networks),
            audiences: texts(audiences),
            ..Default::default()
        };
        Restrictions::from_body(Some(&body)).unwrap()
    }

    fn limited(max_uses: u64, rate: Option<(u32, i64)>) -> Restrictions {
        let rate = rate.map(|(uses, seconds)| body::Rate { uses, window_us: seconds * 1_000_000 });
        let body = body::Restrictions { max_uses, rate, ..Default::default() };
        Restrictions::from_body(Some(&body)).unwrap()
    }

    #[test]
    fn limits_lie_inside_others_as_the_table_says() {
        for (inner, outer, expected) in [
            (limited(5, None), limited(5, None), true),
            (limited(6, None), limited(5, None), false),
            (limited(0, None), limited(5, None), false),
            (limited(5, None), limited(0, None), true),
            (limited(0, Some((10, 60))), limited(0, Some((10, 60))), true),
            (limited(0, Some((10, 30))), limited(0, Some((10, 60))), false),
            (limited(0, Some((5, 30))), limited(0, Some((10, 60))), true),
            (limited(0, Some((11, 600))), limited(0, Some((10, 60))), false),
            (limited(0, None), limited(0, Some((10, 60))), false),
        ] {
            assert_eq!(inner.inside(&outer), expected, "{inner:?} in {outer:?}");
        }
        for bad in [(0, 1), (1, 0), (1, 86_401), (MAX_RATE + 1, 1)] {
            let rate = Some(body::Rate { uses: bad.0, window_us: bad.1 * 1_000_000 });
            let body = body::Restrictions { rate, ..Default::default() };
            assert_eq!(Restrictions::from_body(Some(&body)), Err(RestrictionError::Rate));
        }
    }

    fn address(text: &str) -> Source {
        Source::Address(text.parse().unwrap())
    }

    #[test]
    fn a_network_has_exactly_one_text() {
        for good in ["0.0.0.0/0", "203.0.113.0/24", "203.0.113.7/32", "2001:db8::/32", "::1/128"] {
            assert_eq!(good.parse::<Network>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "203.0.113.7",
            "203.0.113.7/24",
            "203.0.113.0/33",
            "203.0.113.0/024",
            "::ffff:1.2.3.4/128",
            "2001:DB8::/32",
            "2001:db8::1/32",
            "::/129",
            "1.2.3/8",
            "a/1",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
        ] {
            assert_eq!(bad.parse::<Network>(), Err(RestrictionError::Network), "{bad}");
        }
    }

    #[test]
    fn a_key_is_accepted_as_the_table_says() {
        use DecisionReason::{Audience, Network};
        let office = restrictions(&["203.0.113.0/24", "2001:db8::/32"], &["billing"]);
        let table = [
            (address("203.0.113.7"), Some("billing"), Ok(())),
            (address("::ffff:203.0.113.7"), Some("billing"), Ok(())),
            (address("2001:db8::7"), Some("billing"), Ok(())),
            (address("203.0.114.7"), Some("billing"), Err(Network)),
            (address("203.0.114.7"), Some("other"), Err(Network)),
            (Source::Unknown, Some("billing"), Err(Network)),
            (Source::Judged, Some("billing"), Ok(())),
            (address("203.0.113.7"), Some(""), Err(Audience)),
            (address("203.0.113.7"), Some("Billing"), Err(Audience)),
            (address("203.0.113.7"), None, Ok(())),
        ];
        for (from, audience, expected) in table {
            let circumstances = Circumstances { from, audience };
            assert_eq!(office.check(circumstances), expected, "{circumstances:?}");
            assert_eq!(Restrictions::default().check(circumstances), Ok(()));
        }
    }

    #[test]
    fn restrictions_lie_inside_others_as_the_table_says() {
        let free = Restrictions::default();
        let wide = restrictions(&["10.0.0.0/8"], &["a", "b"]);
        let narrow = restrictions(&["10.1.0.0/16"], &["a"]);
        for (inner, outer, expected) in [
            (&free, &free, true),
            (&wide, &free, true),
            (&free, &wide, false),
            (&narrow, &wide, true),
            (&wide, &narrow, false),
            (&restrictions(&["10.0.0.0/8"], &[]), &wide, false),
            (&restrictions(&[], &["a"]), &wide, false),
            (&restrictions(&["10.0.0.0/8", "11.0.0.0/8"], &["a"]), &wide, false),
        ] {
            assert_eq!(inner.inside(outer), expected, "{inner:?} in {outer:?}");
        }
    }

    proptest! {
        #[test]
        fn no_more_uses_are_counted_than_there_are_however_they_come(
            max_uses in 0u64..20, rate in prop::option::of((1u32..5, 1i64..4)),
            steps in prop::collection::vec((1u32..4, 0i64..3_000_000), 0..60),
        ) {
            let limits = limited(max_uses, rate);
            let (mut used, mut now, mut total) = (Used::default(), Time(1), 0);
            let mut by_window = std::collections::BTreeMap::<i64, u32>::new();
            for (uses, pause) in steps {
                now = now.plus_micros(pause);
                let next = limits.count(&used, uses, now);
                prop_assert_eq!(next.is_some(), limits.check_uses(&used, uses - 1, now).is_ok());
                let Some(next) = next else { continue };
                used = next;
                total += u64::from(uses);
                if let Some(rate) = limits.rate {
                    *by_window.entry(rate.window(now)).or_default() += uses;
                }
            }
            prop_assert_eq!(used.total, total);
            prop_assert!(max_uses == 0 || total <= max_uses);
            prop_assert!(by_window.values().all(|n| rate.is_none_or(|(uses, _)| *n <= uses)));
        }

        #[test]
        fn what_lies_inside_is_accepted_only_where_the_outer_is(
            a in any::<u32>(), b in any::<u32>(), p in 0u8..=32, q in 0u8..=32, host in any::<u32>(),
        ) {
            let network = |bits: u32, prefix| {
                let address = masked(IpAddr::V4(bits.into()), prefix);
                Network { address, prefix }
            };
            // Near each other, so that they often meet.
            let (outer, inner) = (network(a, p), network(a ^ (b >> p.min(31)), q));
            let address = IpAddr::V4((a ^ (host >> q.min(31))).into());
            if outer.covers(&inner) && inner.contains(address) {
                prop_assert!(outer.contains(address));
            }
            prop_assert!(inner.contains(inner.address));
        }
    }
}
