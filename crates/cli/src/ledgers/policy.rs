//! `keyledger ledgers get` and `keyledger ledgers policy`.

use keyledger_ledger::body::{AnomalyResponse, MonitoringRule, RuleSetting};
use keyledger_ledger::policy::{MAX_THRESHOLD, check_rule};
use keyledger_proto::{GetLedgerRequest, LedgerLimits, LedgerPolicy, UpdateLedgerPolicyRequest};
use prost_types::{Duration, FieldMask};

use crate::change::{self, Change};
use crate::connection::Session;
use crate::failure::Failure;
use crate::json::{self, Output};
use crate::screen::{Screen, Tone};
use crate::table::Facts;
use crate::values::{parse_duration, show_duration};

/// Show a ledger, what its keys and changes must keep to, and how much of a replica it may take.
#[derive(clap::Args)]
#[command(after_help = "Example: keyledger ledgers get main")]
pub(super) struct Get {
    /// Name of the ledger.
    name: String,
    #[command(flatten)]
    output: Output,
}

/// Change what keys and changes of a ledger must keep to. What isn't named stays as it is; keys that exist stay as they are.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger ledgers policy main --max-life 180d --approval keys.revoke --reason 'ticket 4711'"
)]
pub(super) struct Update {
    /// Name of the ledger.
    name: String,
    /// Life of a key that names none.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    default_life: Option<Duration>,
    /// Longest life of a key: 1 second to 3,660 days.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    max_life: Option<Duration>,
    /// Longest overlap of a rotation: 0 to 90 days.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    max_overlap: Option<Duration>,
    /// How many days before its end a key is noted to be about to end, farthest first: `30,7,1`.
    #[arg(long, value_name = "DAYS", value_delimiter = ',')]
    notice_days: Vec<u32>,
    /// Permission by which nothing is changed without --approval-ref: `keys.revoke`, `roles.*`, `*`. May be repeated; all are
    /// replaced.
    #[arg(long = "approval", value_name = "PERMISSION")]
    approvals: Vec<String>,
    /// How old an answer from memory may be: 0s (none may be) to 60s.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    max_staleness: Option<Duration>,
    /// What is done about unusual use, such as `spike=suspend`, `new-network=off` or `refusal-burst=note:50` (with a threshold of
    /// its own). Rules: spike, refusal-burst, forbidden, new-network, long-silence, superseded-version, scanning. Responses:
    /// off, note, suspend (not for scanning, which is about networks, nor for refusal-burst, which strangers can cause). May be repeated; all are replaced.
    #[arg(long = "rule", value_name = "RULE=RESPONSE[:THRESHOLD]", value_parser = parse_rule)]
    rules: Vec<RuleSetting>,
    /// How long a key may be unused before it is suspended; 0s: it is never suspended.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    idle_suspend_after: Option<Duration>,
    /// How much later it is revoked; 0s: never. Needs --idle-suspend-after, now or before.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    idle_revoke_after: Option<Duration>,
    /// Every how many days it is counted what is to be tidied up; 0: never.
    #[arg(long, value_name = "DAYS")]
    digest_days: Option<u32>,
    /// Keys that the ledger may hold, those that have ended included. Only for keys of the system ledger, like all limits.
    #[arg(long, value_name = "NUMBER")]
    max_keys: Option<u64>,
    /// Roles that the ledger may hold, those that were retired included.
    #[arg(long, value_name = "NUMBER")]
    max_roles: Option<u64>,
    /// Streams that may be open at once on one replica.
    #[arg(long, value_name = "NUMBER")]
    max_streams: Option<u32>,
    /// Bytes that one replica may write to the ledger in a second, about.
    #[arg(long, value_name = "NUMBER")]
    max_bytes_per_second: Option<u64>,
    /// What is taken away altogether. May be repeated.
    #[arg(long, value_name = "FIELD", value_parser = ["notice_days", "approval_permissions", "rules"])]
    clear: Vec<String>,
    /// Change the policy only if it is still as it was seen, by the etag that `ledgers get -o json` shows.
    #[arg(long, value_name = "ETAG", default_value = "", hide_default_value = true)]
    etag: String,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    output: Output,
}

impl Get {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let request = GetLedgerRequest { name: self.name };
        let reply = session.keys().get_ledger(session.call(request)).await;
        let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
        if self.output.is_json() {
            return json::print_reply(screen, "GetLedgerResponse", &reply);
        }
        let ledger = reply.ledger.unwrap_or_default();
        let mut facts = Facts::new(screen);
        facts.add_in("ledger", &ledger.name, Tone::Strong);
        facts.add("ledger id", &ledger.ledger_id);
        facts.add("number", &ledger.number.to_string());
        facts.add("origin", &ledger.origin);
        facts.add("entries", &reply.position.unwrap_or_default().to_string());
        facts.add("keys", &reply.keys.to_string());
        facts.add("roles", &reply.roles.to_string());
        add_policy(&mut facts, &reply.policy.unwrap_or_default());
        add_limits(&mut facts, &reply.limits.unwrap_or_default());
        Ok(facts.print()?)
    }
}

impl Update {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let (change, output) = (self.change.clone(), self.output);
        let request = self.request();
        if request.update_mask.as_ref().is_none_or(|mask| mask.paths.is_empty()) {
            return Err(Failure::new("nothing is named that is to be changed")
                .next("name it, such as --max-life 180d or --rule spike=suspend; `keyledger ledgers policy --help` tells all")
                .into());
        }
        let request_id = request.request_id.clone();
        let reply = session.keys().update_ledger_policy(session.call(request)).await;
        let reply = reply.map_err(|s| session.change_failure(&s, &request_id))?.into_inner();
        if output.is_json() {
            return json::print_reply(screen, "UpdateLedgerPolicyResponse", &reply);
        }
        let mut facts = Facts::new(screen);
        add_policy(&mut facts, &reply.policy.unwrap_or_default());
        add_limits(&mut facts, &reply.limits.unwrap_or_default());
        facts.print()?;
        Ok(change::print_dry_run(screen, &change)?)
    }

    fn request(self) -> UpdateLedgerPolicyRequest {
        let named = [
            ("default_life", self.default_life.is_some()),
            ("max_life", self.max_life.is_some()),
            ("max_overlap", self.max_overlap.is_some()),
            ("notice_days", !self.notice_days.is_empty()),
            ("approval_permissions", !self.approvals.is_empty()),
            ("max_staleness", self.max_staleness.is_some()),
            ("rules", !self.rules.is_empty()),
            ("idle_suspend_after", self.idle_suspend_after.is_some()),
            ("idle_revoke_after", self.idle_revoke_after.is_some()),
            ("digest_days", self.digest_days.is_some()),
            ("limits.max_keys", self.max_keys.is_some()),
            ("limits.max_roles", self.max_roles.is_some()),
            ("limits.max_streams", self.max_streams.is_some()),
            ("limits.max_bytes_per_second", self.max_bytes_per_second.is_some()),
        ];
        let cleared = |field: &str| self.clear.iter().any(|c| c == field);
        let paths = named.iter().filter(|(field, given)| *given || cleared(field));
        let paths = paths.map(|(field, _)| field.to_string()).collect();
        UpdateLedgerPolicyRequest {
            name: self.name,
            update_mask: Some(FieldMask { paths }),
            policy: Some(LedgerPolicy {
                default_life: self.default_life,
                max_life: self.max_life,
                max_overlap: self.max_overlap,
                notice_days: self.notice_days,
                approval_permissions: self.approvals,
                max_staleness: self.max_staleness,
                rules: self.rules,
                idle_suspend_after: self.idle_suspend_after,
                idle_revoke_after: self.idle_revoke_after,
                digest_days: self.digest_days.unwrap_or_default(),
            }),
            limits: Some(LedgerLimits {
                max_keys: self.max_keys.unwrap_or_default(),
                max_roles: self.max_roles.unwrap_or_default(),
                max_streams: self.max_streams.unwrap_or_default(),
                max_bytes_per_second: self.max_bytes_per_second.unwrap_or_default(),
            }),
            etag: self.etag,
            request_id: self.change.request_id(),
            reason: self.change.reason,
            validate_only: self.change.dry_run,
            approval_ref: self.change.approval_ref,
        }
    }
}

fn add_policy(facts: &mut Facts<'_>, policy: &LedgerPolicy) {
    let life = |life: &Option<Duration>| life.as_ref().map(show_duration).unwrap_or_default();
    let days: Vec<String> = policy.notice_days.iter().map(u32::to_string).collect();
    let approvals = policy.approval_permissions.join(", ");
    let none = |text: String| if text.is_empty() { "none".into() } else { text };
    facts.add("default life", &life(&policy.default_life));
    facts.add("max life", &life(&policy.max_life));
    facts.add("max overlap", &life(&policy.max_overlap));
    facts.add("notice days", &none(days.join(", ")));
    facts.add("needs approval", &none(approvals));
    facts.add("max staleness", &life(&policy.max_staleness));
    let rules: Vec<String> = policy.rules.iter().map(show_rule).collect();
    facts.add("rules", &if rules.is_empty() { "all note".into() } else { rules.join(", ") });
    let never = |text: String| if text == "0s" || text == "0" { "never".into() } else { text };
    facts.add("idle suspend", &never(life(&policy.idle_suspend_after)));
    facts.add("idle revoke", &never(life(&policy.idle_revoke_after)));
    facts.add("digest days", &never(policy.digest_days.to_string()));
}

fn add_limits(facts: &mut Facts<'_>, limits: &LedgerLimits) {
    facts.add("max keys", &limits.max_keys.to_string());
    facts.add("max roles", &limits.max_roles.to_string());
    facts.add("max streams", &limits.max_streams.to_string());
    facts.add("max bytes/s", &limits.max_bytes_per_second.to_string());
}

/// `spike=suspend`, `refusal-burst=note:50`.
fn parse_rule(text: &str) -> Result<RuleSetting, String> {
    let form = "it is `<rule>=<response>`, such as `spike=suspend`, or with a threshold, `refusal-burst=note:50`";
    let (rule, setting) = text.split_once('=').ok_or(form)?;
    let (response, threshold) = match setting.split_once(':') {
        Some((response, threshold)) => (response, parse_threshold(threshold)?),
        None => (setting, 0),
    };
    let response = match response {
        "off" => AnomalyResponse::Off,
        "note" => AnomalyResponse::Note,
        "suspend" => AnomalyResponse::Suspend,
        other => {
            return Err(format!("{other:?} is no response: the responses are off, note, suspend"));
        }
    };
    let rule = rules().find(|r| name(*r) == rule).ok_or_else(|| {
        let names: Vec<String> = rules().map(name).collect();
        format!("{rule:?} is no rule: the rules are {}", names.join(", "))
    })?;
    let setting = RuleSetting { rule: rule as i32, response: response as i32, threshold };
    check_rule(&setting).map(|()| setting)
}

fn parse_threshold(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) => Err("a threshold of 0 means nothing: leave it out for the default".into()),
        Ok(threshold) => Ok(threshold),
        Err(_) => Err(format!(
            "{text:?} is no threshold: that is a whole number from 1 to {MAX_THRESHOLD}"
        )),
    }
}

fn rules() -> impl Iterator<Item = MonitoringRule> {
    (1..).map_while(|n| MonitoringRule::try_from(n).ok())
}

/// `new-network`
fn name(rule: MonitoringRule) -> String {
    rule.as_str_name().trim_start_matches("MONITORING_RULE_").to_lowercase().replace('_', "-")
}

fn show_rule(setting: &RuleSetting) -> String {
    let response = setting.response().as_str_name().trim_start_matches("ANOMALY_RESPONSE_");
    let threshold = match setting.threshold {
        0 => String::new(),
        threshold => format!(":{threshold}"),
    };
    format!("{}={}{threshold}", name(setting.rule()), response.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_rule_does_is_written_as_it_is_shown() {
        for text in ["spike=suspend", "new-network=off", "refusal-burst=note:50"] {
            assert_eq!(show_rule(&parse_rule(text).unwrap()), text);
        }
        for (text, wrong) in [
            ("spike", "it is `<rule>=<response>`"),
            ("spike=", "off, note, suspend"),
            ("spike=stop", "off, note, suspend"),
            ("spikes=note", "spike, refusal-burst, forbidden, new-network, long-silence, "),
            ("spike=note:x", "\"x\" is no threshold: that is a whole number from 1"),
            ("spike=note:0", "leave it out"),
            ("spike=off:3", "it is off"),
            ("scanning=suspend", "no key to suspend"),
            ("spike=note:1000001", "at most 1,000,000"),
        ] {
            let error = parse_rule(text).unwrap_err();
            assert!(error.contains(wrong), "{text}: {error}");
        }
    }

    #[test]
    fn the_help_names_every_rule() {
        let command = <Update as clap::Args>::augment_args(clap::Command::new("policy"));
        let rule = command.get_arguments().find(|a| a.get_id() == "rules").unwrap();
        let help = rule.get_help().unwrap().to_string();
        for rule in rules().map(name) {
            assert!(help.contains(&rule), "{rule}");
        }
    }
}
