//! One running end of a network test, or the one program of a `cpu`, `blkio` or `accounting` case: a container of the
//! runtime under test, or a plain process in the peer's namespace. Both print JSON lines; both are ended and reaped on
//! every way out.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{ExperimentError, Interrupted, SLICE, Stop};
use crate::runtime::{ExitStatus, Instance, Network, Runtime, RuntimeError, StartRequest};
use crate::sys::clock;
use crate::sys::netns::NetNs;
use crate::workload::SUBCOMMAND;
use crate::workload::arguments::Arguments;
use crate::workload::result::Line;

/// Why an end did not do its part.
#[derive(Debug, thiserror::Error)]
pub(super) enum EndError {
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// The program said why it failed.
    #[error("{0}")]
    Reported(String),
    /// It ended without a word.
    #[error("the program ended without its `{0}` line")]
    Silent(&'static str),
    /// It said nothing in time.
    #[error("the program did not print its `{0}` line in time")]
    Late(&'static str),
    /// It said something else.
    #[error("the program printed `{got}` where its `{due}` line was due")]
    Unexpected {
        /// What it printed.
        got: String,
        /// What was due.
        due: &'static str,
    },
    /// It printed its result and then did not end well.
    #[error("the program ended with {0:?}")]
    Exit(ExitStatus),
    /// The runtime failed.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A system call of the harness failed.
    #[error("cannot {doing}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl From<Interrupted> for EndError {
    fn from(_: Interrupted) -> Self {
        Self::Interrupted
    }
}

impl EndError {
    /// Names what was being done; made for `map_err`. The user's wish to stop is not a failure.
    pub(super) fn while_doing(doing: impl Into<String>) -> impl FnOnce(Self) -> ExperimentError {
        let doing = doing.into();
        move |error| match error {
            Self::Interrupted => ExperimentError::Interrupted,
            error => ExperimentError::while_doing(doing)(error),
        }
    }
}

fn system<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> EndError {
    move |source| EndError::System { doing, source: source.into() }
}

/// What runs the program.
enum Body {
    Container(Box<dyn Instance>),
    Process(Child),
    Gone,
}

/// A running end. Dropping it kills, reaps and removes it.
pub(super) struct End {
    body: Body,
    lines: Lines,
}

impl End {
    /// Starts a workload in a container of `runtime`.
    pub(super) fn container(runtime: &dyn Runtime, network: Network, arguments: &Arguments) -> Result<Self, EndError> {
        Self::start(runtime, StartRequest::new(arguments.to_words(), network))
    }

    /// Starts a container whose program prints lines; its standard output is taken here.
    pub(super) fn start(runtime: &dyn Runtime, request: StartRequest) -> Result<Self, EndError> {
        let (reader, writer) = io::pipe().map_err(system("make a pipe"))?;
        let instance = runtime.start(StartRequest { stdout: Some(OwnedFd::from(writer)), ..request })?;
        Ok(Self { body: Body::Container(instance), lines: Lines::new(reader) })
    }

    /// Starts a workload as a child of the harness in a namespace; it dies with the harness.
    pub(super) fn process(namespace: &NetNs, mut arguments: Arguments) -> Result<Self, EndError> {
        let (reader, writer) = io::pipe().map_err(system("make a pipe"))?;
        arguments.parent_death = Some(std::process::id());
        let mut command = Command::new("/proc/self/exe");
        command.arg(SUBCOMMAND).args(arguments.to_words()).stdin(Stdio::null()).stdout(writer);
        let child = namespace
            .enter(|| command.spawn())
            .map_err(system("enter the peer's network namespace"))?
            .map_err(system("start the peer's program"))?;
        Ok(Self { body: Body::Process(child), lines: Lines::new(reader) })
    }

    /// The container, where it is one.
    pub(super) fn instance(&self) -> Option<&dyn Instance> {
        match &self.body {
            Body::Container(instance) => Some(&**instance),
            Body::Process(_) | Body::Gone => None,
        }
    }

    /// Waits for the next line; an error line becomes [`EndError::Reported`].
    pub(super) fn line(&mut self, due: &'static str, deadline_ns: u64, stop: Stop<'_>) -> Result<Line, EndError> {
        match self.lines.next(due, deadline_ns, stop)? {
            Line::Error(failure) => Err(EndError::Reported(failure.message)),
            line => Ok(line),
        }
    }

    /// The reason that the program gives for its failure within a moment, where it gives one.
    pub(super) fn complaint(&mut self, deadline_ns: u64, stop: Stop<'_>) -> Option<String> {
        loop {
            match self.line("error", deadline_ns, stop) {
                Err(EndError::Reported(message)) => return Some(message),
                Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Waits for the program's end after its last line, reaps it and gives back what it used.
    pub(super) fn finish(mut self, deadline_ns: u64, stop: Stop<'_>) -> Result<(), EndError> {
        // The pipe closes when the program ends, so that waiting for it cannot last.
        match self.lines.next("end", deadline_ns, stop) {
            Err(EndError::Silent(_)) => {}
            Err(error) => return Err(error),
            Ok(line) => return Err(unexpected(&line, "end")),
        }
        let status = match &mut self.body {
            Body::Container(instance) => instance.wait()?.status,
            Body::Process(child) => status_of(child.wait().map_err(system("wait for the peer's program"))?),
            Body::Gone => ExitStatus::Code(0),
        };
        if let Body::Container(instance) = std::mem::replace(&mut self.body, Body::Gone) {
            instance.remove()?;
        }
        if status == ExitStatus::Code(0) { Ok(()) } else { Err(EndError::Exit(status)) }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // On this way an error is already on its way up; these would hide it.
        match std::mem::replace(&mut self.body, Body::Gone) {
            Body::Container(mut instance) => {
                let _ = instance.kill();
                let _ = instance.wait();
                let _ = instance.remove();
            }
            Body::Process(mut child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Body::Gone => {}
        }
    }
}

fn status_of(status: std::process::ExitStatus) -> ExitStatus {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, signal) => ExitStatus::Signal(signal.unwrap_or(0)),
    }
}

/// Says what came in the place of what was due.
pub(super) fn unexpected(line: &Line, due: &'static str) -> EndError {
    EndError::Unexpected { got: serde_json::to_string(line).unwrap_or_else(|_| format!("{line:?}")), due }
}

/// JSON lines from a pipe, with a deadline and an eye on the user's wish to stop.
struct Lines {
    pipe: PipeReader,
    read: Vec<u8>,
}

impl Lines {
    fn new(pipe: PipeReader) -> Self {
        Self { pipe, read: Vec::new() }
    }

    fn next(&mut self, due: &'static str, deadline_ns: u64, stop: Stop<'_>) -> Result<Line, EndError> {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                let got = || String::from_utf8_lossy(line.trim_ascii()).into_owned();
                return serde_json::from_slice(&line).map_err(|_| EndError::Unexpected { got: got(), due });
            }
            if !wait_readable(&self.pipe, due, deadline_ns, stop)? {
                continue;
            }
            let mut chunk = [0; 4096];
            match self.pipe.read(&mut chunk) {
                Ok(0) => return Err(EndError::Silent(due)),
                Ok(count) => self.read.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(system("read the program's output")(error)),
            }
        }
    }
}

/// Waits one slice for bytes.
fn wait_readable(pipe: &impl AsFd, due: &'static str, deadline_ns: u64, stop: Stop<'_>) -> Result<bool, EndError> {
    if stop.requested() {
        return Err(EndError::Interrupted);
    }
    let left = Duration::from_nanos(deadline_ns.saturating_sub(clock::now_ns()));
    if left.as_millis() == 0 {
        return Err(EndError::Late(due));
    }
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::try_from(left.min(SLICE)).unwrap_or(PollTimeout::ZERO)) {
        Ok(ready) => Ok(ready > 0),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(error) => Err(system("wait for the program's output")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::atomic::AtomicBool;

    const FAR: u64 = 10_000_000_000;

    #[test]
    fn lines_arrive_whole_and_in_order() {
        let stop = AtomicBool::new(false);
        let (reader, mut writer) = io::pipe().unwrap();
        let mut lines = Lines::new(reader);
        writer.write_all(b"{\"event\":\"error\",\"message\":\"a\"}\n{\"event\":\"window\",\"start_").unwrap();
        let deadline = clock::now_ns() + FAR;
        assert!(matches!(lines.next("x", deadline, Stop(&stop)), Ok(Line::Error(_))));
        writer.write_all(b"ns\":1,\"end_ns\":2}\nnonsense\n").unwrap();
        assert!(matches!(lines.next("x", deadline, Stop(&stop)), Ok(Line::Window(_))));
        let error = lines.next("window", deadline, Stop(&stop)).unwrap_err();
        assert_eq!(error.to_string(), "the program printed `nonsense` where its `window` line was due");
        drop(writer);
        let error = lines.next("window", deadline, Stop(&stop)).unwrap_err();
        assert_eq!(error.to_string(), "the program ended without its `window` line");
    }

    #[test]
    fn waits_end_at_the_deadline_and_at_the_users_wish() {
        let stop = AtomicBool::new(false);
        let (reader, _writer) = io::pipe().unwrap();
        let mut lines = Lines::new(reader);
        assert!(matches!(lines.next("x", clock::now_ns() + 5_000_000, Stop(&stop)), Err(EndError::Late("x"))));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(matches!(lines.next("x", clock::now_ns() + FAR, Stop(&stop)), Err(EndError::Interrupted)));
    }
}
