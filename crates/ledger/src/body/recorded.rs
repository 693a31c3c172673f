//! Messages of what other services record.

use prost::{Enumeration, Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub struct EventRecorded {
    #[prost(message, optional, tag = "1")]
    pub actor: Option<Actor>,
    #[prost(message, repeated, tag = "2")]
    pub on_behalf_of: Vec<Actor>,
    #[prost(string, tag = "3")]
    pub action: String,
    #[prost(string, tag = "4")]
    pub resource: String,
    #[prost(enumeration = "Outcome", tag = "5")]
    pub outcome: i32,
    #[prost(string, tag = "6")]
    pub category: String,
    #[prost(enumeration = "Severity", tag = "7")]
    pub severity: i32,
    #[prost(int64, tag = "8")]
    pub occurred_time_us: i64,
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<Attribute>,
    #[prost(uint64, tag = "10")]
    pub number: u64,
    #[prost(message, optional, tag = "11")]
    pub signature: Option<ProducerSignature>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct ProducerSignature {
    #[prost(bytes = "vec", tag = "1")]
    pub public_key_sha256: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub signature: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct ProducerKeysRegistered {
    #[prost(bytes = "vec", tag = "1")]
    pub key_id: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub public_keys: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Actor {
    #[prost(oneof = "ActorKind", tags = "1, 2")]
    pub actor: Option<ActorKind>,
}

#[derive(Clone, PartialEq, Eq, Hash, Oneof)]
pub enum ActorKind {
    #[prost(bytes = "vec", tag = "1")]
    UserRef(Vec<u8>),
    #[prost(string, tag = "2")]
    Service(String),
}

#[derive(Clone, PartialEq, Message)]
pub struct Attribute {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(oneof = "AttributeValue", tags = "2, 3, 4, 5")]
    pub value: Option<AttributeValue>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum AttributeValue {
    #[prost(string, tag = "2")]
    Text(String),
    #[prost(int64, tag = "3")]
    Integer(i64),
    #[prost(double, tag = "4")]
    Number(f64),
    #[prost(bool, tag = "5")]
    Flag(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum Outcome {
    Unspecified = 0,
    Success = 1,
    Failure = 2,
    Denied = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum Severity {
    Unspecified = 0,
    Informational = 1,
    Low = 2,
    Medium = 3,
    High = 4,
    Critical = 5,
    Fatal = 6,
}
