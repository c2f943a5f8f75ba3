//! `kind = "interference"`: a noisy neighbour beside a measured container, with and without limits on the neighbour.
//!
//! A case is called `interference/<runtime>/<neighbour>/<limit>`; the baseline of each neighbour's cases is
//! `interference/<runtime>/<neighbour>/alone`, the same victim undisturbed, which is made without being asked for.

use std::time::Duration;

use super::matrix::product;
use super::read::{self, Table};
use super::{Case, CaseKind, RuntimeKind};

/// The keys, for `isobench list`: name, values or range, default.
pub(super) const KEYS: &[super::Key] = &[
    ("runtime", "builtin", "\"builtin\"", "the runtime of both containers"),
    ("neighbour", "cpu, memory, block, network", "required", "what the noisy container does"),
    (
        "limit",
        "none, shares, quota, cpuset, memory, throttle, weight",
        "\"none\" and \"quota\"",
        "what holds the neighbour back: 64 shares; 10 % of a CPU; the other CPU; 48 MiB; beside a block neighbour also \
         8 MiB/s of writes; a BFQ weight of 10 to the victim's 1000",
    ),
    ("duration", "\"50ms\" to \"1m\"", "\"500ms\"", "how long the victim is measured"),
];

named! {
    /// What the noisy container does.
    Neighbour {
        /// Computes with four threads on the victim's CPU.
        Cpu = "cpu",
        /// Writes through 128 MiB of memory again and again, on the other CPU.
        Memory = "memory",
        /// Writes 64 KiB blocks to the victim's disk, eight at a time, from the other CPU.
        Block = "block",
        /// Sends in bulk over the bridge that the victim is on.
        Network = "network",
    }
}

named! {
    /// What holds the neighbour back.
    NeighbourLimit {
        /// There is no neighbour: the baseline.
        Alone = "alone",
        /// Nothing.
        None = "none",
        /// 64 CPU shares beside the victim's 1024.
        Shares = "shares",
        /// 10 % of one CPU.
        Quota = "quota",
        /// Another CPU than the victim's.
        Cpuset = "cpuset",
        /// 48 MiB of memory.
        Memory = "memory",
        /// 8 MiB of writes a second; of a block neighbour only.
        Throttle = "throttle",
        /// A BFQ weight of 10 beside the victim's 1000; of a block neighbour only.
        Weight = "weight",
    }
}

/// A case of the `interference` experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterferenceCase {
    /// The runtime of both containers.
    pub runtime: RuntimeKind,
    /// What the noisy container does.
    pub neighbour: Neighbour,
    /// What holds it back.
    pub limit: NeighbourLimit,
    /// How long the victim is measured.
    pub duration: Duration,
}

impl InterferenceCase {
    /// Roughly how long one block takes.
    pub(super) fn estimate(&self) -> Duration {
        self.duration + Duration::from_millis(250)
    }
}

/// What a case measures.
pub(super) fn metrics(case: &InterferenceCase) -> &'static [&'static str] {
    match case.neighbour {
        Neighbour::Memory if case.limit == NeighbourLimit::Memory => &["victim_rate", "neighbour_killed"],
        Neighbour::Cpu | Neighbour::Memory => &["victim_rate"],
        Neighbour::Block => &["victim_rate", "victim_latency"],
        Neighbour::Network => &["victim_rate", "victim_rtt"],
    }
}

/// Reads one `[[experiment]]` of this kind and expands it to its cases.
pub(super) fn expand(mut table: Table<'_, '_>) -> Vec<Case> {
    let second = Duration::from_secs(1);
    let runtimes = table.list("runtime", &[RuntimeKind::Builtin], read::grouped_runtime);
    let neighbours = table.required_list("neighbour", Neighbour::ALL, read::name("neighbour", Neighbour::ALL));
    let usual = [NeighbourLimit::None, NeighbourLimit::Quota];
    let limits = table.list("limit", &usual, read::name("limit", NeighbourLimit::ALL));
    if neighbours.iter().any(|(neighbour, _)| *neighbour != Neighbour::Block) {
        let on_a_disk = |limit: NeighbourLimit| matches!(limit, NeighbourLimit::Throttle | NeighbourLimit::Weight);
        let found = limits.iter().find(|(limit, _)| on_a_disk(**limit)).map(|(limit, span)| (*limit, span.clone()));
        if let Some((limit, span)) = found {
            let message = format!("`limit`: {limit} is a limit on a disk, and a neighbour here uses none");
            table.problem(span, message, "put neighbour = \"block\" into an [[experiment]] of its own");
        }
    }
    let duration = table.one("duration", read::duration(second / 20, second * 60));
    let duration = duration.map_or(second / 2, |found| found.value);
    let mut cases = Vec::new();
    let mut listed: Vec<NeighbourLimit> = vec![NeighbourLimit::Alone];
    listed.extend(limits.iter().map(|(limit, _)| *limit).filter(|limit| *limit != NeighbourLimit::Alone));
    for [r, n, l] in product([runtimes.len(), neighbours.len(), listed.len()]) {
        let case =
            InterferenceCase { runtime: *runtimes.at(r), neighbour: *neighbours.at(n), limit: listed[l], duration };
        let id = |limit| format!("interference/{}/{}/{limit}", case.runtime, case.neighbour);
        let baseline = (case.limit != NeighbourLimit::Alone).then(|| id(NeighbourLimit::Alone));
        cases.push(Case { id: id(case.limit), baseline, kind: CaseKind::Interference(case) });
    }
    table.finish();
    cases
}

/// The dimensions of a case beside runtime and network, as text.
pub(super) fn parameters(case: &InterferenceCase) -> Vec<(&'static str, String)> {
    vec![
        ("neighbour", case.neighbour.to_string()),
        ("limit", case.limit.to_string()),
        ("duration", super::matrix::plain(case.duration)),
    ]
}
