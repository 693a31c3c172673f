//! What differs between the lines that were exported and those that are found, named by line number: the digests of the
//! manifest say which line is which. Lines of an export are all different, since each names its place in the ledger.

use std::collections::{HashMap, HashSet};

use keyledger_ledger::merkle::Hash;

/// Something is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Difference {
    /// Counted from 1, as it was exported.
    pub(super) line: u64,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Missing,
    Altered,
    /// It stands there again.
    Repeated,
    /// It stands elsewhere.
    Moved,
    /// It and this one stand in each other's place.
    SwappedWith(u64),
    /// Something that was not exported stands after it; after line 0, at the beginning.
    FollowedByOther,
    /// Nothing stands after it.
    End,
}

/// All differences, by line. None if the lines are those that were exported.
pub(super) fn differences(expected: &[Hash], found: &[Hash]) -> Vec<Difference> {
    let alike = |(a, b): &(&Hash, &Hash)| a == b;
    let head = expected.iter().zip(found).take_while(alike).count();
    let (expected_rest, found_rest) = (&expected[head..], &found[head..]);
    let tail = expected_rest.iter().rev().zip(found_rest.iter().rev()).take_while(alike).count();
    let end = expected.len() - tail;
    let middle = &found[head..found.len() - tail];
    let numbers: HashMap<&Hash, usize> = expected.iter().zip(0..).collect();
    let middle: Vec<Option<usize>> = middle.iter().map(|h| numbers.get(h).copied()).collect();
    if let Some(swapped) = swapped(&middle, head, end) {
        return vec![swapped];
    }
    let differs = |n: &usize| (head..end).contains(n);
    let present = middle.iter().flatten().copied().filter(differs).collect();
    let mut found = Walk { next: head, end, present, ..Walk::default() };
    middle.into_iter().for_each(|line| found.take(line));
    found.finish(tail == 0)
}

/// Two lines that stand in each other's place, and nothing else.
fn swapped(middle: &[Option<usize>], head: usize, end: usize) -> Option<Difference> {
    let wrong = |(n, line): &(usize, &Option<usize>)| **line != Some(*n);
    let mut wrong = (head..end).zip(middle).filter(wrong);
    let ((a, at_a), (b, at_b)) = (wrong.next()?, wrong.next()?);
    let all = middle.len() == end - head && wrong.next().is_none();
    let swapped = all && *at_a == Some(b) && *at_b == Some(a);
    swapped.then(|| Difference { line: number(a), what: What::SwappedWith(number(b)) })
}

/// Goes through the lines that are found, with the next one that is expected in mind.
#[derive(Default)]
struct Walk {
    next: usize,
    end: usize,
    /// Lines of the part that differs that stand somewhere in it.
    present: HashSet<usize>,
    seen: HashSet<usize>,
    differences: Vec<Difference>,
}

impl Walk {
    fn take(&mut self, line: Option<usize>) {
        match line {
            None if self.next < self.end && !self.present.contains(&self.next) => {
                self.add(self.next, What::Altered);
                self.next += 1;
            }
            None => self
                .differences
                .push(Difference { line: self.next as u64, what: What::FollowedByOther }),
            Some(n) if !self.present.contains(&n) || !self.seen.insert(n) => {
                self.add(n, What::Repeated)
            }
            // It was passed over when a later one was found.
            Some(n) if n < self.next => self.add(n, What::Moved),
            Some(n) => {
                (self.next..n).for_each(|skipped| self.add_missing(skipped));
                self.next = n + 1;
            }
        }
    }

    fn finish(mut self, at_the_end: bool) -> Vec<Difference> {
        let rest: Vec<usize> = (self.next..self.end).collect();
        match rest.first() {
            Some(first) if at_the_end => {
                self.differences.push(Difference { line: *first as u64, what: What::End })
            }
            _ => rest.into_iter().for_each(|line| self.add(line, What::Missing)),
        }
        self.differences.sort();
        self.differences
    }

    /// One that stands further on is told where it stands.
    fn add_missing(&mut self, line: usize) {
        if !self.present.contains(&line) {
            self.add(line, What::Missing);
        }
    }

    fn add(&mut self, line: usize, what: What) {
        self.differences.push(Difference { line: number(line), what });
    }
}

fn number(index: usize) -> u64 {
    index as u64 + 1
}

/// In words; lines that follow each other and lack alike are named together.
pub(super) fn in_words(differences: &[Difference]) -> Vec<String> {
    let mut words = vec![];
    let mut rest = differences;
    while let Some(first) = rest.first() {
        let alike = |(d, n): &(&Difference, u64)| d.what == first.what && d.line == *n;
        let run = match first.what {
            What::Missing | What::Altered | What::Moved => {
                rest.iter().zip(first.line..).take_while(alike).count()
            }
            _ => 1,
        };
        words.push(sentence(*first, first.line + run as u64 - 1));
        rest = &rest[run..];
    }
    words
}

fn sentence(first: Difference, last: u64) -> String {
    let line = first.line;
    let (lines, is, was) = match last == line {
        true => (format!("line {line}"), "is", "was"),
        false => (format!("lines {line} to {last}"), "are", "were"),
    };
    match first.what {
        What::Missing => format!("{lines} {is} missing"),
        What::Altered => format!("{lines} {was} altered"),
        What::Moved => format!("{lines} {was} moved to another place"),
        What::Repeated => format!("line {line} stands there more than once"),
        What::SwappedWith(other) => format!("lines {line} and {other} were swapped"),
        What::FollowedByOther if line == 0 => "a line was put in before line 1".into(),
        What::FollowedByOther => format!("a line was put in after line {line}"),
        What::End if line == 0 => "nothing of it is left".into(),
        What::End => format!("the end is cut after line {line}"),
    }
}

#[cfg(test)]
mod tests {
    use keyledger_ledger::export::line_hash;

    use super::*;

    /// What is said of lines, named by letters, that were `abcdefghij`.
    fn said(found: &str) -> Vec<String> {
        let hashes = |text: &str| text.bytes().map(|b| line_hash(&[b])).collect::<Vec<_>>();
        in_words(&differences(&hashes("abcdefghij"), &hashes(found)))
    }

    #[test]
    fn each_difference_is_named_by_its_line() {
        let table = [
            ("abcdefghij", ""),
            ("abcdefghi", "the end is cut after line 9"),
            ("abc", "the end is cut after line 3"),
            ("", "nothing of it is left"),
            ("bcdefghij", "line 1 is missing"),
            ("abcdfghij", "line 5 is missing"),
            ("abcghij", "lines 4 to 6 are missing"),
            ("abcdXfghij", "line 5 was altered"),
            ("Xbcdefghij", "line 1 was altered"),
            ("abcdefghiX", "line 10 was altered"),
            ("abXYZfghij", "lines 3 to 5 were altered"),
            ("abcedfghij", "lines 4 and 5 were swapped"),
            ("jbcdefghia", "lines 1 and 10 were swapped"),
            ("aabcdefghij", "line 1 stands there more than once"),
            ("abcddefghij", "line 4 stands there more than once"),
            ("abcdefghijj", "line 10 stands there more than once"),
            ("abcdefghijc", "line 3 stands there more than once"),
            ("abcdeXfghij", "a line was put in after line 5"),
            ("Xabcdefghij", "a line was put in before line 1"),
            ("abcdefghijX", "a line was put in after line 10"),
            ("acdefbghij", "line 2 was moved to another place"),
            ("afbcdeghij", "lines 2 to 5 were moved to another place"),
            ("abdefXhij", "line 3 is missing; line 7 was altered"),
            ("abcXefgh", "line 4 was altered; the end is cut after line 8"),
        ];
        for (found, expected) in table {
            assert_eq!(said(found).join("; "), expected, "{found}");
        }
        // However they are mixed up, something is said.
        for found in ["badcfehgji", "jihgfedcba", "aXaXaX", "bbbbbbbbbb", "XXXXXXXXXXXXX"] {
            assert!(!said(found).is_empty(), "{found}");
        }
    }
}
