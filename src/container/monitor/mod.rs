//! The small process that looks after a container which outlives its command.
//!
//! The command forks it; it leads a session of its own, starts the container, holds its streams and its place on the
//! network, writes its log, tells those who are connected what they want to know (see [`super::wire`]), starts it again as
//! its restart policy says, and writes down how it ended. If it dies the container goes on: the next command that looks
//! at it forks another monitor ([`super::client::settled`]), which takes up the pipes and hears of the end by a pidfd.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

mod clients;
mod daemon;
mod end;
mod health;
mod requests;
mod start;
mod streams;
mod subject;

use super::log;
use super::make::MakeError;
use super::store::{Store, StoreError, Stored};
use super::wire::Message;
use crate::container::ContainerError;
use crate::fs::FileError;
use crate::image::Image;
use clients::{Client, Clients};
use health::Checks;
use streams::{Looked, Source, Streams};
use subject::Subject;

pub use daemon::{First, fork};
pub use end::write_off;

/// Why a monitor could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The container cannot be made of its configuration.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// It could not be started or looked after.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// Its state could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its log could not be written.
    #[error(transparent)]
    Log(#[from] FileError),
    /// A system call failed.
    #[error("cannot {act}")]
    System {
        /// What was tried.
        act: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl MonitorError {
    fn system(act: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { act, source }
    }

    /// Docker's exit code for a container that did not come to run: 127 where the program is not there, 126 where it
    /// cannot be executed, else 125.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Container(ContainerError::ProgramNotFound(_) | ContainerError::InterpreterNotFound(_)) => 127,
            Self::Container(ContainerError::ProgramNotExecutable { .. }) => 126,
            _ => 125,
        }
    }
}

/// What the loop waits on.
#[derive(Debug, Clone, Copy)]
enum Event {
    Connection,
    End,
    Check,
    Readable(Source),
    Writable,
    Client(usize),
}

/// A monitor.
pub(super) struct Monitor {
    store: Store,
    stored: Stored,
    /// What the container is made of, kept from removal.
    image: Option<Image>,
    listener: UnixListener,
    clients: Clients,
    subject: Option<Subject>,
    streams: Streams,
    log: Option<log::Writer>,
    /// Why the log was given up.
    log_lost: Option<String>,
    checks: Checks,
    /// When it was started last.
    started: Instant,
    restarts: u32,
    /// The last pause before a restart.
    pause: Option<Duration>,
    /// When it is started again.
    restart_at: Option<Instant>,
    /// When it is killed, if it has not ended by then.
    kill_at: Option<Instant>,
    stopped_by_hand: bool,
    /// The size of the terminal of who is attached.
    size: Option<(u16, u16)>,
}

impl Monitor {
    /// Looks after the container until it has ended for good and everyone has heard so.
    fn serve(&mut self) -> Result<(), MonitorError> {
        while self.subject.is_some() || self.restart_at.is_some() {
            let events = self.wait()?;
            for event in events {
                self.handle(event)?;
            }
            if self.clients.sweep() && self.stored.config.stdin_once {
                // Who held the input has gone.
                self.streams.end();
            }
            self.keep_time()?;
        }
        self.say_farewell()
    }

    fn wait(&self) -> Result<Vec<Event>, MonitorError> {
        let mut asked: Vec<(Event, PollFd<'_>)> =
            vec![(Event::Connection, PollFd::new(self.listener.as_fd(), PollFlags::POLLIN))];
        if let Some(subject) = &self.subject {
            asked.push((Event::End, PollFd::new(subject.as_fd(), PollFlags::POLLIN)));
        }
        if let Some(check) = self.checks.running() {
            asked.push((Event::Check, PollFd::new(check, PollFlags::POLLIN)));
        }
        if !self.clients.are_behind() {
            let readable = self.streams.readable();
            asked.extend(readable.map(|(source, fd)| (Event::Readable(source), PollFd::new(fd, PollFlags::POLLIN))));
        }
        asked.extend(self.streams.writable().map(|fd| (Event::Writable, PollFd::new(fd, PollFlags::POLLOUT))));
        for (index, client) in self.clients.all.iter().enumerate() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, self.streams.takes_input());
            flags.set(PollFlags::POLLOUT, client.has_more_to_hear());
            asked.push((Event::Client(index), PollFd::new(client.as_fd(), flags)));
        }
        let (events, mut fds): (Vec<Event>, Vec<PollFd<'_>>) = asked.into_iter().unzip();
        match poll(&mut fds, self.timeout()) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(MonitorError::system("wait for what happens")(errno.into())),
        }
        let happened = |fd: &PollFd<'_>| fd.revents().is_some_and(|flags| !flags.is_empty());
        let ready = events.into_iter().zip(&fds).filter(|(_, fd)| happened(fd));
        Ok(ready.map(|(event, _)| event).collect())
    }

    fn timeout(&self) -> PollTimeout {
        let next = [self.kill_at, self.restart_at, self.checks.next()].into_iter().flatten().min();
        let Some(next) = next else { return PollTimeout::NONE };
        // Rounded up: a little late is better than a busy last ms.
        let left = next.saturating_duration_since(Instant::now()).as_millis() + 1;
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    }

    fn handle(&mut self, event: Event) -> Result<(), MonitorError> {
        match event {
            Event::Connection => {
                if let Ok((stream, _)) = self.listener.accept() {
                    self.welcome(stream)?;
                }
                Ok(())
            }
            Event::End => self.ended(),
            Event::Check => self.checked(),
            Event::Readable(source) => self.pump(source).map(drop),
            Event::Writable => {
                self.streams.write();
                Ok(())
            }
            Event::Client(index) => self.listen_to(index),
        }
    }

    fn welcome(&mut self, stream: UnixStream) -> Result<(), MonitorError> {
        self.clients.all.push(Client::new(stream).map_err(MonitorError::system("take a connection"))?);
        Ok(())
    }

    /// Passes what a stream holds on to the log and to who is attached. Whether there was anything.
    fn pump(&mut self, source: Source) -> Result<bool, MonitorError> {
        let mut buffer = [0; 32 * 1024];
        let looked = self.streams.read(source, &mut buffer).map_err(MonitorError::system("read the output"))?;
        let Looked::Bytes(count) = looked else { return Ok(false) };
        let bytes = &buffer[..count];
        if let Some(log) = &mut self.log {
            let stream = match source {
                Source::Output => log::Stream::Stdout,
                Source::Error => log::Stream::Stderr,
            };
            let written = log.write(stream, bytes);
            self.log_kept(written);
        }
        let message = match source {
            Source::Output => Message::Output(bytes.to_vec()),
            Source::Error => Message::Error(bytes.to_vec()),
        };
        self.clients.publish(&message);
        Ok(true)
    }

    /// A log that cannot be written (a full disk) is given up, which the container's end tells; the container goes on.
    fn log_kept(&mut self, written: Result<(), FileError>) {
        if let Err(error) = written {
            self.log = None;
            self.log_lost = Some(start::chain(&error));
        }
    }

    /// What is due by the clock.
    fn keep_time(&mut self) -> Result<(), MonitorError> {
        let now = Instant::now();
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            if let Some(subject) = &self.subject {
                subject.kill(&self.stored)?;
            }
        }
        if self.restart_at.is_some_and(|at| at <= now) {
            self.restart_at = None;
            self.restart()?;
        }
        self.checks_due(now)
    }

    /// Keeps on until everyone has heard of the end, but not for who does not listen.
    fn say_farewell(&mut self) -> Result<(), MonitorError> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let begin = Instant::now();
        while self.clients.have_more_to_hear() && begin.elapsed() < PATIENCE {
            for event in self.wait()? {
                if let Event::Client(index) = event {
                    self.listen_to(index)?;
                }
            }
            self.clients.sweep();
        }
        Ok(())
    }
}
