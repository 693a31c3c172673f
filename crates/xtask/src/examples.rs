//! The examples of `crates/client/examples`, prepared and run as a stranger would, in copies below `target/interop`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::{Result, announce, cannot_start, run, workspace_root};
use crate::tools;

/// Of the environment that is made for the examples in Python.
const PYTHON: &str = "venv/bin/python";

/// Folders that whoever ran an example in place has made, and that aren't copied.
const MADE: [&str; 4] = ["gen", "venv", "node_modules", "dist"];

/// One program, ready to run.
pub(crate) struct Example {
    /// `go`, `python` or `typescript`: its folder, and the end of its service's name.
    pub(crate) language: &'static str,
    folder: PathBuf,
    words: Vec<PathBuf>,
}

/// Where things are, as an example is told by its environment.
pub(crate) struct Surroundings<'a> {
    pub(crate) keyledger: &'a str,
    pub(crate) token: &'a str,
    pub(crate) collector: &'a str,
}

/// What must be there: named all at once, so that nobody installs one to hear of the next.
pub(crate) fn require_languages() -> Result {
    let missing: Vec<&str> = [tools::missing_go(), tools::missing_node(), tools::missing_python()]
        .into_iter()
        .flatten()
        .collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "interop runs clients in three languages and a collector built with Go, and these are missing:\n  {}\n\
             Install them and run this again.",
            missing.join("\n  ")
        )),
    }
}

/// The programs of all three languages.
pub(crate) struct Examples {
    /// A key's life, once in each language.
    pub(crate) lives: Vec<Example>,
    /// A service that writes its audit log by OpenTelemetry, and knows nothing of Keyledger.
    pub(crate) audit_log: Example,
}

/// All of them; each language fetches what its manifest names, in the first run.
pub(crate) fn prepare() -> Result<Examples> {
    let python = python()?;
    let with_python = |program: &str| Example {
        language: "python",
        folder: python.clone(),
        words: vec![python.join(PYTHON), program.into()],
    };
    let lives = vec![go()?, with_python("main.py"), typescript()?];
    Ok(Examples { lives, audit_log: with_python("audit_log.py") })
}

impl Example {
    /// What it printed.
    pub(crate) fn run(&self, around: &Surroundings) -> Result<String> {
        let mut command = self.command();
        command.env("KEYLEDGER_ENDPOINT", format!("http://{}", around.keyledger));
        command.env("KEYLEDGER_TOKEN", around.token);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", around.collector);
        self.output_of(&mut command)
    }

    /// What it printed, its logs sent to this address.
    pub(crate) fn run_with_logs_to(&self, collector: &str) -> Result<String> {
        self.output_of(self.command().env("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", collector))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).current_dir(&self.folder);
        command.env("PYTHONPATH", "gen");
        command
    }

    fn output_of(&self, command: &mut Command) -> Result<String> {
        announce(command);
        command.stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.output().map_err(|error| cannot_start(command, &error))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        print!("{said}");
        match output.status.success() {
            true => Ok(said),
            false => Err(format!("the example in {} failed ({})", self.language, output.status)),
        }
    }
}

fn go() -> Result<Example> {
    let folder = copy_of("go")?;
    generate(&folder, "gen")?;
    run(Command::new("go").args(["build", "-o", "example", "."]).current_dir(&folder))?;
    let words = vec![folder.join("example")];
    Ok(Example { language: "go", folder, words })
}

fn python() -> Result<PathBuf> {
    let folder = copy_of("python")?;
    let python = folder.join(PYTHON);
    once_for(&folder, "requirements.txt", || {
        run(Command::new("python3").args(["-m", "venv", "--clear", "venv"]).current_dir(&folder))?;
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        let mut install_all = Command::new(&python);
        run(install_all.args(install).args(["-r", "requirements.txt"]).current_dir(&folder))
    })?;
    let protos = workspace_root().join("proto");
    fresh_folder(&folder.join("gen"))?;
    let mut generate = Command::new(&python);
    generate.args(["-m", "grpc_tools.protoc", "--python_out=gen", "--grpc_python_out=gen"]);
    generate.arg("--proto_path").arg(&protos).args(proto_files(&protos)?);
    run(generate.current_dir(&folder))?;
    Ok(folder)
}

fn typescript() -> Result<Example> {
    let folder = copy_of("typescript")?;
    once_for(&folder, "package-lock.json", || {
        let install = ["ci", "--no-audit", "--no-fund", "--loglevel=error"];
        run(Command::new("npm").args(install).current_dir(&folder))
    })?;
    generate(&folder, "src/gen")?;
    run(Command::new("npm").args(["run", "--silent", "build"]).current_dir(&folder))?;
    Ok(Example {
        language: "typescript",
        words: vec!["node".into(), "dist/main.js".into()],
        folder,
    })
}

/// By buf, with the plugins that the folder's `buf.gen.yaml` names.
fn generate(folder: &Path, into: &str) -> Result {
    let buf = tools::buf()?.ok_or("npm is missing, and buf comes from it")?;
    fresh_folder(&folder.join(into))?;
    let mut generate = Command::new(buf);
    generate.args(["generate", "--template", "buf.gen.yaml"]).arg(workspace_root());
    run(generate.current_dir(folder))
}

/// The example beside what was fetched for it before.
fn copy_of(language: &str) -> Result<PathBuf> {
    let from = workspace_root().join("crates/client/examples").join(language);
    let to = tools::target().join("interop").join(language);
    copy(&from, &to).map_err(|error| format!("cannot copy {}: {error}", from.display()))?;
    Ok(to)
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, target) = entry.map(|entry| (entry.path(), to.join(entry.file_name())))?;
        if MADE.iter().any(|made| entry.ends_with(made)) {
            continue;
        }
        match entry.is_dir() {
            true => copy(&entry, &target)?,
            false => fs::copy(&entry, &target).map(drop)?,
        }
    }
    Ok(())
}

/// Does something unless it was done for this very list of what to fetch.
fn once_for(folder: &Path, list: &str, fetch: impl FnOnce() -> Result) -> Result {
    let wanted = fs::read(folder.join(list)).map_err(|error| format!("{list}: {error}"))?;
    let fetched = folder.join(format!("fetched-{list}"));
    if fs::read(&fetched).is_ok_and(|before| before == wanted) {
        return Ok(());
    }
    fetch().map_err(|reason| format!("{reason}. Is the network there?"))?;
    fs::write(&fetched, wanted).map_err(|error| format!("{}: {error}", fetched.display()))
}

fn fresh_folder(folder: &Path) -> Result {
    let fault = |error| format!("cannot make {}: {error}", folder.display());
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(fault)?;
    }
    fs::create_dir_all(folder).map_err(fault)
}

/// All `.proto` files below a folder.
fn proto_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for entry in entries.flatten().map(|entry| entry.path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|ending| ending == "proto") {
                found.push(entry);
            }
        }
    }
    found.sort();
    Ok(found)
}
