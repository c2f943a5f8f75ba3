//! The directories of groups: named after their owner, made in each hierarchy under the common parent, removed.
//!
//! Called by [`super::group`] for a container's own group and by [`super::delegate`] for the parent's.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::detect::Layout;
use super::group::{DEFAULT_DEVICES, PARENT};
use super::owner::Owner;
use super::{CgroupError, Controller, cpuset, delegate, devices};

/// A name for a new group that carries this process as the owner.
#[must_use]
pub fn fresh_name() -> String {
    static SEQUENCE: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", Owner::current(), SEQUENCE.fetch_add(1, Ordering::Relaxed))
}

pub(super) fn remove_directory(directory: &Path) -> Result<(), CgroupError> {
    const TRIES: u32 = 12;
    let mut wait = Duration::from_micros(500);
    for _ in 0..TRIES {
        match std::fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EBUSY as i32) => {
                std::thread::sleep(wait);
                wait *= 2;
            }
            Err(error) => return Err(CgroupError::file("remove the group", directory)(error)),
        }
    }
    Err(CgroupError::Busy { path: directory.to_owned(), tries: TRIES })
}

/// The group under which a container's own stands, from the hierarchy's mount point.
pub(super) fn v1_parent(controller: Controller, default_devices: bool) -> PathBuf {
    let parent = PathBuf::from(PARENT);
    if controller == Controller::Devices && default_devices { parent.join(DEFAULT_DEVICES) } else { parent }
}

/// Makes one directory under the hierarchy's parent group. The parent is made when it turns out to be missing, which
/// happens on first use and when another process has just collected it because it was empty.
pub(super) fn create_v1(
    mount_point: &Path,
    controller: Controller,
    default_devices: bool,
    name: &str,
) -> Result<PathBuf, CgroupError> {
    let parent = mount_point.join(v1_parent(controller, default_devices));
    create_under(parent.join(name), || prepare_v1_parent(mount_point, controller))
}

/// The same on v2.
pub(super) fn create_v2(mount_point: &Path, layout: &Layout, name: &str) -> Result<PathBuf, CgroupError> {
    let controllers = layout.v2_names();
    let prepare = || delegate::prepare(mount_point, &controllers);
    let directory = create_under(mount_point.join(PARENT).join(name), prepare)?;
    let complete = delegate::is_complete(&directory, &controllers);
    match complete.and_then(|complete| if complete { Ok(()) } else { prepare() }) {
        Ok(()) => Ok(directory),
        Err(error) => {
            // The first error is the one to tell.
            let _ = remove_directory(&directory);
            Err(error)
        }
    }
}

fn create_under(
    directory: PathBuf,
    mut prepare_parent: impl FnMut() -> Result<(), CgroupError>,
) -> Result<PathBuf, CgroupError> {
    for _ in 0..PARENT_TRIES {
        match std::fs::create_dir(&directory) {
            Ok(()) => return Ok(directory),
            // The same directory was just made for a controller mounted together with this one.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(directory),
            Err(error) if error.kind() == io::ErrorKind::NotFound => prepare_parent()?,
            Err(error) => return Err(CgroupError::file("make the group", directory)(error)),
        }
    }
    let gone = io::Error::new(io::ErrorKind::NotFound, "its parent group is removed as often as it is made");
    Err(CgroupError::file("make the group", directory)(gone))
}

/// How often a parent group that vanishes is made again.
const PARENT_TRIES: u32 = 10;

/// Makes the parent group in one v1 hierarchy. It stays until [`super::group::collect_orphans`] finds it empty.
fn prepare_v1_parent(mount_point: &Path, controller: Controller) -> Result<(), CgroupError> {
    let parent = mount_point.join(PARENT);
    match controller {
        Controller::Cpuset => create_prepared(mount_point, PARENT, cpuset::inherit),
        Controller::Devices => {
            create_if_missing(&parent)?;
            create_prepared(&parent, DEFAULT_DEVICES, devices::write_default_rules)
        }
        _ => create_if_missing(&parent),
    }
}

/// Makes a group that is ready from the moment it can be seen: it is prepared under another name and then renamed.
/// Whoever makes a group in it takes over what it holds, so nobody may come before it holds it.
fn create_prepared(
    parent: &Path,
    name: &str,
    prepare: impl FnOnce(&Path) -> Result<(), CgroupError>,
) -> Result<(), CgroupError> {
    let target = parent.join(name);
    if target.exists() {
        return Ok(());
    }
    let fresh = parent.join(format!("{PREPARING}{}", fresh_name()));
    create_if_missing(&fresh)?;
    let renamed = prepare(&fresh)
        .and_then(|()| std::fs::rename(&fresh, &target).map_err(CgroupError::file("make the group", &target)));
    if renamed.is_ok() {
        return Ok(());
    }
    remove_directory(&fresh)?;
    // Somebody else was first.
    if target.exists() { Ok(()) } else { renamed }
}

/// What a group is called until it is prepared; the owner's name follows.
pub(super) const PREPARING: &str = "isobench-preparing-";

pub(super) fn create_if_missing(directory: &Path) -> Result<(), CgroupError> {
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(CgroupError::file("make the group", directory)(error))
        }
        _ => Ok(()),
    }
}
