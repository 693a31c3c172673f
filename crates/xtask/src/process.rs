//! Other programs: found, shown before they run, and named when they fail.

use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::json::Json;

/// An error is a sentence for a person: the reason and the next step.
pub(crate) type Result<T = ()> = std::result::Result<T, String>;

/// `cargo` in the root of the workspace, with an environment as if typed in a shell.
///
/// `cargo run` sets `CARGO_PKG_*` and `CARGO_MANIFEST_*` for us. Handed on, they would look like a
/// change to build scripts that watch them (ring's does), and `cargo test` and `cargo xtask test`
/// would each undo the other's build.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(workspace_root());
    forget_our_package(&mut command);
    command
}

/// Builds the `keyledger` binary, dev profile; gives a command that runs it in the caller's folder.
///
/// `--workspace` picks the same features of dependencies as `cargo test --workspace`, so that each
/// is compiled once for both.
pub(crate) fn build_keyledger() -> Result<Command> {
    let build =
        ["build", "--workspace", "--bin", "keyledger", "--message-format=json-render-diagnostics"];
    let mut command = cargo(&build);
    announce(&command);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| cannot_start(&command, &error))?;
    if !output.status.success() {
        return Err("the build failed; the compiler's messages stand above".to_owned());
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let executable = messages
        .lines()
        .filter_map(|line| Json::parse(line).ok())
        .filter_map(|message| Some(message.at("executable")?.text()?.to_owned()))
        .next_back()
        .ok_or(
            "cargo built no executable `keyledger`; is it a [[bin]] of crates/cli/Cargo.toml?",
        )?;
    let mut keyledger = Command::new(executable);
    forget_our_package(&mut keyledger);
    Ok(keyledger)
}

/// Shows and runs a command to its end; its output goes where ours goes.
pub(crate) fn run(command: &mut Command) -> Result {
    announce(command);
    let status = command.status().map_err(|error| cannot_start(command, &error))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("`{}` failed ({status})", shown(command))),
    }
}

/// Becomes that program: signals, the terminal and the exit code are then its own.
pub(crate) fn replace_by(command: &mut Command) -> Result {
    announce(command);
    let error = command.exec();
    Err(cannot_start(command, &error))
}

/// Standard output of a quiet command, trimmed; nothing if it isn't there or fails.
pub(crate) fn answer_of(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

pub(crate) fn announce(command: &Command) {
    eprintln!("$ {}", shown(command));
}

pub(crate) fn cannot_start(command: &Command, error: &std::io::Error) -> String {
    format!("cannot start `{}`: {error}", command.get_program().to_string_lossy())
}

/// The command as a shell would take it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    // `cargo` says more than the path of its toolchain.
    let program = match program.file_name() {
        Some(name) if name == "cargo" => name,
        _ => program.as_os_str(),
    };
    let words = std::iter::once(program).chain(command.get_args());
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

/// The first executable of that name on PATH.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| is_executable(file))
}

pub(crate) fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Known when we were compiled: cargo compiles us again when the checkout moves.
pub(crate) fn workspace_root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).expect("this package lies two folders below the root").to_owned()
}

fn forget_our_package(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let ours = name.to_str().is_some_and(|name| {
            ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.starts_with(prefix))
                || matches!(name, "CARGO_BIN_NAME" | "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE")
        });
        if ours {
            command.env_remove(name);
        }
    }
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "-_./=@:+,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.into_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_a_shell_would_take_it() {
        let mut command = Command::new("/opt/toolchain/bin/cargo");
        command.args(["test", "a name", "it's", ""]);
        assert_eq!(shown(&command), r"cargo test 'a name' 'it'\''s' ''");
    }

    #[test]
    fn the_root_holds_the_workspace() {
        let manifest = std::fs::read_to_string(workspace_root().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[workspace]"));
    }

    #[test]
    fn a_program_that_fails_has_no_answer() {
        assert_eq!(answer_of(Command::new("sh").args(["-c", "echo yes"])).as_deref(), Some("yes"));
        assert_eq!(answer_of(Command::new("sh").args(["-c", "echo no; exit 1"])), None);
        assert_eq!(answer_of(&mut Command::new("/does/not/exist")), None);
    }
}
