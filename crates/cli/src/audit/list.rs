//! `keyledger audit list`.

use keyledger_proto::{EventOrder, ListEventsRequest};
use uuid::Uuid;

use super::event;
use super::filter::{FilterArgs, TimeArgs};
use crate::connection::Session;
use crate::json::{self, Output};
use crate::paging::Paging;
use crate::screen::Screen;

/// List events, newest first or oldest first. AT is the position in the ledger; a use has its index in its page behind a dot.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger audit list --key-id 0198c5a0-0000-8000-8000-000000000001 --page-size 100"
)]
pub(super) struct List {
    /// Only events about this key, or called by it: a UUID.
    #[arg(long, value_name = "UUID")]
    key_id: Option<Uuid>,
    /// Only this category, such as `keyledger/lifecycle` (changes) or `keyledger/use` (uses).
    #[arg(long, value_name = "CATEGORY", default_value = "", hide_default_value = true)]
    category: String,
    /// The oldest events first.
    #[arg(long)]
    oldest_first: bool,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    times: TimeArgs,
    #[command(flatten)]
    paging: Paging,
    #[command(flatten)]
    output: Output,
}

impl List {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let key_id = self.key_id.map(|id| id.to_string()).unwrap_or_default();
        let page = async |page_token| {
            let (key_id, category) = (key_id.clone(), self.category.clone());
            let page_size = self.paging.size();
            let filter = Some(self.times.within(self.filter.to_wire()));
            let order = match self.oldest_first {
                true => EventOrder::OldestFirst as i32,
                false => EventOrder::NewestFirst as i32,
            };
            let request =
                ListEventsRequest { key_id, category, page_size, page_token, filter, order };
            let reply = session.audit().list_events(session.call(request)).await;
            let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
            match self.output.is_json() {
                true => json::print_page(screen, "ListEventsResponse", &reply, self.paging.all)?,
                false => event::print_list(screen, &reply.events)?,
            }
            Ok(reply.next_page_token)
        };
        self.paging.walk(page).await
    }
}
