//! Compiles the published .proto files: descriptors with comments (for reflection) and with our options, then Rust code.

use std::path::PathBuf;
use std::{env, fs, io};

const FILES: &[&str] = &[
    "keyledger/entry/v1/event.proto",
    "keyledger/export/v1/manifest.proto",
    "keyledger/v1/anomalies.proto",
    "keyledger/v1/errors.proto",
    "keyledger/v1/options.proto",
    "keyledger/v1/reports.proto",
    "keyledger/v1/resources.proto",
    "keyledger/v1/reviews.proto",
    "keyledger/v1/traces.proto",
    "keyledger/v1/usage.proto",
    "keyledger/v1/documents.proto",
    "keyledger/v1/key_service.proto",
    "keyledger/v1/audit_service.proto",
];

fn main() -> io::Result<()> {
    let root =
        PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut compiler = protox::Compiler::new([&root]).map_err(io::Error::other)?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(FILES).map_err(io::Error::other)?;

    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    // With our options, which the generated code can't see.
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    let mut config = tonic_prost_build::Config::new();
    // In one call: each call forgets what was said before. `redacted.rs` prints these.
    let with_token = [
        "BatchVerifyKeysRequest",
        "CreateKeyResponse",
        "LookupKeyRequest",
        "OpenLedgerResponse",
        "RevokeBySecretRequest",
        "RotateKeyResponse",
        "VerifyKeyRequest",
    ];
    config.skip_debug(with_token.map(|name| format!("keyledger.v1.{name}")));
    tonic_prost_build::configure()
        .build_server(false)
        .extern_path(".keyledger.entry.v1", "::keyledger_ledger::body")
        .extern_path(".keyledger.export.v1", "::keyledger_ledger::export")
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    Ok(())
}
