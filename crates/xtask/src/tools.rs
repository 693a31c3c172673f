//! Tools that only some commands need, at pinned versions, in `target/tools`: nothing outside the
//! checkout is changed.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::packages;
use crate::process::{Result, answer_of, is_executable, on_path, run};

const GRPCURL: &str = "github.com/fullstorydev/grpcurl";
const GRPCURL_VERSION: &str = "v1.9.3";
const BUF: &str = "@bufbuild/buf";
const BUF_VERSION: &str = "1.75.0";

/// The C compiler, seen at work: one of our dependencies (ring) holds C and assembler.
pub(crate) fn require_c_compiler() -> Result<String> {
    let chosen = env::var("CC").ok().filter(|command| !command.trim().is_empty());
    let candidates = match &chosen {
        Some(command) => vec![command.as_str()],
        None => vec!["cc", "gcc", "clang"],
    };
    if let Some(found) = candidates.iter().find(|command| compiles_c(command)) {
        return Ok((*found).to_owned());
    }
    let next_step = match (&chosen, packages::of_this_machine()) {
        (Some(command), _) => {
            format!("CC is `{command}`: correct it, or unset it to use cc, gcc or clang")
        }
        (None, Some(manager)) => format!("Install one: {}", manager.install_c_compiler),
        (None, None) => "Install gcc or clang with the headers of the C library".to_owned(),
    };
    Err(format!(
        "no C compiler works here, and one dependency (ring, for TLS) is partly in C. {next_step}; \
         then run this again."
    ))
}

/// Real grpcurl, built by Go.
pub(crate) fn grpcurl() -> Result<PathBuf> {
    on_path("go").ok_or(
        "Go is missing: grpcurl is built with it. Install Go (1.21 or newer) and run this again.",
    )?;
    let folder = folder().join("bin");
    let program = folder.join("grpcurl");
    if !is_grpcurl_as_pinned(&program) {
        let package = format!("{GRPCURL}/cmd/grpcurl@{GRPCURL_VERSION}");
        let mut install = Command::new("go");
        install.args(["install", &package]).env("GOBIN", &folder).env("CGO_ENABLED", "0");
        run(&mut install).map_err(|reason| {
            format!("{reason}. Is the network there, and Go 1.21 or newer (`go version`)?")
        })?;
    }
    Ok(program)
}

/// The buf linter from npm; nothing where npm isn't.
pub(crate) fn buf() -> Result<Option<PathBuf>> {
    if on_path("npm").is_none() {
        return Ok(None);
    }
    let folder = folder();
    let program = folder.join("node_modules/.bin/buf");
    let version = || answer_of(Command::new(&program).arg("--version"));
    if version().as_deref() != Some(BUF_VERSION) {
        std::fs::create_dir_all(&folder)
            .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        let mut install = Command::new("npm");
        install.args([
            "install",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--no-save",
            "--loglevel=error",
            "--prefix",
        ]);
        install.arg(&folder).arg(format!("{BUF}@{BUF_VERSION}"));
        run(&mut install).map_err(|reason| format!("{reason}. Is the network there?"))?;
    }
    match version() {
        Some(version) if version == BUF_VERSION => Ok(Some(program)),
        other => Err(format!(
            "{} says it is {other:?}, not {BUF_VERSION}; remove target/tools and run this again",
            program.display()
        )),
    }
}

/// `target/tools`, beside the folder we were built into.
fn folder() -> PathBuf {
    let target =
        env::current_exe().ok().and_then(|program| program.ancestors().nth(2).map(Path::to_owned));
    target.unwrap_or_else(|| crate::process::workspace_root().join("target")).join("tools")
}

/// `grpcurl -version` knows nothing when Go built it; Go reads the version from the file.
fn is_grpcurl_as_pinned(program: &Path) -> bool {
    let Some(build) = answer_of(Command::new("go").args(["version", "-m"]).arg(program)) else {
        return false;
    };
    let mut lines = build.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    is_executable(program)
        && lines.any(|words| words.starts_with(&["mod", GRPCURL, GRPCURL_VERSION]))
}

/// `CC` may hold arguments, such as `ccache gcc`.
fn compiles_c(compiler: &str) -> bool {
    let mut words = compiler.split_whitespace();
    let Some(program) = words.next() else {
        return false;
    };
    let mut command = Command::new(program);
    command.args(words).args(["-x", "c", "-fsyntax-only", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else {
        return false;
    };
    let source = b"#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }\n";
    let written = child.stdin.take().is_some_and(|mut input| input.write_all(source).is_ok());
    child.wait().is_ok_and(|status| status.success()) && written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_compiler_is_found_out() {
        assert!(!compiles_c(""));
        assert!(!compiles_c("/does/not/exist"));
        assert!(!compiles_c("false"));
    }
}
