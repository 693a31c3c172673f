//! Many keys in one ledger: how long a replica takes to start with them, what each costs in memory, and whether it answers.

use std::fs::File;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use keyledger_proto::{GetKeyRequest, ListKeysRequest, WhoHasAccessRequest};

use crate::client::{Bearer, Connections};
use crate::keys;
use crate::process::Process;

/// Slowest start, and most memory a key, that are good.
const START: Duration = Duration::from_secs(120);
const BYTES_PER_KEY: u64 = 600;
const CONNECTIONS: u32 = 32;

/// Whether all is as it must be.
pub(crate) async fn scale(count: usize) -> anyhow::Result<bool> {
    let dir = tempfile::Builder::new().prefix("keyledger-bench-").tempdir()?;
    let data_dir = dir.path().join("data");
    std::fs::create_dir(&data_dir)?;
    let data_dir = data_dir.canonicalize()?;
    let serve = async || {
        let log = File::options().create(true).append(true).open(dir.path().join("server.log"))?;
        Process::start("serve", &[data_dir.as_os_str()], Stdio::from(log)).await
    };

    // Started once before: what is measured is a start like any other.
    serve().await?.stop().await?;
    let (empty_start, server) = timed(serve()).await?;
    let empty = server.resident()?;
    let connections = Connections::open(server.address, CONNECTIONS).await?;
    eprintln!("keyledger-bench: creating {count} keys");
    let (creation, made) = timed(keys::create_many(&connections, &data_dir, count)).await?;
    drop(connections);
    server.stop().await?;

    let (start, server) = timed(serve()).await?;
    let bytes_per_key = server.resident()?.saturating_sub(empty) / count as u64;
    let connections = Connections::open(server.address, 1).await?;
    let admin = keys::admin(&data_dir)?;
    let (get, list, who) = ask(&connections, &admin, made).await?;
    server.stop().await?;

    println!("{count} keys, each of a service of its own, with one grant");
    println!(
        "created in      {:.1} s ({:.0} a second)",
        creation.as_secs_f64(),
        count as f64 / creation.as_secs_f64()
    );
    println!("empty start     {:.1} s", empty_start.as_secs_f64());
    println!(
        "start           {:.1} s; at most {} s is asked for",
        start.as_secs_f64(),
        START.as_secs()
    );
    println!("memory          {bytes_per_key} bytes a key; at most {BYTES_PER_KEY} is asked for");
    println!("GetKey          {:.1} ms", get.as_secs_f64() * 1e3);
    println!("ListKeys        {:.1} ms for 1,000", list.as_secs_f64() * 1e3);
    println!("WhoHasAccess    {:.1} ms for 1,000", who.as_secs_f64() * 1e3);
    Ok(start <= START && bytes_per_key <= BYTES_PER_KEY)
}

async fn ask(
    connections: &Connections,
    admin: &Bearer,
    key_id: String,
) -> anyhow::Result<(Duration, Duration, Duration)> {
    let mut client = connections.of(0);
    let get = admin.request(GetKeyRequest { key_id, as_of: None, include_traces: false });
    let (get, _) = timed(client.get_key(get)).await?;
    let list = admin.request(ListKeysRequest { page_size: 1_000, ..Default::default() });
    let (list, listed) = timed(client.list_keys(list)).await?;
    ensure!(listed.get_ref().keys.len() == 1_000, "a page is short");
    let who = admin.request(WhoHasAccessRequest {
        permission: "audit.read".into(),
        resource: "logs/error".into(),
        page_size: 1_000,
        ..Default::default()
    });
    let (who, found) = timed(client.who_has_access(who)).await?;
    ensure!(found.get_ref().access.len() == 1_000, "a page is short");
    Ok((get, list, who))
}

async fn timed<T, E>(work: impl Future<Output = Result<T, E>>) -> anyhow::Result<(Duration, T)>
where
    anyhow::Error: From<E>,
{
    let begin = Instant::now();
    let value = work.await?;
    Ok((begin.elapsed(), value))
}

/// What a process holds in memory, in bytes, as Linux tells it.
pub(crate) fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|l| l.trim().strip_suffix("kB")).map(str::trim);
    let kilobytes: u64 = kilobytes.and_then(|n| n.parse().ok()).context("no VmRSS")?;
    Ok(kilobytes * 1024)
}
