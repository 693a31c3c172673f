//! Requests for documents.

use keyledger_ledger::id::KeyId;

use super::{Violation, Violations, parse_key_id};
use crate::{DescribeKeyRequest, DescribeLedgerRequest, DocumentFormat};

/// Most keys of one description, by default and at all.
const USUAL_KEYS: u64 = 10_000;
const MAX_KEYS: u64 = 100_000;

/// A checked DescribeLedger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescribeLedger {
    pub live_only: bool,
    pub max_keys: u64,
}

pub fn describe_key(r: DescribeKeyRequest) -> Result<(KeyId, DocumentFormat), Vec<Violation>> {
    let mut v = Violations::default();
    let key_id = parse_key_id(&mut v, "key_id", &r.key_id);
    let format = DocumentFormat::try_from(r.format);
    if format.is_err() {
        v.add("format", "must be one of the published formats");
    }
    v.finish(key_id.zip(format.ok()))
}

pub fn describe_ledger(r: DescribeLedgerRequest) -> Result<DescribeLedger, Vec<Violation>> {
    let mut v = Violations::default();
    let max_keys = if r.max_keys == 0 { USUAL_KEYS } else { r.max_keys.into() };
    if max_keys > MAX_KEYS {
        v.add("max_keys", format!("must be at most {MAX_KEYS}"));
    }
    v.finish(Some(DescribeLedger { live_only: r.live_only, max_keys }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_of_one_key_in_a_published_format() {
        let id = "0198c5a0-0000-8000-8000-000000000001";
        let ask = |key_id: &str, format| {
            describe_key(DescribeKeyRequest { key_id: key_id.into(), format })
        };
        assert_eq!(ask(id, 2).unwrap().1, DocumentFormat::Html);
        assert_eq!(ask(id, 0).unwrap().1, DocumentFormat::Unspecified);
        assert_eq!(ask(id, 9).unwrap_err()[0].field, "format");
        assert_eq!(ask("x", 1).unwrap_err()[0].field, "key_id");
    }

    #[test]
    fn a_ledger_is_described_up_to_so_many_keys() {
        let most = |max_keys| {
            let asked = describe_ledger(DescribeLedgerRequest { max_keys, live_only: false });
            asked.map(|r| r.max_keys)
        };
        assert_eq!(most(0), Ok(10_000));
        assert_eq!(most(100_000), Ok(100_000));
        assert_eq!(most(100_001).unwrap_err()[0].field, "max_keys");
    }
}
