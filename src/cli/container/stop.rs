//! `isobench container stop`, `restart`, `kill` and `wait`.

use std::time::Duration;

use clap::Args;

use super::start::begin;
use super::{CommandError, Outcome, each};
use crate::container::client::{Client, settled};
use crate::container::monitor::First;
use crate::container::signal;
use crate::container::state::Status;
use crate::container::store::{Store, Stored};
use crate::container::wire::Message;

/// How to stop.
#[derive(Debug, Args)]
struct Ending {
    /// The signal that asks for the end; otherwise the container's own
    #[arg(short, long, value_name = "SIGNAL", value_parser = signal::parse)]
    signal: Option<i32>,
    /// Seconds until those that have not ended are killed; -1: never. Otherwise the container's own, 10 by default
    #[arg(short = 't', long = "timeout", alias = "time", value_name = "SECONDS", allow_negative_numbers = true)]
    timeout: Option<i64>,
}

/// The arguments of `isobench container stop`.
#[derive(Debug, Args)]
pub(in crate::cli) struct StopArgs {
    #[command(flatten)]
    ending: Ending,
    /// Names or identifiers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// The arguments of `isobench container restart`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RestartArgs {
    #[command(flatten)]
    ending: Ending,
    /// Names or identifiers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// The arguments of `isobench container kill`.
#[derive(Debug, Args)]
pub(in crate::cli) struct KillArgs {
    /// The signal, by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = signal::parse)]
    signal: i32,
    /// Names or identifiers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// The arguments of `isobench container wait`.
#[derive(Debug, Args)]
pub(in crate::cli) struct WaitArgs {
    /// Names or identifiers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Ending {
    fn grace(&self, stored: &Stored) -> Option<u32> {
        let grace = match self.timeout {
            Some(seconds) if seconds < 0 => return None,
            Some(seconds) => Duration::from_secs(seconds as u64),
            None => stored.config.stop_timeout,
        };
        Some(u32::try_from(grace.as_millis()).unwrap_or(u32::MAX - 1))
    }
}

/// Stops a container that is up, or is about to be started again; its code. `None` for one that is not.
pub(super) fn end(
    store: &Store,
    stored: &Stored,
    signal: i32,
    grace_ms: Option<u32>,
) -> Result<Option<i32>, CommandError> {
    let state = settled(store, stored)?;
    if !state.status.is_up() && state.status != Status::Restarting {
        return Ok(None);
    }
    let mut client = match Client::connect(stored) {
        // It may have ended between the two.
        Err(_) if !settled(store, stored)?.status.is_up() => return Ok(None),
        client => client?,
    };
    let said = client.say(&Message::Stop { signal, grace_ms });
    said.map_err(CommandError::system("speak to the container's monitor"))?;
    match client.await_end(stored) {
        Ok(code) => Ok(Some(code)),
        // Its monitor was about to leave when we came.
        Err(_) if !stored.state().is_ok_and(|state| state.status.is_up()) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn stop(store: &Store, args: &StopArgs) -> Result<Outcome, CommandError> {
    each(&args.containers, |name| {
        let stored = store.find(name)?;
        end(store, &stored, args.ending.signal.unwrap_or(0), args.ending.grace(&stored))?;
        Ok(Some(name.to_owned()))
    })
}

pub(super) fn restart(store: &Store, args: &RestartArgs) -> Result<Outcome, CommandError> {
    each(&args.containers, |name| {
        let stored = store.find(name)?;
        end(store, &stored, args.ending.signal.unwrap_or(0), args.ending.grace(&stored))?;
        begin(store, &stored, First::default())?;
        Ok(Some(name.to_owned()))
    })
}

pub(super) fn kill(store: &Store, args: &KillArgs) -> Result<Outcome, CommandError> {
    each(&args.containers, |name| {
        let stored = store.find(name)?;
        let state = settled(store, &stored)?;
        if !state.status.is_up() {
            return Err(stored.refuse("kill", state.status, "").into());
        }
        if args.signal == libc::SIGKILL {
            // Its end is waited for, so that the next command finds it ended.
            end(store, &stored, libc::SIGKILL, Some(0))?;
        } else {
            let said = Client::connect(&stored)?.say(&Message::Signal(args.signal));
            said.map_err(CommandError::system("speak to the container's monitor"))?;
        }
        Ok(Some(name.to_owned()))
    })
}

pub(super) fn wait(store: &Store, args: &WaitArgs) -> Result<Outcome, CommandError> {
    each(&args.containers, |name| {
        let stored = store.find(name)?;
        Ok(Some(await_end(store, &stored)?.to_string()))
    })
}

/// Waits until a container does not run; its last code.
fn await_end(store: &Store, stored: &Stored) -> Result<i32, CommandError> {
    loop {
        let state = settled(store, stored)?;
        if !state.status.is_up() && state.status != Status::Restarting {
            return Ok(state.exit_code.unwrap_or(0));
        }
        // A monitor that dies or leaves meanwhile is looked for again.
        let Ok(mut client) = Client::connect(stored) else { continue };
        if client.say(&Message::Wait).is_ok()
            && let Ok(code) = client.await_end(stored)
        {
            return Ok(code);
        }
    }
}
