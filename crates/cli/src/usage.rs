//! `keyledger usage`, and what it shares with `keyledger keys usage`: how usage is asked for and shown.

use keyledger_proto::{
    GetUsageRequest, Owner, Usage as Told, UsageBreakdown, UsageInterval, UsageStep, owner,
};
use prost_types::Timestamp;

use crate::Ending;
use crate::connection::{Connection, DataDir};
use crate::json::{self, Output};
use crate::screen::{Screen, Tone};
use crate::table::{Facts, List};
use crate::token::Usual;
use crate::values::{parse_time, show_second, usage_intervals, words};

/// Widest line of steps: more of them are added up.
const WIDEST: usize = 60;

/// Tell how often the keys of the ledger were used, and for what; or those of one owner.
#[derive(clap::Args)]
#[command(after_help = "Example: keyledger usage --owner alice@example.com --bucket hour")]
pub(crate) struct Usage {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    data_dir: DataDir,
    /// Only keys of this person.
    #[arg(long, value_name = "NAME", conflicts_with = "owner_service")]
    owner: Option<String>,
    /// Only keys of this service.
    #[arg(long, value_name = "NAME")]
    owner_service: Option<String>,
    #[command(flatten)]
    period: Period,
    #[command(flatten)]
    output: Output,
}

/// Which time is told, in which steps.
#[derive(clap::Args)]
pub(crate) struct Period {
    /// Uses at this time or later: a whole hour such as 2026-11-22T13:00:00Z (RFC 3339 with an offset), not in the future.
    /// Without it the last 30 days, or 48 hours by the hour.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) from: Option<Timestamp>,
    /// Uses before this time: a whole hour such as 2026-11-22T14:00:00Z (RFC 3339 with an offset). Without it up to now.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) to: Option<Timestamp>,
    /// In which steps.
    #[arg(long, value_name = "STEP", value_parser = usage_intervals())]
    bucket: Option<i32>,
}

impl Period {
    pub(crate) fn interval(&self) -> i32 {
        self.bucket.unwrap_or_default()
    }
}

impl Usage {
    pub(crate) async fn run(self) -> anyhow::Result<Ending> {
        let screen = Screen::stdout();
        let session = self.connection.open(&self.data_dir, Usual::Admin).await?;
        let person = self.owner.map(owner::Owner::User);
        let owner = person.or(self.owner_service.map(owner::Owner::Service));
        let request = GetUsageRequest {
            owner: owner.map(|owner| Owner { owner: Some(owner) }),
            interval: self.period.interval(),
            start_time: self.period.from,
            end_time: self.period.to,
        };
        let reply = session.keys().get_usage(session.call(request)).await;
        let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
        match self.output.is_json() {
            true => json::print_reply(&screen, "GetUsageResponse", &reply)?,
            false => print(&screen, &reply.usage.unwrap_or_default())?,
        }
        Ok(Ending::Good)
    }
}

/// How often, when and for what.
pub(crate) fn print(screen: &Screen, usage: &Told) -> std::io::Result<()> {
    let time = |time: &Option<Timestamp>| time.as_ref().map(show_second).unwrap_or_default();
    let mut facts = Facts::new(screen);
    facts.add("from", &time(&usage.start_time));
    facts.add("to", &time(&usage.end_time));
    facts.add("allowed", &usage.allowed.to_string());
    let tone = if usage.refused == 0 { Tone::Plain } else { Tone::Bad };
    facts.add_in("refused", &usage.refused.to_string(), tone);
    facts.add("first use", &time(&usage.first_use_time));
    facts.add("last use", &time(&usage.last_use_time));
    let (line, step, most) = steps(usage, screen.blocks, |s| s.allowed + s.refused);
    if most > 0 {
        facts.add(&format!("each {step}"), &format!("{line}  at most {most}, allowed and refused"));
    }
    let (line, step, most) = steps(usage, screen.blocks, |s| s.refused);
    if most > 0 {
        facts.add(&format!("refused each {step}"), &format!("{line}  at most {most}"));
    }
    facts.print()?;
    let plain = |value: &str| String::from(if value.is_empty() { "(none)" } else { value });
    let known = |value: &str| String::from(if value.is_empty() { "(not known)" } else { value });
    let reason = |value: &str| words(value.trim_start_matches("DECISION_REASON_"));
    print_by(screen, "PERMISSION", usage.by_permission.as_ref(), plain)?;
    print_by(screen, "RESOURCE", usage.by_resource.as_ref(), plain)?;
    print_by(screen, "NETWORK", usage.by_network.as_ref(), known)?;
    print_by(screen, "VERSION", usage.by_version.as_ref(), known)?;
    print_by(screen, "REASON", usage.by_reason.as_ref(), reason)
}

fn print_by(
    screen: &Screen,
    name: &str,
    breakdown: Option<&UsageBreakdown>,
    text: impl Fn(&str) -> String,
) -> std::io::Result<()> {
    let Some(by) = breakdown.filter(|by| !by.counts.is_empty()) else { return Ok(()) };
    screen.line("")?;
    let mut list = List::new(screen, &["ALLOWED", "REFUSED", name], &[0, 1]);
    let mut row = |allowed: u64, refused: u64, value: &str| {
        let refused_tone = if refused == 0 { Tone::Faint } else { Tone::Bad };
        list.row(&[
            (&allowed.to_string(), Tone::Plain),
            (&refused.to_string(), refused_tone),
            (value, Tone::Plain),
        ]);
    };
    by.counts.iter().for_each(|count| row(count.allowed, count.refused, &text(&count.value)));
    if by.other_allowed + by.other_refused > 0 {
        row(by.other_allowed, by.other_refused, "(others)");
    }
    list.print()
}

/// A line with a mark for each step, what a step is, and the most of one. Where there are too many steps, several share a mark.
fn steps(usage: &Told, blocks: bool, uses: impl Fn(&UsageStep) -> u64) -> (String, String, u64) {
    let (length, name) = match usage.interval() {
        UsageInterval::Hour => (3_600, "hour"),
        UsageInterval::Day | UsageInterval::Unspecified => (86_400, "day"),
    };
    let second = |time: &Option<Timestamp>| time.as_ref().map_or(0, |t| t.seconds);
    let first = second(&usage.start_time).div_euclid(length);
    let last = (second(&usage.end_time) - 1).div_euclid(length);
    let count = usize::try_from(last - first + 1).unwrap_or_default();
    let shared = count.div_ceil(WIDEST).max(1);
    let mut marks = vec![0; count.div_ceil(shared)];
    for step in &usage.steps {
        let at = second(&step.start_time).div_euclid(length) - first;
        // A server that tells of a time that was not asked for is not followed there.
        if let Some(mark) = usize::try_from(at).ok().and_then(|at| marks.get_mut(at / shared)) {
            *mark += uses(step);
        }
    }
    let name = if shared == 1 { name.into() } else { format!("{shared} {name}s") };
    (line(&marks, blocks), name, marks.iter().copied().max().unwrap_or_default())
}

/// A mark as high as its number; none at all is seen from few.
pub(crate) fn line(numbers: &[u64], blocks: bool) -> String {
    let (none, levels) = match blocks {
        true => ('·', ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']),
        false => ('.', ['_', '-', '~', '=', '+', '*', '%', '#']),
    };
    let most = numbers.iter().copied().max().unwrap_or_default().max(1);
    let level = |number: u64| {
        let level = (u128::from(number) * 8).div_ceil(u128::from(most)).max(1);
        levels[level as usize - 1]
    };
    numbers.iter().map(|number| if *number == 0 { none } else { level(*number) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos: 0 })
    }

    #[test]
    fn a_mark_is_as_high_as_its_number() {
        assert_eq!(line(&[0, 1, 2, 3, 4, 5, 6, 7, 8], true), "·▁▂▃▄▅▆▇█");
        assert_eq!(line(&[0, 1, 2, 3, 4, 5, 6, 7, 8], false), "._-~=+*%#");
        assert_eq!(line(&[1, 1_000_000, u64::MAX], true), "▁▁█");
        assert_eq!(line(&[0, 0], true), "··");
        assert_eq!(line(&[], true), "");
    }

    #[test]
    fn each_step_has_a_mark_also_where_nothing_was_used_and_many_share_one() {
        let step = |seconds, allowed| UsageStep { start_time: at(seconds), allowed, refused: 1 };
        let days = |days: i64, steps| Told {
            start_time: at(0),
            end_time: at(days * 86_400),
            interval: UsageInterval::Day as i32,
            steps,
            ..Told::default()
        };
        let all = |step: &UsageStep| step.allowed + step.refused;
        let few = days(5, vec![step(86_400, 7), step(3 * 86_400, 3)]);
        assert_eq!(steps(&few, true, all), ("·█·▄·".into(), "day".into(), 8));
        assert_eq!(steps(&few, false, |s| s.refused), (".#.#.".into(), "day".into(), 1));
        let many = days(365, (0..365).map(|day| step(day * 86_400, 1)).collect());
        let (line, name, most) = steps(&many, true, all);
        assert_eq!((line.chars().count(), name.as_str(), most), (53, "7 days", 14));
        let elsewhere = days(2, vec![step(-86_400, 1), step(9 * 86_400, 1)]);
        assert_eq!(steps(&elsewhere, true, all).2, 0);
        assert_eq!(steps(&Told::default(), true, all).0, "");
    }
}
