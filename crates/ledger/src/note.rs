//! Checkpoints as signed notes (C2SP tlog-checkpoint, C2SP signed-note, signature type 0x01:
//! Ed25519).
//!
//! A note is a text, a blank line and signature lines. The text of a checkpoint names a ledger (its
//! origin), a size and a root. Who holds the verifier key can tell a checkpoint of that ledger from
//! any other text; nothing else in a note is signed, so nothing else in it is believed.

use base64::{Engine, prelude::BASE64_STANDARD};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::merkle::Hash;

/// A longer note is refused unread. C2SP signed-note asks for some limit.
pub const MAX_NOTE_BYTES: usize = 64 * 1024;

/// A note with more signature lines is refused. C2SP signed-note asks for a limit of at least 16.
pub const MAX_SIGNATURES: usize = 100;

/// Why a note, its checkpoint or a verifier key was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    #[error("the note is longer than {} bytes", MAX_NOTE_BYTES)]
    TooLong,
    #[error("the note has a control character other than the newline")]
    ControlCharacter,
    #[error("the note has no blank line between its text and its signatures")]
    NoBlankLine,
    #[error("the note does not end in a signature line and a newline")]
    NoSignatureLine,
    #[error("the note has more than {} signatures", MAX_SIGNATURES)]
    TooManySignatures,
    #[error("a line after the blank line is not an em dash, a key name and a base64 signature")]
    MalformedSignatureLine,
    #[error("the checkpoint is not three lines or more, none empty, each with a newline")]
    MalformedLines,
    #[error("the checkpoint's size is not a decimal number below 2^64 without leading zeros")]
    MalformedSize,
    #[error("the checkpoint's root is not the standard base64 of 32 bytes")]
    MalformedRoot,
    #[error("the note is not signed by this key")]
    NotSigned,
    #[error("the note has a signature of this key that does not verify")]
    BadSignature,
    #[error("the checkpoint's origin is not the name of the key that signed it")]
    OtherOrigin,
    #[error("the key name is empty, or has white space, a control character or a plus sign")]
    MalformedKeyName,
    #[error("the verifier key is not a name, an id and a base64 Ed25519 key, joined by plus signs")]
    MalformedVerifierKey,
    #[error("the verifier key's id does not belong to its name and key")]
    OtherKeyId,
    #[error("the public key has a small order, so anyone could sign for it")]
    WeakKey,
}

/// The size and root of a ledger, under the name of that ledger.
///
/// Extension lines, which C2SP tlog-checkpoint allows after the root, are accepted and forgotten:
/// they are under the signature, but no part of the checkpoint and of its equality, and `body`
/// never writes any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub origin: String,
    pub size: u64,
    pub root: Hash,
}

impl Checkpoint {
    /// The text that is signed: origin, decimal size and root in standard base64, a line each.
    pub fn body(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64_STANDARD.encode(self.root))
    }

    /// Reads that text. There is only one way to write a size and a root, so without extension
    /// lines `body` gives it back.
    pub fn parse_body(text: &str) -> Result<Self, NoteError> {
        check_characters(text)?;
        let lines: Vec<&str> =
            text.strip_suffix('\n').ok_or(NoteError::MalformedLines)?.split('\n').collect();
        let [origin, size, root, ..] = lines[..] else {
            return Err(NoteError::MalformedLines);
        };
        if lines.contains(&"") {
            return Err(NoteError::MalformedLines);
        }
        Ok(Self { origin: origin.to_owned(), size: parse_size(size)?, root: parse_root(root)? })
    }
}

/// A key that verifies notes: an Ed25519 public key under a name. The name of a ledger's key is the
/// ledger's origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteKey {
    name: String,
    key: VerifyingKey,
}

/// C2SP signed-note, "Signature types": Ed25519 over the text of the note.
const ED25519: u8 = 0x01;

impl NoteKey {
    /// Refuses a name that can't stand in a signature line, and a key that `open` could never
    /// trust.
    pub fn new(name: impl Into<String>, key: VerifyingKey) -> Result<Self, NoteError> {
        let name = name.into();
        if !is_key_name(&name) {
            return Err(NoteError::MalformedKeyName);
        }
        if key.is_weak() {
            return Err(NoteError::WeakKey);
        }
        Ok(Self { name, key })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.key
    }

    /// The first four bytes of SHA-256(name ‖ newline ‖ 0x01 ‖ public key): an address, too short
    /// to identify a key.
    pub fn key_id(&self) -> [u8; 4] {
        let hash = Sha256::new_with_prefix(&self.name)
            .chain_update([b'\n', ED25519])
            .chain_update(self.key.as_bytes());
        let [a, b, c, d, ..]: Hash = hash.finalize().into();
        [a, b, c, d]
    }

    /// C2SP signed-note, "Verifier keys": `<name>+<key id in hex>+<base64(0x01 ‖ public key)>`.
    pub fn vkey(&self) -> String {
        let typed_key = [&[ED25519], self.key.as_bytes().as_slice()].concat();
        format!(
            "{}+{:08x}+{}",
            self.name,
            u32::from_be_bytes(self.key_id()),
            BASE64_STANDARD.encode(typed_key)
        )
    }

    /// Reads what `vkey` writes, and nothing else.
    pub fn parse_vkey(text: &str) -> Result<Self, NoteError> {
        let (name, rest) = text.split_once('+').ok_or(NoteError::MalformedVerifierKey)?;
        // The base64 may hold plus signs of its own.
        let (_key_id, typed_key) = rest.split_once('+').ok_or(NoteError::MalformedVerifierKey)?;
        let typed_key =
            BASE64_STANDARD.decode(typed_key).map_err(|_| NoteError::MalformedVerifierKey)?;
        let Some((&ED25519, key)) = typed_key.split_first() else {
            return Err(NoteError::MalformedVerifierKey);
        };
        let key = VerifyingKey::try_from(key).map_err(|_| NoteError::MalformedVerifierKey)?;
        let key = Self::new(name, key)?;
        if key.vkey() == text { Ok(key) } else { Err(NoteError::OtherKeyId) }
    }

    fn verify(&self, text: &str, signature: &[u8]) -> Result<(), NoteError> {
        let signature = Signature::from_slice(signature).map_err(|_| NoteError::BadSignature)?;
        self.key.verify_strict(text.as_bytes(), &signature).map_err(|_| NoteError::BadSignature)
    }
}

/// Whether a name can stand in a signature line, and so whether it can be an origin (C2SP
/// signed-note, "Format").
pub fn is_key_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c < ' ' || c == '+')
}

/// The checkpoint as a note, signed under the name of its origin.
///
/// Panics if the origin is no key name. Who opens a ledger asks `is_key_name` first.
pub fn sign(checkpoint: &Checkpoint, signing_key: &SigningKey) -> String {
    let key = NoteKey::new(&checkpoint.origin, signing_key.verifying_key())
        .expect("an origin is checked to be a key name when its ledger is opened");
    sign_text(&checkpoint.body(), &key, signing_key)
}

/// The checkpoint of a note that `key` has signed, under the origin that is its name.
///
/// Lines of other keys are ignored, even if they share the name or the id. Each line of this key
/// must verify, so one bad signature spoils the note (C2SP signed-note, "Signatures"). The origin
/// must be the key's name: the name in a signature line is not signed, so a note of another ledger
/// under the same public key could be relabelled.
pub fn open(note: &str, key: &NoteKey) -> Result<Checkpoint, NoteError> {
    let checkpoint = Checkpoint::parse_body(verified_text(note, key)?)?;
    if checkpoint.origin == key.name { Ok(checkpoint) } else { Err(NoteError::OtherOrigin) }
}

/// The checkpoint a note claims. Nothing is verified: good for choosing a key, or for showing what
/// was refused.
pub fn peek(note: &str) -> Result<Checkpoint, NoteError> {
    let (text, _) = split_note(note)?;
    Checkpoint::parse_body(text)
}

fn sign_text(text: &str, key: &NoteKey, signing_key: &SigningKey) -> String {
    let signature =
        [key.key_id().as_slice(), &signing_key.sign(text.as_bytes()).to_bytes()].concat();
    format!("{text}\n— {} {}\n", key.name, BASE64_STANDARD.encode(signature))
}

fn verified_text<'a>(note: &'a str, key: &NoteKey) -> Result<&'a str, NoteError> {
    let (text, lines) = split_note(note)?;
    let key_id = key.key_id();
    let mut ours =
        lines.iter().filter(|line| line.name == key.name && line.key_id == key_id).peekable();
    ours.peek().ok_or(NoteError::NotSigned)?;
    ours.try_for_each(|line| key.verify(text, &line.signature))?;
    Ok(text)
}

struct SignatureLine<'a> {
    name: &'a str,
    key_id: [u8; 4],
    signature: Vec<u8>,
}

/// The text of a note, with its final newline, and its signature lines. The last blank line parts
/// them: the text may have blank lines of its own (C2SP signed-note, "Format").
fn split_note(note: &str) -> Result<(&str, Vec<SignatureLine<'_>>), NoteError> {
    check_characters(note)?;
    let blank = note.rfind("\n\n").ok_or(NoteError::NoBlankLine)?;
    let (text, rest) = note.split_at(blank + 1);
    let lines = rest[1..].strip_suffix('\n').ok_or(NoteError::NoSignatureLine)?;
    if lines.split('\n').count() > MAX_SIGNATURES {
        return Err(NoteError::TooManySignatures);
    }
    let lines = lines
        .split('\n')
        .map(|line| parse_signature_line(line).ok_or(NoteError::MalformedSignatureLine));
    Ok((text, lines.collect::<Result<_, _>>()?))
}

fn parse_signature_line(line: &str) -> Option<SignatureLine<'_>> {
    let (name, base64) = line.strip_prefix("— ")?.split_once(' ')?;
    let bytes = BASE64_STANDARD.decode(base64).ok()?;
    let (key_id, signature) = bytes.split_first_chunk()?;
    let well_formed = is_key_name(name) && !signature.is_empty();
    well_formed.then(|| SignatureLine { name, key_id: *key_id, signature: signature.to_vec() })
}

fn check_characters(text: &str) -> Result<(), NoteError> {
    if text.len() > MAX_NOTE_BYTES {
        return Err(NoteError::TooLong);
    }
    if text.bytes().any(|byte| byte < b' ' && byte != b'\n') {
        return Err(NoteError::ControlCharacter);
    }
    Ok(())
}

/// A number has one decimal form; `parse` alone would also take a plus sign and leading zeros.
fn parse_size(text: &str) -> Result<u64, NoteError> {
    let size: u64 = text.parse().map_err(|_| NoteError::MalformedSize)?;
    if size.to_string() == text { Ok(size) } else { Err(NoteError::MalformedSize) }
}

fn parse_root(text: &str) -> Result<Hash, NoteError> {
    let root = BASE64_STANDARD.decode(text).map_err(|_| NoteError::MalformedRoot)?;
    root.try_into().map_err(|_| NoteError::MalformedRoot)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ORIGIN: &str = "keys.example.com/payments";

    fn signing_key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn key_named(name: &str) -> NoteKey {
        NoteKey::new(name, signing_key().verifying_key()).unwrap()
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint { origin: ORIGIN.to_owned(), size: 70_000, root: [9; 32] }
    }

    /// The note of `checkpoint()` with these lines in place of its signature.
    fn with_lines(lines: &[String]) -> String {
        format!("{}\n{}", checkpoint().body(), lines.concat())
    }

    fn signature_line() -> String {
        sign(&checkpoint(), &signing_key())
            .strip_prefix(&format!("{}\n", checkpoint().body()))
            .unwrap()
            .to_owned()
    }

    fn line_of(name: &str, bytes: &[u8]) -> String {
        format!("— {name} {}\n", BASE64_STANDARD.encode(bytes))
    }

    #[test]
    fn the_note_of_the_go_checksum_database_is_made_and_verified_byte_for_byte() {
        // The example in the documentation of sumdb/note in Go's x/mod.
        let text = "If you think cryptography is the answer to your problem,\n\
            then you don't know what your problem is.\n";
        let note = format!(
            "{text}\n— PeterNeumann \
            x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZIn\
            NIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
        );
        let vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let secret =
            BASE64_STANDARD.decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz").unwrap();
        let signing_key = SigningKey::from_bytes(&secret[1..].try_into().unwrap());

        let key = NoteKey::parse_vkey(vkey).unwrap();
        assert_eq!(key.vkey(), vkey);
        assert_eq!(key, NoteKey::new("PeterNeumann", signing_key.verifying_key()).unwrap());
        assert_eq!(verified_text(&note, &key), Ok(text));
        assert_eq!(sign_text(text, &key, &signing_key), note);
        assert_eq!(open(&note, &key), Err(NoteError::MalformedLines));
    }

    #[test]
    fn the_example_of_signed_note_verifies() {
        let key = NoteKey::parse_vkey(
            "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        )
        .unwrap();
        let note = "This is an example message.\n\n— example.com/foo \
            Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONn\
            cAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
        assert_eq!(verified_text(note, &key), Ok("This is an example message.\n"));
    }

    #[test]
    fn the_example_of_tlog_checkpoint_is_read() {
        let note = "example.com/behind-the-sofa\n20852163\n\
            CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
            — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+Z\
            JurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";
        let checkpoint = peek(note).unwrap();
        assert_eq!(
            (checkpoint.origin.as_str(), checkpoint.size),
            ("example.com/behind-the-sofa", 20_852_163)
        );
        assert!(note.starts_with(&checkpoint.body()));
        assert_eq!(
            open(note, &key_named("example.com/behind-the-sofa")),
            Err(NoteError::NotSigned)
        );
    }

    #[test]
    fn a_signed_checkpoint_opens_with_its_key_alone() {
        let note = sign(&checkpoint(), &signing_key());
        assert_eq!(open(&note, &key_named(ORIGIN)), Ok(checkpoint()));
        let other = NoteKey::new(ORIGIN, SigningKey::from_bytes(&[8; 32]).verifying_key()).unwrap();
        assert_eq!(open(&note, &other), Err(NoteError::NotSigned));
        assert_eq!(open(&note, &key_named("keys.example.com/other")), Err(NoteError::NotSigned));
    }

    #[test]
    fn a_note_relabelled_for_another_ledger_under_the_same_key_is_refused() {
        let other = key_named("keys.example.com/other");
        let signature = signing_key().sign(checkpoint().body().as_bytes()).to_bytes();
        let relabelled =
            with_lines(&[line_of(other.name(), &[&other.key_id()[..], &signature].concat())]);
        assert_eq!(open(&relabelled, &other), Err(NoteError::OtherOrigin));
    }

    #[test]
    fn signatures_of_unknown_keys_are_ignored() {
        let id = key_named(ORIGIN).key_id();
        let same_name = line_of(ORIGIN, &[0; 68]);
        let same_id = line_of("witness.example.com", &[&id[..], &[1; 2420]].concat());
        let note = with_lines(&[same_name.clone(), signature_line(), same_id.clone()]);
        assert_eq!(open(&note, &key_named(ORIGIN)), Ok(checkpoint()));
        assert_eq!(
            open(&with_lines(&[same_name, same_id]), &key_named(ORIGIN)),
            Err(NoteError::NotSigned)
        );
    }

    #[test]
    fn one_bad_signature_of_the_known_key_spoils_the_note() {
        let id = key_named(ORIGIN).key_id();
        for bad in [vec![1], vec![0; 64], vec![0xff; 64], vec![0; 65]] {
            let bad = line_of(ORIGIN, &[&id[..], &bad].concat());
            for lines in [[bad.clone(), signature_line()], [signature_line(), bad]] {
                assert_eq!(
                    open(&with_lines(&lines), &key_named(ORIGIN)),
                    Err(NoteError::BadSignature)
                );
            }
        }
        assert_eq!(
            open(&with_lines(&[signature_line(), signature_line()]), &key_named(ORIGIN)),
            Ok(checkpoint())
        );
    }

    #[test]
    fn length_and_signatures_are_bounded() {
        let unknown = || line_of("w", &[0; 68]);
        let mut lines: Vec<String> =
            std::iter::repeat_with(unknown).take(MAX_SIGNATURES - 1).collect();
        lines.push(signature_line());
        assert_eq!(open(&with_lines(&lines), &key_named(ORIGIN)), Ok(checkpoint()));
        lines.push(unknown());
        assert_eq!(peek(&with_lines(&lines)), Err(NoteError::TooManySignatures));

        let long = |extra: usize| {
            format!("{}{}\n\n{}", checkpoint().body(), "x".repeat(extra), signature_line())
        };
        let room = MAX_NOTE_BYTES - long(0).len();
        assert_eq!(peek(&long(room)), Ok(checkpoint()));
        assert_eq!(peek(&long(room + 1)), Err(NoteError::TooLong));
    }

    #[test]
    fn a_note_has_only_the_one_form() {
        let (body, line) = (checkpoint().body(), signature_line());
        let cases = [
            (String::new(), NoteError::NoBlankLine),
            (body.clone(), NoteError::NoBlankLine),
            (format!("{body}{line}"), NoteError::NoBlankLine),
            (format!("{body}\n"), NoteError::NoSignatureLine),
            (format!("{body}\n{}", line.trim_end()), NoteError::NoSignatureLine),
            (format!("{body}\n{line}\n"), NoteError::NoSignatureLine),
            (format!("{body}\n{line}more\n"), NoteError::MalformedSignatureLine),
            (format!("{body}\n{}", line.replace('—', "-")), NoteError::MalformedSignatureLine),
            (format!("{body}\n{}", line.replace("— ", "—  ")), NoteError::MalformedSignatureLine),
            (format!("{body}\n{}", line.replace('\n', " \n")), NoteError::MalformedSignatureLine),
            (format!("{body}\n{}", line.replace('=', "")), NoteError::MalformedSignatureLine),
            (format!("{body}\n{}", line_of("a+b", &[0; 68])), NoteError::MalformedSignatureLine),
            (
                format!("{body}\n{}", line_of("a\u{a0}b", &[0; 68])),
                NoteError::MalformedSignatureLine,
            ),
            (format!("{body}\n{}", line_of("name", &[0; 4])), NoteError::MalformedSignatureLine),
            (format!("{body}\n{line}").replace('\n', "\r\n"), NoteError::ControlCharacter),
            (format!("{body}\n\n{line}"), NoteError::MalformedLines),
            (format!("\n\n{line}"), NoteError::MalformedLines),
        ];
        for (note, error) in cases {
            assert_eq!(peek(&note), Err(error), "{note:?}");
            assert!(open(&note, &key_named(ORIGIN)).is_err(), "{note:?}");
        }
    }

    #[test]
    fn a_checkpoint_has_only_the_one_form() {
        let root = BASE64_STANDARD.encode([9; 32]);
        let cases = [
            (String::new(), NoteError::MalformedLines),
            (format!("o\n1\n{root}"), NoteError::MalformedLines),
            ("o\n1\n".to_owned(), NoteError::MalformedLines),
            (format!("\n1\n{root}\n"), NoteError::MalformedLines),
            (format!("o\n1\n{root}\n\n"), NoteError::MalformedLines),
            (format!("o\n1\n{root}\n\nx\n"), NoteError::MalformedLines),
            (format!("o\n01\n{root}\n"), NoteError::MalformedSize),
            (format!("o\n00\n{root}\n"), NoteError::MalformedSize),
            (format!("o\n+1\n{root}\n"), NoteError::MalformedSize),
            (format!("o\n-1\n{root}\n"), NoteError::MalformedSize),
            (format!("o\n 1\n{root}\n"), NoteError::MalformedSize),
            (format!("o\n0x1\n{root}\n"), NoteError::MalformedSize),
            (format!("o\n18446744073709551616\n{root}\n"), NoteError::MalformedSize),
            (format!("o\n1\n{}\n", BASE64_STANDARD.encode([9; 31])), NoteError::MalformedRoot),
            (format!("o\n1\n{}\n", BASE64_STANDARD.encode([9; 33])), NoteError::MalformedRoot),
            (format!("o\n1\n{}\n", root.trim_end_matches('=')), NoteError::MalformedRoot),
            // The last letter has two bits that belong to no byte; they must be zero.
            (format!("o\n1\n{}\n", root.replace("k=", "l=")), NoteError::MalformedRoot),
            (format!("o\n1\n{} \n", root), NoteError::MalformedRoot),
            (format!("o\n1\r\n{root}\n"), NoteError::ControlCharacter),
        ];
        for (text, error) in cases {
            assert_eq!(Checkpoint::parse_body(&text), Err(error), "{text:?}");
        }
        assert!(Checkpoint::parse_body(&format!("o\n0\n{root}\n")).is_ok());
        assert!(Checkpoint::parse_body(&format!("o\n18446744073709551615\n{root}\n")).is_ok());
    }

    #[test]
    fn extension_lines_are_signed_but_forgotten() {
        let text = format!("{}extension\nanother one\n", checkpoint().body());
        let note = sign_text(&text, &key_named(ORIGIN), &signing_key());
        assert_eq!(open(&note, &key_named(ORIGIN)), Ok(checkpoint()));
        let changed = note.replace("another", "same");
        assert_eq!(open(&changed, &key_named(ORIGIN)), Err(NoteError::BadSignature));
    }

    #[test]
    fn a_verifier_key_has_only_the_one_form() {
        let vkey = key_named(ORIGIN).vkey();
        for at in
            (0..vkey.len()).flat_map(|start| (start + 1..=vkey.len()).map(move |end| start..end))
        {
            assert_eq!(NoteKey::parse_vkey(&vkey[at.clone()]).is_ok(), at == (0..vkey.len()));
        }
        for at in 0..vkey.len() {
            let mut changed = vkey.clone().into_bytes();
            changed[at] += 1;
            assert!(NoteKey::parse_vkey(&String::from_utf8(changed).unwrap()).is_err());
        }
        let upper = vkey.replacen(
            &vkey[ORIGIN.len()..ORIGIN.len() + 9],
            &vkey[ORIGIN.len()..ORIGIN.len() + 9].to_uppercase(),
            1,
        );
        assert_eq!(NoteKey::parse_vkey(&upper), Err(NoteError::OtherKeyId));
        // The vectors of the Go checksum database: an unknown type and a key too long, each under a
        // fitting id.
        for vkey in [
            "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        ] {
            assert_eq!(NoteKey::parse_vkey(vkey), Err(NoteError::MalformedVerifierKey));
        }
    }

    #[test]
    fn keys_that_anyone_can_sign_for_and_names_that_break_a_line_are_refused() {
        let identity =
            VerifyingKey::from_bytes(&std::array::from_fn(|at| u8::from(at == 0))).unwrap();
        assert_eq!(NoteKey::new(ORIGIN, identity), Err(NoteError::WeakKey));
        for name in ["", "a b", "a+b", "a\nb", "a\u{2003}b", "a\0b"] {
            assert_eq!(
                NoteKey::new(name, signing_key().verifying_key()),
                Err(NoteError::MalformedKeyName)
            );
        }
    }

    #[test]
    #[should_panic(expected = "an origin is checked")]
    fn signing_under_an_origin_that_breaks_a_line_is_a_bug() {
        sign(&Checkpoint { origin: "two words".to_owned(), ..checkpoint() }, &signing_key());
    }

    proptest! {
        #[test]
        fn what_is_signed_opens_as_it_was(
            origin in "[^\\s+\\p{Cc}]{1,40}",
            size in any::<u64>(),
            root in any::<Hash>(),
        ) {
            let checkpoint = Checkpoint { origin, size, root };
            let note = sign(&checkpoint, &signing_key());
            let key = NoteKey::parse_vkey(&key_named(&checkpoint.origin).vkey()).unwrap();
            prop_assert_eq!(open(&note, &key), Ok(checkpoint.clone()));
            prop_assert_eq!(peek(&note), Ok(checkpoint.clone()));
            prop_assert_eq!(Checkpoint::parse_body(&checkpoint.body()), Ok(checkpoint));
        }

        #[test]
        fn no_changed_note_opens(at in any::<prop::sample::Index>(), with in "[ -~\n]?") {
            let note = sign(&checkpoint(), &signing_key());
            let mut characters: Vec<String> = note.chars().map(String::from).collect();
            let at = at.index(characters.len());
            prop_assume!(characters[at] != with);
            characters[at] = with;
            prop_assert!(open(&characters.concat(), &key_named(ORIGIN)).is_err());
        }

        #[test]
        fn any_text_is_taken_without_panic(
            text in any::<String>(),
            lines in "(\n|— | |[a-z]{1,3}|[0-9]{1,3}|[A-Za-z0-9+/]{4}|=){0,40}",
        ) {
            for note in [text, lines] {
                prop_assert!(open(&note, &key_named(ORIGIN)).is_err());
                let _ = peek(&note);
                let _ = NoteKey::parse_vkey(&note);
                if let Ok(checkpoint) = Checkpoint::parse_body(&note) {
                    prop_assert!(note.starts_with(&checkpoint.body()));
                }
            }
        }
    }
}
