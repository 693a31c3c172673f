//! Queries as the log grows: a ledger for each number of entries, the same kinds of questions to each, and by how much the
//! answers take longer in the largest.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use keyledger_ledger::body::{Grant, Outcome, Severity};
use keyledger_ledger::token::Token;
use keyledger_proto::audit_service_client::AuditServiceClient;
use keyledger_proto::owner::Owner as Kind;
use keyledger_proto::{
    Actor, CountEventsRequest, EventFilter, EventGroup, EventOrder, ListEventsRequest, Owner, actor,
};
use keyledger_server::bulk::{Cast, Events, record_in_bulk, vacuum};
use keyledger_server::dev::{self, LEDGER_DATABASE, SEALING_DATABASE};
use keyledger_server::embedded::GuardCommand;
use prost_types::Timestamp;
use tonic::transport::Channel;

use crate::client::{Bearer, Connections};
use crate::events::{self, Random, Subject};
use crate::keys;
use crate::process::Process;

/// Calls of each kind that are measured, and those before them.
const CALLS: usize = 200;
const WARM_UP: usize = 20;
const PAGE: i32 = 20;
/// Over how long the events of a ledger are spread.
const SPREAD_DAYS: i64 = 80;
const DAY_US: i64 = 86_400_000_000;
/// Events of one batch.
const BATCH: usize = 4_000;
/// By how much a median may grow from first to last.
const MOST_GROWTH: f64 = 2.0;

/// Names of the kinds of questions, in the order in which they are shown.
const KINDS: [&str; 16] = [
    "key",
    "category",
    "actor (user)",
    "actor (service)",
    "action",
    "outcome",
    "severity",
    "resource prefix",
    "owner",
    "caller",
    "trace",
    "time range",
    "oldest first",
    "actor and action",
    "count by action",
    "count by outcome",
];

type Times = BTreeMap<&'static str, Vec<Duration>>;

/// Whether no median grows too much.
pub(crate) async fn queries(sizes: &[usize]) -> anyhow::Result<bool> {
    let mut all: Vec<(usize, Times)> = vec![];
    for size in sizes {
        // The data is gone when this is over, however it ends.
        let dir = tempfile::Builder::new().prefix("keyledger-bench-").tempdir()?;
        all.push((*size, measure(*size, dir.path()).await?));
        print(&all);
    }
    let slower: Vec<&&str> = KINDS.iter().filter(|kind| growth(&all, kind) > MOST_GROWTH).collect();
    let good = slower.is_empty();
    match good {
        true => println!("no median of an indexed query grows by more than {MOST_GROWTH}"),
        false => println!("MEDIANS GROW BY MORE THAN {MOST_GROWTH}: {slower:?}"),
    }
    Ok(good)
}

async fn measure(size: usize, dir: &Path) -> anyhow::Result<Times> {
    let data_dir = dir.join("data");
    std::fs::create_dir(&data_dir)?;
    let data_dir = data_dir.canonicalize()?;
    let serve = async || {
        let log = File::options().create(true).append(true).open(dir.join("server.log"))?;
        Process::start("serve", &[data_dir.as_os_str()], Stdio::from(log)).await
    };
    let server = serve().await?;
    let connections = Connections::open(server.address, 1).await?;
    let producers = producers(&connections, &data_dir).await?;
    drop(connections);
    server.stop().await?;

    let begin = Instant::now();
    fill(&data_dir, &producers, size).await?;
    let took = begin.elapsed().as_secs_f64();
    eprintln!(
        "keyledger-bench: {size} entries written, signed and indexed in {took:.0} s, {} MiB on disk",
        size_of(&data_dir) >> 20
    );
    let server = serve().await?;
    let asking = Asking {
        client: AuditServiceClient::connect(format!("http://{}", server.address)).await?,
        admin: keys::admin(&data_dir)?,
        producers: producers.iter().map(|p| key_id(p)).collect::<anyhow::Result<_>>()?,
        size: size as u64,
    };
    let times = asking.all().await;
    server.stop().await?;
    times
}

/// Keys that record: of services and of people.
async fn producers(connections: &Connections, data_dir: &Path) -> anyhow::Result<Vec<String>> {
    let admin = keys::admin(data_dir)?;
    let grant = Grant {
        permissions: vec!["audit.write".into()],
        resource: "logs/**".into(),
        give_only: false,
    };
    let mut made = vec![];
    for n in 0..8 {
        let owner = owner_of(n);
        made.push(keys::create_one(connections, &admin, 0, owner, grant.clone()).await?);
    }
    Ok(made)
}

fn owner_of(producer: usize) -> Kind {
    match producer % 4 {
        3 => Kind::User(events::person(producer as u64)),
        _ => Kind::Service(events::service(producer as u64)),
    }
}

fn key_id(token: &str) -> anyhow::Result<String> {
    Ok(Token::parse(token).context("a token of ours")?.key_id.to_string())
}

/// Writes the events, with no server there.
async fn fill(data_dir: &Path, producers: &[String], size: usize) -> anyhow::Result<()> {
    let guard = GuardCommand::this_program(&["guard"])?;
    let cluster = dev::start_cluster(data_dir, None, guard).await?;
    let filled = async {
        let address = cluster.address();
        let databases = dev::prepare_databases(address, LEDGER_DATABASE, SEALING_DATABASE).await?;
        let cast = Cast { producers: producers.to_vec(), people: events::people() };
        let key_dir: PathBuf = dev::key_dir(data_dir);
        record_in_bulk(&databases, &key_dir, cast, batches(size, producers.len())).await?;
        vacuum(&address.url(LEDGER_DATABASE)).await?;
        anyhow::Ok(())
    };
    let filled = filled.await;
    cluster.stop().await?;
    filled
}

fn batches(size: usize, producers: usize) -> impl Iterator<Item = (i64, Events)> + Send + 'static {
    let mut random = Random::new(1);
    // Small enough that every hour has its own, also in a small log.
    let batch = BATCH.min(size / 2_000).max(1);
    (0..size).step_by(batch).map(move |first| {
        let of_batch = first..(first + batch).min(size);
        if first % 1_000_000 == 0 {
            eprintln!("keyledger-bench: {first} of {size} events");
        }
        let events = of_batch.map(|n| {
            let event = events::event(n as u64);
            (random.below(producers as u64) as usize, event)
        });
        let after = (first as i128 * i128::from(SPREAD_DAYS * DAY_US) / size as i128) as i64;
        (after, events.collect())
    })
}

/// Bytes of all files below a folder.
fn size_of(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => size_of(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

enum Question {
    List(Box<ListEventsRequest>),
    Count(CountEventsRequest),
}

struct Asking {
    client: AuditServiceClient<Channel>,
    admin: Bearer,
    producers: Vec<String>,
    size: u64,
}

impl Asking {
    /// The kinds take turns, so that all share the same moments.
    async fn all(mut self) -> anyhow::Result<Times> {
        let (start, end) = self.ends().await?;
        let (mut times, mut random) = (Times::new(), Random::new(2));
        let mut all_found: BTreeMap<&str, u64> = BTreeMap::new();
        for round in 0..WARM_UP + CALLS {
            for kind in KINDS {
                let question = self.question(kind, &mut random, start, end);
                let begin = Instant::now();
                let found = self.ask(question).await?;
                let took = begin.elapsed();
                *all_found.entry(kind).or_default() += found;
                if round >= WARM_UP {
                    times.entry(kind).or_default().push(took);
                }
            }
        }
        // What is rare may not be there, but not all of it.
        ensure!(all_found.values().all(|n| *n > 0), "a question finds nothing: {all_found:?}");
        Ok(times)
    }

    /// Seconds of the oldest and the newest event.
    async fn ends(&mut self) -> anyhow::Result<(i64, i64)> {
        let mut seconds = vec![];
        for order in [EventOrder::OldestFirst, EventOrder::NewestFirst] {
            let request = ListEventsRequest {
                category: events::category(0),
                page_size: 1,
                order: order as i32,
                ..Default::default()
            };
            let reply = self.client.list_events(self.admin.request(request)).await?.into_inner();
            let event = reply.events.first().context("there are no events")?;
            seconds.push(event.time.context("an event without a time")?.seconds);
        }
        Ok((seconds[0], seconds[1]))
    }

    /// How many were found.
    async fn ask(&mut self, question: Question) -> anyhow::Result<u64> {
        Ok(match question {
            Question::List(request) => {
                let reply = self.client.list_events(self.admin.request(*request)).await?;
                reply.into_inner().events.len() as u64
            }
            Question::Count(request) => {
                let reply = self.client.count_events(self.admin.request(request)).await?;
                reply.into_inner().total_events
            }
        })
    }

    fn question(&self, kind: &str, random: &mut Random, start: i64, end: i64) -> Question {
        let subject = Subject::new(random);
        let producer = random.below(self.producers.len() as u64) as usize;
        let in_category = |filter: EventFilter| ListEventsRequest {
            category: events::category(subject.action),
            filter: Some(filter),
            ..Default::default()
        };
        let anywhere =
            |filter: EventFilter| ListEventsRequest { filter: Some(filter), ..Default::default() };
        let by = |group: EventGroup| {
            Question::Count(CountEventsRequest {
                category: events::category(subject.action),
                group_by: group as i32,
                ..Default::default()
            })
        };
        let none = EventFilter::default;
        let person = Some(Actor { actor: Some(actor::Actor::User(subject.person.clone())) });
        let service = Some(Actor { actor: Some(actor::Actor::Service(subject.service.clone())) });
        let request = match kind {
            "count by action" => return by(EventGroup::Action),
            "count by outcome" => return by(EventGroup::Outcome),
            "key" => {
                ListEventsRequest { key_id: self.producers[producer].clone(), ..Default::default() }
            }
            "category" => in_category(none()),
            "actor (user)" => anywhere(EventFilter { actor: person, ..none() }),
            "actor (service)" => anywhere(EventFilter { actor: service, ..none() }),
            "action" => anywhere(EventFilter { action: events::action(subject.action), ..none() }),
            "outcome" => in_category(EventFilter { outcome: Outcome::Denied as i32, ..none() }),
            "severity" => {
                in_category(EventFilter { min_severity: Severity::High as i32, ..none() })
            }
            "resource prefix" => {
                anywhere(EventFilter { resource_prefix: subject.folder.clone(), ..none() })
            }
            "owner" => {
                let owner = Some(Owner { owner: Some(owner_of(producer)) });
                anywhere(EventFilter { owner, ..none() })
            }
            "caller" => {
                let caller_key_id = self.producers[producer].clone();
                in_category(EventFilter { caller_key_id, ..none() })
            }
            "trace" => {
                let event = random.below(self.size);
                let hex = events::trace(event).map(|b| format!("{b:02x}")).concat();
                anywhere(EventFilter { trace_id: hex, ..none() })
            }
            "time range" => {
                let from = start + random.below((end - start) as u64 / 2) as i64;
                let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
                let (start_time, end_time) = (at(from), at(from + 5 * 86_400));
                anywhere(EventFilter { start_time, end_time, ..none() })
            }
            "oldest first" => {
                ListEventsRequest { order: EventOrder::OldestFirst as i32, ..in_category(none()) }
            }
            // Of a service: of one person's actions a small ledger holds less than a page.
            "actor and action" => anywhere(EventFilter {
                actor: service,
                action: events::action(subject.action),
                ..none()
            }),
            other => unreachable!("{other} is no kind of question"),
        };
        Question::List(Box::new(ListEventsRequest { page_size: PAGE, ..request }))
    }
}

fn millis(times: &[Duration], percent: usize) -> f64 {
    let mut times = times.to_vec();
    times.sort();
    times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1e3
}

fn growth(all: &[(usize, Times)], kind: &str) -> f64 {
    let of = |at: Option<&(usize, Times)>| at.map_or(1.0, |(_, times)| millis(&times[kind], 50));
    of(all.last()) / of(all.first())
}

fn print(all: &[(usize, Times)]) {
    println!("queries through gRPC, {CALLS} calls of each, {PAGE} events a page: p50 / p99 in ms");
    print!("{:<18}", "");
    all.iter().for_each(|(size, _)| print!("{:>22}", format!("{size} entries")));
    println!("{:>10}", "growth");
    for kind in KINDS {
        print!("{kind:<18}");
        for (_, times) in all {
            let (p50, p99) = (millis(&times[kind], 50), millis(&times[kind], 99));
            print!("{:>22}", format!("{p50:.2} / {p99:.2}"));
        }
        println!("{:>10.2}", growth(all, kind));
    }
}
