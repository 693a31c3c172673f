//! Uses that a service answered by itself. What their receipts say is for the server to find out.

use core::net::IpAddr;

use keyledger_ledger::id::{KeyId, Time, Trace};
use keyledger_ledger::reports::{MAX_REPORTED, is_session_id};
use keyledger_ledger::text::{MAX_TEXT, check_line};

use super::events::parse_trace;
use super::{MAX_USER_AGENT, Violation, Violations, micros, parse_address};
use crate::{ReportUsesRequest, ReportedUse};

/// Longest receipt.
const MAX_RECEIPT: usize = 2_048;
/// Of so many uses it is said what is wrong with them.
const MAX_WRONG: usize = 10;

/// What a service reports.
#[derive(Clone, Debug)]
pub struct CheckedReport {
    pub session: [u8; 16],
    pub first_number: u64,
    pub uses: Vec<CheckedUse>,
    pub end: bool,
}

/// A use that a service says it answered.
#[derive(Clone, Debug)]
pub struct CheckedUse {
    pub receipt: Vec<u8>,
    pub time: Time,
    pub client_address: String,
    pub address: Option<IpAddr>,
    pub client_user_agent: String,
    pub reason: String,
    pub trace: Trace,
}

pub fn report_uses(r: ReportUsesRequest) -> Result<CheckedReport, Vec<Violation>> {
    let mut v = Violations::default();
    let session = KeyId::parse(&r.session_id).map(|id| *id.as_bytes());
    let session = session.filter(|id| is_session_id(*id));
    if session.is_none() {
        v.add("session_id", "must be a UUID of version 7");
    }
    if r.uses.len() > MAX_REPORTED || r.uses.is_empty() && !r.end {
        v.add("uses", format!("must hold 1 to {MAX_REPORTED} items, or none with `end`"));
    }
    if r.first_number > i64::MAX as u64 - MAX_REPORTED as u64 {
        v.add("first_number", "must be less than 2^63, and so must the numbers of all uses");
    }
    let (mut uses, mut wrong) = (vec![], 0);
    for (i, reported) in r.uses.into_iter().enumerate().take(MAX_REPORTED) {
        match reported_use(reported) {
            Ok(checked) => uses.push(checked),
            Err(violations) => {
                for Violation { field, description } in violations {
                    v.add(format!("uses[{i}].{field}"), description);
                }
                wrong += 1;
            }
        }
        if wrong == MAX_WRONG {
            break;
        }
    }
    let (first_number, end) = (r.first_number, r.end);
    v.finish(session.map(|session| CheckedReport { session, first_number, uses, end }))
}

fn reported_use(r: ReportedUse) -> Result<CheckedUse, Vec<Violation>> {
    let mut v = Violations::default();
    if !(1..=MAX_RECEIPT).contains(&r.receipt.len()) {
        v.add("receipt", format!("must hold 1 to {MAX_RECEIPT} bytes"));
    }
    let time = r.time.and_then(|t| micros(t.seconds, t.nanos)).filter(|micros| *micros > 0);
    if time.is_none() {
        v.add("time", "must be a valid time after 1970");
    }
    let address = parse_address(&mut v, "client_address", &r.client_address);
    v.take("client_user_agent", check_line(&r.client_user_agent, MAX_USER_AGENT));
    v.take("reason", check_line(&r.reason, MAX_TEXT));
    let trace = parse_trace(&mut v, &r.trace_id, &r.span_id);
    let trace = trace.map(|(trace_id, span_id)| Trace { trace_id, span_id }).unwrap_or_default();
    v.finish(time.map(|micros| CheckedUse {
        receipt: r.receipt,
        time: Time(micros),
        client_address: r.client_address,
        address,
        client_user_agent: r.client_user_agent,
        reason: r.reason,
        trace,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: &str = "0198f0c4-7a00-7000-8000-000000000001";

    fn good() -> ReportedUse {
        let time = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
        ReportedUse { receipt: vec![7; 64], time, ..ReportedUse::default() }
    }

    fn report(uses: Vec<ReportedUse>) -> ReportUsesRequest {
        ReportUsesRequest { session_id: SESSION.into(), uses, ..ReportUsesRequest::default() }
    }

    fn fields(request: ReportUsesRequest) -> Vec<String> {
        let wrong = report_uses(request).err().unwrap_or_default();
        wrong.into_iter().map(|v| v.field).collect()
    }

    #[test]
    fn what_can_not_be_reported_is_refused_with_its_field() {
        assert_eq!(fields(report(vec![good(); MAX_REPORTED])), Vec::<String>::new());
        assert_eq!(fields(ReportUsesRequest { end: true, ..report(vec![]) }), Vec::<String>::new());
        assert_eq!(fields(report(vec![])), ["uses"]);
        assert_eq!(fields(report(vec![good(); MAX_REPORTED + 1])), ["uses"]);
        for id in ["", "x", "0198f0c4-7a00-4000-8000-000000000001"] {
            let request = ReportUsesRequest { session_id: id.into(), ..report(vec![good()]) };
            assert_eq!(fields(request), ["session_id"], "{id}");
        }
        let late = ReportUsesRequest { first_number: u64::MAX, ..report(vec![good()]) };
        assert_eq!(fields(late), ["first_number"]);
        type Spoil = fn(&mut ReportedUse);
        let spoilt: [(Spoil, &str); 7] = [
            (|u| u.receipt.clear(), "receipt"),
            (|u| u.receipt = vec![7; MAX_RECEIPT + 1], "receipt"),
            (|u| u.time = None, "time"),
            (|u| u.client_address = "example.com".into(), "client_address"),
            (|u| u.client_user_agent = "x".repeat(MAX_USER_AGENT + 1), "client_user_agent"),
            (|u| u.reason = "a\nb".into(), "reason"),
            (|u| u.trace_id = "12".into(), "trace_id"),
        ];
        for (spoil, field) in spoilt {
            let mut bad = good();
            spoil(&mut bad);
            assert_eq!(fields(report(vec![good(), bad])), [format!("uses[1].{field}")]);
        }
        let many = vec![ReportedUse { time: None, ..good() }; 50];
        assert_eq!(fields(report(many)).len(), MAX_WRONG);
    }
}
