//! The child that runs Keyledger: what `keyledger dev` runs, with the same telemetry.

use std::path::PathBuf;

use keyledger_server::dev::{Dev, dev};
use keyledger_server::embedded::GuardCommand;
use keyledger_server::telemetry::config::Settings;
use keyledger_server::telemetry::{self, CallerContext};

use crate::process::{parent_closes, say_listening};

pub(crate) async fn serve(data_dir: PathBuf) -> anyhow::Result<()> {
    let settings = Settings::from_environment()?;
    let _telemetry = telemetry::start(&settings)?;
    let guard = GuardCommand::this_program(&["guard"])?;
    let listen = ([127, 0, 0, 1], 0).into();
    let options = Dev {
        data_dir,
        listen,
        pg_bin_dir: None,
        guard,
        forwarders: None,
        telemetry: settings,
        caller_context: CallerContext::default(),
    };
    Ok(dev(options, say_listening, parent_closes()).await?)
}
