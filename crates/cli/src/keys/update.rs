//! `keyledger keys update`.

use keyledger_ledger::grant::Grant;
use keyledger_proto::UpdateKeyRequest;
use keyledger_proto::create_key_request::Expiry as Created;
use keyledger_proto::update_key_request::Expiry;
use prost_types::FieldMask;
use uuid::Uuid;

use super::create::{ConditionArgs, ExpiryArgs};
use super::show;
use crate::change::{self, Change, RotationArgs};
use crate::connection::Session;
use crate::json::{self, Output};
use crate::screen::Screen;
use crate::values::{parse_give_grant, parse_grant};

/// Change what a key is or may do. What isn't named stays as it is; what is named takes the place of what was there.
///
/// Whoever changes grants, roles, networks, audiences or the end must hold all that the key may do afterwards.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Update {
    /// Which key: a UUID.
    key_id: Uuid,
    /// What the key is for, in words of at most 1,024 bytes. Kept sealed.
    #[arg(long, value_name = "TEXT")]
    purpose: Option<String>,
    /// What the key may do: `<permission>[,<permission>…] on <resource>`. May be repeated; all grants are replaced.
    #[arg(long = "grant", value_name = "GRANT", value_parser = parse_grant)]
    grants: Vec<Grant>,
    /// What the key may hand on to other keys, but not use. Written as for --grant. May be repeated.
    #[arg(long = "give-grant", value_name = "GRANT", value_parser = parse_give_grant)]
    give_grants: Vec<Grant>,
    /// Name of a role that the key holds. May be repeated; all roles are replaced.
    #[arg(long = "role", value_name = "NAME")]
    roles: Vec<String>,
    #[command(flatten)]
    expiry: ExpiryArgs,
    #[command(flatten)]
    conditions: ConditionArgs,
    #[command(flatten)]
    rotation: RotationArgs,
    /// What is taken away altogether. May be repeated.
    #[arg(long, value_name = "FIELD", value_parser = ["grants", "roles", "restrictions", "labels", "responsible", "rotation"])]
    clear: Vec<String>,
    /// Change the key only if it is still as it was seen, by the etag that `keys get -o json` shows.
    #[arg(long, value_name = "ETAG", default_value = "", hide_default_value = true)]
    etag: String,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    output: Output,
}

const EXAMPLE: &str = "\
Example: keyledger keys update 0198c5a0-0000-8000-8000-000000000001 --network 203.0.113.0/24 --label team=billing \
--reason 'only from the office'";

impl Update {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let (output, change) = (self.output, self.change.clone());
        let request = self.request();
        let request_id = request.request_id.clone();
        let reply = session.keys().update_key(session.call(request)).await;
        let reply = reply.map_err(|s| session.change_failure(&s, &request_id))?.into_inner();
        if output.is_json() {
            return json::print_reply(screen, "UpdateKeyResponse", &reply);
        }
        show::facts(screen, &reply.key.unwrap_or_default()).print()?;
        Ok(change::print_dry_run(screen, &change)?)
    }

    fn request(self) -> UpdateKeyRequest {
        let grants: Vec<_> =
            self.grants.iter().chain(&self.give_grants).map(Grant::to_body).collect();
        let expiry = self.expiry.expiry().map(|expiry| match expiry {
            Created::Ttl(ttl) => Expiry::Ttl(ttl),
            Created::ExpireTime(time) => Expiry::ExpireTime(time),
            Created::NoExpiry(never) => Expiry::NoExpiry(never),
        });
        let restrictions = self.conditions.restrictions();
        let given = restrictions.clone().unwrap_or_default();
        let rotation = self.rotation.to_wire();
        let named = [
            ("purpose", self.purpose.is_some()),
            ("grants", !grants.is_empty()),
            ("roles", !self.roles.is_empty()),
            ("expiry", expiry.is_some()),
            ("restrictions", false),
            ("restrictions.networks", !given.networks.is_empty()),
            ("restrictions.audiences", !given.audiences.is_empty()),
            ("restrictions.max_uses", given.max_uses != 0),
            ("restrictions.rate", given.rate.is_some()),
            ("labels", !self.conditions.labels.is_empty()),
            ("responsible", !self.conditions.responsible.is_empty()),
            ("rotation", rotation.is_some()),
        ];
        let cleared = |field: &str| self.clear.iter().any(|c| c == field);
        let paths = named.iter().filter(|(field, given)| *given || cleared(field));
        UpdateKeyRequest {
            key_id: self.key_id.to_string(),
            update_mask: Some(FieldMask { paths: paths.map(|(f, _)| f.to_string()).collect() }),
            purpose: self.purpose.unwrap_or_default(),
            grants,
            roles: self.roles,
            expiry,
            restrictions,
            labels: self.conditions.labels,
            responsible: self.conditions.responsible,
            rotation,
            etag: self.etag,
            request_id: self.change.request_id(),
            reason: self.change.reason,
            validate_only: self.change.dry_run,
            approval_ref: self.change.approval_ref.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        update: Update,
    }

    #[test]
    fn only_what_is_named_stands_in_the_mask() {
        let paths = |arguments: &[&str]| {
            let fixed = ["update", "0198c5a0-0000-8000-8000-000000000001", "--reason", "r"];
            let line = Line::try_parse_from(fixed.iter().chain(arguments)).unwrap();
            line.update.request().update_mask.unwrap().paths.join(",")
        };
        assert_eq!(paths(&[]), "");
        assert_eq!(paths(&["--purpose", "p", "--ttl", "1d"]), "purpose,expiry");
        assert_eq!(
            paths(&["--network", "10.0.0.0/8", "--label", "a=b"]),
            "restrictions.networks,labels"
        );
        assert_eq!(paths(&["--clear", "grants", "--clear", "responsible"]), "grants,responsible");
    }
}
