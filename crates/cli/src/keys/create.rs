//! `keyledger keys create`.

use keyledger_ledger::grant::Grant;
use keyledger_proto::create_key_request::Expiry;
use keyledger_proto::entry::{Label, Rate, Restrictions};
use keyledger_proto::{CreateKeyRequest, Owner, owner};

use super::show;
use crate::change::{self, Change, RotationArgs, TokenOnly};
use crate::connection::Session;
use crate::json::{self, Output};
use crate::screen::Screen;
use crate::values::{
    parse_duration, parse_give_grant, parse_grant, parse_label, parse_network, parse_rate,
    parse_time,
};

/// Create a key and print its token, which is shown once and never again.
///
/// A key gives no more than the caller's key holds: grants, roles and life must lie inside the caller's own.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Create {
    #[command(flatten)]
    owner: OwnerArgs,
    /// What the key is for, in words of at most 1,024 bytes. Kept sealed.
    #[arg(long, value_name = "TEXT")]
    purpose: String,
    /// What the key may do: `<permission>[,<permission>…] on <resource>`. A permission is a dotted name, `a.*` or `*`; in
    /// a resource `*` is one whole segment, and `**` at the end is everything below. May be repeated, up to 64 times.
    #[arg(long = "grant", value_name = "GRANT", value_parser = parse_grant)]
    grants: Vec<Grant>,
    /// What the key may hand on to other keys, but not use. Written as for --grant. May be repeated.
    #[arg(long = "give-grant", value_name = "GRANT", value_parser = parse_give_grant)]
    give_grants: Vec<Grant>,
    /// Name of a role that the key holds. May be repeated, up to 16 times.
    #[arg(long = "role", value_name = "NAME")]
    roles: Vec<String>,
    #[command(flatten)]
    expiry: ExpiryArgs,
    #[command(flatten)]
    conditions: ConditionArgs,
    #[command(flatten)]
    rotation: RotationArgs,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    token_only: TokenOnly,
    #[command(flatten)]
    output: Output,
}

const EXAMPLE: &str = "\
Example: keyledger keys create --user alice@example.com --purpose 'export error logs' \
--grant 'audit.read on logs/error' --ttl 12h --reason 'ticket 4711'";

/// To whom the key belongs.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct OwnerArgs {
    /// Person to whom the key belongs: a mail address or login of 1 to 256 bytes. Kept sealed, erasable.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Service to which the key belongs: 1 to 128 bytes of `a-z 0-9 . _ - /`. Kept in the clear.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
}

/// Under which conditions a key is accepted, and by what it is found.
#[derive(clap::Args)]
pub(super) struct ConditionArgs {
    /// Network that the key may be used from, in CIDR notation: `203.0.113.0/24`. May be repeated, up to 64 times.
    #[arg(long = "network", value_name = "CIDR", value_parser = parse_network)]
    networks: Vec<String>,
    /// Audience that the key may be presented to, at most 128 bytes; Keyledger itself is `keyledger`. May be repeated, up to
    /// 32 times.
    #[arg(long = "audience", value_name = "TEXT")]
    audiences: Vec<String>,
    /// How often the key may be used in all.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    max_uses: u64,
    /// How often the key may be used in a while of 1 second to 1 day: `100/1m`.
    #[arg(long, value_name = "USES/DURATION", value_parser = parse_rate)]
    rate: Option<Rate>,
    /// By what people find the key: `team=billing`. Kept in the clear. May be repeated, up to 32 times.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_label)]
    pub labels: Vec<Label>,
    /// Person responsible for a service's key, 1 to 256 bytes. Kept sealed, erasable.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub responsible: String,
}

impl ConditionArgs {
    pub(super) fn restrictions(&self) -> Option<Restrictions> {
        let (networks, audiences) = (self.networks.clone(), self.audiences.clone());
        let (max_uses, rate) = (self.max_uses, self.rate);
        let any = !networks.is_empty() || !audiences.is_empty() || max_uses != 0 || rate.is_some();
        any.then_some(Restrictions { networks, audiences, max_uses, rate })
    }
}

/// When the key ends: as the ledger's policy says (90 days from now, if it says nothing else) if nothing is said.
#[derive(clap::Args)]
#[group(multiple = false)]
pub(super) struct ExpiryArgs {
    /// Life from now on, at most what the ledger's policy allows (400 days, if it says nothing else): `90d`, `12h`, `3600s`.
    /// Without it and its alternatives: the policy's default (90 days).
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    ttl: Option<prost_types::Duration>,
    /// When the key ends, as RFC 3339 with an offset: `2027-01-01T00:00:00Z`.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    expires: Option<prost_types::Timestamp>,
    /// The key never ends by itself. Needs the permission `keys.create-without-expiry` on `keys`.
    #[arg(long)]
    no_expiry: bool,
}

impl Create {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let (token_only, output) = (self.token_only.token_only, self.output);
        let change = self.change.clone();
        let request = self.request();
        let request_id = request.request_id.clone();
        let reply = session.keys().create_key(session.call(request)).await;
        let reply = reply.map_err(|s| session.change_failure(&s, &request_id))?.into_inner();
        if token_only {
            return change::print_token(screen, &reply.token);
        }
        if output.is_json() {
            return json::print_reply(screen, "CreateKeyResponse", &reply);
        }
        let mut facts = show::facts(screen, &reply.key.unwrap_or_default());
        if !change.dry_run {
            change::add_token(&mut facts, &reply.token);
        }
        facts.print()?;
        change::print_dry_run(screen, &change)?;
        Ok(change::print_once(screen, &reply.token)?)
    }

    fn request(self) -> CreateKeyRequest {
        let grants = self.grants.iter().chain(&self.give_grants);
        CreateKeyRequest {
            owner: Some(self.owner.owner()),
            purpose: self.purpose,
            grants: grants.map(Grant::to_body).collect(),
            expiry: self.expiry.expiry(),
            roles: self.roles,
            request_id: self.change.request_id(),
            reason: self.change.reason,
            validate_only: self.change.dry_run,
            approval_ref: self.change.approval_ref.clone(),
            restrictions: self.conditions.restrictions(),
            labels: self.conditions.labels,
            responsible: self.conditions.responsible,
            rotation: self.rotation.to_wire(),
        }
    }
}

impl OwnerArgs {
    fn owner(self) -> Owner {
        let service = self.service.map(owner::Owner::Service);
        Owner { owner: self.user.map(owner::Owner::User).or(service) }
    }
}

impl ExpiryArgs {
    pub(super) fn expiry(self) -> Option<Expiry> {
        let never = self.no_expiry.then_some(Expiry::NoExpiry(true));
        self.ttl.map(Expiry::Ttl).or(self.expires.map(Expiry::ExpireTime)).or(never)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        create: Create,
    }

    fn request(arguments: &[&str]) -> Result<CreateKeyRequest, clap::Error> {
        let fixed = ["create", "--purpose", "p", "--reason", "r"];
        let line = Line::try_parse_from(fixed.iter().chain(arguments))?;
        Ok(line.create.request())
    }

    #[test]
    fn options_become_the_request() {
        let grants = ["--grant", "a.b on x", "--give-grant", "c.* on y/**", "--grant", "d.e on z"];
        let request =
            request(&[["--service", "billing", "--ttl", "1h"].as_slice(), &grants].concat())
                .unwrap();
        assert_eq!(request.owner.unwrap().owner, Some(owner::Owner::Service("billing".into())));
        let seconds = prost_types::Duration { seconds: 3600, nanos: 0 };
        assert_eq!(request.expiry, Some(Expiry::Ttl(seconds)));
        let shown: Vec<String> = request.grants.iter().map(crate::values::show_grant).collect();
        assert_eq!(shown, ["a.b on x", "d.e on z", "c.* on y/** (to hand on only)"]);
        assert!(request.request_id.parse::<uuid::Uuid>().is_ok());
    }

    #[test]
    fn an_owner_is_needed_and_an_end_is_said_once() {
        for bad in [
            vec![],
            vec!["--user", "a", "--service", "b"],
            vec!["--user", "a", "--ttl", "1h", "--no-expiry"],
            vec!["--user", "a", "--expires", "2027-01-01T00:00:00Z", "--ttl", "1h"],
            vec!["--user", "a", "--token-only", "-o", "json"],
            vec!["--user", "a", "--grant", "nothing"],
            vec!["--user", "a", "--request-id", "7"],
        ] {
            assert!(request(&bad).is_err(), "{bad:?}");
        }
        assert_eq!(request(&["--user", "a"]).unwrap().expiry, None);
        assert_eq!(
            request(&["--user", "a", "--no-expiry"]).unwrap().expiry,
            Some(Expiry::NoExpiry(true))
        );
    }
}
