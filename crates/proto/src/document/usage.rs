//! What a key was used for: a chart of bars by day with all its numbers beside it, and tables.

use std::collections::BTreeMap;

use super::html::Html;
use super::key::{cell, head};
use super::markdown::Markdown;
use super::words::{count, date, grouped};
use crate::{Usage, UsageBreakdown, UsageSummary};

/// Most rows of a table that are shown.
const MAX_ROWS: usize = 12;
/// Most days that are drawn.
const MAX_DAYS: i64 = 400;
/// The drawing: it is stretched to the width of the page.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 120.0;

const WITHHELD: &str = "Withheld: whoever asked may not read how keys are used.";

/// Uses of one day.
struct Day {
    date: String,
    allowed: u64,
    refused: u64,
}

/// Each day of the time, also those without a use.
fn days(usage: &Usage) -> Vec<Day> {
    let day = |time: &Option<prost_types::Timestamp>| {
        time.as_ref().map_or(0, |time| time.seconds.div_euclid(86_400))
    };
    let steps: BTreeMap<i64, _> = usage.steps.iter().map(|s| (day(&s.start_time), s)).collect();
    let end = usage.end_time.as_ref().map_or(0, |time| (time.seconds - 1).div_euclid(86_400));
    let first = day(&usage.start_time).max(end - MAX_DAYS + 1);
    let of = |n: i64| {
        let time = prost_types::Timestamp { seconds: n * 86_400, nanos: 0 };
        let (allowed, refused) = steps.get(&n).map_or((0, 0), |step| (step.allowed, step.refused));
        Day { date: date(&time), allowed, refused }
    };
    (first..=end).map(of).collect()
}

const BY_NETWORK: &str = "By network";
const BY_VERSION: &str = "By version of its secret";

/// By what uses are told apart, and how that is called.
fn tables(usage: &Usage) -> impl Iterator<Item = (&'static str, &UsageBreakdown)> {
    let all = [
        ("By permission", &usage.by_permission),
        ("By resource", &usage.by_resource),
        (BY_NETWORK, &usage.by_network),
        (BY_VERSION, &usage.by_version),
        ("By reason of the verdict", &usage.by_reason),
    ];
    let told = all.into_iter().filter_map(|(name, by)| Some((name, by.as_ref()?)));
    told.filter(|(_, by)| !by.counts.is_empty())
}

/// The values with their counts, allowed and refused; all others as one.
fn rows(name: &str, by: &UsageBreakdown) -> Vec<(String, u64, u64)> {
    let known = !matches!(name, BY_NETWORK | BY_VERSION);
    let value = |value: &str| match (value, value.strip_prefix("DECISION_REASON_")) {
        ("", _) => if known { "none" } else { "not known" }.into(),
        (_, Some(reason)) => reason.to_lowercase().replace('_', " "),
        (value, None) => value.to_string(),
    };
    let mut rows: Vec<_> =
        by.counts.iter().map(|c| (value(&c.value), c.allowed, c.refused)).collect();
    let others = rows.split_off(MAX_ROWS.min(rows.len()));
    let sum = |of: fn(&(String, u64, u64)) -> u64| others.iter().map(of).sum::<u64>();
    let allowed = sum(|row| row.1) + by.other_allowed;
    let refused = sum(|row| row.2) + by.other_refused;
    if allowed + refused > 0 {
        rows.push(("all others".into(), allowed, refused));
    }
    rows
}

pub(super) fn html(h: &mut Html, summary: &UsageSummary) {
    let Some(usage) = summary.usage.as_ref().filter(|_| !summary.withheld) else {
        return h.classed("p", "note", |h| h.words(WITHHELD));
    };
    h.plainly("p", |h| h.text(&in_words(usage)));
    if usage.allowed + usage.refused == 0 {
        return;
    }
    let days = days(usage);
    h.plainly("figure", |h| {
        h.plainly("figcaption", |h| {
            h.fixed("<span class=\"key\" aria-hidden=\"true\"></span>");
            h.words("allowed");
            h.fixed("<span class=\"key refused\" aria-hidden=\"true\"></span>");
            h.words("refused, by day (UTC)");
        });
        chart(h, usage, &days);
        h.plainly("details", |h| {
            h.plainly("summary", |h| h.words("The same as a table"));
            let used = days.iter().filter(|day| day.allowed + day.refused > 0);
            table(
                h,
                "Days on which it was used",
                used.map(|d| (d.date.clone(), d.allowed, d.refused)),
            );
        });
    });
    h.classed("div", "pair", |h| {
        for (name, by) in tables(usage) {
            h.plainly("div", |h| table(h, name, rows(name, by)));
        }
    });
}

/// All of it in one sentence.
fn in_words(usage: &Usage) -> String {
    let since =
        usage.start_time.as_ref().map(|t| format!(" since {}", date(t))).unwrap_or_default();
    match (usage.allowed, usage.refused) {
        (0, 0) => format!("It was not used{since}."),
        (allowed, refused) => {
            format!("{} allowed and {} refused{since}.", count(allowed, "use"), grouped(refused))
        }
    }
}

/// Bars by day: the refused part above the allowed one. Said in words for who can't see it.
fn chart(h: &mut Html, usage: &Usage, days: &[Day]) {
    let most = days.iter().map(|d| d.allowed + d.refused).max().unwrap_or(0).max(1);
    let said =
        format!("Bars by day. {} The most in a day were {}.", in_words(usage), grouped(most));
    let view = format!("0 0 {WIDTH} {HEIGHT}");
    let shown = [
        ("viewBox", &*view),
        ("preserveAspectRatio", "none"),
        ("role", "img"),
        ("aria-label", &said),
    ];
    // The height of the drawing is that of the most.
    h.element("div", &[("class", "axis"), ("aria-hidden", "true")], |h| {
        h.plainly("span", |h| h.plain(&grouped(most)));
    });
    h.element("svg", &shown, |h| {
        let step = WIDTH / days.len().max(1) as f64;
        for (i, day) in days.iter().enumerate() {
            let left = i as f64 * step;
            let [allowed, refused] =
                [day.allowed, day.refused].map(|n| n as f64 / most as f64 * HEIGHT);
            bar(h, "allowed", left, step, HEIGHT - allowed, allowed);
            bar(h, "refused", left, step, HEIGHT - allowed - refused, refused);
        }
    });
    h.element("div", &[("class", "axis"), ("aria-hidden", "true")], |h| {
        for day in days.first().into_iter().chain(days.last().filter(|_| days.len() > 1)) {
            h.plainly("span", |h| h.plain(&day.date));
        }
    });
}

fn bar(h: &mut Html, class: &str, left: f64, step: f64, top: f64, height: f64) {
    if height <= 0.0 {
        return;
    }
    let gap = (step * 0.18).min(3.0);
    let [x, y, width, height] =
        [left + gap / 2.0, top, step - gap, height.max(1.0)].map(|n| format!("{n:.2}"));
    let rect = [("class", class), ("x", &x), ("y", &y), ("width", &width), ("height", &height)];
    h.element("rect", &rect, |_| {});
}

fn table(h: &mut Html, caption: &'static str, rows: impl IntoIterator<Item = (String, u64, u64)>) {
    h.plainly("table", |h| {
        h.plainly("caption", |h| h.words(caption));
        head(h, &["Which", "Allowed", "Refused"]);
        h.plainly("tbody", |h| {
            for (value, allowed, refused) in rows {
                h.plainly("tr", |h| {
                    h.element("th", &[("scope", "row")], |h| h.text(&value));
                    cell(h, |h| h.plain(&grouped(allowed)));
                    cell(h, |h| h.plain(&grouped(refused)));
                });
            }
        });
    });
}

pub(super) fn markdown(m: &mut Markdown, summary: &UsageSummary) {
    let Some(usage) = summary.usage.as_ref().filter(|_| !summary.withheld) else {
        return m.paragraph(|m| {
            m.words(WITHHELD);
        });
    };
    m.paragraph(|m| {
        m.text(&in_words(usage));
    });
    for (name, by) in tables(usage) {
        m.paragraph(|m| {
            m.words(name).words(":");
        });
        m.items(rows(name, by), |m, (value, allowed, refused)| {
            m.text(&value).words(": ").text(&grouped(allowed)).words(" allowed, ");
            m.text(&grouped(refused)).words(" refused");
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{UsageCount, UsageStep};

    #[test]
    fn days_without_a_use_are_drawn_too() {
        let time = |day: i64| Some(prost_types::Timestamp { seconds: day * 86_400, nanos: 0 });
        let usage = Usage {
            start_time: time(20_000),
            end_time: time(20_003),
            allowed: 5,
            steps: vec![UsageStep { start_time: time(20_001), allowed: 5, refused: 0 }],
            ..Usage::default()
        };
        let counts: Vec<(String, u64)> =
            days(&usage).into_iter().map(|d| (d.date, d.allowed)).collect();
        let expected = [("2024-10-04", 0), ("2024-10-05", 5), ("2024-10-06", 0)];
        assert_eq!(counts, expected.map(|(date, n)| (date.to_string(), n)));
        assert_eq!(in_words(&usage), "5 uses allowed and 0 refused since 2024-10-04.");
    }

    #[test]
    fn what_is_not_shown_is_counted_together() {
        let count = |n: u64| UsageCount { value: format!("v{n}"), allowed: n, refused: 1 };
        let by = UsageBreakdown {
            counts: (1..=14).map(count).collect(),
            other_allowed: 100,
            other_refused: 2,
        };
        let rows = rows("By permission", &by);
        assert_eq!(rows.len(), MAX_ROWS + 1);
        assert_eq!(rows[MAX_ROWS], ("all others".into(), 13 + 14 + 100, 4));
    }
}
