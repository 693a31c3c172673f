//! `keyledger roles`: name a set of grants once, for many keys.

use clap::Subcommand;
use keyledger_ledger::grant::Grant;
use keyledger_proto::{CreateRoleRequest, ListRolesRequest, Role};

use crate::Ending;
use crate::change::Change;
use crate::connection::{Connection, DataDir, Session};
use crate::json::{self, Output};
use crate::paging::Paging;
use crate::screen::{Screen, Tone};
use crate::table;
use crate::token::Usual;
use crate::values::{parse_give_grant, parse_grant, show_grant, show_second, show_time};

/// Create and list roles: named sets of grants.
#[derive(clap::Args)]
pub(crate) struct Roles {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    data_dir: DataDir,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Create(Create),
    List(List),
}

/// Create a role. Its name is never used again in this ledger.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger roles create log-reader --grant 'audit.read on logs/*' --reason 'ticket 4711'"
)]
struct Create {
    /// Name of the role: 1 to 64 bytes of `a-z 0-9 -`.
    name: String,
    /// What holders of the role may do: `<permission>[,<permission>…] on <resource>`. May be repeated, up to 64 times.
    #[arg(long = "grant", value_name = "GRANT", value_parser = parse_grant)]
    grants: Vec<Grant>,
    /// What holders of the role may hand on to other keys, but not use. Written as for --grant. May be repeated.
    #[arg(long = "give-grant", value_name = "GRANT", value_parser = parse_give_grant)]
    give_grants: Vec<Grant>,
    /// What the role is for, in words of at most 1,024 bytes. Kept sealed.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    output: Output,
}

/// List the roles of the ledger by name.
#[derive(clap::Args)]
#[command(after_help = "Example: keyledger roles list -o json")]
struct List {
    #[command(flatten)]
    paging: Paging,
    #[command(flatten)]
    output: Output,
}

impl Roles {
    pub(crate) async fn run(self) -> anyhow::Result<Ending> {
        let screen = Screen::stdout();
        let session = self.connection.open(&self.data_dir, Usual::Admin).await?;
        match self.command {
            Command::Create(create) => create.run(&session, &screen).await?,
            Command::List(list) => list.run(&session, &screen).await?,
        }
        Ok(Ending::Good)
    }
}

impl Create {
    async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let request_id = self.change.request_id();
        let request = CreateRoleRequest {
            name: self.name,
            grants: self.grants.iter().chain(&self.give_grants).map(Grant::to_body).collect(),
            description: self.description,
            reason: self.change.reason,
            request_id: request_id.clone(),
        };
        let reply = session.keys().create_role(session.call(request)).await;
        let reply = reply.map_err(|s| session.change_failure(&s, &request_id))?.into_inner();
        if self.output.is_json() {
            return json::print_reply(screen, "CreateRoleResponse", &reply);
        }
        Ok(show(screen, &reply.role.unwrap_or_default())?)
    }
}

impl List {
    async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let page = async |page_token| {
            let request = ListRolesRequest { page_size: self.paging.size(), page_token };
            let reply = session.keys().list_roles(session.call(request)).await;
            let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
            match self.output.is_json() {
                true => json::print_page(screen, "ListRolesResponse", &reply, self.paging.all)?,
                false => show_list(screen, &reply.roles)?,
            }
            Ok(reply.next_page_token)
        };
        self.paging.walk(page).await
    }
}

fn show(screen: &Screen, role: &Role) -> std::io::Result<()> {
    let mut facts = table::Facts::new(screen);
    facts.add_in("role", &role.name, Tone::Strong);
    facts.add("description", &role.description);
    facts.add_lines("grants", role.grants.iter().map(show_grant));
    facts.add("created", &role.create_time.as_ref().map(show_time).unwrap_or_default());
    facts.add("position", &role.position.map(|p| p.to_string()).unwrap_or_default());
    facts.print()
}

fn show_list(screen: &Screen, roles: &[Role]) -> std::io::Result<()> {
    let mut list = table::List::new(screen, &["ROLE", "DESCRIPTION", "GRANTS", "CREATED"], &[0, 3]);
    for role in roles {
        list.row(&[
            (&role.name, Tone::Plain),
            (&role.description, Tone::Plain),
            (&grants(role), Tone::Plain),
            (&role.create_time.as_ref().map(show_second).unwrap_or_default(), Tone::Plain),
        ]);
    }
    list.print()
}

fn grants(role: &Role) -> String {
    role.grants.iter().map(show_grant).collect::<Vec<_>>().join("; ")
}
