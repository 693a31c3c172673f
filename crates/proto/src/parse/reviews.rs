//! Requests about owners, findings and reviews.

use std::collections::BTreeSet;

use keyledger_ledger::command::SignReview;
use keyledger_ledger::findings::{Kind, Thresholds};
use keyledger_ledger::id::{KeyId, Time};

use super::changes::{parse_common, parse_owner};
use super::{Common, OwnerName, Violation, Violations, micros, page_size, parse_key_id};
use crate::FindingKind;

/// What is said of an owner.
pub struct SetOwnerStatus {
    pub owner: OwnerName,
    pub left: bool,
    pub common: Common,
}

pub fn set_owner_status(r: crate::SetOwnerStatusRequest) -> Result<SetOwnerStatus, Vec<Violation>> {
    let mut v = Violations::default();
    let owner = parse_owner(&mut v, "owner", r.owner);
    let common = parse_common(&mut v, r.reason, &r.request_id, r.validate_only, r.approval_ref);
    v.finish(owner.map(|owner| SetOwnerStatus { owner, left: r.left, common }))
}

/// What is asked of ListFindings.
pub struct ListFindings {
    /// Empty: all.
    pub kinds: BTreeSet<Kind>,
    pub thresholds: Thresholds,
    pub page_size: usize,
    pub page_token: String,
    /// What selects the list: a page token belongs to it.
    pub query: String,
}

/// Most days of a threshold.
const MAX_DAYS: u32 = 3_660;
/// Most keys of the threshold of an owner.
const MAX_KEYS: u32 = 1_000_000;

pub fn list_findings(r: crate::ListFindingsRequest) -> Result<ListFindings, Vec<Violation>> {
    let page_size = page_size(r.page_size)?;
    let mut v = Violations::default();
    let query = format!("{:?} {:?}", r.kinds, r.thresholds);
    let mut kinds = BTreeSet::new();
    if r.kinds.len() > 64 {
        v.add("kinds", "must hold at most 64 kinds");
    }
    for (i, kind) in r.kinds.iter().enumerate().take(64) {
        match FindingKind::try_from(*kind).ok().and_then(to_kind) {
            Some(kind) => drop(kinds.insert(kind)),
            None => v.add(format!("kinds[{i}]"), "must be one of the named kinds"),
        }
    }
    let wanted = r.thresholds.unwrap_or_default();
    let default = Thresholds::default();
    let mut set = |field: &str, asked: u32, default: u32, most: u32| match asked {
        0 => default,
        asked if asked <= most => asked,
        _ => {
            v.add(format!("thresholds.{field}"), format!("must be 0 to {most}"));
            default
        }
    };
    let thresholds = Thresholds {
        expiring_days: set("expiring_days", wanted.expiring_days, default.expiring_days, MAX_DAYS),
        unused_days: set("unused_days", wanted.unused_days, default.unused_days, MAX_DAYS),
        never_used_days: set(
            "never_used_days",
            wanted.never_used_days,
            default.never_used_days,
            MAX_DAYS,
        ),
        many_keys: set("many_keys", wanted.many_keys, default.many_keys, MAX_KEYS),
    };
    v.finish(Some(ListFindings { kinds, thresholds, page_size, page_token: r.page_token, query }))
}

/// A kind of finding as the wire has it; the core has the same by the same numbers.
fn to_kind(kind: FindingKind) -> Option<Kind> {
    Kind::ALL.into_iter().find(|k| *k as i32 == kind as i32)
}

/// What is asked of GetAccessReview.
#[derive(Clone, Copy)]
pub struct GetAccessReview {
    pub from: Time,
    /// `None`: until now.
    pub to: Option<Time>,
    pub as_of_position: Option<u64>,
    pub key_id: Option<KeyId>,
}

pub fn get_access_review(
    r: crate::GetAccessReviewRequest,
) -> Result<GetAccessReview, Vec<Violation>> {
    let mut v = Violations::default();
    let from = parse_moment(&mut v, "from_time", r.from_time);
    let to = r.to_time.and_then(|to| parse_moment(&mut v, "to_time", Some(to)));
    check_order(&mut v, from, to);
    let key_id = optional_key(&mut v, &r.key_id);
    check_position(&mut v, r.as_of_position);
    let as_of_position = r.as_of_position;
    v.finish(from.map(|from| GetAccessReview { from, to, as_of_position, key_id }))
}

/// What is asked of SignAccessReview.
pub struct SignAccessReview {
    pub review: SignReview,
    pub common: Common,
}

pub fn sign_access_review(
    r: crate::SignAccessReviewRequest,
) -> Result<SignAccessReview, Vec<Violation>> {
    let mut v = Violations::default();
    let period = parse_period(&mut v, r.from_time, r.to_time);
    if r.as_of_position.is_none() {
        v.add("as_of_position", "must be given");
    }
    check_position(&mut v, r.as_of_position);
    let digest: Option<[u8; 32]> = r.report_sha256.as_slice().try_into().ok();
    if digest.is_none() {
        v.add("report_sha256", "must be 32 bytes: the SHA-256 of the report as JSON");
    }
    let key_id = optional_key(&mut v, &r.key_id);
    let common = parse_common(&mut v, r.reason, &r.request_id, r.validate_only, r.approval_ref);
    let review = (|| {
        let (from, to) = period?;
        let (as_of_position, report_sha256) = (r.as_of_position?, digest?);
        let approved = r.approved;
        let review = SignReview { from, to, as_of_position, report_sha256, approved, key_id };
        Some(SignAccessReview { review, common })
    })();
    v.finish(review)
}

fn parse_period(
    v: &mut Violations,
    from: Option<prost_types::Timestamp>,
    to: Option<prost_types::Timestamp>,
) -> Option<(Time, Time)> {
    let (from, to) = (parse_moment(v, "from_time", from), parse_moment(v, "to_time", to));
    check_order(v, from, to);
    from.zip(to)
}

fn parse_moment(
    v: &mut Violations,
    field: &str,
    time: Option<prost_types::Timestamp>,
) -> Option<Time> {
    let parsed = time.and_then(|t| micros(t.seconds, t.nanos)).filter(|t| *t >= 0);
    match (time, parsed) {
        (None, _) => v.add(field, "must be given"),
        (Some(_), None) => v.add(field, "must be a valid time"),
        (Some(_), Some(_)) => {}
    }
    parsed.map(Time)
}

fn check_order(v: &mut Violations, from: Option<Time>, to: Option<Time>) {
    if from.zip(to).is_some_and(|(from, to)| from >= to) {
        v.add("to_time", "must be after from_time");
    }
}

fn optional_key(v: &mut Violations, text: &str) -> Option<KeyId> {
    if text.is_empty() { None } else { parse_key_id(v, "key_id", text) }
}

fn check_position(v: &mut Violations, position: Option<u64>) {
    if position.is_some_and(|p| p > i64::MAX as u64) {
        v.add("as_of_position", "must be less than 2^63");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_review_is_named() {
        let fields = |r: crate::SignAccessReviewRequest| -> Vec<String> {
            let wrong = sign_access_review(r).err().unwrap_or_default();
            wrong.into_iter().map(|v| v.field).collect()
        };
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let good = crate::SignAccessReviewRequest {
            from_time: at(1),
            to_time: at(2),
            as_of_position: Some(0),
            report_sha256: vec![7; 32],
            reason: "looked at all of it".into(),
            ..Default::default()
        };
        assert!(fields(good.clone()).is_empty());
        let all = ["from_time", "to_time", "as_of_position", "report_sha256", "reason"];
        assert_eq!(fields(crate::SignAccessReviewRequest::default()), all);
        let backwards = crate::SignAccessReviewRequest { to_time: at(1), ..good.clone() };
        assert_eq!(fields(backwards), ["to_time"]);
        let short = crate::SignAccessReviewRequest { report_sha256: vec![7; 31], ..good };
        assert_eq!(fields(short), ["report_sha256"]);
    }

    #[test]
    fn kinds_of_the_core_and_of_the_wire_have_the_same_numbers_and_names() {
        let wire = crate::methods::short_names("keyledger.v1.FindingKind");
        let core: Vec<(String, i32)> =
            Kind::ALL.iter().map(|k| (k.name().to_string(), *k as i32)).collect();
        assert_eq!(wire, core);
    }
}
