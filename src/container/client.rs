//! How commands speak to a container's monitor; one that died is replaced first.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use super::monitor::{self, First, MonitorError};
use super::state::{State, Status};
use super::store::{Store, StoreError, Stored, boot};
use super::wire::{Incoming, Message, receive};

/// The file in a container's directory where its monitor listens.
pub const SOCKET: &str = "socket";

/// A connection to a monitor.
#[derive(Debug)]
pub struct Client {
    /// The stream, which blocks.
    pub stream: UnixStream,
    /// What came in and is not read yet.
    pub incoming: Incoming,
}

/// Why a monitor could not be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No monitor could be made.
    #[error("cannot make a monitor")]
    Monitor(#[from] MonitorError),
    /// The connection failed.
    #[error("cannot speak to the monitor of container {id}")]
    Connection {
        /// The container.
        id: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The container did not come to run.
    #[error("{message}")]
    NotStarted {
        /// Docker's exit code for it.
        code: i32,
        /// Why.
        message: String,
    },
    /// The monitor could not do it.
    #[error("{0}")]
    Refused(String),
    /// The monitor died.
    #[error("the monitor of container {0} ended before its container did")]
    Lost(String),
}

impl Client {
    /// Of a stream.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, incoming: Incoming::default() }
    }

    /// Connects to the monitor of a container that is up.
    ///
    /// # Errors
    /// When it has none.
    pub fn connect(stored: &Stored) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Connection { id: stored.config.short_id().to_owned(), source };
        let directory = File::open(&stored.directory).map_err(failed)?;
        let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
        UnixStream::connect(path).map(Self::new).map_err(failed)
    }

    /// Says something.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn say(&mut self, message: &Message) -> io::Result<()> {
        message.send(&mut self.stream)
    }

    /// Waits for the next message; `None` when the monitor is gone.
    ///
    /// # Errors
    /// When the stream fails.
    pub fn hear(&mut self) -> io::Result<Option<Message>> {
        receive(&mut self.incoming, &mut self.stream)
    }

    /// Waits until the container runs.
    ///
    /// # Errors
    /// When it does not come to run.
    pub fn await_start(&mut self, stored: &Stored) -> Result<(), ClientError> {
        let id = || stored.config.short_id().to_owned();
        match self.hear().map_err(|source| ClientError::Connection { id: id(), source })? {
            Some(Message::Started) => Ok(()),
            Some(Message::Failed(code, message)) => Err(ClientError::NotStarted { code, message }),
            _ => Err(ClientError::Lost(id())),
        }
    }

    /// Waits until the container has ended; its code.
    ///
    /// # Errors
    /// When the monitor is gone or refuses.
    pub fn await_end(&mut self, stored: &Stored) -> Result<i32, ClientError> {
        let id = || stored.config.short_id().to_owned();
        loop {
            match self.hear().map_err(|source| ClientError::Connection { id: id(), source })? {
                Some(Message::Exited(code)) => return Ok(code),
                Some(Message::Refused(why)) => return Err(ClientError::Refused(why)),
                Some(_) => {}
                None => return Err(ClientError::Lost(id())),
            }
        }
    }
}

/// The state of a container as it is, and not as a monitor that died or a machine that fell left it: one that runs
/// without a monitor gets a new one, one that has ended unseen is written down as such.
///
/// # Errors
/// When the state cannot be read or written, or no monitor made.
pub fn settled(store: &Store, stored: &Stored) -> Result<State, ClientError> {
    let state = stored.state()?;
    if state.status == Status::Created || state.status == Status::Exited || state.is_monitored() {
        return Ok(state);
    }
    let lock = stored.lock()?;
    // Who had the lock may have settled it, or ended it.
    let state = lock.state()?;
    if state.status == Status::Created || state.status == Status::Exited || state.is_monitored() {
        return Ok(state);
    }
    if state.boot == boot().map_err(StoreError::from)? && state.is_alive() {
        let mut client = Client::new(monitor::fork(store, stored, lock, None, First::default())?);
        client.await_start(stored)?;
        return Ok(stored.state()?);
    }
    Ok(monitor::write_off(store, stored, &lock, state)?)
}
