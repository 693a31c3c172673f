//! Markdown (CommonMark) that can't be broken out of: texts enter by one door, where every character that could be markup is
//! escaped; they never begin a line, and never hold a line break.

use super::inert::{Piece, number, pieces};

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
        // At the beginning of a line, or of an item, more is markup than elsewhere.
        let mut first = self.0.is_empty() || self.0.ends_with(['\n', ' ']);
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

    fn push_escaped(&mut self, text: &str, first: bool) {
        let mut leading = first;
        let mut before = "";
        for (at, c) in text.char_indices() {
            let always = "\\`*_{}[]<>()#!|~&:@\"$^=".contains(c);
            // A list, a heading below, a number with its dot; and an address that would become a link by itself.
            let at_first = leading && (c.is_ascii_punctuation() || c.is_ascii_digit());
            let after_number =
                first && ".)".contains(c) && text[..at].bytes().all(|b| b.is_ascii_digit());
            let of_www = c == '.' && before.to_ascii_lowercase().ends_with("www");
            if always || (at_first && !c.is_ascii_digit()) || after_number || of_www {
                self.0.push('\\');
            }
            self.0.push(c);
            leading = leading && c == ' ';
            before = &text[..at + c.len_utf8()];
        }
    }
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
            ("<script>alert(1)</script>", "\\<script\\>alert\\(1\\)\\</script\\>"),
            ("[click](javascript:alert(1))", "\\[click\\]\\(javascript\\:alert\\(1\\)\\)"),
            ("# no heading", "\\# no heading"),
            ("- no item", "\\- no item"),
            ("12. no item", "12\\. no item"),
            ("a | b", "a \\| b"),
            ("=1+1", "\\=1+1"),
            ("www.example.com", "www\\.example.com"),
            ("*so* _it_ `is`", "\\*so\\* \\_it\\_ \\`is\\`"),
            ("a\nb\u{202e}c", "a\\[U+000A\\]b\\[U+202E\\]c"),
            ("nightly export, 3.5 hours", "nightly export, 3.5 hours"),
        ] {
            assert_eq!(text(foreign), expected);
        }
    }

    #[test]
    fn code_takes_as_many_backticks_as_it_needs() {
        let mut markdown = Markdown::default();
        markdown.code("a.*").words(" ").code("a``b`").words(" ").code("\u{202e}");
        assert_eq!(markdown.0, "`a.*` ``` a``b` ``` `[U+202E]`");
    }
}
