//! `keyledger keys`: issue, show, change, rotate, stop, revoke and check keys.

mod access;
mod check;
mod create;
mod filter;
mod import;
mod leaked;
mod owners;
mod revoke;
mod revoke_all;
mod rotate;
mod show;
mod suspend;
mod update;
mod usage;
mod watch;

pub(crate) use show::{owner, state};

use clap::Subcommand;
use keyledger_proto::{
    GetKeyRequest, ListKeysRequest, WhoAmIRequest, get_key_request, list_keys_request,
};
use uuid::Uuid;

use crate::Ending;
use crate::as_of::AsOf;
use crate::connection::{Connection, DataDir, Session};
use crate::json::{self, Output};
use crate::paging::Paging;
use crate::screen::Screen;
use crate::token::Usual;

/// Issue, show, change, rotate, stop, revoke and check provisioning keys.
#[derive(clap::Args)]
pub(crate) struct Keys {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    data_dir: DataDir,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Create(create::Create),
    Import(import::Import),
    Get(Get),
    List(List),
    Update(update::Update),
    Rotate(rotate::Rotate),
    Suspend(suspend::Suspend),
    Resume(suspend::Resume),
    Revoke(revoke::Revoke),
    RevokeAll(revoke_all::RevokeAll),
    RevokeLeaked(leaked::RevokeLeaked),
    Lookup(leaked::Lookup),
    Owners(owners::Owners),
    Verify(check::Check),
    Test(access::Test),
    Who(access::Who),
    Usage(usage::Usage),
    Watch(watch::Watch),
    Whoami(WhoAmI),
}

/// Show one key.
#[derive(clap::Args)]
#[command(after_help = "Example: keyledger keys get 0198c5a0-0000-8000-8000-000000000001 -o json")]
struct Get {
    /// Which key: a UUID.
    key_id: Uuid,
    #[command(flatten)]
    as_of: AsOf,
    #[command(flatten)]
    output: Output,
}

/// List the keys of the ledger, oldest first. Options narrow the list; all of them must hold.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger keys list --user alice@example.com --state active --all"
)]
struct List {
    #[command(flatten)]
    filter: filter::Filter,
    #[command(flatten)]
    as_of: AsOf,
    #[command(flatten)]
    paging: Paging,
    #[command(flatten)]
    output: Output,
}

/// Show the caller's own key and its ledger.
#[derive(clap::Args)]
#[command(after_help = "Example: KEYLEDGER_TOKEN=$(cat my.token) keyledger keys whoami")]
struct WhoAmI {
    #[command(flatten)]
    output: Output,
}

impl Keys {
    pub(crate) async fn run(self) -> anyhow::Result<Ending> {
        let screen = Screen::stdout();
        // Read before connecting, so that what is wrong with the input is said first.
        if let Command::Verify(check) = self.command {
            let subject = check.read_subject()?;
            let session = self.connection.open(&self.data_dir, Usual::Admin).await?;
            return check.run(&session, &screen, subject).await;
        }
        if let Command::Import(import) = self.command {
            let lines = import.read()?;
            let session = self.connection.open(&self.data_dir, Usual::Admin).await?;
            return import.run(&session, &screen, lines).await;
        }
        let session = self.connection.open(&self.data_dir, Usual::Admin).await?;
        match self.command {
            Command::Create(create) => create.run(&session, &screen).await?,
            Command::Get(get) => get.run(&session, &screen).await?,
            Command::List(list) => list.run(&session, &screen).await?,
            Command::Update(update) => update.run(&session, &screen).await?,
            Command::Rotate(rotate) => rotate.run(&session, &screen).await?,
            Command::Suspend(suspend) => suspend.run(&session, &screen).await?,
            Command::Resume(resume) => resume.run(&session, &screen).await?,
            Command::Test(test) => return test.run(&session, &screen).await,
            Command::Who(who) => who.run(&session, &screen).await?,
            Command::Usage(usage) => usage.run(&session, &screen).await?,
            Command::Watch(watch) => watch.run(&session, &screen).await?,
            Command::RevokeLeaked(revoke) => revoke.run(&session, &screen).await?,
            Command::Lookup(lookup) => lookup.run(&session, &screen).await?,
            Command::RevokeAll(revoke) => revoke.run(&session, &screen).await?,
            Command::Owners(owners) => owners.run(&session, &screen).await?,
            Command::Revoke(revoke) => revoke.run(&session, &screen).await?,
            Command::Whoami(who) => who.run(&session, &screen).await?,
            Command::Verify(_) | Command::Import(_) => unreachable!("it has returned above"),
        }
        Ok(Ending::Good)
    }
}

impl Get {
    async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let request = GetKeyRequest {
            key_id: self.key_id.to_string(),
            as_of: self
                .as_of
                .to_wire(get_key_request::AsOf::AsOfPosition, get_key_request::AsOf::AsOfTime),
            include_traces: false,
        };
        let reply = session.keys().get_key(session.call(request)).await;
        let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
        if self.output.is_json() {
            return json::print_reply(screen, "GetKeyResponse", &reply);
        }
        Ok(show::facts(screen, &reply.key.unwrap_or_default()).print()?)
    }
}

impl List {
    async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let page = async |page_token| {
            let filter = Some(self.filter.to_wire());
            let request = ListKeysRequest {
                page_size: self.paging.size(),
                page_token,
                filter,
                as_of: self.as_of.to_wire(
                    list_keys_request::AsOf::AsOfPosition,
                    list_keys_request::AsOf::AsOfTime,
                ),
            };
            let reply = session.keys().list_keys(session.call(request)).await;
            let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
            match self.output.is_json() {
                true => json::print_page(screen, "ListKeysResponse", &reply, self.paging.all)?,
                false => show::list(screen, &reply.keys)?,
            }
            Ok(reply.next_page_token)
        };
        self.paging.walk(page).await
    }
}

impl WhoAmI {
    async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let reply = session.keys().who_am_i(session.call(WhoAmIRequest {})).await;
        let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
        if self.output.is_json() {
            return json::print_reply(screen, "WhoAmIResponse", &reply);
        }
        let ledger = reply.ledger.unwrap_or_default();
        let mut facts = show::facts(screen, &reply.key.unwrap_or_default());
        facts.add("ledger", &ledger.name);
        facts.add("ledger id", &ledger.ledger_id);
        facts.add("origin", &ledger.origin);
        Ok(facts.print()?)
    }
}
