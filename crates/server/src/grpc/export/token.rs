//! Resume tokens: all that it takes to go on with an export, on any replica. They carry a MAC: what stands in one was put there
//! by us, for this ledger, this key and this request.

use keyledger_ledger::merkle::{Frontier, Hash};
use keyledger_ledger::note::Checkpoint;
use prost::Message;
use sha2::{Digest, Sha256};

use super::Cursor;
use crate::grpc::call::CallContext;
use crate::grpc::status::Failure;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Token {
    /// SHA-256 of the request that it belongs to.
    #[prost(bytes = "vec", tag = "1")]
    asked: Vec<u8>,
    #[prost(uint64, tag = "2")]
    size: u64,
    #[prost(bytes = "vec", tag = "3")]
    root: Vec<u8>,
    #[prost(uint64, tag = "4")]
    position: u64,
    #[prost(uint32, tag = "5")]
    index: u32,
    #[prost(uint64, tag = "6")]
    lines: u64,
    /// The compact range of the hashes of these lines.
    #[prost(bytes = "vec", repeated, tag = "7")]
    roots: Vec<Vec<u8>>,
    /// What the caller could read.
    #[prost(bytes = "vec", tag = "8")]
    pub(super) rights: Vec<u8>,
}

impl Token {
    pub(super) fn new(
        asked: &[u8],
        snapshot: &Checkpoint,
        cursor: Cursor,
        lines: &Frontier,
        rights: &[u8],
    ) -> Token {
        Token {
            asked: Sha256::digest(asked).to_vec(),
            size: snapshot.size,
            root: snapshot.root.to_vec(),
            position: cursor.position,
            index: cursor.index,
            lines: lines.size(),
            roots: lines.parts().iter().map(|root| root.to_vec()).collect(),
            rights: rights.to_vec(),
        }
    }

    pub(super) fn write(&self, call: &CallContext) -> Vec<u8> {
        let bytes = self.encode_to_vec();
        [mac(call, &bytes).as_slice(), &bytes].concat()
    }

    pub(super) fn read(call: &CallContext, asked: &[u8], bytes: &[u8]) -> Result<Token, Failure> {
        let (found, bytes) =
            bytes.split_at_checked(size_of::<Hash>()).ok_or(Failure::ResumeToken)?;
        let good: bool = subtle::ConstantTimeEq::ct_eq(found, mac(call, bytes).as_slice()).into();
        let token = Token::decode(bytes).ok().filter(|_| good).ok_or(Failure::ResumeToken)?;
        match token.asked == Sha256::digest(asked).as_slice() {
            true => Ok(token),
            false => Err(Failure::ResumeToken),
        }
    }

    /// The ledger as it was when the export began.
    pub(super) fn snapshot(&self, origin: &str) -> Result<Checkpoint, Failure> {
        let root = self.root.as_slice().try_into().map_err(|_| Failure::ResumeToken)?;
        Ok(Checkpoint { origin: origin.into(), size: self.size, root })
    }

    pub(super) fn cursor(&self) -> Cursor {
        Cursor { position: self.position, index: self.index }
    }

    pub(super) fn lines(&self) -> Result<Frontier, Failure> {
        let hash = |bytes: &Vec<u8>| bytes.as_slice().try_into().ok();
        let roots = self.roots.iter().map(hash).collect::<Option<Vec<Hash>>>();
        let lines = roots.and_then(|roots| Frontier::from_parts(self.lines, roots));
        lines.ok_or(Failure::ResumeToken)
    }
}

fn mac(call: &CallContext, token: &[u8]) -> Hash {
    let caller = call.caller().map(|key| key.id.as_bytes().to_vec()).unwrap_or_default();
    let (mac, ledger) = (&call.replica.keys.row_mac, call.ledger.id.as_bytes());
    mac.of("resume token of an export", ledger, &caller, 0, token)
}
