//! What stands around every page: its policy (nothing is loaded, no script runs but ours), its style, where one is, and as of when.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::{Href, Html};
use crate::DocumentMoment;
use crate::document::words::{date, grouped, time};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("search.js");

/// Only this style and this script, by their digests, and nothing from anywhere.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let digest = |text: &str| STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        digest(STYLE),
        digest(SCRIPT),
    )
});

/// Where a page stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// By itself: it links to nothing.
    Alone,
    /// The first page of a site, which has the search.
    Index,
    /// In a folder of a site.
    Below,
}

/// A page without its content.
pub(in crate::document) struct Frame<'a> {
    pub(in crate::document) title: &'a str,
    /// Name of the ledger.
    pub(in crate::document) ledger: &'a str,
    pub(in crate::document) moment: &'a DocumentMoment,
    pub(in crate::document) place: Place,
}

const SECTIONS: [(&str, &str, &str); 4] = [
    ("Keys", "#keys", "../index.html#keys"),
    ("Owners", "#owners", "../index.html#owners"),
    ("Roles", "#roles", "../index.html#roles"),
    ("Permissions", "#permissions", "../index.html#permissions"),
];

impl Frame<'_> {
    /// The whole page.
    pub(in crate::document) fn around(&self, content: impl FnOnce(&mut Html)) -> String {
        let mut html = Html::default();
        html.fixed("<!doctype html>\n");
        html.element("html", &[("lang", "en")], |h| {
            h.plainly("head", |h| self.head(h));
            h.fixed("\n");
            h.plainly("body", |h| {
                h.fixed("<a class=\"skip\" href=\"#main\">Skip to the content</a>\n");
                h.classed("header", "bar", |h| self.bar(h));
                h.fixed("\n");
                h.element("main", &[("id", "main")], content);
                h.fixed("\n");
                h.plainly("footer", |h| self.footer(h));
                if self.place == Place::Index {
                    h.plainly("script", |h| h.fixed(SCRIPT));
                }
            });
        });
        html.fixed("\n");
        html.finish()
    }

    fn head(&self, h: &mut Html) {
        h.fixed("\n<meta charset=\"utf-8\">\n");
        h.open("meta", &[("http-equiv", "Content-Security-Policy"), ("content", &POLICY)]);
        h.fixed("\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
        h.fixed("<meta name=\"color-scheme\" content=\"light dark\">\n");
        h.fixed("<meta name=\"referrer\" content=\"no-referrer\">\n");
        h.fixed("<meta name=\"robots\" content=\"noindex\">\n");
        h.plainly("title", |h| h.plain(&format!("{} · {}", self.title, self.ledger)));
        h.fixed("\n");
        h.plainly("style", |h| h.fixed(STYLE));
        h.fixed("\n");
    }

    fn bar(&self, h: &mut Html) {
        h.classed("div", "inner", |h| {
            let name = |h: &mut Html| {
                h.fixed("<span class=\"mark\" aria-hidden=\"true\"></span>");
                h.words("Who may do what in ");
                h.text(self.ledger);
            };
            match self.place {
                Place::Alone => h.classed("span", "name", name),
                Place::Index => {
                    h.classed("span", "name", |h| h.link(&Href::fixed("index.html"), name))
                }
                Place::Below => {
                    h.classed("span", "name", |h| h.link(&Href::fixed("../index.html"), name))
                }
            }
            if self.place != Place::Alone {
                h.element("nav", &[("aria-label", "Parts of this site")], |h| {
                    h.plainly("ul", |h| self.sections(h));
                });
            }
        });
    }

    fn sections(&self, h: &mut Html) {
        for (name, here, from_below) in SECTIONS {
            let place = if self.place == Place::Index { here } else { from_below };
            h.plainly("li", |h| h.link(&Href::fixed(place), |h| h.words(name)));
        }
    }

    /// Ledger, checkpoint, time.
    fn footer(&self, h: &mut Html) {
        let moment = self.moment;
        h.classed("div", "inner", |h| {
            h.plainly("p", |h| {
                match &moment.time {
                    None => h.words("In the ledger "),
                    Some(when) => {
                        h.words("As of ");
                        moment_of_time(h, when);
                        h.words(", in the ledger ");
                    }
                }
                h.text(self.ledger);
                h.words(" just before position ");
                h.text(&grouped(moment.position.unwrap_or_default()));
                h.words(match moment.checkpoint.as_str() {
                    "" => ". All that is said here follows from its signed entries. Whoever asked for it may not read the checkpoint that covers them.",
                    _ => ". All that is said here follows from its signed entries, which this checkpoint covers.",
                });
            });
            if moment.checkpoint.is_empty() {
                return;
            }
            h.plainly("details", |h| {
                h.plainly("summary", |h| {
                    h.words("The signed checkpoint over ");
                    h.text(&grouped(moment.checkpoint_size));
                    h.words(" entries");
                });
                h.plainly("pre", |h| moment.checkpoint.lines().for_each(|line| {
                    h.text(line);
                    h.fixed("\n");
                }));
                h.plainly("p", |h| {
                    h.words("Verified by ");
                    h.code(&moment.verifier_key);
                });
            });
        });
    }
}

/// A time, for people and for programs. It breaks between date and hour only.
pub(in crate::document) fn moment_of_time(h: &mut Html, when: &prost_types::Timestamp) {
    let text = time(when);
    h.element("time", &[("datetime", &when.to_string())], |h| {
        for (i, part) in text.splitn(2, ' ').enumerate() {
            h.words(if i > 0 { " " } else { "" });
            h.classed("span", "whole", |h| h.plain(part));
        }
    });
}

/// The day of a time, where there is little room.
pub(in crate::document) fn day_of_time(h: &mut Html, when: &prost_types::Timestamp) {
    let shown = [("datetime", &*when.to_string()), ("title", &time(when)), ("class", "whole")];
    h.element("time", &shown, |h| h.plain(&date(when)));
}
