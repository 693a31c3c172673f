//! `keyledger keys owners`.

use keyledger_proto::{ListOwnersRequest, OwnerHoldings};

use super::show::owner;
use crate::connection::Session;
use crate::json::{self, Output};
use crate::paging::Paging;
use crate::screen::{Screen, Tone};
use crate::table::List;
use crate::values::{show_grant, show_second};

/// List who owns keys that are accepted now, with what each holds in total.
#[derive(clap::Args)]
#[command(after_help = "Example: keyledger keys owners --all")]
pub(super) struct Owners {
    #[command(flatten)]
    paging: Paging,
    #[command(flatten)]
    output: Output,
}

impl Owners {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let page = async |page_token| {
            let request = ListOwnersRequest { page_size: self.paging.size(), page_token };
            let reply = session.keys().list_owners(session.call(request)).await;
            let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
            match self.output.is_json() {
                true => json::print_page(screen, "ListOwnersResponse", &reply, self.paging.all)?,
                false => print(screen, &reply.owners)?,
            }
            Ok(reply.next_page_token)
        };
        self.paging.walk(page).await
    }
}

fn print(screen: &Screen, owners: &[OwnerHoldings]) -> std::io::Result<()> {
    let headers = ["OWNER", "LEFT", "KEYS", "FIRST TO END", "ROLES", "GRANTS"];
    let mut list = List::new(screen, &headers, &[1, 2, 3]);
    for one in owners {
        let grants: Vec<String> = one.grants.iter().map(show_grant).collect();
        list.row(&[
            (&owner(one.owner.as_ref()), Tone::Plain),
            (&one.left_time.as_ref().map_or(String::new(), show_second), Tone::Bad),
            (&one.keys.to_string(), Tone::Plain),
            (&one.next_expire_time.as_ref().map_or("never".into(), show_second), Tone::Plain),
            (&one.roles.join(", "), Tone::Plain),
            (&grants.join("; "), Tone::Plain),
        ]);
    }
    list.print()
}
