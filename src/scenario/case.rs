//! A case: one point of an experiment's matrix, whatever its kind.

use std::time::Duration;

use super::{
    CombinedCase, CpuCase, DevicesCase, FreezerCase, InterferenceCase, LifecycleCase, MemoryCase, NetworkCase,
    NetworkMode, PidsCase, Resource, StartupCase, accounting, blkio, combined, cpu, devices, estimate, freezer,
    interference, lifecycle, memory, network, pids, startup,
};
use crate::record::CaseRecord;

/// One point of an experiment's matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// `startup/builtin/bridge/c1`, `network/builtin/bridge/egress/tcp_stream`, ….
    pub id: String,
    /// The id of the case that ratios are made to; itself a case of the same scenario.
    pub baseline: Option<String>,
    /// What to do.
    pub kind: CaseKind,
}

/// What a case does: one variant an experiment.
#[derive(Debug, Clone, PartialEq)]
pub enum CaseKind {
    /// Start-up latency.
    Startup(StartupCase),
    /// Network throughput and latency.
    Network(NetworkCase),
    /// CPU shares, quota, placement and wake-up latency.
    Cpu(CpuCase),
    /// Limits of memory.
    Memory(MemoryCase),
    /// The limit of tasks.
    Pids(PidsCase),
    /// Stopping and going on.
    Freezer(FreezerCase),
    /// Throttles and weights of block I/O.
    Blkio(blkio::BlkioCase),
    /// What is charged against what was used.
    Accounting(accounting::AccountingCase),
    /// Device permissions.
    Devices(DevicesCase),
    /// Several limits at once.
    Combined(CombinedCase),
    /// A noisy neighbour.
    Interference(InterferenceCase),
    /// Everything that is done to a container.
    Lifecycle(LifecycleCase),
}

impl Case {
    /// The case as it stands in a run's record.
    #[must_use]
    pub fn record(&self) -> CaseRecord {
        // The network is empty where it does not matter.
        let (runtime, network, parameters) = match &self.kind {
            CaseKind::Startup(case) => (case.runtime, Some(case.network), startup::parameters(case)),
            CaseKind::Network(case) => (case.runtime, Some(case.network), network::parameters(case)),
            CaseKind::Cpu(case) => (case.runtime, None, cpu::parameters(case)),
            CaseKind::Memory(case) => (case.runtime, None, memory::parameters(case)),
            CaseKind::Pids(case) => (case.runtime, None, pids::parameters(case)),
            CaseKind::Freezer(case) => (case.runtime, None, freezer::parameters(case)),
            CaseKind::Blkio(case) => (case.runtime, None, blkio::parameters(case)),
            CaseKind::Accounting(case) => {
                let network = match case.amount.resource() {
                    Resource::Network => Some(NetworkMode::Bridge),
                    Resource::Cpu | Resource::Memory | Resource::Block => None,
                };
                (case.runtime, network, accounting::parameters(case))
            }
            CaseKind::Devices(case) => (case.runtime, None, devices::parameters(case)),
            CaseKind::Combined(case) => (case.runtime, None, combined::parameters(case)),
            CaseKind::Interference(case) => (case.runtime, None, interference::parameters(case)),
            CaseKind::Lifecycle(case) => (case.runtime, Some(case.network), lifecycle::parameters(case)),
        };
        CaseRecord {
            id: self.id.clone(),
            experiment: self.kind.experiment().to_owned(),
            runtime: runtime.to_string(),
            network: network.map(|network| network.to_string()).unwrap_or_default(),
            parameters: parameters.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            baseline: self.baseline.clone(),
        }
    }

    /// Roughly how long this case takes in one block.
    #[must_use]
    pub fn estimate(&self) -> Duration {
        estimate::of_case(self)
    }
}

impl CaseKind {
    /// The experiment's kind, as in `startup`.
    #[must_use]
    pub fn experiment(&self) -> &'static str {
        match self {
            CaseKind::Startup(_) => "startup",
            CaseKind::Network(_) => "network",
            CaseKind::Cpu(_) => "cpu",
            CaseKind::Memory(_) => "memory",
            CaseKind::Pids(_) => "pids",
            CaseKind::Freezer(_) => "freezer",
            CaseKind::Blkio(_) => "blkio",
            CaseKind::Accounting(_) => "accounting",
            CaseKind::Devices(_) => "devices",
            CaseKind::Combined(_) => "combined",
            CaseKind::Interference(_) => "interference",
            CaseKind::Lifecycle(_) => "lifecycle",
        }
    }

    /// The names of the metrics that the case yields, each one of [`crate::record::metric::METRICS`].
    #[must_use]
    pub fn metrics(&self) -> Vec<&'static str> {
        let fixed = match self {
            CaseKind::Startup(_) => startup::METRICS,
            CaseKind::Network(case) => network::metrics(case.test),
            CaseKind::Cpu(case) => cpu::metrics(case),
            CaseKind::Memory(case) => memory::metrics(case.setting),
            CaseKind::Pids(_) => pids::METRICS,
            CaseKind::Freezer(_) => freezer::METRICS,
            CaseKind::Blkio(case) => blkio::metrics(case),
            CaseKind::Accounting(_) => accounting::METRICS,
            CaseKind::Devices(_) => devices::METRICS,
            CaseKind::Combined(_) => combined::METRICS,
            CaseKind::Interference(case) => interference::metrics(case),
            CaseKind::Lifecycle(case) => return case.metrics(),
        };
        fixed.to_vec()
    }
}
