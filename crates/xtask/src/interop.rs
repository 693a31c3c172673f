//! The session of the README, run by clients that aren't ours: real grpcurl, and examples in three languages, against a fresh
//! server whose telemetry goes to a real OpenTelemetry Collector.
//!
//! grpcurl learns all messages by reflection, so this also shows that reflection carries them,
//! with comments.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::collector::Place;
use crate::dev_server::DevServer;
use crate::examples::{self, Examples, Surroundings};
use crate::grpcurl::Grpcurl;
use crate::key_story::{
    life_of_a_key, the_checkpoint_covers_it, the_stream_has_no_gaps, the_trail_tells_it,
};
use crate::process::{Result, build_keyledger, run};
use crate::replies::{ensure, expect, passed, text_at};
use crate::traces::events_of_trace;
use crate::{example_story, joined, log_records, metrics, postgres, telemetry, tools, walk};

pub(crate) const KEY_SERVICE: &str = "keyledger.v1.KeyService";
pub(crate) const AUDIT_SERVICE: &str = "keyledger.v1.AuditService";
const KEY_METHODS: [&str; 11] = [
    "CreateKey",
    "GetKey",
    "ListKeys",
    "RotateKey",
    "RevokeKey",
    "VerifyKey",
    "WhoAmI",
    "CreateRole",
    "ListRoles",
    "OpenLedger",
    "ListLedgers",
];
const AUDIT_METHODS: [&str; 4] = ["ListEvents", "GetEvent", "StreamEvents", "GetCheckpoint"];
/// The trace of grpcurl's session and the span in it that calls, as the header of each call says.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "00f067aa0ba902b7";
/// What the session says of people and reasons: nothing of it may leave in telemetry.
const PERSONAL: [&str; 6] = [
    "alice@example.com",
    "export error logs",
    "ticket 4711",
    "nightly export",
    "203.0.113.7",
    "left the company",
];
const READY_LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn run_session() -> Result {
    examples::require_languages()?;
    tools::require_c_compiler()?;
    postgres::find_or_install()?;
    let prepared = Prepared {
        keyledger: PathBuf::from(build_keyledger()?.get_program()),
        grpcurl: tools::grpcurl()?,
        collector: tools::collector()?,
        examples: examples::prepare()?,
    };
    let folder = fresh_folder()?;
    let place = Place::choose(&folder)?;
    let mut server = DevServer::start(&prepared.keyledger, &folder, &place.telemetry())?;
    match session(&prepared, &mut server, &place) {
        Ok(()) => {
            drop(server);
            fs::remove_dir_all(&folder)
                .map_err(|error| format!("cannot remove {}: {error}", folder.display()))?;
            println!("interop: all passed");
            Ok(())
        }
        Err(reason) => Err(format!(
            "interop: {reason}{}Its folder is kept: {}",
            server.process.tail(),
            folder.display()
        )),
    }
}

/// What is fetched and built before anything runs.
struct Prepared {
    keyledger: PathBuf,
    grpcurl: PathBuf,
    collector: PathBuf,
    examples: Examples,
}

fn session(prepared: &Prepared, server: &mut DevServer, place: &Place) -> Result {
    let admin_token = server.admin_token()?;
    let client = Grpcurl::new(&prepared.grpcurl, &server.address, Some(&admin_token));
    let anonymous = Grpcurl::new(&prepared.grpcurl, &server.address, None);
    wait_until_healthy(&anonymous)?;
    reflection_shows_services_and_comments(&anonymous)?;
    calls_without_a_token_are_refused(&anonymous)?;

    let recorder_token = a_key_that_records(&client)?;
    let mut collector = place.start(&prepared.collector, &server.address, &recorder_token)?;
    passed("a collector takes our telemetry");
    let client = client.in_trace(TRACE, SPAN);
    let issued = life_of_a_key(&client)?;
    let happened = events_of_trace(&client, TRACE)?;
    the_trail_tells_it(&client, &issued)?;
    the_stream_has_no_gaps(&client, &issued)?;
    the_checkpoint_covers_it(&client, &issued)?;

    let around = Surroundings {
        keyledger: &server.address,
        token: &admin_token,
        collector: &place.telemetry(),
    };
    let mut stories = vec![];
    for example in &prepared.examples.lives {
        stories.push(example_story::told_by(example, &around, &client)?);
    }

    let (logged_trace, logged) =
        log_records::come_in(&prepared.examples.audit_log, &place.audit(), &client)?;
    let newest = logged.iter().map(|event| event.position).max().unwrap_or_default();
    log_records::wait_until_covered(&place.files(), newest)?;

    verify(&prepared.keyledger, server, "while the server runs")?;
    server.process.stop()?;
    collector.stop()?;
    verify(&prepared.keyledger, server, "after the server has stopped")?;
    let secrets = [&admin_token, &recorder_token, &issued.token, &issued.rotated_token];
    let secrets = secrets.map(String::as_str);
    server.process.has_not_said(&secrets)?;
    collector.has_not_said(&secrets)?;
    passed("no token in the output of server and collector");

    telemetry::holds_none_of(&place.files(), &secrets)?;
    telemetry::holds_none_of(&place.files(), &PERSONAL)?;
    passed("no token and nothing personal in what the collector wrote");
    let spans = telemetry::spans_in(&place.files())?;
    joined::spans_join_the_session(&spans, TRACE, SPAN, &issued.key_id, &happened)?;
    walk::leads_back(&spans, TRACE, &issued.key_id, &happened)?;
    let records = telemetry::records_in(&place.files())?;
    log_records::tell_of(&records, TRACE, &happened)?;
    log_records::tell_of(&records, &logged_trace, &logged)?;
    for story in &stories {
        joined::spans_join_those_of(story, &spans)?;
        walk::leads_back(&spans, &story.trace_id, &story.key_id, &story.events)?;
        log_records::tell_of(&records, &story.trace_id, &story.events)?;
    }
    let metrics = telemetry::metrics_in(&place.files())?;
    metrics::count_what_was_done(&metrics, &stories)?;
    metrics::name_nobody(&metrics, &stories)
}

/// The key by which the collector records audit logs of services.
fn a_key_that_records(client: &Grpcurl) -> Result<String> {
    let body = r#"{"owner":{"service":"otel-collector"},"purpose":"audit logs",
        "grants":[{"permissions":["audit.write"],"resource":"logs/services/**"}],
        "ttl":"3600s","reason":"ticket 4716"}"#;
    let reply = client.call(&format!("{KEY_SERVICE}/CreateKey"), body)?;
    Ok(text_at(&reply, "token")?.to_owned())
}

/// Ours alone. Making it fails if the name is taken, so nobody can have prepared it.
fn fresh_folder() -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("keyledger-interop-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&folder).map_err(|error| {
        format!("cannot make {}: {error}; remove it, or set TMPDIR", folder.display())
    })?;
    Ok(folder)
}

fn wait_until_healthy(client: &Grpcurl) -> Result {
    let deadline = Instant::now() + READY_LIMIT;
    while let Err(reason) = is_healthy(client) {
        ensure(Instant::now() < deadline, || {
            format!("not healthy after {} s: {reason}", READY_LIMIT.as_secs())
        })?;
        thread::sleep(Duration::from_millis(200));
    }
    passed("health is SERVING, without a token");
    Ok(())
}

fn is_healthy(client: &Grpcurl) -> Result {
    let reply = client.call("grpc.health.v1.Health/Check", "{}")?;
    expect(&reply, "status", "SERVING")
}

fn reflection_shows_services_and_comments(client: &Grpcurl) -> Result {
    let services = client.list()?;
    for service in [KEY_SERVICE, AUDIT_SERVICE, "grpc.health.v1.Health"] {
        ensure(services.lines().any(|line| line == service), || {
            format!("list lacks {service}:\n{services}")
        })?;
    }
    passed("list names the services");
    for (service, methods) in
        [(KEY_SERVICE, KEY_METHODS.as_slice()), (AUDIT_SERVICE, AUDIT_METHODS.as_slice())]
    {
        let text = client.describe(service)?;
        for method in methods {
            ensure(has_comment(&text, &format!("rpc {method} (")), || {
                format!("{service}/{method} has no comment:\n{text}")
            })?;
        }
    }
    let text = client.describe("keyledger.v1.CreateKeyRequest")?;
    for field in ["owner", "purpose", "grants", "ttl", "reason"] {
        ensure(has_comment(&text, &format!(" {field} = ")), || {
            format!("CreateKeyRequest.{field} has no comment:\n{text}")
        })?;
    }
    passed("describe shows every method with its comment");
    Ok(())
}

fn calls_without_a_token_are_refused(client: &Grpcurl) -> Result {
    let reply = client.call(&format!("{KEY_SERVICE}/WhoAmI"), "{}");
    let refused = matches!(&reply, Err(error) if error.code.as_deref() == Some("Unauthenticated"));
    ensure(refused, || {
        format!("WhoAmI without a token should be Unauthenticated, but: {reply:?}")
    })?;
    passed("WhoAmI without a token is refused");
    Ok(())
}

fn verify(keyledger: &Path, server: &DevServer, when: &str) -> Result {
    run(Command::new(keyledger).arg("verify").arg("--data-dir").arg(&server.data_dir))
        .map_err(|reason| format!("{when}: {reason}"))?;
    passed(&format!("keyledger verify, {when}"));
    Ok(())
}

/// True if the line with this text has a comment right above.
fn has_comment(description: &str, text: &str) -> bool {
    let is_comment = |line: &str| line.trim().starts_with("//");
    let lines: Vec<&str> = description.lines().collect();
    lines
        .windows(2)
        .any(|pair| is_comment(pair[0]) && !is_comment(pair[1]) && pair[1].contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_counts_only_right_above() {
        let text = "service S {\n  // Makes a key.\n  rpc A ( .a ) returns ( .b );\n  rpc B ( .a )";
        assert!(has_comment(text, "rpc A ("));
        assert!(!has_comment(text, "rpc B ("));
        assert!(!has_comment(text, "rpc C ("));
    }
}
