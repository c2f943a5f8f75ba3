//! The cpuset controller of cgroup v1: CPUs and memory nodes.

use std::path::Path;

use cgroups_rs::cpuset::CpuSetController;

use super::limits::{Applied, compare};
use super::{CgroupError, Controller, read, write};

/// The file of the CPUs.
pub const CPUS: &str = "cpuset.cpus";
/// The file of the memory nodes.
pub const MEMS: &str = "cpuset.mems";

/// Gives a new group its parent's CPUs and nodes, and lets its children start with them too: a v1 cpuset begins
/// empty, and an empty one takes no process.
pub(super) fn inherit(group: &Path) -> Result<(), CgroupError> {
    let parent = group.parent().unwrap_or(group);
    for file in [CPUS, MEMS] {
        if read(group, file)?.is_empty() {
            write(group, file, &read(parent, file)?)?;
        }
    }
    write(group, "cgroup.clone_children", "1")
}

/// Writes the CPUs.
///
/// # Errors
/// EINVAL for a malformed list, EACCES for a CPU that the parent has not.
pub(super) fn apply_cpus(path: &Path, cpus: &str) -> Result<Applied, CgroupError> {
    let set = CpuSetController::new(path.to_owned(), false).set_cpus(cpus);
    finish(path, CPUS, cpus, set)
}

/// Writes the memory nodes.
///
/// # Errors
/// As for the CPUs.
pub(super) fn apply_mems(path: &Path, mems: &str) -> Result<Applied, CgroupError> {
    let set = CpuSetController::new(path.to_owned(), false).set_mems(mems);
    finish(path, MEMS, mems, set)
}

fn finish(
    path: &Path,
    setting: &'static str,
    value: &str,
    set: cgroups_rs::error::Result<()>,
) -> Result<Applied, CgroupError> {
    set.map_err(|source| CgroupError::Write {
        controller: Controller::Cpuset,
        setting,
        value: value.to_owned(),
        path: path.to_owned(),
        source,
    })?;
    let row =
        Applied { controller: Controller::Cpuset, setting, requested: value.to_owned(), kept: read(path, setting)? };
    // The kernel merges ranges: `0,1` is kept as `0-1`.
    compare(path, row, |row| members(&row.kept) == members(&row.requested))
}

/// The numbers of a list such as `0-2,5`, sorted; `None` for what is not a list.
#[must_use]
pub fn members(list: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('-') {
            Some((low, high)) => numbers.extend(low.parse::<u32>().ok()?..=high.parse().ok()?),
            None => numbers.push(part.parse().ok()?),
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_compared_by_their_members() {
        assert_eq!(members("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(members("1,0"), members("0-1"));
        assert_eq!(members(""), Some(vec![]));
        assert_eq!(members("a"), None);
    }
}
