//! An export of events, against the manifest beside it: what was signed, and each line.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine};
use keyledger_ledger::export::{ExportFormat, OpenedManifest, line_hash};
use keyledger_ledger::id::Time;
use keyledger_ledger::merkle::{Frontier, Hash};
use keyledger_proto::export::json_lines::Line;
use keyledger_proto::{ExportEventsRequest, show};
use prost::Message;
use serde::Serialize;

use super::line_order::{differences, in_words};
use super::pins::Pins;
use crate::export_file::read_line;
use crate::failure::Failure;
use crate::json::{Output, enum_value_name, line_of};
use crate::manifest_file::{self, Reader};
use crate::progress::Progress;
use crate::screen::{Screen, Tone, inert};
use crate::table::Facts;
use crate::values::{show_time, words};

/// Most problems that are named.
const MAX_PROBLEMS: usize = 100;

/// What was found of an export.
#[derive(Debug, Default, Serialize)]
pub(super) struct ExportReport {
    good: bool,
    /// What is wrong, by line.
    problems: Vec<String>,
    /// How many more problems there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    more_problems: Option<usize>,
    /// Of the manifest; all that follows is empty if it can't be believed.
    origin: String,
    /// The key that signed the checkpoint and the manifest.
    verifier_key: String,
    format: String,
    /// What was asked for, as protobuf text without the name of a person.
    asked: String,
    first_position: u64,
    end_position: u64,
    /// How many entries of the ledger the checkpoint covers.
    snapshot_size: u64,
    /// When the manifest was signed.
    time: String,
    /// How many lines there were.
    lines: u64,
    /// RFC 6962 root over them, standard base64.
    root: String,
    /// How many lines carry a proof of their own that held.
    proved: u64,
    /// Whether a pin says that the key is the ledger's.
    pinned: bool,
}

/// Verifies an export that has a manifest beside it.
pub(super) fn verify(file: &Path, pins: &Pins) -> Result<ExportReport, Failure> {
    let manifest = manifest_file::path_of(file);
    let (envelope, digests) = match Reader::open(&manifest) {
        Ok(opened) => opened,
        Err(e) if e.kind() == io::ErrorKind::InvalidData || e.get_ref().is_some() => {
            return Ok(ExportReport::refused(format!("the manifest is damaged: {e}")));
        }
        Err(e) => return Err(unreadable(&manifest, e)),
    };
    let opened = match envelope.open() {
        Ok(opened) => opened,
        Err(e) => return Ok(ExportReport::refused(format!("the manifest can't be believed: {e}"))),
    };
    let mut report = ExportReport::of(&opened);
    report.pinned = !pins.is_empty();
    report.problems = pins.problems_of(&opened.checkpoint_key, &opened.checkpoint);
    // The lines of a stranger's export say nothing.
    if report.problems.is_empty() {
        let mut check = Check { file, opened, digests, report, tree: Frontier::new() };
        check.lines().map_err(|e| unreadable(file, e))?;
        report = check.report;
    }
    if report.problems.len() > MAX_PROBLEMS {
        report.more_problems = Some(report.problems.len() - MAX_PROBLEMS);
        report.problems.truncate(MAX_PROBLEMS);
    }
    report.good = report.problems.is_empty();
    Ok(report)
}

fn unreadable(file: &Path, e: io::Error) -> Failure {
    Failure::new(format!("{} can't be read: {e}", file.display()))
        .next("name a file that `keyledger audit export` wrote, with its .manifest beside it")
}

struct Check<'a> {
    file: &'a Path,
    opened: OpenedManifest,
    digests: Reader,
    report: ExportReport,
    /// Over the lines that are found.
    tree: Frontier,
}

impl Check<'_> {
    /// One pass for an export that is good; only of another one all digests are held at once.
    fn lines(&mut self) -> io::Result<()> {
        let mut lines = BufReader::with_capacity(1 << 20, File::open(self.file)?);
        let mut progress = Progress::new("lines verified");
        let (mut line, mut same) = (vec![], true);
        while same && read_line(&mut lines, &mut line)? {
            let digest = line_hash(&line);
            same = matches!(self.digests.next(), Ok(Some(expected)) if expected == digest);
            self.tree.append(digest);
            if same {
                self.check_proof(&line);
            }
            progress.at(self.tree.size(), self.opened.manifest.lines);
        }
        let same = same && matches!(self.digests.next(), Ok(None));
        if same && self.is_signed(&self.tree) { Ok(()) } else { self.name_differences() }
    }

    fn is_signed(&self, tree: &Frontier) -> bool {
        let manifest = &self.opened.manifest;
        tree.size() == manifest.lines && tree.root().as_slice() == manifest.root
    }

    /// Only JSON Lines carry proofs.
    fn check_proof(&mut self, line: &[u8]) {
        if self.opened.manifest.format != ExportFormat::JsonLines as i32 {
            return;
        }
        let number = self.tree.size();
        match Line::read(line).and_then(|line| line.verify(&self.opened)) {
            Ok(proved) => self.report.proved += u64::from(proved),
            Err(e) => self.report.problems.push(format!("line {number} is not proved: {e}")),
        }
    }

    fn name_differences(&mut self) -> io::Result<()> {
        let (found, rest) = digests_of(self.file)?;
        let problems = match self.listed_digests()? {
            Some(expected) => in_words(&differences(&expected, &found)),
            None if self.is_signed(&tree_over(&found)) => vec![
                "the list of digests in the manifest was altered; the lines are those that were signed"
                    .into(),
            ],
            None => vec![
                "the lines are not those that were signed, and the list of digests in the manifest, which would tell which, was altered too"
                    .into(),
            ],
        };
        self.report.problems.extend(problems);
        if rest {
            let after = match found.len() {
                0 => "at the beginning".into(),
                n => format!("after line {n} of the file"),
            };
            self.report.problems.push(format!("{after} something stands without a line break"));
        }
        Ok(())
    }

    /// The digests beside the manifest, if they are those that were signed.
    fn listed_digests(&self) -> io::Result<Option<Vec<Hash>>> {
        let (_, mut reader) = Reader::open(&manifest_file::path_of(self.file))?;
        let mut digests = vec![];
        loop {
            match reader.next() {
                Ok(Some(digest)) => digests.push(digest),
                Ok(None) => break,
                Err(_) => return Ok(None),
            }
        }
        Ok(Some(digests).filter(|digests| self.is_signed(&tree_over(digests))))
    }
}

/// The digests of whole lines, and whether something stands after them that is none.
fn digests_of(file: &Path) -> io::Result<(Vec<Hash>, bool)> {
    let mut lines = BufReader::with_capacity(1 << 20, File::open(file)?);
    let (mut line, mut digests) = (vec![], vec![]);
    while read_line(&mut lines, &mut line)? {
        if line.last() != Some(&b'\n') {
            return Ok((digests, true));
        }
        digests.push(line_hash(&line));
    }
    Ok((digests, false))
}

fn tree_over(digests: &[Hash]) -> Frontier {
    let mut tree = Frontier::new();
    digests.iter().for_each(|digest| tree.append(*digest));
    tree
}

impl ExportReport {
    fn refused(problem: String) -> ExportReport {
        ExportReport { problems: vec![problem], ..ExportReport::default() }
    }

    fn of(opened: &OpenedManifest) -> ExportReport {
        let m = &opened.manifest;
        let asked = ExportEventsRequest::decode(m.asked.as_slice()).unwrap_or_default();
        let format = enum_value_name("keyledger.export.v1.ExportFormat", m.format);
        ExportReport {
            origin: m.origin.clone(),
            verifier_key: opened.checkpoint_key.vkey(),
            format: words(&format),
            asked: asked_text(&asked),
            first_position: m.first_position,
            end_position: m.end_position,
            snapshot_size: m.snapshot_size,
            time: show_time(&show::timestamp(Time(m.time_us))),
            lines: m.lines,
            root: BASE64_STANDARD.encode(&m.root),
            ..ExportReport::default()
        }
    }

    pub(super) fn is_good(&self) -> bool {
        self.good
    }

    pub(super) fn print(&self, screen: &Screen, output: Output) -> anyhow::Result<()> {
        match output.is_json() {
            true => Ok(screen.line(&line_of(self)?)?),
            false => Ok(self.print_for_people(screen)?),
        }
    }

    fn print_for_people(&self, screen: &Screen) -> io::Result<()> {
        let mut facts = Facts::new(screen);
        facts.add("origin", &self.origin);
        facts.add("verifier key", &self.verifier_key);
        facts.add("format", &self.format);
        facts.add("asked", &self.asked);
        facts.add("positions", &format!("{} to before {}", self.first_position, self.end_position));
        facts.add("covers", &format!("the first {} entries of the ledger", self.snapshot_size));
        facts.add("signed", &self.time);
        facts.add("lines", &self.lines.to_string());
        facts.add("root", &self.root);
        facts.add("proved", &format!("{} lines by themselves, all by the manifest", self.proved));
        facts.print()?;
        for problem in &self.problems {
            let problem = format!("NOT GOOD: {}", inert(problem));
            screen.line(&screen.paint(&problem, Tone::Bad))?;
        }
        if let Some(more) = self.more_problems {
            screen.line(&screen.paint(&format!("NOT GOOD: and {more} more"), Tone::Bad))?;
        }
        if self.good {
            screen.line(&screen.paint("OK", Tone::Good))?;
        }
        if self.good && !self.pinned {
            screen.line(
                "Whether the verifier key is that of your ledger, only you can say: give the one that you know with \
                 --verifier-key, or a checkpoint that you kept with --pin FILE.",
            )?;
        }
        screen.line("")
    }
}

/// What was asked for, in the words of the request.
fn asked_text(asked: &ExportEventsRequest) -> String {
    let method = keyledger_proto::methods::all().into_iter();
    let method = method.into_iter().find(|m| m.name == "AuditService/ExportEvents");
    method.map(|m| m.asked(asked).text).unwrap_or_default()
}
