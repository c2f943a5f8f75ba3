//! Takes away what a process that was killed could not give back.
//!
//! Namespaces, mounts, links, rules and children die with their owner; what the kernel cannot own is the cgroup
//! directories, and those carry their owner's name.

use super::launch::ContainerError;
use crate::cgroup::Layout;
use crate::cgroup::group::{Collected, collect_orphans};

/// Collects every group whose owner has died, and ends what still runs in it.
///
/// # Errors
/// Everything is tried; the first failure is returned.
pub fn collect() -> Result<Collected, ContainerError> {
    Ok(collect_orphans(&Layout::detect()?)?)
}
