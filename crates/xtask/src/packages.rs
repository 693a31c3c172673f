//! Package managers: the exact commands that install the Postgres server and a browser, said before they run.

use std::process::Command;

use crate::process::{Result, answer_of, on_path, run, shown};

pub(crate) struct PackageManager {
    program: &'static str,
    /// Where these commands were seen to work; the others are written from their manuals.
    tried_on: Option<&'static str>,
    needs_root: bool,
    /// Refreshes the lists of packages. It may fail (some source is away): the installation decides.
    refresh: &'static [&'static str],
    install_postgres: &'static [&'static str],
    install_browser: &'static [&'static str],
    pub(crate) install_c_compiler: &'static str,
    /// What else the installation of Postgres does to the machine.
    side_effect: Option<&'static str>,
}

/// In the order of asking: the system's own before an added one.
const KNOWN: [PackageManager; 5] = [
    PackageManager {
        program: "apt-get",
        tried_on: Some("Debian 12"),
        needs_root: true,
        refresh: &["apt-get", "update"],
        install_postgres: &[
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "install",
            "-y",
            "--no-install-recommends",
            "postgresql",
        ],
        install_browser: &[
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "install",
            "-y",
            "--no-install-recommends",
            "chromium",
        ],
        install_c_compiler: "apt-get install build-essential",
        side_effect: Some(
            "The package also sets up a server of its own on port 5432. Keyledger doesn't use it; \
             `systemctl disable --now postgresql` stops it.",
        ),
    },
    PackageManager {
        program: "dnf",
        tried_on: None,
        needs_root: true,
        refresh: &[],
        install_postgres: &["dnf", "install", "-y", "postgresql-server"],
        install_browser: &["dnf", "install", "-y", "chromium"],
        install_c_compiler: "dnf install gcc",
        side_effect: None,
    },
    PackageManager {
        program: "pacman",
        tried_on: None,
        needs_root: true,
        refresh: &[],
        install_postgres: &["pacman", "-S", "--needed", "--noconfirm", "postgresql"],
        install_browser: &["pacman", "-S", "--needed", "--noconfirm", "chromium"],
        install_c_compiler: "pacman -S base-devel",
        side_effect: None,
    },
    PackageManager {
        program: "apk",
        tried_on: None,
        needs_root: true,
        refresh: &[],
        install_postgres: &["apk", "add", "--no-cache", "postgresql"],
        install_browser: &["apk", "add", "--no-cache", "chromium"],
        install_c_compiler: "apk add build-base",
        side_effect: None,
    },
    PackageManager {
        program: "brew",
        tried_on: None,
        needs_root: false,
        refresh: &[],
        install_postgres: &["brew", "install", "postgresql@17"],
        install_browser: &["brew", "install", "--cask", "chromium"],
        install_c_compiler: "xcode-select --install",
        side_effect: None,
    },
];

/// The package manager of this machine.
pub(crate) fn of_this_machine() -> Option<&'static PackageManager> {
    KNOWN.iter().find(|manager| on_path(manager.program).is_some())
}

/// What is missing, and how it is installed.
struct Missing {
    /// Said before "It will now be installed".
    what: &'static str,
    /// Its name in a sentence.
    name: &'static str,
    install: &'static [&'static str],
    side_effect: Option<&'static str>,
}

impl PackageManager {
    /// Says what it will do, then does it.
    pub(crate) fn install_postgres(&self) -> Result {
        self.install(&self.postgres())
    }

    /// The same for a browser.
    pub(crate) fn install_browser(&self) -> Result {
        self.install(&Missing {
            what: "Chromium isn't on this machine, and the tests look at pages with a real browser.",
            name: "Chromium",
            install: self.install_browser,
            side_effect: None,
        })
    }

    fn postgres(&self) -> Missing {
        Missing {
            what: "The Postgres server programs (postgres, initdb) aren't on this machine, and Keyledger\n\
                   runs a Postgres of its own in development and tests.",
            name: "the Postgres server",
            install: self.install_postgres,
            side_effect: self.side_effect,
        }
    }

    fn install(&self, missing: &Missing) -> Result {
        let prefix = self.prefix(missing)?;
        let refresh = command(prefix, self.refresh);
        let install = command(prefix, missing.install);
        eprint!("{}", self.announcement(missing, refresh.as_ref(), install.as_ref()));
        if let Some(Err(reason)) = refresh.map(|mut command| run(&mut command)) {
            eprintln!("warning: {reason}; trying to install all the same");
        }
        match install {
            Some(mut command) => run(&mut command).map_err(|reason| {
                format!("{reason}. Install {} by hand, then run this again.", missing.name)
            }),
            None => Ok(()),
        }
    }

    fn announcement(
        &self,
        missing: &Missing,
        refresh: Option<&Command>,
        install: Option<&Command>,
    ) -> String {
        let mut text = format!("{} It will now be installed:\n", missing.what);
        for command in [refresh, install].into_iter().flatten() {
            text += &format!("  {}\n", shown(command));
        }
        text += &match self.tried_on {
            Some(system) => format!("(seen to work on {system})\n"),
            None => "(written from the manual of this package manager, never tried)\n".to_owned(),
        };
        if let Some(side_effect) = missing.side_effect {
            text += &format!("{side_effect}\n");
        }
        text
    }

    /// `sudo` where root is needed and we aren't.
    fn prefix(&self, missing: &Missing) -> Result<&'static [&'static str]> {
        if !self.needs_root || is_root() {
            return Ok(&[]);
        }
        match on_path("sudo") {
            Some(_) => Ok(&["sudo"]),
            None => Err(format!(
                "{} is missing, and installing it takes root, but there is no sudo. As root run `{}`, then \
                 run this again.",
                missing.name,
                self.by_hand(missing)
            )),
        }
    }

    fn by_hand(&self, missing: &Missing) -> String {
        let commands = [self.refresh, missing.install].map(|words| words.join(" "));
        let commands: Vec<String> = commands.into_iter().filter(|line| !line.is_empty()).collect();
        commands.join(" && ")
    }
}

fn command(prefix: &[&str], words: &[&str]) -> Option<Command> {
    let (_, _) = words.split_first()?;
    let mut all = prefix.iter().chain(words);
    let mut command = Command::new(all.next()?);
    command.args(all);
    Some(command)
}

fn is_root() -> bool {
    answer_of(Command::new("id").arg("-u")).as_deref() == Some("0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_will_be_installed_is_said_as_it_is_typed() {
        let apt = &KNOWN[0];
        let refresh = command(&["sudo"], apt.refresh);
        let install = command(&["sudo"], apt.install_postgres);
        let text = apt.announcement(&apt.postgres(), refresh.as_ref(), install.as_ref());
        assert!(text.contains("\n  sudo apt-get update\n"), "{text}");
        let line = "\n  sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y \
                    --no-install-recommends postgresql\n";
        assert!(text.contains(line), "{text}");
        assert!(apt.by_hand(&apt.postgres()).starts_with("apt-get update && env "));
    }

    #[test]
    fn commands_never_tried_are_marked() {
        for manager in KNOWN.iter().filter(|manager| manager.tried_on.is_none()) {
            let install = command(&[], manager.install_postgres);
            let text = manager.announcement(&manager.postgres(), None, install.as_ref());
            assert!(text.contains("never tried"), "{}: {text}", manager.program);
        }
    }
}
