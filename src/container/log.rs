//! A container's output in docker's json-file form: one JSON object a line, files that are rotated by size.
//!
//! The monitor writes with [`Writer`]; `container logs` reads with [`Reader`], also while the monitor writes and rotates.
//! `log.json` is the newest file, `log.json.1` the one before it, and so on.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::config::LogConfig;
use crate::fs::{FileError, remove_if_there};

mod encode;
mod reader;

pub use reader::{Entry, Reader};

/// The longest piece of a line that stands in one entry, in bytes; a longer line is several entries, of which only the
/// last one ends with a newline. Docker's number.
pub const LONGEST_PIECE: usize = 16 << 10;

/// How many bytes of entries are written at once, at most, but for the last entry.
const BATCH: usize = 64 << 10;

/// Which of its outputs a container wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Its name in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Appends what a container writes to its log. Holds at most two pieces of lines and one batch: some 200 KiB.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    config: LogConfig,
    file: Option<File>,
    /// How long the file is, in bytes.
    size: u64,
    /// Entries that are not written yet.
    batch: Vec<u8>,
    /// Begun lines of standard output and standard error.
    begun: [Vec<u8>; 2],
}

impl Writer {
    /// Opens a log to go on with it. What a writer that was killed left of its last entry is taken away.
    ///
    /// # Errors
    /// When the file cannot be opened or repaired.
    pub fn open(path: impl Into<PathBuf>, config: LogConfig) -> Result<Self, FileError> {
        let path = path.into();
        let mut writer = Self { path, config, file: None, size: 0, batch: Vec::new(), begun: [Vec::new(), Vec::new()] };
        if config.kept {
            writer.open_file()?;
        }
        Ok(writer)
    }

    fn open_file(&mut self) -> Result<(), FileError> {
        let path = &self.path;
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
        let file = options.open(path).map_err(FileError::new("open", path))?;
        let size = end_of_entries(&file).map_err(FileError::new("read", path))?;
        file.set_len(size).map_err(FileError::new("repair the end of", path))?;
        (self.file, self.size) = (Some(file), size);
        Ok(())
    }

    /// Appends what was read from a stream: every line that it completes, as entries of this moment. The beginning of
    /// a line is held until the rest comes, up to [`LONGEST_PIECE`].
    ///
    /// # Errors
    /// When the file cannot be written. The log is whole then, the entries of this call may be missing; further calls
    /// try again.
    pub fn write(&mut self, stream: Stream, mut bytes: &[u8]) -> Result<(), FileError> {
        if self.file.is_none() && !self.config.kept {
            return Ok(());
        }
        let tail = encode::tail(stream, Timestamp::now());
        while !bytes.is_empty() {
            let begun = &self.begun[stream as usize];
            let room = (LONGEST_PIECE - begun.len()).min(bytes.len());
            let end = bytes[..room].iter().position(|byte| *byte == b'\n').map(|at| at + 1);
            let (piece, rest) = bytes.split_at(end.unwrap_or(room));
            if end.is_none() && begun.len() + piece.len() < LONGEST_PIECE {
                self.begun[stream as usize].extend_from_slice(piece);
                break;
            }
            self.entry(stream, piece, &tail)?;
            bytes = rest;
        }
        self.write_batch()
    }

    /// Writes begun lines as entries without a newline: for when nothing more comes.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn flush(&mut self) -> Result<(), FileError> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !self.begun[stream as usize].is_empty() {
                self.entry(stream, &[], &encode::tail(stream, Timestamp::now()))?;
            }
        }
        self.write_batch()
    }

    /// Adds an entry: what was begun of the line, and this piece.
    fn entry(&mut self, stream: Stream, piece: &[u8], tail: &str) -> Result<(), FileError> {
        let room = self.make_room();
        let begun = &mut self.begun[stream as usize];
        if room.is_ok() {
            encode::entry(&mut self.batch, begun, piece, tail);
        }
        begun.clear();
        room?;
        if self.batch.len() >= BATCH { self.write_batch() } else { Ok(()) }
    }

    /// Begins a new file where this one has reached its size.
    fn make_room(&mut self) -> Result<(), FileError> {
        if self.config.max_size.is_none_or(|most| self.size + (self.batch.len() as u64) < most) {
            return Ok(());
        }
        self.write_batch()?;
        // The batch may have been lost.
        if self.size > 0 { self.rotate() } else { Ok(()) }
    }

    /// Writes all entries at once.
    fn write_batch(&mut self) -> Result<(), FileError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        // A rotation may have failed half-way.
        if self.file.is_none()
            && let Err(error) = self.open_file()
        {
            self.batch.clear();
            return Err(error);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let written = file.write_all(&self.batch);
        match written {
            Ok(()) => self.size += self.batch.len() as u64,
            // The disk may be full: no half of an entry may stay for the next one to be appended to. Where it cannot be
            // taken away now, opening the file again does it.
            Err(_) => {
                if file.set_len(self.size).is_err() {
                    self.file = None;
                }
            }
        }
        self.batch.clear();
        written.map_err(FileError::new("write", &self.path))
    }

    /// Gives each file the next higher number, the oldest one goes, and begins a new one. Readers hold on to the files
    /// that they have open.
    fn rotate(&mut self) -> Result<(), FileError> {
        self.file = None;
        let most = self.config.max_files.max(1);
        // A gap, which a killed rotation leaves, is where the moving ends.
        let free = (1..most).find(|number| !numbered(&self.path, *number).exists());
        let last = free.unwrap_or(most) - 1;
        if free.is_none() {
            remove_if_there(numbered(&self.path, last))?;
        }
        for number in (0..last + u32::from(free.is_some())).rev() {
            let (from, to) = (numbered(&self.path, number), numbered(&self.path, number + 1));
            match std::fs::rename(&from, to) {
                // Whoever took it away made room.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(FileError::new("rename", from)(error));
                }
                _ => {}
            }
        }
        self.open_file()
    }
}

/// The file of a number; 0 is the newest.
fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// Where the last whole entry of a file ends.
fn end_of_entries(file: &File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut chunk = [0; 4096];
    while end > 0 {
        let start = end.saturating_sub(chunk.len() as u64);
        let part = &mut chunk[..(end - start) as usize];
        file.read_exact_at(part, start)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests;
