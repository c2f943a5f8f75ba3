//! Who is connected to a monitor, and what they are still to be told.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use super::streams::no_blocking;
use crate::container::wire::{Incoming, Message};

/// As long as an attached client has this much to read, the container's output is not read: it waits, as it would for a
/// slow terminal.
const BEHIND: usize = 256 * 1024;

/// What a client is there for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Interest {
    /// The output.
    pub attached: bool,
    /// The end.
    pub waits: bool,
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    incoming: Incoming,
    outgoing: Vec<u8>,
    pub interest: Interest,
    /// Whether it has gone, or said what no client says.
    gone: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Clients {
    pub all: Vec<Client>,
}

impl Client {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        no_blocking(&stream)?;
        let interest = Interest::default();
        Ok(Self { stream, incoming: Incoming::default(), outgoing: Vec::new(), interest, gone: false })
    }

    /// Puts a message in line, and sends what goes.
    pub(super) fn tell(&mut self, message: &Message) {
        self.outgoing.extend(message.encode());
        self.flush();
    }

    pub(super) fn flush(&mut self) {
        while !self.outgoing.is_empty() && !self.gone {
            match self.stream.write(&self.outgoing) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.gone = true,
            }
        }
    }

    /// What it has said, as far as it is here.
    pub(super) fn hear(&mut self) -> Vec<Message> {
        match self.incoming.read(&mut Reading(&self.stream)) {
            Ok(true) => {}
            Ok(false) => self.gone = true,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.gone = true,
        }
        let mut heard = Vec::new();
        loop {
            match self.incoming.take() {
                Ok(Some(message)) => heard.push(message),
                Ok(None) => return heard,
                Err(_) => {
                    self.gone = true;
                    return heard;
                }
            }
        }
    }

    pub(super) fn has_more_to_hear(&self) -> bool {
        !self.outgoing.is_empty()
    }
}

struct Reading<'a>(&'a UnixStream);

impl Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut stream = self.0;
        stream.read(buffer)
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Clients {
    /// Takes those away that have gone. Whether one of them was attached.
    pub(super) fn sweep(&mut self) -> bool {
        let attached = |clients: &Self| clients.all.iter().filter(|client| client.interest.attached).count();
        let before = attached(self);
        self.all.retain(|client| !client.gone);
        attached(self) < before
    }

    /// Whether one is so far behind that the container has to wait.
    pub(super) fn are_behind(&self) -> bool {
        self.all.iter().any(|client| client.interest.attached && client.outgoing.len() > BEHIND)
    }

    /// Sends output to who is attached.
    pub(super) fn publish(&mut self, message: &Message) {
        self.all.iter_mut().filter(|client| client.interest.attached).for_each(|client| client.tell(message));
    }

    /// Tells of the end those who wait or are attached, each once.
    pub(super) fn tell_the_end(&mut self, code: i32) {
        for client in self.all.iter_mut().filter(|client| client.interest != Interest::default()) {
            client.interest = Interest::default();
            client.tell(&Message::Exited(code));
        }
    }

    /// Whether one has not been sent everything.
    pub(super) fn have_more_to_hear(&self) -> bool {
        self.all.iter().any(Client::has_more_to_hear)
    }
}
