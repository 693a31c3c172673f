//! What is asked of ExportEvents.

use keyledger_ledger::export::ExportFormat;
use keyledger_ledger::id::KeyId;
use prost::Message;

use super::{EventFilter, Violation, Violations, event_filter};
use crate::ExportEventsRequest;

/// Longest resume token.
const MAX_TOKEN: usize = 4_096;

/// What is asked of ExportEvents.
#[derive(Clone, Debug)]
pub struct ExportEvents {
    pub key_id: Option<KeyId>,
    pub category: String,
    pub filter: EventFilter,
    pub from_position: u64,
    pub format: ExportFormat,
    pub resume_token: Vec<u8>,
    /// The request without its token: what the manifest says was asked, and what a token belongs to.
    pub asked: Vec<u8>,
}

pub fn export_events(r: ExportEventsRequest) -> Result<ExportEvents, Vec<Violation>> {
    let key_id = super::optional_key_id("key_id", &r.key_id)?;
    super::category(&r.category)?;
    super::position("from_position", Some(r.from_position), false)?;
    let asked = ExportEventsRequest { resume_token: vec![], ..r.clone() }.encode_to_vec();
    let mut v = Violations::default();
    let format = ExportFormat::try_from(r.format);
    if format.is_err() {
        v.add("format", "must be one of the named formats");
    }
    if r.resume_token.len() > MAX_TOKEN {
        v.add("resume_token", format!("must be at most {MAX_TOKEN} bytes"));
    }
    let filter = event_filter::parse(&mut v, r.filter.unwrap_or_default());
    let format = match format.unwrap_or_default() {
        ExportFormat::Unspecified => ExportFormat::JsonLines,
        format => format,
    };
    let (category, from_position, resume_token) = (r.category, r.from_position, r.resume_token);
    v.finish(filter.map(|filter| ExportEvents {
        key_id,
        category,
        filter,
        from_position,
        format,
        resume_token,
        asked,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_an_export_is_named() {
        let request = ExportEventsRequest {
            format: 77,
            resume_token: vec![0; MAX_TOKEN + 1],
            ..Default::default()
        };
        let fields: Vec<String> =
            export_events(request).unwrap_err().into_iter().map(|v| v.field).collect();
        assert_eq!(fields, ["format", "resume_token"]);
        let far = ExportEventsRequest { from_position: u64::MAX, ..Default::default() };
        assert!(export_events(far).is_err());
        let good = export_events(ExportEventsRequest::default()).unwrap();
        assert_eq!(good.format, ExportFormat::JsonLines);
        let token = ExportEventsRequest { resume_token: vec![7], ..Default::default() };
        assert_eq!(export_events(token).unwrap().asked, good.asked);
    }
}
