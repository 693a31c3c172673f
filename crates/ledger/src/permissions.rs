//! The catalogue of permissions as a ledger keeps it: which prefixes are Keyledger's own, and what a service may register.
//!
//! A prefix is the first segment of dotted names: `billing` of `billing.read`. Whoever registers one first owns it.

use crate::grant::check_permission;

/// First segments of what Keyledger asks for itself, or keeps for what it may ask for one day. Nobody registers them.
pub const RESERVED: &[&str] =
    &["audit", "keyledger", "keys", "ledgers", "owners", "permissions", "reviews", "roles"];
/// Most prefixes of one ledger.
pub const MAX_PREFIXES: usize = 100;
/// Most permissions under one prefix.
pub const MAX_OF_PREFIX: usize = 100;
/// Longest prefix, in bytes.
pub const MAX_PREFIX: usize = 64;
/// Longest sentence about a permission, in bytes.
pub const MAX_DESCRIPTION: usize = 256;

/// Whether a prefix is Keyledger's own.
pub fn is_reserved(prefix: &str) -> bool {
    RESERVED.contains(&prefix)
}

/// Whether a text may be a prefix: `a-z 0-9 -`.
pub fn is_prefix(text: &str) -> bool {
    let good = |b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=MAX_PREFIX).contains(&text.len()) && text.bytes().all(good)
}

/// Whether a name is that of one permission under a prefix.
pub fn is_under(prefix: &str, name: &str) -> bool {
    let below = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'));
    below.is_some_and(|rest| !rest.is_empty()) && check_permission(name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_one_segment_of_plain_letters_digits_and_hyphens() {
        for good in ["billing", "a", "7", "pay-roll", &"x".repeat(64)] {
            assert!(is_prefix(good), "{good}");
        }
        for bad in ["", "Billing", "a.b", "a_b", "ä", "a b", "*", &"x".repeat(65)] {
            assert!(!is_prefix(bad), "{bad}");
        }
    }

    #[test]
    fn a_name_under_a_prefix_is_longer_than_it_and_no_pattern() {
        for good in ["billing.read", "billing.invoices.read", "billing.a_b-c"] {
            assert!(is_under("billing", good), "{good}");
        }
        let long = format!("billing.{}", "x".repeat(128));
        for bad in
            ["billing", "billing.", "billing..x", "billings.read", "billing.*", "*", "a.b", &long]
        {
            assert!(!is_under("billing", bad), "{bad}");
        }
    }
}
