//! Restrictions: the conditions under which a key is accepted, whatever its grants say. What is not restricted is free.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::body::{self, DecisionReason};
use crate::text::{LineError, check_required_line};

/// Most networks of one key.
pub const MAX_NETWORKS: usize = 64;
/// Most audiences of one key.
pub const MAX_AUDIENCES: usize = 32;
/// Longest audience, in bytes.
pub const MAX_AUDIENCE: usize = 128;
/// The audience of Keyledger itself: who calls it with a key presents the key to it.
pub const OWN_AUDIENCE: &str = "keyledger";

/// The conditions of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restrictions {
    networks: Box<[Network]>,
    audiences: Box<[Box<str>]>,
}

/// A network in CIDR notation (RFC 4632 §3.1, RFC 4291 §2.3), all bits after the prefix 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
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
        })
    }

    /// `None` if nothing is restricted.
    pub fn to_body(&self) -> Option<body::Restrictions> {
        (!self.is_empty()).then(|| body::Restrictions {
            networks: self.networks.iter().map(Network::to_string).collect(),
            audiences: self.audiences.iter().map(|a| a.to_string()).collect(),
        })
    }

    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.audiences.is_empty()
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

    /// Whether a key restricted so is accepted nowhere where one restricted as `outer` isn't.
    pub fn inside(&self, outer: &Restrictions) -> bool {
        let networks = outer.networks.is_empty()
            || !self.networks.is_empty()
                && self.networks.iter().all(|n| outer.networks.iter().any(|o| o.covers(n)));
        let audiences = outer.audiences.is_empty()
            || !self.audiences.is_empty()
                && self.audiences.iter().all(|a| outer.audiences.contains(a));
        networks && audiences
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
        let body = body::Restrictions { networks: texts(networks), audiences: texts(audiences) };
        Restrictions::from_body(Some(&body)).unwrap()
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
