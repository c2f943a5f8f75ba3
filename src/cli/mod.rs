//! The command line: one file a command, and the only code that prints.
//!
//! `main.rs` calls [`run()`]. Results go to standard output, progress and complaints to standard error; a command hands
//! back how it ended ([`Ended`]) or why it could not ([`CliError`]).

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use error::{CliError, complain};

mod columns;
mod completions;
mod container;
mod doctor;
mod each;
mod error;
mod filter;
mod gc;
mod image;
mod judge;
mod list;
mod network;
mod output;
mod pace;
mod plan;
mod privileges;
mod progress;
mod report;
mod result;
mod run;
mod scenarios;
mod signals;
mod template;
mod turn;
mod validate;

/// What isolation costs on this machine, and whether the kernel enforces what was asked of it.
#[derive(Debug, Parser)]
#[command(name = "isobench", version, about, arg_required_else_help = true, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 pass, 1 a check failed, 2 usage or environment error, 3 inconclusive, 130 interrupted"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run scenarios and write a report of each
    Run(run::RunArgs),
    /// Check scenario files without running them
    Validate(validate::ValidateArgs),
    /// Render a run again from its raw data
    Report(report::ReportArgs),
    /// Show what this host can do, and what will be skipped and why
    Doctor(doctor::DoctorArgs),
    /// Take away what a killed isobench left behind
    Gc,
    /// Work with images: list, pull, push, load, save, import, …
    Image(Box<image::ImageArgs>),
    /// Work with containers: run, exec, logs, stop, …
    Container(Box<container::ContainerArgs>),
    /// Show networks and who is on them
    Network(network::NetworkArgs),
    /// Show the experiments with their keys, the metrics, and the scenarios in ./scenarios
    List,
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

/// How a command ended that did what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything holds.
    Pass,
    /// The data cannot tell whether a check holds.
    Inconclusive,
    /// A check failed.
    Failed,
    /// Something could not be done; it has been said what.
    Error,
    /// The user ended it.
    Interrupted,
    /// A program was run, and this is its code.
    Program(u8),
}

impl Ended {
    /// The exit code: 0, 3, 1, 2, 130.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Ended::Pass => 0,
            Ended::Failed => 1,
            Ended::Error => 2,
            Ended::Inconclusive => 3,
            Ended::Interrupted => 130,
            Ended::Program(code) => code,
        }
    }

    /// The graver of two: interrupted, error, failed, inconclusive, pass.
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        if self.gravity() >= other.gravity() { self } else { other }
    }

    fn gravity(self) -> u8 {
        match self {
            Ended::Pass => 0,
            Ended::Inconclusive => 1,
            Ended::Failed => 2,
            Ended::Error => 3,
            Ended::Interrupted | Ended::Program(_) => 4,
        }
    }
}

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> Self {
        ExitCode::from(ended.code())
    }
}

/// Docker's code for words that it does not understand.
const NOT_UNDERSTOOD: u8 = 125;

/// Parses the process's arguments and does what they ask. Help and usage errors end the process from within, with 0
/// and 2; those of `container` are told with docker's 125.
///
/// # Errors
/// When the command cannot do what it was asked.
pub fn run() -> Result<Ended, CliError> {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && std::env::args_os().nth(1).is_some_and(|word| word == "container") => {
            // Where standard error is closed there is no one to tell.
            let _ = error.print();
            return Ok(Ended::Program(NOT_UNDERSTOOD));
        }
        Err(error) => error.exit(),
    };
    match cli.command {
        Command::Run(args) => run::run(args),
        Command::Validate(args) => validate::run(args),
        Command::Report(args) => report::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Gc => gc::run(),
        Command::Image(args) => image::run(*args),
        Command::Container(args) => container::run(*args),
        Command::Network(args) => network::run(args),
        Command::List => list::run(),
        Command::Completions(args) => completions::run(args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_worst_of_several_runs_is_the_exit_code() {
        let order = [Ended::Pass, Ended::Inconclusive, Ended::Failed, Ended::Error, Ended::Interrupted];
        for (index, graver) in order.iter().enumerate() {
            for milder in &order[..=index] {
                assert_eq!((graver.worst(*milder), milder.worst(*graver)), (*graver, *graver));
            }
        }
        assert_eq!(order.map(Ended::code), [0, 3, 1, 2, 130]);
    }
}
