//! `isobench container rm` and `prune`.

use std::io::{IsTerminal, Write};

use clap::Args;

use super::stop::end;
use super::{CommandError, Outcome, each};
use crate::cli::output;
use crate::container::client::settled;
use crate::container::make;
use crate::container::state::{State, Status};
use crate::container::store::{Store, StoreError, Stored};

/// The arguments of `isobench container rm`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RemoveArgs {
    /// Kill those that run; those that are not there are fine
    #[arg(short, long)]
    force: bool,
    /// Remove the volumes that were made for them alone
    #[arg(short, long)]
    volumes: bool,
    /// Names or identifiers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// The arguments of `isobench container prune`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub(super) fn run(store: &Store, args: &RemoveArgs) -> Result<Outcome, CommandError> {
    each(&args.containers, |name| {
        let stored = match store.find(name) {
            Err(StoreError::NotFound(_)) if args.force => return Ok(None),
            found => found?,
        };
        remove(store, &stored, args.force, args.volumes)?;
        Ok(Some(name.to_owned()))
    })
}

fn remove(store: &Store, stored: &Stored, force: bool, volumes: bool) -> Result<(), CommandError> {
    let state = settled(store, stored)?;
    if state.status.is_up() || state.status == Status::Restarting {
        if !force {
            return Err(stored.refuse("remove", state.status, "; stop it first, or use --force").into());
        }
        end(store, stored, libc::SIGKILL, Some(0))?;
    }
    let lock = match stored.lock() {
        // With --rm it was removed by its monitor.
        Err(StoreError::NotFound(_)) if force => return Ok(()),
        lock => lock?,
    };
    let state = lock.state()?;
    if state.status.is_up() {
        return Err(stored.refuse("remove", state.status, "; someone has started it again").into());
    }
    lock.write(&State { removing: true, ..state })?;
    Ok(make::remove(store, stored, volumes)?)
}

pub(super) fn prune(store: &Store, args: &PruneArgs) -> Result<Outcome, CommandError> {
    if !args.force && !agreed()? {
        return Ok(Outcome::PASS);
    }
    let mut removed = Vec::new();
    for entry in store.all()? {
        let (stored, _) = entry?;
        let state = settled(store, &stored)?;
        if !state.status.is_up() && state.status != Status::Restarting {
            remove(store, &stored, false, false)?;
            removed.push(stored.config.id);
        }
    }
    if !removed.is_empty() {
        output::print(&format!("Deleted Containers:\n{}\n", removed.join("\n")))?;
    }
    Ok(Outcome::PASS)
}

fn agreed() -> Result<bool, CommandError> {
    if !std::io::stdin().is_terminal() {
        return Err(CommandError::Usage("this removes all containers that do not run; say so with --force".to_owned()));
    }
    let asked = write!(std::io::stderr(), "This removes all containers that do not run. Go on? [y/N] ");
    asked.map_err(CommandError::system("ask"))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(CommandError::system("read the answer"))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
