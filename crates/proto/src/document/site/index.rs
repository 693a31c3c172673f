//! The first page: how many there are of what, a search, and lists of all that has a page.

use crate::document::html::Html;
use crate::document::html::frame::Place;
use crate::document::key::{cell, owner_link, section};
use crate::document::words::grouped;
use crate::{Permission, Role};

use super::lists::{first, table};
use super::names::{permission_page, role_page, without_parameter};
use super::{Site, key_of, lists, names_permission, owner_of};

impl Site {
    pub(super) fn index(&self) -> String {
        self.frame("Who may do what", Place::Index, |h| {
            h.classed("p", "kicker", |h| {
                h.words("Ledger ");
                h.text(&self.name);
            });
            h.plainly("h1", |h| h.words("Who may do what"));
            self.figures(h);
            search(h);
            if self.ledger.left_out > 0 {
                h.classed("p", "note", |h| {
                    h.plain(&grouped(self.ledger.left_out));
                    h.words(
                        " more keys have ended, and are left out: only live ones were asked for.",
                    );
                });
            }
            listed(h, |h| {
                let documents: Vec<_> = self.keys.iter().collect();
                lists::keys(h, "Keys", "keys", &documents, Place::Index);
            });
            listed(h, |h| self.owners_part(h));
            listed(h, |h| self.roles_part(h));
            listed(h, |h| self.permissions_part(h));
        })
    }

    fn figures(&self, h: &mut Html) {
        let accepted = self.keys.iter().filter(|d| d.accepted).count();
        h.classed("ul", "figures", |h| {
            for (n, what) in [
                (accepted, "keys are accepted"),
                (self.keys.len() - accepted, "are not"),
                (self.owners.len(), "owners"),
                (self.ledger.roles.len(), "roles"),
                (self.permissions.len(), "permissions"),
            ] {
                h.plainly("li", |h| {
                    h.plainly("strong", |h| h.plain(&grouped(n as u64)));
                    h.words(what);
                });
            }
        });
    }

    fn owners_part(&self, h: &mut Html) {
        section(h, "Owners", "owners", |h| {
            let owners: Vec<&Vec<usize>> = self.owners.values().collect();
            table(
                h,
                "Each owner with their keys",
                &["Owner", "Keys", "Accepted"],
                &owners,
                |h, numbers| {
                    let document = &self.keys[numbers[0]];
                    first(h, |h| owner_link(h, owner_of(document), Place::Index));
                    cell(h, |h| h.plain(&grouped(numbers.len() as u64)));
                    let accepted = numbers.iter().filter(|n| self.keys[**n].accepted).count();
                    cell(h, |h| h.plain(&grouped(accepted as u64)));
                },
            );
        });
    }

    fn roles_part(&self, h: &mut Html) {
        section(h, "Roles", "roles", |h| {
            if self.ledger.roles_withheld {
                return withheld(h);
            }
            table(
                h,
                "Each role with its holders",
                &["Role", "For what", "Holders"],
                &self.ledger.roles,
                |h, role| {
                    first(h, |h| h.link(&role_page(&role.name, false), |h| h.text(&role.name)));
                    cell(h, |h| h.text(&role.description));
                    cell(h, |h| h.plain(&grouped(self.holders(role).count() as u64)));
                },
            );
        });
    }

    /// The keys that hold a role, by their numbers.
    pub(super) fn holders(&self, role: &Role) -> impl Iterator<Item = usize> {
        let held = |name: &String| {
            *name == role.name || (role.predefined && without_parameter(name) == role.name)
        };
        let holds = move |n: &usize| key_of(&self.keys[*n]).roles.iter().any(held);
        (0..self.keys.len()).filter(holds)
    }

    fn permissions_part(&self, h: &mut Html) {
        section(h, "Permissions", "permissions", |h| {
            if self.ledger.roles_withheld {
                withheld(h);
            }
            let columns = &["Permission", "What it allows", "Accepted keys"];
            table(
                h,
                "Who may do each is told on its page",
                columns,
                &self.permissions,
                |h, permission| {
                    first(h, |h| {
                        h.link(&permission_page(&permission.name, false), |h| {
                            h.code(&permission.name)
                        })
                    });
                    cell(h, |h| h.text(&permission.description));
                    cell(h, |h| h.plain(&grouped(self.able(permission))));
                },
            );
        });
    }

    /// How many accepted keys may use a permission on something.
    fn able(&self, permission: &Permission) -> u64 {
        let able = self.keys.iter().filter(|document| {
            document.accepted
                && document
                    .abilities
                    .iter()
                    .any(|a| !a.give_only && names_permission(a, &permission.name))
        });
        able.count() as u64
    }
}

fn withheld(h: &mut Html) {
    h.classed("p", "note", |h| {
        h.words("Withheld: whoever asked may not read roles and registered permissions (");
        h.code("roles.read");
        h.words(" on ");
        h.code("roles");
        h.words(").");
    });
}

/// A part whose lines the search filters.
fn listed(h: &mut Html, inside: impl FnOnce(&mut Html)) {
    h.element("div", &[("data-list", "")], inside);
}

/// Without a script it isn't shown: the lists are all there.
fn search(h: &mut Html) {
    h.fixed(
        "\n<div class=\"search\" id=\"search\" role=\"search\" hidden><label for=\"query\">Search</label>\
         <input id=\"query\" type=\"search\" autocomplete=\"off\" spellcheck=\"false\" aria-describedby=\"found\">\
         <p class=\"soft\" id=\"found\" role=\"status\"></p></div>",
    );
}
