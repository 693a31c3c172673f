//! The screen: everything that goes to standard output, with colour only on a terminal, and nothing that could move the
//! cursor or turn text around.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use keyledger_ledger::text::is_unsafe_in_a_line;

/// What a text is, and so its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Strong,
    Faint,
    Good,
    Bad,
}

/// Standard output. It fails, and doesn't panic, when its reader has gone.
pub(crate) struct Screen {
    pub colour: bool,
    /// Whether it shows block elements (Unicode U+2580 …), and not only ASCII.
    pub blocks: bool,
}

impl Screen {
    pub(crate) fn stdout() -> Screen {
        let colour = colour_wanted(io::stdout().is_terminal());
        Screen { colour, blocks: colour && speaks_utf8(|name| std::env::var(name).ok()) }
    }

    pub(crate) fn paint(&self, text: &str, tone: Tone) -> String {
        paint(text, tone, self.colour)
    }

    /// Writes a text that is inert already, and a newline.
    pub(crate) fn line(&self, text: &str) -> io::Result<()> {
        writeln!(io::stdout().lock(), "{text}")
    }

    /// Writes lines that must come out byte by byte, such as a signed note; on a terminal they are made inert.
    pub(crate) fn verbatim(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match io::stdout().is_terminal() {
            true => text.lines().try_for_each(|line| writeln!(out, "{}", inert(line))),
            false => out.write_all(text.as_bytes()),
        }
    }
}

/// A line with every control, bidirectional and invisible character written as `\u{…}`.
pub(crate) fn inert(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match is_unsafe_in_a_line(c) {
            true => write!(line, "\\u{{{:x}}}", c as u32).expect("a String takes all text"),
            false => line.push(c),
        }
    }
    line
}

/// Colour only on a terminal, and not if NO_COLOR (no-color.org) or TERM=dumb says so.
pub(crate) fn colour_wanted(terminal: bool) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    terminal && !set("NO_COLOR") && !dumb
}

/// Whether the locale has UTF-8: the first of these variables that is set says so (POSIX, XBD 8.2).
fn speaks_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name: &&str| variable(name).filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(set).unwrap_or_default();
    let locale = locale.to_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// The text in its colour (ECMA-48 SGR), or as it is.
pub(crate) fn paint(text: &str, tone: Tone, colour: bool) -> String {
    let code = match tone {
        Tone::Plain => return text.into(),
        Tone::Strong => "1",
        Tone::Faint => "2",
        Tone::Good => "32",
        Tone::Bad => "31",
    };
    if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_or_hides_text_comes_through() {
        assert_eq!(inert("a\u{1b}[31mb\r\nc"), "a\\u{1b}[31mb\\u{d}\\u{a}c");
        assert_eq!(inert("x\u{202e}y\u{200b}\u{9b}z"), "x\\u{202e}y\\u{200b}\\u{9b}z");
        assert_eq!(inert("Zürich 日本語 👍"), "Zürich 日本語 👍");
    }

    #[test]
    fn blocks_are_shown_where_the_locale_has_them() {
        let speaks = |set: &[(&str, &str)]| {
            let value =
                |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
            speaks_utf8(value)
        };
        assert!(speaks(&[("LANG", "de_CH.UTF-8")]));
        assert!(speaks(&[("LANG", "C"), ("LC_CTYPE", "C.utf8"), ("LC_ALL", "")]));
        assert!(!speaks(&[("LC_ALL", "POSIX"), ("LANG", "de_CH.UTF-8")]));
        assert!(!speaks(&[]));
    }

    #[test]
    fn without_colour_a_text_stays_as_it_is() {
        assert_eq!(paint("no", Tone::Bad, false), "no");
        assert_eq!(paint("no", Tone::Bad, true), "\u{1b}[31mno\u{1b}[0m");
        assert!(!colour_wanted(false));
    }
}
