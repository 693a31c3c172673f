//! A real browser: Chromium without a window, driven by its DevTools protocol over a pipe. Messages are JSON, each ended by a
//! zero byte; replies carry the id of what was asked, everything else is an event.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Where distributions put it, by name.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

pub(crate) struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    asked: u64,
    /// The tab that is driven; empty before there is one.
    session: String,
    /// What was told and not waited for.
    events: Vec<Value>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one with an empty tab. Panics where there is none: `cargo xtask setup` installs it.
    pub(crate) async fn start() -> Browser {
        let program = find().expect(
            "Chromium is missing: `cargo xtask setup` installs it, or set KEYLEDGER_CHROMIUM to its path",
        );
        let profile = tempfile::tempdir().expect("a folder for its profile");
        let mut command = Command::new("sh");
        // It reads from its third file and writes to its fourth.
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1"]);
        command.arg(program).args([
            "--headless=new",
            "--remote-debugging-pipe",
            // Only our own files are opened, and a container or an account without namespaces has no sandbox to give.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--hide-scrollbars",
        ]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("a shell");
        let to = child.stdin.take().expect("it is piped");
        let from = BufReader::new(child.stdout.take().expect("it is piped"));
        let (session, events) = (String::new(), vec![]);
        let mut browser = Browser { child, to, from, asked: 0, session, events, _profile: profile };
        browser.open_tab().await;
        browser
    }

    async fn open_tab(&mut self) {
        let target = self.ask("Target.createTarget", json!({"url": "about:blank"})).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = self.ask("Target.attachToTarget", attach).await;
        self.session = attached["sessionId"].as_str().expect("a session").into();
        for domain in ["Page.enable", "Network.enable", "Runtime.enable", "Log.enable"] {
            self.ask(domain, json!({})).await;
        }
    }

    /// Opens a page and returns when it and all that belongs to it was loaded.
    pub(crate) async fn open(&mut self, url: &str) {
        self.events.clear();
        let opened = self.ask("Page.navigate", json!({"url": url})).await;
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
        while !self.events.iter().any(|e| e["method"] == "Page.loadEventFired") {
            let event = self.read().await;
            self.events.push(event);
        }
    }

    /// What the page asked for since it was opened, itself included.
    pub(crate) fn requests(&self) -> Vec<String> {
        let of = |e: &Value| e["params"]["request"]["url"].as_str().map(String::from);
        let requests = self.events.iter().filter(|e| e["method"] == "Network.requestWillBeSent");
        requests.filter_map(of).collect()
    }

    /// What the browser complained of, such as a script that the page's policy forbids.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let of = |e: &Value| e["params"]["entry"]["text"].as_str().map(String::from);
        self.events.iter().filter(|e| e["method"] == "Log.entryAdded").filter_map(of).collect()
    }

    /// The value of an expression in the page.
    pub(crate) async fn value(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.ask("Runtime.evaluate", asked).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// A window so many pixels wide, in light or dark.
    pub(crate) async fn look(&mut self, width: u32, dark: bool) {
        let size =
            json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500});
        self.ask("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.ask("Emulation.setEmulatedMedia", json!({"features": features})).await;
    }

    /// Whether scripts of pages run.
    pub(crate) async fn let_scripts_run(&mut self, run: bool) {
        self.ask("Emulation.setScriptExecutionDisabled", json!({"value": !run})).await;
    }

    /// A picture of the whole page.
    pub(crate) async fn picture(&mut self, file: &Path) {
        let asked = json!({"format": "png", "captureBeyondViewport": true});
        let taken = self.ask("Page.captureScreenshot", asked).await;
        let bytes = base64::engine::general_purpose::STANDARD;
        let bytes = bytes.decode(taken["data"].as_str().expect("a picture")).expect("base64");
        std::fs::write(file, bytes).expect("the folder of pictures is ours");
    }

    pub(crate) async fn close(mut self) {
        self.ask("Browser.close", json!({})).await;
        self.child.wait().await.expect("it was started");
    }

    async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let mut message = json!({"id": self.asked, "method": method, "params": params});
        if !self.session.is_empty() && !method.starts_with("Browser.") {
            message["sessionId"] = self.session.clone().into();
        }
        let bytes = [message.to_string().as_bytes(), b"\0"].concat();
        self.to.write_all(&bytes).await.expect("the browser runs");
        loop {
            let mut message = self.read().await;
            if message["id"] == self.asked {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].take();
            }
            self.events.push(message);
        }
    }

    async fn read(&mut self) -> Value {
        let mut bytes = vec![];
        self.from.read_until(0, &mut bytes).await.expect("the browser runs");
        assert_eq!(bytes.pop(), Some(0), "the browser has ended");
        serde_json::from_slice(&bytes).expect("a message of DevTools")
    }
}

fn find() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("KEYLEDGER_CHROMIUM") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let all = NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    all.into_iter().find(|program| program.is_file())
}
