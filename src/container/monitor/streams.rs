//! The monitor's ends of a container's streams: three pipes, or the master of its terminal. Nothing here blocks.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::container::launch::Stdio;
use crate::sys::terminal::{Master, Size};

/// The most input that waits for the program to read it, in bytes.
const PENDING: usize = 64 * 1024;

/// Which stream bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Standard output, or the terminal.
    Output,
    /// Standard error.
    Error,
}

/// The monitor's ends.
#[derive(Debug, Default)]
pub(super) struct Streams {
    output: Option<File>,
    error: Option<File>,
    input: Option<File>,
    terminal: bool,
    /// Input that the program has not read yet.
    pending: Vec<u8>,
    /// Whether the input ends once that is read.
    ends: bool,
}

/// What one look at a stream gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// So many bytes.
    Bytes(usize),
    /// None now.
    Nothing,
    /// None ever again.
    End,
}

impl Streams {
    /// Pipes, and the container's ends of them. Its ends for output are open for reading too: a monitor that dies
    /// leaves the container with a full pipe and not with a broken one, and the next monitor takes it up again.
    pub(super) fn pipes(input: bool) -> io::Result<(Self, Stdio)> {
        let (output, stdout) = lasting_pipe()?;
        let (error, stderr) = lasting_pipe()?;
        let mut streams = Self { output: Some(output), error: Some(error), ..Self::default() };
        let mut stdio = Stdio { stdin: None, stdout: Some(stdout), stderr: Some(stderr) };
        if input {
            let (reader, writer) = io::pipe()?;
            let writer = File::from(OwnedFd::from(writer));
            no_blocking(&writer)?;
            streams.input = Some(writer);
            stdio.stdin = Some(reader.into());
        }
        Ok((streams, stdio))
    }

    /// A terminal.
    pub(super) fn terminal(Master(master): Master) -> io::Result<Self> {
        no_blocking(&master)?;
        Ok(Self { input: Some(master.try_clone()?), output: Some(master), terminal: true, ..Self::default() })
    }

    /// Of a container whose monitor died: its pipes by its first process's descriptors. Its input has ended, and so has a
    /// terminal.
    pub(super) fn taken_up(pid: u32) -> Self {
        let open = |stream: u32| {
            let path = format!("/proc/{pid}/fd/{stream}");
            let is_pipe = std::fs::read_link(&path).is_ok_and(|link| link.to_string_lossy().starts_with("pipe:"));
            let file = is_pipe.then(|| File::open(path).ok()).flatten()?;
            no_blocking(&file).ok().map(|()| file)
        };
        Self { output: open(1), error: open(2), ..Self::default() }
    }

    /// Where bytes come from, as long as they may.
    pub(super) fn readable(&self) -> impl Iterator<Item = (Source, BorrowedFd<'_>)> {
        let output = self.output.as_ref().map(|file| (Source::Output, file.as_fd()));
        output.into_iter().chain(self.error.as_ref().map(|file| (Source::Error, file.as_fd())))
    }

    /// Where bytes wait to be written to.
    pub(super) fn writable(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().filter(|_| !self.pending.is_empty()).map(AsFd::as_fd)
    }

    /// Whether more input can be taken.
    pub(super) fn takes_input(&self) -> bool {
        self.pending.len() < PENDING
    }

    /// Reads a stream once.
    pub(super) fn read(&mut self, source: Source, buffer: &mut [u8]) -> io::Result<Looked> {
        let stream = match source {
            Source::Output => &mut self.output,
            Source::Error => &mut self.error,
        };
        let Some(file) = stream else { return Ok(Looked::End) };
        match file.read(buffer) {
            Ok(0) => {
                *stream = None;
                Ok(Looked::End)
            }
            Ok(count) => Ok(Looked::Bytes(count)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(Looked::Nothing)
            }
            // What a terminal says once no one has its other end open.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                *stream = None;
                Ok(Looked::End)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes input; without an open one it is gone.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        if self.input.is_some() && !self.ends {
            self.pending.extend(bytes);
            self.write();
        }
    }

    /// Ends the input once what waits is read. That of a terminal ends by its own character only.
    pub(super) fn end(&mut self) {
        if !self.terminal {
            self.ends = true;
            self.write();
        }
    }

    /// Writes what waits, as much as goes.
    pub(super) fn write(&mut self) {
        if let Some(file) = &mut self.input {
            match file.write(&self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                // The program has closed it.
                Err(_) => {
                    self.pending.clear();
                    self.ends = true;
                }
            }
        }
        if self.ends && self.pending.is_empty() {
            self.input = None;
        }
    }

    /// Tells a terminal how large it is; pipes have no size.
    pub(super) fn resize(&self, size: Size) {
        if let Some(output) = self.output.as_ref().filter(|_| self.terminal) {
            // A terminal whose program has ended has no size to care for.
            let _ = output.try_clone().and_then(|file| Master(file).resize(size));
        }
    }
}

/// A pipe: what the monitor reads, and the container's end, which can be read as well.
fn lasting_pipe() -> io::Result<(File, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    let reader = File::from(OwnedFd::from(reader));
    no_blocking(&reader)?;
    let both = File::options().read(true).write(true).open(format!("/proc/self/fd/{}", writer.as_raw_fd()))?;
    Ok((reader, both.into()))
}

pub(super) fn no_blocking(file: &impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}
