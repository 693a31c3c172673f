//! The `keyledger` binary. Everything is in the library, so that tests can start the same command.

use std::process::ExitCode;

fn main() -> ExitCode {
    keyledger_cli::main()
}
