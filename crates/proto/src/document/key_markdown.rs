//! A key as Markdown.

use super::key::{state, title};
use super::markdown::Markdown;
use super::trace_links::TraceLinks;
use super::words::{count, grouped, owner_name, time};
use super::{traces, usage};
use crate::{Ability, KeyDocument, KeyHistoryEntry, KeyVersion, owner};

const RESPONSIBLE: &str = "Responsible person";

pub(super) fn write(document: &KeyDocument, links: Option<&TraceLinks>) -> String {
    let mut markdown = Markdown::default();
    let m = &mut markdown;
    let key = document.key.clone().unwrap_or_default();
    m.heading(1, |m| {
        m.text(title(&key));
    });
    m.paragraph(|m| {
        m.words("**").words(state(&key).1).words(".** ").text(&document.summary);
    });
    facts(m, document);
    abilities(m, document);
    lines(m, "Under which conditions", &document.conditions);
    lines(m, "How long", &document.life);
    lines(m, "Its secrets", &document.rotation);
    m.items(&key.versions, secret);
    if let Some(summary) = &document.usage {
        m.heading(2, |m| {
            m.words("What it was used for lately");
        });
        usage::markdown(m, summary);
    }
    if let Some(of_key) = &document.traces {
        m.heading(2, |m| {
            m.words("In which traces it was used lately");
        });
        traces::markdown(m, &key.key_id, of_key, links);
    }
    history(m, document, links);
    moment(m, document);
    markdown.finish()
}

fn facts(m: &mut Markdown, document: &KeyDocument) {
    let key = document.key.clone().unwrap_or_default();
    let mut facts: Vec<(&'static str, String)> =
        vec![("Key", key.key_id.clone()), ("Owner", owner_name(key.owner.as_ref()).into())];
    if let Some(owner::Owner::Service(_)) = key.owner.as_ref().and_then(|o| o.owner.as_ref()) {
        let nobody = if key.responsible.is_empty() { "nobody" } else { "" };
        facts.push((RESPONSIBLE, format!("{}{nobody}", key.responsible)));
    }
    for label in &key.labels {
        facts.push(("Label", format!("{}={}", label.name, label.value)));
    }
    m.items(facts, |m, (name, value)| {
        m.words("**").words(name).words(":** ").text(&value);
        if (name == "Owner" && key.owner_left_time.is_some())
            || (name == RESPONSIBLE && key.responsible_left_time.is_some())
        {
            m.words(" (has left)");
        }
    });
}

fn lines(m: &mut Markdown, title: &'static str, lines: &[String]) {
    m.heading(2, |m| {
        m.words(title);
    });
    m.items(lines, |m, line| {
        m.text(line);
    });
}

fn abilities(m: &mut Markdown, document: &KeyDocument) {
    let (to_give, to_use): (Vec<&Ability>, Vec<&Ability>) =
        document.abilities.iter().partition(|a| a.give_only);
    m.heading(2, |m| {
        m.words("What it may do");
    });
    if !document.accepted {
        m.paragraph(|m| { m.words(
            "It is not accepted at the moment, so nobody may do anything with it. What stands here is what it would give."); });
    }
    if to_use.is_empty() {
        m.paragraph(|m| { m.words("It may do nothing: it has no grants of its own, and no role that gives any to use."); });
    }
    m.items(to_use, ability);
    for role in document.roles.iter().filter(|role| role.retired) {
        m.paragraph(|m| {
            m.words("The role ").text(&role.name).words(" was retired: it gives nothing.");
        });
    }
    if !to_give.is_empty() {
        m.heading(2, |m| {
            m.words("What it may hand on, and not do itself");
        });
        m.items(to_give, ability);
    }
}

fn ability(m: &mut Markdown, ability: &Ability) {
    m.text(&ability.sentence).words(" (").code(&ability.permission).words(" on ");
    m.code(&ability.resource).words(")");
}

fn secret(m: &mut Markdown, version: &KeyVersion) {
    m.words("Version ").text(&version.number.to_string());
    if let Some(made) = &version.create_time {
        m.words(", made on ").text(&time(made));
    }
    match (&version.expire_time, version.until_first_use) {
        (_, true) => {
            m.words(", accepted until the newer one is used");
        }
        (Some(end), false) => {
            m.words(", accepted until ").text(&time(end));
        }
        (None, false) => {}
    }
    match &version.last_use_time {
        Some(last) => m.words(", last used on ").text(&time(last)),
        None => m.words(", never used"),
    };
}

fn history(m: &mut Markdown, document: &KeyDocument, links: Option<&TraceLinks>) {
    let history = document.history.clone().unwrap_or_default();
    m.heading(2, |m| {
        m.words("Who changed it, and why");
    });
    if history.withheld {
        m.paragraph(|m| {
            m.words("Withheld: whoever asked may not read ")
                .code("logs/keyledger/lifecycle")
                .words(".");
        });
    }
    m.items(&history.entries, |m, entry| change(m, entry, links));
    if history.older > 0 {
        m.paragraph(|m| {
            m.text(&count(history.older.into(), "older change")).words(": see the log.");
        });
    }
}

fn change(m: &mut Markdown, entry: &KeyHistoryEntry, links: Option<&TraceLinks>) {
    if let Some(when) = &entry.time {
        m.text(&time(when)).words(": ");
    }
    m.text(&entry.what);
    match (entry.caller_key_id.as_str(), &entry.caller) {
        ("", _) => {
            m.words(" By Keyledger itself");
        }
        (id, None) => {
            m.words(" By the key ").code(id);
        }
        (id, Some(owner)) => {
            m.words(" By ").text(owner_name(Some(owner))).words(" with the key ").code(id);
        }
    }
    if !entry.reason.is_empty() {
        m.words(": “").text(&entry.reason).words("”");
    }
    if !entry.approval_ref.is_empty() {
        m.words(", approved by ").text(&entry.approval_ref);
    }
    if let Some(span) = &entry.span {
        m.words(", ");
        traces::markdown_trace(m, span, links);
    }
    m.words(" (entry ").text(&entry.position.unwrap_or_default().to_string()).words(")");
}

fn moment(m: &mut Markdown, document: &KeyDocument) {
    let moment = document.moment.clone().unwrap_or_default();
    let ledger = document.ledger.clone().unwrap_or_default();
    m.heading(2, |m| {
        m.words("When this was true");
    });
    m.paragraph(|m| {
        if let Some(when) = &moment.time {
            m.words("As of ").text(&time(when));
        }
        m.words(", in the ledger ").text(&ledger.name).words(" just before position ");
        m.text(&grouped(moment.position.unwrap_or_default()));
        m.words(". This signed checkpoint covers ")
            .text(&grouped(moment.checkpoint_size))
            .words(" entries");
        m.words("; it is verified by ").code(&moment.verifier_key).words(".");
    });
    m.code_block(&moment.checkpoint);
}
