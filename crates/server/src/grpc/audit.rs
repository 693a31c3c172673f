//! AuditService: single events and checkpoints.

use keyledger_ledger::note::NoteKey;
use keyledger_proto::{EventView, GetCheckpointResponse, GetEventRequest, GetEventResponse};

use super::call::CallContext;
use super::events::{Selection, Viewer, events_of, raw_event};
use super::gate::GivesEvents;
use super::status::Failure;
use crate::store::entries;

impl GivesEvents for GetEventResponse {
    fn events_given(&self) -> u64 {
        self.event.iter().count() as u64
    }
}

pub(super) async fn get_event(
    call: CallContext,
    r: GetEventRequest,
) -> Result<GetEventResponse, Failure> {
    let position = r.position.unwrap_or_default();
    let client = call.ledger.database.client().await?;
    let mut entries = entries::at_positions(&client, call.ledger.id, &[position]).await?;
    drop(client);
    let entry = entries.pop().ok_or(Failure::EventNotFound)?;
    if r.view() == EventView::Raw {
        call.require_everything()?;
        return Ok(GetEventResponse { event: Some(raw_event(&call, &entry).await?) });
    }
    let events = events_of(&Viewer::Caller(&call), &entry, &Selection::default()).await?;
    let wanted = events.into_iter().find(|e| e.index == r.index);
    Ok(GetEventResponse { event: Some(wanted.ok_or(Failure::EventNotFound)?) })
}

pub(super) async fn get_checkpoint(
    call: CallContext,
    _: (),
) -> Result<GetCheckpointResponse, Failure> {
    let head = call.head();
    let info = head.state.ledger.as_ref().ok_or(Failure::Internal("no ledger"))?;
    let signed = call
        .ledger
        .sign_checkpoint()
        .await?
        .ok_or(Failure::Internal("a ledger without entries"))?;
    let key = NoteKey::new(&info.origin, info.checkpoint_key)
        .map_err(|_| Failure::Internal("a bad origin"))?;
    Ok(GetCheckpointResponse {
        note: signed.note.clone(),
        size: signed.checkpoint.size,
        root_hash: signed.checkpoint.root.to_vec(),
        verifier_key: key.vkey(),
    })
}
