//! The `keyledger` binary. Everything is in the library, so that tests can start the same command.

use std::process::ExitCode;

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    keyledger_cli::main()
}
