//! Tools that only some commands need, at pinned versions, in `target/tools`: nothing outside the
//! checkout is changed.

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::packages;
use crate::process::{Result, answer_of, is_executable, on_path, run, workspace_root};

const GRPCURL: &str = "github.com/fullstorydev/grpcurl";
const GRPCURL_VERSION: &str = "v1.9.3";
const COLLECTOR_BUILDER: &str = "go.opentelemetry.io/collector/cmd/builder";
/// The same as in deploy/otel-collector-builder.yaml.
const COLLECTOR_VERSION: &str = "v0.158.0";
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

/// What to say where Go is missing.
pub(crate) fn missing_go() -> Option<&'static str> {
    let there = on_path("go").is_some();
    (!there).then_some("Go 1.25 or newer (`go`)")
}

/// What to say where Node.js is missing or too old.
pub(crate) fn missing_node() -> Option<&'static str> {
    let version = answer_of(Command::new("node").arg("--version")).unwrap_or_default();
    let major = version.trim_start_matches('v').split('.').next().and_then(|m| m.parse().ok());
    let there = on_path("npm").is_some() && major.is_some_and(|major: u32| major >= 20);
    (!there).then_some("Node.js 20 or newer with npm (`node`, `npm`)")
}

/// What to say where Python is missing, too old, or can't make environments of its own (Debian has that in a package apart).
pub(crate) fn missing_python() -> Option<&'static str> {
    let question = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))";
    let there = answer_of(Command::new("python3").args(["-c", question])).is_some();
    (!there).then_some("Python 3.10 or newer with venv (`python3`; on Debian also `python3-venv`)")
}

/// Real grpcurl, built by Go.
pub(crate) fn grpcurl() -> Result<PathBuf> {
    go_program("grpcurl", &format!("{GRPCURL}/cmd/grpcurl"), GRPCURL, GRPCURL_VERSION)
}

/// A real OpenTelemetry Collector, built from the manifest in `deploy`; again when that has changed.
pub(crate) fn collector() -> Result<PathBuf> {
    let manifest = workspace_root().join("deploy/otel-collector-builder.yaml");
    let wanted = fs::read(&manifest).map_err(|error| format!("{}: {error}", manifest.display()))?;
    let builder = go_program("builder", COLLECTOR_BUILDER, COLLECTOR_BUILDER, COLLECTOR_VERSION)?;
    let (program, built_from) = (
        folder().join("otel-collector/otel-collector"),
        folder().join("otel-collector/built-from"),
    );
    if !is_executable(&program) || fs::read(&built_from).ok() != Some(wanted.clone()) {
        let mut build = Command::new(builder);
        build.arg("--config").arg(&manifest).current_dir(folder());
        run(&mut build).map_err(|reason| format!("{reason}. Is the network there?"))?;
        fs::write(&built_from, wanted)
            .map_err(|error| format!("cannot write {}: {error}", built_from.display()))?;
    }
    Ok(program)
}

/// A program that `go install` makes, at one version.
fn go_program(name: &str, package: &str, module: &str, version: &str) -> Result<PathBuf> {
    let folder = folder().join("bin");
    let program = folder.join(name);
    if !is_built_from(&program, module, version) {
        let mut install = Command::new("go");
        install.args(["install", &format!("{package}@{version}")]);
        install.env("GOBIN", &folder).env("CGO_ENABLED", "0");
        run(&mut install).map_err(|reason| {
            format!("{reason}. Is the network there, and Go 1.25 or newer (`go version`)?")
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
        fs::create_dir_all(&folder)
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

/// The folder that we were built into is in it.
pub(crate) fn target() -> PathBuf {
    let target =
        env::current_exe().ok().and_then(|program| program.ancestors().nth(2).map(Path::to_owned));
    target.unwrap_or_else(|| workspace_root().join("target"))
}

fn folder() -> PathBuf {
    target().join("tools")
}

/// Programs don't always know their version when Go built them; Go reads it from the file.
fn is_built_from(program: &Path, module: &str, version: &str) -> bool {
    let Some(build) = answer_of(Command::new("go").args(["version", "-m"]).arg(program)) else {
        return false;
    };
    let mut lines = build.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    is_executable(program) && lines.any(|words| words.starts_with(&["mod", module, version]))
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
