//! Reports of who held what when: gathered from their parts, and written as JSON, of which a digest is signed, or as CSV. The page
//! for people is in [`crate::document::review`].

mod given;

use sha2::{Digest, Sha256};

use crate::document::words::{owner_in_full, owner_name};
use crate::entry::Grant;
use crate::export::csv::record;
use crate::get_access_review_response::Part;
use crate::json::line;
pub(crate) use given::given;

use crate::{
    Finding, Key, KeyState, Owner, ReviewChange, ReviewEnd, ReviewException, ReviewHolding,
    ReviewRole, ReviewSignOff, ReviewSummary,
};

/// What the first line of the JSON says that it is.
pub const FORMAT: &str = "keyledger access review v1";

/// The names of its lists; its end counts each by the same name.
pub const LISTS: [&str; 6] = ["holdings", "roles", "changes", "unused", "exceptions", "signOffs"];

/// A report, gathered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    pub summary: ReviewSummary,
    pub holdings: Vec<ReviewHolding>,
    pub roles: Vec<ReviewRole>,
    pub changes: Vec<ReviewChange>,
    pub unused: Vec<Finding>,
    pub exceptions: Vec<ReviewException>,
    pub sign_offs: Vec<ReviewSignOff>,
    pub end: Option<ReviewEnd>,
}

impl Report {
    pub fn add(&mut self, part: Part) {
        match part {
            Part::Summary(summary) => self.summary = summary,
            Part::Holding(holding) => self.holdings.push(holding),
            Part::Role(role) => self.roles.push(role),
            Part::Change(change) => self.changes.push(change),
            Part::Unused(finding) => self.unused.push(finding),
            Part::Exception(exception) => self.exceptions.push(exception),
            Part::SignOff(sign_off) => self.sign_offs.push(sign_off),
            Part::End(end) => self.end = Some(end),
        }
    }

    /// Whether all parts are there.
    pub fn is_complete(&self) -> bool {
        let counted = ReviewEnd {
            holdings: self.holdings.len() as u64,
            changes: self.changes.len() as u64,
            unused: self.unused.len() as u64,
            exceptions: self.exceptions.len() as u64,
            sign_offs: self.sign_offs.len() as u64,
            roles: self.roles.len() as u64,
        };
        self.end == Some(counted)
    }

    /// Signatures by what they are of.
    pub fn signatures(&self) -> Signatures<'_> {
        let mut all = Signatures::default();
        for signature in &self.sign_offs {
            let same = signature.from_time == self.summary.from_time
                && signature.to_time == self.summary.to_time
                && signature.key_id == self.summary.key_id;
            match (same, signature.approved) {
                (true, true) => all.approved.push(signature),
                (true, false) => all.rejected.push(signature),
                (false, _) => all.others.push(signature),
            }
        }
        all
    }

    /// One object, each part on a line of its own: what is signed is the SHA-256 of these bytes.
    pub fn json(&self) -> String {
        fn list<T: prost::Message>(name: &str, of: &str, parts: &[T]) -> String {
            let lines: Vec<String> = parts.iter().map(|part| line(of, part)).collect();
            let lines = lines.join(",\n");
            if lines.is_empty() {
                format!("\"{name}\":[]")
            } else {
                format!("\"{name}\":[\n{lines}\n]")
            }
        }
        let parts = [
            format!("\"format\":\"{FORMAT}\""),
            format!("\"summary\":{}", line("ReviewSummary", &self.summary)),
            list("holdings", "ReviewHolding", &self.holdings),
            list("roles", "ReviewRole", &self.roles),
            list("changes", "ReviewChange", &self.changes),
            list("unused", "Finding", &self.unused),
            list("exceptions", "ReviewException", &self.exceptions),
            list("signOffs", "ReviewSignOff", &self.sign_offs),
            format!("\"end\":{}", line("ReviewEnd", &self.end.unwrap_or_default())),
        ];
        format!("{{{}}}\n", parts.join(",\n"))
    }

    /// One table: the first column says what a record is, and columns that it has nothing for are empty. Cells are guarded like those
    /// of an export of the log.
    pub fn csv(&self) -> Vec<u8> {
        let mut bytes = record(COLUMNS.iter().map(|name| name.to_string()));
        let rows = self
            .holdings
            .iter()
            .map(holding_row)
            .chain(self.roles.iter().map(role_row))
            .chain(self.changes.iter().map(change_row))
            .chain(self.unused.iter().map(unused_row))
            .chain(self.exceptions.iter().map(exception_row))
            .chain(self.sign_offs.iter().map(sign_off_row));
        for row in rows {
            let cell = |name: &&str| {
                row.iter()
                    .find(|(column, _)| column == name)
                    .map_or(String::new(), |(_, c)| c.clone())
            };
            bytes.extend(record(COLUMNS.iter().map(cell)));
        }
        bytes
    }
}

/// Signatures so far. None is of this very report: it was written before it could be signed.
#[derive(Clone, Debug, Default)]
pub struct Signatures<'a> {
    /// That reports of the same period, and of the same key if it is about one, are good.
    pub approved: Vec<&'a ReviewSignOff>,
    /// That they are not.
    pub rejected: Vec<&'a ReviewSignOff>,
    /// Of other periods, or other keys.
    pub others: Vec<&'a ReviewSignOff>,
}

/// SHA-256 of a report as JSON.
pub fn digest(json: &str) -> [u8; 32] {
    Sha256::digest(json).into()
}

const COLUMNS: [&str; 32] = [
    "part",
    "key_id",
    "owner",
    "owner_kind",
    "responsible",
    "purpose",
    "state_at_start",
    "state_at_end",
    "roles_at_start",
    "roles_at_end",
    "grants_at_start",
    "grants_at_end",
    "roles_changed",
    "expire_time",
    "come_time",
    "go_time",
    "position",
    "time",
    "type",
    "subject",
    "changed",
    "given",
    "caller_key_id",
    "caller",
    "caller_kind",
    "reason",
    "approval_ref",
    "sentence",
    "period",
    "as_of_position",
    "report_sha256",
    "approved",
];

type Row = Vec<(&'static str, String)>;

fn holding_row(holding: &ReviewHolding) -> Row {
    let none = Key::default();
    let (start, end) =
        (holding.at_start.as_ref().unwrap_or(&none), holding.at_end.as_ref().unwrap_or(&none));
    vec![
        ("part", "holding".into()),
        ("key_id", end.key_id.clone()),
        ("owner", owner_name(end.owner.as_ref()).into()),
        ("owner_kind", kind(end.owner.as_ref())),
        ("responsible", end.responsible.clone()),
        ("purpose", end.purpose.clone()),
        ("state_at_start", holding.at_start.as_ref().map_or(String::new(), state)),
        ("state_at_end", state(end)),
        ("roles_at_start", start.roles.join("; ")),
        ("roles_at_end", end.roles.join("; ")),
        ("grants_at_start", grants(&start.grants)),
        ("grants_at_end", grants(&end.grants)),
        ("roles_changed", holding.roles_changed.join("; ")),
        ("expire_time", time(end.expire_time.as_ref())),
        ("come_time", time(holding.come_time.as_ref())),
        ("go_time", time(holding.go_time.as_ref())),
    ]
}

fn role_row(role: &ReviewRole) -> Row {
    let gives = |at: &Option<crate::ReviewRoleGrants>| at.as_ref().map(|role| grants(&role.grants));
    vec![
        ("part", "role".into()),
        ("subject", role.name.clone()),
        ("grants_at_start", gives(&role.at_start).unwrap_or_default()),
        ("grants_at_end", gives(&role.at_end).unwrap_or_default()),
    ]
}

fn change_row(change: &ReviewChange) -> Row {
    vec![
        ("part", "change".into()),
        ("key_id", change.key_id.clone()),
        ("position", number(change.position)),
        ("time", time(change.time.as_ref())),
        ("type", change.r#type.clone()),
        ("subject", change.subject.clone()),
        ("changed", change.changed.join("; ")),
        ("given", given(change).join("; ")),
        ("caller_key_id", change.caller_key_id.clone()),
        ("caller", caller(change)),
        ("caller_kind", kind(change.caller.as_ref())),
        ("reason", change.reason.clone()),
        ("approval_ref", change.approval_ref.clone()),
        ("sentence", change.sentence.clone()),
    ]
}

fn unused_row(finding: &Finding) -> Row {
    vec![
        ("part", "unused".into()),
        ("key_id", finding.key_id.clone()),
        ("owner", optional_owner(finding.owner.as_ref())),
        ("owner_kind", kind(finding.owner.as_ref())),
        ("type", short("keyledger.v1.FindingKind", finding.kind)),
        ("sentence", finding.sentence.clone()),
    ]
}

fn exception_row(exception: &ReviewException) -> Row {
    vec![
        ("part", "exception".into()),
        ("key_id", exception.key_id.clone()),
        ("position", number(exception.position)),
        ("type", short("keyledger.v1.ReviewExceptionKind", exception.kind)),
        ("sentence", exception.sentence.clone()),
    ]
}

fn sign_off_row(sign_off: &ReviewSignOff) -> Row {
    let period =
        format!("{} to {}", time(sign_off.from_time.as_ref()), time(sign_off.to_time.as_ref()));
    vec![
        ("part", "sign-off".into()),
        ("key_id", sign_off.key_id.clone()),
        ("position", number(sign_off.position)),
        ("time", time(sign_off.time.as_ref())),
        ("caller_key_id", sign_off.signer_key_id.clone()),
        ("caller", optional_owner(sign_off.signer.as_ref())),
        ("caller_kind", kind(sign_off.signer.as_ref())),
        ("reason", sign_off.reason.clone()),
        ("approval_ref", sign_off.approval_ref.clone()),
        ("period", period),
        ("as_of_position", number(sign_off.as_of_position)),
        ("report_sha256", hex(&sign_off.report_sha256)),
        ("approved", sign_off.approved.to_string()),
    ]
}

pub(crate) fn grants(grants: &[Grant]) -> String {
    let text = |grant: &Grant| {
        let to_give = if grant.give_only { " (to hand on only)" } else { "" };
        format!("{} on {}{to_give}", grant.permissions.join(", "), grant.resource)
    };
    grants.iter().map(text).collect::<Vec<_>>().join("; ")
}

pub(crate) fn state(key: &Key) -> String {
    short("keyledger.v1.KeyState", key.state() as i32)
}

/// The state of a key that isn't sent has no name.
pub(crate) fn short(of: &str, number: i32) -> String {
    let named = crate::methods::short_names(of).into_iter().find(|(_, n)| *n == number);
    named.map(|(name, _)| name).unwrap_or_default()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn optional_owner(owner: Option<&Owner>) -> String {
    owner.map_or(String::new(), |owner| owner_name(Some(owner)).into())
}

fn kind(owner: Option<&Owner>) -> String {
    let kind = match owner.and_then(|o| o.owner.as_ref()) {
        Some(crate::owner::Owner::User(_)) => "person",
        Some(crate::owner::Owner::Service(_)) => "service",
        None => "",
    };
    kind.into()
}

/// Who made a change, in the form of a cell.
fn caller(change: &ReviewChange) -> String {
    match &change.caller {
        Some(caller) => owner_name(Some(caller)).into(),
        None => who_called(change),
    }
}

/// Who made a change.
pub(crate) fn who_called(change: &ReviewChange) -> String {
    match (change.caller_key_id.as_str(), &change.caller) {
        ("", _) => "Keyledger itself".into(),
        (_, None) => "a key of the system ledger".into(),
        (_, caller) => owner_in_full(caller.as_ref()),
    }
}

fn time(time: Option<&prost_types::Timestamp>) -> String {
    time.map(ToString::to_string).unwrap_or_default()
}

fn number(number: Option<u64>) -> String {
    number.map(|n| n.to_string()).unwrap_or_default()
}

/// Whether a key was accepted, or could be again.
pub(crate) fn lives(key: &Key) -> bool {
    matches!(key.state(), KeyState::Active | KeyState::Suspended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner;

    /// Texts that would be formulas, markup, or something else than they look.
    pub(crate) fn hostile() -> Report {
        let text = || "=HYPERLINK(\"x\")<script>alert(1)</script>\u{202e}".to_string();
        let owner = || Some(Owner { owner: Some(owner::Owner::User(text())) });
        let key = Key { owner: owner(), purpose: text(), responsible: text(), ..Key::default() };
        Report {
            holdings: vec![ReviewHolding { at_end: Some(key), ..Default::default() }],
            roles: vec![ReviewRole { name: text(), ..Default::default() }],
            changes: vec![ReviewChange {
                given: Some(crate::ReviewGiven { purpose: text(), ..Default::default() }),
                reason: text(),
                caller: owner(),
                caller_key_id: "x".into(),
                subject: text(),
                approval_ref: "-1".into(),
                ..Default::default()
            }],
            unused: vec![Finding { owner: owner(), sentence: text(), ..Default::default() }],
            exceptions: vec![ReviewException { sentence: text(), ..Default::default() }],
            sign_offs: vec![ReviewSignOff {
                signer: owner(),
                reason: text(),
                ..Default::default()
            }],
            end: Some(ReviewEnd {
                holdings: 1,
                changes: 1,
                unused: 1,
                exceptions: 1,
                sign_offs: 1,
                roles: 1,
            }),
            ..Report::default()
        }
    }

    #[test]
    fn the_json_is_one_object_with_every_part() {
        let report = hostile();
        assert!(report.is_complete());
        let json = report.json();
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read["format"], FORMAT);
        for name in ["holdings", "roles", "changes", "unused", "exceptions", "signOffs"] {
            assert_eq!(read[name].as_array().unwrap().len(), 1, "{name}");
        }
        assert!(
            !json.contains('\u{202e}')
                && read["changes"][0]["reason"].as_str().unwrap().contains('\u{202e}')
        );
        let cut = Report { end: None, ..report.clone() };
        assert!(!cut.is_complete());
        assert!(!Report { changes: vec![], ..report }.is_complete());
        assert!(serde_json::from_str::<serde_json::Value>(&Report::default().json()).is_ok());
    }

    #[test]
    fn nothing_in_a_cell_is_a_formula_and_every_record_has_every_column() {
        let csv = String::from_utf8(hostile().csv()).unwrap();
        let rows = crate::export::csv::tests::parse(&csv);
        assert_eq!(rows.len(), 7);
        for row in &rows {
            assert_eq!(row.len(), COLUMNS.len());
            assert!(row.iter().all(|cell| !cell.starts_with(['=', '+', '-', '@', '\t', '\r'])));
            assert!(row.iter().all(|cell| !cell.contains('\u{202e}')));
        }
        let parts: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
        let named = ["part", "holding", "role", "change", "unused", "exception", "sign-off"];
        assert_eq!(parts, named);
    }

    #[test]
    fn a_page_shows_hostile_texts_and_runs_none() {
        let page = crate::document::review::page(&hostile(), &[7; 32], &Default::default());
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
        assert!(!page.contains("<script") && !page.contains('\u{202e}'));
        assert!(page.contains(&"07".repeat(32)));
    }
}
