//! Facets: by what events are counted.

use crate::body::{Decision, Event, Kind, Outcome, Severity, Use, UsePage};
use crate::category;

/// What an event counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Facets<'a> {
    pub category: &'a str,
    pub outcome: Outcome,
    pub severity: Severity,
    pub action: &'a str,
}

/// What counts are kept of, within each category and time. The number stands in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i16)]
pub enum Dimension {
    /// All events.
    All = 0,
    Outcome = 1,
    Severity = 2,
    Action = 3,
}

impl Dimension {
    pub const EACH: [Dimension; 4] =
        [Dimension::All, Dimension::Outcome, Dimension::Severity, Dimension::Action];
}

impl<'a> Facets<'a> {
    /// Those of an entry that is no page.
    pub fn of_entry(event: &'a Event) -> Facets<'a> {
        let category = category::of_entry(event);
        match &event.kind {
            Some(Kind::EventRecorded(recorded)) => Facets {
                category,
                outcome: recorded.outcome(),
                severity: recorded.severity(),
                action: &recorded.action,
            },
            kind => Facets {
                category,
                outcome: Outcome::Unspecified,
                severity: Severity::Unspecified,
                action: kind.as_ref().map_or("", Kind::name),
            },
        }
    }

    pub fn of_use(page: &UsePage, r#use: &'a Use) -> Facets<'a> {
        let outcome = match r#use.decision() {
            Decision::Allow => Outcome::Success,
            Decision::Deny => Outcome::Denied,
            Decision::Unspecified => Outcome::Unspecified,
        };
        let category = category::of_use(page, r#use);
        Facets { category, outcome, severity: Severity::Unspecified, action: &r#use.method }
    }

    /// Its value in a dimension.
    pub fn value(&self, dimension: Dimension) -> &'a str {
        match dimension {
            Dimension::All => "",
            Dimension::Outcome => outcome_name(self.outcome),
            Dimension::Severity => severity_name(self.severity),
            Dimension::Action => self.action,
        }
    }
}

/// As the published proto names it; a test of `keyledger-proto` compares.
pub fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Unspecified => "OUTCOME_UNSPECIFIED",
        Outcome::Success => "OUTCOME_SUCCESS",
        Outcome::Failure => "OUTCOME_FAILURE",
        Outcome::Denied => "OUTCOME_DENIED",
    }
}

/// As the published proto names it; a test of `keyledger-proto` compares.
pub fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Unspecified => "SEVERITY_UNSPECIFIED",
        Severity::Informational => "SEVERITY_INFORMATIONAL",
        Severity::Low => "SEVERITY_LOW",
        Severity::Medium => "SEVERITY_MEDIUM",
        Severity::High => "SEVERITY_HIGH",
        Severity::Critical => "SEVERITY_CRITICAL",
        Severity::Fatal => "SEVERITY_FATAL",
    }
}
