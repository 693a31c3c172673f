//! Which keys a command is about.

use keyledger_proto::entry::Label;
use keyledger_proto::{KeyFilter, Owner, PermissionOnResource, owner};
use uuid::Uuid;

use crate::values::{key_states, parse_label, parse_permission_on_resource, parse_time};

/// All that is said must hold.
#[derive(clap::Args)]
pub(super) struct Filter {
    /// Keys of this person.
    #[arg(long, value_name = "NAME", conflicts_with = "service")]
    user: Option<String>,
    /// Keys of this service.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Keys that this person is responsible for.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    responsible: String,
    /// Keys that this key created: a UUID.
    #[arg(long, value_name = "KEY_ID")]
    creator: Option<Uuid>,
    /// Keys that hold this role.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    role: String,
    /// Keys that have this label.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_label)]
    label: Option<Label>,
    /// Keys in this state.
    #[arg(long, value_name = "STATE", value_parser = key_states())]
    state: Option<i32>,
    /// Keys that end before this time, or have: RFC 3339 with an offset.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    expires_before: Option<prost_types::Timestamp>,
    /// Keys that could do this, by a grant of their own or of a role: `audit.read:logs/error`.
    #[arg(long, value_name = "PERMISSION:RESOURCE", value_parser = parse_permission_on_resource)]
    can: Option<PermissionOnResource>,
    /// Keys that were last used before this time, or created before it and never used: RFC 3339 with an offset.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    unused_since: Option<prost_types::Timestamp>,
}

impl Filter {
    pub(super) fn to_wire(&self) -> KeyFilter {
        let user = self.user.clone().map(owner::Owner::User);
        let owner = user.or(self.service.clone().map(owner::Owner::Service));
        KeyFilter {
            owner: owner.map(|owner| Owner { owner: Some(owner) }),
            responsible: self.responsible.clone(),
            creator_key_id: self.creator.map(|id| id.to_string()).unwrap_or_default(),
            role: self.role.clone(),
            label: self.label.clone(),
            state: self.state.unwrap_or_default(),
            expires_before: self.expires_before,
            permission_held: self.can.clone(),
            unused_since: self.unused_since,
        }
    }
}
