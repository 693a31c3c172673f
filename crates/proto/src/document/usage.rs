//! What a key was used for: a chart of bars by day with all its numbers beside it, and tables.

use super::html::Html;
use super::key::{cell, head};
use super::markdown::Markdown;
use super::words::{count, date, grouped};
use crate::{UsageDay, UsageRow, UsageSummary, UsageTable};

/// Most rows of a table that are shown.
const MAX_ROWS: usize = 12;
/// The drawing: width, height of the bars, room below for the dates.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 120.0;
const BELOW: f64 = 20.0;

const WITHHELD: &str = "Withheld: whoever asked may not read how keys are used.";

pub(super) fn html(h: &mut Html, usage: &UsageSummary) {
    if usage.withheld {
        return h.classed("p", "note", |h| h.words(WITHHELD));
    }
    h.plainly("p", |h| h.text(&in_words(usage)));
    if usage.allowed + usage.refused == 0 {
        return;
    }
    h.plainly("figure", |h| {
        h.plainly("figcaption", |h| {
            h.fixed("<span class=\"key\" aria-hidden=\"true\"></span>");
            h.words("allowed");
            h.fixed("<span class=\"key refused\" aria-hidden=\"true\"></span>");
            h.words("refused, by day (UTC)");
        });
        chart(h, usage);
        h.plainly("details", |h| {
            h.plainly("summary", |h| h.words("The same as a table"));
            days(h, &usage.days);
        });
    });
    h.classed("div", "pair", |h| usage.tables.iter().for_each(|one| table(h, one)));
}

/// All of it in one sentence.
pub(super) fn in_words(usage: &UsageSummary) -> String {
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
fn chart(h: &mut Html, usage: &UsageSummary) {
    let most = usage.days.iter().map(|d| d.allowed + d.refused).max().unwrap_or(0).max(1);
    let said =
        format!("Bars by day. {} The most in a day were {}.", in_words(usage), grouped(most));
    let view = format!("0 0 {WIDTH} {}", HEIGHT + BELOW);
    h.element("svg", &[("viewBox", &view), ("role", "img"), ("aria-label", &said)], |h| {
        let step = WIDTH / usage.days.len().max(1) as f64;
        for (i, day) in usage.days.iter().enumerate() {
            let left = i as f64 * step;
            let [allowed, refused] =
                [day.allowed, day.refused].map(|n| n as f64 / most as f64 * (HEIGHT - 4.0));
            bar(h, "allowed", left, step, HEIGHT - allowed, allowed);
            bar(h, "refused", left, step, HEIGHT - allowed - refused, refused);
        }
        let (right, bottom) = (WIDTH.to_string(), HEIGHT.to_string());
        let line =
            [("class", "axis"), ("x1", "0"), ("x2", &right), ("y1", &bottom), ("y2", &bottom)];
        h.element("line", &line, |_| {});
        let below = (HEIGHT + BELOW - 5.0).to_string();
        if let (Some(first), Some(last)) = (usage.days.first(), usage.days.last()) {
            label(h, first, "0", &below, "start");
            label(h, last, &right, &below, "end");
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

fn label(h: &mut Html, day: &UsageDay, x: &str, y: &str, anchor: &str) {
    let text = day.start_time.as_ref().map(date).unwrap_or_default();
    h.element("text", &[("x", x), ("y", y), ("text-anchor", anchor)], |h| h.plain(&text));
}

fn days(h: &mut Html, days: &[UsageDay]) {
    h.plainly("table", |h| {
        h.plainly("caption", |h| h.words("Days on which it was used"));
        head(h, &["Day", "Allowed", "Refused"]);
        h.plainly("tbody", |h| {
            for day in days.iter().filter(|d| d.allowed + d.refused > 0) {
                h.plainly("tr", |h| {
                    let name = day.start_time.as_ref().map(date).unwrap_or_default();
                    h.element("th", &[("scope", "row")], |h| h.plain(&name));
                    cell(h, |h| h.plain(&grouped(day.allowed)));
                    cell(h, |h| h.plain(&grouped(day.refused)));
                });
            }
        });
    });
}

fn table(h: &mut Html, table: &UsageTable) {
    h.plainly("table", |h| {
        h.plainly("caption", |h| {
            h.words("By ");
            h.text(&table.by);
        });
        head(h, &["Which", "Allowed", "Refused"]);
        h.plainly("tbody", |h| {
            for row in table.rows.iter().take(MAX_ROWS) {
                h.plainly("tr", |h| {
                    h.element("th", &[("scope", "row")], |h| h.text(&value(row)));
                    cell(h, |h| h.plain(&grouped(row.allowed)));
                    cell(h, |h| h.plain(&grouped(row.refused)));
                });
            }
        });
    });
}

fn value(row: &UsageRow) -> String {
    match (row.others, row.value.as_str()) {
        (true, _) => "all others".into(),
        (false, "") => "none".into(),
        (false, value) => value.into(),
    }
}

pub(super) fn markdown(m: &mut Markdown, usage: &UsageSummary) {
    if usage.withheld {
        return m.paragraph(|m| {
            m.words(WITHHELD);
        });
    }
    m.paragraph(|m| {
        m.text(&in_words(usage));
    });
    for table in &usage.tables {
        m.paragraph(|m| {
            m.words("By ").text(&table.by).words(":");
        });
        m.items(table.rows.iter().take(MAX_ROWS), |m, row| {
            m.text(&value(row)).words(": ").text(&grouped(row.allowed)).words(" allowed, ");
            m.text(&grouped(row.refused)).words(" refused");
        });
    }
}
