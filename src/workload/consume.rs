//! `consume`: uses a known amount of one resource while the harness reads what the kernel charges for it.
//!
//! The experiment `accounting` runs it. The program rests, uses the amount, and rests again; the harness reads the
//! account in both rests. The program's own count (its thread's CPU clock, the bytes it touched, wrote or sent) is
//! taken at the edges of the rests too, so that the start of the program, its output and its end are in neither of the
//! two counts.
//!
//! It prints `resting` at the beginning of each rest and `consumed` at the end.

use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::block::{self, Buffer};
use super::options::{Options, usage};
use super::result::Line;
use super::{WorkloadError, print};
use crate::sys::clock;

/// How long each rest is: long enough for a reading by a harness that has to wait for a CPU.
pub const REST: Duration = Duration::from_millis(80);

/// What a page is here; what is touched is counted in bytes of whole pages.
const PAGE: usize = 4096;

/// Bytes of the Ethernet, IPv4 and UDP headers that a datagram carries on a link.
pub const DATAGRAM_HEADERS: u64 = 14 + 20 + 8;

/// What is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arguments {
    /// CPU time of one thread.
    Cpu {
        /// How much, by the thread's clock, in ns.
        ns: u64,
    },
    /// Anonymous memory, touched page by page.
    Memory {
        /// How much, in bytes; counted in whole pages.
        bytes: u64,
    },
    /// Direct writes to a block device.
    Block {
        /// Its node.
        path: String,
        /// How much, in bytes.
        bytes: u64,
        /// Bytes a request.
        block_size: u32,
    },
    /// UDP datagrams.
    Datagrams {
        /// Where they go.
        to: SocketAddr,
        /// How much payload, in bytes.
        bytes: u64,
        /// Payload bytes a datagram.
        size: u32,
    },
}

/// The begin of a rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resting {
    /// 1 for the rest before, 2 for the one after.
    pub rest: u8,
}

/// What was used, by the program's own count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumed {
    /// When the first rest was over.
    pub began_ns: u64,
    /// When the second rest was over.
    pub ended_ns: u64,
    /// CPU time of the thread between the rests, in ns.
    pub cpu_ns: u64,
    /// Bytes touched, written, or sent with their headers.
    pub bytes: u64,
    /// Pages touched, requests written, or datagrams sent.
    pub operations: u64,
}

const KNOWN: &[&str] = &["--amount", "--path", "--block-size", "--to", "--size"];

impl Arguments {
    /// Reads the words after the workload's name.
    pub(super) fn parse(words: &[String]) -> Result<Self, WorkloadError> {
        let Some((resource, words)) = words.split_first() else {
            return Err(usage("consume needs a resource: cpu, memory, block or datagrams".to_owned()));
        };
        let options = Options::parse(words, KNOWN)?;
        let bytes = || -> Result<u64, WorkloadError> {
            options.required("--amount")?;
            options.bytes("--amount").map(|bytes| bytes.unwrap_or(0)).and_then(|bytes| match bytes {
                0 => Err(usage("--amount must be more than 0".to_owned())),
                bytes => Ok(bytes),
            })
        };
        let size = |name, most| -> Result<u32, WorkloadError> {
            let size = options.value(name, "a byte count")?.unwrap_or(4096.min(most));
            if (1..=most).contains(&size) { Ok(size) } else { Err(usage(format!("{name} is 1 to {most}, not {size}"))) }
        };
        match resource.as_str() {
            "cpu" => {
                options.required("--amount")?;
                let amount = options.duration("--amount")?.unwrap_or_default();
                Ok(Self::Cpu { ns: u64::try_from(amount.as_nanos()).unwrap_or(u64::MAX) })
            }
            "memory" => Ok(Self::Memory { bytes: bytes()? }),
            "block" => {
                let path = options.required("--path")?.to_owned();
                Ok(Self::Block { path, bytes: bytes()?, block_size: size("--block-size", block::MAX_BLOCK)? })
            }
            "datagrams" => {
                options.required("--to")?;
                let Some(to) = options.value("--to", "an address and a port")? else {
                    return Err(usage("--to is missing".to_owned()));
                };
                Ok(Self::Datagrams { to, bytes: bytes()?, size: size("--size", 1400)? })
            }
            other => Err(usage(format!("`{other}` is not a resource: cpu, memory, block or datagrams"))),
        }
    }

    /// The words that make the workload, the name first.
    #[must_use]
    pub fn to_words(&self) -> Vec<String> {
        let (resource, pairs) = match self {
            Self::Cpu { ns } => ("cpu", vec![("--amount", format!("{ns}ns"))]),
            Self::Memory { bytes } => ("memory", vec![("--amount", bytes.to_string())]),
            Self::Block { path, bytes, block_size } => (
                "block",
                vec![
                    ("--amount", bytes.to_string()),
                    ("--path", path.clone()),
                    ("--block-size", block_size.to_string()),
                ],
            ),
            Self::Datagrams { to, bytes, size } => (
                "datagrams",
                vec![("--amount", bytes.to_string()), ("--to", to.to_string()), ("--size", size.to_string())],
            ),
        };
        let mut words = vec!["consume".to_owned(), resource.to_owned()];
        words.extend(pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
        words
    }
}

/// What is made before the first rest, so that making it is not counted.
enum Ready {
    Cpu(u64),
    Memory { region: Vec<u8>, bytes: usize },
    Block { file: File, path: String, buffer: Buffer, bytes: u64 },
    Datagrams { socket: UdpSocket, payload: Vec<u8>, bytes: u64 },
}

/// Rests, uses, rests.
pub(super) fn run(arguments: &Arguments) -> Result<Line, WorkloadError> {
    let mut ready = prepare(arguments)?;
    // The first line allocates standard output's buffer; after it, memory does not change by itself.
    print(&Line::Resting(Resting { rest: 1 }))?;
    let cpu = clock::thread_cpu_ns();
    thread::sleep(REST);
    let began_ns = clock::now_ns();
    let (bytes, operations) = consume(&mut ready)?;
    print(&Line::Resting(Resting { rest: 2 }))?;
    let cpu_ns = clock::thread_cpu_ns() - cpu;
    thread::sleep(REST);
    let ended_ns = clock::now_ns();
    // Held until here: the harness has read meanwhile.
    drop(ready);
    Ok(Line::Consumed(Consumed { began_ns, ended_ns, cpu_ns, bytes, operations }))
}

fn prepare(arguments: &Arguments) -> Result<Ready, WorkloadError> {
    Ok(match arguments {
        Arguments::Cpu { ns } => Ready::Cpu(*ns),
        Arguments::Memory { bytes } => {
            // A huge page would charge 2 MiB for the first byte.
            nix::sys::prctl::set_thp_disable(true).map_err(WorkloadError::system("switch huge pages off"))?;
            let bytes = usize::try_from(*bytes).map_err(|_| usage(format!("{bytes} bytes are too many")))?;
            // So large that the allocator maps it afresh: zeroed pages that nobody has touched.
            Ready::Memory { region: vec![0; bytes.next_multiple_of(PAGE) + (1 << 20)], bytes }
        }
        Arguments::Block { path, bytes, block_size } => {
            let arguments = block::Arguments {
                path: path.clone(),
                operation: block::Operation::Write,
                mode: block::Mode::Direct,
                block_size: *block_size,
                queue_depth: 1,
                offset: 0,
                length: u64::MAX,
                start_ns: 0,
                end_ns: 0,
            };
            let file = block::open(&arguments)?;
            Ready::Block { file, path: path.clone(), buffer: Buffer::new(*block_size as usize), bytes: *bytes }
        }
        Arguments::Datagrams { to, bytes, size } => {
            let socket = UdpSocket::bind("0.0.0.0:0").map_err(WorkloadError::system("open a UDP socket"))?;
            socket.connect(to).map_err(WorkloadError::system(format!("connect to {to}")))?;
            let payload = vec![0x5a; *size as usize];
            // The first one asks for the neighbour's address; that is not to be counted.
            socket.send(&payload).map_err(WorkloadError::system(format!("send to {to}")))?;
            Ready::Datagrams { socket, payload, bytes: *bytes }
        }
    })
}

/// Uses the amount; returns bytes and operations.
fn consume(ready: &mut Ready) -> Result<(u64, u64), WorkloadError> {
    match ready {
        Ready::Cpu(ns) => {
            let until = clock::thread_cpu_ns() + *ns;
            while clock::thread_cpu_ns() < until {
                std::hint::spin_loop();
            }
            Ok((0, 0))
        }
        Ready::Memory { region, bytes } => {
            let first = region.as_ptr().align_offset(PAGE);
            let pages = bytes.div_ceil(PAGE);
            for page in region[first..].chunks_mut(PAGE).take(pages) {
                page[0] = 1;
            }
            std::hint::black_box(&region);
            Ok(((pages * PAGE) as u64, pages as u64))
        }
        Ready::Block { file, path, buffer, bytes } => {
            let size = buffer.bytes().len() as u64;
            let requests = bytes.div_ceil(size);
            for index in 0..requests {
                file.write_all_at(buffer.bytes(), index * size)
                    .map_err(WorkloadError::system(format!("write {path}")))?;
            }
            Ok((requests * size, requests))
        }
        Ready::Datagrams { socket, payload, bytes } => {
            let count = bytes.div_ceil(payload.len() as u64);
            for _ in 0..count {
                socket.send(payload).map_err(WorkloadError::system("send a datagram"))?;
            }
            Ok((count * (payload.len() as u64 + DATAGRAM_HEADERS), count))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_round_trip() {
        let all = [
            Arguments::Cpu { ns: 1_500_000 },
            Arguments::Memory { bytes: 4096 },
            Arguments::Block { path: "/dev/blkdev".to_owned(), bytes: 8192, block_size: 512 },
            Arguments::Datagrams { to: "172.30.0.1:9".parse().unwrap(), bytes: 1, size: 1000 },
        ];
        for arguments in all {
            assert_eq!(Arguments::parse(&arguments.to_words()[1..]).unwrap(), arguments);
        }
        let refused = Arguments::parse(&["disk".to_owned()]).unwrap_err().to_string();
        assert_eq!(refused, "`disk` is not a resource: cpu, memory, block or datagrams");
        let refused = Arguments::parse(&["memory", "--amount", "0"].map(str::to_owned)).unwrap_err().to_string();
        assert_eq!(refused, "--amount must be more than 0");
    }

    #[test]
    fn amounts_are_counted_as_they_are_used() {
        let used = |arguments: Arguments| consume(&mut prepare(&arguments).unwrap()).unwrap();
        assert_eq!(used(Arguments::Memory { bytes: 1 }), (4096, 1));
        assert_eq!(used(Arguments::Memory { bytes: 3 * 4096 }), (3 * 4096, 3));
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = receiver.local_addr().unwrap();
        assert_eq!(used(Arguments::Datagrams { to, bytes: 1001, size: 1000 }), (2 * 1042, 2));
        let mut buffer = [0; 2000];
        for _ in 0..3 {
            assert_eq!(receiver.recv(&mut buffer).unwrap(), 1000);
        }
        let before = clock::thread_cpu_ns();
        used(Arguments::Cpu { ns: 1_000_000 });
        assert!(clock::thread_cpu_ns() - before >= 1_000_000);
    }
}
