//! The `keyledger` command: what it takes, where each command lives, and with which code it ends.
//!
//! Each family of commands has a file of its own. All of them print through [`screen`], reach the server through
//! [`connection`] and fail through [`failure`].

mod access;
mod as_of;
mod audit;
mod change;
mod connection;
mod export_file;
mod failure;
mod json;
mod keys;
mod ledgers;
mod manifest_file;
mod operate;
mod paging;
mod place;
mod progress;
mod raw_entries;
mod roles;
mod screen;
mod stream;
mod table;
mod token;
mod trace;
mod usage;
mod values;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Keyledger issues provisioning keys and proves, offline, who did what with them, when and why.
///
/// Commands that talk to a server need an endpoint and a token. Against `keyledger dev` on this machine both are found
/// without any option.
#[derive(Parser)]
#[command(name = "keyledger", version, after_help = ENDING, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const ENDING: &str = "\
Exit codes: 0 good; 1 failed; 2 wrong usage; 10 `verify` found the ledger not good, `keys verify` answered DENY, \
`doctor` found something wrong, or an import left something out.

Tokens are read from files, KEYLEDGER_TOKEN or standard input, never from an argument: other users of this machine could \
read it there with `ps`.";

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Operate(operate::Operate),
    Ledgers(ledgers::Ledgers),
    Keys(Box<keys::Keys>),
    Roles(roles::Roles),
    Access(access::Access),
    Audit(audit::Audit),
    Usage(usage::Usage),
    Trace(Box<trace::Trace>),
    Verify(verify::Verify),
}

/// How a command ended, if it didn't fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Good,
    /// The ledger is not good, the verdict is DENY, or not all was imported.
    NotGood,
}

/// Runs the command that the arguments of this process name.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    if let Command::Operate(command) = &command
        && let Some(code) = operate::guard(command)
    {
        return code;
    }
    match run(command) {
        Ok(Ending::Good) => ExitCode::SUCCESS,
        Ok(Ending::NotGood) => ExitCode::from(10),
        Err(error) if failure::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            failure::print(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<Ending> {
    tokio::runtime::Runtime::new()?.block_on(async {
        match command {
            Command::Operate(command) => operate::run(command).await,
            Command::Ledgers(command) => command.run().await,
            Command::Keys(command) => command.run().await,
            Command::Roles(command) => command.run().await,
            Command::Access(command) => command.run().await,
            Command::Audit(command) => command.run().await,
            Command::Usage(command) => command.run().await,
            Command::Trace(command) => command.run().await,
            Command::Verify(command) => command.run().await,
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
    }

    /// The words of a command as a shell takes them; quotes are single.
    fn words_of(command: &str) -> Vec<String> {
        let parts = command.split('\'').enumerate();
        let words = parts.flat_map(|(i, part)| match i % 2 {
            0 => part.split_whitespace().map(String::from).collect(),
            _ => vec![part.to_string()],
        });
        words.collect()
    }

    #[test]
    fn every_command_of_the_page_of_controls_is_one_of_ours() {
        let page = include_str!("../../../deploy/controls.md");
        let spans = page.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
        let blocks = page.split("```").skip(1).step_by(2).flat_map(str::lines);
        let commands = spans.chain(blocks).filter(|text| text.starts_with("keyledger "));
        let mut tried = 0;
        for command in commands {
            let filled = command
                .replace("KEY_ID", "0198c5a0-0000-8000-8000-000000000001")
                .replace("TIME", "2026-01-01T00:00:00Z")
                .replace("POSITION", "7");
            let words = words_of(filled.split(" > ").next().unwrap_or_default());
            Cli::try_parse_from(words).unwrap_or_else(|e| panic!("{command}: {e}"));
            tried += 1;
        }
        assert!(tried > 20, "the page names its commands");
    }

    #[test]
    fn no_argument_takes_a_token() {
        fn walk(command: &clap::Command) {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str();
                let takes_text = argument.get_num_args().is_none_or(|n| n.takes_values());
                let allowed =
                    ["token_file", "subject_token_file", "token_dir", "page_token"].contains(&name);
                assert!(!name.contains("token") || !takes_text || allowed, "{name}");
            }
            command.get_subcommands().for_each(walk);
        }
        let mut command = Cli::command();
        command.build();
        walk(&command);
    }

    #[test]
    fn every_command_of_ours_says_what_it_does_and_shows_an_example() {
        let mut command = Cli::command();
        command.build();
        for family in ["ledgers", "keys", "roles", "access", "audit"] {
            let family = command.find_subcommand(family).unwrap();
            for leaf in family.get_subcommands().filter(|c| c.get_name() != "help") {
                assert!(leaf.get_about().is_some(), "{}", leaf.get_name());
                let after = leaf.get_after_help().map(ToString::to_string).unwrap_or_default();
                let example = format!("keyledger {} {}", family.get_name(), leaf.get_name());
                assert!(after.contains(&example), "{example}");
            }
        }
    }
}
