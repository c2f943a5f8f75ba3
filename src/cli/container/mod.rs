//! `isobench container …`: containers by hand, with docker's words, columns and exit codes.

use clap::{Args, Subcommand};

use super::{CliError, Ended, complain};
use crate::container::client::ClientError;
use crate::container::monitor::MonitorError;
use crate::container::store::{Store, StoreError};

mod attach;
mod commit;
mod cp;
mod diff;
mod exec;
mod export;
mod filters;
mod inspect;
mod list;
mod logs;
mod options;
mod pause;
mod port;
mod pull;
mod remove;
mod rename;
mod run;
mod session;
mod shown;
mod start;
mod stats;
mod stop;
mod top;
mod update;

/// The arguments of `isobench container`.
#[derive(Debug, Args)]
pub(super) struct ContainerArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a container and run its program
    Run(Box<run::RunArgs>),
    /// Make a container without starting it
    Create(Box<run::CreateArgs>),
    /// Start containers that were made or have ended
    Start(start::StartArgs),
    /// Ask containers to end, and end those that do not
    Stop(stop::StopArgs),
    /// Stop containers and start them again
    Restart(stop::RestartArgs),
    /// Send a signal to containers, KILL by default
    Kill(stop::KillArgs),
    /// Freeze every process of containers
    Pause(pause::PauseArgs),
    /// Let frozen containers go on
    Unpause(pause::PauseArgs),
    /// Run a further program in a container
    Exec(exec::ExecArgs),
    /// Take part in what a container's program reads and writes
    Attach(attach::AttachArgs),
    /// Show what a container has written
    Logs(logs::LogsArgs),
    /// Wait until containers have ended and print their exit codes
    Wait(stop::WaitArgs),
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
    /// Change limits and the restart policy of containers
    Update(update::UpdateArgs),
    /// Copy files between a container and the host
    Cp(cp::CopyArgs),
    /// Show what a container has changed over its image
    Diff(diff::DiffArgs),
    /// Make an image of what a container has changed
    Commit(commit::CommitArgs),
    /// Write a container's files to an archive
    Export(export::ExportArgs),
    /// Remove containers
    #[command(visible_alias = "remove")]
    Rm(remove::RemoveArgs),
    /// Remove all containers that do not run
    Prune(remove::PruneArgs),
}

/// How a command ended: its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome(pub i32);

impl Outcome {
    const PASS: Self = Self(0);
    const FAILED: Self = Self(1);
}

/// Why a command could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error(transparent)]
    Cli(#[from] CliError),
    #[error(transparent)]
    Options(#[from] options::OptionsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    #[error(transparent)]
    Make(#[from] crate::container::make::MakeError),
    #[error(transparent)]
    Container(#[from] crate::container::ContainerError),
    #[error(transparent)]
    Image(#[from] crate::image::ImageError),
    #[error(transparent)]
    File(#[from] crate::fs::FileError),
    /// `-it` without a terminal.
    #[error("the input is no terminal; leave out -t to use it all the same")]
    NoTerminal,
    /// Something that does not go with something else, or a value that is none.
    #[error("{0}")]
    Usage(String),
    /// A system call failed.
    #[error("cannot {act}")]
    System {
        act: &'static str,
        #[source]
        source: std::io::Error,
    },
}

impl CommandError {
    fn system(act: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System { act, source }
    }

    /// Docker's code where a program did not come to run.
    fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Client(ClientError::NotStarted { code, .. }) => Some(*code),
            Self::Monitor(error) => Some(error.exit_code()),
            Self::Client(ClientError::Monitor(error)) => Some(error.exit_code()),
            _ => None,
        }
    }
}

/// Docker's code for what goes wrong before there is a program.
pub(super) const NOT_RUN: i32 = 125;

pub(super) fn run(args: ContainerArgs) -> Result<Ended, CliError> {
    let or = match &args.command {
        Command::Run(_) | Command::Create(_) => NOT_RUN,
        _ => 1,
    };
    let outcome = Store::of_machine().map_err(CommandError::from).and_then(|store| dispatch(&store, args.command));
    match outcome {
        Ok(Outcome(code)) => Ok(Ended::Program(code as u8)),
        Err(CommandError::Cli(error)) if error.is_broken_pipe() => Err(error),
        Err(error) => {
            complain(&error);
            Ok(Ended::Program(error.exit_code().unwrap_or(or) as u8))
        }
    }
}

fn dispatch(store: &Store, command: Command) -> Result<Outcome, CommandError> {
    match command {
        Command::Run(args) => run::run(store, &args),
        Command::Create(args) => run::create(store, &args),
        Command::Start(args) => start::run(store, &args),
        Command::Stop(args) => stop::stop(store, &args),
        Command::Restart(args) => stop::restart(store, &args),
        Command::Kill(args) => stop::kill(store, &args),
        Command::Pause(args) => pause::pause(store, &args),
        Command::Unpause(args) => pause::unpause(store, &args),
        Command::Exec(args) => exec::run(store, &args),
        Command::Attach(args) => attach::run(store, &args),
        Command::Logs(args) => logs::run(store, &args),
        Command::Wait(args) => stop::wait(store, &args),
        Command::Ls(args) => plain(list::run(store, &args)),
        Command::Inspect(args) => plain(inspect::run(store, &args)),
        Command::Top(args) => plain(top::run(store, &args)),
        Command::Stats(args) => plain(stats::run(store, &args)),
        Command::Port(args) => plain(port::run(store, &args)),
        Command::Rename(args) => plain(rename::run(store, &args)),
        Command::Update(args) => update::run(store, &args),
        Command::Cp(args) => plain(cp::run(store, &args)),
        Command::Diff(args) => plain(diff::run(store, &args)),
        Command::Commit(args) => plain(commit::run(store, &args)),
        Command::Export(args) => plain(export::run(store, &args)),
        Command::Rm(args) => remove::run(store, &args),
        Command::Prune(args) => remove::prune(store, &args),
    }
}

/// The outcome of a command that runs no program.
fn plain(ended: Result<Ended, CliError>) -> Result<Outcome, CommandError> {
    Ok(Outcome(ended?.code().into()))
}

/// Does something with each of several containers and prints what it gives; goes on after one that cannot be done, and
/// says so.
fn each(
    names: &[String],
    mut act: impl FnMut(&str) -> Result<Option<String>, CommandError>,
) -> Result<Outcome, CommandError> {
    let mut outcome = Outcome::PASS;
    for name in names {
        match act(name) {
            Ok(Some(line)) => super::output::print(&format!("{line}\n"))?,
            Ok(None) => {}
            Err(CommandError::Cli(error)) if error.is_broken_pipe() => return Err(error.into()),
            Err(error) => {
                complain(&error);
                outcome = Outcome::FAILED;
            }
        }
    }
    Ok(outcome)
}
