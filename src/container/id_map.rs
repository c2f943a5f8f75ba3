//! User namespaces that stand for nothing but their mapping: what mount_setattr(2) takes to show owners by it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use super::launch::{ContainerError, write_user_map};
use super::spec::UserMapping;
use crate::fs::FileError;
use crate::sys::launch::{Memory, launch};
use crate::sys::page::Gate;
use crate::sys::plan::{Op, Plan};

/// A user namespace with this mapping; made at most once a process.
///
/// # Errors
/// ENOSPC beyond the limit on user namespaces, EPERM where they are forbidden.
pub fn namespace(mapping: UserMapping) -> Result<Arc<OwnedFd>, ContainerError> {
    static MADE: Mutex<BTreeMap<(u32, u32), Arc<OwnedFd>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = made.get(&(mapping.host_start, mapping.count)) {
        return Ok(known.clone());
    }
    let fresh = Arc::new(make(mapping)?);
    made.insert((mapping.host_start, mapping.count), fresh.clone());
    Ok(fresh)
}

/// The namespace needs a first process until it is held by its descriptor: one that only waits, and ends with the call.
fn make(mapping: UserMapping) -> Result<OwnedFd, ContainerError> {
    let mut plan = Plan::default();
    plan.push("wait", Op::Await(Gate::UserMap));
    plan.push("exec", Op::Exec { paths: Vec::new(), arguments: Vec::new(), environment: Vec::new(), guarded: false });
    let flags = libc::CLONE_NEWUSER as u64;
    let child = launch(plan, flags, None, Memory::Copied).map_err(ContainerError::Clone)?;
    write_user_map(child.pid(), mapping)?;
    let path = format!("/proc/{}/ns/user", child.pid());
    Ok(File::open(&path).map_err(FileError::new("open", path))?.into())
}
