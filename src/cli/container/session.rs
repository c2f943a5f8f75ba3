//! A person (or a pipe) at a container: their terminal made raw, their keys and signals passed on, until the program ends
//! or they leave by the detach keys.
//!
//! Input has a thread of its own, so that a program which does not read never keeps output or a signal waiting.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::container::client::{Client, ClientError};
use crate::container::store::Stored;
use crate::container::wire::Message;
use crate::sys::terminal;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// The program ended with this code.
    Exited(i32),
    /// By the detach keys.
    Detached,
}

/// What a session does.
#[derive(Debug, Clone)]
pub(super) struct Manner {
    /// Whether standard input is passed on.
    pub input: bool,
    /// Whether the program has a terminal, so that ours is made raw and its size told.
    pub tty: bool,
    /// Whether signals go to the program.
    pub proxy: bool,
    /// The keys by which one leaves.
    pub detach: Vec<u8>,
}

impl Manner {
    /// Only who types can mean them: in a pipe they are data.
    fn keys(&self) -> &[u8] {
        if self.tty { &self.detach } else { &[] }
    }
}

/// The signals that are passed on.
const PASSED: [Signal; 6] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];

/// Signals as something to poll, from now on; what comes before is not lost.
pub(super) fn signals(proxy: bool, tty: bool) -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    if proxy {
        PASSED.into_iter().for_each(|signal| set.add(signal));
    }
    if tty {
        set.add(Signal::SIGWINCH);
    }
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Our terminal in raw mode; as it was again on drop.
#[derive(Debug)]
pub(super) struct Raw(Option<Termios>);

impl Raw {
    /// Makes standard input raw if it is a terminal.
    pub(super) fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self(None));
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // A terminal that has gone needs no mending.
            let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, before);
        }
    }
}

/// The rows and columns of our terminal, if there is one.
pub(super) fn size() -> Option<(u16, u16)> {
    terminal::size(io::stdout().as_fd()).or_else(|| terminal::size(io::stdin().as_fd()))
}

/// Stays at a container until it ends or the detach keys come.
pub(super) fn stay(client: Client, stored: &Stored, manner: &Manner) -> Result<Left, ClientError> {
    let id = stored.config.short_id().to_owned();
    let failed = |source| ClientError::Connection { id: id.clone(), source };
    let signals = signals(manner.proxy, manner.tty).map_err(failed)?;
    let _raw = if manner.tty && manner.input { Some(Raw::enter().map_err(failed)?) } else { None };
    let detached = Arc::new(AtomicBool::new(false));
    if manner.input {
        let (stream, keys, detached) =
            (client.stream.try_clone().map_err(failed)?, manner.keys().to_vec(), Arc::clone(&detached));
        std::thread::spawn(move || send_input(stream, &keys, &detached));
    }
    let Client { mut stream, mut incoming } = client;
    let (mut output, mut error) = (Sink::new(io::stdout().as_fd()), Sink::new(io::stderr().as_fd()));
    loop {
        while let Some(message) = incoming.take().map_err(|wrong| failed(wrong.into()))? {
            match message {
                Message::Output(bytes) => output.write(&bytes),
                Message::Error(bytes) => error.write(&bytes),
                Message::Exited(code) => return Ok(Left::Exited(code)),
                Message::Refused(why) => return Err(ClientError::Refused(why)),
                _ => {}
            }
        }
        let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        let said = fds[0].revents().is_some_and(|flags| !flags.is_empty());
        while let Ok(Some(signal)) = signals.read_signal() {
            pass_on(stored, signal.ssi_signo as i32);
        }
        if said && !incoming.read(&mut stream).unwrap_or(false) {
            let left = detached.load(Ordering::Acquire);
            return if left { Ok(Left::Detached) } else { Err(ClientError::Lost(id)) };
        }
    }
}

/// By a connection of its own: that of the input may be full.
fn pass_on(stored: &Stored, signal: i32) {
    let message = if signal == libc::SIGWINCH {
        let Some((rows, columns)) = size() else { return };
        Message::Resize(rows, columns)
    } else {
        Message::Signal(signal)
    };
    // A container that has ended gets none; its end is on the way.
    if let Ok(mut client) = Client::connect(stored) {
        let _ = client.say(&message);
    }
}

fn send_input(mut stream: UnixStream, keys: &[u8], detached: &AtomicBool) {
    let ended = read_keys(keys, |bytes| Message::Input(bytes.to_vec()).send(&mut stream));
    match ended {
        Input::Detached => {
            detached.store(true, Ordering::Release);
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        Input::Ended => {
            let _ = Message::EndOfInput.send(&mut stream);
        }
        Input::Failed => {}
    }
}

/// How input ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// By the detach keys.
    Detached,
    /// There is no more.
    Ended,
    /// It cannot be read, or no one takes it.
    Failed,
}

/// Reads standard input until its end or the detach keys, and passes all else on. Keys that turn out not to be the
/// detach keys are passed on late.
pub(super) fn read_keys(keys: &[u8], mut take: impl FnMut(&[u8]) -> io::Result<()>) -> Input {
    let mut stdin = Unbuffered;
    let mut buffer = [0; 16 * 1024];
    let mut seen = 0;
    loop {
        let count = match stdin.read(&mut buffer) {
            Ok(0) => {
                let held = take(&keys[..seen]);
                return if held.is_ok() { Input::Ended } else { Input::Failed };
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Input::Failed,
        };
        let (passed, detached) = sift(&buffer[..count], keys, &mut seen);
        if !passed.is_empty() && take(&passed).is_err() {
            return Input::Failed;
        }
        if detached {
            return Input::Detached;
        }
    }
}

/// What of `bytes` is passed on, and whether the detach keys are complete. `seen` is how many of them have come.
fn sift(bytes: &[u8], keys: &[u8], seen: &mut usize) -> (Vec<u8>, bool) {
    let mut passed = Vec::with_capacity(bytes.len());
    for &byte in bytes {
        if keys.get(*seen) == Some(&byte) {
            *seen += 1;
            if *seen == keys.len() {
                return (passed, true);
            }
            continue;
        }
        passed.extend(&keys[..*seen]);
        *seen = usize::from(keys.len() > 1 && keys.first() == Some(&byte));
        if *seen == 0 {
            passed.push(byte);
        }
    }
    (passed, false)
}

/// Standard input without a buffer of ours.
struct Unbuffered;

impl Read for Unbuffered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(nix::unistd::read(io::stdin(), buffer)?)
    }
}

/// Where output goes until its reader has gone.
pub(super) struct Sink(Option<File>);

impl Sink {
    pub(super) fn new(fd: impl AsFd) -> Self {
        Self(fd.as_fd().try_clone_to_owned().ok().map(|fd: OwnedFd| File::from(fd)))
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        if self.0.as_mut().is_some_and(|file| file.write_all(bytes).is_err()) {
            self.0 = None;
        }
    }
}

/// The keys by which one leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Keys(pub Vec<u8>);

/// Detach keys as docker writes them: letters, and `ctrl-` with a letter or one of `@[\]^_`, separated by commas.
pub(in crate::cli) fn detach_keys(text: &str) -> Result<Keys, String> {
    let wrong = || format!("`{text}` are no detach keys; write such as ctrl-p,ctrl-q or ctrl-],x");
    text.split(',')
        .map(|key| match key.strip_prefix("ctrl-").unwrap_or(key).as_bytes() {
            [c @ (b'a'..=b'z' | b'@'..=b'Z' | b'[' | b'\\' | b']' | b'^' | b'_')] if key.starts_with("ctrl-") => {
                Ok(c.to_ascii_uppercase() - b'@')
            }
            [c] if !key.starts_with("ctrl-") && c.is_ascii() => Ok(*c),
            _ => Err(wrong()),
        })
        .collect::<Result<_, _>>()
        .map(Keys)
}

/// Docker's.
pub(super) const DETACH_KEYS: &str = "ctrl-p,ctrl-q";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_passed_on_but_for_those_that_detach() {
        let Keys(keys) = detach_keys(DETACH_KEYS).unwrap();
        assert_eq!(keys, [16, 17]);
        let mut seen = 0;
        assert_eq!(sift(b"ab\x10", &keys, &mut seen), (b"ab".to_vec(), false));
        assert_eq!(sift(b"c\x10", &keys, &mut seen), (b"\x10c".to_vec(), false));
        assert_eq!(sift(b"\x10\x10x", &keys, &mut seen), (b"\x10\x10\x10x".to_vec(), false), "each is one");
        assert_eq!(sift(b"y\x10\x11z", &keys, &mut seen), (b"y".to_vec(), true));
    }

    #[test]
    fn detach_keys_are_read() {
        assert_eq!(detach_keys("ctrl-],x"), Ok(Keys(vec![29, b'x'])));
        assert!(detach_keys("ctrl-1").is_err() && detach_keys("ab").is_err() && detach_keys("").is_err());
    }
}
