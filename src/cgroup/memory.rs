//! The memory controller: limits of memory and swap, protection; usage, peak, failures, OOM kills.
//!
//! v1 limits memory and the sum of memory and swap; v2 limits memory and swap, so its swap limit is the difference.
//! v1's soft limit becomes v2's `memory.high`, which is enforced by throttling and not only when the host is short.

use std::io;
use std::path::Path;
use std::time::Duration;

use cgroups_rs::MaxValue;
use cgroups_rs::memory::{MemController, SetMemory};

use super::limits::{Applied, Limits};
use super::setting::Setting;
use super::{CgroupError, Controller, Hierarchy, Place, keyed, read, read_keyed, read_number};
use crate::units::Limit;

/// The file of the memory limit on v1.
pub const LIMIT: &str = "memory.limit_in_bytes";
/// The file of the limit of memory and swap together on v1.
pub const MEMSW_LIMIT: &str = "memory.memsw.limit_in_bytes";
/// The file of the soft limit on v1.
pub const SOFT_LIMIT: &str = "memory.soft_limit_in_bytes";
/// The file of the memory limit on v2.
pub const MAX: &str = "memory.max";
/// The file of the swap limit on v2.
pub const SWAP_MAX: &str = "memory.swap.max";
/// The file of the throttling limit on v2.
pub const HIGH: &str = "memory.high";
/// The file of the protection that gives way when nothing else can be reclaimed, on v2.
pub const LOW: &str = "memory.low";
/// The file of the protection that holds always, on v2.
pub const MIN: &str = "memory.min";
/// The file that says whether the OOM killer takes the whole group, on v2.
pub const OOM_GROUP: &str = "memory.oom.group";

const EVENTS: &str = "memory.events";
const OOM_CONTROL: &str = "memory.oom_control";

/// Memory charged to a group. What this kernel does not count is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Charged now, in bytes, page cache and kernel memory included.
    pub current: u64,
    /// The most that was charged at any time, in bytes; on v2 since Linux 5.19.
    pub peak: Option<u64>,
    /// The most that was charged of memory and swap together, in bytes: at any time on v1; on v2, since Linux 6.5, the
    /// sum of both peaks, which need not have come together.
    pub peak_with_swap: Option<u64>,
    /// How often the limit was hit.
    pub failures: u64,
    /// How many processes the OOM killer ended.
    pub oom_kills: u64,
    /// How often the group was out of memory, whether or not somebody was killed for it; v2 only.
    pub ooms: Option<u64>,
    /// How often `memory.high` throttled the group; v2 only.
    pub throttled: Option<u64>,
    /// Swap charged now, in bytes; v2 only.
    pub swap: Option<u64>,
}

/// Writes the memory limits.
///
/// # Errors
/// v1: EBUSY when the group uses more than the limit and nothing can be reclaimed. v2 ends processes instead until
/// the limit holds, and counts them as OOM kills. A limit that this version has not.
pub(super) fn apply(place: &Place, limits: &Limits, applied: &mut Vec<Applied>) -> Result<(), CgroupError> {
    match place.hierarchy {
        Hierarchy::V1 => v1_apply(&place.path, limits, applied),
        Hierarchy::V2 => v2_apply(&place.path, limits, applied),
    }
}

/// Brings what is charged down to what is in use: reclaims what can be reclaimed (page cache first) and takes back
/// the pages that are charged but not used.
///
/// The kernel charges in batches of 64 pages and keeps the rest for later, a stock on each CPU, so that what it says
/// is up to a batch a CPU too high; and it says nothing of that. The members of the group should be asleep.
///
/// # Errors
/// When a file cannot be written.
pub fn settle(place: &Place) -> Result<(), CgroupError> {
    // Each round ages what was in use lately, so that a later one can reclaim it.
    const ROUNDS: u32 = 8;
    let mut last = u64::MAX;
    let mut same = 0;
    for _ in 0..ROUNDS {
        reclaim(place)?;
        let now = steady_usage(place)?;
        same = if now == last { same + 1 } else { 0 };
        last = now;
        if same == 2 {
            break;
        }
    }
    Ok(())
}

/// One round of [`settle`].
fn reclaim(place: &Place) -> Result<(), CgroupError> {
    const FORCE_EMPTY: &str = "memory.force_empty";
    match place.hierarchy {
        Hierarchy::V1 => match super::write(&place.path, FORCE_EMPTY, "0") {
            // It could not empty the group, since there are processes in it; that was not the point.
            Err(CgroupError::File { source, .. }) if source.raw_os_error() == Some(libc::EBUSY) => Ok(()),
            outcome => outcome,
        },
        Hierarchy::V2 => {
            // Lowering `memory.high` is what takes the stocks back on v2. While it is low, a member that asks for
            // memory is held up; it goes on when the old value is back.
            let before = read(&place.path, HIGH)?;
            let lowered = super::write(&place.path, HIGH, "0");
            super::write(&place.path, HIGH, &before)?;
            lowered
        }
    }
}

/// The usage once it no longer moves: the stocks of other CPUs come back by work queued there.
fn steady_usage(place: &Place) -> Result<u64, CgroupError> {
    const TRIES: u32 = 30;
    let mut last = usage(place)?.current;
    let mut same = 0;
    for _ in 0..TRIES {
        std::thread::sleep(Duration::from_millis(1));
        let now = usage(place)?.current;
        same = if now == last { same + 1 } else { 0 };
        last = now;
        if same == 5 {
            break;
        }
    }
    Ok(last)
}

/// Reads what is charged.
///
/// # Errors
/// When a file cannot be read or understood.
pub fn usage(place: &Place) -> Result<Usage, CgroupError> {
    match place.hierarchy {
        Hierarchy::V1 => v1_usage(&place.path),
        Hierarchy::V2 => v2_usage(&place.path),
    }
}

fn setting<'a>(path: &'a Path, file: &'static str) -> Setting<'a> {
    Setting { controller: Controller::Memory, file, path }
}

/// The kernel keeps limits in whole pages, rounded down.
fn whole_pages(bytes: u64) -> u64 {
    let page = procfs::page_size();
    bytes / page * page
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn v1_number(limit: Limit) -> i64 {
    match limit {
        Limit::Max => -1,
        Limit::Value(bytes) => signed(bytes),
    }
}

/// v1 shows "no limit" as the largest number of whole pages.
fn v1_keeps(limit: Limit, kept: &str) -> bool {
    kept.parse()
        == Ok(whole_pages(match limit {
            Limit::Value(bytes) => bytes,
            Limit::Max => i64::MAX as u64,
        }))
}

/// In the order that keeps `memory.limit ≤ memory.memsw.limit` true on the way.
fn v1_apply(path: &Path, limits: &Limits, applied: &mut Vec<Applied>) -> Result<(), CgroupError> {
    let v2_only = [
        (MIN, limits.memory_min.is_some()),
        (LOW, limits.memory_low.is_some()),
        (OOM_GROUP, limits.memory_oom_group.is_some()),
    ];
    if let Some((setting, _)) = v2_only.into_iter().find(|(_, asked)| *asked) {
        return Err(CgroupError::NeedsV2 { controller: Controller::Memory, setting });
    }
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
    for (file, limit, set) in steps {
        let Some(limit) = limit else { continue };
        let outcome = set(v1_number(limit));
        applied.push(setting(path, file).after(limit.to_string(), outcome, |kept| v1_keeps(limit, kept))?);
    }
    if limits.memory_oom_wait {
        let keeps = |kept: &str| keyed(kept, "oom_kill_disable") == Some(1);
        applied.push(setting(path, OOM_CONTROL).write("oom_kill_disable 1", "1", keeps)?);
    }
    Ok(())
}

fn v1_usage(path: &Path) -> Result<Usage, CgroupError> {
    let oom = read(path, OOM_CONTROL)?;
    Ok(Usage {
        current: read_number(path, "memory.usage_in_bytes")?,
        peak: Some(read_number(path, "memory.max_usage_in_bytes")?),
        peak_with_swap: number_if_present(path, "memory.memsw.max_usage_in_bytes")?,
        failures: read_number(path, "memory.failcnt")?,
        oom_kills: read_keyed(path, OOM_CONTROL, &oom, "oom_kill")?,
        ..Usage::default()
    })
}

/// What is charged without the page cache that no one has used lately, in bytes: what a limit would be felt at, and what
/// docker shows.
///
/// # Errors
/// When a file cannot be read or understood.
pub fn working_set(place: &Place) -> Result<u64, CgroupError> {
    let (file, key) = match place.hierarchy {
        Hierarchy::V1 => ("memory.usage_in_bytes", "total_inactive_file"),
        Hierarchy::V2 => ("memory.current", "inactive_file"),
    };
    let charged = read_number(&place.path, file)?;
    let stat = read(&place.path, "memory.stat")?;
    Ok(charged.saturating_sub(read_keyed(&place.path, "memory.stat", &stat, key)?))
}

fn v2_keeps(limit: Limit, kept: &str) -> bool {
    match limit {
        Limit::Max => kept == "max",
        Limit::Value(bytes) => kept.parse() == Ok(whole_pages(bytes)),
    }
}

/// What is left for swap when memory may take `memory` of `both`.
fn swap_part(both: Limit, memory: Limit) -> Result<Limit, CgroupError> {
    let wrong = |expected| CgroupError::Value { setting: "memory_and_swap", value: both.to_string(), expected };
    match (both, memory) {
        (Limit::Max, _) => Ok(Limit::Max),
        (Limit::Value(_), Limit::Max) => Err(wrong("cgroup v2 limits swap alone, so memory needs a limit too")),
        (Limit::Value(both), Limit::Value(memory)) => match both.checked_sub(memory) {
            Some(swap) => Ok(Limit::Value(swap)),
            None => Err(wrong("memory and swap together cannot be less than memory")),
        },
    }
}

fn v2_apply(path: &Path, limits: &Limits, applied: &mut Vec<Applied>) -> Result<(), CgroupError> {
    if limits.memory_oom_wait {
        let expected = "cgroup v2 always ends a process when memory runs out";
        return Err(CgroupError::Value { setting: "memory_oom_wait", value: "true".to_owned(), expected });
    }
    let controller = MemController::new(path.to_owned(), true);
    let swap = match limits.memory_and_swap {
        None => None,
        Some(both) => Some(swap_part(both, v2_limit(path, limits.memory)?)?),
    };
    let value = |limit| match limit {
        Limit::Max => MaxValue::Max,
        Limit::Value(bytes) => MaxValue::Value(signed(bytes)),
    };
    let mut set = |file, limit: Option<Limit>, set: fn(MaxValue) -> SetMemory| -> Result<(), CgroupError> {
        let Some(limit) = limit else { return Ok(()) };
        let outcome = controller.set_mem(set(value(limit)));
        applied.push(setting(path, file).after(limit.to_string(), outcome, |kept| v2_keeps(limit, kept))?);
        Ok(())
    };
    // Protection first: what is protected is not reclaimed by the limits that follow.
    set(MIN, limits.memory_min.map(Limit::Value), |min| SetMemory { min: Some(min), ..SetMemory::default() })?;
    set(LOW, limits.memory_low.map(Limit::Value), |low| SetMemory { low: Some(low), ..SetMemory::default() })?;
    // Not by cgroups-rs's `set_soft_limit`, which writes `memory.low`, the opposite of a limit.
    set(HIGH, limits.memory_soft, |high| SetMemory { high: Some(high), ..SetMemory::default() })?;
    set(MAX, limits.memory, |max| SetMemory { max: Some(max), ..SetMemory::default() })?;
    if let Some(swap) = swap {
        let number = if let Limit::Value(bytes) = swap { signed(bytes) } else { -1 };
        let outcome = controller.set_memswap_limit(number);
        applied.push(setting(path, SWAP_MAX).after(swap.to_string(), outcome, |kept| v2_keeps(swap, kept))?);
    }
    if let Some(whole) = limits.memory_oom_group {
        let value = if whole { "1" } else { "0" };
        applied.push(setting(path, OOM_GROUP).write(value, value, |kept| kept == value)?);
    }
    Ok(())
}

/// The memory limit that counts for the swap limit: the new one, or the one in force.
fn v2_limit(path: &Path, new: Option<Limit>) -> Result<Limit, CgroupError> {
    if let Some(limit) = new {
        return Ok(limit);
    }
    let text = read(path, MAX)?;
    match text.parse() {
        Ok(bytes) => Ok(Limit::Value(bytes)),
        Err(_) if text == "max" => Ok(Limit::Max),
        Err(_) => Err(CgroupError::Content { path: path.join(MAX), content: text }),
    }
}

fn v2_usage(path: &Path) -> Result<Usage, CgroupError> {
    let events = read(path, EVENTS)?;
    let count = |key| read_keyed(path, EVENTS, &events, key);
    let peak = number_if_present(path, "memory.peak")?;
    Ok(Usage {
        current: read_number(path, "memory.current")?,
        peak,
        peak_with_swap: peak.zip(number_if_present(path, "memory.swap.peak")?).map(|(memory, swap)| memory + swap),
        failures: count("max")?,
        oom_kills: count("oom_kill")?,
        ooms: keyed(&events, "oom"),
        throttled: keyed(&events, "high"),
        swap: number_if_present(path, "memory.swap.current")?,
    })
}

/// A number that not every kernel has a file for.
fn number_if_present(path: &Path, file: &str) -> Result<Option<u64>, CgroupError> {
    match read_number(path, file) {
        Ok(number) => Ok(Some(number)),
        Err(CgroupError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_kept_in_whole_pages() {
        let page = procfs::page_size();
        for keeps in [v1_keeps, v2_keeps] {
            assert!(keeps(Limit::Value(page * 3 + 17), &(page * 3).to_string()));
            assert!(!keeps(Limit::Value(page * 3), &(page * 2).to_string()));
        }
        assert!(v1_keeps(Limit::Max, "9223372036854771712") || page != 4096);
        assert!(!v1_keeps(Limit::Value(1), "max"));
        assert!(v2_keeps(Limit::Max, "max") && !v2_keeps(Limit::Value(1), "max"));
    }

    #[test]
    fn swap_is_what_memory_leaves() {
        let mib = |count: u64| Limit::Value(count << 20);
        assert_eq!(swap_part(mib(96), mib(64)).unwrap(), mib(32));
        assert_eq!(swap_part(mib(64), mib(64)).unwrap(), Limit::Value(0));
        assert_eq!(swap_part(Limit::Max, mib(64)).unwrap(), Limit::Max);
        let told = |both, memory| swap_part(both, memory).unwrap_err().to_string();
        assert_eq!(
            told(mib(1), mib(2)),
            "memory_and_swap cannot be 1048576: memory and swap together cannot be less than memory"
        );
        assert!(told(mib(1), Limit::Max).ends_with("so memory needs a limit too"));
    }
}
