//! Markdown (CommonMark, and what GitHub adds) that can't be broken out of: texts enter by one door, where every character that could
//! be markup in its place is escaped, and no other, since people read it as it stands, too. Texts never hold a line break.

use super::inert::{Piece, number, pieces};
use super::trace_links::TraceUrl;

/// Markdown that is being written.
#[derive(Default)]
pub struct Markdown(String);

impl Markdown {
    pub(super) fn finish(mut self) -> String {
        let end = self.0.trim_end().len();
        self.0.truncate(end);
        self.0.push('\n');
        self.0
    }

    /// Markup and words of our own.
    pub(super) fn words(&mut self, words: &'static str) -> &mut Markdown {
        self.0.push_str(words);
        self
    }

    pub(super) fn heading(&mut self, level: usize, inside: impl FnOnce(&mut Markdown)) {
        self.block(|m| {
            m.0.push_str(&"#".repeat(level));
            m.0.push(' ');
            inside(m);
        });
    }

    pub(super) fn paragraph(&mut self, inside: impl FnOnce(&mut Markdown)) {
        self.block(inside);
    }

    pub(super) fn items<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut inside: impl FnMut(&mut Markdown, T),
    ) {
        self.block(|m| {
            for item in items {
                m.0.push_str("- ");
                inside(m, item);
                m.0.push('\n');
            }
        });
    }

    fn block(&mut self, inside: impl FnOnce(&mut Markdown)) {
        inside(self);
        let end = self.0.trim_end_matches('\n').len();
        self.0.truncate(end);
        self.0.push_str("\n\n");
    }

    /// Any text, escaped.
    pub(super) fn text(&mut self, text: &str) -> &mut Markdown {
        // At the beginning of a line, an item or a heading more is markup than elsewhere.
        let line = self.0.rsplit('\n').next().unwrap_or_default();
        let mut first = line.bytes().all(|b| b"-# ".contains(&b));
        for piece in pieces(text) {
            match piece {
                Piece::Seen(text) => self.push_escaped(text, first),
                Piece::Hidden(c) => self.0.push_str(&format!("\\[{}\\]", number(c))),
            }
            first = false;
        }
        self
    }

    /// A name of the program's world, such as a permission or an id: between as many backticks as it takes.
    pub(super) fn code(&mut self, text: &str) -> &mut Markdown {
        let mut seen = String::new();
        for piece in pieces(text) {
            match piece {
                Piece::Seen(text) => seen.push_str(text),
                Piece::Hidden(c) => seen.push_str(&format!("[{}]", number(c))),
            }
        }
        let longest = seen.split(|c| c != '`').map(str::len).max().unwrap_or(0);
        let fence = "`".repeat(longest + 1);
        let room = if seen.starts_with('`') || seen.ends_with('`') { " " } else { "" };
        self.0.push_str(&format!("{fence}{room}{seen}{room}{fence}"));
        self
    }

    /// A link out. In such an address nothing is markup between `<` and `>`.
    pub(super) fn trace_link(&mut self, to: &TraceUrl, trace_id: &str) -> &mut Markdown {
        self.0.push('[');
        self.code(trace_id);
        self.0.push_str(&format!("](<{}>)", to.as_str()));
        self
    }

    /// Lines as they are, to be copied: between more backticks than any of them begins with.
    pub(super) fn code_block(&mut self, text: &str) {
        let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
        let fence = "`".repeat(longest.max(2) + 1);
        self.block(|m| {
            m.0.push_str(&format!("{fence}\n"));
            for line in text.lines() {
                for piece in pieces(line) {
                    match piece {
                        Piece::Seen(text) => m.0.push_str(text),
                        Piece::Hidden(c) => m.0.push_str(&format!("[{}]", number(c))),
                    }
                }
                m.0.push('\n');
            }
            m.0.push_str(&fence);
        });
    }

    fn push_escaped(&mut self, text: &str, first: bool) {
        let mut leading = first;
        for (at, c) in text.char_indices() {
            let (before, after) = (&text[..at], &text[at + c.len_utf8()..]);
            let is_markup = match c {
                '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '&' | '|' | '~' => true,
                '!' => after.starts_with('['),
                // Also at the end of a heading.
                '#' => leading || before.ends_with([' ', '#']),
                '-' | '+' | '=' | '>' => leading,
                // A number of a list; or an address that would become a link by itself. One of mail may: nothing is sent by looking.
                '.' | ')' if first && is_number(before) => true,
                '.' => ends_with_word(before, "www"),
                ':' => {
                    after.starts_with("//")
                        || ["mailto", "xmpp"].iter().any(|w| ends_with_word(before, w))
                }
                _ => false,
            };
            if is_markup {
                self.0.push('\\');
            }
            self.0.push(c);
            leading = leading && c == ' ';
        }
    }
}

fn is_number(text: &str) -> bool {
    let text = text.trim_start_matches(' ');
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn ends_with_word(text: &str, word: &str) -> bool {
    let begin = text.len().saturating_sub(word.len());
    text.get(begin..).is_some_and(|end| end.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> String {
        let mut markdown = Markdown::default();
        markdown.text(text);
        markdown.0
    }

    #[test]
    fn a_text_is_never_markup() {
        for (foreign, expected) in [
            ("<script>alert(1)</script>", "\\<script>alert(1)\\</script>"),
            ("[click](javascript:alert(1))", "\\[click\\](javascript:alert(1))"),
            ("![x](y) so!", "\\!\\[x\\](y) so!"),
            ("# no heading", "\\# no heading"),
            ("C# and #17 #", "C# and \\#17 \\#"),
            ("- no item", "\\- no item"),
            ("+ no item", "\\+ no item"),
            ("> no quote", "\\> no quote"),
            ("  - no item", "  \\- no item"),
            ("12. no item", "12\\. no item"),
            (" 1) no item", " 1\\) no item"),
            ("a | b", "a \\| b"),
            ("=1+1=2", "\\=1+1=2"),
            ("~~gone~~", "\\~\\~gone\\~\\~"),
            ("&lt;", "\\&lt;"),
            ("a\\b", "a\\\\b"),
            ("www.example.com", "www\\.example.com"),
            (
                "HTTPS://example.com and mailto:a@b.example",
                "HTTPS\\://example.com and mailto\\:a@b.example",
            ),
            ("*so* _it_ `is`", "\\*so\\* \\_it\\_ \\`is\\`"),
            ("a\nb\u{202e}c", "a\\[U+000A\\]b\\[U+202E\\]c"),
            ("nightly export, 3.5 hours", "nightly export, 3.5 hours"),
            (
                "carol@example.com: 13:20:47 UTC (none: it is)",
                "carol@example.com: 13:20:47 UTC (none: it is)",
            ),
        ] {
            assert_eq!(text(foreign), expected);
        }
    }

    #[test]
    fn what_begins_no_line_is_escaped_less() {
        let mut markdown = Markdown::default();
        markdown.items(["-1"], |m, text| {
            m.text(text).words(": ").text(text);
        });
        markdown.heading(2, |m| {
            m.text("1. a");
        });
        assert_eq!(markdown.finish(), "- \\-1: -1\n\n## 1\\. a\n");
    }

    #[test]
    fn a_block_of_code_ends_where_it_is_to_end() {
        let mut markdown = Markdown::default();
        markdown.code_block("origin/x\n17\n\n— origin/x AbC=\n````\n# no heading\u{202e}\n");
        let expected =
            "`````\norigin/x\n17\n\n— origin/x AbC=\n````\n# no heading[U+202E]\n`````\n";
        assert_eq!(markdown.finish(), expected);
    }

    #[test]
    fn code_takes_as_many_backticks_as_it_needs() {
        let mut markdown = Markdown::default();
        markdown.code("a.*").words(" ").code("a``b`").words(" ").code("\u{202e}");
        assert_eq!(markdown.0, "`a.*` ``` a``b` ``` `[U+202E]`");
    }
}
