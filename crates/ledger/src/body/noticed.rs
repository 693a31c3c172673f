//! Messages of unusual use that was noticed.

use prost::{Enumeration, Message, Oneof};

use super::OwnerKind;

/// By what unusual use is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum MonitoringRule {
    Unspecified = 0,
    Spike = 1,
    RefusalBurst = 2,
    Forbidden = 3,
    NewNetwork = 4,
    LongSilence = 5,
    SupersededVersion = 6,
    Scanning = 7,
}

impl MonitoringRule {
    pub fn as_str_name(&self) -> &'static str {
        match self {
            MonitoringRule::Unspecified => "MONITORING_RULE_UNSPECIFIED",
            MonitoringRule::Spike => "MONITORING_RULE_SPIKE",
            MonitoringRule::RefusalBurst => "MONITORING_RULE_REFUSAL_BURST",
            MonitoringRule::Forbidden => "MONITORING_RULE_FORBIDDEN",
            MonitoringRule::NewNetwork => "MONITORING_RULE_NEW_NETWORK",
            MonitoringRule::LongSilence => "MONITORING_RULE_LONG_SILENCE",
            MonitoringRule::SupersededVersion => "MONITORING_RULE_SUPERSEDED_VERSION",
            MonitoringRule::Scanning => "MONITORING_RULE_SCANNING",
        }
    }
}

/// What is done about what a rule notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum AnomalyResponse {
    Unspecified = 0,
    Off = 1,
    Note = 2,
    Suspend = 3,
}

impl AnomalyResponse {
    pub fn as_str_name(&self) -> &'static str {
        match self {
            AnomalyResponse::Unspecified => "ANOMALY_RESPONSE_UNSPECIFIED",
            AnomalyResponse::Off => "ANOMALY_RESPONSE_OFF",
            AnomalyResponse::Note => "ANOMALY_RESPONSE_NOTE",
            AnomalyResponse::Suspend => "ANOMALY_RESPONSE_SUSPEND",
        }
    }
}

/// What somebody who looked at an anomaly found it to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum AnomalyVerdict {
    Unspecified = 0,
    Expected = 1,
    Misuse = 2,
    Unclear = 3,
}

impl AnomalyVerdict {
    pub fn as_str_name(&self) -> &'static str {
        match self {
            AnomalyVerdict::Unspecified => "ANOMALY_VERDICT_UNSPECIFIED",
            AnomalyVerdict::Expected => "ANOMALY_VERDICT_EXPECTED",
            AnomalyVerdict::Misuse => "ANOMALY_VERDICT_MISUSE",
            AnomalyVerdict::Unclear => "ANOMALY_VERDICT_UNCLEAR",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Message)]
pub struct AnomalySubject {
    #[prost(oneof = "SubjectKind", tags = "1, 2, 3, 4")]
    pub subject: Option<SubjectKind>,
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Oneof)]
pub enum SubjectKind {
    #[prost(bytes = "vec", tag = "1")]
    KeyId(Vec<u8>),
    #[prost(bytes = "vec", tag = "2")]
    UserRef(Vec<u8>),
    #[prost(string, tag = "3")]
    Service(String),
    #[prost(bytes = "vec", tag = "4")]
    Peer(Vec<u8>),
}

impl From<OwnerKind> for SubjectKind {
    fn from(owner: OwnerKind) -> SubjectKind {
        match owner {
            OwnerKind::UserRef(reference) => SubjectKind::UserRef(reference),
            OwnerKind::Service(name) => SubjectKind::Service(name),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Measure {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(int64, tag = "2")]
    pub value: i64,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct AnomalyRaised {
    #[prost(enumeration = "MonitoringRule", tag = "1")]
    pub rule: i32,
    #[prost(message, optional, tag = "2")]
    pub subject: Option<AnomalySubject>,
    #[prost(uint64, tag = "3")]
    pub observed_position: u64,
    #[prost(int64, tag = "4")]
    pub first_time_us: i64,
    #[prost(int64, tag = "5")]
    pub last_time_us: i64,
    #[prost(uint64, tag = "6")]
    pub occurrences: u64,
    #[prost(message, repeated, tag = "7")]
    pub measures: Vec<Measure>,
    #[prost(string, tag = "8")]
    pub permission: String,
    #[prost(string, tag = "9")]
    pub resource: String,
    #[prost(enumeration = "AnomalyResponse", tag = "10")]
    pub response: i32,
    #[prost(bytes = "vec", tag = "11")]
    pub key_id: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct AnomalyEnded {
    #[prost(uint64, tag = "1")]
    pub anomaly_position: u64,
    #[prost(uint64, tag = "2")]
    pub observed_position: u64,
    #[prost(int64, tag = "3")]
    pub last_time_us: i64,
    #[prost(uint64, tag = "4")]
    pub occurrences: u64,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct AnomalyAcknowledged {
    #[prost(uint64, tag = "1")]
    pub anomaly_position: u64,
    #[prost(enumeration = "AnomalyVerdict", tag = "2")]
    pub verdict: i32,
}

/// What the policy of a ledger says of a rule.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct RuleSetting {
    #[prost(enumeration = "MonitoringRule", tag = "1")]
    pub rule: i32,
    #[prost(enumeration = "AnomalyResponse", tag = "2")]
    pub response: i32,
    #[prost(uint32, tag = "3")]
    pub threshold: u32,
}
