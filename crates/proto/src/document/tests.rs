//! Tests of whole documents: hostile texts in every place of a key are inert in every rendering.

use prost_types::Timestamp;

use super::site::Site;
use super::*;
use crate::entry::{Grant, Label, Restrictions};
use crate::{
    DocumentMoment, HeldRole, Key, KeyHistory, KeyHistoryEntry, KeyState, KeyTrace, KeyTraces,
    KeyVersion, Ledger, LedgerDocument, Owner, Permission, Role, SpanReference, Usage,
    UsageBreakdown, UsageCount, UsageStep, UsageSummary, owner,
};

const HOSTILE: [&str; 9] = [
    "<script>document.title='owned'</script>",
    "\"><img src=x onerror=alert(1)>",
    "'><svg onload=alert(1)>",
    "[click](javascript:alert(1)) ![x](http://evil.example/x.png) <http://evil.example>",
    "=1+1\t\r\n# heading\n```",
    "ab\u{202e}txt.exe\u{2066}\u{0}\u{1b}[31m\u{200b}",
    "</style></title></script><!--",
    "| a | b |\n|---|---|",
    "javascript:alert(1)",
];

fn hostile(text: &str) -> KeyDocument {
    let time = Some(Timestamp { seconds: 1_795_000_000, nanos: 0 });
    let owner = Some(Owner { owner: Some(owner::Owner::User(text.into())) });
    let grants = vec![Grant {
        permissions: vec!["billing.read".into()],
        resource: text.into(),
        give_only: false,
    }];
    let described = Permission {
        name: "billing.read".into(),
        description: text.into(),
        ..Permission::default()
    };
    let catalogue = words::Catalogue::new([&described]);
    let key = Key {
        key_id: text.into(),
        state: KeyState::Active as i32,
        owner: Some(Owner { owner: Some(owner::Owner::Service(text.into())) }),
        purpose: text.into(),
        responsible: text.into(),
        creator_key_id: text.into(),
        grants: grants.clone(),
        roles: vec![text.into()],
        labels: vec![Label { name: text.into(), value: text.into() }],
        versions: vec![KeyVersion { number: 1, create_time: time, ..KeyVersion::default() }],
        create_time: time,
        restrictions: Some(Restrictions {
            audiences: vec![text.into()],
            ..Restrictions::default()
        }),
        ..Key::default()
    };
    let entry = KeyHistoryEntry {
        position: Some(1),
        time,
        what: text.into(),
        caller_key_id: text.into(),
        caller: owner,
        reason: text.into(),
        approval_ref: text.into(),
        span: Some(SpanReference { trace_id: text.into(), span_id: text.into() }),
        ..KeyHistoryEntry::default()
    };
    let of_use = KeyTrace {
        span: entry.span.clone(),
        time,
        r#type: text.into(),
        key_id: text.into(),
        method: text.into(),
        ..KeyTrace::default()
    };
    let counted = UsageCount { value: text.into(), allowed: 3, refused: 1 };
    let by = Some(UsageBreakdown { counts: vec![counted], ..UsageBreakdown::default() });
    let usage = Usage {
        start_time: time,
        end_time: time,
        allowed: 3,
        refused: 1,
        steps: vec![UsageStep { start_time: time, allowed: 3, refused: 1 }],
        by_permission: by.clone(),
        by_resource: by.clone(),
        by_network: by.clone(),
        by_version: by.clone(),
        by_reason: by,
        ..Usage::default()
    };
    KeyDocument {
        ledger: Some(Ledger { name: text.into(), ..Ledger::default() }),
        summary: words::summary(&key),
        accepted: true,
        abilities: catalogue
            .abilities(&grants, "")
            .chain(catalogue.abilities(&grants, text))
            .collect(),
        roles: vec![HeldRole {
            name: text.into(),
            description: text.into(),
            retired: true,
            predefined: false,
        }],
        conditions: words::conditions(&key),
        life: words::life(&key),
        rotation: words::rotation(&key),
        history: Some(KeyHistory { withheld: false, entries: vec![entry], older: 3 }),
        usage: Some(UsageSummary { withheld: false, usage: Some(usage) }),
        moment: Some(DocumentMoment {
            position: Some(7),
            time,
            checkpoint: text.into(),
            checkpoint_size: 7,
            verifier_key: text.into(),
        }),
        key: Some(key),
        traces: Some(KeyTraces { uses: vec![of_use], ..KeyTraces::default() }),
    }
}

fn site(text: &str) -> Site {
    let document = hostile(text);
    let role = Role {
        name: text.into(),
        description: text.into(),
        parameter: text.into(),
        ..Role::default()
    };
    let permission = Permission {
        name: text.into(),
        description: text.into(),
        resources: vec![text.into()],
        registered_by: text.into(),
    };
    let ledger = LedgerDocument {
        ledger: document.ledger.clone(),
        moment: document.moment.clone(),
        keys: 1,
        roles: vec![role],
        permissions: vec![permission],
        ..LedgerDocument::default()
    };
    Site::new(ledger, vec![document])
}

/// What a browser would take for markup: the names of all tags.
fn tags(html: &str) -> Vec<&str> {
    let opened = html.split('<').skip(1);
    opened
        .map(|rest| rest.split([' ', '>', '\n']).next().unwrap_or("").trim_start_matches('/'))
        .collect()
}

fn check_html(html: &str, scripts: usize) {
    let known = [
        "!doctype",
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "a",
        "header",
        "div",
        "span",
        "nav",
        "ul",
        "ol",
        "li",
        "main",
        "article",
        "section",
        "p",
        "h1",
        "h2",
        "h3",
        "code",
        "bdi",
        "dl",
        "dt",
        "dd",
        "strong",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "time",
        "figure",
        "figcaption",
        "svg",
        "rect",
        "line",
        "text",
        "details",
        "summary",
        "pre",
        "footer",
        "label",
        "input",
        "br",
        "script",
    ];
    for tag in tags(html) {
        assert!(known.contains(&tag), "<{tag}>");
    }
    let count = tags(html).iter().filter(|tag| **tag == "script").count();
    assert_eq!(count, 2 * scripts);
    assert!(!html.contains(" onerror=alert(1)>") && !html.contains("<svg onload"));
    assert!(
        !html.contains("href=\"http")
            && !html.contains(" src=\"")
            && !html.contains("href=\"javascript")
    );
    assert!(html.chars().all(|c| c == '\n' || !keyledger_ledger::text::is_unsafe_in_a_line(c)));
}

/// The places that the links of a page lead to, as paths in the site.
fn links(page: &site::SitePage) -> Vec<String> {
    let folder = page.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let targets =
        page.html.split(" href=\"").skip(1).map(|rest| rest.split(['"', '#']).next().unwrap());
    let path = |target: &str| match (target.strip_prefix("../"), folder) {
        (Some(above), _) => above.to_string(),
        (None, "") => target.to_string(),
        (None, folder) => format!("{folder}/{target}"),
    };
    targets.filter(|target| !target.is_empty()).map(path).collect()
}

#[test]
fn every_link_leads_to_a_page_also_where_roles_are_withheld_and_owners_have_no_key() {
    let mut document = hostile("plain");
    let ended = owner::Owner::User("somebody whose keys have ended".into());
    let change = &mut document.history.as_mut().unwrap().entries[0];
    change.caller = Some(Owner { owner: Some(ended) });
    document.roles.push(HeldRole { name: "log-reader(error)".into(), ..HeldRole::default() });
    let grants = vec![Grant {
        permissions: vec!["x.unregistered".into()],
        resource: "x".into(),
        give_only: false,
    }];
    let roles = vec![Role { name: "unheld".into(), grants, ..Role::default() }];
    for ledger in [
        LedgerDocument { roles_withheld: true, ..LedgerDocument::default() },
        LedgerDocument { roles, ..LedgerDocument::default() },
    ] {
        let site = Site::new(ledger, vec![document.clone()]);
        let pages: Vec<site::SitePage> = site.pages().collect();
        let paths: Vec<&str> = pages.iter().map(|page| page.path.as_str()).collect();
        for page in &pages {
            for link in links(page) {
                assert!(paths.contains(&link.as_str()), "{} links to {link}: {paths:?}", page.path);
            }
        }
        assert!(pages.iter().map(|page| links(page).len()).sum::<usize>() > 20);
    }
}

#[test]
fn a_hostile_text_is_inert_on_every_page() {
    for text in HOSTILE {
        check_html(&write(&hostile(text), DocumentFormat::Html).text, 0);
        let site = site(text);
        let pages: Vec<_> = site.pages().collect();
        assert_eq!(pages.len(), site.size());
        for page in pages {
            check_html(&page.html, usize::from(page.path == "index.html"));
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-.".contains(&b);
            assert!(page.path.bytes().all(plain) && !page.path.contains(".."), "{}", page.path);
        }
    }
}

/// A line without its code spans (CommonMark §6.1): what stands in those is shown as it is.
fn outside_code(line: &str) -> String {
    let (mut outside, mut rest) = (String::new(), line);
    while let Some(at) = rest.find('`') {
        let fence = rest[at..].len() - rest[at..].trim_start_matches('`').len();
        outside.push_str(&rest[..at]);
        if rest[..at].ends_with('\\') {
            outside.push('`');
            rest = &rest[at + 1..];
            continue;
        }
        let inside = &rest[at + fence..];
        let runs = inside.match_indices('`').filter(|(i, _)| !inside[..*i].ends_with('`'));
        let run = |i: usize| inside[i..].len() - inside[i..].trim_start_matches('`').len();
        let end =
            runs.map(|(i, _)| i).find(|i| run(*i) == fence).expect("every code span is closed");
        rest = &inside[end + fence..];
    }
    outside + rest
}

/// A document without its block of code (CommonMark §4.5), which is its last part: only as many backticks end it.
fn outside_block(markdown: &str) -> String {
    let is_fence = |line: &&str| line.len() > 2 && line.bytes().all(|b| b == b'`');
    let fence = markdown.lines().find(is_fence).expect("the checkpoint is in a block");
    let (before, rest) = markdown.split_once(&format!("\n{fence}\n")).unwrap();
    let (inside, after) = rest.split_once(&format!("\n{fence}\n")).expect("the block is closed");
    assert!(!inside.lines().any(|l| l.trim_start().starts_with(fence)), "{inside}");
    assert_eq!(after, "");
    before.into()
}

#[test]
fn a_hostile_text_is_inert_in_markdown() {
    for text in HOSTILE {
        let whole = write(&hostile(text), DocumentFormat::Markdown).text;
        let markdown = outside_block(&whole);
        for line in markdown.lines() {
            let outside = outside_code(line);
            let unescaped = |markup: &str| {
                outside.match_indices(markup).any(|(at, _)| !outside[..at].ends_with('\\'))
            };
            for markup in ["<", "](", "![", "|", "://", "&", "~", "\t"] {
                assert!(!unescaped(markup), "{markup} in {line}");
            }
            // No text begins a line, an item or a heading with what would be markup there.
            let begin = line.strip_prefix("- ").unwrap_or(line).trim_start_matches(' ');
            assert!(!begin.starts_with(['=', '-', '+', '>']), "{line}");
            assert!(!begin.starts_with("```"), "{line}");
        }
        let headings = markdown.lines().filter(|l| l.starts_with('#')).count();
        assert_eq!(headings, 9, "{markdown}");
        assert!(
            whole.chars().all(|c| c == '\n' || !keyledger_ledger::text::is_unsafe_in_a_line(c))
        );
    }
}

#[test]
fn the_json_is_that_of_the_published_message_and_holds_no_unsafe_character() {
    for text in HOSTILE {
        let document = hostile(text);
        let written = write(&document, DocumentFormat::Json);
        assert_eq!(written.media_type, "application/json");
        let read: serde_json::Value = serde_json::from_str(&written.text).unwrap();
        assert_eq!(read["key"]["purpose"], text);
        assert_eq!(read["abilities"][0]["permission"], "billing.read");
        assert!(
            written
                .text
                .chars()
                .all(|c| c == '\n' || !keyledger_ledger::text::is_unsafe_in_a_line(c))
        );
    }
}

#[test]
fn a_key_without_rights_says_that_it_may_do_nothing() {
    let document = KeyDocument { accepted: true, ..KeyDocument::default() };
    for format in [DocumentFormat::Html, DocumentFormat::Markdown] {
        assert!(write(&document, format).text.contains("It may do nothing"));
    }
}

#[test]
fn who_has_left_is_said_to_have_wherever_their_name_leads() {
    let owner = |name: &str| Some(Owner { owner: Some(owner::Owner::User(name.into())) });
    let id = |digit: &str| format!("0198c5a0-0000-8000-8000-00000000000{digit}");
    let page = |digit: &str| format!("keys/{}.html", id(digit));
    let left = Some(Timestamp { seconds: 1_795_000_000, nanos: 0 });
    let key = Key { key_id: id("a"), owner: owner("bob"), ..Key::default() };
    let stayed = Key { key_id: id("b"), owner: owner("ann"), ..Key::default() };
    // Bob is known to have left by a key for which he answers.
    let robot = Owner { owner: Some(owner::Owner::Service("robot".into())) };
    let answers = Key {
        key_id: id("c"),
        owner: Some(robot),
        responsible: "bob".into(),
        responsible_left_time: left,
        ..Key::default()
    };
    for (bobs, of_his) in [(left, 2), (None, 1)] {
        let keys = [Key { owner_left_time: bobs, ..key.clone() }, stayed.clone(), answers.clone()];
        let documents = keys.map(|key| KeyDocument { key: Some(key), ..KeyDocument::default() });
        let site = Site::new(LedgerDocument::default(), documents.to_vec());
        let said = |page: &site::SitePage| page.html.matches("left, known since ").count();
        for one in site.pages() {
            let expected = match one.path.as_str() {
                // In the list of keys, and in that of owners.
                "index.html" => of_his,
                path if path == page("a") => of_his - 1,
                path if path == page("c") => 1,
                path if path.starts_with("owners/") && one.html.contains("<bdi>bob</bdi></h1>") => {
                    assert!(one.html.contains("They have left"), "{}", one.html);
                    of_his - 1
                }
                _ => 0,
            };
            assert_eq!(said(&one), expected, "{}", one.path);
        }
    }
}

#[test]
fn what_is_withheld_is_said_to_be() {
    let document = KeyDocument {
        history: Some(KeyHistory { withheld: true, ..KeyHistory::default() }),
        usage: Some(UsageSummary { withheld: true, ..UsageSummary::default() }),
        ..KeyDocument::default()
    };
    for format in [DocumentFormat::Html, DocumentFormat::Markdown] {
        let text = write(&document, format).text;
        assert!(text.matches("Withheld: whoever asked may not read").count() == 2, "{text}");
    }
}

#[test]
fn traces_are_named_and_become_links_where_it_is_said_where_they_are_shown() {
    let links = TraceLinks::parse("https://t.example/{trace_id}?a=1&span={span_id}").unwrap();
    let (id, span_id) = ("0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7");
    let span = Some(SpanReference { trace_id: id.into(), span_id: span_id.into() });
    let mut document = hostile("plain");
    document.history.as_mut().unwrap().entries[0].span = span.clone();
    document.traces.as_mut().unwrap().uses[0].span = span;
    for (format, link) in [
        (DocumentFormat::Html, format!("href=\"https://t.example/{id}?a=1&amp;span={span_id}\"")),
        (
            DocumentFormat::Markdown,
            format!("[`{id}`](<https://t.example/{id}?a=1&span={span_id}>)"),
        ),
    ] {
        let linked = write_linked(&document, format, Some(&links)).text;
        assert_eq!(linked.matches(&link).count(), 2, "{linked}");
        let plain = write(&document, format).text;
        assert!(plain.contains(id) && !plain.contains("t.example"), "{plain}");
    }
    let site = Site::new(LedgerDocument::default(), vec![document]).with_trace_links(Some(links));
    let of_key = site.pages().find(|page| page.path.starts_with("keys/")).unwrap();
    assert_eq!(of_key.html.matches("href=\"https://t.example/").count(), 2);
}

#[test]
fn what_is_no_trace_is_never_part_of_a_link() {
    let links = TraceLinks::parse("https://t.example/{trace_id}").unwrap();
    for text in HOSTILE {
        for format in [DocumentFormat::Html, DocumentFormat::Markdown] {
            let written = write_linked(&hostile(text), format, Some(&links)).text;
            assert!(!written.contains("t.example"), "{written}");
        }
    }
}
