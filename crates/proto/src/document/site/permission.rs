//! A permission: what it is, and who may use it or hand it on.

use crate::document::html::Html;
use crate::document::html::frame::Place;
use crate::document::key::{badge, cell, owner_link, section, title};
use crate::document::words::template;
use crate::{Ability, KeyDocument, Permission};

use super::lists::{first, table};
use super::names::{key_page, role_page};
use super::{Site, key_of, names_permission, owner_of};

/// By what a key has a permission.
type Holding<'a> = (&'a KeyDocument, &'a Ability);

impl Site {
    pub(super) fn permission(&self, permission: &Permission) -> String {
        let all: Vec<Holding<'_>> = self.holdings(&permission.name).collect();
        let of = |accepted: bool, give_only: bool| -> Vec<Holding<'_>> {
            let wanted = |(d, a): &&Holding<'_>| d.accepted == accepted && a.give_only == give_only;
            all.iter().filter(wanted).copied().collect()
        };
        self.frame(&permission.name, Place::Below, |h| {
            h.classed("p", "kicker", |h| h.words("Permission"));
            h.plainly("h1", |h| h.text(&permission.name));
            about(h, permission);
            section(h, "Who may do this", "who", |h| holders(h, &of(true, false)));
            for (heading, id, held) in [
                ("Who may hand it on, and not do it", "give", of(true, true)),
                ("Who could, if their keys were accepted", "not-now", of(false, false)),
            ] {
                if !held.is_empty() {
                    section(h, heading, id, |h| holders(h, &held));
                }
            }
        })
    }

    fn holdings<'a>(&'a self, permission: &'a str) -> impl Iterator<Item = Holding<'a>> {
        let of_key =
            |document: &'a KeyDocument| document.abilities.iter().map(move |a| (document, a));
        self.keys.iter().flat_map(of_key).filter(move |(_, a)| names_permission(a, permission))
    }
}

fn about(h: &mut Html, permission: &Permission) {
    h.classed("p", "lead", |h| match permission.description.as_str() {
        "" => h.words("Nobody has said what it is."),
        description => h.text(description),
    });
    if !permission.registered_by.is_empty() {
        h.plainly("p", |h| {
            h.words("Registered by ");
            h.text(&permission.registered_by);
            h.words(".");
        });
    }
    if !permission.resources.is_empty() {
        h.plainly("p", |h| {
            h.words("It is asked for on ");
            for (i, resource) in permission.resources.iter().enumerate() {
                h.words(if i > 0 { ", " } else { "" });
                h.code(&template(resource));
            }
            h.words(".");
        });
    }
}

fn holders(h: &mut Html, held: &[Holding<'_>]) {
    if held.is_empty() {
        return h.classed("p", "note", |h| h.words("Nobody."));
    }
    table(h, "Keys, on what, and by what", &["Key", "On what"], held, |h, (document, ability)| {
        let key = key_of(document);
        first(h, |h| {
            h.link(&key_page(&key.key_id, true), |h| h.text(title(key)));
            h.classed("div", "under", |h| {
                if !document.accepted {
                    badge(h, key);
                }
                owner_link(h, owner_of(document), Place::Below);
            });
        });
        cell(h, |h| {
            h.text(&ability.on);
            h.classed("div", "under soft", |h| by(h, ability));
        });
    });
}

/// By what a key has it.
fn by(h: &mut Html, ability: &Ability) {
    match ability.role.as_str() {
        "" => h.words("by a grant of its own"),
        role => h.plainly("span", |h| {
            h.words("by the role ");
            h.link(&role_page(role, true), |h| h.text(role));
        }),
    }
}
