//! What a change must pass besides the tests. Every check runs, so that one round names all faults.

use std::process::Command;

use crate::process::{Result, cargo, on_path, run, workspace_root};
use crate::tools;

type Check = (&'static str, fn() -> Result);

const CHECKS: [Check; 4] =
    [("rustfmt", rustfmt), ("clippy", clippy), ("buf lint", buf_lint), ("cargo deny", cargo_deny)];

pub(crate) fn run_all() -> Result {
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        if let Err(reason) = check() {
            eprintln!("{name}: {reason}");
            failed.push(name);
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("not passed: {}", failed.join(", "))),
    }
}

fn rustfmt() -> Result {
    run(&mut cargo(&["fmt", "--all", "--check"]))
        .map_err(|reason| format!("{reason}; `cargo fmt --all` puts it right"))
}

fn clippy() -> Result {
    run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn buf_lint() -> Result {
    match tools::buf()? {
        Some(buf) => run(Command::new(buf).arg("lint").current_dir(workspace_root())),
        None => {
            eprintln!("buf lint: skipped, because npm isn't here; install Node.js to run it");
            Ok(())
        }
    }
}

/// Licences, bans and sources; not advisories, which change without a change of ours.
fn cargo_deny() -> Result {
    if on_path("cargo-deny").is_none() {
        eprintln!(
            "cargo deny: skipped, because it isn't installed (`cargo install --locked cargo-deny`)"
        );
        return Ok(());
    }
    run(&mut cargo(&["deny", "check", "bans", "licenses", "sources"]))
}
