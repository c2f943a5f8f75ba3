//! The memory controller of cgroup v1: limit, swap, soft limit; usage, peak, failures, OOM kills.

use std::path::Path;

use cgroups_rs::memory::MemController;

use super::limits::{Applied, Limits, compare};
use super::{CgroupError, Controller, read, read_number};
use crate::units::Limit;

/// The file of the memory limit.
pub const LIMIT: &str = "memory.limit_in_bytes";
/// The file of the limit of memory and swap together.
pub const MEMSW_LIMIT: &str = "memory.memsw.limit_in_bytes";
/// The file of the soft limit.
pub const SOFT_LIMIT: &str = "memory.soft_limit_in_bytes";

/// Memory charged to a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Charged now, in bytes, page cache and kernel memory included.
    pub current: u64,
    /// The most that was charged at any time, in bytes.
    pub peak: u64,
    /// How often the limit was hit.
    pub failures: u64,
    /// How many processes the OOM killer ended.
    pub oom_kills: u64,
}

fn number(limit: Limit) -> i64 {
    match limit {
        Limit::Max => -1,
        Limit::Value(bytes) => i64::try_from(bytes).unwrap_or(i64::MAX),
    }
}

/// The kernel keeps limits in whole pages, rounded down, and shows "no limit" as the largest such number.
fn keeps(limit: Limit, kept: &str) -> bool {
    let page = procfs::page_size();
    let Ok(kept) = kept.parse::<u64>() else { return false };
    match limit {
        Limit::Value(bytes) => kept == bytes / page * page,
        Limit::Max => kept == i64::MAX as u64 / page * page,
    }
}

/// Writes the memory limits in the order that keeps `memory.limit ≤ memory.memsw.limit` true on the way.
///
/// # Errors
/// EBUSY when the group uses more than the limit and nothing can be reclaimed, EINVAL when memory and swap together
/// would be less than memory.
pub(super) fn apply(path: &Path, limits: &Limits, applied: &mut Vec<Applied>) -> Result<(), CgroupError> {
    let controller = MemController::new(path.to_owned(), false);
    let memory = |limit| controller.set_limit(limit);
    let swap = |limit| controller.set_memswap_limit(limit);
    let soft = |limit| controller.set_soft_limit(limit);
    let raises_both = match (limits.memory, limits.memory_and_swap) {
        (Some(new), Some(_)) => {
            let now = read_number(path, LIMIT)?;
            !matches!(new, Limit::Value(bytes) if bytes <= now)
        }
        _ => false,
    };
    type Setter<'a> = &'a dyn Fn(i64) -> cgroups_rs::error::Result<()>;
    let mut steps: Vec<(&'static str, Option<Limit>, Setter<'_>)> =
        vec![(LIMIT, limits.memory, &memory), (MEMSW_LIMIT, limits.memory_and_swap, &swap)];
    if raises_both {
        steps.reverse();
    }
    steps.push((SOFT_LIMIT, limits.memory_soft, &soft));
    for (setting, limit, set) in steps {
        let Some(limit) = limit else { continue };
        set(number(limit)).map_err(|source| CgroupError::Write {
            controller: Controller::Memory,
            setting,
            value: limit.to_string(),
            path: path.to_owned(),
            source,
        })?;
        let kept = read(path, setting)?;
        let row = Applied { controller: Controller::Memory, setting, requested: limit.to_string(), kept };
        applied.push(compare(path, row, |row| keeps(limit, &row.kept))?);
    }
    Ok(())
}

/// Reads what is charged.
///
/// # Errors
/// When a file cannot be read or understood.
pub fn usage(path: &Path) -> Result<Usage, CgroupError> {
    let oom = read(path, "memory.oom_control")?;
    let oom_kills = oom.lines().find_map(|line| line.strip_prefix("oom_kill "));
    Ok(Usage {
        current: read_number(path, "memory.usage_in_bytes")?,
        peak: read_number(path, "memory.max_usage_in_bytes")?,
        failures: read_number(path, "memory.failcnt")?,
        oom_kills: oom_kills
            .and_then(|count| count.parse().ok())
            .ok_or_else(|| CgroupError::Content { path: path.join("memory.oom_control"), content: oom.clone() })?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_kept_in_whole_pages() {
        let page = procfs::page_size();
        assert!(keeps(Limit::Value(page * 3 + 17), &(page * 3).to_string()));
        assert!(!keeps(Limit::Value(page * 3), &(page * 2).to_string()));
        assert!(keeps(Limit::Max, "9223372036854771712") || page != 4096);
        assert!(!keeps(Limit::Value(1), "max"));
    }
}
