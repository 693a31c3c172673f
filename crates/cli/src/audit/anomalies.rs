//! `keyledger audit anomalies`.

use clap::Subcommand;
use keyledger_proto::entry::AnomalyResponse;
use keyledger_proto::unusual_subject::Subject;
use keyledger_proto::{
    AcknowledgeAnomalyRequest, Anomaly, AnomalyAcknowledgement, AnomalyChange, AnomalyState,
    ListAnomaliesRequest, WatchAnomaliesRequest,
};
use prost_types::Timestamp;
use uuid::Uuid;

use crate::change::{self, Change};
use crate::connection::Session;
use crate::json::{self, Output, enum_value_name};
use crate::keys::owner;
use crate::paging::Paging;
use crate::screen::{Screen, Tone, inert};
use crate::stream::follow;
use crate::table::{self, Facts};
use crate::values::{anomaly_verdicts, monitoring_rules, parse_time, show_time, words};

/// See unusual use that was noticed, and say what it was.
#[derive(clap::Args)]
#[command(after_help = "Example: keyledger audit anomalies list --open")]
pub(super) struct Anomalies {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    List(List),
    Watch(Watch),
    Acknowledge(Acknowledge),
}

/// List what was noticed, newest first, with how often it has happened up to now. AT is the position by which it is known.
#[derive(clap::Args)]
#[command(after_help = "Example: keyledger audit anomalies list --open --unacknowledged")]
struct List {
    /// Only what this rule noticed.
    #[arg(long, value_name = "RULE", value_parser = monitoring_rules())]
    rule: Option<i32>,
    /// Only what this key was used for: a UUID.
    #[arg(long, value_name = "UUID")]
    key_id: Option<Uuid>,
    /// Only what goes on.
    #[arg(long, conflicts_with = "ended")]
    open: bool,
    /// Only what is over.
    #[arg(long)]
    ended: bool,
    /// Only what somebody has looked at.
    #[arg(long, conflicts_with = "unacknowledged")]
    acknowledged: bool,
    /// Only what nobody has looked at.
    #[arg(long)]
    unacknowledged: bool,
    /// Only what was raised at this time or later: RFC 3339 with an offset.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,
    /// Only what was raised before this time: RFC 3339 with an offset.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<Timestamp>,
    #[command(flatten)]
    paging: Paging,
    #[command(flatten)]
    output: Output,
}

/// Follow what is noticed, what is over and what somebody has looked at, until this command is stopped.
///
/// With `-o json` each change is one line, with the position to continue from.
#[derive(clap::Args)]
#[command(after_help = "Example: keyledger audit anomalies watch --from 0")]
struct Watch {
    /// First position to look at: 0 is the beginning of the ledger. Without it only what is new is printed.
    #[arg(long, value_name = "POSITION")]
    from: Option<u64>,
    #[command(flatten)]
    output: Output,
}

/// Say what an anomaly was found to be. May be said again: the newest counts.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger audit anomalies acknowledge 4711 --verdict expected --reason 'the yearly audit'"
)]
struct Acknowledge {
    /// Which: the position by which it is listed.
    position: u64,
    /// What it was.
    #[arg(long, value_name = "VERDICT", value_parser = anomaly_verdicts())]
    verdict: i32,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    output: Output,
}

impl Anomalies {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        match self.command {
            Command::List(list) => list.run(session, screen).await,
            Command::Watch(watch) => watch.run(session, screen).await,
            Command::Acknowledge(acknowledge) => acknowledge.run(session, screen).await,
        }
    }
}

impl List {
    async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let page = async |page_token| {
            let request = session.call(self.request(page_token));
            let reply = session.audit().list_anomalies(request).await;
            let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
            match self.output.is_json() {
                true => json::print_page(screen, "ListAnomaliesResponse", &reply, self.paging.all)?,
                false => print_list(screen, &reply.anomalies)?,
            }
            Ok(reply.next_page_token)
        };
        self.paging.walk(page).await
    }

    fn request(&self, page_token: String) -> ListAnomaliesRequest {
        let state = match (self.open, self.ended) {
            (true, _) => AnomalyState::Open,
            (_, true) => AnomalyState::Ended,
            _ => AnomalyState::Unspecified,
        };
        ListAnomaliesRequest {
            rule: self.rule.unwrap_or_default(),
            key_id: self.key_id.map(|id| id.to_string()).unwrap_or_default(),
            state: state as i32,
            acknowledged: (self.acknowledged || self.unacknowledged).then_some(self.acknowledged),
            start_time: self.since,
            end_time: self.until,
            page_size: self.paging.size(),
            page_token,
        }
    }
}

impl Watch {
    async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let request = WatchAnomaliesRequest { from_position: self.from };
        let stream = session.audit().watch_anomalies(session.stream(request)).await;
        let stream = stream.map_err(|s| session.failure(&s))?.into_inner();
        follow(session, stream, self.from, |reply| {
            // Without a change it is a heartbeat.
            match &reply.change {
                Some(_) if self.output.is_json() => {
                    json::print_line(screen, "WatchAnomaliesResponse", &reply)?
                }
                Some(change) => print_line(screen, change)?,
                None => {}
            }
            Ok(reply.next_position)
        })
        .await
    }
}

impl Acknowledge {
    async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let request_id = self.change.request_id();
        let request = AcknowledgeAnomalyRequest {
            position: Some(self.position),
            verdict: self.verdict,
            reason: self.change.reason.clone(),
            request_id: request_id.clone(),
            validate_only: self.change.dry_run,
            approval_ref: self.change.approval_ref.clone(),
        };
        let reply = session.audit().acknowledge_anomaly(session.call(request)).await;
        let reply = reply.map_err(|s| session.change_failure(&s, &request_id))?.into_inner();
        if self.output.is_json() {
            return json::print_reply(screen, "AcknowledgeAnomalyResponse", &reply);
        }
        let mut facts = Facts::new(screen);
        facts.add("anomaly", &self.position.to_string());
        facts.add("found", &verdict(self.verdict));
        facts.add("position", &reply.position.map(|p| p.to_string()).unwrap_or_default());
        facts.print()?;
        Ok(change::print_dry_run(screen, &self.change)?)
    }
}

fn print_list(screen: &Screen, anomalies: &[Anomaly]) -> std::io::Result<()> {
    let headers = ["RAISED", "AT", "RULE", "TIMES", "STATE", "WHO", "DETAIL"];
    let mut list = table::List::new(screen, &headers, &[0, 1, 2, 3, 4]);
    for anomaly in anomalies {
        let ended = anomaly.end_time.is_some();
        list.row(&[
            (&time(&anomaly.raise_time), Tone::Faint),
            (&anomaly.position.map(|p| p.to_string()).unwrap_or_default(), Tone::Plain),
            (&rule(anomaly), Tone::Strong),
            (&anomaly.occurrences.to_string(), Tone::Plain),
            (if ended { "ended" } else { "open" }, if ended { Tone::Faint } else { Tone::Bad }),
            (&who(anomaly), Tone::Plain),
            (&detail(anomaly), Tone::Plain),
        ]);
    }
    list.print()
}

/// Columns of a fixed width, because what comes next isn't known yet.
fn print_line(screen: &Screen, change: &AnomalyChange) -> std::io::Result<()> {
    let anomaly = change.anomaly.clone().unwrap_or_default();
    let time = screen.paint(&format!("{:<27}", inert(&time(&change.time))), Tone::Faint);
    let at = anomaly.position.map(|p| p.to_string()).unwrap_or_default();
    let line = format!(
        "{time}  {at:<10}  {:<22}  {:<20}  {}  {} times  {}",
        inert(&change.r#type),
        inert(&rule(&anomaly)),
        inert(&who(&anomaly)),
        anomaly.occurrences,
        inert(&detail(&anomaly))
    );
    screen.line(line.trim_end())
}

fn time(time: &Option<Timestamp>) -> String {
    time.as_ref().map(show_time).unwrap_or_default()
}

fn rule(anomaly: &Anomaly) -> String {
    words(&enum_value_name("keyledger.entry.v1.MonitoringRule", anomaly.rule))
}

fn verdict(verdict: i32) -> String {
    words(&enum_value_name("keyledger.entry.v1.AnomalyVerdict", verdict))
}

/// Whose use it is.
fn who(anomaly: &Anomaly) -> String {
    match anomaly.subject.as_ref().and_then(|s| s.subject.as_ref()) {
        Some(Subject::KeyId(id)) => format!("key {id}"),
        Some(Subject::Owner(of)) => owner(Some(of)),
        Some(Subject::Network(network)) if network.is_empty() => "a network".into(),
        Some(Subject::Network(network)) => format!("network {network}"),
        None => String::new(),
    }
}

/// What was asked for, from where, what led to it, what is done about it, and what it was found to be.
fn detail(anomaly: &Anomaly) -> String {
    let asked = match (anomaly.permission.as_str(), anomaly.resource.as_str()) {
        ("", resource) => resource.to_string(),
        (permission, "") => permission.to_string(),
        (permission, resource) => format!("{permission} on {resource}"),
    };
    let is_network = matches!(
        anomaly.subject.as_ref().and_then(|s| s.subject.as_ref()),
        Some(Subject::Network(_))
    );
    let from =
        (!anomaly.network.is_empty() && !is_network).then(|| format!("from {}", anomaly.network));
    let measures =
        anomaly.measures.iter().map(|m| format!("{} {}", m.name.replace('_', " "), m.value));
    let suspended =
        (anomaly.response() == AnomalyResponse::Suspend).then(|| "suspended".to_string());
    let found = anomaly.acknowledgements.first().map(found);
    let parts = [(!asked.is_empty()).then_some(asked), from].into_iter().flatten();
    parts.chain(measures).chain(suspended).chain(found).collect::<Vec<_>>().join(", ")
}

fn found(acknowledgement: &AnomalyAcknowledgement) -> String {
    format!("found {}: “{}”", verdict(acknowledgement.verdict), acknowledgement.reason)
}

#[cfg(test)]
mod tests {
    use keyledger_proto::UnusualSubject;
    use keyledger_proto::entry::{AnomalyVerdict, Measure, MonitoringRule};

    use super::*;

    #[test]
    fn an_anomaly_says_what_was_asked_what_led_to_it_and_what_it_was_found_to_be() {
        let found = AnomalyAcknowledgement {
            verdict: AnomalyVerdict::Misuse as i32,
            reason: "ticket 4711".into(),
            ..Default::default()
        };
        let anomaly = Anomaly {
            rule: MonitoringRule::Forbidden as i32,
            subject: Some(UnusualSubject { subject: Some(Subject::KeyId("0198".into())) }),
            network: "192.0.2.0/24".into(),
            permission: "audit.read".into(),
            resource: "logs/payroll".into(),
            measures: vec![Measure { name: "different_things".into(), value: 1 }],
            response: AnomalyResponse::Suspend as i32,
            acknowledgements: vec![found],
            ..Default::default()
        };
        assert_eq!((rule(&anomaly), who(&anomaly)), ("forbidden".into(), "key 0198".into()));
        assert_eq!(
            detail(&anomaly),
            "audit.read on logs/payroll, from 192.0.2.0/24, different things 1, suspended, found misuse: “ticket 4711”"
        );
        let erased = Anomaly {
            subject: Some(UnusualSubject { subject: Some(Subject::Network(String::new())) }),
            ..Default::default()
        };
        assert_eq!((who(&erased), detail(&erased)), ("a network".into(), String::new()));
    }
}
