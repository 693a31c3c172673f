//! HTML that can't be broken out of: texts enter escaped, by one door; tags, names of attributes and our own words are known when
//! this is compiled; links go to pages of ours, and to traces where whoever writes the page says how. Nowhere else.

pub mod frame;

use super::inert::{Piece, number, pieces};
use super::trace_links::TraceUrl;

/// HTML that is being written.
#[derive(Default)]
pub struct Html(String);

/// An attribute: its name, and its value as it is to be read.
pub type Attribute<'a> = (&'static str, &'a str);

/// A page of ours, relative to the one that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Href(String);

impl Href {
    /// A file of the site: folder and name are made by us of letters, digits and hyphens.
    pub(super) fn file(up: bool, folder: &'static str, name: &str) -> Href {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        assert!(name.bytes().all(plain), "names of pages are ids or digests");
        Href(format!("{}{folder}/{name}.html", if up { "../" } else { "" }))
    }

    /// A place that is known when this is compiled.
    pub(super) fn fixed(place: &'static str) -> Href {
        Href(place.into())
    }
}

impl Html {
    pub(super) fn finish(self) -> String {
        self.0
    }

    /// Markup of our own.
    pub(super) fn fixed(&mut self, markup: &'static str) {
        self.0.push_str(markup);
    }

    /// Words of our own.
    pub(super) fn words(&mut self, words: &'static str) {
        push_escaped(&mut self.0, words);
    }

    /// Any text: escaped, apart from its surroundings in its direction, and with what can't be seen shown.
    pub(super) fn text(&mut self, text: &str) {
        self.element("bdi", &[], |h| h.bare(text));
    }

    /// The same without a direction of its own: for what we made of numbers and names ourselves, and where `bdi` may not stand.
    fn bare(&mut self, text: &str) {
        for piece in pieces(text) {
            match piece {
                Piece::Seen(text) => push_escaped(&mut self.0, text),
                Piece::Hidden(c) => {
                    self.0.push_str(
                        "<span class=\"hidden\" title=\"a character that can't be seen\">",
                    );
                    self.0.push_str(&number(c));
                    self.0.push_str("</span>");
                }
            }
        }
    }

    /// A text where no element may stand, such as a title: what can't be seen is there as its number.
    pub(super) fn plain(&mut self, text: &str) {
        push_escaped(&mut self.0, &in_plain(text));
    }

    /// An element with what stands in it.
    pub(super) fn element(
        &mut self,
        tag: &'static str,
        attributes: &[Attribute<'_>],
        inside: impl FnOnce(&mut Html),
    ) {
        self.open(tag, attributes);
        inside(self);
        self.0.push_str("</");
        self.0.push_str(tag);
        self.0.push('>');
    }

    /// The beginning of an element, or an element without content.
    pub(super) fn open(&mut self, tag: &'static str, attributes: &[Attribute<'_>]) {
        self.0.push('<');
        self.0.push_str(tag);
        for (name, value) in attributes {
            let active =
                name.starts_with("on") || ["href", "src", "style", "action"].contains(name);
            assert!(!active, "{name} takes no text");
            self.attribute(name, &in_plain(value));
        }
        self.0.push('>');
    }

    /// An element of a class, which is most.
    pub(super) fn classed(
        &mut self,
        tag: &'static str,
        class: &'static str,
        inside: impl FnOnce(&mut Html),
    ) {
        self.element(tag, &[("class", class)], inside);
    }

    /// An element without attributes.
    pub(super) fn plainly(&mut self, tag: &'static str, inside: impl FnOnce(&mut Html)) {
        self.element(tag, &[], inside);
    }

    pub(super) fn link(&mut self, to: &Href, inside: impl FnOnce(&mut Html)) {
        self.0.push_str("<a");
        self.attribute("href", &to.0);
        self.0.push('>');
        inside(self);
        self.0.push_str("</a>");
    }

    /// A link out, which tells nobody where it stood.
    pub(super) fn trace_link(&mut self, to: &TraceUrl, inside: impl FnOnce(&mut Html)) {
        self.0.push_str("<a");
        self.attribute("href", to.as_str());
        self.attribute("rel", "noreferrer");
        self.0.push('>');
        inside(self);
        self.0.push_str("</a>");
    }

    /// A name of the program's world, such as a permission or an id.
    pub(super) fn code(&mut self, text: &str) {
        self.plainly("code", |h| h.text(text));
    }

    fn attribute(&mut self, name: &str, value: &str) {
        self.0.push(' ');
        self.0.push_str(name);
        self.0.push_str("=\"");
        push_escaped(&mut self.0, value);
        self.0.push('"');
    }
}

/// A text without elements in it.
fn in_plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for piece in pieces(text) {
        match piece {
            Piece::Seen(text) => plain.push_str(text),
            Piece::Hidden(c) => plain.push_str(&number(c)),
        }
    }
    plain
}

fn push_escaped(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '`' => out.push_str("&#96;"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_never_markup() {
        let mut html = Html::default();
        html.element("p", &[("title", "\"><img src=x onerror=alert(1)>\u{202e}")], |h| {
            h.text("<script>alert('&')</script>`\u{202e}");
        });
        assert_eq!(
            html.finish(),
            "<p title=\"&quot;&gt;&lt;img src=x onerror=alert(1)&gt;U+202E\"><bdi>&lt;script&gt;alert(&#39;&amp;&#39;)\
             &lt;/script&gt;&#96;<span class=\"hidden\" title=\"a character that can't be seen\">U+202E</span></bdi></p>"
        );
    }

    #[test]
    #[should_panic(expected = "onclick takes no text")]
    fn no_attribute_that_acts_takes_a_text() {
        Html::default().open("p", &[("onclick", "alert(1)")]);
    }

    #[test]
    #[should_panic(expected = "names of pages are ids or digests")]
    fn no_text_is_the_name_of_a_page() {
        Href::file(false, "owners", "../../etc/passwd");
    }
}
