//! A `keyledger dev` of our own: fresh folder, free port, everything it says kept to be looked at.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::background::Background;
use crate::process::Result;

/// initdb, migrations and the first ledger, on a machine that also compiles.
const START_LIMIT: Duration = Duration::from_secs(180);

pub(crate) struct DevServer {
    pub(crate) process: Background,
    pub(crate) data_dir: PathBuf,
    pub(crate) address: String,
}

impl DevServer {
    /// Starts it in a folder that is ours alone, its telemetry going to a collector, and waits until it says where it listens.
    pub(crate) fn start(keyledger: &Path, folder: &Path, collector: &str) -> Result<DevServer> {
        let data_dir = folder.join("data");
        let mut command = Command::new(keyledger);
        command.args(["dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data_dir);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector);
        command.env("OTEL_METRIC_EXPORT_INTERVAL", "2000");
        let mut process = Background::start("keyledger dev", &mut command)?;
        let address = process.wait_for("listening on ADDRESS", START_LIMIT, address_in)?;
        Ok(DevServer { process, data_dir, address })
    }

    /// The admin token of the first ledger, from a file that only its owner may read.
    pub(crate) fn admin_token(&self) -> Result<String> {
        let file = self.data_dir.join("admin.token");
        let fault = |error| format!("cannot read {}: {error}", file.display());
        let mode = fs::metadata(&file).map_err(fault)?.permissions().mode() & 0o777;
        if mode != 0o600 {
            return Err(format!("{} has mode {mode:o}, not 600", file.display()));
        }
        Ok(fs::read_to_string(&file).map_err(fault)?.trim().to_owned())
    }
}

/// The address in `listening on 127.0.0.1:7420`, in plain text or inside a JSON log line.
fn address_in(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("listening on ")?;
    let rest = rest.trim_start_matches("http://");
    let end = rest
        .find(|c: char| !(c.is_ascii_alphanumeric() || ".:[]-".contains(c)))
        .unwrap_or(rest.len());
    let address = rest[..end].trim_end_matches('.');
    let (_, port) = address.rsplit_once(':')?;
    port.parse::<u16>().is_ok_and(|port| port != 0).then(|| address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::address_in;

    #[test]
    fn the_address_is_found_in_a_line() {
        let found = Some("127.0.0.1:7420".to_owned());
        assert_eq!(address_in("listening on 127.0.0.1:7420"), found);
        assert_eq!(
            address_in("keyledger is listening on http://127.0.0.1:7420 (plaintext)"),
            found
        );
        assert_eq!(
            address_in(r#"{"level":"INFO","message":"listening on 127.0.0.1:7420"}"#),
            found
        );
        assert_eq!(address_in("listening on 127.0.0.1:7420."), found);
        assert_eq!(address_in("listening on [::1]:80"), Some("[::1]:80".to_owned()));
    }

    #[test]
    fn other_lines_hold_none() {
        for line in [
            "",
            "listening on ",
            "listening on 127.0.0.1:0",
            "listening on /tmp/socket",
            "starting",
        ] {
            assert_eq!(address_in(line), None, "{line}");
        }
    }
}
