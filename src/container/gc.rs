//! Takes away what a process that was killed could not give back.
//!
//! Namespaces, mounts, links, rules and children die with their owner; what the kernel cannot own is the cgroup
//! directories, and those carry their owner's name.

use super::client::{self, ClientError};
use super::launch::ContainerError;
use super::state::Status;
use super::store::Store;
use crate::cgroup::Layout;
use crate::cgroup::group::{Collected, collect_orphans};

/// What was taken away of containers that outlive their command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settled {
    /// Directories and names that were half made or half removed.
    pub halves: u32,
    /// Containers that had ended unseen.
    pub ended: u32,
}

/// Writes down the end of containers that no monitor saw, gives those that run without a monitor a new one, and takes
/// away what a killed command left half made.
///
/// # Errors
/// At the first that cannot be settled.
pub fn settle(store: &Store) -> Result<Settled, ClientError> {
    let mut settled = Settled { halves: store.sweep()?, ended: 0 };
    for entry in store.all()? {
        // One that is damaged is told by the list; it keeps nothing from being collected.
        let Ok((stored, before)) = entry else { continue };
        let after = client::settled(store, &stored)?;
        settled.ended += u32::from(before.status != after.status && after.status == Status::Exited);
    }
    Ok(settled)
}

/// Collects every group whose owner has died, and ends what still runs in it.
///
/// # Errors
/// Everything is tried; the first failure is returned.
pub fn collect() -> Result<Collected, ContainerError> {
    Ok(collect_orphans(&Layout::detect()?)?)
}
