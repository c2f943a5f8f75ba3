//! The cpu controller of cgroup v1 (shares, quota) and the CPU time that cpuacct counts.

use std::path::Path;
use std::time::Duration;

use cgroups_rs::cpu::CpuController;

use super::limits::{Applied, compare};
use super::{CgroupError, Controller, read, read_number};

/// The file of the relative weight.
pub const SHARES: &str = "cpu.shares";
/// The file of the quota.
pub const QUOTA: &str = "cpu.cfs_quota_us";
/// The file of the period that the quota counts for.
pub const PERIOD: &str = "cpu.cfs_period_us";

/// CPU time that a group may use in each period, summed over all CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The CPU time; whole microseconds, at least 1 ms.
    pub quota: Duration,
    /// The period; 1 ms to 1 s.
    pub period: Duration,
}

fn write_error(setting: &'static str, value: u64, path: &Path) -> impl FnOnce(cgroups_rs::error::Error) -> CgroupError {
    let path = path.to_owned();
    move |source| CgroupError::Write { controller: Controller::Cpu, setting, value: value.to_string(), path, source }
}

fn read_back(path: &Path, setting: &'static str, requested: u64) -> Result<Applied, CgroupError> {
    let kept = read(path, setting)?;
    let row = Applied { controller: Controller::Cpu, setting, requested: requested.to_string(), kept };
    compare(path, row, |row| row.kept == row.requested)
}

/// Writes the weight.
///
/// # Errors
/// When the kernel clamps the value (it keeps 2 to 262144).
pub(super) fn apply_shares(path: &Path, shares: u64) -> Result<Applied, CgroupError> {
    CpuController::new(path.to_owned(), false).set_shares(shares).map_err(write_error(SHARES, shares, path))?;
    read_back(path, SHARES, shares)
}

/// Writes quota and period.
///
/// # Errors
/// EINVAL when a value is out of the kernel's range or beyond the parent's.
pub(super) fn apply_quota(path: &Path, quota: Quota) -> Result<[Applied; 2], CgroupError> {
    let controller = CpuController::new(path.to_owned(), false);
    let (quota_us, period_us) = (quota.quota.as_micros() as u64, quota.period.as_micros() as u64);
    controller.set_cfs_period(period_us).map_err(write_error(PERIOD, period_us, path))?;
    controller.set_cfs_quota(quota_us as i64).map_err(write_error(QUOTA, quota_us, path))?;
    Ok([read_back(path, PERIOD, period_us)?, read_back(path, QUOTA, quota_us)?])
}

/// CPU time charged so far, in ns; `path` is the group in the cpuacct hierarchy.
///
/// # Errors
/// When the file cannot be read.
pub fn usage_ns(path: &Path) -> Result<u64, CgroupError> {
    read_number(path, "cpuacct.usage")
}
