//! `isobench container …`: containers by hand, with docker's words, columns and exit codes (1 for what cannot be done).

use clap::{Args, Subcommand};

use super::{CliError, Ended, complain};
use crate::container::store::Store;

mod commit;
mod cp;
mod diff;
mod export;
mod filters;
mod inspect;
mod list;
mod port;
mod rename;
mod shown;
mod stats;
mod top;

/// The arguments of `isobench container`.
#[derive(Debug, Args)]
pub(super) struct ContainerArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List containers
    #[command(visible_aliases = ["ps", "list"])]
    Ls(list::ListArgs),
    /// Show all that is known of containers
    Inspect(inspect::InspectArgs),
    /// Show the processes of a container
    Top(top::TopArgs),
    /// Show what containers use
    Stats(stats::StatsArgs),
    /// Show where a container's ports are published
    Port(port::PortArgs),
    /// Give a container another name
    Rename(rename::RenameArgs),
    /// Copy files between a container and the host
    Cp(cp::CopyArgs),
    /// Show what a container has changed over its image
    Diff(diff::DiffArgs),
    /// Make an image of what a container has changed
    Commit(commit::CommitArgs),
    /// Write a container's files to an archive
    Export(export::ExportArgs),
}

pub(super) fn run(args: ContainerArgs) -> Result<Ended, CliError> {
    let outcome = Store::of_machine().map_err(CliError::from).and_then(|store| dispatch(&store, args.command));
    match outcome {
        Err(error) if !error.is_broken_pipe() => {
            complain(&error);
            Ok(Ended::Failed)
        }
        outcome => outcome,
    }
}

fn dispatch(store: &Store, command: Command) -> Result<Ended, CliError> {
    match command {
        Command::Ls(args) => list::run(store, &args),
        Command::Inspect(args) => inspect::run(store, &args),
        Command::Top(args) => top::run(store, &args),
        Command::Stats(args) => stats::run(store, &args),
        Command::Port(args) => port::run(store, &args),
        Command::Rename(args) => rename::run(store, &args),
        Command::Cp(args) => cp::run(store, &args),
        Command::Diff(args) => diff::run(store, &args),
        Command::Commit(args) => commit::run(store, &args),
        Command::Export(args) => export::run(store, &args),
    }
}
