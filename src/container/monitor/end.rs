//! The container has ended: what is left to read is read, everything is given back, and it is written down how it ended.
//! Then it is started again, or not.

use std::time::Instant;

use jiff::Timestamp;

use super::streams::{Source, Streams};
use super::subject::{End, give_back};
use super::{Monitor, MonitorError};
use crate::container::config::RestartPolicy;
use crate::container::state::{State, Status};
use crate::container::store::{Hidden, Locked, Store, Stored};
use crate::container::{make, restart};

impl Monitor {
    /// The first process has ended, and with it every process of its pid namespace.
    pub(super) fn ended(&mut self) -> Result<(), MonitorError> {
        let Some(subject) = self.subject.take() else { return Ok(()) };
        let lasted = self.started.elapsed();
        let end = subject.end(&self.stored)?;
        // No one writes any more: what is in the pipes is all there is. Who reads slowly keeps it in line.
        for source in [Source::Output, Source::Error] {
            while self.pump(source)? {}
        }
        self.streams = Streams::default();
        if let Some(mut log) = self.log.take() {
            let flushed = log.flush();
            self.log_kept(flushed);
        }
        self.checks.stop();
        self.kill_at = None;
        let run = restart::Run {
            exit_code: end.code,
            lasted,
            restarts: self.restarts,
            delay: self.pause,
            stopped_by_hand: self.stopped_by_hand,
        };
        self.pause = restart::next(self.policy()?, &run);
        self.restart_at = self.pause.map(|pause| Instant::now() + pause);
        if self.stored.config.auto_remove {
            // Out of sight is enough for who waits.
            let hidden = self.store.hide(&self.stored)?;
            self.clients.tell_the_end(end.code);
            return self.finish_removal(hidden);
        }
        self.write_end(end)?;
        self.clients.tell_the_end(end.code);
        Ok(())
    }

    /// `update` may have changed it.
    fn policy(&self) -> Result<RestartPolicy, MonitorError> {
        if self.stored.config.auto_remove {
            return Ok(RestartPolicy::No);
        }
        Ok(self.store.find(&self.stored.config.id)?.config.restart)
    }

    fn write_end(&mut self, end: End) -> Result<(), MonitorError> {
        let lock = self.stored.lock()?;
        let again = self.restart_at.is_some();
        let state = lock.state()?;
        lock.write(&State {
            status: if again { Status::Restarting } else { Status::Exited },
            init: None,
            monitor: if again { state.monitor } else { None },
            exit_code: Some(end.code),
            error: match &self.log_lost {
                Some(why) => format!("its output was not kept to the end: {why}"),
                None if end.known => String::new(),
                None => UNKNOWN.to_owned(),
            },
            oom_killed: end.oom_killed,
            finished: Some(Timestamp::now().to_string()),
            stopped_by_hand: self.stopped_by_hand,
            connection: None,
            ..state
        })?;
        Ok(())
    }

    /// It was to be started again, and is not.
    pub(super) fn give_up_restarting(&mut self) -> Result<(), MonitorError> {
        let lock = self.stored.lock()?;
        let state = lock.state()?;
        let code = state.exit_code.unwrap_or(0);
        lock.write(&State { status: Status::Exited, monitor: None, stopped_by_hand: true, ..state })?;
        if self.stored.config.auto_remove {
            self.remove()?;
        }
        self.clients.tell_the_end(code);
        Ok(())
    }

    /// Takes the container away, as `--rm` asks.
    pub(super) fn remove(&mut self) -> Result<(), MonitorError> {
        let hidden = self.store.hide(&self.stored)?;
        self.finish_removal(hidden)
    }

    fn finish_removal(&mut self, hidden: Hidden) -> Result<(), MonitorError> {
        // Its layers are not to be kept for a container that is gone.
        self.image = None;
        Ok(make::finish_removal(&self.store, &self.stored, hidden, true)?)
    }

    /// Starts it again, as its policy says.
    pub(super) fn restart(&mut self) -> Result<(), MonitorError> {
        let lock = self.stored.lock()?;
        let state = lock.state()?;
        self.restarts += 1;
        match self.start(&lock, state) {
            Ok(()) => Ok(()),
            Err(error) => self.not_started(&lock, &error),
        }
    }
}

/// Kept as the error of a container whose exit code no one could learn.
const UNKNOWN: &str = "its monitor had died, and this kernel does not tell the exit code to others";

/// Writes down that a container has ended which no monitor saw ending: its monitor died too, or the machine fell. What
/// is left of it is given back.
///
/// # Errors
/// When something cannot be given back or written.
pub fn write_off(store: &Store, stored: &Stored, lock: &Locked, state: State) -> Result<State, MonitorError> {
    give_back(stored)?;
    let error = UNSEEN.to_owned();
    let finished = Some(Timestamp::now().to_string());
    let exit_code = Some(255);
    let written = State {
        status: Status::Exited,
        init: None,
        monitor: None,
        exit_code,
        error,
        finished,
        connection: None,
        ..state
    };
    lock.write(&written)?;
    if stored.config.auto_remove {
        make::remove(store, stored, true)?;
    }
    Ok(written)
}

/// Kept as the error of such a container.
const UNSEEN: &str = "it ended while no monitor looked after it";
