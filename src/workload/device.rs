//! `device`: tries what may be done with device nodes, and says what the kernel answered.
//!
//! It says that it is ready, and then waits for SIGUSR1: the harness makes the nodes meanwhile, from outside, where no
//! device rule of the container holds it back. Each further SIGUSR1 is another round, so that rules can be changed in
//! between. The program ends when it is killed. Read by the experiments `devices` and `combined`.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};

use super::WorkloadError;

/// Where the nodes are that are probed; the harness makes them, one a probe, called by the probe's position.
pub const NODES: &str = "/dev";

/// A device that is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Whether it is a block device.
    pub block: bool,
    /// The major number.
    pub major: u32,
    /// The minor number.
    pub minor: u32,
}

impl Probe {
    /// As on the command line: `c:1:3`.
    #[must_use]
    pub fn to_word(self) -> String {
        format!("{}:{}:{}", if self.block { 'b' } else { 'c' }, self.major, self.minor)
    }

    fn parse(word: &str) -> Option<Self> {
        let mut parts = word.split(':');
        let block = match parts.next()? {
            "b" => true,
            "c" => false,
            _ => return None,
        };
        let (major, minor) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        parts.next().is_none().then_some(Self { block, major, minor })
    }

    /// The mode of a node of this device.
    #[must_use]
    pub fn kind(self) -> SFlag {
        if self.block { SFlag::S_IFBLK } else { SFlag::S_IFCHR }
    }

    /// The number of this device.
    #[must_use]
    pub fn number(self) -> u64 {
        makedev(u64::from(self.major), u64::from(self.minor))
    }
}

/// The path of the node of a probe, by its position.
#[must_use]
pub fn node_path(position: usize) -> String {
    format!("{NODES}/isobench-{position}")
}

/// What came of one access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The error number; 0: it was done.
    pub errno: i32,
    /// Whether the device rules permitted it, whatever came afterwards: only EPERM counts as a refusal, and not even
    /// that where access(2), which asks the rules but not the driver, is let through.
    pub permitted: bool,
}

/// What came of the accesses to one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// Opening for reading.
    pub read: Answer,
    /// Opening for writing.
    pub write: Answer,
    /// Making a node.
    pub mknod: Answer,
}

/// One line of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Line {
    /// The program waits for the first SIGUSR1.
    Ready {},
    /// One round is done.
    Probed {
        /// In the order of the command line.
        answers: Vec<Answers>,
    },
}

/// Probes a round at each SIGUSR1; never returns unless something fails.
pub(super) fn run(words: &[String]) -> Result<(), WorkloadError> {
    let probes = parse(words)?;
    let rounds = block_signal()?;
    super::print_json(&Line::Ready {})?;
    loop {
        rounds.wait().map_err(WorkloadError::system("wait for SIGUSR1"))?;
        super::print_json(&Line::Probed { answers: probe_all(&probes)? })?;
    }
}

/// Reads `--probe c:1:3 --probe …`.
fn parse(words: &[String]) -> Result<Vec<Probe>, WorkloadError> {
    let usage = || WorkloadError::Arguments("device takes --probe c:MAJOR:MINOR or b:MAJOR:MINOR, repeated".to_owned());
    let mut words = words.iter();
    let mut probes = Vec::new();
    while let Some(option) = words.next() {
        if option != "--probe" {
            return Err(usage());
        }
        probes.push(words.next().and_then(|word| Probe::parse(word)).ok_or_else(usage)?);
    }
    Ok(probes)
}

/// Keeps SIGUSR1 pending until it is waited for. Blocked signals are not dropped, not even for the first process of a
/// pid namespace.
pub(super) fn block_signal() -> Result<SigSet, WorkloadError> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGUSR1);
    set.thread_block().map_err(WorkloadError::system("block SIGUSR1"))?;
    Ok(set)
}

/// Probes every device, whose nodes must exist.
pub(super) fn probe_all(probes: &[Probe]) -> Result<Vec<Answers>, WorkloadError> {
    probes.iter().enumerate().map(|(position, probe)| probe_one(position, *probe)).collect()
}

fn probe_one(position: usize, probe: Probe) -> Result<Answers, WorkloadError> {
    let node = node_path(position);
    Ok(Answers {
        read: open(&node, AccessFlags::R_OK)?,
        write: open(&node, AccessFlags::W_OK)?,
        mknod: make(&format!("{NODES}/made-{position}"), probe)?,
    })
}

fn open(node: &str, how: AccessFlags) -> Result<Answer, WorkloadError> {
    let read = how == AccessFlags::R_OK;
    // Not waiting for a device that is slow to answer, and not taking a terminal for one's own.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = OpenOptions::new().read(read).write(!read).custom_flags(flags).open(Path::new(node));
    let errno = match opened {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
    };
    if errno == libc::ENOENT {
        return Err(WorkloadError::system(format!("open {node}, which should be there"))(Errno::ENOENT));
    }
    let permitted = errno != libc::EPERM || access(node, how).is_ok();
    Ok(Answer { errno, permitted })
}

fn make(path: &str, probe: Probe) -> Result<Answer, WorkloadError> {
    match mknod(path, probe.kind(), Mode::from_bits_truncate(0o600), probe.number()) {
        Ok(()) => {
            nix::unistd::unlink(path).map_err(WorkloadError::system(format!("remove {path}")))?;
            Ok(Answer { errno: 0, permitted: true })
        }
        Err(errno) => Ok(Answer { errno: errno as i32, permitted: errno != Errno::EPERM }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_round_trip() {
        for (word, block) in [("c:1:3", false), ("b:7:0", true)] {
            let probe = Probe::parse(word).unwrap();
            assert_eq!((probe.to_word().as_str(), probe.block), (word, block));
        }
        for bad in ["", "c:1", "x:1:2", "c:1:2:3", "c:a:1"] {
            assert_eq!(Probe::parse(bad), None, "{bad}");
        }
        let words = ["--probe", "c:1:3", "--probe", "b:7:0"].map(str::to_owned);
        assert_eq!(parse(&words).unwrap().len(), 2);
        assert!(parse(&words[..1]).is_err() && parse(&words[1..]).is_err());
    }

    #[test]
    fn an_open_is_told_by_its_error() {
        assert_eq!(open("/dev/null", AccessFlags::W_OK).unwrap(), Answer { errno: 0, permitted: true });
        assert!(open("/dev/no such device", AccessFlags::R_OK).is_err());
    }
}
