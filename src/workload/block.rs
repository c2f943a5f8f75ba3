//! `block`: reads or writes a block device as fast as it goes between two instants, and tells when how much was done.
//!
//! The experiment `blkio` runs it under a throttle or beside another. What it counts are its own completed system
//! calls, on its own clock, so that it is independent of the controller's account. Each of `--queue-depth` threads has
//! one request under way and a part of the device of its own, which it goes through from front to back, again and
//! again.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::thread;

use hdrhistogram::Histogram;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::unistd::{Whence, lseek64};
use serde::{Deserialize, Serialize};

use super::WorkloadError;
use super::options::{Options, usage};
use super::result::{Latency, Line};
use crate::sys::clock;

/// The width of a bin of [`BlockResult::done`].
pub const BIN_NS: u64 = 1_000_000;

/// Buffers stand at multiples of this: what O_DIRECT asks for on any device.
const ALIGNMENT: usize = 4096;

/// The largest request: with it one system call is one request to the block layer.
pub const MAX_BLOCK: u32 = 1 << 20;

/// Reading or writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// pread(2).
    Read,
    /// pwrite(2).
    Write,
}

/// How the page cache is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Not at all (O_DIRECT).
    Direct,
    /// As the kernel likes. Reads: without read-ahead, and what was read is dropped once it was gone through, so that
    /// each read is a request. Writes: they are done when they are in the cache; the kernel writes them out later.
    Buffered,
    /// Writes only: into the cache, and fdatasync(2) after each.
    Synced,
}

/// What the workload has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    /// The device's node.
    pub path: String,
    /// Reading or writing.
    pub operation: Operation,
    /// How the page cache is used.
    pub mode: Mode,
    /// Bytes a request.
    pub block_size: u32,
    /// Threads, each with one request under way.
    pub queue_depth: u32,
    /// The first byte of the device that is used.
    pub offset: u64,
    /// How many bytes from there are used; a whole number of blocks for each thread.
    pub length: u64,
    /// When to begin: ns of CLOCK_MONOTONIC.
    pub start_ns: u64,
    /// When to begin no further request: ns of CLOCK_MONOTONIC.
    pub end_ns: u64,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockResult {
    /// When the first request was begun; later than asked for where the program came too late.
    pub began_ns: u64,
    /// When the last request was done.
    pub ended_ns: u64,
    /// Requests done, from the first to the last.
    pub operations: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// The longest request, in ns.
    pub longest_ns: u64,
    /// How long each request took.
    pub latency: Latency,
    /// How long a thread could have run and was kept from the CPU between its first request and its last, in ns; of the
    /// thread with the longest such time. Absent where the kernel keeps no such account.
    pub cpu_wait_ns: Option<u64>,
    /// Requests done in each bin of [`BIN_NS`] since the start that was asked for; bins without any are left out.
    pub done: Vec<(u32, u32)>,
}

const KNOWN: &[&str] =
    &["--path", "--operation", "--io", "--block-size", "--queue-depth", "--offset", "--length", "--start", "--end"];

impl Arguments {
    /// Reads the words after the workload's name.
    pub(super) fn parse(words: &[String]) -> Result<Self, WorkloadError> {
        let options = Options::parse(words, KNOWN)?;
        let instant = |name| -> Result<u64, WorkloadError> {
            options.required(name)?;
            Ok(options.value(name, "an instant in ns")?.unwrap_or(0))
        };
        let arguments = Self {
            path: options.required("--path")?.to_owned(),
            operation: match options.required("--operation")? {
                "read" => Operation::Read,
                "write" => Operation::Write,
                other => return Err(usage(format!("--operation: `{other}` is not read or write"))),
            },
            mode: match options.required("--io")? {
                "direct" => Mode::Direct,
                "buffered" => Mode::Buffered,
                "synced" => Mode::Synced,
                other => return Err(usage(format!("--io: `{other}` is not direct, buffered or synced"))),
            },
            block_size: options.value("--block-size", "a byte count")?.unwrap_or(4096),
            queue_depth: options.value("--queue-depth", "a number of threads")?.unwrap_or(1),
            offset: options.value("--offset", "a byte count")?.unwrap_or(0),
            length: options.value("--length", "a byte count")?.unwrap_or(u64::MAX),
            start_ns: instant("--start")?,
            end_ns: instant("--end")?,
        };
        if !(512..=MAX_BLOCK).contains(&arguments.block_size) || !arguments.block_size.is_multiple_of(512) {
            return Err(usage(format!("--block-size is whole sectors of 512 bytes up to {MAX_BLOCK}")));
        }
        if !(1..=256).contains(&arguments.queue_depth) {
            return Err(usage(format!("--queue-depth is 1 to 256, not {}", arguments.queue_depth)));
        }
        Ok(arguments)
    }

    /// The words that make the workload, the name first.
    #[must_use]
    pub fn to_words(&self) -> Vec<String> {
        let operation = if self.operation == Operation::Read { "read" } else { "write" };
        let mode = match self.mode {
            Mode::Direct => "direct",
            Mode::Buffered => "buffered",
            Mode::Synced => "synced",
        };
        let numbers = [
            ("--block-size", u64::from(self.block_size)),
            ("--queue-depth", u64::from(self.queue_depth)),
            ("--offset", self.offset),
            ("--length", self.length),
            ("--start", self.start_ns),
            ("--end", self.end_ns),
        ];
        let mut words =
            ["block", "--path", &self.path, "--operation", operation, "--io", mode].map(str::to_owned).to_vec();
        words.extend(numbers.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_string()]));
        words
    }
}

/// What one thread did.
#[derive(Debug)]
struct Share {
    began_ns: u64,
    ended_ns: u64,
    operations: u64,
    latency: Histogram<u64>,
    cpu_wait_ns: Option<u64>,
    done: Vec<(u32, u32)>,
}

/// Runs to the end of the time.
pub(super) fn run(arguments: &Arguments) -> Result<Line, WorkloadError> {
    let size = u64::from(arguments.block_size);
    let whole = device_bytes(arguments)?.saturating_sub(arguments.offset).min(arguments.length);
    let part = whole / u64::from(arguments.queue_depth) / size * size;
    if part == 0 {
        return Err(usage(format!("{whole} bytes of the device are less than a block for each of the threads")));
    }
    let threads: Vec<_> = (0..u64::from(arguments.queue_depth))
        .map(|index| {
            let arguments = arguments.clone();
            let first = arguments.offset + index * part;
            thread::spawn(move || work(&arguments, first, part))
        })
        .collect();
    let mut shares = Vec::new();
    for thread in threads {
        shares.push(thread.join().map_err(|_| WorkloadError::Panicked)??);
    }
    sum(&shares, size).map(Line::Block)
}

fn sum(shares: &[Share], size: u64) -> Result<BlockResult, WorkloadError> {
    let mut latency = Latency::histogram()?;
    for share in shares {
        let added = latency.add(&share.latency).map_err(std::io::Error::other);
        added.map_err(WorkloadError::system("add histograms up"))?;
    }
    let operations = shares.iter().map(|share| share.operations).sum();
    let mut bins = std::collections::BTreeMap::new();
    for &(bin, count) in shares.iter().flat_map(|share| &share.done) {
        *bins.entry(bin).or_insert(0) += count;
    }
    Ok(BlockResult {
        began_ns: shares.iter().map(|share| share.began_ns).min().unwrap_or(0),
        ended_ns: shares.iter().map(|share| share.ended_ns).max().unwrap_or(0),
        operations,
        bytes: operations * size,
        longest_ns: latency.max(),
        latency: Latency::encode(&latency)?,
        cpu_wait_ns: shares.iter().filter_map(|share| share.cpu_wait_ns).max(),
        done: bins.into_iter().collect(),
    })
}

fn device_bytes(arguments: &Arguments) -> Result<u64, WorkloadError> {
    let end = lseek64(open(arguments)?, 0, Whence::SeekEnd)
        .map_err(WorkloadError::system(format!("find the size of {}", arguments.path)))?;
    Ok(u64::try_from(end).unwrap_or(0))
}

/// Opens the device as an experiment uses it. `accounting` uses it too.
pub(super) fn open(arguments: &Arguments) -> Result<File, WorkloadError> {
    let mut options = File::options();
    options.read(true).write(arguments.operation == Operation::Write);
    if arguments.mode == Mode::Direct {
        options.custom_flags(libc::O_DIRECT);
    }
    options.open(&arguments.path).map_err(WorkloadError::system(format!("open {}", arguments.path)))
}

/// One thread's way through its part of the device.
fn work(arguments: &Arguments, first: u64, part: u64) -> Result<Share, WorkloadError> {
    let file = open(arguments)?;
    let doing = |what: &str| WorkloadError::system::<std::io::Error>(format!("{what} {}", arguments.path));
    let cached_reads = arguments.mode != Mode::Direct && arguments.operation == Operation::Read;
    let (offset, length) = (first as i64, part as i64);
    if cached_reads {
        posix_fadvise(&file, offset, length, PosixFadviseAdvice::POSIX_FADV_RANDOM)
            .map_err(WorkloadError::system("switch read-ahead off"))?;
        forget(&file, offset, length)?;
    }
    let mut buffer = Buffer::new(arguments.block_size as usize);
    let latency = Latency::histogram()?;
    let mut share = Share { began_ns: 0, ended_ns: 0, operations: 0, latency, cpu_wait_ns: None, done: Vec::new() };
    let mut at = 0;
    clock::sleep_until(arguments.start_ns);
    let waited_ns = cpu_wait_ns();
    let mut now_ns = clock::now_ns();
    share.began_ns = now_ns;
    while now_ns < arguments.end_ns {
        match arguments.operation {
            Operation::Read => file.read_exact_at(buffer.bytes(), first + at).map_err(doing("read"))?,
            Operation::Write => {
                file.write_all_at(buffer.bytes(), first + at).map_err(doing("write"))?;
                if arguments.mode == Mode::Synced {
                    file.sync_data().map_err(doing("write out"))?;
                }
            }
        }
        let before_ns = now_ns;
        now_ns = clock::now_ns();
        share.count(now_ns, before_ns, arguments.start_ns);
        at += u64::from(arguments.block_size);
        if at == part {
            at = 0;
            if cached_reads {
                forget(&file, offset, length)?;
            }
        }
    }
    share.ended_ns = now_ns;
    share.cpu_wait_ns = cpu_wait_ns().zip(waited_ns).map(|(after_ns, before_ns)| after_ns - before_ns);
    Ok(share)
}

/// How long the calling thread could have run and did not, since it began, in ns.
fn cpu_wait_ns() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    // Time on a CPU, time in a run queue, turns.
    text.split_whitespace().nth(1)?.parse().ok()
}

/// Takes the device's pages out of the cache, so that the next reads are requests again.
fn forget(file: &File, offset: i64, length: i64) -> Result<(), WorkloadError> {
    posix_fadvise(file, offset, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
        .map_err(WorkloadError::system("drop the device's pages"))
}

impl Share {
    fn count(&mut self, now_ns: u64, before_ns: u64, start_ns: u64) {
        self.operations += 1;
        self.latency.saturating_record(now_ns - before_ns);
        let bin = u32::try_from(now_ns.saturating_sub(start_ns) / BIN_NS).unwrap_or(u32::MAX);
        match self.done.last_mut() {
            Some((last, count)) if *last == bin => *count += 1,
            _ => self.done.push((bin, 1)),
        }
    }
}

/// A buffer that stands where O_DIRECT wants it.
pub(super) struct Buffer {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Buffer {
    pub(super) fn new(length: usize) -> Self {
        let memory = vec![0x5a; length + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Self { memory, start, length }
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments() -> Arguments {
        Arguments {
            path: "/dev/blkdev".to_owned(),
            operation: Operation::Write,
            mode: Mode::Synced,
            block_size: 16384,
            queue_depth: 4,
            offset: 1 << 20,
            length: 1 << 21,
            start_ns: 5,
            end_ns: 9,
        }
    }

    #[test]
    fn words_survive_a_round_trip() {
        let words = arguments().to_words();
        assert_eq!(words[0], "block");
        assert_eq!(Arguments::parse(&words[1..]).unwrap(), arguments());
    }

    #[test]
    fn wrong_words_are_told() {
        let refuse = |change: fn(&mut Arguments)| {
            let mut wrong = arguments();
            change(&mut wrong);
            Arguments::parse(&wrong.to_words()[1..]).unwrap_err().to_string()
        };
        assert_eq!(refuse(|a| a.block_size = 100), "--block-size is whole sectors of 512 bytes up to 1048576");
        assert_eq!(refuse(|a| a.queue_depth = 0), "--queue-depth is 1 to 256, not 0");
        assert_eq!(Arguments::parse(&["--path".to_owned()]).unwrap_err().to_string(), "`--path` has no value");
    }

    #[test]
    fn a_file_is_gone_through_and_every_request_counted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8 * 4096).unwrap();
        let start_ns = clock::now_ns();
        let arguments = Arguments {
            path: file.path().display().to_string(),
            mode: Mode::Buffered,
            block_size: 4096,
            queue_depth: 2,
            offset: 0,
            length: u64::MAX,
            start_ns,
            end_ns: start_ns + 20_000_000,
            ..arguments()
        };
        let Line::Block(result) = run(&arguments).unwrap() else { panic!("no result") };
        assert_eq!(result.latency.decode().unwrap().len(), result.operations);
        assert!(result.cpu_wait_ns.is_some_and(|wait_ns| wait_ns <= result.ended_ns - result.began_ns), "{result:?}");
        assert!(result.operations > 0 && result.bytes == result.operations * 4096, "{result:?}");
        assert_eq!(result.done.iter().map(|(_, count)| u64::from(*count)).sum::<u64>(), result.operations);
        assert!(result.done.is_sorted_by(|a, b| a.0 < b.0));
        assert!(result.began_ns >= start_ns && result.ended_ns >= arguments.end_ns);
        let written = std::fs::read(file.path()).unwrap();
        assert!(written.iter().all(|&byte| byte == 0x5a) && written.len() == 8 * 4096);
    }

    #[test]
    fn buffers_are_aligned() {
        let mut buffer = Buffer::new(512);
        assert_eq!(buffer.bytes().as_ptr() as usize % ALIGNMENT, 0);
        assert_eq!(buffer.bytes().len(), 512);
    }
}
