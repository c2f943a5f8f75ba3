//! A steered workload in a container: started, told what to do over its board, watched, removed. The memory, pids and
//! freezer experiments judge what it does.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{ExperimentError, Stop};
use crate::cgroup::{Controller, Group, Layout, Limits, Place};
use crate::runtime::{Instance, Network, Runtime, StartRequest};
use crate::sys::board::Board;
use crate::sys::clock;
use crate::sys::launch::pidfd_open;
use crate::workload::steer::{COMPLAINT, complaint};

/// How long a wait may last before the user's wish to stop is looked at again.
pub(super) const SLICE: Duration = Duration::from_millis(50);

/// How long a program may take for anything that it is told to do.
const PATIENCE_NS: u64 = 120_000_000_000;

/// A running steered workload. Dropping it ends and removes it.
pub(super) struct Subject {
    instance: Option<Box<dyn Instance>>,
    pidfd: OwnedFd,
    pub(super) board: Board,
}

/// A case whose controller this host has not is skipped by name.
pub(super) fn need(controller: Controller) -> Result<Place, ExperimentError> {
    let layout = Layout::detect().map_err(ExperimentError::while_doing("looking for the control groups"))?;
    layout
        .place(controller)
        .ok_or_else(|| ExperimentError::Unsupported(format!("the {controller} controller is not mounted here")))
}

impl Subject {
    /// Starts `workload` with a board of so many words on its standard input and a file as its standard output.
    pub(super) fn start(
        runtime: &dyn Runtime,
        workload: Vec<String>,
        words: usize,
        file: Option<OwnedFd>,
        limits: Limits,
    ) -> Result<Self, ExperimentError> {
        let (board, fd) = Board::create(words + COMPLAINT).map_err(ExperimentError::while_doing("making a board"))?;
        let request =
            StartRequest { stdin: Some(fd), stdout: file, limits, ..StartRequest::new(workload, Network::None) };
        let instance =
            runtime.start(request).map_err(ExperimentError::while_doing("starting the container under test"))?;
        match pidfd_open(instance.pid()) {
            Ok(pidfd) => Ok(Self { instance: Some(instance), pidfd, board }),
            Err(error) => {
                // The first error is the one to tell.
                let _ = instance.remove();
                Err(ExperimentError::while_doing("watching the container under test")(error))
            }
        }
    }

    /// The first process as the host sees it.
    pub(super) fn pid(&self) -> u32 {
        self.instance.as_ref().map_or(0, |instance| instance.pid())
    }

    /// Its control groups, where the runtime made any.
    pub(super) fn group(&self) -> Option<&Group> {
        self.instance.as_ref()?.group()
    }

    /// Its group for a controller, where the runtime made one.
    pub(super) fn place(&self, controller: Controller) -> Option<&Place> {
        self.group()?.place(controller)
    }

    /// Whether the first process has ended.
    pub(super) fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Waits until the board shows what `ready` looks for; `what` is what the program is doing, as in `forking`.
    pub(super) fn wait(
        &self,
        what: &str,
        stop: Stop<'_>,
        ready: impl Fn(&Board) -> bool,
    ) -> Result<(), ExperimentError> {
        let deadline_ns = clock::now_ns() + PATIENCE_NS;
        loop {
            if stop.requested() {
                return Err(ExperimentError::Interrupted);
            }
            if self.board.wait(SLICE, &ready) {
                return Ok(());
            }
            self.look(what, deadline_ns, stop)?;
        }
    }

    /// What a wait looks at between two slices: the user's wish, the program's complaint, its end, the time.
    pub(super) fn look(&self, what: &str, deadline_ns: u64, stop: Stop<'_>) -> Result<(), ExperimentError> {
        let failed = |why: String| Err(ExperimentError::while_doing(format!("the workload was {what}"))(why));
        if stop.requested() {
            return Err(ExperimentError::Interrupted);
        }
        if let Some(complaint) = complaint(&self.board) {
            return failed(complaint);
        }
        if self.has_ended() {
            return failed("its first process has ended".to_owned());
        }
        if clock::now_ns() > deadline_ns {
            return failed("it is not done in time".to_owned());
        }
        Ok(())
    }

    /// Ends the container and gives back what it used.
    pub(super) fn remove(mut self) -> Result<(), ExperimentError> {
        match self.instance.take() {
            Some(instance) => {
                instance.remove().map_err(ExperimentError::while_doing("removing the container under test"))
            }
            None => Ok(()),
        }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // On this way an error is already on its way up; another would hide it.
        if let Some(instance) = self.instance.take() {
            let _ = instance.remove();
        }
    }
}
