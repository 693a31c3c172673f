//! What single commands of a batch touched, for whoever traces them. It is told only where somebody asks.

use super::Run;
use super::uses::Authorised;
use crate::body::{Caller, DecisionReason, Event, Use};
use crate::id::KeyId;

/// What one command came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    /// The key that was used or changed, or only seemed to be used.
    pub key: Option<TouchedKey>,
    /// The caller's key, where that is another one.
    pub caller: Option<TouchedKey>,
    pub reason: DecisionReason,
    /// Position of the entry, or of the page that holds the use. `None`: it is only counted, in a later page.
    pub position: Option<u64>,
}

/// A key that a command touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TouchedKey {
    pub id: KeyId,
    /// 0 if the secret is none of its.
    pub version: u32,
    /// Position of its newest lifecycle entry before; `None` if there is none.
    pub entry: Option<u64>,
}

impl Run<'_> {
    /// A use: of the open page, or one that is only counted.
    pub(super) fn note_use(&mut self, r#use: &Use, in_page: bool) {
        if !self.means.touched {
            return;
        }
        let touched = Touched {
            key: self.touched_key(&r#use.key_id, r#use.version),
            caller: self.touched_caller(r#use.caller.as_ref()),
            reason: DecisionReason::try_from(r#use.reason).expect("we wrote it"),
            position: None,
        };
        self.note(touched);
        if in_page {
            self.in_page.push(self.command);
        }
    }

    /// A change, before it is applied.
    pub(super) fn note_change(&mut self, event: &Event, caller: &Authorised) {
        if !self.means.touched {
            return;
        }
        let link = event.kind.as_ref().and_then(|kind| kind.key_link());
        self.note(Touched {
            key: link.and_then(|link| self.touched_key(&link.key_id, 0)),
            caller: self.touched_caller(caller.caller.as_ref()),
            reason: DecisionReason::Granted,
            position: Some(self.state().next_position),
        });
    }

    /// The open page is about to be closed: only now it has its position for good.
    pub(super) fn note_page(&mut self) {
        let position = self.state().next_position;
        for command in std::mem::take(&mut self.in_page) {
            if let Some(Some(touched)) = self.batch.touched.get_mut(command) {
                touched.position = Some(position);
            }
        }
    }

    fn note(&mut self, touched: Touched) {
        // What was only counted in the last second belongs to no command of this batch.
        if let Some(place) = self.batch.touched.get_mut(self.command) {
            *place = Some(touched);
        }
    }

    fn touched_caller(&self, caller: Option<&Caller>) -> Option<TouchedKey> {
        self.touched_key(&caller?.key_id, caller?.version)
    }

    fn touched_key(&self, id: &[u8], version: u32) -> Option<TouchedKey> {
        let id = KeyId::from_slice(id)?;
        let entry = self.state().keys.get(&id).map(|key| key.position);
        Some(TouchedKey { id, version, entry })
    }
}
