//! `keyledger roles`: name a set of grants once, for many keys.

mod permissions;

use clap::Subcommand;
use keyledger_ledger::grant::Grant;
use keyledger_proto::{
    CreateRoleRequest, GetRoleRequest, ListRolesRequest, RetireRoleRequest, Role,
    UpdateRoleRequest, get_role_request,
};
use prost_types::{Duration, FieldMask};

use crate::Ending;
use crate::as_of::AsOf;
use crate::change::{self, Change, RotationArgs, show_rotation};
use crate::connection::{Connection, DataDir, Session};
use crate::json::{self, Output};
use crate::paging::Paging;
use crate::screen::{Screen, Tone};
use crate::table;
use crate::token::Usual;
use crate::values::{
    parse_duration, parse_give_grant, parse_grant, show_duration, show_grant, show_second,
    show_time,
};

/// Create, show, change and retire roles: named sets of grants.
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
    Get(Get),
    List(List),
    Update(Update),
    Retire(Retire),
    Permissions(permissions::Permissions),
}

/// Show one role: of the ledger's own, or a predefined one.
#[derive(clap::Args)]
#[command(after_help = "Example: keyledger roles get log-reader")]
struct Get {
    /// Name of the role.
    name: String,
    #[command(flatten)]
    as_of: AsOf,
    #[command(flatten)]
    output: Output,
}

/// Change what the holders of a role may do, for all of them at once. What isn't named stays as it is.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger roles update error-readers --grant 'audit.read on logs/error' --reason 'ticket 4712'"
)]
struct Update {
    /// Name of the role.
    name: String,
    /// What holders of the role may do: `<permission>[,<permission>…] on <resource>`. May be repeated; all grants are
    /// replaced.
    #[arg(long = "grant", value_name = "GRANT", value_parser = parse_grant)]
    grants: Vec<Grant>,
    /// What holders of the role may hand on to other keys, but not use. Written as for --grant. May be repeated.
    #[arg(long = "give-grant", value_name = "GRANT", value_parser = parse_give_grant)]
    give_grants: Vec<Grant>,
    /// What the role is for, in words of at most 1,024 bytes. Kept sealed.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    #[command(flatten)]
    rotation: RotationArgs,
    /// How old an answer from memory about what this role allows may be, at most 60 seconds; 0s for none.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    max_staleness: Option<Duration>,
    /// What is taken away altogether. May be repeated.
    #[arg(long, value_name = "FIELD", value_parser = ["description", "rotation"])]
    clear: Vec<String>,
    /// Change the role only if it is still as it was seen, by the etag that `roles get -o json` shows.
    #[arg(long, value_name = "ETAG", default_value = "", hide_default_value = true)]
    etag: String,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    output: Output,
}

/// Retire a role: it gives nothing any more, to none of its holders. Its name is never used again.
#[derive(clap::Args)]
#[command(after_help = "Example: keyledger roles retire error-readers --reason 'the team is gone'")]
struct Retire {
    /// Name of the role.
    name: String,
    /// Retire the role only if it is still as it was seen, by the etag that `roles get -o json` shows.
    #[arg(long, value_name = "ETAG", default_value = "", hide_default_value = true)]
    etag: String,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    output: Output,
}

/// Create a role. Its name is never used again in this ledger.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger roles create error-readers --grant 'audit.read on logs/*' --reason 'ticket 4711'"
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
    rotation: RotationArgs,
    /// How old an answer from memory about what this role allows may be, at most 60 seconds. The ledger's policy must allow
    /// it, too.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    max_staleness: Option<Duration>,
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
            Command::Get(get) => get.run(&session, &screen).await?,
            Command::List(list) => list.run(&session, &screen).await?,
            Command::Update(update) => update.run(&session, &screen).await?,
            Command::Retire(retire) => retire.run(&session, &screen).await?,
            Command::Permissions(permissions) => permissions.run(&session, &screen).await?,
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
            rotation: self.rotation.to_wire(),
            max_staleness: self.max_staleness,
            reason: self.change.reason.clone(),
            request_id: request_id.clone(),
            validate_only: self.change.dry_run,
            approval_ref: self.change.approval_ref.clone(),
        };
        let reply = session.keys().create_role(session.call(request)).await;
        let reply = reply.map_err(|s| session.change_failure(&s, &request_id))?.into_inner();
        if self.output.is_json() {
            return json::print_reply(screen, "CreateRoleResponse", &reply);
        }
        show(screen, &reply.role.unwrap_or_default())?;
        Ok(change::print_dry_run(screen, &self.change)?)
    }
}

impl Get {
    async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let as_of = self
            .as_of
            .to_wire(get_role_request::AsOf::AsOfPosition, get_role_request::AsOf::AsOfTime);
        let request = GetRoleRequest { name: self.name, as_of };
        let reply = session.keys().get_role(session.call(request)).await;
        let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
        if self.output.is_json() {
            return json::print_reply(screen, "GetRoleResponse", &reply);
        }
        Ok(show(screen, &reply.role.unwrap_or_default())?)
    }
}

impl Update {
    async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let request_id = self.change.request_id();
        let grants: Vec<_> =
            self.grants.iter().chain(&self.give_grants).map(Grant::to_body).collect();
        let rotation = self.rotation.to_wire();
        let named = [
            ("grants", !grants.is_empty()),
            ("description", self.description.is_some()),
            ("rotation", rotation.is_some()),
            ("max_staleness", self.max_staleness.is_some()),
        ];
        let cleared = |field: &str| self.clear.iter().any(|c| c == field);
        let paths = named.iter().filter(|(field, given)| *given || cleared(field));
        let paths = paths.map(|(field, _)| field.to_string());
        let request = UpdateRoleRequest {
            name: self.name,
            update_mask: Some(FieldMask { paths: paths.collect() }),
            grants,
            description: self.description.unwrap_or_default(),
            rotation,
            max_staleness: self.max_staleness,
            etag: self.etag,
            reason: self.change.reason.clone(),
            request_id: request_id.clone(),
            validate_only: self.change.dry_run,
            approval_ref: self.change.approval_ref.clone(),
        };
        let reply = session.keys().update_role(session.call(request)).await;
        let reply = reply.map_err(|s| session.change_failure(&s, &request_id))?.into_inner();
        if self.output.is_json() {
            return json::print_reply(screen, "UpdateRoleResponse", &reply);
        }
        show(screen, &reply.role.unwrap_or_default())?;
        Ok(change::print_dry_run(screen, &self.change)?)
    }
}

impl Retire {
    async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let request_id = self.change.request_id();
        let request = RetireRoleRequest {
            name: self.name,
            etag: self.etag,
            reason: self.change.reason.clone(),
            request_id: request_id.clone(),
            validate_only: self.change.dry_run,
            approval_ref: self.change.approval_ref.clone(),
        };
        let reply = session.keys().retire_role(session.call(request)).await;
        let reply = reply.map_err(|s| session.change_failure(&s, &request_id))?.into_inner();
        if self.output.is_json() {
            return json::print_reply(screen, "RetireRoleResponse", &reply);
        }
        show(screen, &reply.role.unwrap_or_default())?;
        Ok(change::print_dry_run(screen, &self.change)?)
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
    facts.add_in("role", &held_as(role), Tone::Strong);
    facts.add(
        "",
        if role.predefined { "predefined: in every ledger, not to be changed" } else { "" },
    );
    facts.add("description", &role.description);
    facts.add_lines("grants", role.grants.iter().map(show_grant));
    facts.add("rotation", &role.rotation.as_ref().map(show_rotation).unwrap_or_default());
    facts.add("max staleness", &role.max_staleness.as_ref().map(show_duration).unwrap_or_default());
    facts.add("created", &role.create_time.as_ref().map(show_time).unwrap_or_default());
    facts.add("retired", &role.retire_time.as_ref().map(show_time).unwrap_or_default());
    facts.add("position", &role.position.map(|p| p.to_string()).unwrap_or_default());
    facts.print()
}

fn show_list(screen: &Screen, roles: &[Role]) -> std::io::Result<()> {
    let mut list = table::List::new(screen, &["ROLE", "DESCRIPTION", "GRANTS", "CREATED"], &[0, 3]);
    for role in roles {
        list.row(&[
            (&held_as(role), Tone::Plain),
            (&role.description, Tone::Plain),
            (&grants(role), Tone::Plain),
            (&since(role), Tone::Plain),
        ]);
    }
    list.print()
}

/// The name as a key is given it: `log-reader(category)`.
fn held_as(role: &Role) -> String {
    match role.parameter.as_str() {
        "" => role.name.clone(),
        parameter => format!("{}({parameter})", role.name),
    }
}

fn since(role: &Role) -> String {
    match (&role.retire_time, &role.create_time) {
        (Some(retired), _) => format!("retired {}", show_second(retired)),
        (None, Some(created)) => show_second(created),
        (None, None) => "predefined".into(),
    }
}

fn grants(role: &Role) -> String {
    role.grants.iter().map(show_grant).collect::<Vec<_>>().join("; ")
}
