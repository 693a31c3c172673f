//! GetCategoryCounts: how many events of its categories a reader must have been given, and the proof.

use keyledger_ledger::body::{CategoryCount, Event, Kind, decode_canonical};
use keyledger_ledger::category;
use keyledger_ledger::id::Time;
use keyledger_ledger::merkle::Hash;
use keyledger_ledger::proof;
use keyledger_proto::{GetCategoryCountsResponse, ProvenCount, RawEntry, show};

use super::call::CallContext;
use super::export::Proofs;
use super::gate::GivesEvents;
use super::status::Failure;
use crate::store::entries;

impl GivesEvents for GetCategoryCountsResponse {
    fn events_given(&self) -> u64 {
        self.counts.len() as u64
    }
}

pub(super) async fn get_category_counts(
    call: CallContext,
    _: (),
) -> Result<GetCategoryCountsResponse, Failure> {
    call.ledger.count_categories().await?;
    let client = call.ledger.database.client().await?;
    let position = entries::newest_counts(&client, call.ledger.id).await?;
    let found = match position {
        Some(position) => entries::at_positions(&client, call.ledger.id, &[position]).await?.pop(),
        None => None,
    };
    drop(client);
    let found = found.ok_or(Failure::Internal("a ledger whose counts were told holds them"))?;
    let event = Event::from_signed(&found.entry.body).ok();
    let counted = event.as_ref().and_then(|event| match &event.kind {
        Some(Kind::CategoryCounted(counted)) => Some((event.time_us, counted)),
        _ => None,
    });
    let (time, counted) = counted.ok_or(Failure::Internal("an entry of counts can't be read"))?;
    let records = category::read_counts(counted, &found.uses);
    let records = records.ok_or(Failure::Internal("counts are not those that were signed"))?;
    let leaves: Vec<Hash> = records.iter().map(category::leaf).collect();
    let mut counts = vec![];
    for (index, record) in records.into_iter().enumerate() {
        let CategoryCount { category, count } =
            decode_canonical(&record.count, "CategoryCount").unwrap_or_default();
        if !call.may_read(&category) {
            continue;
        }
        let path = proof::inclusion(&leaves, index as u64).unwrap_or_default();
        counts.push(ProvenCount {
            category,
            count,
            salt: record.salt,
            leaf_index: index as u64,
            path: path.into_iter().map(Vec::from).collect(),
        });
    }
    counts.sort_by(|a, b| a.category.cmp(&b.category));
    let entry = RawEntry {
        payload_type: found.entry.payload_type,
        body: found.entry.body,
        public_key_sha256: found.entry.public_key_sha256.to_vec(),
        signature: found.entry.signature.to_vec(),
        ..RawEntry::default()
    };
    let checkpoint = call.ledger.sign_checkpoint().await?;
    let checkpoint = checkpoint.ok_or(Failure::Internal("a ledger without entries"))?;
    let mut proofs = Proofs::new(call.ledger.id, checkpoint.checkpoint.size);
    let path = proofs.path(&call, found.position).await?;
    Ok(GetCategoryCountsResponse {
        position: found.position,
        time: Some(show::timestamp(Time(time))),
        entry: Some(entry),
        counts,
        checkpoint: checkpoint.note.clone(),
        inclusion_path: path.into_iter().map(Vec::from).collect(),
    })
}
