//! What a container may use, over all controllers; checked, written, read back and compared.

use std::time::Duration;

use super::{CgroupError, Controller, Group, View, blkio, cpu, cpuset, devices, memory, pids, pressure};
use crate::units::Limit;

/// Limits of one container, in v1's terms where v1 and v2 differ. Absent means: as the parent group has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory, in bytes.
    pub memory: Option<Limit>,
    /// Memory and swap together, in bytes.
    pub memory_and_swap: Option<Limit>,
    /// Memory to which the group is pushed back, in bytes: on v1 when the host is short, on v2 always (`memory.high`).
    pub memory_soft: Option<Limit>,
    /// Memory that is never reclaimed, in bytes; v2 only.
    pub memory_min: Option<u64>,
    /// Memory that is reclaimed last, in bytes; v2 only.
    pub memory_low: Option<u64>,
    /// Whether the OOM killer ends all processes of the group together; v2 only.
    pub memory_oom_group: Option<bool>,
    /// Whether processes that want more memory wait instead of one being ended; v1 only.
    pub memory_oom_wait: bool,
    /// The relative weight of CPU time among siblings, 2 to 262144; 1024 is usual. [`cpu::weight`] of it on v2.
    pub cpu_shares: Option<u64>,
    /// CPU time a period.
    pub cpu_quota: Option<cpu::Quota>,
    /// CPUs that may be used, as in `0-2,5`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes that may be used, as in `0`.
    pub cpuset_mems: Option<String>,
    /// Throttles of block devices.
    pub blkio_throttles: Vec<blkio::Throttle>,
    /// The relative weight of block I/O among siblings under BFQ, 1 to 1000; 100 is usual.
    pub blkio_weight: Option<u64>,
    /// The number of tasks.
    pub pids: Option<Limit>,
    /// Device rules, in order, on top of the default ones.
    pub devices: Vec<devices::Rule>,
}

/// One setting as it was written and as the kernel keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The controller.
    pub controller: Controller,
    /// The setting's file.
    pub setting: &'static str,
    /// What was asked for, in the file's own terms.
    pub requested: String,
    /// What is read back; the kernel rounds some values (memory to pages).
    pub kept: String,
}

impl Limits {
    /// Whether a process under them can run out of memory.
    #[must_use]
    pub fn bound_memory(&self) -> bool {
        self.memory.is_some() || self.memory_and_swap.is_some()
    }

    /// Finds values that the kernel would refuse, or take and change, on v1 or on v2. Nothing has been written then.
    ///
    /// # Errors
    /// The first such value, with what would be right.
    pub fn check(&self) -> Result<(), CgroupError> {
        let wrong = |setting, value: String, expected| Err(CgroupError::Value { setting, value, expected });
        if let Some(shares) = self.cpu_shares.filter(|shares| !(2..=262_144).contains(shares)) {
            return wrong("cpu_shares", shares.to_string(), "shares go from 2 to 262144");
        }
        if let Some(cpu::Quota { quota, period }) = self.cpu_quota {
            if !(Duration::from_millis(1)..=Duration::from_secs(1)).contains(&period) {
                return wrong("cpu_quota", format!("{quota:?} in {period:?}"), "the period goes from 1ms to 1s");
            }
            if quota < Duration::from_millis(1) {
                return wrong("cpu_quota", format!("{quota:?} in {period:?}"), "the quota is at least 1ms");
            }
        }
        if let Some(weight) = self.blkio_weight.filter(|weight| !(1..=1000).contains(weight)) {
            return wrong("blkio_weight", weight.to_string(), "weights go from 1 to 1000");
        }
        if let (Some(memory), Some(both)) = (self.memory, self.memory_and_swap)
            && both < memory
        {
            return wrong("memory_and_swap", both.to_string(), "memory and swap together cannot be less than memory");
        }
        for (setting, list) in [("cpuset_cpus", &self.cpuset_cpus), ("cpuset_mems", &self.cpuset_mems)] {
            // An empty list is no list: v2 takes it as "as the parent", v1 refuses it.
            if let Some(list) = list
                && cpuset::members(list).is_none_or(|members| members.is_empty())
            {
                return wrong(setting, format!("`{list}`"), "write numbers and ranges, as in 0-2,5");
            }
        }
        Ok(())
    }

    fn asks_memory(&self) -> bool {
        self.memory.or(self.memory_and_swap).or(self.memory_soft).is_some()
            || self.memory_min.or(self.memory_low).is_some()
            || self.memory_oom_group.is_some()
            || self.memory_oom_wait
    }
}

impl Group {
    /// Checks every limit, then writes each, reads it back and compares. Calling it again changes a running group.
    ///
    /// # Errors
    /// When a controller is missing, the kernel refuses a value, or keeps another one.
    pub fn apply(&self, limits: &Limits) -> Result<Vec<Applied>, CgroupError> {
        let applied = self.view().apply(limits)?;
        if !limits.devices.is_empty() {
            self.change_devices(&limits.devices)?;
        }
        Ok(applied)
    }

    /// As [`View::usage`].
    ///
    /// # Errors
    /// When a file cannot be read or understood.
    pub fn usage(&self) -> Result<Usage, CgroupError> {
        self.view().usage()
    }
}

impl View {
    /// Checks every limit but the device rules, then writes each, reads it back and compares. Device rules are left
    /// alone: on v2 only the group's owner has the program that stands for them.
    ///
    /// # Errors
    /// When a controller is missing, the kernel refuses a value, or keeps another one.
    pub fn apply(&self, limits: &Limits) -> Result<Vec<Applied>, CgroupError> {
        limits.check()?;
        let mut applied = Vec::new();
        if limits.asks_memory() {
            memory::apply(self.required(Controller::Memory, "memory")?, limits, &mut applied)?;
        }
        if let Some(shares) = limits.cpu_shares {
            applied.push(cpu::apply_shares(self.required(Controller::Cpu, "cpu_shares")?, shares)?);
        }
        if let Some(quota) = limits.cpu_quota {
            applied.extend(cpu::apply_quota(self.required(Controller::Cpu, "cpu_quota")?, quota)?);
        }
        if let Some(cpus) = &limits.cpuset_cpus {
            applied.push(cpuset::apply_cpus(self.required(Controller::Cpuset, "cpuset_cpus")?, cpus)?);
        }
        if let Some(mems) = &limits.cpuset_mems {
            applied.push(cpuset::apply_mems(self.required(Controller::Cpuset, "cpuset_mems")?, mems)?);
        }
        if !limits.blkio_throttles.is_empty() {
            let place = self.required(Controller::Blkio, "blkio_throttles")?;
            blkio::apply_throttles(place, &limits.blkio_throttles, &mut applied)?;
        }
        if let Some(weight) = limits.blkio_weight {
            applied.push(blkio::apply_weight(self.required(Controller::Blkio, "blkio_weight")?, weight)?);
        }
        if let Some(limit) = limits.pids {
            applied.push(pids::apply(self.required(Controller::Pids, "pids")?, limit)?);
        }
        Ok(applied)
    }

    /// What the kernel has charged to the group so far; a controller that is not mounted leaves its fields absent.
    ///
    /// # Errors
    /// When a file cannot be read or understood.
    pub fn usage(&self) -> Result<Usage, CgroupError> {
        let mut usage = Usage::default();
        if let Some(place) = self.place(Controller::Memory) {
            usage.memory = Some(memory::usage(place)?);
        }
        if let Some(place) = self.place(Controller::Cpuacct) {
            usage.cpu_ns = Some(cpu::usage_ns(place)?);
        }
        if let Some(place) = self.place(Controller::Cpu) {
            usage.throttling = Some(cpu::throttling(place)?);
        }
        if let Some(place) = self.place(Controller::Blkio) {
            usage.blkio = Some(blkio::usage(place)?);
        }
        if let Some(place) = self.place(Controller::Pids) {
            usage.pids = Some(pids::current(place)?);
        }
        if let Some(path) = self.unified() {
            usage.pressure = Some(pressure::read(path)?);
        }
        Ok(usage)
    }
}

/// What a group has used.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// Memory.
    pub memory: Option<memory::Usage>,
    /// CPU time of all members, past and present, in ns.
    pub cpu_ns: Option<u64>,
    /// What the CPU quota held back.
    pub throttling: Option<cpu::Throttling>,
    /// Block I/O.
    pub blkio: Option<blkio::Usage>,
    /// Tasks now.
    pub pids: Option<u64>,
    /// How long tasks stood still for want of something; v2 only.
    pub pressure: Option<pressure::Pressures>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_values_are_told_before_anything_is_written() {
        let told = |limits: Limits| limits.check().unwrap_err().to_string();
        let ms = Duration::from_millis;
        let quota = |quota, period| Limits { cpu_quota: Some(cpu::Quota { quota, period }), ..Limits::default() };
        assert_eq!(
            told(Limits { cpu_shares: Some(1), ..Limits::default() }),
            "cpu_shares cannot be 1: shares go from 2 to 262144"
        );
        assert_eq!(told(quota(ms(0), ms(100))), "cpu_quota cannot be 0ns in 100ms: the quota is at least 1ms");
        assert_eq!(told(quota(ms(5), ms(2000))), "cpu_quota cannot be 5ms in 2s: the period goes from 1ms to 1s");
        assert_eq!(
            told(Limits { cpuset_cpus: Some("0-x".to_owned()), ..Limits::default() }),
            "cpuset_cpus cannot be `0-x`: write numbers and ranges, as in 0-2,5"
        );
        assert!(Limits { cpuset_mems: Some(String::new()), ..Limits::default() }.check().is_err());
        assert!(Limits { blkio_weight: Some(1001), ..Limits::default() }.check().is_err());
        let memory = Some(Limit::Value(2));
        assert!(Limits { memory, memory_and_swap: Some(Limit::Value(1)), ..Limits::default() }.check().is_err());
        assert!(Limits { memory, memory_and_swap: Some(Limit::Max), ..Limits::default() }.check().is_ok());
        assert!(quota(ms(1), ms(1000)).check().is_ok());
    }
}
