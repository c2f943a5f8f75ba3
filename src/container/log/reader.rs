//! Reads a container's log: all or the end of it, and what is still to come.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::{Stream, numbered};
use crate::fs::FileError;

/// How many bytes are read at once.
const CHUNK: usize = 64 << 10;
/// Entries that are longer are passed over; the writer makes none above 100 KB.
const LONGEST_ENTRY: usize = 1 << 20;
/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(100);

/// One entry of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which stream it was written to.
    pub stream: Stream,
    /// When it was read from the container.
    pub time: Timestamp,
    /// A line with its newline, or a piece of one without.
    pub text: String,
}

impl Entry {
    /// Writes it as `container logs` shows it, with the time before it if asked, in UTC to the ns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, timestamps: bool, out: &mut impl Write) -> io::Result<()> {
        if timestamps {
            write!(out, "{:.9} ", self.time)?;
        }
        out.write_all(self.text.as_bytes())
    }
}

/// What of a log is wanted. Holds one entry and one chunk in memory.
#[derive(Debug, Clone)]
pub struct Reader {
    /// The newest file.
    pub path: PathBuf,
    /// Only so many of the last entries, counted before the other conditions, as docker does.
    pub tail: Option<u64>,
    /// Only entries of that moment and after.
    pub since: Option<Timestamp>,
    /// Only entries up to that moment.
    pub until: Option<Timestamp>,
    /// Whether standard output is wanted.
    pub stdout: bool,
    /// Whether standard error is wanted.
    pub stderr: bool,
}

impl Reader {
    /// Of all that a log holds.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), tail: None, since: None, until: None, stdout: true, stderr: true }
    }

    /// Hands what the log holds now to `each`, the oldest entry first, until it says no more with an error. An entry
    /// that is not whole yet is none, and what is no entry is passed over. A log that is not there has none.
    ///
    /// # Errors
    /// When a file cannot be read; what `each` returns.
    pub fn read<E: From<FileError>>(&self, mut each: impl FnMut(&Entry) -> Result<(), E>) -> Result<(), E> {
        let _ = self.begin(&mut each)?;
        Ok(())
    }

    /// As [`Reader::read`], and then hands on what is appended, through rotations, until `goes_on` has said that nothing
    /// more will be and all is read, or until what is asked for lies in the past.
    ///
    /// # Errors
    /// When a file cannot be read; what `each` returns.
    pub fn follow<E: From<FileError>>(
        &self,
        mut goes_on: impl FnMut() -> bool,
        mut each: impl FnMut(&Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut place = self.begin(&mut each)?;
        loop {
            // Asked before reading: what was written before the end is read after it.
            let more_to_come = goes_on();
            if self.until.is_some_and(|until| until < Timestamp::now()) {
                return Ok(());
            }
            let current = match place.take() {
                Some(open) => Some(open),
                None => self.files()?.pop().map(Open::at_start),
            };
            let mut read = false;
            if let Some(mut open) = current {
                read = self.drain(&mut open, &mut each)?;
                place = Some(match self.successor(&open)? {
                    Some(next) => {
                        // It was complete when it was given another name.
                        self.drain(&mut open, &mut each)?;
                        read = true;
                        Open::at_start(next)
                    }
                    None => open,
                });
            }
            if !read {
                if !more_to_come {
                    return Ok(());
                }
                std::thread::sleep(POLL);
            }
        }
    }

    /// Reads what there is; the newest file stays open at the end.
    fn begin<E: From<FileError>>(&self, each: &mut impl FnMut(&Entry) -> Result<(), E>) -> Result<Option<Open>, E> {
        // The newest first: that is where the end is.
        let mut ahead: Vec<Open> = Vec::new();
        let mut wanted = self.tail;
        for file in self.files()? {
            let mut open = Open::at_start(file);
            match &mut wanted {
                None => {}
                Some(wanted) => {
                    let (start, found) =
                        start_of_last(&open.file, *wanted).map_err(FileError::new("read", &self.path))?;
                    open.offset = start;
                    *wanted -= found;
                }
            }
            ahead.push(open);
            if wanted == Some(0) {
                break;
            }
        }
        let mut last = None;
        while let Some(mut open) = ahead.pop() {
            self.drain(&mut open, each)?;
            last = Some(open);
        }
        Ok(last)
    }

    /// Hands on every whole entry after the place; whether there was any.
    fn drain<E: From<FileError>>(
        &self,
        open: &mut Open,
        each: &mut impl FnMut(&Entry) -> Result<(), E>,
    ) -> Result<bool, E> {
        let before = open.offset;
        let mut buffer = Vec::new();
        let mut skipping = false;
        loop {
            let held = buffer.len();
            buffer.resize(held + CHUNK, 0);
            let at = open.offset + held as u64;
            let count = open.file.read_at(&mut buffer[held..], at).map_err(FileError::new("read", &self.path))?;
            buffer.truncate(held + count);
            if count == 0 {
                return Ok(open.offset > before);
            }
            let Some(end) = buffer[held..].iter().rposition(|byte| *byte == b'\n') else {
                if buffer.len() > LONGEST_ENTRY {
                    open.offset += buffer.len() as u64;
                    buffer.clear();
                    skipping = true;
                }
                continue;
            };
            let whole = held + end + 1;
            for line in buffer[..whole].split_inclusive(|byte| *byte == b'\n') {
                // Counted first, so that an entry is not read twice should `each` fail.
                open.offset += line.len() as u64;
                if std::mem::take(&mut skipping) {
                    continue;
                }
                if let Some(entry) = parse(line).filter(|entry| self.wants(entry)) {
                    each(&entry)?;
                }
            }
            buffer.drain(..whole);
        }
    }

    fn wants(&self, entry: &Entry) -> bool {
        let stream = match entry.stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        };
        stream
            && self.since.is_none_or(|since| entry.time >= since)
            && self.until.is_none_or(|until| entry.time <= until)
    }

    /// All files, the newest first. That is also the order in which they are opened: one that is given a higher number
    /// meanwhile is seen twice, and never missed.
    fn files(&self) -> Result<Vec<File>, FileError> {
        let mut files: Vec<File> = Vec::new();
        let mut seen = Vec::new();
        for number in numbers(&self.path)? {
            let path = numbered(&self.path, number);
            let file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(FileError::new("open", &path))?,
            };
            let identity = identity(&file).map_err(FileError::new("look at", &path))?;
            if !seen.contains(&identity) {
                seen.push(identity);
                files.push(file);
            }
        }
        Ok(files)
    }

    /// The file after one that is no longer the newest: the oldest one if it is gone. `None` for the newest.
    fn successor(&self, open: &Open) -> Result<Option<File>, FileError> {
        let own = identity(&open.file).map_err(FileError::new("look at", &self.path))?;
        let newest = std::fs::metadata(&self.path);
        if newest.as_ref().is_ok_and(|newest| (newest.dev(), newest.ino()) == own) {
            return Ok(None);
        }
        let mut files = self.files()?;
        let mut place = None;
        for (at, file) in files.iter().enumerate() {
            if identity(file).map_err(FileError::new("look at", &self.path))? == own {
                place = Some(at);
            }
        }
        Ok(match place {
            Some(at) => at.checked_sub(1).map(|newer| files.swap_remove(newer)),
            None => files.pop(),
        })
    }
}

/// A file and how far it has been read.
struct Open {
    file: File,
    offset: u64,
}

impl Open {
    fn at_start(file: File) -> Self {
        Self { file, offset: 0 }
    }
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// The numbers of the files that there are, and one more in case of a rotation.
fn numbers(path: &Path) -> Result<Vec<u32>, FileError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut numbers = vec![0];
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(numbers),
        entries => entries.map_err(FileError::new("list", directory))?,
    };
    let prefix = path.file_name().map(|name| format!("{}.", name.to_string_lossy())).unwrap_or_default();
    for entry in entries {
        let name = entry.map_err(FileError::new("list", directory))?.file_name();
        let number: Option<u32> = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.parse().ok());
        numbers.extend(number.filter(|number| *number > 0));
    }
    numbers.sort_unstable();
    numbers.dedup();
    numbers.extend(numbers.last().and_then(|last| last.checked_add(1)));
    Ok(numbers)
}

/// Where the last `count` entries of a file begin, and how many there are, at most `count`.
fn start_of_last(file: &File, count: u64) -> io::Result<(u64, u64)> {
    let mut end = super::end_of_entries(file)?;
    if count == 0 || end == 0 {
        return Ok((end, 0));
    }
    // The newline of the last entry begins none.
    let mut found = 0;
    let mut first = true;
    let mut chunk = vec![0; CHUNK];
    while end > 0 {
        let start = end.saturating_sub(CHUNK as u64);
        let part = &mut chunk[..(end - start) as usize];
        file.read_exact_at(part, start)?;
        for (at, _) in part.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            if std::mem::take(&mut first) {
                continue;
            }
            found += 1;
            if found == count {
                return Ok((start + at as u64 + 1, found));
            }
        }
        end = start;
    }
    Ok((0, found + 1))
}

fn parse(line: &[u8]) -> Option<Entry> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(borrow)]
        log: Cow<'a, str>,
        #[serde(borrow)]
        stream: Cow<'a, str>,
        #[serde(borrow)]
        time: Cow<'a, str>,
    }
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    let stream = match &*line.stream {
        "stdout" => Stream::Stdout,
        "stderr" => Stream::Stderr,
        _ => return None,
    };
    Some(Entry { stream, time: line.time.parse().ok()?, text: line.log.into_owned() })
}
