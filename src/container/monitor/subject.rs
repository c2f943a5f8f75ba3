//! What a monitor looks after: a container that it started itself, or one that it took up.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::MonitorError;
use crate::cgroup::{Controller, Group, Layout, View, memory};
use crate::container::config::Config;
use crate::container::make::{self, MakeError};
use crate::container::store::Stored;
use crate::container::{Container, ContainerError, connect};
use crate::network::bridge::{BridgeNetwork, Endpoint};
use crate::sys::launch::{ExitStatus, pidfd_open, send_signal};
use crate::sys::pidfd;

/// How long whoever is the parent of a container without its monitor may take to reap it. Its end is told before that,
/// its code only after.
const REAPED_WITHIN: Duration = Duration::from_secs(1);

/// The container.
#[derive(Debug)]
pub(super) enum Subject {
    /// A child of this process.
    Own(Box<Container>),
    /// A process that another monitor, which died, was the parent of.
    TakenUp { pidfd: OwnedFd, pid: u32, place: Option<Place> },
}

/// A place on a bridge.
type Place = (Arc<BridgeNetwork>, Endpoint);

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// The program's code, or 128 and the signal's number.
    pub code: i32,
    /// Whether a process of it was killed for want of memory.
    pub oom_killed: bool,
    /// Whether the code could be learnt.
    pub known: bool,
}

impl Subject {
    /// A container that runs already.
    pub(super) fn take_up(config: &Config, pid: u32) -> Result<Self, MonitorError> {
        let pidfd = pidfd_open(pid).map_err(MonitorError::system("take up the container's first process"))?;
        Ok(Self::TakenUp { pidfd, pid, place: take_over(config)? })
    }

    /// The first process.
    pub(super) fn pid(&self) -> u32 {
        match self {
            Self::Own(container) => container.pid(),
            Self::TakenUp { pid, .. } => *pid,
        }
    }

    /// Sends the first process a signal; one that has ended is no error.
    pub(super) fn signal(&self, signal: i32) -> Result<(), MonitorError> {
        match self {
            Self::Own(container) => Ok(container.signal(signal)?),
            Self::TakenUp { pidfd, .. } => {
                send_signal(pidfd.as_fd(), signal).map_err(MonitorError::system("signal the container"))
            }
        }
    }

    /// Ends it at once, frozen or not.
    pub(super) fn kill(&self, stored: &Stored) -> Result<(), MonitorError> {
        self.signal(libc::SIGKILL)?;
        thaw(stored)
    }

    /// Lets it go on, if it is frozen.
    pub(super) fn thaw(&self, stored: &Stored) -> Result<(), MonitorError> {
        thaw(stored)
    }

    /// Its code once it has ended, and everything given back.
    pub(super) fn end(self, stored: &Stored) -> Result<End, MonitorError> {
        match self {
            Self::Own(mut container) => {
                // Where its first process has ended the others have too, so nothing of it is frozen.
                let reaped = container.wait()?;
                let code = exit_code(reaped.status);
                let oom_killed = container.group().is_some_and(was_short_of_memory);
                container.give_back()?;
                Ok(End { code, oom_killed, known: true })
            }
            Self::TakenUp { pidfd, pid, place } => {
                let status = pidfd::exit_status_of_zombie(pid).or_else(|| {
                    pidfd::await_reaped(pidfd.as_fd(), REAPED_WITHIN);
                    pidfd::exit_status(pidfd.as_fd())
                });
                let usage = view(stored)?.map(|view| view.usage().map_err(ContainerError::from)).transpose()?;
                let oom_killed = usage.and_then(|usage| usage.memory).is_some_and(|memory| memory.oom_kills > 0);
                leave(stored, place)?;
                // What is not known is no success.
                let code = status.map_or(255, exit_code);
                Ok(End { code, oom_killed, known: status.is_some() })
            }
        }
    }
}

impl AsFd for Subject {
    /// Readable once it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own(container) => container.pidfd(),
            Self::TakenUp { pidfd, .. } => pidfd.as_fd(),
        }
    }
}

/// Gives back what a container holds whose monitor cannot.
pub(super) fn give_back(stored: &Stored) -> Result<(), MonitorError> {
    leave(stored, take_over(&stored.config)?)
}

fn leave(stored: &Stored, place: Option<Place>) -> Result<(), MonitorError> {
    if let Some(view) = view(stored)? {
        view.kill().map_err(ContainerError::from)?;
        view.remove().map_err(ContainerError::from)?;
    }
    if let Some((network, endpoint)) = place {
        network.detach(&endpoint).map_err(MakeError::from)?;
    }
    Ok(())
}

/// The place on the network of a container whose monitor died.
fn take_over(config: &Config) -> Result<Option<Place>, MonitorError> {
    Ok(connect::take_over(config, make::host()?).map_err(MakeError::from)?)
}

fn exit_code(status: ExitStatus) -> i32 {
    match status {
        ExitStatus::Code(code) => code,
        ExitStatus::Signal(signal) => 128 + signal,
    }
}

/// Whether the kernel ended a process of a group for want of memory. What cannot be read is no reason to keep the group.
fn was_short_of_memory(group: &Group) -> bool {
    let usage = group.place(Controller::Memory).and_then(|place| memory::usage(place).ok());
    usage.is_some_and(|usage| usage.oom_kills > 0)
}

fn view(stored: &Stored) -> Result<Option<View>, MonitorError> {
    let layout = Layout::detect().map_err(ContainerError::from)?;
    Ok(View::existing(&stored.config.id, &layout))
}

/// Another process may have frozen it.
fn thaw(stored: &Stored) -> Result<(), MonitorError> {
    if let Some(view) = view(stored)?
        && view.is_frozen().unwrap_or(false)
    {
        view.thaw().map_err(ContainerError::from)?;
    }
    Ok(())
}
