//! The manifest beside an export of events: a DSSE envelope in the first line, then the digest of each line of the export in
//! hexadecimal, in order. The list itself isn't signed; its root is what the envelope holds.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use keyledger_ledger::export::{Envelope, line_hash};
use keyledger_ledger::merkle::Hash;
use keyledger_proto::SignedManifest;
use serde::{Deserialize, Serialize};

use crate::export_file::{Base64, create, read_line};
use crate::failure::Failure;

/// FILE.manifest.
pub(crate) fn path_of(export: &Path) -> PathBuf {
    let mut name = export.as_os_str().to_owned();
    name.push(".manifest");
    name.into()
}

/// Whether an export has a manifest: then it is one of events, and not of the whole ledger.
pub(crate) fn is_beside(export: &Path) -> bool {
    path_of(export).exists()
}

/// The envelope, as DSSE has it in JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EnvelopeLine {
    payload_type: String,
    /// A serialised keyledger.export.v1.ExportManifest.
    payload: Base64,
    signatures: Vec<SignatureLine>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureLine {
    /// SHA-256 of the public key.
    #[serde(with = "hex")]
    keyid: Vec<u8>,
    sig: Base64,
}

/// The envelope that a server sent.
pub(crate) fn from_wire(manifest: SignedManifest) -> Result<Envelope, Failure> {
    let signatures =
        manifest.signatures.into_iter().map(|s| (s.public_key_sha256, s.signature)).collect();
    envelope(manifest.payload_type, manifest.payload, signatures)
        .ok_or_else(|| Failure::new("the server sent a malformed manifest"))
}

fn envelope(
    payload_type: String,
    payload: Vec<u8>,
    signatures: Vec<(Vec<u8>, Vec<u8>)>,
) -> Option<Envelope> {
    let fixed = |(key, signature): (Vec<u8>, Vec<u8>)| {
        Some((key.try_into().ok()?, signature.try_into().ok()?))
    };
    let signatures = signatures.into_iter().map(fixed).collect::<Option<_>>()?;
    Some(Envelope { payload_type, payload, signatures })
}

/// Writes a manifest line by line.
pub(crate) struct Writer(BufWriter<File>);

impl Writer {
    pub(crate) fn create(path: &Path, envelope: &Envelope) -> io::Result<Writer> {
        let signature = |(key, signature): &(Hash, [u8; 64])| SignatureLine {
            keyid: key.to_vec(),
            sig: Base64(signature.to_vec()),
        };
        let line = EnvelopeLine {
            payload_type: envelope.payload_type.clone(),
            payload: Base64(envelope.payload.clone()),
            signatures: envelope.signatures.iter().map(signature).collect(),
        };
        let mut out = BufWriter::new(create(path)?);
        writeln!(out, "{}", serde_json::to_string(&line)?)?;
        Ok(Writer(out))
    }

    /// Adds the digest of one line, and returns it.
    pub(crate) fn add(&mut self, line: &[u8]) -> io::Result<Hash> {
        let digest = line_hash(line);
        writeln!(self.0, "{}", hex::encode(digest))?;
        Ok(digest)
    }

    pub(crate) fn finish(self) -> io::Result<()> {
        self.0.into_inner().map_err(|e| e.into_error())?.sync_all()
    }
}

/// Reads a manifest line by line.
pub(crate) struct Reader(BufReader<File>);

impl Reader {
    /// The envelope, and a reader of the digests after it.
    pub(crate) fn open(path: &Path) -> io::Result<(Envelope, Reader)> {
        let mut reader = BufReader::new(File::open(path)?);
        let mut line = vec![];
        read_line(&mut reader, &mut line)?;
        let read: EnvelopeLine = serde_json::from_slice(&line)?;
        let signatures = read.signatures.into_iter().map(|s| (s.keyid, s.sig.0)).collect();
        let envelope = envelope(read.payload_type, read.payload.0, signatures);
        let envelope = envelope.ok_or_else(|| io::Error::other("it is malformed"))?;
        Ok((envelope, Reader(reader)))
    }

    /// The next digest; an error for whatever else stands there.
    pub(crate) fn next(&mut self) -> io::Result<Option<Hash>> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut hash = [0; 32];
        hex::decode_to_slice(line.trim_end_matches('\n'), &mut hash)
            .map_err(|_| io::Error::other("a line of it is no digest"))?;
        Ok(Some(hash))
    }
}
