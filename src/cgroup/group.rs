//! One container's group in every hierarchy: made, joined, emptied, removed.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::detect::Layout;
use super::owner::Owner;
use super::{CgroupError, Controller, cpuset, devices, read, write};
use crate::sys::launch;

/// The group under which every group of ours stands, at the root of each hierarchy.
pub const PARENT: &str = "isobench";

/// The group under [`PARENT`], in the devices hierarchy only, that carries the default device rules. A v1 group
/// starts with its parent's rules, so a container with the default rules needs no write of its own.
pub const DEFAULT_DEVICES: &str = "default-devices";

/// A container's directories, one a controller; controllers mounted together share one.
#[derive(Debug)]
pub struct Group {
    name: String,
    directories: BTreeMap<Controller, PathBuf>,
}

impl Group {
    /// Makes a group of its own for one container in every given v1 hierarchy. The name carries this process as its
    /// owner, so [`collect_orphans`] finds it should the process die.
    ///
    /// `default_devices` asks for the default device rules; without it every device is permitted until rules are
    /// written.
    ///
    /// # Errors
    /// When a directory cannot be made; those made before are removed again.
    pub fn create(layout: &Layout, default_devices: bool) -> Result<Self, CgroupError> {
        static SEQUENCE: AtomicU64 = AtomicU64::new(0);
        let name = format!("{}-{}", Owner::current(), SEQUENCE.fetch_add(1, Ordering::Relaxed));
        let mut group = Self { name, directories: BTreeMap::new() };
        for (controller, mount_point) in &layout.v1 {
            let directory = match create_in(mount_point, *controller, default_devices, &group.name) {
                Ok(directory) => directory,
                Err(error) => {
                    group.remove_quietly();
                    return Err(error);
                }
            };
            group.directories.insert(*controller, directory);
        }
        Ok(group)
    }

    /// The name of its directories.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory in a controller's hierarchy.
    #[must_use]
    pub fn directory(&self, controller: Controller) -> Option<&Path> {
        self.directories.get(&controller).map(PathBuf::as_path)
    }

    /// Its directories, each once.
    fn distinct(&self) -> Vec<&Path> {
        let mut all: Vec<&Path> = self.directories.values().map(PathBuf::as_path).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Moves a process (all its threads) into every hierarchy's group.
    ///
    /// # Errors
    /// ESRCH when it has ended, EINVAL when the cpuset has no CPU.
    pub fn attach(&self, pid: u32) -> Result<(), CgroupError> {
        let pid = pid.to_string();
        self.distinct().into_iter().try_for_each(|directory| write(directory, "cgroup.procs", &pid))
    }

    /// The processes that are in any of its directories, as this process's pid namespace sees them.
    ///
    /// # Errors
    /// When a directory is gone.
    pub fn processes(&self) -> Result<Vec<u32>, CgroupError> {
        let mut pids = Vec::new();
        for directory in self.distinct() {
            pids.extend(processes(directory)?);
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Removes its directories. Tries at once; only when the kernel still counts a dying member it waits, and then
    /// not for long: each wait is twice the one before, up to about two seconds in all.
    ///
    /// # Errors
    /// Every directory is tried; the first error is returned.
    pub fn remove(mut self) -> Result<(), CgroupError> {
        self.remove_all()
    }

    fn remove_all(&mut self) -> Result<(), CgroupError> {
        let mut outcome = Ok(());
        for directory in self.distinct() {
            let removed = remove_directory(directory);
            if outcome.is_ok() {
                outcome = removed;
            }
        }
        self.directories.clear();
        outcome
    }

    /// For places that already report another error.
    fn remove_quietly(&mut self) {
        let _ = self.remove_all();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.remove_quietly();
    }
}

/// The processes in one directory.
fn processes(directory: &Path) -> Result<Vec<u32>, CgroupError> {
    Ok(read(directory, "cgroup.procs")?.lines().filter_map(|line| line.parse().ok()).collect())
}

fn remove_directory(directory: &Path) -> Result<(), CgroupError> {
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

/// Makes one directory under the hierarchy's parent group. The parent is made when it turns out to be missing, which
/// happens on first use and when another process has just collected it because it was empty.
fn create_in(
    mount_point: &Path,
    controller: Controller,
    default_devices: bool,
    name: &str,
) -> Result<PathBuf, CgroupError> {
    let mut parent = mount_point.join(PARENT);
    if controller == Controller::Devices && default_devices {
        parent.push(DEFAULT_DEVICES);
    }
    let directory = parent.join(name);
    for _ in 0..PARENT_TRIES {
        match std::fs::create_dir(&directory) {
            Ok(()) => return Ok(directory),
            // The same directory was just made for a controller mounted together with this one.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(directory),
            Err(error) if error.kind() == io::ErrorKind::NotFound => prepare_parent(mount_point, controller)?,
            Err(error) => return Err(CgroupError::file("make the group", directory)(error)),
        }
    }
    let gone = io::Error::new(io::ErrorKind::NotFound, "its parent group is removed as often as it is made");
    Err(CgroupError::file("make the group", directory)(gone))
}

/// How often a parent group that vanishes is made again.
const PARENT_TRIES: u32 = 10;

/// Makes the parent group in one hierarchy. It stays until [`collect_orphans`] finds it empty.
fn prepare_parent(mount_point: &Path, controller: Controller) -> Result<(), CgroupError> {
    let parent = mount_point.join(PARENT);
    create_if_missing(&parent)?;
    match controller {
        Controller::Cpuset => cpuset::inherit(&parent),
        Controller::Devices => {
            let confined = parent.join(DEFAULT_DEVICES);
            create_if_missing(&confined)?;
            devices::write_default_rules(&confined)
        }
        _ => Ok(()),
    }
}

fn create_if_missing(directory: &Path) -> Result<(), CgroupError> {
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(CgroupError::file("make the group", directory)(error))
        }
        _ => Ok(()),
    }
}

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
    mount_points.sort_unstable();
    mount_points.dedup();
    for mount_point in mount_points {
        let parent = mount_point.join(PARENT);
        for directory in [parent.join(DEFAULT_DEVICES), parent.clone()] {
            let swept = sweep(&directory, &mut collected);
            // The parent goes when it is empty; a live sibling under it makes this fail, and then it stays.
            let _ = std::fs::remove_dir(&directory);
            if outcome.is_ok() {
                outcome = swept;
            }
        }
    }
    outcome.map(|()| collected)
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
        let Some((Ok(owner), _)) = name.rsplit_once('-').map(|(owner, number)| (owner.parse::<Owner>(), number)) else {
            continue;
        };
        if owner.is_alive() {
            continue;
        }
        collected.groups += 1;
        let directory = entry.path();
        let removed = kill_all(&directory, collected).and_then(|()| remove_directory(&directory));
        if outcome.is_ok() {
            outcome = removed;
        }
    }
    outcome
}

fn kill_all(directory: &Path, collected: &mut Collected) -> Result<(), CgroupError> {
    for pid in processes(directory)? {
        if let Ok(pidfd) = launch::pidfd_open(pid)
            // Still in the group after the pidfd was taken: so the pid is not another process's by now.
            && processes(directory)?.contains(&pid)
        {
            launch::send_signal(pidfd.as_fd(), nix::sys::signal::Signal::SIGKILL as i32)
                .map_err(CgroupError::file("end the processes in", directory))?;
            collected.processes += 1;
        }
    }
    Ok(())
}
