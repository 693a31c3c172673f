//! Messages of reviews: who has left, what was looked at and signed off, what was found and told.

use prost::Message;

use super::Owner;

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct OwnerStatusSet {
    #[prost(message, optional, tag = "1")]
    pub owner: Option<Owner>,
    #[prost(bool, tag = "2")]
    pub left: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct ReviewSigned {
    #[prost(int64, tag = "1")]
    pub from_us: i64,
    #[prost(int64, tag = "2")]
    pub to_us: i64,
    #[prost(uint64, tag = "3")]
    pub as_of_position: u64,
    #[prost(bytes = "vec", tag = "4")]
    pub report_sha256: Vec<u8>,
    #[prost(bool, tag = "5")]
    pub approved: bool,
    #[prost(bytes = "vec", tag = "6")]
    pub key_id: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct NoticeDelivered {
    #[prost(string, tag = "1")]
    pub receiver: String,
    #[prost(uint64, repeated, tag = "2")]
    pub positions: Vec<u64>,
    #[prost(uint32, tag = "3")]
    pub failures: u32,
    #[prost(bytes = "vec", tag = "4")]
    pub body_sha256: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct FindingsDigested {
    #[prost(message, repeated, tag = "1")]
    pub findings: Vec<FindingCount>,
    #[prost(uint64, tag = "2")]
    pub as_of_position: u64,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct FindingCount {
    #[prost(string, tag = "1")]
    pub finding: String,
    #[prost(uint64, tag = "2")]
    pub count: u64,
}
