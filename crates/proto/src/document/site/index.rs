//! The first page: how many there are of what, a search, and lists of all that has a page.

use crate::document::html::Html;
use crate::document::html::frame::Place;
use crate::document::key::{cell, left_badge, owner_link, section};
use crate::document::words::{grouped, owner_name};
use crate::{Permission, Role};

use super::lists::{first, table};
use super::names::{permission_page, role_page, without_parameter};
use super::{Holder, Site, key_of, lists, names_permission};

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
            for (n, one, many) in [
                (accepted, "key is accepted", "keys are accepted"),
                (self.keys.len() - accepted, "key is not", "keys are not"),
                (self.owners.len(), "owner", "owners"),
                (self.roles.len(), "role", "roles"),
                (self.permissions.len(), "permission", "permissions"),
            ] {
                h.plainly("li", |h| {
                    h.plainly("strong", |h| h.plain(&grouped(n as u64)));
                    h.words(if n == 1 { one } else { many });
                });
            }
        });
    }

    fn owners_part(&self, h: &mut Html) {
        section(h, "Owners", "owners", |h| {
            let mut owners: Vec<&Holder> = self.owners.values().collect();
            owners.sort_by_key(|holder| owner_name(Some(&holder.owner)).to_lowercase());
            let columns = &["Owner", "Keys", "Accepted"];
            table(h, "Each owner with their keys", columns, &owners, |h, holder| {
                first(h, |h| {
                    owner_link(h, Some(&holder.owner), Place::Index);
                    left_badge(h, holder.left.as_ref());
                });
                cell(h, |h| h.plain(&grouped(holder.keys.len() as u64)));
                let accepted = holder.keys.iter().filter(|n| self.keys[**n].accepted).count();
                cell(h, |h| h.plain(&grouped(accepted as u64)));
            });
        });
    }

    fn roles_part(&self, h: &mut Html) {
        section(h, "Roles", "roles", |h| {
            if self.ledger.roles_withheld {
                withheld(h);
            }
            table(
                h,
                "Each role with its holders",
                &["Role", "For what", "Holders"],
                &self.roles,
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
            let columns = &["Permission", "What it allows", "Keys"];
            table(
                h,
                "How many accepted keys have each; which ones is told on its page",
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
