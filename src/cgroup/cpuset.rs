//! The cpuset controller: CPUs and memory nodes. The files have the same names on v1 and v2.

use std::path::Path;

use cgroups_rs::cpuset::CpuSetController;

use super::limits::Applied;
use super::setting::Setting;
use super::{CgroupError, Controller, Hierarchy, Place, read, write};

/// The file of the CPUs.
pub const CPUS: &str = "cpuset.cpus";
/// The file of the memory nodes.
pub const MEMS: &str = "cpuset.mems";

/// Gives a new v1 group its parent's CPUs and nodes, and lets its children start with them too: a v1 cpuset begins
/// empty, and an empty one takes no process. An empty one of v2 means "as the parent".
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
/// EINVAL for a malformed list. A CPU that the parent has not: EACCES on v1; v2 takes it, and the effective set,
/// which is what is compared, lacks it.
pub(super) fn apply_cpus(place: &Place, cpus: &str) -> Result<Applied, CgroupError> {
    let set = CpuSetController::new(place.path.clone(), place.hierarchy == Hierarchy::V2).set_cpus(cpus);
    finish(place, CPUS, "cpuset.cpus.effective", cpus, set)
}

/// Writes the memory nodes.
///
/// # Errors
/// As for the CPUs.
pub(super) fn apply_mems(place: &Place, mems: &str) -> Result<Applied, CgroupError> {
    let set = CpuSetController::new(place.path.clone(), place.hierarchy == Hierarchy::V2).set_mems(mems);
    finish(place, MEMS, "cpuset.mems.effective", mems, set)
}

fn finish(
    place: &Place,
    file: &'static str,
    effective: &'static str,
    value: &str,
    set: cgroups_rs::error::Result<()>,
) -> Result<Applied, CgroupError> {
    let setting = Setting { controller: Controller::Cpuset, file, path: &place.path };
    // The kernel merges ranges: `0,1` is kept as `0-1`.
    let row = setting.after(value, set, |kept| members(kept) == members(value))?;
    if place.hierarchy == Hierarchy::V2 {
        let kept = read(&place.path, effective)?;
        if members(&kept) != members(value) {
            let (requested, path) = (value.to_owned(), place.path.clone());
            let controller = Controller::Cpuset;
            return Err(CgroupError::ReadBack { controller, setting: effective, requested, kept, path });
        }
    }
    Ok(row)
}

/// The CPUs that the group's tasks can really run on.
///
/// # Errors
/// When the file cannot be read.
pub fn effective_cpus(place: &Place) -> Result<String, CgroupError> {
    let v1 = place.hierarchy == Hierarchy::V1;
    read(&place.path, if v1 { "cpuset.effective_cpus" } else { "cpuset.cpus.effective" })
}

/// The numbers of a list such as `0-2,5`, sorted; `None` for what is not a list, or one longer than any machine's.
#[must_use]
pub fn members(list: &str) -> Option<Vec<u32>> {
    /// Above the most CPUs and nodes that a kernel can be built for.
    const LONGEST: u32 = 65_535;
    let mut numbers = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('-') {
            Some((low, high)) => {
                let (low, high): (u32, u32) = (low.parse().ok()?, high.parse().ok()?);
                if high.checked_sub(low)? > LONGEST {
                    return None;
                }
                numbers.extend(low..=high);
            }
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
        assert_eq!(members("3-1"), None);
        assert_eq!(members("0-4294967295"), None);
    }
}
