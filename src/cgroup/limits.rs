//! What a container may use, over all controllers; written, read back and compared.

use std::path::Path;

use super::{CgroupError, Controller, Group, blkio, cpu, cpuset, devices, memory, pids};
use crate::units::Limit;

/// Limits of one container. Absent means: as the parent group has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory, in bytes.
    pub memory: Option<Limit>,
    /// Memory and swap together, in bytes.
    pub memory_and_swap: Option<Limit>,
    /// Memory to which the group is pushed back under pressure, in bytes.
    pub memory_soft: Option<Limit>,
    /// The relative weight of CPU time among siblings, 2 to 262144; 1024 is usual.
    pub cpu_shares: Option<u64>,
    /// CPU time a period.
    pub cpu_quota: Option<cpu::Quota>,
    /// CPUs that may be used, as in `0-2,5`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes that may be used, as in `0`.
    pub cpuset_mems: Option<String>,
    /// Throttles of block devices.
    pub blkio_throttles: Vec<blkio::Throttle>,
    /// The number of tasks.
    pub pids: Option<Limit>,
    /// Device rules, applied in order on top of what the group has.
    pub devices: Vec<devices::Rule>,
}

/// One setting as it was written and as the kernel keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The controller.
    pub controller: Controller,
    /// The setting's file.
    pub setting: &'static str,
    /// What was asked for.
    pub requested: String,
    /// What is read back; the kernel rounds some values (memory to pages).
    pub kept: String,
}

/// The directory of a controller, or the error that names the setting that cannot be had.
fn directory<'a>(group: &'a Group, controller: Controller, setting: &'static str) -> Result<&'a Path, CgroupError> {
    group.directory(controller).ok_or(CgroupError::NoController { controller, setting })
}

/// Compares what was written with what is kept; `accept` allows for the kernel's own rounding.
pub(super) fn compare(
    path: &Path,
    applied: Applied,
    accept: impl FnOnce(&Applied) -> bool,
) -> Result<Applied, CgroupError> {
    if accept(&applied) {
        return Ok(applied);
    }
    let Applied { controller, setting, requested, kept } = applied;
    Err(CgroupError::ReadBack { controller, setting, requested, kept, path: path.to_owned() })
}

impl Group {
    /// Writes every limit, reads each back and compares.
    ///
    /// # Errors
    /// When a controller is missing, the kernel refuses a value, or keeps another one.
    pub fn apply(&self, limits: &Limits) -> Result<Vec<Applied>, CgroupError> {
        let mut applied = Vec::new();
        let memory_limits = [limits.memory, limits.memory_and_swap, limits.memory_soft];
        if memory_limits.iter().any(Option::is_some) {
            let path = directory(self, Controller::Memory, memory::LIMIT)?;
            memory::apply(path, limits, &mut applied)?;
        }
        if let Some(shares) = limits.cpu_shares {
            applied.push(cpu::apply_shares(directory(self, Controller::Cpu, cpu::SHARES)?, shares)?);
        }
        if let Some(quota) = limits.cpu_quota {
            applied.extend(cpu::apply_quota(directory(self, Controller::Cpu, cpu::QUOTA)?, quota)?);
        }
        if let Some(cpus) = &limits.cpuset_cpus {
            applied.push(cpuset::apply_cpus(directory(self, Controller::Cpuset, cpuset::CPUS)?, cpus)?);
        }
        if let Some(mems) = &limits.cpuset_mems {
            applied.push(cpuset::apply_mems(directory(self, Controller::Cpuset, cpuset::MEMS)?, mems)?);
        }
        for throttle in &limits.blkio_throttles {
            let path = directory(self, Controller::Blkio, throttle.kind.file())?;
            applied.push(blkio::apply_throttle(path, throttle)?);
        }
        if let Some(limit) = limits.pids {
            applied.push(pids::apply(directory(self, Controller::Pids, pids::MAX)?, limit)?);
        }
        if !limits.devices.is_empty() {
            let path = directory(self, Controller::Devices, devices::LIST)?;
            devices::apply(path, &limits.devices)?;
        }
        Ok(applied)
    }

    /// What the kernel has charged to the group so far; a controller that is not mounted leaves its fields absent.
    ///
    /// # Errors
    /// When a file cannot be read or understood.
    pub fn usage(&self) -> Result<Usage, CgroupError> {
        let mut usage = Usage::default();
        if let Some(path) = self.directory(Controller::Memory) {
            usage.memory = Some(memory::usage(path)?);
        }
        if let Some(path) = self.directory(Controller::Cpuacct) {
            usage.cpu_ns = Some(cpu::usage_ns(path)?);
        }
        if let Some(path) = self.directory(Controller::Blkio) {
            usage.blkio = Some(blkio::usage(path)?);
        }
        if let Some(path) = self.directory(Controller::Pids) {
            usage.pids = Some(pids::current(path)?);
        }
        Ok(usage)
    }
}

/// What a group has used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory.
    pub memory: Option<memory::Usage>,
    /// CPU time of all members, past and present, in ns.
    pub cpu_ns: Option<u64>,
    /// Block I/O.
    pub blkio: Option<blkio::Usage>,
    /// Tasks now.
    pub pids: Option<u64>,
}
