//! `kind = "accounting"`: every runtime × resource × how much of it is used.
//!
//! A case is called `accounting/<runtime>/<resource>/<amount>`, as in `accounting/builtin/cpu/10ms` and
//! `accounting/builtin/memory/1M`.

use std::time::Duration;

use super::blkio::short_bytes;
use super::matrix::Dimension;
use super::read::{self, Table, Wrong};
use super::{Case, CaseKind, Resource, RuntimeKind};

/// The keys that span the matrix and the rest, for `isobench list`: name, values or range, default.
pub(super) const KEYS: &[super::Key] = &[
    ("runtime", "builtin", "\"builtin\"", "the runtime of the container"),
    ("resource", "cpu, memory, block, network", "required", "what is used"),
    ("cpu", "\"100us\" to \"10s\"", "\"1ms\", \"10ms\", \"100ms\"", "CPU time"),
    ("memory", "\"4K\" to \"1G\"", "\"4K\", \"1M\", \"64M\"", "bytes touched"),
    ("block", "\"4K\" to \"64M\"", "\"4K\", \"1M\"", "bytes written to a loop device over memory, in blocks of 4K"),
    ("network", "\"1K\" to \"64M\"", "\"1K\", \"1M\"", "bytes sent from eth0 of a bridge, in datagrams of 1K"),
    ("per_block", "1 to 100", "1", "measurements in one block, each in a container of its own"),
];

/// A case of the `accounting` experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountingCase {
    /// The runtime of the container.
    pub runtime: RuntimeKind,
    /// What is used, and how much of it.
    pub amount: Amount,
    /// Measurements in one block.
    pub per_block: u32,
}

/// How much of a resource is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// CPU time.
    Cpu(Duration),
    /// Bytes touched.
    Memory(u32),
    /// Bytes written, in blocks of 4096.
    Block(u32),
    /// Payload bytes sent, in datagrams of 1024.
    Network(u32),
}

impl Amount {
    /// Which resource.
    #[must_use]
    pub fn resource(self) -> Resource {
        match self {
            Self::Cpu(_) => Resource::Cpu,
            Self::Memory(_) => Resource::Memory,
            Self::Block(_) => Resource::Block,
            Self::Network(_) => Resource::Network,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Cpu(time) => super::matrix::plain(time),
            Self::Memory(bytes) | Self::Block(bytes) | Self::Network(bytes) => short_bytes(u64::from(bytes)),
        }
    }
}

/// What a case measures.
pub(super) const METRICS: &[&str] = &["read_cost"];

/// Reads one `[[experiment]]` of this kind and expands it to its cases.
pub(super) fn expand(mut table: Table<'_, '_>) -> Vec<Case> {
    let runtimes =
        table.list("runtime", &[RuntimeKind::Builtin], |node| match read::name("runtime", RuntimeKind::ALL)(node)? {
            RuntimeKind::Floor => Err(Wrong::new("the floor has no cgroup that keeps an account", "use \"builtin\"")),
            runtime => Ok(runtime),
        });
    let resources = table.required_list("resource", Resource::ALL, read::name("resource", Resource::ALL));
    let ms = Duration::from_millis;
    let cpu = table.list(
        "cpu",
        &[ms(1), ms(10), ms(100)],
        read::duration(Duration::from_micros(100), Duration::from_secs(10)),
    );
    let memory = table.list("memory", &[4 << 10, 1 << 20, 64 << 20], read::bytes(4 << 10, 1 << 30));
    let block = table.list("block", &[4 << 10, 1 << 20], read::bytes(4 << 10, 64 << 20));
    let network = table.list("network", &[1 << 10, 1 << 20], read::bytes(1 << 10, 64 << 20));
    let per_block = table.one("per_block", read::whole(1, 100)).map_or(1, |found| found.value);
    fn all<T: Copy + PartialEq + std::fmt::Debug>(values: &Dimension<T>, wrap: fn(T) -> Amount) -> Vec<Amount> {
        values.iter().map(|(value, _)| wrap(*value)).collect()
    }

    let mut cases = Vec::new();
    for (&runtime, _) in runtimes.iter() {
        for (&resource, _) in resources.iter() {
            let amounts = match resource {
                Resource::Cpu => all(&cpu, Amount::Cpu),
                Resource::Memory => all(&memory, Amount::Memory),
                Resource::Block => all(&block, Amount::Block),
                Resource::Network => all(&network, Amount::Network),
            };
            for amount in amounts {
                let id = format!("accounting/{runtime}/{resource}/{}", amount.text());
                let case = AccountingCase { runtime, amount, per_block };
                cases.push(Case { id, baseline: None, kind: CaseKind::Accounting(case) });
            }
        }
    }
    table.finish();
    cases
}

/// The dimensions of a case beside the runtime, as text.
pub(super) fn parameters(case: &AccountingCase) -> Vec<(&'static str, String)> {
    vec![
        ("resource", case.amount.resource().to_string()),
        ("amount", case.amount.text()),
        ("per_block", case.per_block.to_string()),
    ]
}

/// How long a case takes in one block.
pub(super) fn estimate(case: &AccountingCase) -> Duration {
    let use_time = match case.amount {
        Amount::Cpu(time) => time,
        // A page a µs, a request and a datagram every 20 µs: on the high side.
        Amount::Memory(bytes) => Duration::from_micros(u64::from(bytes) / 4096),
        Amount::Block(bytes) => Duration::from_micros(u64::from(bytes) / 4096 * 20),
        Amount::Network(bytes) => Duration::from_micros(u64::from(bytes) / 1024 * 20),
    };
    (use_time + RESTS + Duration::from_millis(20)) * case.per_block
}

/// The two rests of the workload.
const RESTS: Duration = Duration::from_millis(160);
