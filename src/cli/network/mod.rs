//! `isobench network …`: networks by hand, with docker's words, columns and exit codes (1 for what cannot be done).

use clap::{Args, Subcommand};

use super::{CliError, Ended, complain};

mod inspect;
mod known;
mod list;

/// The arguments of `isobench network`.
#[derive(Debug, Args)]
pub(super) struct NetworkArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List networks
    #[command(visible_alias = "list")]
    Ls(list::ListArgs),
    /// Show all that is known of networks
    Inspect(inspect::InspectArgs),
}

pub(super) fn run(args: NetworkArgs) -> Result<Ended, CliError> {
    let outcome = match args.command {
        Command::Ls(args) => list::run(&args),
        Command::Inspect(args) => inspect::run(&args),
    };
    match outcome {
        // Docker's commands end with 1 where something cannot be done.
        Err(error) if !error.is_broken_pipe() => {
            complain(&error);
            Ok(Ended::Failed)
        }
        outcome => outcome,
    }
}
