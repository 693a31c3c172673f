//! A key with its traces, and a trace with its keys.

use keyledger_ledger::id::KeyId;

use super::events::hex_bytes;
use super::{AsOf, Violation, Violations, page_size, parse_as_of_time, parse_key_id};

/// What is asked of GetKey.
pub struct GetKey {
    pub key_id: KeyId,
    pub as_of: AsOf,
    pub include_traces: bool,
}

pub fn get_key(r: crate::GetKeyRequest) -> Result<GetKey, Vec<Violation>> {
    use crate::get_key_request::AsOf as Wire;
    let mut v = Violations::default();
    let key_id = parse_key_id(&mut v, "key_id", &r.key_id);
    let as_of = match r.as_of {
        None => AsOf::Now,
        Some(Wire::AsOfPosition(position)) => AsOf::Position(position),
        Some(Wire::AsOfTime(time)) => parse_as_of_time(&mut v, time),
    };
    let include_traces = r.include_traces;
    v.finish(key_id.map(|key_id| GetKey { key_id, as_of, include_traces }))
}

/// What is asked of GetTrace.
#[derive(Debug)]
pub struct GetTrace {
    pub trace_id: [u8; 16],
    pub page_size: usize,
    pub page_token: String,
}

pub fn get_trace(r: crate::GetTraceRequest) -> Result<GetTrace, Vec<Violation>> {
    let size = page_size(r.page_size);
    let mut v = Violations::default();
    let trace_id = trace_id(&r.trace_id);
    if trace_id.is_none() {
        v.add("trace_id", TRACE_ID_FORM);
    }
    size.as_ref()
        .err()
        .into_iter()
        .flatten()
        .for_each(|wrong| v.add("page_size", &wrong.description));
    let (page_size, page_token) = (size.unwrap_or_default(), r.page_token);
    v.finish(trace_id.map(|trace_id| GetTrace { trace_id, page_size, page_token }))
}

/// What a trace id must be.
pub const TRACE_ID_FORM: &str =
    "must be 32 lower-case hexadecimal digits, not all 0 (W3C Trace Context)";

/// A trace id, exactly as W3C Trace Context writes it (§3.2.2.3).
pub fn trace_id(text: &str) -> Option<[u8; 16]> {
    let lower = !text.bytes().any(|b| b.is_ascii_uppercase());
    hex_bytes::<16>(text).filter(|id| lower && *id != [0; 16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_id_is_read_as_the_w3c_recommendation_writes_it() {
        let good = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(trace_id(good).map(|id| crate::show::hex(&id)), Some(good.into()));
        for bad in [
            "",
            "0AF7651916CD43DD8448EB211C80319C",
            "0af7651916cd43dd8448eb211c80319",
            "0af7651916cd43dd8448eb211c80319c0",
            "00000000000000000000000000000000",
            "0af76519-16cd-43dd-8448-eb211c80319c",
            " 0af7651916cd43dd8448eb211c80319c",
            "0xf7651916cd43dd8448eb211c80319c",
            "äf7651916cd43dd8448eb211c80319c",
        ] {
            assert_eq!(trace_id(bad), None, "{bad}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_named_at_once() {
        let request = crate::GetTraceRequest { page_size: -1, ..Default::default() };
        let wrong = get_trace(request).unwrap_err();
        let fields: Vec<&str> = wrong.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["trace_id", "page_size"]);
    }
}
