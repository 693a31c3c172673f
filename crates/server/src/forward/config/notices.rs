//! What a `[[notice]]` is about:
//!
//! ```toml
//! [[notice]]
//! name = "billing"
//! ledger = "default"
//! start = "now"
//! kinds = ["key.expiring", "anomaly.raised"]     # by default all
//! owner = { service = "billing" }                # or user = "alice@example.com"; by default everybody
//! labels = { team = "billing" }                  # by default any
//! webhook = { url = "https://chat.example.com/in", secret_file = "/etc/keyledger/billing.secret" }
//! ```

use keyledger_ledger::state::Label;
use keyledger_proto::parse::{self, EventFilter};
use keyledger_proto::{Owner, owner};

use super::super::fields::{ConfigError, Fields};
use super::super::notice::{KINDS, Notice};

/// Most labels that a key must have.
const MAX_LABELS: usize = 8;

/// About which owner's keys, and about what else.
pub(super) fn of(fields: &mut Fields) -> Result<(EventFilter, Notice), ConfigError> {
    let mut kinds = fields.texts("kinds", KINDS.len())?;
    if kinds.iter().any(|kind| !KINDS.contains(&kind.as_str())) {
        return Err(fields.problem("kinds", &format!("must be some of {}", KINDS.join(", "))));
    }
    if kinds.is_empty() {
        kinds = KINDS.map(String::from).to_vec();
    }
    let labels = fields.pairs("labels", MAX_LABELS)?;
    let label = |(name, value): (String, String)| Label { name: name.into(), value: value.into() };
    let labels = labels.into_iter().map(label).collect();
    Ok((of_owner(fields)?, Notice { kinds, labels }))
}

fn of_owner(fields: &mut Fields) -> Result<EventFilter, ConfigError> {
    let Some(mut named) = fields.table("owner")? else { return Ok(EventFilter::default()) };
    let owner = match (named.text("user")?, named.text("service")?) {
        (Some(user), None) => owner::Owner::User(user),
        (None, Some(service)) => owner::Owner::Service(service),
        _ => return Err(named.problem("user or service:", "exactly one of them must be given")),
    };
    let owner = Some(Owner { owner: Some(owner) });
    let filter = keyledger_proto::EventFilter { owner, ..Default::default() };
    let filter = parse::event_filter(filter).map_err(|violations| {
        let wrong = violations.first().expect("a refusal names a field");
        named.problem(wrong.field.trim_start_matches("filter.owner."), &wrong.description)
    })?;
    named.end()?;
    Ok(filter)
}
