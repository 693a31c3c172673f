//! Messages of what people said, and who they are: sealed beside what is signed.

use prost::Message;

use super::Attribute;

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct SealedText {
    #[prost(bytes = "vec", tag = "1")]
    pub subject_ref: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub commitment: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Texts {
    #[prost(string, tag = "1")]
    pub reason: String,
    #[prost(string, tag = "2")]
    pub owner: String,
    #[prost(string, tag = "3")]
    pub purpose: String,
    #[prost(string, tag = "4")]
    pub description: String,
    #[prost(string, tag = "5")]
    pub client_address: String,
    #[prost(string, tag = "6")]
    pub client_user_agent: String,
    #[prost(string, tag = "7")]
    pub peer_address: String,
    #[prost(string, tag = "8")]
    pub responsible: String,
    #[prost(string, repeated, tag = "9")]
    pub descriptions: Vec<String>,
    #[prost(string, tag = "10")]
    pub actor: String,
    #[prost(string, tag = "11")]
    pub device: String,
    #[prost(message, repeated, tag = "12")]
    pub attributes: Vec<Attribute>,
    #[prost(string, tag = "13")]
    pub asked: String,
    #[prost(bytes = "vec", tag = "14")]
    pub signed: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct SealedColumn {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub sealed: Vec<Vec<u8>>,
}
