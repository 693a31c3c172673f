//! `keyledger audit anomalies`.

use clap::Subcommand;
use keyledger_proto::entry::{AnomalyResponse, Measure};
use keyledger_proto::unusual_subject::Subject;
use keyledger_proto::{
    AcknowledgeAnomalyRequest, Anomaly, AnomalyAcknowledgement, AnomalyChange, AnomalyFacts,
    AnomalyState, ListAnomaliesRequest, UnusualSubject, WatchAnomaliesRequest,
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
use crate::values::{
    anomaly_verdicts, monitoring_rules, parse_key_id, parse_position, parse_time, show_time, words,
};

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
    #[arg(long, value_name = "UUID", value_parser = parse_key_id)]
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
/// STATE says what became of the anomaly at AT, and TIMES how often it had happened by then: a list shows how often it has up to now.
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
    /// Which: the position by which it is listed, a number.
    #[arg(value_parser = parse_position)]
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
        if !self.output.is_json() {
            print_headers(screen)?;
        }
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
            (&rule(anomaly.rule), Tone::Strong),
            (&anomaly.occurrences.to_string(), Tone::Plain),
            (if ended { "ended" } else { "open" }, if ended { Tone::Faint } else { Tone::Bad }),
            (&who(anomaly.subject.as_ref()), Tone::Plain),
            (&detail(anomaly), Tone::Plain),
        ]);
    }
    list.print()
}

fn print_headers(screen: &Screen) -> std::io::Result<()> {
    let texts = ["TIME", "AT", "RULE", "TIMES", "STATE", "WHO", "DETAIL"];
    screen.line(&screen.paint(&in_columns(texts.map(String::from)), Tone::Faint))
}

fn print_line(screen: &Screen, change: &AnomalyChange) -> std::io::Result<()> {
    let line = in_columns(columns(change));
    screen.line(&line)
}

/// The same columns as in a list.
fn columns(change: &AnomalyChange) -> [String; 7] {
    let anomaly = change.anomaly.clone().unwrap_or_default();
    [
        time(&change.time),
        anomaly.position.map(|p| p.to_string()).unwrap_or_default(),
        rule(anomaly.rule),
        anomaly.occurrences.to_string(),
        change.r#type.trim_start_matches("anomaly.").into(),
        who(anomaly.subject.as_ref()),
        detail(&anomaly),
    ]
}

/// Columns of a fixed width, because what comes next isn't known yet.
fn in_columns(texts: [String; 7]) -> String {
    let [time, at, rule, times, state, who, detail] = texts.map(|text| inert(&text));
    let line =
        format!("{time:<27}  {at:<8}  {rule:<18}  {times:<6}  {state:<12}  {who:<40}  {detail}");
    line.trim_end().into()
}

fn time(time: &Option<Timestamp>) -> String {
    time.as_ref().map(show_time).unwrap_or_default()
}

fn rule(rule: i32) -> String {
    words(&enum_value_name("keyledger.entry.v1.MonitoringRule", rule))
}

fn verdict(verdict: i32) -> String {
    words(&enum_value_name("keyledger.entry.v1.AnomalyVerdict", verdict))
}

/// Whose use it is.
fn who(subject: Option<&UnusualSubject>) -> String {
    match subject.and_then(|s| s.subject.as_ref()) {
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
    let from = from(&anomaly.network, anomaly.subject.as_ref());
    let found = anomaly.acknowledgements.first().map(found);
    let parts = [(!asked.is_empty()).then_some(asked), from].into_iter().flatten();
    let parts = parts.chain(measures(&anomaly.measures)).chain(suspended(anomaly.response()));
    parts.chain(found).collect::<Vec<_>>().join(", ")
}

/// The same of an event, which says beside it what was asked for, and of which key.
pub(super) fn event_detail(facts: &AnomalyFacts, r#type: &str) -> String {
    let parts: Vec<String> = if r#type == "anomaly.raised" {
        // Which key it is stands in a column of its own.
        let subject = facts.subject.as_ref();
        let is_key = matches!(subject.and_then(|s| s.subject.as_ref()), Some(Subject::KeyId(_)));
        let who = (!is_key).then(|| who(subject));
        let from = from(&facts.network, subject);
        let parts = std::iter::once(rule(facts.rule)).chain(who).chain(from);
        parts.chain(measures(&facts.measures)).chain(suspended(facts.response())).collect()
    } else {
        let of = format!("of entry {}", facts.position.unwrap_or_default());
        let times = (facts.occurrences > 0).then(|| times(facts.occurrences));
        let found = (facts.verdict != 0).then(|| format!("found {}", verdict(facts.verdict)));
        std::iter::once(of).chain(times).chain(found).collect()
    };
    parts.join(", ")
}

fn times(occurrences: u64) -> String {
    if occurrences == 1 { "once".into() } else { format!("{occurrences} times") }
}

/// From where, unless that is whose use it is.
fn from(network: &str, subject: Option<&UnusualSubject>) -> Option<String> {
    let is_network = matches!(subject.and_then(|s| s.subject.as_ref()), Some(Subject::Network(_)));
    (!network.is_empty() && !is_network).then(|| format!("from {network}"))
}

fn measures(measures: &[Measure]) -> impl Iterator<Item = String> {
    measures.iter().map(|m| format!("{} {}", m.name.replace('_', " "), m.value))
}

fn suspended(response: AnomalyResponse) -> Option<String> {
    (response == AnomalyResponse::Suspend).then(|| "suspended".into())
}

fn found(acknowledgement: &AnomalyAcknowledgement) -> String {
    format!("found {}: “{}”", verdict(acknowledgement.verdict), acknowledgement.reason)
}

#[cfg(test)]
mod tests {
    use keyledger_proto::entry::{AnomalyVerdict, MonitoringRule};

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
        assert_eq!(rule(anomaly.rule), "forbidden");
        assert_eq!(who(anomaly.subject.as_ref()), "key 0198");
        assert_eq!(
            detail(&anomaly),
            "audit.read on logs/payroll, from 192.0.2.0/24, different things 1, suspended, found misuse: “ticket 4711”"
        );
        let erased = Anomaly {
            subject: Some(UnusualSubject { subject: Some(Subject::Network(String::new())) }),
            ..Default::default()
        };
        assert_eq!(who(erased.subject.as_ref()), "a network");
        assert_eq!(detail(&erased), "");
    }

    #[test]
    fn what_is_followed_has_the_columns_of_a_list() {
        let anomaly = Anomaly {
            position: Some(7),
            rule: MonitoringRule::Scanning as i32,
            subject: Some(UnusualSubject {
                subject: Some(Subject::Network("192.0.2.0/24".into())),
            }),
            occurrences: 1,
            ..Default::default()
        };
        let change = AnomalyChange {
            r#type: "anomaly.acknowledged".into(),
            anomaly: Some(anomaly),
            ..Default::default()
        };
        assert_eq!(
            columns(&change),
            ["", "7", "scanning", "1", "acknowledged", "network 192.0.2.0/24", ""]
        );
        let headers =
            in_columns(["TIME", "AT", "RULE", "TIMES", "STATE", "WHO", "DETAIL"].map(String::from));
        let row = in_columns(columns(&change));
        assert_eq!(headers.find("STATE"), row.find("acknowledged"));
        assert_eq!(headers.find("WHO"), row.find("network"));
    }
}
