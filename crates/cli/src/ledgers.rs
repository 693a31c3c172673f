//! `keyledger ledgers`: open a ledger, see which there are, and what holds in each.

mod policy;

use clap::Subcommand;
use keyledger_proto::{Ledger, ListLedgersRequest, OpenLedgerRequest};

use crate::Ending;
use crate::change::{self, Change, TokenOnly};
use crate::connection::{Connection, DataDir, Session};
use crate::json::{self, Output};
use crate::paging::Paging;
use crate::screen::{Screen, Tone};
use crate::table;
use crate::token::Usual;

/// Open and list ledgers, and say what holds in them. Without a named token, the one in `system.token` is taken: a key of
/// the system ledger, which alone opens ledgers and sets their limits.
#[derive(clap::Args)]
pub(crate) struct Ledgers {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    data_dir: DataDir,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Get(policy::Get),
    List(List),
    Open(Open),
    Policy(Box<policy::Update>),
}

/// List the ledgers by number.
#[derive(clap::Args)]
#[command(after_help = "Example: keyledger ledgers list")]
struct List {
    #[command(flatten)]
    paging: Paging,
    #[command(flatten)]
    output: Output,
}

/// Open a ledger and print its first admin token, which is shown once and never again.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger ledgers open payments --reason 'new team' --token-only > payments.token"
)]
struct Open {
    /// Name of the ledger: 1 to 64 bytes of `a-z 0-9 -`.
    name: String,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    token_only: TokenOnly,
    #[command(flatten)]
    output: Output,
}

impl Ledgers {
    pub(crate) async fn run(self) -> anyhow::Result<Ending> {
        let screen = Screen::stdout();
        let session = self.connection.open(&self.data_dir, Usual::System).await?;
        match self.command {
            Command::Get(get) => get.run(&session, &screen).await?,
            Command::Policy(update) => update.run(&session, &screen).await?,
            Command::List(list) => list.run(&session, &screen).await?,
            Command::Open(open) => open.run(&session, &screen).await?,
        }
        Ok(Ending::Good)
    }
}

impl List {
    async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let page = async |page_token| {
            let request = ListLedgersRequest { page_size: self.paging.size(), page_token };
            let reply = session.keys().list_ledgers(session.call(request)).await;
            let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
            match self.output.is_json() {
                true => json::print_page(screen, "ListLedgersResponse", &reply, self.paging.all)?,
                false => show_list(screen, &reply.ledgers)?,
            }
            Ok(reply.next_page_token)
        };
        self.paging.walk(page).await
    }
}

impl Open {
    async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let request_id = self.change.request_id();
        let request = OpenLedgerRequest {
            name: self.name,
            reason: self.change.reason.clone(),
            request_id: request_id.clone(),
            approval_ref: self.change.approval_ref.clone(),
            validate_only: self.change.dry_run,
        };
        let reply = session.keys().open_ledger(session.call(request)).await;
        let reply = reply.map_err(|s| session.change_failure(&s, &request_id))?.into_inner();
        if self.token_only.token_only {
            return change::print_token(screen, &reply.token);
        }
        if self.output.is_json() {
            return json::print_reply(screen, "OpenLedgerResponse", &reply);
        }
        let ledger = reply.ledger.unwrap_or_default();
        let mut facts = table::Facts::new(screen);
        facts.add_in("ledger", &ledger.name, Tone::Strong);
        facts.add("ledger id", &ledger.ledger_id);
        facts.add("number", &ledger.number.to_string());
        facts.add("origin", &ledger.origin);
        if !self.change.dry_run {
            change::add_token(&mut facts, &reply.token);
        }
        facts.print()?;
        change::print_dry_run(screen, &self.change)?;
        Ok(change::print_once(screen, &reply.token)?)
    }
}

fn show_list(screen: &Screen, ledgers: &[Ledger]) -> std::io::Result<()> {
    let mut list = table::List::new(screen, &["NUMBER", "LEDGER", "ID", "ORIGIN"], &[0, 1, 2, 3]);
    for ledger in ledgers {
        list.row(&[
            (&ledger.number.to_string(), Tone::Plain),
            (&ledger.name, Tone::Plain),
            (&ledger.ledger_id, Tone::Plain),
            (&ledger.origin, Tone::Plain),
        ]);
    }
    list.print()
}
