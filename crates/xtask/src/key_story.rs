//! The life of a key, from its issue to the signed trail of it: what the README's session shows.

use std::thread;
use std::time::{Duration, Instant};

use crate::grpcurl::Grpcurl;
use crate::interop::{AUDIT_SERVICE, KEY_SERVICE};
use crate::json::Json;
use crate::process::Result;
use crate::replies::{ensure, expect, number_at, passed, size_in_note, text_at};

const ALLOWED_RESOURCE: &str = "logs/error";
/// A checkpoint is signed at an interval, after the entries it covers.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(30);
/// How long a stream is listened to; it has no end of its own.
const STREAM_SECONDS: u32 = 5;

/// What the later steps must find again.
pub(crate) struct Issued {
    pub(crate) key_id: String,
    pub(crate) token: String,
    pub(crate) rotated_token: String,
    /// Positions of the three changes: created, rotated, revoked.
    changes: [u64; 3],
}

pub(crate) fn life_of_a_key(client: &Grpcurl) -> Result<Issued> {
    let (key_id, token, created) = create(client)?;
    is_allowed(client, &token, &key_id)?;
    is_denied(client, &token, "logs/other")?;

    let (rotated_token, rotated) = rotate(client, &key_id, &token)?;
    is_allowed(client, &rotated_token, &key_id)?;
    // The overlap lets the old one live on for a while.
    is_allowed(client, &token, &key_id)?;

    let revoked = revoke(client, &key_id)?;
    is_denied(client, &rotated_token, ALLOWED_RESOURCE)?;
    is_denied(client, &token, ALLOWED_RESOURCE)?;

    let changes = [created, rotated, revoked];
    ensure(changes.is_sorted_by(|a, b| a < b), || {
        format!("the positions of the changes should rise: {changes:?}")
    })?;
    Ok(Issued { key_id, token, rotated_token, changes })
}

fn create(client: &Grpcurl) -> Result<(String, String, u64)> {
    let body = r#"{"owner":{"user":"alice@example.com"},"purpose":"export error logs",
        "grants":[{"permissions":["audit.read"],"resource":"logs/error"}],
        "ttl":"3600s","reason":"ticket 4711"}"#;
    let reply = client.call(&format!("{KEY_SERVICE}/CreateKey"), body)?;
    expect(&reply, "key.state", "KEY_STATE_ACTIVE")?;
    let key_id = text_at(&reply, "key.keyId")?.to_owned();
    let token = text_at(&reply, "token")?.to_owned();
    ensure(token.starts_with("klk_") && token.len() == 76, || {
        "a token should be klk_ and 72 characters".to_owned()
    })?;
    passed(&format!("CreateKey: {key_id}"));
    Ok((key_id, token, number_at(&reply, "position")?))
}

fn rotate(client: &Grpcurl, key_id: &str, old_token: &str) -> Result<(String, u64)> {
    let body = format!(r#"{{"key_id":"{key_id}","overlap":"600s","reason":"monthly"}}"#);
    let reply = client.call(&format!("{KEY_SERVICE}/RotateKey"), &body)?;
    expect(&reply, "key.keyId", key_id)?;
    let token = text_at(&reply, "token")?.to_owned();
    ensure(token != old_token, || "RotateKey gave the old token again".to_owned())?;
    passed("RotateKey: a new token, the same key");
    Ok((token, number_at(&reply, "position")?))
}

fn revoke(client: &Grpcurl, key_id: &str) -> Result<u64> {
    let body = format!(
        r#"{{"key_id":"{key_id}","kind":"REVOCATION_KIND_OWNER_LEFT","reason":"left the company"}}"#
    );
    let reply = client.call(&format!("{KEY_SERVICE}/RevokeKey"), &body)?;
    expect(&reply, "key.state", "KEY_STATE_REVOKED")?;
    let seen =
        client.call(&format!("{KEY_SERVICE}/GetKey"), &format!(r#"{{"key_id":"{key_id}"}}"#))?;
    expect(&seen, "key.state", "KEY_STATE_REVOKED")?;
    passed("RevokeKey, and GetKey shows it");
    number_at(&reply, "position")
}

fn is_allowed(client: &Grpcurl, token: &str, key_id: &str) -> Result {
    let reply = verify_key(client, token, ALLOWED_RESOURCE)?;
    expect(&reply, "decision", "DECISION_ALLOW")?;
    expect(&reply, "reason", "DECISION_REASON_GRANTED")?;
    expect(&reply, "keyId", key_id)?;
    expect(&reply, "matchedGrant.resource", ALLOWED_RESOURCE)?;
    passed("VerifyKey: allowed");
    Ok(())
}

fn is_denied(client: &Grpcurl, token: &str, resource: &str) -> Result {
    let reply = verify_key(client, token, resource)?;
    expect(&reply, "decision", "DECISION_DENY")?;
    let reason = text_at(&reply, "reason")?;
    ensure(reason != "DECISION_REASON_GRANTED", || format!("denied, but {reason}: {reply:?}"))?;
    passed(&format!("VerifyKey: denied, {reason}"));
    Ok(())
}

/// The address of the use, (position, index), is in every verdict, also where it is 0.
fn verify_key(client: &Grpcurl, token: &str, resource: &str) -> Result<Json> {
    let body = format!(
        r#"{{"token":"{token}","permission":"audit.read","resource":"{resource}",
            "client":{{"address":"203.0.113.7","user_agent":"curl"}},"audience":"",
            "reason":"nightly export"}}"#
    );
    let reply = client.call(&format!("{KEY_SERVICE}/VerifyKey"), &body)?;
    number_at(&reply, "position")?;
    number_at(&reply, "index")?;
    Ok(reply)
}

pub(crate) fn the_trail_tells_it(client: &Grpcurl, issued: &Issued) -> Result {
    let body = format!(r#"{{"key_id":"{}","page_size":50}}"#, issued.key_id);
    let reply = client.call(&format!("{AUDIT_SERVICE}/ListEvents"), &body)?;
    let positions = reply.fields_named("position");
    let listed: Vec<u64> = positions.into_iter().filter_map(Json::number).collect();
    ensure(issued.changes.iter().all(|change| listed.contains(change)), || {
        format!("ListEvents gives {listed:?}, but lacks some of {:?}", issued.changes)
    })?;
    shows_no_token(&reply, issued)?;
    passed(&format!("ListEvents: the {} changes of the key", issued.changes.len()));
    Ok(())
}

/// Every position from 0 on, in order; the uses of a page share one.
pub(crate) fn the_stream_has_no_gaps(client: &Grpcurl, issued: &Issued) -> Result {
    let method = format!("{AUDIT_SERVICE}/StreamEvents");
    let replies = client.stream(&method, r#"{"from_position":"0"}"#, STREAM_SECONDS)?;
    let position_of = |reply: &Json| reply.at("event.position").and_then(Json::number);
    let positions: Vec<u64> = replies.iter().filter_map(position_of).collect();
    ensure(positions.first() == Some(&0), || {
        format!("the stream should begin at position 0, but gives {positions:?}")
    })?;
    let gapless = positions.windows(2).all(|pair| pair[1] == pair[0] || pair[1] == pair[0] + 1);
    ensure(gapless, || format!("the stream has gaps: {positions:?}"))?;
    ensure(positions.last() >= issued.changes.last(), || {
        format!("the stream ends before the revocation: {positions:?}, {:?}", issued.changes)
    })?;
    for reply in &replies {
        shows_no_token(reply, issued)?;
    }
    passed(&format!("StreamEvents: {} events without a gap", positions.len()));
    Ok(())
}

pub(crate) fn the_checkpoint_covers_it(client: &Grpcurl, issued: &Issued) -> Result {
    let deadline = Instant::now() + CHECKPOINT_LIMIT;
    let [_, _, revoked] = issued.changes;
    loop {
        let reply = client.call(&format!("{AUDIT_SERVICE}/GetCheckpoint"), "{}")?;
        let size = size_in_note(text_at(&reply, "note")?)
            .ok_or_else(|| format!("GetCheckpoint gives no signed note: {reply:?}"))?;
        if size > revoked {
            passed(&format!("GetCheckpoint: a signed note of size {size}"));
            return Ok(());
        }
        ensure(Instant::now() < deadline, || {
            let seconds = CHECKPOINT_LIMIT.as_secs();
            format!("after {seconds} s the checkpoint has size {size}, not over {revoked}")
        })?;
        thread::sleep(Duration::from_millis(500));
    }
}

fn shows_no_token(reply: &Json, issued: &Issued) -> Result {
    let tokens = [&issued.token, &issued.rotated_token];
    let leaks = reply.texts().iter().any(|text| tokens.iter().any(|token| text.contains(*token)));
    ensure(!leaks, || "an event shows a token".to_owned())
}
