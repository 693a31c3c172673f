//! What an answer of VerifyKey costs for each kind of token that isn't valid: nobody must be able to tell them apart by time.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use keyledger_ledger::id::{KeyId, LedgerNumber, Time};
use keyledger_ledger::token::{Secret, Token};
use keyledger_proto::create_key_request::Expiry;
use keyledger_proto::entry::{Decision, DecisionReason, RevocationKind};
use keyledger_proto::{RevokeKeyRequest, RotateKeyRequest};
use prost_types::Duration as Life;

use crate::client::{Bearer, Connections, Questions};
use crate::keys;
use crate::process::Process;

/// Calls in flight.
const AT_ONCE: usize = 8;
/// Life of the key that ends by itself.
const SHORT: Duration = Duration::from_secs(1);

/// Kind of a token, and the token.
type Kinds = Vec<(&'static str, String)>;

/// Asks about each kind so many times, in turns, so that all share the same moments.
pub(crate) async fn invalid(rounds: usize) -> anyhow::Result<bool> {
    let dir = tempfile::Builder::new().prefix("keyledger-bench-").tempdir()?;
    let data_dir = dir.path().join("data");
    std::fs::create_dir(&data_dir)?;
    let data_dir = data_dir.canonicalize()?;
    let log = File::options().create(true).append(true).open(dir.path().join("server.log"))?;
    let server = Process::start("serve", &[data_dir.as_os_str()], Stdio::from(log)).await?;
    let connections = Connections::open(server.address, 4).await?;
    let (caller, kinds) = make(&connections, &data_dir).await?;
    let times = ask(&connections, &caller, &kinds, rounds).await?;
    server.stop().await?;

    println!(
        "VerifyKey of tokens that are not valid: {rounds} of each in turns, {AT_ONCE} in flight"
    );
    println!("{:<14}{:>12}{:>12}", "token", "median ms", "p99 ms");
    let millis = |times: &[Duration], percent: usize| {
        times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1e3
    };
    for (kind, _) in &kinds {
        let mut times = times[kind].clone();
        times.sort();
        println!("{kind:<14}{:>12.3}{:>12.3}", millis(&times, 50), millis(&times, 99));
    }
    Ok(true)
}

/// The key that asks, which may not be told why, and a token of each kind.
async fn make(connections: &Connections, data_dir: &Path) -> anyhow::Result<(Bearer, Kinds)> {
    let questions = keys::create(connections, data_dir, 5).await?;
    let admin = keys::admin(data_dir)?;
    let [valid, wrong, revoked, superseded, foreign] = &questions.subjects[..] else {
        anyhow::bail!("keys are missing")
    };
    let parsed = |token: &String| Token::parse(token).context("a token of ours");
    let mut client = connections.of(0);
    let revoke = RevokeKeyRequest {
        key_id: parsed(revoked)?.key_id.to_string(),
        kind: RevocationKind::Admin as i32,
        reason: "benchmark".into(),
        ..Default::default()
    };
    client.revoke_key(admin.request(revoke)).await?;
    let rotate = RotateKeyRequest {
        key_id: parsed(superseded)?.key_id.to_string(),
        reason: "benchmark".into(),
        ..Default::default()
    };
    client.rotate_key(admin.request(rotate)).await?;
    let seconds = SHORT.as_secs() as i64;
    let life = Expiry::Ttl(Life { seconds, nanos: 0 });
    let expired = keys::create_with_life(connections, &admin, life).await?;
    tokio::time::sleep(2 * SHORT).await;
    let with_secret = |key_id| Token { key_id, secret: Secret::new([7; 32]) }.reveal();
    let own = parsed(foreign)?.key_id;
    let elsewhere = KeyId::new(Time(1), LedgerNumber(own.ledger().0 + 70), 1);
    let kinds = vec![
        ("valid", valid.clone()),
        ("unknown", with_secret(KeyId::new(Time(1), own.ledger(), 1))),
        ("wrong secret", with_secret(parsed(wrong)?.key_id)),
        ("revoked", revoked.clone()),
        ("expired", expired),
        ("superseded", superseded.clone()),
        ("foreign", with_secret(elsewhere)),
    ];
    Ok((questions.bearer, kinds))
}

async fn ask(
    connections: &Connections,
    caller: &Bearer,
    kinds: &Kinds,
    rounds: usize,
) -> anyhow::Result<BTreeMap<&'static str, Vec<Duration>>> {
    let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    let tokens = kinds.iter().map(|(_, token)| token.clone()).collect();
    let questions = Questions { bearer: caller.clone(), subjects: tokens };
    // The first few warm everything up.
    let warm_up = 20 * kinds.len();
    let asked = stream::iter(0..warm_up + rounds * kinds.len()).map(|n| {
        // Another order in each round: none always comes first in its batch.
        let which = (n + n / kinds.len()) % kinds.len();
        let (mut client, question) = (connections.of(n), questions.about(which));
        async move {
            let begin = Instant::now();
            let reply = client.verify_key(question).await?.into_inner();
            anyhow::Ok((n, which, begin.elapsed(), reply))
        }
    });
    let mut asked = asked.buffer_unordered(AT_ONCE);
    while let Some((n, which, time, reply)) = asked.try_next().await? {
        let kind = kinds[which].0;
        let expected = match kind {
            "valid" => (Decision::Allow, DecisionReason::Granted),
            _ => (Decision::Deny, DecisionReason::NotValid),
        };
        ensure!((reply.decision(), reply.reason()) == expected, "{kind}: {:?}", reply.reason());
        if n >= warm_up {
            times.entry(kind).or_default().push(time);
        }
    }
    Ok(times)
}
