//! Moments: what of a ledger an answer shows, now or as it was.

use std::sync::Arc;

use keyledger_ledger::batch::Head;
use keyledger_ledger::body::Texts;
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::state::{Key, State};
use keyledger_proto::parse::{AsOf, Violation};
use keyledger_proto::show;

use super::call::CallContext;
use super::keys::key_texts;
use super::status::Failure;
use crate::last_uses;
use crate::replica::own_clock;
use crate::store::entries;

/// A moment of a ledger: just before a position.
pub(super) struct Moment {
    pub(super) position: u64,
    /// At which time states and ends of keys are judged.
    pub(super) time: Time,
    as_of: AsOf,
    live: Arc<Head>,
}

impl Moment {
    pub(super) async fn of(call: &CallContext, as_of: AsOf) -> Result<Moment, Failure> {
        let live = call.head();
        let size = live.state.next_position;
        let (position, time) = match as_of {
            AsOf::Now => (size, live.state.newest_time.max(own_clock())),
            AsOf::Time(time) => {
                let client = call.ledger.database.client().await?;
                (entries::size_at(&client, call.ledger.id, size, time).await?, time)
            }
            AsOf::Position(0) => (0, Time(0)),
            AsOf::Position(position) if position <= size => {
                let client = call.ledger.database.client().await?;
                let time = entries::time_of(&client, call.ledger.id, position - 1).await?;
                (position, time)
            }
            AsOf::Position(_) => {
                let description = format!("must be at most {size}, the size of the ledger");
                let violation = Violation { field: "as_of_position".into(), description };
                return Err(vec![violation].into());
            }
        };
        Ok(Moment { position, time, as_of, live })
    }

    /// The moment of a further page, by what [`Moment::for_next_page`] left in its token: the same as that of the first one,
    /// though entries of a time that was still to come may have been written since.
    pub(super) async fn of_page(
        call: &CallContext,
        as_of: AsOf,
        left: &[u8],
    ) -> Result<Moment, Failure> {
        let (time, live) = match as_of {
            AsOf::Time(time) => (time, call.head()),
            _ if left.is_empty() => return Moment::of(call, as_of).await,
            _ => return Err(Failure::PageToken),
        };
        let position = u64::from_be_bytes(left.try_into().map_err(|_| Failure::PageToken)?);
        let known = position <= live.state.next_position;
        if known { Ok(Moment { position, time, as_of, live }) } else { Err(Failure::PageToken) }
    }

    /// What the token of the next page must say of this moment, besides `as_of`.
    pub(super) fn for_next_page(&self) -> Vec<u8> {
        match self.as_of {
            AsOf::Time(_) => self.position.to_be_bytes().to_vec(),
            AsOf::Now | AsOf::Position(_) => vec![],
        }
    }

    pub(super) async fn state(&self, call: &CallContext) -> Result<State, Failure> {
        match self.as_of {
            AsOf::Now => Ok(self.live.state.clone()),
            AsOf::Position(_) | AsOf::Time(_) => {
                Ok(call.replica.history.state_as_of(&call.ledger, self.position).await?)
            }
        }
    }

    /// A state that has its roles, and perhaps no keys.
    pub(super) async fn roles(&self, call: &CallContext) -> Result<State, Failure> {
        match self.as_of {
            AsOf::Now => Ok(self.live.state.clone()),
            AsOf::Position(_) | AsOf::Time(_) => {
                Ok(call.replica.history.roles_as_of(&call.ledger, self.position).await?)
            }
        }
    }

    /// A key as it is or was. How often it had been used at a moment of the past isn't known.
    pub(super) fn show_key(&self, state: &State, key: &Key, texts: &Texts) -> keyledger_proto::Key {
        let shown = show::key(state, key, texts, self.time);
        match self.as_of {
            AsOf::Now => shown,
            AsOf::Position(_) | AsOf::Time(_) => show::of_the_past(shown),
        }
    }

    /// Keys with their texts and, of now, with when they were last used.
    pub(super) async fn show_keys(
        &self,
        call: &CallContext,
        state: &State,
        keys: &[Arc<Key>],
    ) -> Result<Vec<keyledger_proto::Key>, Failure> {
        let texts = key_texts(call, keys).await?;
        let shown = keys.iter().zip(&texts).map(|(key, texts)| self.show_key(state, key, texts));
        if self.as_of != AsOf::Now {
            return Ok(shown.collect());
        }
        let ids: Vec<KeyId> = keys.iter().map(|key| key.id).collect();
        let last_uses = last_uses::of_keys(&call.ledger, &ids).await?;
        let with_last_uses = |(key, id)| show::with_last_uses(key, &last_uses[id]);
        Ok(shown.zip(&ids).map(with_last_uses).collect())
    }
}
