//! The audit log of Linux: lines of one `msg=audit(time:serial)` are one event.

use std::collections::BTreeMap;

use keyledger_proto::entry::Outcome;

use super::facts::{Facts, Unmapped, Who};
use super::record::moment;

/// What the kernel writes for "nobody logged in".
const UNSET: &str = "4294967295";
/// The line that says most about an event, first.
const TELLING: [&str; 6] = ["AVC", "USER_CMD", "EXECVE", "SYSCALL", "SECCOMP", "CONFIG_CHANGE"];

/// The id of a line's event: its host, if the line names it, then `time:serial`.
pub(super) fn event_of(line: &str) -> Option<String> {
    let (before, rest) = line.split_once("msg=audit(")?;
    let (stamp, _) = rest.split_once(')')?;
    stamp.split_once(':')?;
    let node = before.split_once("node=").and_then(|(_, node)| node.split_whitespace().next());
    Some(format!("{}{stamp}", node.map(|node| format!("{node}/")).unwrap_or_default()))
}

/// One line: its type, and its fields.
struct Line {
    kind: String,
    fields: BTreeMap<String, String>,
}

pub(super) fn map(lines: &str) -> Result<Facts, Unmapped> {
    let id = event_of(lines);
    let stamp = id.as_deref().and_then(|id| id.rsplit('/').next()?.split(':').next());
    let time = stamp.map(moment).transpose()?;
    let lines: Vec<Line> = lines.lines().map(parse).collect::<Result<_, _>>()?;
    let telling = TELLING.iter().find_map(|kind| lines.iter().find(|line| line.kind == *kind));
    let main = telling.or(lines.first()).ok_or("it has no line")?;
    let find = |names: &[&str]| {
        names.iter().find_map(|name| {
            main.get(name).or_else(|| lines.iter().find_map(|line| line.get(name)))
        })
    };
    let person = find(&["acct", "AUID", "op_user"]).filter(|name| name != "unset");
    let program = find(&["exe", "comm"]);
    let command = find(&["cmd"]).and_then(|cmd| cmd.split(' ').next().map(Into::into));
    Ok(Facts {
        id,
        who: Some(who(
            find(&["AUID"]),
            find(&["AUID_NEW", "auid"]),
            person.clone(),
            main,
            program.as_deref(),
        )),
        action: action(main, &lines),
        resource: resource(&lines).or(find(&["unit"])).or(program).or(command).unwrap_or_default(),
        target: find(&["acct", "id"]),
        outcome: outcome(find(&["apparmor", "seresult"]), find(&["success", "res", "result"])),
        reason: find(&["cmd", "op", "operation", "proctitle"]),
        time,
        address: find(&["addr"]),
        device: find(&["node", "hostname"]),
        details: vec![
            ("type", Some(main.kind.clone())),
            ("key", find(&["key"])),
            ("session", find(&["ses"]).filter(|session| session != UNSET)),
        ],
        ..Facts::default()
    })
}

/// Whoever logged in; else the account that is spoken of where someone logs in; else the program.
fn who(
    name: Option<String>,
    login: Option<String>,
    account: Option<String>,
    main: &Line,
    program: Option<&str>,
) -> Who {
    let login = login.filter(|id| id != UNSET && id != "-1" && id != "unset");
    let logs_in = main.kind.starts_with("USER_") || main.kind.starts_with("CRED_");
    match (name.filter(|n| n != "unset"), login, account.filter(|_| logs_in)) {
        (Some(name), _, _) => Who::Person(name),
        (None, Some(id), _) => Who::Person(format!("uid {id}")),
        (None, None, Some(account)) => Who::Person(account),
        (None, None, None) => {
            let name = program.and_then(|path| path.split([' ', '\0']).next());
            let name = name.and_then(|path| path.rsplit('/').next()).filter(|n| !n.is_empty());
            Who::Service(name.unwrap_or("kernel").into())
        }
    }
}

/// `user_login`; of a call of the kernel also which one.
fn action(main: &Line, lines: &[Line]) -> String {
    let call = lines.iter().find(|line| line.kind == "SYSCALL");
    let number = call.and_then(|line| line.get("SYSCALL").or_else(|| line.get("syscall")));
    match (main.kind.as_str(), number) {
        ("EXECVE", _) => "auditd.execve".into(),
        ("SYSCALL", Some(number)) => format!("auditd.syscall.{number}"),
        (kind, _) => format!("auditd.{}", kind.to_lowercase()),
    }
}

/// The file that a call was about.
fn resource(lines: &[Line]) -> Option<String> {
    let paths = || lines.iter().filter(|line| line.kind == "PATH");
    let made = paths().rfind(|line| line.get("nametype").is_some_and(|kind| kind != "PARENT"));
    made.or(paths().next()).and_then(|line| line.get("name"))
}

fn outcome(verdict: Option<String>, result: Option<String>) -> Outcome {
    match (verdict.as_deref(), result.as_deref()) {
        (Some("DENIED" | "denied"), _) => Outcome::Denied,
        (_, Some("yes" | "success" | "1")) => Outcome::Success,
        (_, Some("no" | "failed" | "failure" | "0")) => Outcome::Failure,
        (Some("ALLOWED" | "granted"), _) => Outcome::Success,
        _ => Outcome::Unspecified,
    }
}

impl Line {
    /// A value that says something.
    fn get(&self, name: &str) -> Option<String> {
        self.fields
            .get(name)
            .filter(|v| !["", "?", "(null)", "(none)"].contains(&v.as_str()))
            .cloned()
    }
}

fn parse(line: &str) -> Result<Line, Unmapped> {
    let start = line.find("type=").ok_or("a line has no type")?;
    let rest = &line[start + "type=".len()..];
    let kind = rest.split_whitespace().next().unwrap_or_default().to_string();
    let mut fields = BTreeMap::new();
    let node = line[..start].trim().strip_prefix("node=");
    fields.extend(node.map(|node| ("node".to_string(), node.to_string())));
    let body = rest.split_once("): ").or(rest.split_once(") ")).map_or("", |(_, body)| body);
    // Enriched logs add names after a group separator.
    read_fields(&body.replace('\u{1d}', " "), &mut fields);
    // SELinux says its verdict as a sentence.
    for verdict in ["denied", "granted"] {
        if body.contains(&format!("avc:  {verdict} ")) {
            fields.insert("seresult".into(), verdict.into());
        }
    }
    Ok(Line { kind, fields })
}

/// `name=value`, `name="value"`, and `msg='more fields'`. The first of a name stays, except that `?` gives way.
fn read_fields(text: &str, fields: &mut BTreeMap<String, String>) {
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('=') {
        let name = match before.ends_with("new auid") {
            // Old kernels write `old auid=… new auid=…` where someone logs in: the new one counts.
            true => "AUID_NEW",
            false => before.rsplit([' ', ',', '\'']).next().unwrap_or_default(),
        };
        let (value, later) = match after.chars().next() {
            Some(quote @ ('"' | '\'')) => after[1..].split_once(quote).unwrap_or((&after[1..], "")),
            _ => {
                let end = after.find([' ', ',', '\'']).unwrap_or(after.len());
                after.split_at(end)
            }
        };
        if name == "msg" && after.starts_with('\'') {
            read_fields(value, fields);
        } else {
            let quoted = after.starts_with('"');
            // Old kernels put all of it in brackets.
            let value =
                if quoted { value.into() } else { unhex(name, value.trim_end_matches(')')) };
            let slot = fields.entry(name.into()).or_default();
            if slot.is_empty() || slot == "?" {
                *slot = value;
            }
        }
        rest = later;
    }
}

/// Texts that hold a space or a quote are written in hexadecimal.
fn unhex(name: &str, value: &str) -> String {
    let texts = ["exe", "comm", "cmd", "acct", "name", "proctitle", "cwd", "data"];
    let bytes = if texts.contains(&name) { hex::decode(value).ok() } else { None };
    match bytes.filter(|bytes| bytes.len() > 1) {
        Some(bytes) => String::from_utf8_lossy(&bytes).replace('\0', " "),
        None => value.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGIN: &str = r#"type=USER_LOGIN msg=audit(1795330800.404:17): pid=12 uid=0 auid=4294967295 ses=4294967295 msg='op=login acct="alice" exe="/usr/sbin/sshd" hostname=? addr=203.0.113.7 terminal=ssh res=failed'"#;
    const CALL: &str = "node=db1 type=SYSCALL msg=audit(1795330800.404:18): arch=c000003e syscall=59 success=yes exit=0 auid=1000 uid=0 comm=\"cat\" exe=\"/bin/cat\" key=\"secrets\"
node=db1 type=EXECVE msg=audit(1795330800.404:18): argc=2 a0=\"cat\" a1=\"/etc/shadow\"
node=db1 type=PATH msg=audit(1795330800.404:18): item=0 name=\"/etc/shadow\" nametype=NORMAL
node=db1 type=PROCTITLE msg=audit(1795330800.404:18): proctitle=636174002F6574632F736861646F77";

    #[test]
    fn a_failed_login_tells_who_tried_from_where() {
        let facts = map(LOGIN).unwrap();
        assert_eq!(facts.id.as_deref(), Some("1795330800.404:17"));
        assert_eq!(facts.who, Some(Who::Person("alice".into())));
        assert_eq!(
            (facts.action.as_str(), facts.resource.as_str()),
            ("auditd.user_login", "/usr/sbin/sshd")
        );
        assert_eq!(
            (facts.outcome, facts.address.as_deref()),
            (Outcome::Failure, Some("203.0.113.7"))
        );
        assert_eq!(facts.time.unwrap().to_string(), "2026-11-22T07:00:00.404Z");
    }

    #[test]
    fn the_lines_of_a_call_are_one_event_with_its_file_and_its_words() {
        let facts = map(CALL).unwrap();
        assert_eq!(facts.id.as_deref(), Some("db1/1795330800.404:18"));
        assert_eq!(facts.who, Some(Who::Person("uid 1000".into())));
        assert_eq!(
            (facts.action.as_str(), facts.resource.as_str()),
            ("auditd.execve", "/etc/shadow")
        );
        assert_eq!(facts.reason.as_deref(), Some("cat /etc/shadow"));
        assert_eq!((facts.outcome, facts.device.as_deref()), (Outcome::Success, Some("db1")));
    }

    #[test]
    fn verdicts_of_security_modules_are_denials_and_a_line_without_type_is_no_event() {
        let apparmor = r#"type=AVC msg=audit(1795330800.080:1): apparmor="DENIED" operation="ptrace" comm="beat""#;
        let facts = map(apparmor).unwrap();
        assert_eq!(
            (facts.outcome, facts.who),
            (Outcome::Denied, Some(Who::Service("beat".into())))
        );
        let selinux = r#"type=AVC msg=audit(1795330800.080:2): avc:  denied  { read } for  pid=1 comm="httpd" name="x""#;
        assert_eq!(map(selinux).unwrap().outcome, Outcome::Denied);
        let old = "type=LOGIN msg=audit(1795330800.080:3): login pid=1 uid=0 old auid=4294967295 new auid=7";
        assert_eq!(map(old).unwrap().who, Some(Who::Person("uid 7".into())));
        assert!(map("hello").is_err());
    }
}
