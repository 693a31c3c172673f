//! How keys and owners were used before, as far as the passes have come.

use std::collections::{BTreeSet, HashMap};

use crate::store::client::Client;
use keyledger_ledger::anomaly::Subject;
use keyledger_ledger::monitor::History;
use keyledger_ledger::usage::Meter;
use uuid::Uuid;

use super::FirstKeys;
use crate::store::StoreError;
use crate::store::usage;

/// Most subjects that are asked for at once.
const AT_ONCE: usize = 100;

/// How each subject was used: hour by hour from `since_hour` on (hours since 1970), from which networks, first and last. One that was
/// never used, and whoever calls without a key that is known, has an empty history.
pub(crate) async fn histories(
    client: &Client,
    ledger_id: Uuid,
    first_keys: &FirstKeys,
    subjects: &[Subject],
    since_hour: i64,
) -> Result<HashMap<Subject, History>, StoreError> {
    let mut histories = HashMap::new();
    for some in subjects.chunks(AT_ONCE) {
        // An owner shares one with its first key.
        let each: BTreeSet<Meter> = some.iter().flat_map(|s| meters(first_keys, s)).collect();
        let each: Vec<Meter> = each.into_iter().collect();
        let found = usage::histories(client, ledger_id, &each, since_hour).await?;
        for subject in some {
            let mut history = History::default();
            for of_meter in meters(first_keys, subject).iter().filter_map(|m| found.get(m)) {
                usage::merge(&mut history, of_meter);
            }
            histories.insert(subject.clone(), history);
        }
    }
    Ok(histories)
}

/// What is kept of a subject. An owner's usage is that of its first key, and of all others together.
fn meters(first_keys: &FirstKeys, subject: &Subject) -> Vec<Meter> {
    match subject {
        Subject::Key(id) => vec![Meter::key(*id)],
        Subject::Owner(owner) => {
            let first = first_keys.of(owner).map(Meter::key);
            first.into_iter().chain([Meter::further_keys_of(owner)]).collect()
        }
        Subject::Peer(_) => vec![],
    }
}
