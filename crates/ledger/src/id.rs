//! Ids and times: values of a few bytes that everything else is made of.

use std::fmt;

use uuid::Uuid;

/// Microseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub i64);

impl Time {
    pub const MICROS_PER_SECOND: i64 = 1_000_000;

    pub fn micros(self) -> i64 {
        self.0
    }

    /// Adds microseconds; stays at the end of time rather than wrapping.
    pub fn plus_micros(self, micros: i64) -> Time {
        Time(self.0.saturating_add(micros))
    }
}

/// Number of a ledger within its deployment. 0 is `system`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LedgerNumber(pub u32);

impl LedgerNumber {
    pub const SYSTEM: LedgerNumber = LedgerNumber(0);
}

/// Stable id of a key: a UUIDv8 (RFC 9562 §5.8) of 48 bits of milliseconds, 32 bits of ledger number, 42 random bits.
/// Ids sort by time, and name the ledger that can answer for them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 16]);

impl KeyId {
    const RANDOM_BITS: u32 = 42;

    /// `random` gives its lowest 42 bits.
    pub fn new(created: Time, ledger: LedgerNumber, random: u64) -> KeyId {
        let millis = (created.micros().max(0) as u64 / 1000) & ((1 << 48) - 1);
        let random = random & ((1 << Self::RANDOM_BITS) - 1);
        // 74 bits follow the time: the ledger number, then the random bits. UUIDv8 keeps 6 bits for itself.
        let tail = (u128::from(ledger.0) << Self::RANDOM_BITS) | u128::from(random);
        let custom =
            (u128::from(millis) << 80) | (((tail >> 62) & 0xfff) << 64) | (tail & ((1 << 62) - 1));
        KeyId(*Uuid::new_v8(custom.to_be_bytes()).as_bytes())
    }

    /// Any 16 bytes may be asked for; only those of [`KeyId::new`] exist.
    pub fn from_bytes(bytes: [u8; 16]) -> KeyId {
        KeyId(bytes)
    }

    pub fn from_slice(bytes: &[u8]) -> Option<KeyId> {
        bytes.try_into().ok().map(KeyId)
    }

    pub fn parse(text: &str) -> Option<KeyId> {
        // The hyphenated form only: one key has one name.
        (text.len() == 36)
            .then(|| Uuid::try_parse(text).ok())
            .flatten()
            .map(|u| KeyId(*u.as_bytes()))
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    pub fn uuid(&self) -> Uuid {
        Uuid::from_bytes(self.0)
    }

    /// The ledger that can answer for this key.
    pub fn ledger(&self) -> LedgerNumber {
        let bits = u128::from_be_bytes(self.0);
        let tail = (((bits >> 64) & 0xfff) << 62) | (bits & ((1 << 62) - 1));
        LedgerNumber((tail >> Self::RANDOM_BITS) as u32)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uuid().fmt(f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uuid().fmt(f)
    }
}

/// W3C trace context of a call: what is signed of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
}

impl Trace {
    /// Empty when there is none: an all-zero id is not valid (W3C Trace Context §3.2.2.3).
    pub fn trace_id_bytes(&self) -> Vec<u8> {
        if self.trace_id == [0; 16] { Vec::new() } else { self.trace_id.to_vec() }
    }

    pub fn span_id_bytes(&self) -> Vec<u8> {
        if self.span_id == [0; 8] { Vec::new() } else { self.span_id.to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_id_names_its_ledger_and_is_a_version_8_uuid(micros in 0i64..1 << 57, ledger: u32, random: u64) {
            let id = KeyId::new(Time(micros), LedgerNumber(ledger), random);
            prop_assert_eq!(id.ledger(), LedgerNumber(ledger));
            prop_assert_eq!(id.uuid().get_version_num(), 8);
            prop_assert_eq!(id.uuid().get_variant(), uuid::Variant::RFC4122);
            prop_assert_eq!(KeyId::parse(&id.to_string()), Some(id));
        }

        #[test]
        fn key_ids_sort_by_the_millisecond_of_their_creation(a in 0i64..1 << 50, b in 0i64..1 << 50, ra: u64, rb: u64) {
            let (x, y) = (KeyId::new(Time(a), LedgerNumber(7), ra), KeyId::new(Time(b), LedgerNumber(7), rb));
            if a / 1000 < b / 1000 { prop_assert!(x < y); }
        }

        #[test]
        fn random_bits_make_different_ids(random in 0u64..(1 << 42) - 1) {
            let id = |r| KeyId::new(Time(0), LedgerNumber(1), r);
            prop_assert_ne!(id(random), id(random + 1));
        }
    }
}
