//! `keyledger access sign`: signs a report off.

use std::path::PathBuf;

use keyledger_proto::SignAccessReviewRequest;
use keyledger_proto::review::{FORMAT, digest};
use serde_json::Value;

use crate::change::{self, Change};
use crate::connection::Session;
use crate::failure::Failure;
use crate::json::{self, Output};
use crate::screen::Screen;
use crate::table::Facts;
use crate::values::parse_time;

/// Sign a report of `access review` off: an entry of the log says who looked at which report, and whether it is good. Signed is the
/// SHA-256 of the file as it lies there.
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
        let request = SignAccessReviewRequest {
            approved: self.approve,
            reason: self.change.reason.clone(),
            request_id: request_id.clone(),
            validate_only: self.change.dry_run,
            approval_ref: self.change.approval_ref.clone(),
            ..signed(&text).ok_or_else(|| {
                Failure::new(format!("{} is no report of `access review`", self.report.display()))
                    .next("give the JSON that `keyledger access review` wrote")
            })?
        };
        let sha256 = hex::encode(&request.report_sha256);
        let reply = session.keys().sign_access_review(session.call(request)).await;
        let reply = reply.map_err(|s| session.change_failure(&s, &request_id))?.into_inner();
        if self.output.is_json() {
            return json::print_reply(screen, "SignAccessReviewResponse", &reply);
        }
        let mut facts = Facts::new(screen);
        facts.add("sha256", &sha256);
        facts.add("approved", if self.approve { "yes" } else { "no" });
        facts.add("position", &reply.position.map(|p| p.to_string()).unwrap_or_default());
        facts.print()?;
        Ok(change::print_dry_run(screen, &self.change)?)
    }
}

/// What a report says that it is about, and its digest.
fn signed(text: &str) -> Option<SignAccessReviewRequest> {
    let report: Value = serde_json::from_str(text).ok()?;
    if report["format"] != FORMAT {
        return None;
    }
    let summary = &report["summary"];
    let time = |name: &str| parse_time(summary[name].as_str()?).ok();
    Some(SignAccessReviewRequest {
        from_time: Some(time("fromTime")?),
        to_time: Some(time("toTime")?),
        as_of_position: Some(summary["asOfPosition"].as_str()?.parse().ok()?),
        report_sha256: digest(text).to_vec(),
        key_id: summary["keyId"].as_str().unwrap_or_default().into(),
        ..SignAccessReviewRequest::default()
    })
}

#[cfg(test)]
mod tests {
    use keyledger_proto::ReviewSummary;
    use keyledger_proto::review::Report;

    use super::*;

    #[test]
    fn what_is_signed_stands_in_the_report() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 5_000 });
        let summary = ReviewSummary {
            from_time: at(1_000),
            to_time: at(2_000),
            as_of_position: Some(17),
            key_id: "0198c5a0-0000-8000-8000-000000000001".into(),
            ..ReviewSummary::default()
        };
        let json = Report { summary: summary.clone(), ..Report::default() }.json();
        let request = signed(&json).unwrap();
        assert_eq!((request.from_time, request.to_time), (at(1_000), at(2_000)));
        assert_eq!((request.as_of_position, request.key_id), (Some(17), summary.key_id));
        assert_eq!(request.report_sha256, digest(&json));
        for bad in ["", "{}", "[]", "{\"format\":\"something else\"}"] {
            assert!(signed(bad).is_none(), "{bad}");
        }
    }
}
