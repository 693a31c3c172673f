//! Which network addresses a forwarder may send to.
//!
//! A name in a configuration may resolve to anything, also to a machine beside us that trusts whoever reaches it. So an address
//! is judged after it was resolved, and exactly that address is connected to. Sources: the IANA special-purpose address
//! registries for IPv4 and IPv6 (RFC 6890).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Anybody's, on the public network.
    Public,
    /// This machine.
    Loopback,
    /// Of a network of our own, or of one that only some see; in words.
    Private(&'static str),
    /// Nothing that one can connect to; in words.
    Nowhere(&'static str),
}

/// What an address is.
pub(super) fn place(address: IpAddr) -> Place {
    match address {
        IpAddr::V4(address) => place_v4(address),
        IpAddr::V6(address) => place_v6(address),
    }
}

fn place_v4(address: Ipv4Addr) -> Place {
    match address.octets() {
        [0, ..] => Place::Nowhere("an unspecified address"),
        [127, ..] => Place::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Place::Private("a private address"),
        [100, 64..=127, ..] => Place::Private("an address shared behind a carrier's NAT"),
        [169, 254, ..] => Place::Private("a link-local address"),
        [192, 0, 0, _] | [198, 18..=19, ..] | [192, 88, 99, _] => {
            Place::Private("an address for special purposes")
        }
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => {
            Place::Private("an address for documentation")
        }
        [224..=239, ..] => Place::Nowhere("a multicast address"),
        [240..=255, ..] => Place::Nowhere("a reserved or broadcast address"),
        _ => Place::Public,
    }
}

fn place_v6(address: Ipv6Addr) -> Place {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Place::Nowhere("an unspecified address"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Place::Loopback,
        // Also those of public IPv4 addresses: nobody needs them, and they hide what is meant.
        [0, 0, 0, 0, 0, 0xffff, ..] => Place::Private("an IPv4-mapped address"),
        [0, 0, 0, 0, 0, 0, ..] => Place::Private("an IPv4-compatible address"),
        // NAT64 reaches the IPv4 address in its last four bytes.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            match place_v4(Ipv4Addr::new(a, b, c, d)) {
                Place::Loopback => Place::Private("an IPv4 address of a translator's own machine"),
                other => other,
            }
        }
        [0xfe80..=0xfebf, ..] => Place::Private("a link-local address"),
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Place::Private("a private address"),
        [0xff00..=0xffff, ..] => Place::Nowhere("a multicast address"),
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => {
            Place::Private("an address for documentation")
        }
        // Teredo, benchmarks, ORCHID and others; 6to4, which reaches an IPv4 address.
        [0x2001, 0..=0x01ff, ..] | [0x2002, ..] => {
            Place::Private("an address for special purposes")
        }
        [0x2000..=0x3fff, ..] => Place::Public,
        _ => Place::Private("an address outside the global unicast space"),
    }
}

/// What is wrong with sending to an address; `None` if nothing is. What crosses in the clear may not leave this machine.
pub(super) fn refusal(address: IpAddr, allow_private: bool, encrypted: bool) -> Option<String> {
    match place(address) {
        Place::Nowhere(what) => Some(format!("{what} is never sent to")),
        Place::Private(what) if !allow_private => {
            Some(format!("{what} is refused without allow_private"))
        }
        Place::Loopback if !allow_private => {
            Some("a loopback address is refused without allow_private".into())
        }
        Place::Loopback => None,
        _ if !encrypted => Some("without TLS nothing but a loopback address is sent to".into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: &[&str] = &[
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.1",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2000::1",
        "2001:200::1",
        "2001:db9::1",
        "2003::1",
        "2606:4700::1111",
        "3ffe::1",
        "64:ff9b::808:808",
    ];
    const LOOPBACK: &[&str] = &["127.0.0.1", "127.255.255.254", "::1"];
    const PRIVATE: &[&str] = &[
        "10.0.0.0",
        "10.255.255.255",
        "100.64.0.0",
        "100.127.255.255",
        "169.254.169.254",
        "172.16.0.0",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.0",
        "192.168.255.255",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "::2",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:2::1",
        "2001:10::1",
        "2001:1ff::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "3fff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
    ];
    const NOWHERE: &[&str] = &[
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "ff02::1",
        "64:ff9b::",
    ];

    fn each(of: &[&str]) -> Vec<IpAddr> {
        of.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn what_an_address_is_follows_the_registries_up_to_their_edges() {
        for address in each(PUBLIC) {
            assert_eq!(place(address), Place::Public, "{address}");
        }
        for address in each(LOOPBACK) {
            assert_eq!(place(address), Place::Loopback, "{address}");
        }
        for address in each(PRIVATE) {
            assert!(matches!(place(address), Place::Private(_)), "{address}");
        }
        for address in each(NOWHERE) {
            assert!(matches!(place(address), Place::Nowhere(_)), "{address}");
        }
    }

    #[test]
    fn nothing_but_public_addresses_is_sent_to_unless_that_is_allowed_and_encrypted() {
        for address in each(PUBLIC) {
            assert_eq!(refusal(address, false, true), None, "{address}");
            assert!(refusal(address, false, false).is_some(), "{address}");
            assert!(refusal(address, true, false).is_some(), "{address}");
        }
        for address in each(PRIVATE) {
            assert!(refusal(address, false, true).is_some(), "{address}");
            assert_eq!(refusal(address, true, true), None, "{address}");
            assert!(refusal(address, true, false).is_some(), "{address}");
        }
        for address in each(LOOPBACK) {
            assert!(refusal(address, false, true).is_some(), "{address}");
            assert!(refusal(address, false, false).is_some(), "{address}");
            assert_eq!(refusal(address, true, true), None, "{address}");
            assert_eq!(refusal(address, true, false), None, "{address}");
        }
        for address in each(NOWHERE) {
            assert!(refusal(address, true, true).is_some(), "{address}");
        }
    }

    #[test]
    fn every_way_to_write_an_ipv4_address_in_ipv6_is_refused_where_the_address_is() {
        for address in each(PRIVATE).into_iter().chain(each(LOOPBACK)).chain(each(NOWHERE)) {
            let IpAddr::V4(v4) = address else { continue };
            let [a, b, c, d] = v4.octets();
            let tail = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
            for form in [
                v4.to_ipv6_mapped(),
                Ipv6Addr::new(0, 0, 0, 0, 0, 0, tail[0], tail[1]),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, tail[0], tail[1]),
                Ipv6Addr::new(0x2002, tail[0], tail[1], 0, 0, 0, 0, 1),
            ] {
                assert!(refusal(form.into(), false, true).is_some(), "{form}");
            }
        }
    }
}
