//! Characters that can't be seen, or change how their neighbours look: each rendering shows them by their number.

use keyledger_ledger::text::is_unsafe_in_a_line;

/// A stretch of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Seen(&'a str),
    Hidden(char),
}

/// The pieces of a text, in order.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let end = match is_hidden(first) {
            true => first.len_utf8(),
            false => rest.find(is_hidden).unwrap_or(rest.len()),
        };
        let (piece, left) = rest.split_at(end);
        rest = left;
        Some(if is_hidden(first) { Piece::Hidden(first) } else { Piece::Seen(piece) })
    })
}

/// `U+202E`
pub(super) fn number(c: char) -> String {
    format!("U+{:04X}", c as u32)
}

/// What may not stand in a line, and what else has no shape of its own: soft hyphens, joiners, fillers, tags.
fn is_hidden(c: char) -> bool {
    is_unsafe_in_a_line(c)
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{206a}'..='\u{206f}' | '\u{3164}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_a_piece_of_its_own() {
        let found: Vec<Piece<'_>> = pieces("a\u{202e}b\0\u{ad}").collect();
        let expected = [
            Piece::Seen("a"),
            Piece::Hidden('\u{202e}'),
            Piece::Seen("b"),
            Piece::Hidden('\0'),
            Piece::Hidden('\u{ad}'),
        ];
        assert_eq!(found, expected);
        assert_eq!(pieces("").count(), 0);
        assert_eq!(number('\u{202e}'), "U+202E");
        assert_eq!(number('\0'), "U+0000");
        assert_eq!(pieces("日本語 naïve 👍").collect::<Vec<_>>(), [Piece::Seen("日本語 naïve 👍")]);
    }
}
