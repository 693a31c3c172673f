//! The browser that the tests look at pages with: found by name, installed if missing.

use std::env;
use std::path::PathBuf;

use crate::packages;
use crate::process::{Result, is_executable, on_path};

/// The tests look for the same names.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

pub(crate) fn find_or_install() -> Result<PathBuf> {
    if let Some(found) = find()? {
        return Ok(found);
    }
    let manager = packages::of_this_machine().ok_or(
        "Chromium is missing, and this machine has none of apt-get, dnf, pacman, apk and brew. Install \
         it, or set KEYLEDGER_CHROMIUM to its path, then run this again.",
    )?;
    manager.install_browser()?;
    find()?.ok_or_else(|| {
        "Chromium is installed, but not on PATH. Set KEYLEDGER_CHROMIUM to its path, then run this again."
            .to_owned()
    })
}

/// What KEYLEDGER_CHROMIUM names, else the first on PATH.
fn find() -> Result<Option<PathBuf>> {
    match env::var_os("KEYLEDGER_CHROMIUM").map(PathBuf::from) {
        Some(named) if is_executable(&named) => Ok(Some(named)),
        Some(named) => Err(format!(
            "KEYLEDGER_CHROMIUM is {}, which can't be run. Correct it, or unset it to look on PATH.",
            named.display()
        )),
        None => Ok(NAMES.iter().find_map(|name| on_path(name))),
    }
}
