//! Scenario files: TOML → raw → validated [`Scenario`] → [`Case`]s.
//!
//! Raw input never leaves this module: what comes out is valid, and an error points at file, line and column and
//! says what would be right. Called by the command line; the schedule and the experiments read the result.
//!
//! One file an experiment's kind ([`startup`], [`network`]) says which keys it has and how they expand to cases.

use std::path::Path;
use std::time::Duration;

use crate::units::Limit;

pub use case::{Case, CaseKind};
pub use check::overlap;
pub use combined::{Arrangement, CombinedCase};
pub use devices::{Device, DeviceAccess, DeviceKind, DeviceRule, DevicesCase};
pub use interference::{InterferenceCase, Neighbour, NeighbourLimit};
pub use lifecycle::{LifecycleCase, Step as LifecycleStep};
pub use source::{Diagnostic, ScenarioError};

use source::Sources;

/// Writes an enum whose variants have fixed names in files: `ALL`, `as_str`, `Display` and serde by that name.
macro_rules! named {
    ($(#[$outer:meta])* $type:ident { $($(#[$inner:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $type { $($(#[$inner])* #[serde(rename = $name)] $variant,)* }

        impl $type {
            /// Every variant, in the order of the documentation.
            pub const ALL: &[$type] = &[$($type::$variant),*];

            /// The name in files.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $($type::$variant => $name),* }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

pub mod accounting;
pub mod blkio;
mod case;
mod check;
mod combined;
mod cpu;
mod devices;
mod estimate;
mod freezer;
mod interference;
mod lifecycle;
mod matrix;
mod memory;
mod network;
mod parse;
mod pids;
mod raw;
mod read;
mod source;
mod startup;
#[cfg(test)]
mod tests;

/// What the command line adds to a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Divide blocks and durations, so that the whole ends within about 20 s, or about half a minute where limits
    /// need their time.
    pub quick: bool,
    /// `KEY=VALUE` with a dotted path: `run.blocks=5`, `experiment.0.duration=2s`, `experiment.startup.per_block=3`.
    pub overrides: Vec<String>,
    /// The seed, before the file's own.
    pub seed: Option<u64>,
}

/// A key of a table for people: name, what it takes, default, what it is.
pub type Key = (&'static str, &'static str, &'static str, &'static str);

/// Every table of a scenario with its keys, for `isobench list`.
pub const TABLES: &[(&str, &[Key])] = &[
    ("[scenario]", parse::SCENARIO_KEYS),
    ("[run]", parse::RUN_KEYS),
    ("[[experiment]] of every kind", parse::EXPERIMENT_KEYS),
    ("[[experiment]] kind = \"startup\"", startup::KEYS),
    ("[[experiment]] kind = \"network\"", network::KEYS),
    ("[[experiment]] kind = \"cpu\"", cpu::KEYS),
    ("[[experiment]] kind = \"memory\"", memory::KEYS),
    ("[[experiment]] kind = \"pids\"", pids::KEYS),
    ("[[experiment]] kind = \"freezer\"", freezer::KEYS),
    ("[[experiment]] kind = \"blkio\"", blkio::KEYS),
    ("[[experiment]] kind = \"accounting\"", accounting::KEYS),
    ("[[experiment]] kind = \"devices\"", devices::KEYS),
    ("[[experiment]] kind = \"combined\"", combined::KEYS),
    ("[[experiment]] kind = \"interference\"", interference::KEYS),
    ("[[experiment]] kind = \"lifecycle\"", lifecycle::KEYS),
    ("[[check]]", check::KEYS),
];

/// A validated scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// The name; the run directory is called after it.
    pub name: String,
    /// The question in plain words.
    pub question: String,
    /// Blocks and seed.
    pub run: RunSettings,
    /// Every case of every experiment, in the order of the file.
    pub cases: Vec<Case>,
    /// What must hold.
    pub checks: Vec<Check>,
    /// The ids of the cases whose enforcement is measured and shown, but does not count (`enforce = false`).
    pub unenforced: Vec<String>,
    /// The text as read, before overrides.
    pub source: String,
}

impl Scenario {
    /// Reads and validates a scenario file.
    ///
    /// # Errors
    /// When the file cannot be read, or with everything that is wrong with it.
    pub fn load(path: impl AsRef<Path>, options: &Options) -> Result<Self, ScenarioError> {
        let path = path.as_ref();
        let text = crate::fs::read_text(path)?;
        Self::parse(&text, &path.display().to_string(), options)
    }

    /// Validates a scenario's text; `file_name` is what errors call it.
    ///
    /// # Errors
    /// With everything that is wrong with it.
    pub fn parse(text: &str, file_name: &str, options: &Options) -> Result<Self, ScenarioError> {
        let mut sources = Sources::new(file_name, text);
        let mut root = raw::parse(text).map_err(|problems| sources.report(problems))?;
        let mut problems = Vec::new();
        for text in &options.overrides {
            if let Err(found) = raw::apply_override(&mut root, text, &mut sources) {
                problems.extend(found);
            }
        }
        let scenario = parse::validate(&root, &mut problems);
        let Some(mut scenario) = scenario.filter(|_| problems.is_empty()) else {
            return Err(sources.report(problems));
        };
        text.clone_into(&mut scenario.source);
        scenario.run.seed = options.seed.or(scenario.run.seed);
        if options.quick {
            estimate::shorten(&mut scenario);
        }
        Ok(scenario)
    }

    /// Roughly how long the blocks take, with what is prepared for them.
    #[must_use]
    pub fn estimate(&self) -> Duration {
        estimate::of(self)
    }
}

/// The `[run]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSettings {
    /// Measured blocks.
    pub blocks: u32,
    /// Blocks before them, kept and marked.
    pub warmup_blocks: u32,
    /// The seed of block orders; absent: drawn at random by the run and recorded.
    pub seed: Option<u64>,
}

/// A case of the `memory` experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryCase {
    /// The runtime under test.
    pub runtime: RuntimeKind,
    /// What is asked of the controller.
    pub setting: MemorySetting,
    /// The limit, in bytes.
    pub limit: u64,
}

/// A case of the `pids` experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PidsCase {
    /// The runtime under test.
    pub runtime: RuntimeKind,
    /// The limit, in tasks.
    pub limit: u32,
}

/// A case of the `freezer` experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreezerCase {
    /// The runtime under test.
    pub runtime: RuntimeKind,
    /// Threads that never rest.
    pub threads: u32,
    /// How long they are watched while they are frozen.
    pub frozen: Duration,
}

/// A case of the `startup` experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartupCase {
    /// The runtime under test.
    pub runtime: RuntimeKind,
    /// The network mode of each container.
    pub network: NetworkMode,
    /// How many starters work in parallel, at least 1.
    pub concurrency: u32,
    /// Starts in one block, over all starters, at least 1.
    pub per_block: u32,
    /// What the containers are made of: what [`crate::image::Image::open`] takes.
    pub image: String,
    /// How many layers its root has, counting the image as one.
    pub layers: u32,
    /// Whether the pages of the image's files are dropped before each start.
    pub cold: bool,
}

/// A case of the `network` experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkCase {
    /// The runtime of the container end.
    pub runtime: RuntimeKind,
    /// The network mode of the container end.
    pub network: NetworkMode,
    /// The way that the traffic takes.
    pub path: TrafficPath,
    /// The workload.
    pub test: NetworkTest,
    /// How long one sample is measured.
    pub duration: Duration,
    /// How long the flow runs before the measured time.
    pub warmup: Duration,
    /// Bytes a message (a write for streams, a request and a reply for the others).
    pub message_size: u32,
    /// Parallel flows.
    pub streams: u32,
    /// Whether client and server are pinned to different CPUs.
    pub pin: bool,
}

/// A case of the `cpu` experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuCase {
    /// The runtime of the containers.
    pub runtime: RuntimeKind,
    /// What is asked of the kernel.
    pub setting: CpuSetting,
    /// How long one sample is measured.
    pub duration: Duration,
}

/// What a `cpu` case asks of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CpuSetting {
    /// One CPU among containers.
    Shares {
        /// Of each container, 2 to 262144; at least two.
        shares: Vec<u64>,
        /// Whether the first group holds a whole set of such containers, and each other group one of the least shares.
        nested: bool,
        /// Whether it is also measured who gets the CPU while the last container rests, and while it runs alone.
        conservation: bool,
    },
    /// CPU time a period.
    Quota {
        /// In percent of one CPU. [`Limit::Max`]: a quota that is taken back while the container runs.
        percent: Limit,
        /// The period; the quota is at least 1 ms.
        period: Duration,
        /// How the threads spin.
        spin: CpuSpin,
    },
    /// The CPUs that may be used.
    Cpuset {
        /// As in `0-2,5`.
        cpus: String,
        /// Threads that try to get off them.
        threads: u32,
    },
    /// How late a sleeper is woken while others spin on its CPU.
    Wakeup {
        /// Of the sleeper and of each burner beside it.
        shares: Vec<u64>,
    },
}

named! {
    /// What can be put under test.
    RuntimeKind {
        /// A bare clone3 and exec with the same namespaces.
        Floor = "floor",
        /// isobench's own container runtime.
        Builtin = "builtin",
    }
}

named! {
    /// How a container is connected.
    NetworkMode {
        /// Shares the host's network namespace.
        Host = "host",
        /// A namespace of its own with only loopback.
        None = "none",
        /// A veth pair to a bridge, NAT outwards, published ports inwards.
        Bridge = "bridge",
        /// Shares the namespace of another container, itself on the bridge.
        Container = "container",
    }
}

named! {
    /// What the `memory` experiment asks of the controller.
    MemorySetting {
        /// A limit: who touches more anonymous memory is killed there.
        Limit = "limit",
        /// A limit, and a file that is larger: the page cache is reclaimed and nobody is killed.
        Cache = "cache",
        /// A soft limit: on v2 who goes beyond is slowed down; on v1 nothing happens until the host is short.
        Soft = "soft",
        /// A limit and no swap.
        NoSwap = "no-swap",
        /// A limit, and as much swap as memory.
        Swap = "swap",
        /// A limit below what is in use already, all of it anonymous: v1 refuses it, v2 kills.
        Shrink = "shrink",
        /// A limit below what is in use already, most of it page cache: it is reclaimed.
        ShrinkCache = "shrink-cache",
    }
}

named! {
    /// The way that network traffic takes.
    TrafficPath {
        /// From the container out to the peer.
        Egress = "egress",
        /// From the peer to the container, through a published port where the mode has NAT.
        Ingress = "ingress",
        /// From one container to another of the same network.
        Internal = "internal",
    }
}

named! {
    /// The network workloads.
    NetworkTest {
        /// One-way bulk transfer over TCP.
        TcpStream = "tcp_stream",
        /// Requests and replies over one TCP connection.
        TcpRr = "tcp_rr",
        /// A new TCP connection for each request and reply.
        TcpCrr = "tcp_crr",
        /// One-way datagrams as fast as they go.
        UdpStream = "udp_stream",
        /// Requests and replies over UDP.
        UdpRr = "udp_rr",
    }
}

named! {
    /// The settings of the `cpu` experiment.
    CpuControl {
        /// Relative weights.
        Shares = "shares",
        /// CPU time a period.
        Quota = "quota",
        /// Allowed CPUs.
        Cpuset = "cpuset",
        /// Wake-up latency under contention.
        Wakeup = "wakeup",
    }
}

named! {
    /// What the `blkio` experiment limits.
    BlkioSetting {
        /// Bytes read a second.
        ReadBps = "read_bps",
        /// Bytes written a second.
        WriteBps = "write_bps",
        /// Read operations a second.
        ReadIops = "read_iops",
        /// Write operations a second.
        WriteIops = "write_iops",
        /// The share of a disk under BFQ.
        Weight = "weight",
    }
}

named! {
    /// How the threads of a quota case spin.
    CpuSpin {
        /// They read their CPU clock every few µs, so that the kernel charges them so often.
        Checked = "checked",
        /// They stay in user mode and leave it to the timer tick.
        Free = "free",
    }
}

named! {
    /// How block I/O uses the page cache.
    BlockIo {
        /// Not at all.
        Direct = "direct",
        /// As the kernel likes: writes are written out later, by the kernel.
        Buffered = "buffered",
        /// Each write is written out by the program, with fdatasync.
        Synced = "synced",
    }
}

named! {
    /// How BFQ is set up.
    BfqMode {
        /// For exact shares, at the cost of throughput.
        Strict = "strict",
        /// As the kernel has it.
        Default = "default",
    }
}

named! {
    /// What the `accounting` experiment uses.
    Resource {
        /// CPU time.
        Cpu = "cpu",
        /// Memory.
        Memory = "memory",
        /// Block I/O.
        Block = "block",
        /// The network.
        Network = "network",
    }
}

/// One `[[check]]`: a bound on a metric of the cases that a pattern names.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// The metric's name, one of [`crate::record::metric::METRICS`].
    pub metric: String,
    /// A pattern of case ids; `*` stands for any part between slashes.
    pub case: String,
    /// What must hold.
    pub bound: Bound,
}

/// The bound of a check.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// The ratio to the baseline is at least this.
    MinRatio(f64),
    /// The ratio to the baseline is at most this.
    MaxRatio(f64),
    /// The median is at least this, in the metric's base unit.
    Min(f64),
    /// The median is at most this, in the metric's base unit.
    Max(f64),
}
