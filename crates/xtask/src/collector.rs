//! A real OpenTelemetry Collector, with the configuration that `deploy` holds. Instead of sending telemetry on, it writes it
//! into files; audit logs it sends into Keyledger.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::background::Background;
use crate::process::{Result, workspace_root};

const START_LIMIT: Duration = Duration::from_secs(60);
/// What the collector says when all its ports are open.
const READY: &str = "Everything is ready";
/// The variables of deploy/otel-collector.yaml that name a port.
const PORTS: [&str; 5] = [
    "OTLP_GRPC_LISTEN",
    "OTLP_HTTP_LISTEN",
    "AUDIT_GRPC_LISTEN",
    "AUDIT_HTTP_LISTEN",
    "HEALTH_LISTEN",
];

/// Where a collector will be.
pub(crate) struct Place {
    ports: Vec<SocketAddr>,
    folder: PathBuf,
}

impl Place {
    /// Free ports. Nothing holds them until the collector starts, and nothing is told of them but what we start.
    pub(crate) fn choose(folder: &Path) -> Result<Place> {
        let held: std::io::Result<Vec<TcpListener>> =
            PORTS.iter().map(|_| TcpListener::bind("127.0.0.1:0")).collect();
        let ports = held.and_then(|held| held.iter().map(TcpListener::local_addr).collect());
        let ports = ports.map_err(|error| format!("no free port on 127.0.0.1: {error}"))?;
        Ok(Place { ports, folder: folder.to_owned() })
    }

    /// Where telemetry is sent.
    pub(crate) fn telemetry(&self) -> String {
        format!("http://{}", self.ports[0])
    }

    /// Where audit logs are sent.
    pub(crate) fn audit(&self) -> String {
        format!("http://{}", self.ports[2])
    }

    /// Where it writes what it gets.
    pub(crate) fn files(&self) -> PathBuf {
        self.folder.join("telemetry")
    }

    /// Starts it; the token lets it record what it gets as audit logs.
    pub(crate) fn start(&self, program: &Path, keyledger: &str, token: &str) -> Result<Background> {
        let deploy = workspace_root().join("deploy");
        let mut command = Command::new(program);
        for file in ["otel-collector.yaml", "otel-collector-files.yaml"] {
            command.arg("--config").arg(deploy.join(file));
        }
        command.envs(PORTS.iter().zip(self.ports.iter().map(SocketAddr::to_string)));
        command.env("KEYLEDGER_ENDPOINT", format!("http://{keyledger}"));
        command.env("KEYLEDGER_INSECURE", "true");
        command.env("KEYLEDGER_TOKEN", token);
        command.env("TELEMETRY_DIR", self.files());
        command.env("STORAGE_DIR", self.folder.join("storage"));
        let mut process = Background::start("the collector", &mut command)?;
        process.wait_for(READY, START_LIMIT, |line| line.contains(READY).then_some(()))?;
        Ok(process)
    }
}
