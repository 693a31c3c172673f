//! The write path, from top to bottom. At each point where a crash may fall, a comment says what is durable by then.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keyledger_ledger::batch::{self, Batch, Head, Means};
use keyledger_ledger::body::Kind;
use keyledger_ledger::command::{Action, Answer, Call, Command};
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::page::MAX_USES;
use keyledger_ledger::record::ProjectionAt;
use keyledger_ledger::refusals::MAX_RECORDS;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::folding::Folding;
use super::{AnswerTo, Ledger, SequencerError, Waiting, catch_up};
use crate::sealing::random;
use crate::store::ledgers::Locked;
use crate::store::{imported, keys, requests as stored_requests, tiles};
use crate::telemetry::{self, Requests, metrics};

/// Most bytes that one batch writes, about.
const MAX_BATCH_BYTES: usize = 2 << 20;
/// How many entries may follow the position that projected rows are bound to.
const BINDING_INTERVAL: u64 = 1_024;
/// Most commands of one batch: their uses and the counts of refusals fit one page.
const MAX_COMMANDS: usize = MAX_USES - MAX_RECORDS;
/// How long one batch may take before its callers are told that the database can't be reached.
const BATCH_TIMEOUT: Duration = Duration::from_secs(9);
/// How often a replica looks for news when nobody asks it anything.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);
/// How far this replica's clock may be from the database's.
const MAX_CLOCK_SKEW_US: i64 = 10_000_000;

/// Runs until the ledger is dropped or stopped.
pub(super) async fn run(ledger: Weak<Ledger>, mut queue: mpsc::Receiver<Waiting>) {
    let mut folding = Folding::default();
    let mut follow = tokio::time::interval(FOLLOW_INTERVAL);
    follow.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let first = tokio::select! {
            biased;
            waiting = queue.recv() => match waiting { Some(first) => Some(first), None => return },
            _ = follow.tick() => None,
        };
        let Some(ledger) = ledger.upgrade() else { return };
        let Work { commands, answers, catch_ups, mut requests } = take_waiting(first, &mut queue);
        requests.begin(&ledger, commands.len());
        // Something else may have stopped it since these commands were taken into the queue.
        if let Some(why) = ledger.stopped() {
            let error = SequencerError::Stopped(why.into());
            requests.end(Some(&error));
            catch_ups.into_iter().for_each(|done| drop(done.send(Err(error.clone()))));
            answers.into_iter().for_each(|to| drop(to.send(Err(error.clone()))));
            continue;
        }
        let work = serve(&ledger, commands, &requests, &mut folding);
        let result = requests.around(work).await;
        requests.end(result.as_ref().err());
        if let Err(SequencerError::Stopped(why)) = &result {
            ledger.stop(why);
        }
        // Whoever only waited for news has them too: a batch begins with catching up.
        for done in catch_ups {
            let _ = done.send(result.as_ref().map(|_| ()).map_err(Clone::clone));
        }
        // A caller that has gone away gets no answer; what it asked for is durable all the same.
        match result {
            Ok(outcomes) => answers
                .into_iter()
                .zip(outcomes)
                .for_each(|(to, answer)| folding.answer(to, answer)),
            Err(error) => answers.into_iter().for_each(|to| drop(to.send(Err(error.clone())))),
        }
    }
}

#[derive(Default)]
struct Work {
    commands: Vec<Command>,
    answers: Vec<AnswerTo>,
    catch_ups: Vec<oneshot::Sender<Result<(), SequencerError>>>,
    requests: Requests,
}

/// Natural batching: whatever has come while the last batch was written. No timer; bounded by count and bytes.
fn take_waiting(first: Option<Waiting>, queue: &mut mpsc::Receiver<Waiting>) -> Work {
    let mut work = Work::default();
    let (mut bytes, mut next) = (0, first);
    while let Some(waiting) = next {
        match waiting {
            Waiting::CatchUp(done) => work.catch_ups.push(done),
            Waiting::Command(command, answer, request) => {
                bytes += command.weight();
                work.requests.add(work.commands.len(), request);
                work.commands.push(*command);
                work.answers.push(answer);
            }
        }
        if work.commands.len().max(work.catch_ups.len()) >= MAX_COMMANDS || bytes >= MAX_BATCH_BYTES
        {
            break;
        }
        next = queue.try_recv().ok();
    }
    work
}

/// Catches up and, if there are commands, makes them durable. Returns an answer for each.
async fn serve(
    ledger: &Ledger,
    commands: Vec<Command>,
    requests: &Requests,
    folding: &mut Folding,
) -> Result<Vec<Answer>, SequencerError> {
    // COMMIT may have been sent when the time runs out, so then nothing is known. The batch is dropped; should it have
    // been committed, the next catch-up finds it.
    let mut committing = false;
    let began = Instant::now();
    let attempt = async {
        match commands.is_empty() && !folding.is_due() {
            true => catch_up::without_lock(ledger).await.map(|()| vec![]),
            false => write(ledger, commands, requests, folding, &mut committing).await,
        }
    };
    match tokio::time::timeout(BATCH_TIMEOUT, attempt).await {
        Ok(result) => {
            if result.is_ok() {
                ledger.confirm(began);
            }
            result
        }
        Err(_) if committing => {
            Err(SequencerError::OutcomeUnknown("the database doesn't answer".into()))
        }
        Err(_) => Err(SequencerError::Unavailable("the database doesn't answer".into())),
    }
}

async fn write(
    ledger: &Ledger,
    commands: Vec<Command>,
    requests: &Requests,
    folding: &mut Folding,
    committing: &mut bool,
) -> Result<Vec<Answer>, SequencerError> {
    // Only the lock: a crash here leaves nothing.
    let (head, locked) = lock_at_head(ledger).await?;
    let known = stored_requests::known(locked.client(), ledger.id, &request_ids(&commands)).await?;
    let now = batch_time(&head, locked.clock_us)?;
    ledger.note_clock(locked.clock_us);
    let shed = ledger.shed.swap(0, Ordering::Relaxed);

    // Decided and sealed in memory: a crash here leaves nothing.
    let means = Means {
        signer: &ledger.keys.entry_signer,
        peppers: &ledger.keys.peppers,
        now,
        known,
        shed,
        seed: random(),
        refusals: folding.counted(),
        touched: !requests.is_empty(),
    };
    let mut batch = batch::run(&head, means, commands);
    batch.head.rows = ledger.keys.row_mac.advance(head.rows, &head.state, &batch.head.state);
    // Beside the entries, written and not committed: a crash here leaves nothing, Postgres rolls back.
    store_beside(ledger, &locked, &head, &batch)
        .await
        .inspect_err(|_| put_back_shed(ledger, shed))?;
    // From here on the batch may be durable although nobody hears of it.
    *committing = true;
    let began = Instant::now();
    locked.append_and_commit(&ledger.writer, ledger.id, &batch.entries).await?;
    // Durable. A crash here loses only the answers; callers find out with their request ids.
    metrics::batch_committed(batch.answers.len(), began.elapsed());
    ledger.tally.count(&batch);
    telemetry::remember(ledger, &batch.entries);
    requests.tell(ledger, &batch);
    ledger.publish(Arc::new(batch.head));
    put_back_shed(ledger, batch.shed_left);
    folding.recorded(batch.refusals);
    Ok(batch.answers)
}

/// Takes the lock and what was appended since. Who is far behind gives the lock back and reads on without it.
async fn lock_at_head(ledger: &Ledger) -> Result<(Arc<Head>, Locked), SequencerError> {
    loop {
        let head = ledger.snapshot();
        let from = head.state.next_position;
        let began = Instant::now();
        let mut locked = Locked::begin(&ledger.writer, ledger.id, from, catch_up::CHUNK).await?;
        metrics::lock_had(began.elapsed());
        if (locked.news.len() as i64) < catch_up::CHUNK {
            let news = std::mem::take(&mut locked.news);
            let head = catch_up::with_news(ledger, locked.client(), head, news).await?;
            return Ok((head, locked));
        }
        drop(locked);
        catch_up::without_lock(ledger).await?;
    }
}

/// The database's clock orders the replicas' batches; it never runs backwards within a ledger.
fn batch_time(head: &Head, clock_us: i64) -> Result<Time, SequencerError> {
    let own = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as i64;
    let skew = own - clock_us;
    if skew.abs() > MAX_CLOCK_SKEW_US {
        return Err(SequencerError::ClockSkew(skew / 1000));
    }
    Ok(head.state.newest_time.max(Time(clock_us)))
}

/// Tiles, projections, verifiers and request ids, where a batch has any; pages have none.
async fn store_beside(
    ledger: &Ledger,
    locked: &Locked,
    before: &Head,
    batch: &Batch,
) -> Result<(), SequencerError> {
    let (client, id) = (locked.client(), ledger.id);
    if !batch.full_tiles.is_empty() {
        tiles::append(client, id, &batch.full_tiles).await?;
    }
    if !batch.changed_keys.is_empty() {
        keys::project(client, id, &batch.changed_keys, &ledger.keys.row_mac).await?;
    }
    if is_binding_due(before, batch) {
        let at = ProjectionAt::of(&batch.head.state);
        let mac = ledger.keys.row_mac.of_sum(id.as_bytes(), &at, batch.head.rows);
        keys::bind(client, id, &at, &mac).await?;
    }
    if !batch.secrets.is_empty() {
        keys::append_secrets(client, id, &batch.secrets).await?;
    }
    if !batch.imported.is_empty() {
        imported::append(client, id, &batch.imported).await?;
    }
    if !batch.migrated.is_empty() {
        imported::delete(client, id, &batch.migrated).await?;
    }
    if !batch.requests.is_empty() {
        stored_requests::append(client, id, &batch.requests).await?;
    }
    Ok(())
}

/// The rows are bound to a new position whenever something changed, and so often that a replica that starts has little to
/// read: entries from the bound position on are folded one by one.
fn is_binding_due(before: &Head, batch: &Batch) -> bool {
    let changes = batch.entries.iter().any(|e| !matches!(e.event.kind, Some(Kind::UsePage(_))));
    let (old, new) = (before.state.next_position, batch.head.state.next_position);
    changes || !batch.changed_keys.is_empty() || old / BINDING_INTERVAL != new / BINDING_INTERVAL
}

fn put_back_shed(ledger: &Ledger, shed: u64) {
    ledger.shed.fetch_add(shed, Ordering::Relaxed);
}

fn request_ids(commands: &[Command]) -> Vec<(KeyId, [u8; 16])> {
    let of = |call: &Call| Some((call.credential.key_id()?, call.request?.id));
    let ids = |command: &Command| match &command.action {
        Action::Change(_) => of(&command.call).into_iter().collect(),
        Action::RecordAll(all) => all.iter().filter_map(|(call, _)| of(call)).collect(),
        _ => vec![],
    };
    commands.iter().flat_map(ids).collect()
}
