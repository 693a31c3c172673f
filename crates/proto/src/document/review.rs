//! The page of an access review, for people: what stands out first, then who held what, what was changed, and who signed.

use std::collections::HashMap;

use super::html::Html;
use super::html::frame::{Frame, Place, moment_of_time};
use super::key::{badge, cell, head, optional_time, section, title};
use super::words::{grouped, owner_in_full};
use crate::review::{Report, Signatures, given, grants, hex, lives, who_called};
use crate::{
    DocumentMoment, Finding, Key, ReviewChange, ReviewException, ReviewHolding, ReviewRole,
    ReviewRoleGrants, ReviewSignOff,
};

/// The whole page: one file without outside assets. `digest` is that of the report as JSON; `moment` says which checkpoint covers
/// what is told.
pub fn page(report: &Report, digest: &[u8; 32], moment: &DocumentMoment) -> String {
    let ledger = report.summary.ledger.as_ref().map_or("", |l| l.name.as_str());
    let frame = Frame { title: "Access review", ledger, moment, place: Place::Alone };
    frame.around(|h| {
        h.plainly("article", |h| {
            h.classed("p", "kicker", |h| h.words("Access review"));
            h.plainly("h1", |h| period(h, report));
            figures(h, report);
            signed(h, report, digest);
            exceptions(h, report);
            unused(h, &report.unused);
            holdings(h, &report.holdings);
            roles(h, &report.roles);
            changes(h, &report.changes);
            sign_offs(h, &report.signatures());
        });
        h.fixed("\n");
    })
}

fn period(h: &mut Html, report: &Report) {
    h.words("Who held what from ");
    optional_time(h, report.summary.from_time.as_ref(), "the start");
    h.words(" to ");
    optional_time(h, report.summary.to_time.as_ref(), "now");
}

fn figures(h: &mut Html, report: &Report) {
    h.classed("ul", "figures", |h| {
        let signatures = report.signatures();
        let figures: [(usize, &'static str); 6] = [
            (report.exceptions.len(), "to look at"),
            (report.unused.len(), "unused"),
            (report.holdings.len(), "keys"),
            (report.changes.len(), "changes"),
            (signatures.approved.len(), "approved so far"),
            (signatures.rejected.len(), "rejected so far"),
        ];
        for (number, what) in figures {
            h.plainly("li", |h| {
                h.plainly("strong", |h| h.plain(&grouped(number as u64)));
                h.words(what);
            });
        }
    });
}

/// What a reviewer signs.
fn signed(h: &mut Html, report: &Report, digest: &[u8; 32]) {
    h.classed("p", "note", |h| {
        if !report.summary.key_id.is_empty() {
            h.words("Only the key ");
            h.code(&report.summary.key_id);
            h.words(" was looked at. ");
        }
        h.words("Signed is the same report as JSON, by its SHA-256: ");
        h.code(&hex(digest));
    });
}

fn table(
    h: &mut Html,
    caption: &'static str,
    lines: usize,
    columns: &[&'static str],
    body: impl FnOnce(&mut Html),
) {
    if lines == 0 {
        return h.classed("p", "note", |h| h.words("None."));
    }
    h.plainly("table", |h| {
        h.plainly("caption", |h| h.words(caption));
        head(h, columns);
        h.plainly("tbody", body);
    });
}

/// What a line is about.
fn row_head(h: &mut Html, inside: impl FnOnce(&mut Html)) {
    h.element("th", &[("scope", "row")], inside);
}

fn row(h: &mut Html, inside: impl FnOnce(&mut Html)) {
    h.fixed("\n");
    h.plainly("tr", inside);
}

fn exceptions(h: &mut Html, report: &Report) {
    let keys: HashMap<&str, &Key> = report
        .holdings
        .iter()
        .filter_map(|holding| holding.at_end.as_ref())
        .map(|key| (key.key_id.as_str(), key))
        .collect();
    section(h, "What to look at", "exceptions", |h| {
        if report.exceptions.is_empty() {
            return h.classed("p", "note", |h| h.words("None."));
        }
        h.classed("ul", "plain history", |h| {
            for exception in &report.exceptions {
                exceptional(h, exception, keys.get(exception.key_id.as_str()).copied());
            }
        });
    });
}

fn exceptional(h: &mut Html, exception: &ReviewException, key: Option<&Key>) {
    h.fixed("\n");
    h.plainly("li", |h| {
        h.classed("p", "when", |h| match key {
            Some(key) => h.text(&owner_in_full(key.owner.as_ref())),
            None => h.words("Change"),
        });
        h.plainly("div", |h| {
            h.plainly("p", |h| h.text(&exception.sentence));
            if let Some(key) = key {
                h.plainly("p", |h| h.text(title(key)));
            }
            h.classed("p", "fine", |h| {
                if !exception.key_id.is_empty() {
                    h.words("Key ");
                    h.code(&exception.key_id);
                }
                if exception.position.is_some() {
                    h.words(" · entry ");
                    entry(h, exception.position);
                }
            });
        });
    });
}

fn entry(h: &mut Html, position: Option<u64>) {
    if let Some(position) = position {
        h.plain(&position.to_string());
    }
}

fn unused(h: &mut Html, findings: &[Finding]) {
    section(h, "Rights that are not used", "unused", |h| {
        table(h, "As far as uses are known", findings.len(), &["What", "Owner", "Key"], |h| {
            for finding in findings {
                row(h, |h| {
                    row_head(h, |h| h.text(&finding.sentence));
                    cell(h, |h| h.text(&owner_in_full(finding.owner.as_ref())));
                    cell(h, |h| h.code(&finding.key_id));
                });
            }
        });
    });
}

/// A list, not a table: what a key holds at both ends has no room beside each other on a phone.
fn holdings(h: &mut Html, holdings: &[ReviewHolding]) {
    section(h, "Who held what", "holdings", |h| {
        if holdings.is_empty() {
            return h.classed("p", "note", |h| h.words("Nobody held anything."));
        }
        h.classed("ul", "history", |h| holdings.iter().for_each(|one| holding(h, one)));
    });
}

fn holding(h: &mut Html, holding: &ReviewHolding) {
    let none = Key::default();
    let end = holding.at_end.as_ref().unwrap_or(&none);
    h.fixed("\n");
    h.plainly("li", |h| {
        h.classed("p", "when", |h| {
            h.text(&owner_in_full(end.owner.as_ref()));
            if !end.responsible.is_empty() {
                h.words("; responsible: ");
                h.text(&end.responsible);
            }
        });
        h.plainly("div", |h| {
            h.plainly("p", |h| h.text(title(end)));
            h.plainly("p", |h| {
                h.words("At the start: ");
                match &holding.at_start {
                    Some(key) => held(h, key),
                    None => h.words("the key did not exist yet."),
                }
            });
            h.plainly("p", |h| {
                h.words("At the end: ");
                held(h, end);
            });
            if !holding.roles_changed.is_empty() {
                h.plainly("p", |h| {
                    h.words("Roles that give something else at the end than at the start: ");
                    h.text(&holding.roles_changed.join(", "));
                    h.words(". See what roles gave.");
                });
            }
            h.classed("p", "fine", |h| {
                h.words("Key ");
                h.code(&end.key_id);
                if lives(end) {
                    h.words(" · ends ");
                    optional_time(h, end.expire_time.as_ref(), "never");
                }
                if let Some(time) = &holding.come_time {
                    h.words(" · came ");
                    moment_of_time(h, time);
                }
                if let Some(time) = &holding.go_time {
                    h.words(" · went ");
                    moment_of_time(h, time);
                }
            });
        });
    });
}

/// What a key could do at a moment, and whether it was accepted.
fn held(h: &mut Html, key: &Key) {
    badge(h, key);
    if !lives(key) {
        return;
    }
    h.words(" ");
    if !key.roles.is_empty() {
        h.words("Roles: ");
        h.text(&key.roles.join(", "));
        h.words(". ");
    }
    match key.grants.as_slice() {
        [] if key.roles.is_empty() => h.words("May do nothing."),
        [] => {}
        own => h.text(&grants(own)),
    }
}

/// What each role gave at both ends, once for all who hold it.
fn roles(h: &mut Html, roles: &[ReviewRole]) {
    section(h, "What roles gave", "roles", |h| {
        if roles.is_empty() {
            return h.classed("p", "note", |h| h.words("No key held a role."));
        }
        h.classed("ul", "history", |h| roles.iter().for_each(|one| role(h, one)));
    });
}

fn role(h: &mut Html, role: &ReviewRole) {
    h.fixed("\n");
    h.plainly("li", |h| {
        h.classed("p", "when", |h| h.text(&role.name));
        h.plainly("div", |h| {
            if role.at_start == role.at_end {
                return h.plainly("p", |h| {
                    h.words("The same at both ends: ");
                    gives(h, role.at_end.as_ref());
                });
            }
            h.plainly("p", |h| {
                h.words("At the start: ");
                gives(h, role.at_start.as_ref());
            });
            h.plainly("p", |h| {
                h.words("At the end: ");
                gives(h, role.at_end.as_ref());
            });
        });
    });
}

fn gives(h: &mut Html, role: Option<&ReviewRoleGrants>) {
    match role {
        None => h.words("the role did not exist yet."),
        Some(role) if role.retire_time.is_some() => h.words("nothing: it was retired."),
        Some(role) if role.grants.is_empty() => h.words("nothing."),
        Some(role) => h.text(&grants(&role.grants)),
    }
}

fn changes(h: &mut Html, changes: &[ReviewChange]) {
    section(h, "What was changed", "changes", |h| {
        if changes.is_empty() {
            return h.classed("p", "note", |h| h.words("Nothing."));
        }
        h.classed("ul", "history", |h| changes.iter().for_each(|change| line(h, change)));
    });
}

fn line(h: &mut Html, change: &ReviewChange) {
    h.fixed("\n");
    h.plainly("li", |h| {
        h.classed("p", "when", |h| optional_time(h, change.time.as_ref(), "not known"));
        h.plainly("div", |h| {
            h.plainly("p", |h| {
                h.code(&change.r#type);
                if !change.subject.is_empty() {
                    h.words(" ");
                    h.text(&change.subject);
                }
                if !change.key_id.is_empty() {
                    h.words(" of the key ");
                    h.code(&change.key_id);
                }
                if !change.changed.is_empty() {
                    h.words(": ");
                    h.text(&change.changed.join(", "));
                }
            });
            if !change.sentence.is_empty() {
                h.plainly("p", |h| h.text(&change.sentence));
            }
            for text in given(change) {
                h.plainly("p", |h| h.text(&text));
            }
            reason(h, &change.reason);
            h.classed("p", "fine", |h| fine(h, change));
        });
    });
}

fn reason(h: &mut Html, text: &str) {
    if !text.is_empty() {
        h.classed("p", "why", |h| {
            h.words("“");
            h.text(text);
            h.words("”");
        });
    }
}

fn fine(h: &mut Html, change: &ReviewChange) {
    h.words("By ");
    h.text(&who_called(change));
    if !change.caller_key_id.is_empty() {
        h.words(" with the key ");
        h.code(&change.caller_key_id);
    }
    if !change.approval_ref.is_empty() {
        h.words(" · approved by ");
        h.text(&change.approval_ref);
    }
    h.words(" · entry ");
    entry(h, change.position);
}

fn sign_offs(h: &mut Html, signatures: &Signatures) {
    section(h, "Who signed", "sign-offs", |h| {
        h.classed("p", "fine", |h| {
            h.words("A signature is of the file whose SHA-256 it names. This report is signed after it was written.");
        });
        let lists = [
            ("Approved, of this period", &signatures.approved),
            ("Rejected, of this period", &signatures.rejected),
            ("Of other periods or keys", &signatures.others),
        ];
        for (name, list) in lists.iter().filter(|(_, list)| !list.is_empty()) {
            h.plainly("h3", |h| h.words(name));
            h.classed("ul", "history", |h| list.iter().for_each(|s| sign_off(h, s)));
        }
        if signatures.approved.is_empty() && signatures.rejected.is_empty() {
            h.classed("p", "note", |h| h.words("Nobody signed a report of this period so far."));
        }
    });
}

fn sign_off(h: &mut Html, sign_off: &ReviewSignOff) {
    h.fixed("\n");
    h.plainly("li", |h| {
        h.classed("p", "when", |h| optional_time(h, sign_off.time.as_ref(), "not known"));
        h.plainly("div", |h| {
            h.plainly("p", |h| {
                h.text(&owner_in_full(sign_off.signer.as_ref()));
                h.words(if sign_off.approved { " approved" } else { " did not approve" });
                h.words(" what was from ");
                optional_time(h, sign_off.from_time.as_ref(), "the start");
                h.words(" to ");
                optional_time(h, sign_off.to_time.as_ref(), "then");
                if !sign_off.key_id.is_empty() {
                    h.words(", of the key ");
                    h.code(&sign_off.key_id);
                }
            });
            reason(h, &sign_off.reason);
            h.classed("p", "fine", |h| {
                h.words("Report ");
                h.code(&hex(&sign_off.report_sha256));
                h.words(" · entry ");
                entry(h, sign_off.position);
            });
        });
    });
}
