//! Health checks: a program that runs in the container from time to time, and what its codes say.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::streams::no_blocking;
use super::{Monitor, MonitorError};
use crate::container::exec::{self, Executed};
use crate::container::launch::Stdio;
use crate::container::make;
use crate::container::state::{Health, Probe, State};
use crate::image::spec::HealthCheck;
use crate::sys::launch::ExitStatus;

/// Docker's values where the image and the command line give none.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const RETRIES: u32 = 3;
/// How much of a check's output is kept, in bytes, and how many checks.
const KEPT_BYTES: usize = 4096;
const KEPT_PROBES: usize = 5;

/// The checks of one container.
#[derive(Debug, Default)]
pub(super) struct Checks {
    what: Option<What>,
    started: Option<Instant>,
    next: Option<Instant>,
    running: Option<Running>,
}

#[derive(Debug)]
struct What {
    arguments: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    retries: u32,
}

#[derive(Debug)]
struct Running {
    program: Executed,
    /// Its output; at its end the program and all that it started have ended or closed it.
    output: File,
    kept: Vec<u8>,
    begin: Timestamp,
    deadline: Instant,
    timed_out: bool,
}

impl What {
    fn of(check: &HealthCheck) -> Option<Self> {
        let arguments = match check.test.split_first() {
            Some((kind, arguments)) if kind == "CMD" && !arguments.is_empty() => arguments.to_vec(),
            Some((kind, lines)) if kind == "CMD-SHELL" && !lines.is_empty() => {
                ["/bin/sh", "-c"].into_iter().map(str::to_owned).chain(lines.iter().cloned()).collect()
            }
            _ => return None,
        };
        let or = |ns: u64, default| if ns == 0 { default } else { Duration::from_nanos(ns) };
        Some(Self {
            arguments,
            interval: or(check.interval, INTERVAL),
            timeout: or(check.timeout, TIMEOUT),
            start_period: Duration::from_nanos(check.start_period),
            retries: if check.retries == 0 { RETRIES } else { check.retries },
        })
    }
}

impl Checks {
    pub(super) fn of(check: Option<&HealthCheck>) -> Self {
        Self { what: check.and_then(What::of), ..Self::default() }
    }

    /// Whether there are any.
    pub(super) fn are_made(&self) -> bool {
        self.what.is_some()
    }

    /// The container runs from now on.
    pub(super) fn begin(&mut self, now: Instant) {
        self.started = Some(now);
        self.next = self.what.as_ref().map(|what| now + what.interval);
    }

    /// The container has ended; a check in it has too.
    pub(super) fn stop(&mut self) {
        self.next = None;
        self.running = None;
    }

    /// What a running check writes to.
    pub(super) fn running(&self) -> Option<BorrowedFd<'_>> {
        self.running.as_ref().map(|running| running.output.as_fd())
    }

    /// When there is something to do.
    pub(super) fn next(&self) -> Option<Instant> {
        match &self.running {
            Some(running) => (!running.timed_out).then_some(running.deadline),
            None => self.next,
        }
    }
}

impl Monitor {
    /// Begins a check that is due, and ends one that takes too long.
    pub(super) fn checks_due(&mut self, now: Instant) -> Result<(), MonitorError> {
        if let Some(running) = &mut self.checks.running {
            if running.deadline <= now && !running.timed_out {
                running.timed_out = true;
                running.program.signal(libc::SIGKILL)?;
                // What it started may hold the output open for ever.
                return self.check_ended();
            }
            return Ok(());
        }
        if self.checks.next.is_some_and(|at| at <= now) {
            self.checks.next = None;
            if let Err(error) = self.begin_check(now) {
                let at = Timestamp::now().to_string();
                self.note(Probe { start: at.clone(), end: at, exit_code: -1, output: error.to_string() })?;
            }
        }
        Ok(())
    }

    fn begin_check(&mut self, now: Instant) -> Result<(), MonitorError> {
        let (Some(what), Some(subject)) = (&self.checks.what, &self.subject) else { return Ok(()) };
        let program = make::Program { arguments: what.arguments.clone(), ..make::Program::default() };
        let spec = make::program(&self.stored, subject.pid(), &program)?;
        let groups = make::groups(&self.stored.config)?;
        let target = exec::Target { pidfd: subject.as_fd(), v1: groups.0, v2: groups.1 };
        let (reader, writer) = io::pipe().map_err(MonitorError::system("make a pipe"))?;
        let output = File::from(OwnedFd::from(reader));
        no_blocking(&output).map_err(MonitorError::system("make a pipe"))?;
        let error = writer.try_clone().map_err(MonitorError::system("make a pipe"))?;
        let stdio = Stdio { stdin: None, stdout: Some(writer.into()), stderr: Some(error.into()) };
        let program = exec::start(&target, &spec, stdio)?;
        self.checks.running = Some(Running {
            program,
            output,
            kept: Vec::new(),
            begin: Timestamp::now(),
            deadline: now + what.timeout,
            timed_out: false,
        });
        Ok(())
    }

    /// There is output of a check, or its end.
    pub(super) fn checked(&mut self) -> Result<(), MonitorError> {
        let Some(running) = &mut self.checks.running else { return Ok(()) };
        let mut buffer = [0; 4096];
        match running.output.read(&mut buffer) {
            Ok(0) => self.check_ended(),
            Ok(count) => {
                let room = KEPT_BYTES - running.kept.len();
                running.kept.extend(&buffer[..count.min(room)]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(MonitorError::system("read a health check's output")(error)),
        }
    }

    fn check_ended(&mut self) -> Result<(), MonitorError> {
        let Some(mut running) = self.checks.running.take() else { return Ok(()) };
        // It has closed its output: it is about to end, or is killed here as docker's would be by its timeout.
        let ended = running.program.wait();
        let (exit_code, output) = match ended {
            _ if running.timed_out => (-1, "the health check took longer than its timeout".to_owned()),
            Ok(reaped) => {
                let code = match reaped.status {
                    ExitStatus::Code(code) => code,
                    ExitStatus::Signal(signal) => 128 + signal,
                };
                (code, String::from_utf8_lossy(&running.kept).into_owned())
            }
            Err(error) => (-1, error.to_string()),
        };
        let (start, end) = (running.begin.to_string(), Timestamp::now().to_string());
        self.note(Probe { start, end, exit_code, output })
    }

    /// Writes what a check found, and sets the next one.
    fn note(&mut self, probe: Probe) -> Result<(), MonitorError> {
        let Some(what) = &self.checks.what else { return Ok(()) };
        let now = Instant::now();
        let early = self.checks.started.is_some_and(|started| now < started + what.start_period);
        self.checks.next = Some(now + what.interval);
        let lock = self.stored.lock()?;
        let state = lock.state()?;
        let failed = probe.exit_code != 0;
        let (failing_streak, health) = judge(&state, failed, early, what.retries);
        let mut probes = state.probes.clone();
        probes.push(probe);
        let surplus = probes.len().saturating_sub(KEPT_PROBES);
        probes.drain(..surplus);
        lock.write(&State { health: Some(health), failing_streak, probes, ..state })?;
        Ok(())
    }
}

/// The streak of failures and the health after one more check. Failures while the container still begins count for
/// nothing until one check has succeeded.
fn judge(state: &State, failed: bool, early: bool, retries: u32) -> (u32, Health) {
    let before = state.health.unwrap_or(Health::Starting);
    if !failed {
        return (0, Health::Healthy);
    }
    if early && before == Health::Starting {
        return (state.failing_streak, before);
    }
    let streak = state.failing_streak + 1;
    (streak, if streak >= retries { Health::Unhealthy } else { before })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_count_in_a_row_and_not_at_first() {
        let state =
            |health, failing_streak| State { health: Some(health), failing_streak, ..State::created(String::new()) };
        assert_eq!(judge(&state(Health::Starting, 0), true, true, 1), (0, Health::Starting));
        assert_eq!(judge(&state(Health::Starting, 0), true, false, 2), (1, Health::Starting));
        assert_eq!(judge(&state(Health::Healthy, 1), true, true, 2), (2, Health::Unhealthy));
        assert_eq!(judge(&state(Health::Unhealthy, 9), false, false, 2), (0, Health::Healthy));
    }

    #[test]
    fn what_is_run() {
        let what = |test: &[&str]| {
            let test = test.iter().map(|word| (*word).to_owned()).collect();
            What::of(&HealthCheck { test, ..HealthCheck::default() }).map(|what| what.arguments)
        };
        assert_eq!(what(&["NONE"]), None);
        assert_eq!(what(&["CMD", "test", "-e", "/ok"]), Some(vec!["test".into(), "-e".into(), "/ok".into()]));
        assert_eq!(what(&["CMD-SHELL", "exit 0"]), Some(vec!["/bin/sh".into(), "-c".into(), "exit 0".into()]));
    }
}
