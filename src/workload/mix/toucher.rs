//! Memory of `mix`: a child that touches it step by step, so that the OOM killer ends the child and not the program.

use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::workload::{SUBCOMMAND, WorkloadError};

/// Bytes between two signs of life of the child that touches memory: the step in which touched bytes are known.
pub const STEP: u64 = 64 << 10;

/// A child that touches memory step by step and says after each how much it has; it is what the OOM killer ends.
pub(super) struct Toucher {
    child: Child,
    output: ChildStdout,
    wanted: u64,
    /// The last that it said.
    pub bytes: u64,
    /// Whether it ended by itself (or was ended) before it had all.
    ended: bool,
}

/// The workload's name of that child.
pub(in crate::workload) const CHILD: &str = "mix-child";

impl Toucher {
    /// Starts it. Tasks that were just let go may still count for a moment, so a refusal is not taken at once.
    pub(super) fn start(wanted: u64) -> Result<Self, WorkloadError> {
        const TRIES: u32 = 1000;
        let start = || {
            let mut command = Command::new("/proc/self/exe");
            command.args([SUBCOMMAND, CHILD, &wanted.to_string()]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()
        };
        let mut started = start();
        for _ in 0..TRIES {
            match &started {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(1)),
                _ => break,
            }
            started = start();
        }
        let mut child = started.map_err(WorkloadError::system("start the child that touches memory"))?;
        let no_pipe = || io::Error::other("it has no standard output");
        let output = child.stdout.take().ok_or_else(no_pipe).map_err(WorkloadError::system("follow the child"))?;
        Ok(Self { child, output, wanted, bytes: 0, ended: false })
    }

    /// Follows it until it has touched all, or is gone.
    pub(super) fn follow(&mut self) -> Result<(), WorkloadError> {
        let mut base = None;
        loop {
            let mut report = [0; 8];
            match self.output.read_exact(&mut report) {
                Ok(()) => self.bytes = u64::from_le_bytes(report),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.ended = true;
                    return Ok(());
                }
                Err(error) => return Err(WorkloadError::system("follow the child")(error)),
            }
            if self.bytes >= *base.get_or_insert(self.bytes) + self.wanted {
                return Ok(());
            }
        }
    }

    /// Ends it, and says whether somebody else had killed it before.
    pub(super) fn end(mut self) -> Result<bool, WorkloadError> {
        if !self.ended {
            self.child.kill().map_err(WorkloadError::system("end the child"))?;
        }
        let status = self.child.wait().map_err(WorkloadError::system("wait for the child"))?;
        Ok(self.ended && status.signal() == Some(libc::SIGKILL))
    }
}

/// The child: touches so many bytes, then waits to be killed.
pub(in crate::workload) fn run_child(words: &[String]) -> Result<(), WorkloadError> {
    let wrong = || WorkloadError::Arguments(format!("{CHILD} takes a number of bytes"));
    let wanted: u64 = words.first().and_then(|word| word.parse().ok()).ok_or_else(wrong)?;
    // A huge page would be charged as a whole at its first byte.
    nix::sys::prctl::set_thp_disable(true).map_err(WorkloadError::system("turn huge pages off"))?;
    let mut output = io::stdout().lock();
    let mut report = |bytes: u64| {
        output.write_all(&bytes.to_le_bytes()).and_then(|()| output.flush()).map_err(WorkloadError::system("report"))
    };
    let mut held: Vec<Vec<u8>> = Vec::with_capacity(usize::try_from(wanted / STEP).unwrap_or(0) + 1);
    let base = resident_bytes()?;
    report(base)?;
    let mut touched = 0;
    while touched < wanted {
        // Not zeroes: the allocator would ask the kernel for zeroed pages and touch nothing.
        held.push(vec![1; STEP as usize]);
        touched += STEP;
        report(base + touched)?;
    }
    std::hint::black_box(&held);
    crate::workload::hold()
}

/// Memory of this process that only it has and that its group is charged for, in bytes: anonymous and shared pages, and
/// page tables.
pub(super) fn resident_bytes() -> Result<u64, WorkloadError> {
    let status =
        std::fs::read_to_string("/proc/self/status").map_err(WorkloadError::system("read /proc/self/status"))?;
    let kib = |key: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    Ok((kib("RssAnon:") + kib("RssShmem:") + kib("VmPTE:")) * 1024)
}
