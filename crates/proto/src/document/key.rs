//! A key as a page of HTML, by itself or in a site.

use super::html::Html;
use super::html::frame::{Frame, Place, day_of_time, moment_of_time};
use super::site::names::{owner_page, permission_page, role_page};
use super::trace_links::TraceLinks;
use super::words::{count, owner_name};
use super::{traces, usage};
use crate::{Ability, Key, KeyDocument, KeyHistory, KeyHistoryEntry, KeyState, Owner, owner};

/// A page by itself.
pub(super) fn page(document: &KeyDocument, links: Option<&TraceLinks>) -> String {
    let ledger = document.ledger.clone().unwrap_or_default().name;
    let moment = document.moment.clone().unwrap_or_default();
    page_in(document, &ledger, &moment, Place::Alone, links)
}

/// A page at a place, of a ledger and moment that stand in the site.
pub(super) fn page_in(
    document: &KeyDocument,
    ledger: &str,
    moment: &crate::DocumentMoment,
    place: Place,
    links: Option<&TraceLinks>,
) -> String {
    let key = document.key.clone().unwrap_or_default();
    let frame = Frame { title: title(&key), ledger, moment, place };
    frame.around(|h| Page { document, key: &key, place, links }.write(h))
}

/// What a key is called: by what it is for.
pub(super) fn title(key: &Key) -> &str {
    match key.purpose.as_str() {
        "" => "A key whose purpose is not known",
        purpose => purpose,
    }
}

/// The class of a state in the style, and its name.
pub(super) fn state(key: &Key) -> (&'static str, &'static str) {
    match key.state() {
        KeyState::Active => ("active", "Active"),
        KeyState::Suspended => ("suspended", "Suspended"),
        KeyState::Revoked => ("revoked", "Revoked"),
        KeyState::Expired => ("expired", "Expired"),
        KeyState::Unspecified => ("unknown", "Unknown"),
    }
}

/// A state as a badge.
pub(super) fn badge(h: &mut Html, key: &Key) {
    let (class, name) = state(key);
    h.element("span", &[("class", &format!("state {class}"))], |h| h.words(name));
}

/// The name of an owner; a link to their page in a site.
pub(super) fn owner_link(h: &mut Html, owner: Option<&Owner>, place: Place) {
    let name = |h: &mut Html| h.text(owner_name(owner));
    match owner {
        Some(owner) if place != Place::Alone => {
            h.link(&owner_page(owner, place == Place::Below), name);
        }
        _ => name(h),
    }
}

/// Beside the name of somebody who has left.
pub(super) fn left_badge(h: &mut Html, left: Option<&prost_types::Timestamp>) {
    if let Some(left) = left {
        h.words(" ");
        h.classed("span", "state suspended", |h| {
            h.words("left, known since ");
            day_of_time(h, left);
        });
    }
}

struct Page<'a> {
    document: &'a KeyDocument,
    key: &'a Key,
    place: Place,
    links: Option<&'a TraceLinks>,
}

impl Page<'_> {
    fn write(&self, h: &mut Html) {
        h.plainly("article", |h| {
            h.classed("p", "kicker", |h| {
                h.words("Key ");
                h.code(&self.key.key_id);
            });
            h.plainly("h1", |h| h.text(title(self.key)));
            h.classed("p", "lead", |h| {
                badge(h, self.key);
                h.words(" ");
                h.text(&self.document.summary);
            });
            self.facts(h);
            self.abilities(h);
            self.list(h, "Under which conditions", "conditions", &self.document.conditions);
            self.list(h, "How long", "life", &self.document.life);
            self.secrets(h);
            self.usage(h);
            self.traces(h);
            self.history(h);
        });
        h.fixed("\n");
    }

    fn facts(&self, h: &mut Html) {
        let key = self.key;
        h.classed("dl", "facts", |h| {
            fact(h, "Owner", |h| {
                owner_link(h, key.owner.as_ref(), self.place);
                h.words(match key.owner.as_ref().and_then(|o| o.owner.as_ref()) {
                    Some(owner::Owner::User(_)) => " (a person)",
                    Some(owner::Owner::Service(_)) => " (a service)",
                    None => "",
                });
                left_badge(h, key.owner_left_time.as_ref());
            });
            if let Some(owner::Owner::Service(_)) =
                key.owner.as_ref().and_then(|o| o.owner.as_ref())
            {
                fact(h, "Responsible person", |h| {
                    match key.responsible.as_str() {
                        "" => h.words("nobody"),
                        name => h.text(name),
                    }
                    left_badge(h, key.responsible_left_time.as_ref());
                });
            }
            fact(h, "Ends", |h| optional_time(h, key.expire_time.as_ref(), "never by itself"));
            fact(h, "Last used", |h| optional_time(h, key.last_use_time.as_ref(), "never"));
            if !key.labels.is_empty() {
                fact(h, "Labels", |h| {
                    for (i, label) in key.labels.iter().enumerate() {
                        h.words(if i > 0 { ", " } else { "" });
                        h.text(&format!("{}={}", label.name, label.value));
                    }
                });
            }
        });
    }

    fn abilities(&self, h: &mut Html) {
        let (to_give, to_use): (Vec<&Ability>, Vec<&Ability>) =
            self.document.abilities.iter().partition(|a| a.give_only);
        section(h, "What it may do", "may", |h| {
            if !self.document.accepted {
                h.classed("p", "note warn", |h| h.words(
                    "It is not accepted at the moment, so nobody may do anything with it. What stands here is what it would give."));
            }
            if to_use.is_empty() {
                h.classed("p", "note", |h| {
                    h.words("It may do nothing: it has no grants of its own, and no role that gives any to use.");
                });
            }
            self.by_source(h, &to_use);
            for role in self.document.roles.iter().filter(|role| role.retired) {
                h.classed("p", "soft", |h| {
                    h.words("The role ");
                    h.text(&role.name);
                    h.words(" was retired: it gives nothing.");
                });
            }
        });
        if !to_give.is_empty() {
            section(h, "What it may hand on, and not do itself", "give", |h| {
                self.by_source(h, &to_give)
            });
        }
    }

    /// Those of its own grants, then those of each role.
    fn by_source(&self, h: &mut Html, abilities: &[&Ability]) {
        for group in abilities.chunk_by(|a, b| a.role == b.role) {
            let Some(first) = group.first() else { continue };
            h.plainly("h3", |h| match first.role.as_str() {
                "" => h.words("By grants of its own"),
                role => {
                    h.words("By the role ");
                    self.role(h, role);
                }
            });
            let described = self.document.roles.iter().find(|r| r.name == first.role);
            if let Some(role) = described.filter(|role| !role.description.is_empty()) {
                h.classed("p", "soft", |h| h.text(&role.description));
            }
            h.classed("ul", "abilities", |h| {
                group.iter().for_each(|ability| self.ability(h, ability))
            });
        }
    }

    fn role(&self, h: &mut Html, name: &str) {
        match self.place {
            Place::Alone => h.text(name),
            place => h.link(&role_page(name, place == Place::Below), |h| h.text(name)),
        }
    }

    fn ability(&self, h: &mut Html, ability: &Ability) {
        h.plainly("li", |h| {
            h.plainly("p", |h| {
                h.text(&ability.meaning);
                h.words(", on ");
                h.plainly("strong", |h| h.text(&ability.on));
                h.words(".");
            });
            h.classed("p", "fine", |h| {
                self.permission(h, &ability.permission);
                h.words(" on ");
                h.code(&ability.resource);
                if !ability.permissions.is_empty() {
                    h.words(" which stands for ");
                    for (i, name) in ability.permissions.iter().enumerate() {
                        h.words(if i > 0 { ", " } else { "" });
                        self.permission(h, name);
                    }
                }
            });
        });
    }

    fn permission(&self, h: &mut Html, name: &str) {
        match self.place {
            Place::Below if !name.contains('*') => {
                h.link(&permission_page(name, true), |h| h.code(name))
            }
            _ => h.code(name),
        }
    }

    fn list(&self, h: &mut Html, title: &'static str, id: &'static str, lines: &[String]) {
        section(h, title, id, |h| {
            h.classed("ul", "plain", |h| {
                lines.iter().for_each(|line| h.plainly("li", |h| h.text(line)))
            });
        });
    }

    fn secrets(&self, h: &mut Html) {
        section(h, "Its secrets", "secrets", |h| {
            h.classed("ul", "plain", |h| {
                self.document.rotation.iter().for_each(|line| h.plainly("li", |h| h.text(line)));
            });
            if self.key.versions.is_empty() {
                return h.classed("p", "soft", |h| h.words("None is accepted any more."));
            }
            h.plainly("table", |h| {
                h.plainly("caption", |h| {
                    h.words("Secrets that are accepted, each shown once, when it was made")
                });
                head(h, &["No.", "Made", "Accepted until", "Last used"]);
                h.plainly("tbody", |h| {
                    for version in &self.key.versions {
                        h.plainly("tr", |h| {
                            h.element("th", &[("scope", "row")], |h| {
                                h.plain(&version.number.to_string())
                            });
                            cell(h, |h| {
                                optional_time(h, version.create_time.as_ref(), "not known")
                            });
                            cell(h, |h| match version.until_first_use {
                                true => h.words("the newer one is used"),
                                false => {
                                    optional_time(h, version.expire_time.as_ref(), "the key ends")
                                }
                            });
                            cell(h, |h| optional_time(h, version.last_use_time.as_ref(), "never"));
                        });
                    }
                });
            });
        });
    }

    fn usage(&self, h: &mut Html) {
        if let Some(summary) = &self.document.usage {
            section(h, "What it was used for lately", "usage", |h| usage::html(h, summary));
        }
    }

    fn traces(&self, h: &mut Html) {
        if let Some(of_key) = &self.document.traces {
            section(h, "In which traces it was used lately", "traces", |h| {
                traces::html(h, &self.key.key_id, of_key, self.links)
            });
        }
    }

    fn history(&self, h: &mut Html) {
        let none = KeyHistory::default();
        let history = self.document.history.as_ref().unwrap_or(&none);
        section(h, "Who changed it, and why", "history", |h| {
            if history.withheld {
                return h.classed("p", "note", |h| {
                    h.words("Withheld: whoever asked may not read ");
                    h.code("logs/keyledger/lifecycle");
                    h.words(".");
                });
            }
            h.classed("ol", "history", |h| history.entries.iter().for_each(|e| self.change(h, e)));
            if history.older > 0 {
                h.classed("p", "soft", |h| {
                    h.plain(&count(history.older.into(), "older change"));
                    h.words(": see the log.");
                });
            }
        });
    }

    fn change(&self, h: &mut Html, entry: &KeyHistoryEntry) {
        h.plainly("li", |h| {
            h.classed("p", "when", |h| optional_time(h, entry.time.as_ref(), "not known"));
            h.plainly("div", |h| {
                h.plainly("p", |h| h.text(&entry.what));
                if !entry.reason.is_empty() {
                    h.classed("p", "why", |h| {
                        h.words("“");
                        h.text(&entry.reason);
                        h.words("”");
                    });
                }
                h.classed("p", "fine", |h| self.fine(h, entry));
            });
        });
    }

    fn fine(&self, h: &mut Html, entry: &KeyHistoryEntry) {
        match (entry.caller_key_id.as_str(), &entry.caller) {
            ("", _) => h.words("By Keyledger itself"),
            (id, None) => {
                h.words("By the key ");
                h.code(id);
            }
            (id, Some(owner)) => {
                h.words("By ");
                owner_link(h, Some(owner), self.place);
                h.words(" with the key ");
                h.code(id);
            }
        }
        if !entry.approval_ref.is_empty() {
            h.words(" · approved by ");
            h.text(&entry.approval_ref);
        }
        if let Some(span) = &entry.span {
            h.words(" · ");
            traces::html_trace(h, span, self.links);
        }
        h.words(" · entry ");
        h.plain(&entry.position.unwrap_or_default().to_string());
    }
}

/// A part of a page, with its heading.
pub(super) fn section(
    h: &mut Html,
    title: &'static str,
    id: &'static str,
    inside: impl FnOnce(&mut Html),
) {
    let heading = format!("{id}-title");
    h.fixed("\n");
    h.element("section", &[("aria-labelledby", &heading), ("id", id)], |h| {
        h.element("h2", &[("id", &heading)], |h| h.words(title));
        inside(h);
    });
}

fn fact(h: &mut Html, name: &'static str, inside: impl FnOnce(&mut Html)) {
    h.plainly("div", |h| {
        h.plainly("dt", |h| h.words(name));
        h.plainly("dd", inside);
    });
}

/// The heads of the columns of a table.
pub(super) fn head(h: &mut Html, columns: &[&'static str]) {
    h.plainly("thead", |h| {
        h.plainly("tr", |h| {
            for column in columns {
                h.element("th", &[("scope", "col")], |h| h.words(column));
            }
        });
    });
}

pub(super) fn cell(h: &mut Html, inside: impl FnOnce(&mut Html)) {
    h.plainly("td", inside);
}

pub(super) fn optional_time(
    h: &mut Html,
    time: Option<&prost_types::Timestamp>,
    without: &'static str,
) {
    match time {
        Some(time) => moment_of_time(h, time),
        None => h.words(without),
    }
}
