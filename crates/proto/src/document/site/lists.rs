//! Lists of keys, as tables.

use crate::KeyDocument;
use crate::document::html::Html;
use crate::document::html::frame::{Place, day_of_time};
use crate::document::key::{badge, cell, head, left_badge, owner_link, section, title};
use crate::document::words::grouped;

use super::key_of;
use super::names::key_page;

/// Most lines of a list on a page of a role or permission: what is held by all is told by a number.
pub(super) const MAX_LINES: usize = 2_000;

/// A part with keys, one a line.
pub(super) fn keys(
    h: &mut Html,
    heading: &'static str,
    id: &'static str,
    documents: &[&KeyDocument],
    place: Place,
) {
    section(h, heading, id, |h| {
        if documents.is_empty() {
            return h.classed("p", "note", |h| h.words("None."));
        }
        h.plainly("table", |h| {
            h.plainly("caption", |h| {
                let live = documents.iter().filter(|d| d.accepted).count();
                h.plain(&grouped(documents.len() as u64));
                h.words(if documents.len() == 1 { " key, of which " } else { " keys, of which " });
                h.plain(&grouped(live as u64));
                h.words(if live == 1 { " is accepted" } else { " are accepted" });
            });
            columns(h);
            h.plainly("tbody", |h| documents.iter().for_each(|document| line(h, document, place)));
        });
    });
}

fn columns(h: &mut Html) {
    h.plainly("thead", |h| {
        h.plainly("tr", |h| {
            for (name, optional) in
                [("For what", false), ("Owner", false), ("Ends", true), ("Last used", true)]
            {
                let class = if optional { "opt" } else { "" };
                h.element("th", &[("scope", "col"), ("class", class)], |h| h.words(name));
            }
        });
    });
}

fn line(h: &mut Html, document: &KeyDocument, place: Place) {
    let key = key_of(document);
    h.fixed("\n");
    h.plainly("tr", |h| {
        h.element("th", &[("scope", "row")], |h| {
            h.link(&key_page(&key.key_id, place == Place::Below), |h| h.text(title(key)));
            h.classed("div", "under", |h| {
                badge(h, key);
                h.classed("span", "opt soft", |h| h.code(&key.key_id));
            });
        });
        cell(h, |h| {
            owner_link(h, key.owner.as_ref(), place);
            left_badge(h, key.owner_left_time.as_ref());
            // Where there is no room for columns of their own.
            for (what, time) in [("Ends: ", &key.expire_time), ("Last used: ", &key.last_use_time)]
            {
                h.classed("div", "narrow soft", |h| {
                    h.words(what);
                    day(h, time.as_ref());
                });
            }
        });
        h.classed("td", "opt", |h| day(h, key.expire_time.as_ref()));
        h.classed("td", "opt", |h| day(h, key.last_use_time.as_ref()));
    });
}

fn day(h: &mut Html, time: Option<&prost_types::Timestamp>) {
    match time {
        Some(time) => day_of_time(h, time),
        None => h.words("never"),
    }
}

/// That a list was cut, and by how many lines.
pub(super) fn cut(h: &mut Html, all: usize) {
    if all > MAX_LINES {
        h.classed("p", "soft", |h| {
            h.words("And ");
            h.plain(&grouped((all - MAX_LINES) as u64));
            h.words(" more: the search of the first page finds them by their roles and owners.");
        });
    }
}

/// A table whose first column leads to a page.
pub(super) fn table<T>(
    h: &mut Html,
    caption: &'static str,
    columns: &[&'static str],
    lines: &[T],
    mut line: impl FnMut(&mut Html, &T),
) {
    h.plainly("table", |h| {
        h.plainly("caption", |h| h.words(caption));
        head(h, columns);
        h.plainly("tbody", |h| {
            for one in lines.iter().take(MAX_LINES) {
                h.fixed("\n");
                h.plainly("tr", |h| line(h, one));
            }
        });
    });
    cut(h, lines.len());
}

/// The first cell of a line.
pub(super) fn first(h: &mut Html, inside: impl FnOnce(&mut Html)) {
    h.element("th", &[("scope", "row")], inside);
}
