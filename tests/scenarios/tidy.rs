//! Invariants of the tree itself: what depends on what, and what may stand where.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Rust files below a folder, with what stands before their unit tests.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = vec![];
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap().to_string();
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((name, code));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} holds no sources");
    found
}

/// The names under `[dependencies]` of a crate.
fn dependencies(krate: &str) -> Vec<String> {
    let manifest =
        fs::read_to_string(root().join("crates").join(krate).join("Cargo.toml")).unwrap();
    let section = manifest.split("\n[dependencies]").nth(1).expect("a section of dependencies");
    let section = section.split("\n[").next().unwrap();
    let name = |line: &str| line.split(['.', ' ', '=']).next().unwrap_or("").to_string();
    section.lines().filter(|l| !l.starts_with('#')).map(name).filter(|n| !n.is_empty()).collect()
}

#[test]
fn arrows_between_crates_point_downwards_only() {
    let ours = |krate: &str| -> Vec<String> {
        dependencies(krate).into_iter().filter(|d| d.starts_with("keyledger-")).collect()
    };
    assert_eq!(ours("ledger"), Vec::<String>::new());
    assert_eq!(ours("proto"), ["keyledger-ledger"]);
    assert_eq!(ours("server"), ["keyledger-ledger", "keyledger-proto"]);
    assert_eq!(ours("cli"), ["keyledger-ledger", "keyledger-proto", "keyledger-server"]);
    assert_eq!(ours("client"), ["keyledger-proto"]);
}

#[test]
fn the_core_has_no_clock_no_randomness_and_no_input_or_output() {
    for banned in ["tokio", "tonic", "tokio-postgres", "getrandom", "rand", "ring", "tracing"] {
        assert!(!dependencies("ledger").iter().any(|d| d == banned), "ledger depends on {banned}");
    }
    for (file, code) in sources("crates/ledger/src") {
        for banned in [
            "SystemTime",
            "Instant",
            "std::fs",
            "std::net",
            "std::env",
            "std::thread",
            "println!",
            "async fn",
            "new_v4",
        ] {
            assert!(!code.contains(banned), "{file} holds {banned}");
        }
    }
}

#[test]
fn sql_stands_in_the_store_and_each_statement_names_its_function() {
    for (file, code) in sources("crates/server/src") {
        let store = file.starts_with("crates/server/src/store/");
        // The embedded Postgres is run, not queried; it only tries to connect.
        let embedded = file.starts_with("crates/server/src/embedded/");
        for call in [
            ".query(",
            ".query_one(",
            ".query_opt(",
            ".execute(",
            ".batch_execute(",
            ".prepare_cached(",
        ] {
            assert!(store || embedded || !code.contains(call), "{file} calls {call}");
        }
        if store {
            for literal in code.split('"').skip(1).step_by(2) {
                let statement = literal.trim_start();
                let unnamed = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH "]
                    .iter()
                    .any(|v| statement.starts_with(v));
                assert!(
                    !unnamed,
                    "{file}: a statement without the name of its function: {statement}"
                );
            }
        }
    }
}

#[test]
fn statuses_are_made_in_one_file() {
    for (file, code) in sources("crates/server/src") {
        if file.ends_with("grpc/status.rs") {
            continue;
        }
        for maker in [
            "Status::new(",
            "with_error_details(",
            "Status::internal(",
            "Status::unavailable(",
            "Status::ok(",
        ] {
            assert!(!code.contains(maker), "{file} makes a status");
        }
    }
}

#[test]
fn names_of_telemetry_stand_in_one_file_and_each_is_used() {
    let files = sources("crates/server/src");
    let is_list = |file: &str| file.ends_with("src/names.rs");
    let of_telemetry = |text: &str| {
        let one =
            |p| text.strip_prefix(p).is_some_and(|t: &str| t.contains('.') || p != "keyledger.");
        ["keyledger.", "rpc.", "db."].into_iter().any(one)
    };
    for (file, code) in files.iter().filter(|(file, _)| !is_list(file)) {
        for line in code.lines().filter(|l| !l.trim_start().starts_with("//")) {
            let literals = line.split('"').skip(1).step_by(2);
            let name = |t: &&str| t.bytes().all(|b| b.is_ascii_lowercase() || b"._".contains(&b));
            for literal in literals.filter(name) {
                assert!(
                    !of_telemetry(literal),
                    "{file} says {literal}: that belongs into names.rs"
                );
            }
        }
    }
    let (_, list) = files.iter().find(|(file, _)| is_list(file)).expect("the list is there");
    for line in list.lines().filter_map(|l| l.strip_prefix("pub const ")) {
        let name = line.split(':').next().unwrap_or_default();
        let used = files.iter().any(|(file, code)| !is_list(file) && code.contains(name));
        assert!(used, "names.rs lists {name}, which nothing uses");
    }
}

#[test]
fn what_the_client_says_on_spans_has_the_names_of_the_server() {
    let names = |krate: &str| {
        let file = root().join("crates").join(krate).join("src/names.rs");
        let text = fs::read_to_string(file).unwrap();
        let names = text.lines().filter_map(|line| line.strip_prefix("pub const "));
        names.map(|name| name.to_string()).collect::<Vec<_>>()
    };
    let of_server = names("server");
    for name in names("client") {
        assert!(of_server.contains(&name), "the server doesn't say {name}");
    }
}

#[test]
fn every_source_file_says_what_it_is_about_and_stays_readable() {
    for crate_name in ["ledger", "proto", "server", "cli", "client", "bench", "xtask"] {
        for (file, code) in sources(&format!("crates/{crate_name}/src")) {
            assert!(code.starts_with("//!"), "{file} doesn't begin by saying what it is about");
            assert!(code.lines().count() <= 550, "{file} has {} lines", code.lines().count());
        }
    }
}

#[test]
fn nothing_is_left_undone() {
    for folder in ["crates", "tests/scenarios", "tests/harness"] {
        for (file, code) in sources(folder) {
            if file.ends_with("tidy.rs") {
                continue;
            }
            for mark in
                ["todo!(", "unimplemented!(", "#[ignore", "FIXME", "TODO", "allow(dead_code)"]
            {
                assert!(!code.contains(mark), "{file} holds {mark}");
            }
        }
    }
}
