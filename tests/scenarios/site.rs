//! The site of a ledger in a real browser: what people called things is inert, nothing is loaded, it can be read on any screen,
//! and the search finds. Pictures of its pages lie in `target/site-pictures`.

use std::path::{Path, PathBuf};

use keyledger_proto::entry::{Grant, Label, Restrictions};
use keyledger_proto::*;

use crate::harness::*;

/// What nobody should call anything.
const HOSTILE: [&str; 6] = [
    "<script>document.title='owned';window.owned=1</script>",
    "\"><img src=x onerror=window.owned=1>",
    "'><svg onload=window.owned=1><a href=javascript:owned>",
    "=HYPERLINK(\"http://evil.example\") [x](javascript:window.owned=1)",
    "</title></style></script><iframe src=http://evil.example>",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaftsmitgliedsausweisnummernverzeichnis",
];

fn person(name: &str) -> Option<Owner> {
    Some(Owner { owner: Some(owner::Owner::User(name.into())) })
}

/// A ledger as an organisation has it, with some hostile texts between the honest ones.
async fn fill(admin: &Caller) {
    for (name, description, grants) in [
        (
            "on-call",
            "Looks at what went wrong, at night too.",
            vec![grant_of(&["audit.read"], "logs/error"), grant("audit.read", "logs/security/**")],
        ),
        (
            "billing-clerk",
            "Sees and sends invoices.",
            vec![grant_of(&["billing.read", "billing.send"], "invoices/**")],
        ),
    ] {
        let description = description.into();
        admin.call(CreateRoleRequest { description, ..role(name, grants) }).await.unwrap();
    }
    let mut billing = register("billing", &["billing.read", "billing.send", "billing.void"]);
    for (permission, sentence) in billing.permissions.iter_mut().zip([
        "See invoices and what was paid.",
        "Send an invoice to a customer.",
        HOSTILE[1],
    ]) {
        permission.description = sentence.into();
    }
    admin.call(billing).await.unwrap();
    let with_roles = |roles: &[&str], request: CreateKeyRequest| CreateKeyRequest {
        roles: roles.iter().map(|r| r.to_string()).collect(),
        ..request
    };
    let to_give = Grant { give_only: true, ..grant("audit.write", "logs/billing/**") };
    let limited = Restrictions {
        networks: vec!["198.51.100.0/24".into(), "2001:db8::/32".into()],
        audiences: vec!["invoice-service".into()],
        max_uses: 100_000,
        rate: Some(entry::Rate { uses: 100, window_us: 60_000_000 }),
    };
    let honest = [
        CreateKeyRequest {
            purpose: "Send the invoices of the night".into(),
            responsible: "carol@example.com".into(),
            labels: vec![
                Label { name: "team".into(), value: "billing".into() },
                Label { name: "tier".into(), value: "production".into() },
            ],
            restrictions: Some(limited),
            reason: "Invoices go out by themselves from December on".into(),
            approval_ref: "CHG-4711".into(),
            ..with_roles(
                &["billing-clerk"],
                service_key(
                    "billing/nightly",
                    vec![grant("audit.write", "logs/billing/invoices"), to_give],
                ),
            )
        },
        CreateKeyRequest {
            purpose: "Look into errors while on call".into(),
            ..with_roles(&["on-call"], user_key("alice@example.com"))
        },
        CreateKeyRequest {
            purpose: "Audit of the fourth quarter".into(),
            ..with_roles(&["auditor"], user_key("noor@auditors.example"))
        },
        CreateKeyRequest {
            purpose: "Check the tokens of the gateway".into(),
            ..with_roles(&["verifier"], service_key("gateway", vec![]))
        },
        CreateKeyRequest {
            purpose: "Nothing any more".into(),
            ..service_key("legacy/cron", vec![])
        },
    ];
    let mut made = vec![];
    for request in honest {
        made.push(admin.call(request).await.unwrap());
    }
    let ids: Vec<String> = made.iter().map(|m| m.key.clone().unwrap().key_id).collect();
    for n in 1..=40 {
        let asked = VerifyKeyRequest {
            permission: if n % 7 == 0 { "billing.void" } else { "billing.send" }.into(),
            resource: format!("invoices/2026/{}", n % 5),
            audience: "invoice-service".into(),
            client: Some(Client { address: format!("198.51.100.{n}"), ..Default::default() }),
            ..check(&made[0].token)
        };
        admin.call(asked).await.unwrap();
    }
    admin.call(rotate(&ids[0], 3_600)).await.unwrap();
    admin.call(suspend(&ids[1])).await.unwrap();
    admin.call(resume(&ids[1])).await.unwrap();
    admin.call(suspend(&ids[2])).await.unwrap();
    admin.call(revoke(&ids[4])).await.unwrap();
    // What stands in the clear has texts of its own: sealed ones are looked for in the database at the end.
    for (n, text) in HOSTILE.iter().enumerate() {
        let value = format!("<b onclick=window.owned={n}>\"'</b>");
        let labels = vec![Label { name: "hostile".into(), value }];
        let request = CreateKeyRequest {
            owner: person(text),
            purpose: text.to_string(),
            reason: text.to_string(),
            labels,
            grants: vec![grant("billing.read", &format!("<i>{n}</i>/'><img/*"))],
            ..user_key("")
        };
        let made = admin.call(request).await.unwrap().key.unwrap();
        let reason = text.to_string();
        admin.call(SuspendKeyRequest { reason, ..suspend(&made.key_id) }).await.unwrap();
    }
}

/// The site of a deployment, written by the program that people run.
async fn write_site(d: &Deployment, replica: &Replica, folder: &Path) -> std::process::Output {
    let mut command = d.program();
    command.args(["access", "site"]).arg(folder);
    command.env("KEYLEDGER_ENDPOINT", format!("http://{}", replica.address));
    command.env("KEYLEDGER_TOKEN", &d.tokens.admin);
    command.output().await.expect("the program under test starts")
}

/// All pages, the index first.
fn pages(folder: &Path) -> Vec<PathBuf> {
    let mut all = vec![folder.join("index.html")];
    for part in ["keys", "owners", "roles", "permissions"] {
        let files = std::fs::read_dir(folder.join(part)).unwrap();
        all.extend(files.map(|file| file.unwrap().path()));
    }
    all
}

pub(crate) fn url(page: &Path) -> String {
    format!("file://{}", page.display())
}

/// Where the pictures go: beside what was built.
pub(crate) fn pictures() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let folder = program.ancestors().nth(3).unwrap().join("site-pictures");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The least contrast of any text with what lies behind it (WCAG 2.2, 1.4.3), and whose it is.
pub(crate) const LEAST_CONTRAST: &str = r"(() => {
  const parse = (c) => { const n = c.match(/[\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const light = ([r, g, b]) => { const f = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  let least = [99, ''];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode()); ) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility() || element.closest('.skip, script')) continue;
    let behind = element;
    while (behind && parse(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
    const style = getComputedStyle(element);
    const front = parse(element.closest('svg') ? style.fill : style.color);
    const back = parse(behind ? getComputedStyle(behind).backgroundColor : 'rgb(255,255,255)');
    const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < least[0]) least = [contrast, element.outerHTML.slice(0, 120)];
  }
  return least;
})()";

/// What a screen reader needs: one main part, one first heading, no level left out, names for parts, links, tables and pictures.
pub(crate) const MISSING_FOR_READERS: &str = r"(() => {
  const missing = [];
  const all = (selector) => [...document.querySelectorAll(selector)];
  const one = (selector) => { if (all(selector).length !== 1) missing.push('one ' + selector); };
  ['main', 'h1', 'body > header', 'body > footer', 'title'].forEach(one);
  if (document.documentElement.lang !== 'en') missing.push('lang');
  let level = 1;
  for (const heading of all('h1, h2, h3, h4')) {
    const next = Number(heading.tagName[1]);
    if (next > level + 1) missing.push('a heading before ' + heading.textContent);
    level = next;
  }
  for (const section of all('section')) {
    if (!document.getElementById(section.getAttribute('aria-labelledby'))) missing.push('name of a section');
  }
  for (const table of all('table')) {
    if (!table.caption || !table.querySelector('thead th[scope=col]')) missing.push('caption or heads of a table');
    if (table.querySelector('tbody tr:not(:has(th[scope=row]))')) missing.push('head of a row');
  }
  all('a').filter((a) => !a.textContent.trim()).forEach(() => missing.push('text of a link'));
  all('svg').filter((s) => !s.getAttribute('aria-label')).forEach(() => missing.push('words of a picture'));
  all('input').filter((i) => !i.labels.length).forEach(() => missing.push('label of a field'));
  const ids = all('[id]').map((e) => e.id);
  if (new Set(ids).size !== ids.length) missing.push('an id of its own');
  return missing;
})()";

#[test]
fn the_site_of_a_ledger_is_inert_complete_and_readable_in_a_real_browser() {
    scenario(async |d| {
        let replica = d.replica().await;
        fill(&replica.admin()).await;
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("site");
        let written = write_site(d, &replica, &folder).await;
        assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
        let mut browser = Browser::start().await;
        for page in pages(&folder) {
            browser.look(360, false).await;
            browser.open(&url(&page)).await;
            let place = page.strip_prefix(&folder).unwrap().display().to_string();
            // No text became markup, and none ran.
            assert_eq!(browser.value("window.owned === undefined").await, true, "{place}");
            let title = browser.value("document.title").await;
            assert!(title.as_str().unwrap().ends_with(" · default"), "{place}: {title}");
            let strange = "document.querySelectorAll('img, iframe, svg[onload], a[href^=javascript], a[href^=http]').length";
            assert_eq!(browser.value(strange).await, 0, "{place}");
            assert_eq!(browser.complaints(), Vec::<String>::new(), "{place}");
            // It asked for itself alone.
            assert_eq!(browser.requests(), [url(&page)], "{place}");
            // All of it is on the screen, and can be read.
            let beyond =
                "document.documentElement.scrollWidth - document.documentElement.clientWidth";
            assert_eq!(browser.value(beyond).await, 0, "{place} is wider than a phone");
            assert_eq!(browser.value(MISSING_FOR_READERS).await, serde_json::json!([]), "{place}");
            for dark in [false, true] {
                browser.look(1_280, dark).await;
                let least = browser.value(LEAST_CONTRAST).await;
                assert!(least[0].as_f64().unwrap() >= 4.5, "{place}, dark: {dark}: {least}");
            }
        }
        check_links(&mut browser, &folder).await;
        check_search(&mut browser, &folder).await;
        take_pictures(&mut browser, &folder).await;
        browser.close().await;
    });
}

/// Each link leads to a page of the site, and each page is found from the index.
async fn check_links(browser: &mut Browser, folder: &Path) {
    let mut found = std::collections::BTreeSet::new();
    let mut todo = vec![folder.join("index.html")];
    while let Some(page) = todo.pop() {
        if !found.insert(page.clone()) {
            continue;
        }
        browser.open(&url(&page)).await;
        let links = browser.value("[...document.links].map((a) => a.href.split('#')[0])").await;
        for link in links.as_array().unwrap() {
            let target = PathBuf::from(link.as_str().unwrap().strip_prefix("file://").unwrap());
            assert!(target.is_file(), "{} links to {link}", page.display());
            todo.push(target);
        }
    }
    let all: std::collections::BTreeSet<PathBuf> = pages(folder).into_iter().collect();
    assert_eq!(found, all);
}

async fn check_search(browser: &mut Browser, folder: &Path) {
    let index = url(&folder.join("index.html"));
    let shown = "[...document.querySelectorAll('tbody tr')].filter((r) => r.checkVisibility()).map((r) => r.textContent).join('|')";
    let told = "document.getElementById('found').textContent";
    browser.open(&index).await;
    let all = browser.value("document.querySelectorAll('tbody tr').length").await;
    let type_in = "(() => { const f = document.getElementById('query'); f.value = 'ALICE call'; f.dispatchEvent(new Event('input')); })()";
    browser.value(type_in).await;
    let found = browser.value(shown).await;
    let found = found.as_str().unwrap();
    assert!(found.contains("Look into errors while on call") && !found.contains('|'), "{found}");
    assert_eq!(browser.value(told).await, "1 line found");
    // A search can be linked to, and what is typed is no markup either.
    browser.open(&format!("{index}?q=%3Cscript%3E")).await;
    assert!(browser.value(shown).await.as_str().unwrap().contains("<script>document.title"));
    assert_eq!(browser.value("window.owned === undefined").await, true);
    browser.open(&format!("{index}?q=nothing+is+called+so")).await;
    assert_eq!(browser.value(told).await, "nothing found");
    // Without scripts all is there but the search.
    browser.let_scripts_run(false).await;
    browser.open(&index).await;
    assert_eq!(browser.value("document.getElementById('search').checkVisibility()").await, false);
    assert_eq!(browser.value(&format!("{shown}.split('|').length")).await, all);
    browser.let_scripts_run(true).await;
}

/// For people to look at: the pages that matter, narrow and wide, light and dark.
async fn take_pictures(browser: &mut Browser, folder: &Path) {
    browser.open(&url(&folder.join("index.html"))).await;
    let linked = async |browser: &mut Browser, text: &str| {
        let found =
            format!("[...document.links].find((a) => a.textContent.includes({text:?})).href");
        browser.value(&found).await.as_str().unwrap().to_string()
    };
    let mut wanted = vec![("index", url(&folder.join("index.html")))];
    for (name, text) in [
        ("key", "Send the invoices"),
        ("hostile", "onerror"),
        ("owner", "billing/nightly"),
        ("role", "billing-clerk"),
        ("permission", "audit.read"),
    ] {
        wanted.push((name, linked(browser, text).await));
    }
    let pictures = pictures();
    for (name, url) in wanted {
        for (width, dark) in [(360, false), (360, true), (1_280, false), (1_280, true)] {
            browser.look(width, dark).await;
            browser.open(&url).await;
            let scheme = if dark { "dark" } else { "light" };
            browser.picture(&pictures.join(format!("{name}-{width}-{scheme}.png"))).await;
        }
    }
}

#[test]
fn a_folder_that_is_no_site_is_left_alone_and_a_site_is_replaced() {
    scenario(async |d| {
        let replica = d.replica().await;
        let parent = tempfile::tempdir().unwrap();
        let thesis = parent.path().join("thesis");
        std::fs::create_dir(&thesis).unwrap();
        std::fs::write(thesis.join("chapter"), "one").unwrap();
        let refused = write_site(d, &replica, &thesis).await;
        assert_eq!(refused.status.code(), Some(1));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains("holds something else than a site of ours"), "{said}");
        assert_eq!(std::fs::read_dir(&thesis).unwrap().count(), 1);
        let site = parent.path().join("site");
        assert!(write_site(d, &replica, &site).await.status.success());
        let before = pages(&site).len();
        replica.admin().call(user_key("alice@example.com")).await.unwrap();
        assert!(write_site(d, &replica, &site).await.status.success());
        assert_eq!(pages(&site).len(), before + 2, "a key and its owner");
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 2, "nothing is left beside");
    });
}
