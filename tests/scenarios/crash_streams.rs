//! `kill -9` of servers while others record events and read them: every acknowledged event is in the ledger once, and every
//! reader, however often it breaks off, gets every entry of its own once and in order.
//!
//! 20 kills; `KEYLEDGER_KILLS=500 cargo test -p keyledger-tests --test scenarios crash_streams` runs more. What is random
//! follows from a number that is printed; `KEYLEDGER_SEED` sets it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keyledger_ledger::body::{EventRecorded, Kind};
use keyledger_proto::*;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::crash::{Random, World, must_be_repeated, setting};
use crate::harness::*;
use crate::streams::{Address, Heard};

const WRITERS: u64 = 8;
const CATEGORIES: [&str; 4] = ["error", "user-activity", "security/login", "security/login/failed"];
/// Most events of one call, and most replies that a reader takes before it breaks off.
const AT_ONCE: u64 = 8;
const BEFORE_A_BREAK: u64 = 400;
/// Between two kills so many calls are answered, at most.
const ANSWERS_BETWEEN_KILLS: u64 = 80;

#[test]
fn readers_and_writers_of_servers_killed_at_random_moments_miss_nothing_and_repeat_nothing() {
    scenario(async |d| {
        let seed = setting("KEYLEDGER_SEED").unwrap_or(Uuid::new_v4().as_u64_pair().0);
        println!("KEYLEDGER_SEED={seed}");
        let mut random = Random(seed);
        let world = Arc::new(World::new([d.replica().await, d.replica().await]));
        let token = producer(world.replica(0).admin()).await;
        let mut writers = JoinSet::new();
        for number in 0..WRITERS {
            let (world, token) = (world.clone(), token.clone());
            let random = Random(random.next());
            let acknowledged = BTreeMap::new();
            writers.spawn(Writer { number, world, token, random, made: 0, acknowledged }.run());
        }
        let done = Arc::new(AtomicBool::new(false));
        let mut readers = JoinSet::new();
        for wants in wanted() {
            let (world, done) = (world.clone(), done.clone());
            let token = reads(world.replica(0).admin(), wants.category).await;
            let (heard, random) = (Heard::default(), Random(random.next()));
            readers.spawn(Reader { world, token, wants, heard, breaks: 0, random, done }.run());
        }

        let kills = setting("KEYLEDGER_KILLS").unwrap_or(20);
        for _ in 0..kills {
            let mut answers = world.answers.subscribe();
            let moment = *answers.borrow() + random.below(ANSWERS_BETWEEN_KILLS);
            tokio::select! {
                told = answers.wait_for(|answers| *answers >= moment) => drop(told.unwrap()),
                Some(ended) = writers.join_next() => panic!("a writer has ended: {:?}", ended.err()),
                Some(ended) = readers.join_next() => panic!("a reader has ended: {:?}", ended.err()),
            }
            let killed = random.below(2) as usize;
            world.replica(killed).kill().await;
            world.put(killed, d.replica().await);
        }
        world.stop.store(true, Ordering::Relaxed);
        let mut acknowledged = BTreeMap::new();
        for mut of_one in writers.join_all().await {
            acknowledged.append(&mut of_one);
        }
        done.store(true, Ordering::Relaxed);
        let readers = readers.join_all().await;

        let records = d.records(1).await;
        assert_eq!(events_of(&records), acknowledged, "each acknowledged event is there, and once");
        let mut breaks = 0;
        for Reader { wants, heard, breaks: of_one, .. } in &readers {
            let before = |record: &&Record| record.address().0 < heard.next;
            let theirs = records.iter().filter(before).filter(|record| wants.holds(record));
            let theirs: Vec<Address> = theirs.map(Record::address).collect();
            assert_eq!(heard.events, theirs, "the reader of {wants:?}");
            breaks += of_one;
        }
        println!(
            "{kills} kills: {} events acknowledged and recorded once; {} readers got all {} of theirs once and in order, over {breaks} breaks",
            acknowledged.len(),
            readers.len(),
            readers.iter().map(|r| r.heard.events.len()).sum::<usize>(),
        );
    });
}

/// Recorded events by resource, which each has alone. Panics if one is there twice.
fn events_of(records: &[Record]) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for record in records {
        if let Some(event) = recorded(record) {
            let twice = found.insert(event.resource.clone(), record.address().0);
            assert_eq!(twice, None, "{} was recorded twice", event.resource);
        }
    }
    found
}

fn recorded(record: &Record) -> Option<&EventRecorded> {
    let Record::Change { event, .. } = record else { return None };
    match &event.kind {
        Some(Kind::EventRecorded(recorded)) => Some(recorded),
        _ => None,
    }
}

/// Keys of these live long enough for any number of kills.
async fn producer(admin: Caller) -> String {
    let key = service_key("producer", vec![grant("audit.write", "logs/**")]);
    admin.call(key).await.unwrap().token
}

async fn reads(admin: Caller, category: &str) -> String {
    let logs = if category.is_empty() { "logs/**".into() } else { format!("logs/{category}") };
    let key = service_key("reader", vec![grant("audit.read", &logs)]);
    admin.call(key).await.unwrap().token
}

struct Writer {
    number: u64,
    world: Arc<World>,
    token: String,
    random: Random,
    made: u64,
    /// Positions by resource.
    acknowledged: BTreeMap<String, u64>,
}

impl Writer {
    async fn run(mut self) -> BTreeMap<String, u64> {
        while !self.world.stop.load(Ordering::Relaxed) {
            let events: Vec<NewEvent> =
                (0..1 + self.random.below(AT_ONCE)).map(|_| self.event()).collect();
            let outcomes = self.until_acknowledged(&events).await;
            assert_eq!(outcomes.len(), events.len());
            for (event, outcome) in events.into_iter().zip(outcomes) {
                let position = outcome.position.expect("no event is refused");
                self.acknowledged.insert(event.resource, position);
            }
        }
        self.acknowledged
    }

    fn event(&mut self) -> NewEvent {
        self.made += 1;
        let category = CATEGORIES[self.random.below(CATEGORIES.len() as u64) as usize];
        let person = format!("person-{}@example.com", self.random.below(50));
        NewEvent {
            resource: format!("writer-{}/{}", self.number, self.made),
            event_id: format!("{}-{}", self.number, self.made),
            ..login(&person, category)
        }
    }

    /// Asks one replica after the other, until one has made all durable.
    async fn until_acknowledged(&mut self, events: &[NewEvent]) -> Vec<EventOutcome> {
        loop {
            let replica = self.world.replica(self.random.below(2) as usize);
            let request = RecordEventsRequest { events: events.to_vec(), ..Default::default() };
            match replica.caller(&self.token).call(request).await {
                Ok(reply) => {
                    self.world.answers.send_modify(|answers| *answers += 1);
                    return reply.outcomes;
                }
                Err(status) => must_be_repeated(&status),
            }
        }
    }
}

/// What a reader wants.
#[derive(Clone, Debug)]
struct Wants {
    category: &'static str,
    resource_prefix: &'static str,
}

fn wanted() -> [Wants; 4] {
    let wants = |category, resource_prefix| Wants { category, resource_prefix };
    [
        wants("", ""),
        wants("security/login", ""),
        wants("error", "writer-3/"),
        wants("keyledger/access", ""),
    ]
}

impl Wants {
    fn request(&self, from: u64) -> StreamEventsRequest {
        let resource_prefix = self.resource_prefix.into();
        StreamEventsRequest {
            from_position: Some(from),
            category: self.category.into(),
            filter: Some(EventFilter { resource_prefix, ..Default::default() }),
            ..Default::default()
        }
    }

    fn holds(&self, record: &Record) -> bool {
        let (category, resource) = match (recorded(record), record) {
            (Some(event), _) => (event.category.as_str(), event.resource.as_str()),
            (None, Record::Change { .. }) => ("keyledger/lifecycle", ""),
            // Nobody here reads the log but by streams.
            (None, Record::Use { r#use, .. }) => match r#use.method.as_str() {
                "AuditService/StreamEvents" => ("keyledger/access", r#use.resource.as_str()),
                _ => ("keyledger/use", r#use.resource.as_str()),
            },
        };
        (self.category.is_empty() || self.category == category)
            && resource.starts_with(self.resource_prefix)
    }
}

struct Reader {
    world: Arc<World>,
    token: String,
    wants: Wants,
    heard: Heard,
    breaks: u64,
    random: Random,
    done: Arc<AtomicBool>,
}

impl Reader {
    async fn run(mut self) -> Reader {
        while !self.done.load(Ordering::Relaxed) {
            let most = self.random.below(BEFORE_A_BREAK);
            self.read(self.wants.request(self.heard.next), most).await;
        }
        let mut ended = false;
        while !ended {
            let to_the_head =
                StreamEventsRequest { stop_at_head: true, ..self.wants.request(self.heard.next) };
            ended = self.read(to_the_head, u64::MAX).await;
        }
        self
    }

    /// Reads until it breaks off or the stream does. True if the stream came to its end.
    async fn read(&mut self, request: StreamEventsRequest, most: u64) -> bool {
        let replica = self.world.replica(self.random.below(2) as usize);
        let mut stream = match replica.caller_on_new_connection(&self.token).stream(request).await {
            Ok(stream) => stream,
            Err(status) => {
                must_be_repeated(&status);
                return false;
            }
        };
        let to_break = most < u64::MAX;
        for _ in 0..most {
            match stream.message().await {
                // Once all is written, one that goes on for ever gives nothing but heartbeats.
                Ok(Some(_)) if to_break && self.done.load(Ordering::Relaxed) => break,
                Ok(Some(reply)) => self.heard.hear(reply),
                Ok(None) => return true,
                Err(status) => {
                    must_be_repeated(&status);
                    break;
                }
            }
        }
        self.heard.break_off();
        self.breaks += 1;
        false
    }
}
