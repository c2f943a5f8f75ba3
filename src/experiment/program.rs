//! A container whose program prints JSON lines and takes SIGUSR1 as the sign to go on. Ended and removed on every way
//! out. Used by the experiments that look at limits: `devices`, `combined`, `interference`.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{ExperimentError, Stop};
use crate::cgroup::{CgroupError, Group};
use crate::runtime::{Instance, Runtime, StartRequest};
use crate::sys::clock;

/// How long a wait may last before the user's wish to stop is looked at again.
const SLICE_MS: u8 = 100;

/// A running program.
pub(super) struct Program {
    /// What people call it, as in `the measured container`.
    name: &'static str,
    /// Gone only while it is being taken down.
    instance: Option<Box<dyn Instance>>,
    pipe: PipeReader,
    read: Vec<u8>,
}

impl Program {
    /// Starts it; its standard output is read here.
    pub(super) fn start(
        name: &'static str,
        runtime: &dyn Runtime,
        request: StartRequest,
    ) -> Result<Self, ExperimentError> {
        let (pipe, writer) = io::pipe().map_err(ExperimentError::while_doing("making a pipe"))?;
        let request = StartRequest { stdout: Some(OwnedFd::from(writer)), ..request };
        let instance = runtime.start(request).map_err(ExperimentError::while_doing(format!("starting {name}")))?;
        Ok(Self { name, instance: Some(instance), pipe, read: Vec::new() })
    }

    pub(super) fn instance(&self) -> Result<&dyn Instance, ExperimentError> {
        self.instance.as_deref().ok_or_else(|| self.failed("it was taken down already".to_owned()))
    }

    /// Its control groups; a runtime without any cannot be asked to hold limits.
    pub(super) fn group(&self) -> Result<&Group, ExperimentError> {
        self.instance()?.group().ok_or_else(|| self.failed("the runtime made no control group for it".to_owned()))
    }

    /// Tells it to go on.
    pub(super) fn go_on(&self) -> Result<(), ExperimentError> {
        let pid = Pid::from_raw(self.instance()?.pid().cast_signed());
        kill(pid, Signal::SIGUSR1).map_err(|errno| self.failed(io::Error::from(errno)))
    }

    /// Its next line. A line `error` is the error that the program reports.
    pub(super) fn line<T: DeserializeOwned>(&mut self, within: Duration, stop: Stop<'_>) -> Result<T, ExperimentError> {
        let deadline_ns = clock::now_ns() + u64::try_from(within.as_nanos()).unwrap_or(u64::MAX / 2);
        let line = loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                break self.read.drain(..=end).collect::<Vec<u8>>();
            }
            self.read_some(deadline_ns, stop)?;
        };
        let unclear = || format!("it printed `{}`", String::from_utf8_lossy(line.trim_ascii()));
        let value: Value = serde_json::from_slice(&line).map_err(|_| self.failed(unclear()))?;
        if value["event"] == "error" {
            return Err(self.failed(value["message"].as_str().unwrap_or("it does not say why").to_owned()));
        }
        serde_json::from_value(value).map_err(|_| self.failed(unclear()))
    }

    fn read_some(&mut self, deadline_ns: u64, stop: Stop<'_>) -> Result<(), ExperimentError> {
        if stop.requested() {
            return Err(ExperimentError::Interrupted);
        }
        if clock::now_ns() >= deadline_ns {
            return Err(self.failed("it said nothing in time".to_owned()));
        }
        let mut fds = [PollFd::new(self.pipe.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(SLICE_MS)) {
            Ok(0) | Err(Errno::EINTR) => return Ok(()),
            Ok(_) => {}
            Err(errno) => return Err(self.failed(io::Error::from(errno))),
        }
        let mut chunk = [0; 4096];
        match self.pipe.read(&mut chunk) {
            Ok(0) => {
                let why = self.last_words();
                Err(self.failed(why))
            }
            Ok(count) => {
                self.read.extend_from_slice(&chunk[..count]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Why there is no line: the program has closed its output, which is its end; or it never began.
    fn last_words(&mut self) -> Box<dyn std::error::Error + Send + Sync> {
        match self.instance.as_mut().map(|instance| instance.wait()) {
            Some(Ok(reaped)) => format!("it ended with {:?} without its line", reaped.status).into(),
            Some(Err(error)) => error.into(),
            None => "it was taken down already".into(),
        }
    }

    /// Whether it still runs: its end closes its output.
    pub(super) fn is_running(&self) -> Result<bool, ExperimentError> {
        let mut fds = [PollFd::new(self.pipe.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, PollTimeout::ZERO) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(self.failed(io::Error::from(errno))),
                Ok(_) => return Ok(!fds[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLHUP))),
            }
        }
    }

    /// The error of a program that should still run: what it says, or how it ended.
    pub(super) fn why_it_ended(&mut self) -> ExperimentError {
        let never = AtomicBool::new(false);
        match self.line::<Value>(Duration::from_secs(1), Stop(&never)) {
            Ok(line) => self.failed(format!("it was done before its time, and printed `{line}`")),
            Err(error) => error,
        }
    }

    /// Ends it and gives back what it used.
    pub(super) fn finish(mut self) -> Result<(), ExperimentError> {
        self.take_down()
    }

    fn take_down(&mut self) -> Result<(), ExperimentError> {
        let Some(mut instance) = self.instance.take() else { return Ok(()) };
        let name = self.name;
        let ended = instance.kill().and_then(|()| instance.wait());
        let removed = instance.remove();
        ended.map_err(ExperimentError::while_doing(format!("ending {name}")))?;
        removed.map_err(ExperimentError::while_doing(format!("removing {name}")))
    }

    fn failed<E>(&self, source: E) -> ExperimentError
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        ExperimentError::while_doing(format!("running {}", self.name))(source)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // On this way an error is already on its way up; this one would hide it.
        let _ = self.take_down();
    }
}

/// An error that says that this host, or its version of cgroups, cannot hold such a limit becomes a named skip.
pub(super) fn unsupported(error: ExperimentError) -> ExperimentError {
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        if let Some(
            found @ (CgroupError::NoController { .. } | CgroupError::NeedsV2 { .. } | CgroupError::DeviceRule { .. }),
        ) = cause.downcast_ref::<CgroupError>()
        {
            return ExperimentError::Unsupported(found.to_string());
        }
        source = cause.source();
    }
    error
}
