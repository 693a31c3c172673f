//! The session of the README, run by a client that isn't ours: real grpcurl, a fresh server.
//!
//! grpcurl learns all messages by reflection, so this also shows that reflection carries them,
//! with comments.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::dev_server::DevServer;
use crate::grpcurl::Grpcurl;
use crate::key_story::{
    life_of_a_key, the_checkpoint_covers_it, the_stream_has_no_gaps, the_trail_tells_it,
};
use crate::process::{Result, build_keyledger, run};
use crate::replies::{ensure, expect, passed};
use crate::{postgres, tools};

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
const READY_LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn run_session() -> Result {
    let grpcurl = tools::grpcurl()?;
    tools::require_c_compiler()?;
    postgres::find_or_install()?;
    let keyledger = PathBuf::from(build_keyledger()?.get_program());
    let mut server = DevServer::start(&keyledger)?;
    match session(&grpcurl, &keyledger, &mut server) {
        Ok(()) => {
            server.remove_data()?;
            println!("interop: all passed");
            Ok(())
        }
        Err(reason) => Err(format!("interop: {reason}\n{}", server.last_words())),
    }
}

fn session(grpcurl: &Path, keyledger: &Path, server: &mut DevServer) -> Result {
    let admin_token = server.admin_token()?;
    let client = Grpcurl::new(grpcurl, &server.address, Some(&admin_token));
    let anonymous = Grpcurl::new(grpcurl, &server.address, None);
    wait_until_healthy(&anonymous)?;
    reflection_shows_services_and_comments(&anonymous)?;
    calls_without_a_token_are_refused(&anonymous)?;
    let issued = life_of_a_key(&client)?;
    the_trail_tells_it(&client, &issued)?;
    the_stream_has_no_gaps(&client, &issued)?;
    the_checkpoint_covers_it(&client, &issued)?;
    verify(keyledger, server, "while the server runs")?;
    server.stop()?;
    verify(keyledger, server, "after the server has stopped")?;
    server.has_not_said(&[&admin_token, &issued.token, &issued.rotated_token])?;
    passed("no token in the server's output");
    Ok(())
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
