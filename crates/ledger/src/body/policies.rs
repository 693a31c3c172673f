//! Messages of policies: what holds for a whole ledger, and how old a secret may grow.

use prost::Message;

use super::RuleSetting;

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct LedgerPolicyUpdated {
    #[prost(message, optional, tag = "1")]
    pub policy: Option<LedgerPolicy>,
    #[prost(string, repeated, tag = "2")]
    pub changed: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct LedgerPolicy {
    #[prost(int64, tag = "1")]
    pub default_life_us: i64,
    #[prost(int64, tag = "2")]
    pub max_life_us: i64,
    #[prost(int64, tag = "3")]
    pub max_overlap_us: i64,
    #[prost(uint32, repeated, tag = "4")]
    pub notice_days: Vec<u32>,
    #[prost(string, repeated, tag = "5")]
    pub approval_permissions: Vec<String>,
    #[prost(int64, tag = "6")]
    pub max_staleness_us: i64,
    #[prost(message, optional, tag = "7")]
    pub limits: Option<LedgerLimits>,
    #[prost(message, repeated, tag = "8")]
    pub rules: Vec<RuleSetting>,
    #[prost(int64, tag = "9")]
    pub idle_suspend_after_us: i64,
    #[prost(int64, tag = "10")]
    pub idle_revoke_after_us: i64,
    #[prost(uint32, tag = "11")]
    pub digest_days: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct LedgerLimits {
    #[prost(uint64, tag = "1")]
    pub max_keys: u64,
    #[prost(uint64, tag = "2")]
    pub max_roles: u64,
    #[prost(uint32, tag = "3")]
    pub max_streams: u32,
    #[prost(uint64, tag = "4")]
    pub max_bytes_per_second: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct Rotation {
    #[prost(int64, tag = "1")]
    pub max_age_us: i64,
    #[prost(int64, optional, tag = "2")]
    pub suspend_after_us: Option<i64>,
}
