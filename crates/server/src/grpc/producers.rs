//! RegisterProducerKeys: the public keys by which a service signs what it records.

use keyledger_ledger::body::Texts;
use keyledger_ledger::command::ChangeKind;
use keyledger_proto::RegisterProducerKeysResponse;
use keyledger_proto::parse::RegisterProducerKeys;

use super::call::{CallContext, Outcome};
use super::status::Failure;
use crate::sealing::About;

pub(super) async fn register_producer_keys(
    mut call: CallContext,
    r: RegisterProducerKeys,
) -> Result<RegisterProducerKeysResponse, Failure> {
    let texts = Texts { reason: r.common.reason.clone(), ..Texts::default() };
    let sealed = call.seal(About::Nobody, &texts).await?;
    let kind = ChangeKind::RegisterProducerKeys { public_keys: r.public_keys };
    let position = match call.change(kind, sealed, &r.common).await? {
        Outcome::Done { position, .. } | Outcome::Replayed { position } => Some(position),
        Outcome::Validated { .. } | Outcome::Seen => None,
    };
    Ok(RegisterProducerKeysResponse { position })
}
