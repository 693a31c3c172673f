//! `keyledger roles permissions`: what can be given, and what services add to it.

use clap::Subcommand;
use keyledger_proto::document::words::template;
use keyledger_proto::{
    ListPermissionsRequest, NewPermission, Permission, RegisterPermissionsRequest,
};

use crate::change::{self, Change};
use crate::connection::Session;
use crate::json::{self, Output};
use crate::paging::Paging;
use crate::screen::{Screen, Tone};
use crate::table;

/// List the permissions that can be given, with what each allows: Keyledger's own, then those that services registered.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger roles permissions",
    args_conflicts_with_subcommands = true
)]
pub(super) struct Permissions {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    paging: Paging,
    #[command(flatten)]
    output: Output,
}

#[derive(Subcommand)]
enum Command {
    Register(Register),
}

/// Register all permissions of a service. Whatever was registered under the same prefix before is replaced.
///
/// The first registrar owns a prefix: only keys of the same owner may register it again.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger roles permissions register billing --permission 'billing.read=See invoices' --reason 'ticket 4711'"
)]
struct Register {
    /// First segment of the names: 1 to 64 bytes of `a-z 0-9 -`.
    prefix: String,
    /// A name under the prefix, and what it allows in a line of at most 256 bytes: `<name>=<sentence>`. May be repeated, up
    /// to 100 times.
    #[arg(long = "permission", value_name = "PERMISSION", required = true, value_parser = parse)]
    permissions: Vec<NewPermission>,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    output: Output,
}

impl Permissions {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        if let Some(Command::Register(register)) = self.command {
            return register.run(session, screen).await;
        }
        let page = async |page_token| {
            let request = ListPermissionsRequest { page_size: self.paging.size(), page_token };
            let reply = session.keys().list_permissions(session.call(request)).await;
            let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
            match self.output.is_json() {
                true => {
                    json::print_page(screen, "ListPermissionsResponse", &reply, self.paging.all)?
                }
                false => show(screen, &reply.permissions)?,
            }
            Ok(reply.next_page_token)
        };
        self.paging.walk(page).await
    }
}

impl Register {
    async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let request_id = self.change.request_id();
        let request = RegisterPermissionsRequest {
            prefix: self.prefix,
            permissions: self.permissions,
            reason: self.change.reason.clone(),
            request_id: request_id.clone(),
            validate_only: self.change.dry_run,
            approval_ref: self.change.approval_ref.clone(),
        };
        let reply = session.keys().register_permissions(session.call(request)).await;
        let reply = reply.map_err(|s| session.change_failure(&s, &request_id))?.into_inner();
        if self.output.is_json() {
            return json::print_reply(screen, "RegisterPermissionsResponse", &reply);
        }
        show(screen, &reply.permissions)?;
        Ok(change::print_dry_run(screen, &self.change)?)
    }
}

/// `billing.read=See invoices`
fn parse(text: &str) -> Result<NewPermission, String> {
    let form = "a permission is `<name>=<sentence>`, such as `billing.read=See invoices`";
    let (name, description) = text.split_once('=').ok_or(form)?;
    Ok(NewPermission { name: name.trim().into(), description: description.trim().into() })
}

fn show(screen: &Screen, permissions: &[Permission]) -> std::io::Result<()> {
    let headers = ["PERMISSION", "ON", "OF", "WHAT IT ALLOWS"];
    let mut list = table::List::new(screen, &headers, &[0, 2]);
    for permission in permissions {
        let resources = permission.resources.iter().map(|r| template(r)).collect::<Vec<_>>();
        list.row(&[
            (&permission.name, Tone::Plain),
            (&resources.join(", "), Tone::Plain),
            (&permission.registered_by, Tone::Plain),
            (&permission.description, Tone::Plain),
        ]);
    }
    list.print()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_is_a_name_and_a_sentence() {
        let parsed = parse("billing.read = See invoices = all of them").unwrap();
        assert_eq!(parsed.name, "billing.read");
        assert_eq!(parsed.description, "See invoices = all of them");
        assert!(parse("billing.read").is_err());
    }
}
