//! What a killed isobench left in the hierarchies: found by the owner in a group's name, ended, removed.

use std::io;
use std::path::{Path, PathBuf};

use super::detect::Layout;
use super::directory::{PREPARING, remove_directory};
use super::group::{DEFAULT_DEVICES, PARENT, kill_all};
use super::owner::Owner;
use super::{CgroupError, Controller, delegate};

/// What was taken away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Groups (counted a hierarchy each) whose owner was dead.
    pub groups: u32,
    /// Processes that were still in them and were ended.
    pub processes: u32,
}

/// Takes away every group whose owner has died, ending what still runs in it, and then the parents if nothing is
/// left under them.
///
/// # Errors
/// Every group is tried; the first error is returned.
pub fn collect_orphans(layout: &Layout) -> Result<Collected, CgroupError> {
    let mut collected = Collected::default();
    let mut outcome = Ok(());
    let mut mount_points: Vec<&PathBuf> = layout.v1.values().collect();
    // The freezer's hierarchy first: a frozen orphan leaves no group before it is thawed.
    let freezer = layout.v1.get(&Controller::Freezer);
    mount_points.sort_unstable_by_key(|mount_point| (Some(*mount_point) != freezer, *mount_point));
    mount_points.dedup();
    for mount_point in mount_points {
        outcome = outcome.and(sweep_preparing(mount_point));
        let parent = mount_point.join(PARENT);
        for directory in [parent.join(DEFAULT_DEVICES), parent] {
            outcome = outcome.and(sweep(&directory, &mut collected));
            // The parent goes when it is empty; a live sibling under it makes this fail, and then it stays.
            let _ = std::fs::remove_dir(&directory);
        }
    }
    if let Some((mount_point, _)) = &layout.v2 {
        let swept = sweep(&mount_point.join(PARENT), &mut collected);
        outcome = outcome.and(swept).and(delegate::collect(mount_point));
    }
    outcome.map(|()| collected)
}

/// Removes what was never finished at the root of a hierarchy, where its maker has died.
fn sweep_preparing(mount_point: &Path) -> Result<(), CgroupError> {
    for entry in std::fs::read_dir(mount_point).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREPARING).and_then(|rest| rest.rsplit_once('-')?.0.parse::<Owner>().ok());
        if owner.is_some_and(|owner| !owner.is_alive()) {
            remove_directory(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes the orphans directly under one directory.
fn sweep(parent: &Path, collected: &mut Collected) -> Result<(), CgroupError> {
    let entries = match std::fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(CgroupError::file("list", parent)(error)),
    };
    let mut outcome = Ok(());
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let own = name.strip_prefix(PREPARING).unwrap_or(&name);
        let Some((Ok(owner), _)) = own.rsplit_once('-').map(|(owner, number)| (owner.parse::<Owner>(), number)) else {
            continue;
        };
        if owner.is_alive() {
            continue;
        }
        collected.groups += 1;
        let directory = entry.path();
        // Groups inside belong to the same owner and go first.
        let removed = sweep(&directory, collected).and_then(|()| kill_all(&directory)).and_then(|killed| {
            collected.processes += killed;
            remove_directory(&directory)
        });
        if outcome.is_ok() {
            outcome = removed;
        }
    }
    outcome
}
