//! Which CPUs this process may use. Used by the experiments that put containers on CPUs of their own.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::ExperimentError;

/// The CPUs that this process may use, the highest first: interrupts are mostly at the lowest.
pub(super) fn allowed() -> Result<Vec<u32>, ExperimentError> {
    let allowed =
        sched_getaffinity(Pid::from_raw(0)).map_err(ExperimentError::while_doing("asking which CPUs are allowed"))?;
    let cpus = (0..CpuSet::count()).rev().filter(|&cpu| allowed.is_set(cpu).unwrap_or(false));
    Ok(cpus.map(|cpu| cpu as u32).collect())
}
