//! `keyledger keys test` and `keyledger keys who`: what keys could do, without their tokens.

use keyledger_proto::entry::Decision;
use keyledger_proto::{
    KeyAccess, PermissionOnResource, PermissionTest, TestPermissionsRequest, WhoHasAccessRequest,
    who_has_access_request,
};
use uuid::Uuid;

use super::show::owner;
use crate::Ending;
use crate::as_of::AsOf;
use crate::connection::Session;
use crate::json::{self, Output, enum_value_name};
use crate::paging::Paging;
use crate::screen::{Screen, Tone};
use crate::table::{Facts, List};
use crate::values::{show_grant, show_second, words};

/// Say whether a key could do something now, and why not. The exit code is 0 for ALLOW and 10 for DENY.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger keys test 0198c5a0-0000-8000-8000-000000000001 audit.read logs/error"
)]
pub(super) struct Test {
    /// Which key: a UUID.
    key_id: Uuid,
    /// What it would do: a dotted name such as `audit.read`.
    permission: String,
    /// On what: a path such as `logs/error`.
    resource: String,
    /// Address that it would be used from. Without it a key that is restricted to networks is denied.
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    address: String,
    /// Audience that it would be presented to.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    audience: String,
    #[command(flatten)]
    output: Output,
}

/// List every key that could do something, now or at a moment of the past, and by which grant.
#[derive(clap::Args)]
#[command(after_help = "Example: keyledger keys who audit.read logs/error --all")]
pub(super) struct Who {
    /// What they could do: a dotted name such as `audit.read`.
    permission: String,
    /// On what: a path such as `logs/error`.
    resource: String,
    #[command(flatten)]
    as_of: AsOf,
    #[command(flatten)]
    paging: Paging,
    #[command(flatten)]
    output: Output,
}

impl Test {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<Ending> {
        let asked = PermissionOnResource { permission: self.permission, resource: self.resource };
        let request = TestPermissionsRequest {
            key_id: self.key_id.to_string(),
            permissions: vec![asked],
            address: self.address,
            audience: self.audience,
        };
        let reply = session.keys().test_permissions(session.call(request)).await;
        let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
        let result = reply.results.first().cloned().unwrap_or_default();
        match self.output.is_json() {
            true => json::print_reply(screen, "TestPermissionsResponse", &reply)?,
            false => print_test(screen, &result)?,
        }
        Ok(if result.decision == Decision::Allow as i32 { Ending::Good } else { Ending::NotGood })
    }
}

fn print_test(screen: &Screen, test: &PermissionTest) -> std::io::Result<()> {
    let allowed = test.decision == Decision::Allow as i32;
    let tone = if allowed { Tone::Good } else { Tone::Bad };
    let mut facts = Facts::new(screen);
    facts.add_in("verdict", &enum_value_name("keyledger.entry.v1.Decision", test.decision), tone);
    facts.add("why", &words(&enum_value_name("keyledger.entry.v1.DecisionReason", test.reason)));
    facts.add("grant", &test.matched_grant.as_ref().map(show_grant).unwrap_or_default());
    facts.add("of role", &test.matched_role);
    facts.print()
}

impl Who {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let page = async |page_token| {
            let request = WhoHasAccessRequest {
                permission: self.permission.clone(),
                resource: self.resource.clone(),
                page_size: self.paging.size(),
                page_token,
                as_of: self.as_of.to_wire(
                    who_has_access_request::AsOf::AsOfPosition,
                    who_has_access_request::AsOf::AsOfTime,
                ),
            };
            let reply = session.keys().who_has_access(session.call(request)).await;
            let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
            match self.output.is_json() {
                true => json::print_page(screen, "WhoHasAccessResponse", &reply, self.paging.all)?,
                false => print_access(screen, &reply.access)?,
            }
            Ok(reply.next_page_token)
        };
        self.paging.walk(page).await
    }
}

fn print_access(screen: &Screen, access: &[KeyAccess]) -> std::io::Result<()> {
    let mut list = List::new(screen, &["KEY", "OWNER", "EXPIRES", "GRANT", "ROLE"], &[0, 2]);
    for one in access {
        let key = one.key.clone().unwrap_or_default();
        list.row(&[
            (&key.key_id, Tone::Plain),
            (&owner(key.owner.as_ref()), Tone::Plain),
            (&key.expire_time.as_ref().map_or("never".into(), show_second), Tone::Plain),
            (&one.matched_grant.as_ref().map(show_grant).unwrap_or_default(), Tone::Plain),
            (&one.matched_role, Tone::Plain),
        ]);
    }
    list.print()
}
