//! The `keyledger` command, built with the tests, so that `cargo test` alone has a real server to start and to kill.

use std::io;
use std::process::ExitCode;
use std::thread;

/// Set by the tests, which hold our standard input open: when they are gone, however they ended, so are we.
const TETHER: &str = "KEYLEDGER_TESTS_TETHER";

fn main() -> ExitCode {
    if std::env::var_os(TETHER).is_some() {
        thread::spawn(|| {
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            std::process::exit(1);
        });
    }
    keyledger_cli::main()
}
