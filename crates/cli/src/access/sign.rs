//! `keyledger access sign`: signs a report off.

use std::path::PathBuf;

use keyledger_proto::review::{FORMAT, LISTS, digest};
use keyledger_proto::{GetAccessReviewRequest, SignAccessReviewRequest, WhoAmIRequest};
use serde_json::Value;

use super::review::gathered;
use crate::change::{self, Change};
use crate::connection::Session;
use crate::failure::Failure;
use crate::json::{self, Output};
use crate::screen::{Screen, inert};
use crate::table::Facts;
use crate::values::parse_time;

/// Sign a report of `access review` off: an entry of the log says who looked at which report, and whether it is good. Signed is the
/// SHA-256 of the file as it lies there.
///
/// The server keeps no reports. So the same review as of the same position is asked for again first, and only a file that is the same
/// to the byte is signed: for that the token needs what `access review` needs. A file can differ because people were erased since, or in what is
/// unused, which is known only of now.
#[derive(clap::Args)]
#[command(
    after_help = "Example: keyledger access sign q3.html.json --approve --reason 'looked at every key of the payment services'"
)]
pub(super) struct Sign {
    /// The report as JSON, as `access review` wrote it.
    report: PathBuf,
    /// What was found is good.
    #[arg(long, required_unless_present = "reject", conflicts_with = "reject")]
    approve: bool,
    /// What was found is not good.
    #[arg(long)]
    reject: bool,
    /// Sign the file though the server does not give the same again: what differs is said.
    #[arg(long)]
    unchecked: bool,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    output: Output,
}

impl Sign {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(&self.report).map_err(|error| {
            Failure::new(format!("{} can't be read: {error}", self.report.display()))
        })?;
        let request_id = self.change.request_id();
        let no_report = || {
            Failure::new(format!("{} is no report of `access review`", self.report.display()))
                .next("give the JSON that `keyledger access review` wrote")
        };
        let (ledger_id, signed) = signed(&text).ok_or_else(no_report)?;
        check_ledger(session, &ledger_id).await?;
        let difference = self.difference(session, &signed, &text).await?;
        let request = SignAccessReviewRequest {
            approved: self.approve,
            reason: self.change.reason.clone(),
            request_id: request_id.clone(),
            validate_only: self.change.dry_run,
            approval_ref: self.change.approval_ref.clone(),
            ..signed
        };
        let sha256 = hex::encode(&request.report_sha256);
        let reply = session.keys().sign_access_review(session.call(request)).await;
        let reply = reply.map_err(|s| session.change_failure(&s, &request_id))?.into_inner();
        if let Some(difference) = &difference {
            eprintln!("Signed unchecked: {}.", inert(difference));
        }
        if self.output.is_json() {
            return json::print_reply(screen, "SignAccessReviewResponse", &reply);
        }
        let mut facts = Facts::new(screen);
        facts.add("sha256", &sha256);
        facts.add("same as the server's", if difference.is_none() { "yes" } else { "no" });
        facts.add("approved", if self.approve { "yes" } else { "no" });
        facts.add("position", &reply.position.map(|p| p.to_string()).unwrap_or_default());
        facts.print()?;
        Ok(change::print_dry_run(screen, &self.change)?)
    }

    /// How the file differs from what the server gives; nothing is signed then unless that was asked for.
    async fn difference(
        &self,
        session: &Session,
        signed: &SignAccessReviewRequest,
        text: &str,
    ) -> anyhow::Result<Option<String>> {
        let again = GetAccessReviewRequest {
            from_time: signed.from_time,
            to_time: signed.to_time,
            as_of_position: signed.as_of_position,
            key_id: signed.key_id.clone(),
        };
        let differs = match gathered(session, again).await {
            Ok(report) => differs(text, &report.json()),
            Err(error) if self.unchecked => Some(format!("the server does not give it: {error}")),
            Err(error) => return Err(error),
        };
        match differs {
            Some(problem) if !self.unchecked => Err(Failure::new(format!(
                "{} is not what the server gives as of the same position: {problem}",
                self.report.display()
            ))
            .next("write and read the report again with `keyledger access review`")
            .and_next("if you know why it differs, sign it with --unchecked")
            .into()),
            differs => Ok(differs),
        }
    }
}

/// A signature stands in the log of the ledger that the report is about.
async fn check_ledger(session: &Session, ledger_id: &str) -> anyhow::Result<()> {
    let reply = session.keys().who_am_i(session.call(WhoAmIRequest {})).await;
    let own = reply.map_err(|s| session.failure(&s))?.into_inner().ledger.unwrap_or_default();
    if own.ledger_id == ledger_id {
        return Ok(());
    }
    let problem =
        format!("the report is of another ledger than the token, which is {}'s", own.name);
    Err(Failure::new(problem).next("give a token of the ledger that the report is about").into())
}

/// In which parts two reports differ.
fn differs(file: &str, server: &str) -> Option<String> {
    if file == server {
        return None;
    }
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let (ours, theirs) = (read(file), read(server));
    let parts =
        LISTS.iter().chain(&["summary", "end"]).filter(|part| ours[**part] != theirs[**part]);
    let parts: Vec<&str> = parts.copied().collect();
    let parts = if parts.is_empty() { "how they are written".into() } else { parts.join(", ") };
    let (file, server) = (hex::encode(digest(file)), hex::encode(digest(server)));
    Some(format!("they differ in {parts}; the file's SHA-256 is {file}, the server's {server}"))
}

/// The id of a report's ledger, and what the report says that it is about, with its digest. `None` if it isn't of the shape.
fn signed(text: &str) -> Option<(String, SignAccessReviewRequest)> {
    let report: Value = serde_json::from_str(text).ok()?;
    if report["format"] != FORMAT || report.as_object()?.len() != LISTS.len() + 3 {
        return None;
    }
    for list in LISTS {
        // A count of 0 isn't written.
        let counted = report["end"][list].as_str().unwrap_or("0");
        if report[list].as_array()?.len().to_string() != counted {
            return None;
        }
    }
    let summary = &report["summary"];
    let time = |name: &str| parse_time(summary[name].as_str()?).ok();
    let ledger_id = summary["ledger"]["ledgerId"].as_str()?.to_string();
    let request = SignAccessReviewRequest {
        from_time: Some(time("fromTime")?),
        to_time: Some(time("toTime")?),
        as_of_position: Some(summary["asOfPosition"].as_str()?.parse().ok()?),
        report_sha256: digest(text).to_vec(),
        key_id: summary["keyId"].as_str().unwrap_or_default().into(),
        ..SignAccessReviewRequest::default()
    };
    Some((ledger_id, request))
}

#[cfg(test)]
mod tests {
    use keyledger_proto::review::Report;
    use keyledger_proto::{Ledger, ReviewChange, ReviewEnd, ReviewSummary};

    use super::*;

    #[test]
    fn what_is_signed_stands_in_the_report() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 5_000 });
        let summary = ReviewSummary {
            from_time: at(1_000),
            to_time: at(2_000),
            as_of_position: Some(17),
            ledger: Some(Ledger { ledger_id: "L".into(), ..Ledger::default() }),
            key_id: "0198c5a0-0000-8000-8000-000000000001".into(),
            ..ReviewSummary::default()
        };
        let json = Report {
            summary: summary.clone(),
            changes: vec![ReviewChange::default()],
            end: Some(ReviewEnd { changes: 1, ..ReviewEnd::default() }),
            ..Report::default()
        };
        let invented = Report { end: None, ..json.clone() }.json();
        let json = json.json();
        let (ledger_id, request) = signed(&json).unwrap();
        assert_eq!(ledger_id, "L");
        assert_eq!(differs(&json, &json), None);
        assert!(differs(&json, &invented).unwrap().contains("differ in end;"));
        assert!(differs(&json, &format!("{json} ")).unwrap().contains("how they are written"));
        assert!(signed(&invented).is_none(), "its counts are not its lists'");
        assert_eq!((request.from_time, request.to_time), (at(1_000), at(2_000)));
        assert_eq!((request.as_of_position, request.key_id), (Some(17), summary.key_id));
        assert_eq!(request.report_sha256, digest(&json));
        for bad in ["", "{}", "[]", "{\"format\":\"something else\"}"] {
            assert!(signed(bad).is_none(), "{bad}");
        }
    }
}
