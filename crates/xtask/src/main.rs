//! `cargo xtask`: sets up what is missing on this machine, then runs.
//!
//! Standard library only, so that the first command of a newcomer compiles it in seconds.

mod background;
mod browser;
mod check;
mod collector;
mod dev_server;
mod example_story;
mod examples;
mod grpcurl;
mod interop;
mod joined;
mod json;
mod key_story;
mod log_records;
mod metrics;
mod packages;
mod postgres;
mod process;
mod replies;
mod telemetry;
mod tools;
mod traces;
mod walk;

use std::env;
use std::process::ExitCode;

use process::{Result, build_keyledger, cargo, replace_by};

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  dev [ARGS]      start Keyledger with a Postgres of its own (ARGS go to `keyledger dev`)
  test [ARGS]     run all tests (ARGS go to `cargo test`: a filter, or `-- --nocapture`)
  interop         run grpcurl and clients in Go, Python and TypeScript against a fresh server whose telemetry
                  goes to a real OpenTelemetry Collector (needs Go, Python and Node.js)
  bench [ARGS]    run the load generator, optimised (ARGS go to it; `bench traces`: what telemetry costs)
  check           rustfmt, clippy, buf lint (where npm is), cargo deny (where it is installed)
  setup           only set up: a C compiler, the Postgres server programs, and Chromium for the tests

dev, test, interop and bench set up first. What they would install, they say before they do.";

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    match dispatch(&command, arguments.collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: &str, arguments: Vec<String>) -> Result {
    match command {
        "dev" => dev(&arguments),
        "test" => test(&arguments),
        "interop" => no_arguments(command, &arguments).and_then(|()| interop::run_session()),
        "bench" => bench(&arguments),
        "check" => no_arguments(command, &arguments).and_then(|()| check::run_all()),
        "setup" => no_arguments(command, &arguments).and_then(|()| setup()),
        "help" | "-h" | "--help" => {
            println!("{USAGE}");
            Ok(())
        }
        "" => Err(format!("a command is missing\n\n{USAGE}")),
        other => Err(format!("there is no command `{other}`\n\n{USAGE}")),
    }
}

fn no_arguments(command: &str, arguments: &[String]) -> Result {
    match arguments.first() {
        None => Ok(()),
        Some(extra) => Err(format!("`{command}` takes no arguments, but got `{extra}`")),
    }
}

/// The dev profile: it optimises our dependencies but not our crates, so it compiles in a fraction
/// of the time of a release build, and `cargo xtask test` uses the same artefacts.
fn dev(arguments: &[String]) -> Result {
    prepare()?;
    let mut keyledger = build_keyledger()?;
    replace_by(keyledger.arg("dev").args(arguments))
}

fn test(arguments: &[String]) -> Result {
    prepare()?;
    browser::find_or_install()?;
    replace_by(cargo(&["test", "--workspace"]).args(arguments))
}

fn bench(arguments: &[String]) -> Result {
    prepare()?;
    let build = ["run", "--release", "--package", "keyledger-bench", "--"];
    replace_by(cargo(&build).args(arguments))
}

fn setup() -> Result {
    let compiler = tools::require_c_compiler()?;
    println!("C compiler: {compiler}");
    let postgres = postgres::find_or_install()?;
    println!("Postgres {}: {}", postgres.version, postgres.folder.display());
    println!("Chromium: {}", browser::find_or_install()?.display());
    Ok(())
}

/// What every run needs. Silent when all is there.
fn prepare() -> Result {
    tools::require_c_compiler()?;
    postgres::find_or_install()?;
    Ok(())
}
