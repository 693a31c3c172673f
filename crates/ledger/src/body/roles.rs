//! Messages of roles, and of the permissions that they are made of.

use prost::Message;

use super::{Grant, Owner, Rotation};

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct RoleCreated {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub grants: Vec<Grant>,
    #[prost(message, optional, tag = "3")]
    pub rotation: Option<Rotation>,
    #[prost(int64, tag = "4")]
    pub max_staleness_us: i64,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct RoleUpdated {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub grants: Vec<Grant>,
    #[prost(bool, tag = "3")]
    pub described: bool,
    #[prost(message, optional, tag = "4")]
    pub rotation: Option<Rotation>,
    #[prost(int64, tag = "5")]
    pub max_staleness_us: i64,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct RoleRetired {
    #[prost(string, tag = "1")]
    pub name: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct PermissionsRegistered {
    #[prost(string, tag = "1")]
    pub prefix: String,
    #[prost(message, optional, tag = "2")]
    pub owner: Option<Owner>,
    #[prost(string, repeated, tag = "3")]
    pub names: Vec<String>,
}
