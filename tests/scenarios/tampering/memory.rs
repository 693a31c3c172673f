//! Every bit of everything that an entry consists of, in memory.

use std::collections::HashMap;

use keyledger_ledger::body::{SealedColumn, SealedText, UseColumn, decode_canonical};
use keyledger_ledger::entry::Entry;
use keyledger_ledger::id::KeyId;
use keyledger_ledger::record::Columns;
use keyledger_ledger::text::Opened;
use keyledger_ledger::verify::{Found, Opener, Opening};

use super::*;

const PARTS: [&str; 16] = [
    "position",
    "payload_type",
    "body",
    "public_key_sha256",
    "signature",
    "sealed",
    "uses",
    "kind",
    "time_us",
    "key_id",
    "stream_version",
    "caller_key_id",
    "trace_id",
    "use_count",
    "category",
    "leaf_hash",
];

#[test]
fn every_bit_of_every_entry_counts() {
    scenario(async |d| {
        tell(d).await;
        let replica = d.replica().await;
        for (number, caller) in [(0, replica.system_admin()), (1, replica.admin())] {
            let (entries, known) = read(d, number, &caller).await;
            let looked = tokio::task::spawn_blocking(move || flip_each_bit(entries, known));
            println!("ledger {number}: {} bits", looked.await.unwrap());
        }
    });
}

/// Flips each bit of each part of each entry, one after the other. Returns how many.
fn flip_each_bit(mut entries: Vec<Found>, mut known: Known) -> u64 {
    let (mut before, mut bits) = (Verifier::default(), 0);
    for found in &mut entries {
        for part in PARTS {
            let Some(good) = part_of(found, part) else { continue };
            for bit in 0..good.len() * 8 {
                let mut changed = good.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                if set_part(found, part, &changed).is_none() {
                    continue;
                }
                let place = format!("bit {bit} of {part} at {}", before.state().next_position);
                let finding = before.clone().push(found, &mut known).expect_err(&place);
                assert_eq!(finding.position, before.state().next_position, "{place}: {finding}");
                bits += 1;
            }
            set_part(found, part, &good).expect("it was so before");
        }
        before.push(found, &mut known).expect("unchanged entries are good");
    }
    assert_eq!(before.counts().texts_unopened, 0);
    bits
}

/// The bytes of a part of an entry; `None` where there is no value.
fn part_of(found: &Found, part: &str) -> Option<Vec<u8>> {
    let columns = found.columns.as_ref().expect("they were read");
    Some(match part {
        "position" => found.position.to_be_bytes().to_vec(),
        "payload_type" => found.entry.payload_type.clone().into_bytes(),
        "body" => found.entry.body.clone(),
        "public_key_sha256" => found.entry.public_key_sha256.to_vec(),
        "signature" => found.entry.signature.to_vec(),
        "sealed" => found.sealed.clone().expect("it was read"),
        "uses" => found.uses.clone(),
        "kind" => columns.kind.to_be_bytes().to_vec(),
        "time_us" => columns.time_us.to_be_bytes().to_vec(),
        "key_id" => columns.key_id?.as_bytes().to_vec(),
        "stream_version" => columns.stream_version?.to_be_bytes().to_vec(),
        "caller_key_id" => columns.caller_key_id?.as_bytes().to_vec(),
        "trace_id" => columns.trace_id?.to_vec(),
        "use_count" => columns.use_count.to_be_bytes().to_vec(),
        "category" => columns.category.clone()?.into_bytes(),
        "leaf_hash" => columns.leaf_hash.to_vec(),
        _ => unreachable!("not a part: {part}"),
    })
}

/// `None` if no such value can be: text that is no UTF-8.
fn set_part(found: &mut Found, part: &str, bytes: &[u8]) -> Option<()> {
    fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
        bytes.try_into().expect("a flipped bit changes no length")
    }
    let columns = found.columns.as_mut().expect("they were read");
    match part {
        "position" => found.position = u64::from_be_bytes(fixed(bytes)),
        "payload_type" => found.entry.payload_type = String::from_utf8(bytes.to_vec()).ok()?,
        "body" => found.entry.body = bytes.to_vec(),
        "public_key_sha256" => found.entry.public_key_sha256 = fixed(bytes),
        "signature" => found.entry.signature = fixed(bytes),
        "sealed" => found.sealed = Some(bytes.to_vec()),
        "uses" => found.uses = bytes.to_vec(),
        "kind" => columns.kind = i16::from_be_bytes(fixed(bytes)),
        "time_us" => columns.time_us = i64::from_be_bytes(fixed(bytes)),
        "key_id" => columns.key_id = KeyId::from_slice(bytes),
        "stream_version" => columns.stream_version = Some(i32::from_be_bytes(fixed(bytes))),
        "caller_key_id" => columns.caller_key_id = KeyId::from_slice(bytes),
        "trace_id" => columns.trace_id = Some(fixed(bytes)),
        "use_count" => columns.use_count = i32::from_be_bytes(fixed(bytes)),
        "category" => columns.category = Some(String::from_utf8(bytes.to_vec()).ok()?),
        "leaf_hash" => columns.leaf_hash = fixed(bytes),
        _ => unreachable!("not a part: {part}"),
    }
    Some(())
}

/// Texts by their sealed bytes: others don't open, which is what AES-GCM promises.
struct Known(HashMap<Vec<u8>, Opened>);

impl Opener for Known {
    fn open(&mut self, _: u64, _: usize, _: &SealedText, sealed: Option<&[u8]>) -> Opening {
        let opened = self.0.get(sealed.expect("it was read"));
        opened.map_or(Opening::Damaged, |opened| Opening::Opened(opened.clone()))
    }
}

/// All entries of a ledger with what lies beside them, and what a server opens of it.
async fn read(d: &Deployment, number: i32, caller: &Caller) -> (Vec<Found>, Known) {
    let request = StreamEventsRequest {
        from_position: Some(0),
        view: EventView::Raw as i32,
        stop_at_head: true,
        ..StreamEventsRequest::default()
    };
    let mut stream = caller.stream(request).await.unwrap();
    let (mut entries, mut known) = (vec![], HashMap::new());
    let client = d.superuser().await;
    while let Some(reply) = stream.message().await.unwrap() {
        let Some(event) = reply.event else { continue };
        let found = found_at(&client, number, event.position.unwrap() as i64).await;
        let opened = event.raw.unwrap().opened;
        let sealed = sealed_of(&found);
        assert_eq!(sealed.len(), opened.len());
        let opened = opened
            .into_iter()
            .map(|o| Opened { salt: o.salt.try_into().expect("it was opened"), texts: o.texts });
        known.extend(sealed.into_iter().zip(opened));
        entries.push(found);
    }
    (entries, Known(known))
}

/// Sealed bytes of an entry, then those of its uses.
fn sealed_of(found: &Found) -> Vec<Vec<u8>> {
    let sealed = found.sealed.as_deref().expect("it was read");
    let own: SealedColumn = decode_canonical(sealed, "SealedColumn").unwrap();
    let uses: UseColumn = decode_canonical(&found.uses, "UseColumn").unwrap();
    own.sealed.into_iter().chain(uses.uses.into_iter().flat_map(|u| u.sealed)).collect()
}

async fn found_at(client: &Client, number: i32, position: i64) -> Found {
    let entry = "SELECT e.* FROM entries e JOIN ledgers l USING (ledger_id)
                 WHERE l.number = $1 AND e.position = $2";
    let row = client.query_one(entry, &[&number, &position]).await.unwrap();
    let bytes = |column: &str| row.get::<_, Vec<u8>>(column);
    let key = |column: &str| {
        row.get::<_, Option<Uuid>>(column).map(|id| KeyId::from_bytes(*id.as_bytes()))
    };
    let fixed = |column: &str| bytes(column).try_into().expect("32 bytes");
    Found {
        position: position as u64,
        entry: Entry {
            payload_type: row.get("payload_type"),
            body: bytes("body"),
            public_key_sha256: fixed("public_key_sha256"),
            signature: bytes("signature").try_into().expect("64 bytes"),
        },
        sealed: Some(bytes("sealed")),
        uses: bytes("uses"),
        columns: Some(Columns {
            kind: row.get("kind"),
            time_us: row.get("time_us"),
            key_id: key("key_id"),
            stream_version: row.get("stream_version"),
            caller_key_id: key("caller_key_id"),
            trace_id: row.get::<_, Option<Vec<u8>>>("trace_id").map(|t| t.try_into().unwrap()),
            use_count: row.get("use_count"),
            category: row.get("category"),
            leaf_hash: fixed("leaf_hash"),
        }),
    }
}
