//! Messages that tell how many events of each category a ledger holds.

use prost::Message;

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct CategoryCounted {
    #[prost(uint32, tag = "1")]
    pub categories: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub root: Vec<u8>,
    #[prost(uint64, tag = "3")]
    pub number: u64,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct CategoryCount {
    #[prost(string, tag = "1")]
    pub category: String,
    #[prost(uint64, tag = "2")]
    pub count: u64,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct CountRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub count: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub salt: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct CountColumn {
    #[prost(message, repeated, tag = "1")]
    pub counts: Vec<CountRecord>,
}
