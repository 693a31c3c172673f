//! The child that runs Keyledger: what `keyledger dev` runs, with the same telemetry.

use std::path::PathBuf;

use keyledger_server::dev::{Dev, dev};
use keyledger_server::embedded::GuardCommand;
use keyledger_server::telemetry;

use crate::process::{parent_closes, say_listening};

pub(crate) async fn serve(data_dir: PathBuf) -> anyhow::Result<()> {
    let _telemetry = telemetry::start();
    let guard = GuardCommand::this_program(&["guard"])?;
    let listen = ([127, 0, 0, 1], 0).into();
    let options = Dev { data_dir, listen, pg_bin_dir: None, guard, forwarders: None };
    Ok(dev(options, say_listening, parent_closes()).await?)
}
