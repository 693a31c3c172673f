//! A role: what it gives, and who holds it.

use crate::document::html::Html;
use crate::document::html::frame::{Place, moment_of_time};
use crate::document::key::section;
use crate::{Ability, KeyDocument, Role};

use super::names::permission_page;
use super::{Site, lists};

impl Site {
    pub(super) fn role(&self, role: &Role) -> String {
        let catalogue = self.catalogue();
        let abilities: Vec<Ability> = catalogue.abilities(&role.grants, "").collect();
        let holders: Vec<&KeyDocument> = self.holders(role).map(|n| &self.keys[n]).collect();
        self.frame(&role.name, Place::Below, |h| {
            h.classed("p", "kicker", |h| {
                h.words(if role.predefined { "Predefined role" } else { "Role" })
            });
            h.plainly("h1", |h| h.text(&role.name));
            h.classed("p", "lead", |h| h.text(&role.description));
            if let Some(retired) = &role.retire_time {
                h.classed("p", "note warn", |h| {
                    h.words("It was retired on ");
                    moment_of_time(h, retired);
                    h.words(": it gives nothing any more.");
                });
            }
            if !role.parameter.is_empty() {
                h.classed("p", "note", |h| {
                    h.words("It is given with a parameter: ");
                    h.code(&role.parameter);
                    h.words(" below stands for it.");
                });
            }
            section(h, "What it gives", "gives", |h| {
                if abilities.is_empty() {
                    return h.classed("p", "note", |h| {
                        h.words("Withheld: whoever asked may not read roles. What it gives its holders stands on their pages.");
                    });
                }
                h.classed("ul", "abilities", |h| abilities.iter().for_each(|a| given(h, a)));
            });
            lists::keys(h, "Who holds it", "holders", &holders, Place::Below);
        })
    }
}

fn given(h: &mut Html, ability: &Ability) {
    h.plainly("li", |h| {
        h.plainly("p", |h| h.text(&ability.sentence));
        h.classed("p", "fine", |h| {
            match ability.permission.contains('*') {
                true => h.code(&ability.permission),
                false => h.link(&permission_page(&ability.permission, true), |h| {
                    h.code(&ability.permission)
                }),
            }
            h.words(" on ");
            h.code(&ability.resource);
        });
    });
}
