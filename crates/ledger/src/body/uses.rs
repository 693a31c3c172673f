//! Messages of uses: the page that is signed, and the uses that lie beside it.

use prost::{Enumeration, Message};

use super::{Caller, SealedText};

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct UsePage {
    #[prost(uint32, tag = "1")]
    pub count: u32,
    #[prost(int64, tag = "2")]
    pub first_time_us: i64,
    #[prost(int64, tag = "3")]
    pub last_time_us: i64,
    #[prost(bytes = "vec", tag = "4")]
    pub root: Vec<u8>,
    #[prost(uint64, tag = "5")]
    pub shed: u64,
    #[prost(uint64, tag = "6")]
    pub number: u64,
    #[prost(message, repeated, tag = "7")]
    pub spent: Vec<Spent>,
    #[prost(message, repeated, tag = "8")]
    pub bounded: Vec<BoundedUses>,
    #[prost(uint32, optional, tag = "9")]
    pub accesses: Option<u32>,
    #[prost(message, repeated, tag = "10")]
    pub reported: Vec<ReportedUses>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct ReportedUses {
    #[prost(bytes = "vec", tag = "1")]
    pub reporter: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub session_id: Vec<u8>,
    #[prost(uint32, tag = "3")]
    pub uses: u32,
    #[prost(bool, tag = "4")]
    pub ended: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct BoundedUses {
    #[prost(bytes = "vec", tag = "1")]
    pub serving_id: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub uses: u32,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct BoundedServingStarted {
    #[prost(bytes = "vec", tag = "1")]
    pub serving_id: Vec<u8>,
    #[prost(int64, tag = "2")]
    pub until_us: i64,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct BoundedServingEnded {
    #[prost(bytes = "vec", tag = "1")]
    pub serving_id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub uses: u64,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Bounded {
    #[prost(bytes = "vec", tag = "1")]
    pub serving_id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub number: u64,
    #[prost(uint64, tag = "3")]
    pub as_of_position: u64,
    #[prost(int64, tag = "4")]
    pub time_us: i64,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Spent {
    #[prost(bytes = "vec", tag = "1")]
    pub key_id: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub uses: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum Decision {
    Unspecified = 0,
    Allow = 1,
    Deny = 2,
}

impl Decision {
    pub fn as_str_name(&self) -> &'static str {
        match self {
            Decision::Unspecified => "DECISION_UNSPECIFIED",
            Decision::Allow => "DECISION_ALLOW",
            Decision::Deny => "DECISION_DENY",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum DecisionReason {
    Unspecified = 0,
    Granted = 1,
    Malformed = 2,
    Missing = 3,
    UnknownKey = 4,
    Foreign = 5,
    WrongSecret = 6,
    Revoked = 7,
    Expired = 8,
    Superseded = 9,
    NoGrant = 10,
    NotValid = 11,
    InvalidRequest = 12,
    Refused = 13,
    ExceedsOwnRights = 14,
    Replayed = 15,
    Suspended = 16,
    Network = 17,
    Audience = 18,
    Validated = 19,
    UsesSpent = 20,
    Rate = 21,
}

impl DecisionReason {
    /// Whether what was asked is allowed, or was before.
    pub fn allows(self) -> bool {
        matches!(
            self,
            DecisionReason::Granted | DecisionReason::Replayed | DecisionReason::Validated
        )
    }

    pub fn as_str_name(&self) -> &'static str {
        match self {
            DecisionReason::Unspecified => "DECISION_REASON_UNSPECIFIED",
            DecisionReason::Granted => "DECISION_REASON_GRANTED",
            DecisionReason::Malformed => "DECISION_REASON_MALFORMED",
            DecisionReason::Missing => "DECISION_REASON_MISSING",
            DecisionReason::UnknownKey => "DECISION_REASON_UNKNOWN_KEY",
            DecisionReason::Foreign => "DECISION_REASON_FOREIGN",
            DecisionReason::WrongSecret => "DECISION_REASON_WRONG_SECRET",
            DecisionReason::Revoked => "DECISION_REASON_REVOKED",
            DecisionReason::Expired => "DECISION_REASON_EXPIRED",
            DecisionReason::Superseded => "DECISION_REASON_SUPERSEDED",
            DecisionReason::NoGrant => "DECISION_REASON_NO_GRANT",
            DecisionReason::NotValid => "DECISION_REASON_NOT_VALID",
            DecisionReason::InvalidRequest => "DECISION_REASON_INVALID_REQUEST",
            DecisionReason::Refused => "DECISION_REASON_REFUSED",
            DecisionReason::ExceedsOwnRights => "DECISION_REASON_EXCEEDS_OWN_RIGHTS",
            DecisionReason::Replayed => "DECISION_REASON_REPLAYED",
            DecisionReason::Suspended => "DECISION_REASON_SUSPENDED",
            DecisionReason::Network => "DECISION_REASON_NETWORK",
            DecisionReason::Audience => "DECISION_REASON_AUDIENCE",
            DecisionReason::Validated => "DECISION_REASON_VALIDATED",
            DecisionReason::UsesSpent => "DECISION_REASON_USES_SPENT",
            DecisionReason::Rate => "DECISION_REASON_RATE",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Use {
    #[prost(bytes = "vec", tag = "1")]
    pub key_id: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub version: u32,
    #[prost(message, optional, tag = "3")]
    pub caller: Option<Caller>,
    #[prost(string, tag = "4")]
    pub method: String,
    #[prost(string, tag = "5")]
    pub permission: String,
    #[prost(string, tag = "6")]
    pub resource: String,
    #[prost(string, tag = "7")]
    pub audience: String,
    #[prost(enumeration = "Decision", tag = "8")]
    pub decision: i32,
    #[prost(enumeration = "DecisionReason", tag = "9")]
    pub reason: i32,
    #[prost(bytes = "vec", tag = "10")]
    pub trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "11")]
    pub span_id: Vec<u8>,
    #[prost(message, repeated, tag = "12")]
    pub texts: Vec<SealedText>,
    #[prost(uint32, tag = "13")]
    pub count: u32,
    #[prost(int64, tag = "14")]
    pub first_time_us: i64,
    #[prost(int64, tag = "15")]
    pub last_time_us: i64,
    #[prost(bytes = "vec", repeated, tag = "16")]
    pub traces: Vec<Vec<u8>>,
    #[prost(message, optional, tag = "17")]
    pub bounded: Option<Bounded>,
    #[prost(uint64, optional, tag = "18")]
    pub returned: Option<u64>,
    #[prost(message, optional, tag = "19")]
    pub reported: Option<Reported>,
    #[prost(int64, tag = "20")]
    pub keep_us: i64,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Reported {
    #[prost(bytes = "vec", tag = "1")]
    pub session_id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub number: u64,
    #[prost(uint64, tag = "3")]
    pub answer_position: u64,
    #[prost(uint32, tag = "4")]
    pub answer_index: u32,
    #[prost(int64, tag = "5")]
    pub answer_time_us: i64,
    #[prost(int64, tag = "6")]
    pub max_staleness_us: i64,
    #[prost(int64, tag = "7")]
    pub time_us: i64,
    #[prost(enumeration = "ReportDoubt", repeated, tag = "8")]
    pub doubts: Vec<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum ReportDoubt {
    Unspecified = 0,
    BeforeAnswer = 1,
    Stale = 2,
    Ahead = 3,
    Late = 4,
}

impl ReportDoubt {
    pub fn as_str_name(&self) -> &'static str {
        match self {
            ReportDoubt::Unspecified => "REPORT_DOUBT_UNSPECIFIED",
            ReportDoubt::BeforeAnswer => "REPORT_DOUBT_BEFORE_ANSWER",
            ReportDoubt::Stale => "REPORT_DOUBT_STALE",
            ReportDoubt::Ahead => "REPORT_DOUBT_AHEAD",
            ReportDoubt::Late => "REPORT_DOUBT_LATE",
        }
    }
}

impl Use {
    /// Trace and span ids of the refusals that it stands for, as far as they are told.
    pub fn folded_spans(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.traces.iter().filter(|both| both.len() == 24).map(|both| both.split_at(16))
    }

    /// All traces that it was made in; one may come several times.
    pub fn trace_ids(&self) -> impl Iterator<Item = &[u8]> {
        let own = Some(self.trace_id.as_slice()).filter(|id| !id.is_empty());
        own.into_iter().chain(self.folded_spans().map(|(trace_id, _)| trace_id))
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct UseRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub r#use: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub salt: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub sealed: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct UseColumn {
    #[prost(message, repeated, tag = "1")]
    pub uses: Vec<UseRecord>,
}
