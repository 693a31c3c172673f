//! Keys to ask about, each of a person of its own, and the key of the service that asks.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use keyledger_ledger::body::Grant;
use keyledger_ledger::token::Token;
use keyledger_proto::create_key_request::Expiry;
use keyledger_proto::owner::Owner as Kind;
use keyledger_proto::{CreateKeyRequest, Owner};
use keyledger_server::init::admin_token_file;

use crate::client::{Bearer, Connections, Questions, subject_grant};

/// Creations at the same time.
const AT_ONCE: usize = 256;

/// Creates all keys over gRPC, as whoever uses Keyledger would.
pub(crate) async fn create(
    connections: &Connections,
    data_dir: &Path,
    count: usize,
) -> anyhow::Result<Questions> {
    let admin = admin(data_dir)?;
    let service = Kind::Service("bench".into());
    let may_ask = Grant {
        permissions: vec!["keys.verify".into()],
        resource: "keys".into(),
        give_only: false,
    };
    let caller = create_one(connections, &admin, 0, service, may_ask).await?;
    let subjects = stream::iter(0..count).map(|n| {
        let person = Kind::User(format!("person-{n:06}@example.com"));
        create_one(connections, &admin, n, person, subject_grant())
    });
    let subjects: Vec<String> = subjects.buffer_unordered(AT_ONCE).try_collect().await?;
    ensure!(subjects.len() == count, "keys are missing");
    Ok(Questions { bearer: Bearer::new(&caller)?, subjects: Arc::from(subjects) })
}

/// Creates many keys, each of a service of its own. Returns the id of one of them.
pub(crate) async fn create_many(
    connections: &Connections,
    data_dir: &Path,
    count: usize,
) -> anyhow::Result<String> {
    let admin = admin(data_dir)?;
    let made = stream::iter(0..count).map(|n| {
        let service = Kind::Service(format!("service-{n:07}"));
        create_one(connections, &admin, n, service, subject_grant())
    });
    let mut made = made.buffer_unordered(2 * AT_ONCE);
    let mut last = String::new();
    while let Some(token) = made.try_next().await? {
        last = token;
    }
    let token = Token::parse(&last).context("no key was created")?;
    Ok(token.key_id.to_string())
}

/// The token that `dev` wrote.
pub(crate) fn admin(data_dir: &Path) -> anyhow::Result<Bearer> {
    let file = admin_token_file(data_dir);
    let admin = std::fs::read_to_string(&file);
    let admin = admin.with_context(|| format!("can't read {}", file.display()))?;
    Bearer::new(admin.trim())
}

/// Creates a key that ends otherwise than by default.
pub(crate) async fn create_with_life(
    connections: &Connections,
    admin: &Bearer,
    life: Expiry,
) -> anyhow::Result<String> {
    let service = Kind::Service("short".into());
    let request = CreateKeyRequest { expiry: Some(life), ..request(service, subject_grant()) };
    let reply = connections.of(0).create_key(admin.request(request)).await;
    Ok(reply.context("a key can't be created")?.into_inner().token)
}

pub(crate) async fn create_one(
    connections: &Connections,
    admin: &Bearer,
    n: usize,
    owner: Kind,
    grant: Grant,
) -> anyhow::Result<String> {
    let reply = connections.of(n).create_key(admin.request(request(owner, grant))).await;
    Ok(reply.context("a key can't be created")?.into_inner().token)
}

fn request(owner: Kind, grant: Grant) -> CreateKeyRequest {
    CreateKeyRequest {
        owner: Some(Owner { owner: Some(owner) }),
        purpose: "to be asked about".into(),
        grants: vec![grant],
        reason: "benchmark".into(),
        ..CreateKeyRequest::default()
    }
}
