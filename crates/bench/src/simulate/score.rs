//! What the rules found, what they missed, and what it cost, as the tables of the README.

use std::collections::BTreeMap;

use keyledger_ledger::body::MonitoringRule as Rule;

use super::attacks::CATALOGUE;
use super::replay::{Alarm, Run, week_of};

const RULES: [Rule; 7] = [
    Rule::Spike,
    Rule::RefusalBurst,
    Rule::Forbidden,
    Rule::NewNetwork,
    Rule::LongSilence,
    Rule::SupersededVersion,
    Rule::Scanning,
];

/// What came of one kind of attack, or of all for which a rule is meant.
#[derive(Default)]
struct Found {
    made: usize,
    /// Seconds from the first observation of each that was found.
    delays: Vec<f64>,
    by: BTreeMap<Rule, usize>,
}

#[derive(Default)]
pub(crate) struct Score {
    runs: usize,
    key_weeks: f64,
    kinds: BTreeMap<usize, Found>,
    rules: BTreeMap<Rule, Found>,
    /// By rule: those of attacks, and others.
    alarms: BTreeMap<Rule, (usize, usize)>,
    /// The most false alarms a week and 100 keys that one seed had.
    worst: f64,
    pub(crate) lines: Vec<String>,
}

impl Score {
    pub(crate) fn add(&mut self, seed: u64, run: &Run) {
        self.runs += 1;
        self.key_weeks += run.key_weeks;
        let mut falsely = 0;
        let mut found: BTreeMap<usize, Vec<&Alarm>> = BTreeMap::new();
        for alarm in &run.alarms {
            let of = run.attacks.iter().position(|attack| {
                attack.subjects.contains(&alarm.subject)
                    && (attack.from..=attack.to).contains(&alarm.time)
            });
            let counts = self.alarms.entry(alarm.rule).or_default();
            match of {
                Some(attack) => {
                    counts.0 += 1;
                    found.entry(attack).or_default().push(alarm);
                }
                None => {
                    counts.1 += 1;
                    falsely += 1;
                    self.lines.push(line(seed, alarm));
                }
            }
        }
        self.worst = self.worst.max(falsely as f64 / run.key_weeks * 100.0);
        for (n, attack) in run.attacks.iter().enumerate() {
            let kind = self.kinds.entry(attack.kind).or_default();
            let alarms = found.remove(&n).unwrap_or_default();
            let delay = |alarm: &&Alarm| (alarm.time.micros() - attack.from.micros()) as f64 / 1e6;
            kind.made += 1;
            kind.delays.extend(alarms.first().map(delay));
            if let Some(first) = alarms.first() {
                *kind.by.entry(first.rule).or_default() += 1;
            } else {
                self.lines.push(format!(
                    "{seed}: week {}: missed: {} {:?}",
                    week_of(attack.from),
                    CATALOGUE[attack.kind].name,
                    attack.subjects.first()
                ));
            }
            for rule in CATALOGUE[attack.kind].rules {
                let meant = self.rules.entry(*rule).or_default();
                meant.made += 1;
                meant.delays.extend(alarms.iter().find(|alarm| alarm.rule == *rule).map(delay));
            }
        }
    }

    fn weekly(&self, alarms: usize) -> f64 {
        alarms as f64 / self.key_weeks * 100.0
    }

    /// As Markdown: by rule, by kind of attack, and a sentence.
    pub(crate) fn report(&self) -> String {
        let mut lines = vec![
            "| rule | attacks meant for it | recall | precision | delay, median | delay, worst | false alarms a week, 100 keys |".to_string(),
            "|---|---|---|---|---|---|---|".into(),
        ];
        lines.extend(RULES.iter().map(|rule| self.rule(*rule)));
        lines.extend([
            String::new(),
            "| attack | made | found | first by | delay, median | delay, worst |".into(),
            "|---|---|---|---|---|---|".into(),
        ]);
        lines.extend(self.kinds.iter().map(|(kind, found)| row(*kind, found)));
        lines.extend([String::new(), self.sentence()]);
        lines.join("\n")
    }

    /// What came of it in all.
    pub(crate) fn sentence(&self) -> String {
        let falsely = self.alarms.values().map(|(_, falsely)| falsely).sum();
        let made: usize = self.kinds.values().map(|kind| kind.made).sum();
        let found: usize = self.kinds.values().map(|kind| kind.delays.len()).sum();
        let seeds = match self.runs {
            1 => String::new(),
            runs => format!(" ({:.2} with the worst of {runs} seeds)", self.worst),
        };
        let weekly = self.weekly(falsely);
        format!(
            "{found} of {made} attacks found; {weekly:.2} false alarms a week for 100 keys, all rules together{seeds}."
        )
    }

    fn rule(&self, rule: Rule) -> String {
        let nothing = Found::default();
        let found = self.rules.get(&rule).unwrap_or(&nothing);
        let (right, wrong) = self.alarms.get(&rule).copied().unwrap_or_default();
        let name = rule.as_str_name().trim_start_matches("MONITORING_RULE_");
        let (median, worst) = delays(&found.delays);
        format!(
            "| {name} | {} | {} | {} | {median} | {worst} | {:.2} |",
            found.made,
            percent(found.delays.len(), found.made),
            percent(right, right + wrong),
            self.weekly(wrong),
        )
    }
}

fn row(kind: usize, found: &Found) -> String {
    let (median, worst) = delays(&found.delays);
    let name = |rule: &Rule| rule.as_str_name().trim_start_matches("MONITORING_RULE_");
    let by: Vec<&str> = found.by.keys().map(name).collect();
    format!(
        "| {} | {} | {} | {} | {median} | {worst} |",
        CATALOGUE[kind].name,
        found.made,
        found.delays.len(),
        by.join(", ")
    )
}

fn percent(part: usize, of: usize) -> String {
    let percent = (part * 100 + of / 2).checked_div(of);
    percent.map_or("-".into(), |percent| format!("{percent} %"))
}

fn delays(seconds: &[f64]) -> (String, String) {
    let mut seconds = seconds.to_vec();
    seconds.sort_by(f64::total_cmp);
    let show = |seconds: Option<&f64>| match seconds {
        None => "-".into(),
        Some(s) if *s < 90.0 => format!("{s:.0} s"),
        Some(s) if *s < 5_400.0 => format!("{:.0} min", s / 60.0),
        Some(s) => format!("{:.1} h", s / 3_600.0),
    };
    (show(seconds.get(seconds.len() / 2)), show(seconds.last()))
}

fn line(seed: u64, alarm: &Alarm) -> String {
    let measures: Vec<String> =
        alarm.raise.measures.iter().map(|m| format!("{} {}", m.name, m.value)).collect();
    format!(
        "{seed}: week {}: false: {:?} {:?} {:?} {}",
        week_of(alarm.time),
        alarm.rule,
        alarm.profile,
        alarm.subject,
        measures.join(", "),
    )
}
