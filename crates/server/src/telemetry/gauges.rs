//! What metrics read of a replica when they are exported: nothing of it costs a call anything. No label is a key, an owner or
//! a permission; ledgers beyond [`MAX_LEDGERS`] share one.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use keyledger_ledger::body::DecisionReason;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use uuid::Uuid;

use crate::event_names::{decision, reason_code};
use crate::names;
use crate::replica::Replica;
use crate::sequencer::Ledger;
use crate::store::connect::PoolUse;
use crate::store::{StoreError, forwarders};

/// Most ledgers that have a label of their own: the first ones.
const MAX_LEDGERS: usize = 100;
/// The label of all others.
const OTHERS: &str = "others";
/// How often it is read how far forwarders have come.
const LAG_INTERVAL: Duration = Duration::from_secs(5);

/// A value with its attributes.
type Point<T> = (T, Vec<KeyValue>);

/// How far the forwarders of each ledger are behind, by their names.
#[derive(Default)]
struct Lags(Mutex<HashMap<Uuid, BTreeMap<String, Lag>>>);

#[derive(Clone, Copy)]
struct Lag {
    entries: u64,
    /// How long ago the first of them was written.
    us: i64,
}

/// Registers everything that is read of a replica. `forwarders` are the names of those that are configured.
pub(super) fn observe(meter: &Meter, replica: &Arc<Replica>, forwarders: Vec<String>) {
    let source = Source { meter, replica: Arc::downgrade(replica) };
    source.pools();
    source.ledgers();
    source.replica();
    if !forwarders.is_empty() {
        let lags = Arc::new(Lags::default());
        source.forwarders(&lags);
        tokio::spawn(follow(Arc::downgrade(replica), forwarders, lags));
    }
}

struct Source<'a> {
    meter: &'a Meter,
    replica: Weak<Replica>,
}

impl Source<'_> {
    fn pools(&self) {
        self.level(
            names::DB_CLIENT_CONNECTION_COUNT,
            "{connection}",
            "Connections of a pool by state.",
            |replica| {
                let states = |(name, used): (&'static str, PoolUse)| {
                    [("idle", used.idle), ("used", used.used)].map(|(state, count)| {
                        let state = KeyValue::new(names::DB_CLIENT_CONNECTION_STATE, state);
                        (count, vec![pool(name), state])
                    })
                };
                pools(replica).into_iter().flat_map(states).collect()
            },
        );
        self.level(
            names::DB_CLIENT_CONNECTION_MAX,
            "{connection}",
            "Most connections of a pool.",
            |replica| of_pools(replica, |used| used.max),
        );
        self.level(
            names::DB_CLIENT_CONNECTION_PENDING_REQUESTS,
            "{request}",
            "Calls that wait for a connection.",
            |replica| of_pools(replica, |used| used.pending),
        );
        self.count(
            names::DB_CLIENT_CONNECTION_TIMEOUTS,
            "{timeout}",
            "Calls that got no connection in time.",
            |replica| of_pools(replica, |used| used.timeouts),
        );
    }

    fn ledgers(&self) {
        let sum = |a: u64, b: u64| a + b;
        self.count(
            names::ENTRIES_APPENDED,
            "{entry}",
            "Entries that this replica has appended.",
            move |replica| of_ledgers(replica, |l| Some(l.tally.entries()), sum),
        );
        self.level(
            names::QUEUE_DEPTH,
            "{command}",
            "What waits for the next batch.",
            move |replica| of_ledgers(replica, |l| Some(l.queue_depth() as u64), sum),
        );
        self.level(
            names::OBSERVER_LAG,
            "{entry}",
            "Entries that the observer has not looked at.",
            move |replica| of_ledgers(replica, |l| Some(behind(l, l.observer.known())), sum),
        );
        self.level(
            names::SCRUBBER_POSITION,
            "{entry}",
            "Entries that the scrubber has read again on its present walk.",
            move |replica| of_ledgers(replica, |l| Some(l.scrubbed.load(Ordering::Relaxed)), sum),
        );
        self.level(
            names::SCRUBBER_ROWS,
            "{row}",
            "Projected rows of keys that differed or were missing on the scrubber's last walk.",
            move |replica| {
                of_ledgers(replica, |l| Some(l.rows_differ.load(Ordering::Relaxed)), sum)
            },
        );
        self.level(
            names::CHECKPOINT_SIZE,
            "{entry}",
            "Entries that the newest checkpoint of this replica covers.",
            move |replica| of_ledgers(replica, |l| Some(checkpoint_size(l)), sum),
        );
        self.level(
            names::CHECKPOINT_LAG,
            "{entry}",
            "Entries that no checkpoint of this replica covers yet.",
            move |replica| of_ledgers(replica, |l| Some(behind(l, checkpoint_size(l))), sum),
        );
        self.seconds(
            names::CHECKPOINT_AGE,
            "How long ago this replica signed its newest checkpoint; a ledger that doesn't grow gets no new one.",
            |replica| {
                let age = |l: &Ledger| l.newest_checkpoint().map(|c| c.age().as_secs_f64());
                of_ledgers(replica, age, f64::max)
            },
        );
    }

    fn replica(&self) {
        self.count(
            names::VERDICTS,
            "{verdict}",
            "Answers of VerifyKey by decision and reason.",
            verdicts,
        );
        self.count(
            names::ANOMALIES_RAISED,
            "{anomaly}",
            "Anomalies that this replica has raised, by rule.",
            anomalies,
        );
        self.count(
            names::CALLS_SHED,
            "{call}",
            "Calls that were turned away because too many ran.",
            |replica| vec![(replica.system.tally.shed(), vec![])],
        );
        self.level(names::STREAMS_OPEN, "{stream}", "Streams that are open.", |replica| {
            vec![(replica.streams.count() as u64, vec![])]
        });
        self.level(
            names::LEDGERS_STOPPED,
            "{ledger}",
            "Ledgers that this replica serves no more.",
            |replica| {
                let stopped = replica.all().iter().filter(|l| l.stopped().is_some()).count();
                vec![(stopped as u64, vec![])]
            },
        );
    }

    fn forwarders(&self, lags: &Arc<Lags>) {
        let known = lags.clone();
        self.level(
            names::FORWARDER_LAG_ENTRIES,
            "{entry}",
            "Entries that a forwarder has not passed.",
            move |replica| known.points(replica, |lag| lag.entries, |a, b| a + b),
        );
        let known = lags.clone();
        self.seconds(
            names::FORWARDER_LAG_DURATION,
            "How long ago the first entry was written that a forwarder has not passed.",
            move |replica| known.points(replica, |lag| lag.us as f64 / 1e6, f64::max),
        );
    }

    /// What only rises.
    fn count(
        &self,
        name: &'static str,
        unit: &'static str,
        description: &'static str,
        read: impl Fn(&Replica) -> Vec<Point<u64>> + Send + Sync + 'static,
    ) {
        let replica = self.replica.clone();
        let counter = self.meter.u64_observable_counter(name).with_unit(unit);
        let counter = counter.with_description(description).with_callback(move |observer| {
            let points = replica.upgrade().map(|replica| read(&replica));
            points.into_iter().flatten().for_each(|(value, of)| observer.observe(value, &of));
        });
        counter.build();
    }

    /// What rises and falls.
    fn level(
        &self,
        name: &'static str,
        unit: &'static str,
        description: &'static str,
        read: impl Fn(&Replica) -> Vec<Point<u64>> + Send + Sync + 'static,
    ) {
        let replica = self.replica.clone();
        let counter = self.meter.i64_observable_up_down_counter(name).with_unit(unit);
        let counter = counter.with_description(description).with_callback(move |observer| {
            let points = replica.upgrade().map(|replica| read(&replica));
            let points = points.into_iter().flatten();
            points.for_each(|(value, of)| observer.observe(value as i64, &of));
        });
        counter.build();
    }

    fn seconds(
        &self,
        name: &'static str,
        description: &'static str,
        read: impl Fn(&Replica) -> Vec<Point<f64>> + Send + Sync + 'static,
    ) {
        let replica = self.replica.clone();
        let gauge = self.meter.f64_observable_gauge(name).with_unit("s");
        let gauge = gauge.with_description(description).with_callback(move |observer| {
            let points = replica.upgrade().map(|replica| read(&replica));
            points.into_iter().flatten().for_each(|(value, of)| observer.observe(value, &of));
        });
        gauge.build();
    }
}

fn pools(replica: &Replica) -> [(&'static str, PoolUse); 3] {
    [
        ("readers", replica.databases.readers.pool_use()),
        ("writers", replica.databases.writers.pool_use()),
        ("sealing", replica.sealing.pool_use()),
    ]
}

fn pool(name: &'static str) -> KeyValue {
    KeyValue::new(names::DB_CLIENT_CONNECTION_POOL_NAME, name)
}

fn of_pools(replica: &Replica, read: fn(&PoolUse) -> u64) -> Vec<Point<u64>> {
    pools(replica).iter().map(|(name, used)| (read(used), vec![pool(name)])).collect()
}

/// All ledgers with their labels.
fn labelled(replica: &Replica) -> Vec<(String, Arc<Ledger>)> {
    let mut ledgers = replica.all();
    ledgers.sort_by_key(|ledger| ledger.number);
    let label = |(number, ledger): (usize, Arc<Ledger>)| match number < MAX_LEDGERS {
        true => (ledger.id.to_string(), ledger),
        false => (OTHERS.into(), ledger),
    };
    ledgers.into_iter().enumerate().map(label).collect()
}

/// A value of each ledger, by its id; those without a label of their own are put together.
fn of_ledgers<T: Copy>(
    replica: &Replica,
    read: impl Fn(&Ledger) -> Option<T>,
    together: impl Fn(T, T) -> T,
) -> Vec<Point<T>> {
    let mut values: BTreeMap<String, T> = BTreeMap::new();
    for (label, ledger) in labelled(replica) {
        let Some(value) = read(&ledger) else { continue };
        let before = values.get(&label).copied();
        values.insert(label, before.map_or(value, |before| together(before, value)));
    }
    let point = |(label, value)| (value, vec![KeyValue::new(names::LEDGER_ID, label)]);
    values.into_iter().map(point).collect()
}

fn checkpoint_size(ledger: &Ledger) -> u64 {
    ledger.newest_checkpoint().map_or(0, |newest| newest.checkpoint.size)
}

/// Entries of a ledger from a position on.
fn behind(ledger: &Ledger, position: u64) -> u64 {
    ledger.snapshot().state.next_position.saturating_sub(position)
}

fn verdicts(replica: &Replica) -> Vec<Point<u64>> {
    let mut sums: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for ledger in replica.all() {
        for (reason, count) in ledger.tally.verdicts() {
            let decision = decision(reason == DecisionReason::Granted);
            *sums.entry((decision, reason_code(reason))).or_default() += count;
        }
    }
    let of = |decision, reason| {
        vec![KeyValue::new(names::DECISION, decision), KeyValue::new(names::REASON_CODE, reason)]
    };
    sums.into_iter().map(|((decision, reason), count)| (count, of(decision, reason))).collect()
}

fn anomalies(replica: &Replica) -> Vec<Point<u64>> {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for ledger in replica.all() {
        for (rule, count) in ledger.tally.anomalies() {
            let name = rule.as_str_name();
            let name = name.strip_prefix("MONITORING_RULE_").unwrap_or(name);
            *sums.entry(name).or_default() += count;
        }
    }
    let rule = |name| vec![KeyValue::new(names::ANOMALY_RULE, name)];
    sums.into_iter().map(|(name, count)| (count, rule(name))).collect()
}

impl Lags {
    /// A value of each forwarder, by its ledger and name; those of ledgers without a label of their own are put together.
    fn points<T: Copy>(
        &self,
        replica: &Replica,
        read: fn(&Lag) -> T,
        together: fn(T, T) -> T,
    ) -> Vec<Point<T>> {
        let lags = self.0.lock().expect("no holder of this lock panics");
        let mut values: BTreeMap<(String, String), T> = BTreeMap::new();
        for (label, ledger) in labelled(replica) {
            for (name, lag) in lags.get(&ledger.id).into_iter().flatten() {
                let value = |before: Option<&T>| match before {
                    Some(before) => together(*before, read(lag)),
                    None => read(lag),
                };
                let of = (label.clone(), name.clone());
                let value = value(values.get(&of));
                values.insert(of, value);
            }
        }
        let point = |((label, name), value)| {
            let of = [(names::LEDGER_ID, label), (names::FORWARDER_NAME, name)];
            (value, of.map(|(key, value): (&'static str, String)| KeyValue::new(key, value)).into())
        };
        values.into_iter().map(point).collect()
    }
}

/// Reads again and again how far forwarders have come, whoever runs them. Runs until the replica is dropped.
async fn follow(replica: Weak<Replica>, names: Vec<String>, lags: Arc<Lags>) {
    let mut interval = tokio::time::interval(LAG_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let Some(replica) = replica.upgrade() else { return };
        for ledger in replica.all() {
            match read_lags(&replica, &ledger, &names).await {
                Ok(read) => {
                    let mut lags = lags.0.lock().expect("no holder of this lock panics");
                    lags.insert(ledger.id, read);
                }
                // What was known of this ledger stays; the others are read all the same.
                Err(error) => {
                    tracing::debug!(%error, ledger_id = %ledger.id, "how far forwarders are behind is not known")
                }
            }
        }
    }
}

async fn read_lags(
    replica: &Replica,
    ledger: &Ledger,
    names: &[String],
) -> Result<BTreeMap<String, Lag>, StoreError> {
    let client = replica.databases.readers.client().await?;
    let listed = forwarders::list(&client, ledger.id).await?;
    let wanted = listed.into_iter().filter(|f| names.contains(&f.name));
    let lag =
        |f: &forwarders::Listed| Lag { entries: behind(ledger, f.next_position), us: f.behind_us };
    Ok(wanted.map(|f| (f.name.clone(), lag(&f))).collect())
}
