//! One container's group in every hierarchy: made, joined, frozen, emptied, removed.
//!
//! On v1 it is a directory in each controller's hierarchy, made and joined after the clone. On v2 it is one directory
//! for all, made before the clone, and the container is born in it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::delegate;
use super::detect::Layout;
use super::devices::{InForce, Rule};
use super::directory::{create_if_missing, create_v1, create_v2, remove_directory, v1_parent};
use super::view::View;
use super::{CgroupError, Controller, Hierarchy, Place, freezer, read, write};
use crate::sys::launch;

pub use super::directory::fresh_name;
pub use super::orphans::{Collected, collect_orphans};

/// The group under which every group of ours stands, at the root of each hierarchy.
pub const PARENT: &str = "isobench";

/// The group under [`PARENT`], in the devices hierarchy only, that carries the default device rules. A v1 group
/// starts with its parent's rules, so a container with the default rules needs no write of its own.
pub const DEFAULT_DEVICES: &str = "default-devices";

/// A container's directories, one a controller, which are removed with it. Whoever did not make them looks them up with
/// [`View::existing`].
#[derive(Debug)]
pub struct Group {
    view: View,
    /// Changed by whoever holds the group, while its processes run.
    devices: Mutex<Option<InForce>>,
    /// Whether it was frozen and not thawed since: what is frozen on v1 does not die.
    frozen: AtomicBool,
}

impl Group {
    /// Makes a group of its own for one container in every hierarchy that the layout uses. The name carries this
    /// process as its owner, so [`collect_orphans`] finds it should the process die.
    ///
    /// `default_devices` asks for the default device rules; without it every device is permitted until rules are
    /// written.
    ///
    /// # Errors
    /// When a directory cannot be made, or on v2 the device program not attached; what was made before is removed
    /// again.
    pub fn create(layout: &Layout, default_devices: bool) -> Result<Self, CgroupError> {
        Self::create_as(fresh_name(), layout, default_devices)
    }

    /// As [`Group::create`], under a name of [`fresh_name`] that is known before.
    ///
    /// # Errors
    /// As for [`Group::create`].
    pub fn create_as(name: String, layout: &Layout, default_devices: bool) -> Result<Self, CgroupError> {
        // On an early return the group's own drop removes what was made.
        let mut group = Self::empty(name);
        for (controller, mount_point) in &layout.v1 {
            let path = create_v1(mount_point, *controller, default_devices, &group.view.name)?;
            group.view.places.insert(*controller, Place { hierarchy: Hierarchy::V1, path });
        }
        if layout.uses_v2()
            && let Some((mount_point, _)) = &layout.v2
        {
            let path = create_v2(mount_point, layout, &group.view.name)?;
            for controller in Controller::ALL {
                if layout.place(controller).is_some_and(|place| place.hierarchy == Hierarchy::V2) {
                    group.view.places.insert(controller, Place { hierarchy: Hierarchy::V2, path: path.clone() });
                }
            }
        }
        let in_force = InForce::begin(group.place(Controller::Devices), default_devices)?;
        group.devices = Mutex::new(Some(in_force));
        Ok(group)
    }

    /// A group without directories yet.
    fn empty(name: String) -> Self {
        Self { view: View { name, places: BTreeMap::new() }, devices: Mutex::new(None), frozen: AtomicBool::new(false) }
    }

    /// Makes a group inside this one, in the same hierarchies. This one's limits hold for both together, and its
    /// device rules cannot be widened in there. On v2 this one can have no processes of its own from then on.
    ///
    /// # Errors
    /// As for [`Group::create`]; EBUSY on v2 when this one has processes.
    pub fn create_child(&self) -> Result<Self, CgroupError> {
        let mut group = Self::empty(fresh_name());
        if let Some(unified) = self.unified() {
            let passed_on: Vec<&str> = self
                .view
                .places
                .iter()
                .filter(|(_, place)| place.hierarchy == Hierarchy::V2)
                .filter_map(|(controller, _)| controller.v2_name())
                .collect();
            delegate::enable(unified, &passed_on)?;
        }
        for (controller, place) in &self.view.places {
            let path = place.path.join(&group.view.name);
            create_if_missing(&path)?;
            group.view.places.insert(*controller, Place { hierarchy: place.hierarchy, path });
        }
        group.devices = Mutex::new(Some(InForce::begin(group.place(Controller::Devices), false)?));
        Ok(group)
    }

    /// Forbids every device but the default ones, in a group that was made without the default rules; rules that are
    /// applied afterwards can permit more.
    ///
    /// # Errors
    /// When the rules cannot be written or are not kept.
    pub fn confine_devices(&self) -> Result<(), CgroupError> {
        let place = self.view.required(Controller::Devices, "devices")?;
        let in_force = InForce::confine(place)?;
        *self.devices.lock().unwrap_or_else(PoisonError::into_inner) = Some(in_force);
        Ok(())
    }

    /// Its directories, to be looked at and worked on without being owned.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The name of its directories.
    #[must_use]
    pub fn name(&self) -> &str {
        self.view.name()
    }

    /// Where it is for a controller.
    #[must_use]
    pub fn place(&self, controller: Controller) -> Option<&Place> {
        self.view.place(controller)
    }

    /// Its directory for a controller.
    #[must_use]
    pub fn directory(&self, controller: Controller) -> Option<&Path> {
        self.view.directory(controller)
    }

    /// Its directory on v2, if it has one.
    #[must_use]
    pub fn unified(&self) -> Option<&Path> {
        self.view.unified()
    }

    /// As [`View::open_unified`].
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open_unified(&self) -> Result<Option<OwnedFd>, CgroupError> {
        self.view.open_unified()
    }

    /// Where a process with one thread joins the v1 group of this name by itself: the mount point of each hierarchy, and
    /// the file below it to which it writes `0`.
    ///
    /// Only this way is cheap. To move another process the kernel first shuts out every fork and exit on the machine,
    /// and after a quiet time waits a whole RCU grace period for it: 7 to 15 ms were seen on Linux 6.18. A thread
    /// that moves itself needs no such lock.
    #[must_use]
    pub fn doors(layout: &Layout, name: &str, default_devices: bool) -> Vec<(PathBuf, PathBuf)> {
        let mut all: Vec<(PathBuf, PathBuf)> = (layout.v1.iter())
            .map(|(controller, mount)| {
                (mount.clone(), v1_parent(*controller, default_devices).join(name).join("tasks"))
            })
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// As [`View::attach`].
    ///
    /// # Errors
    /// ESRCH when it has ended, EINVAL when the cpuset has no CPU.
    pub fn attach(&self, pid: u32) -> Result<(), CgroupError> {
        self.view.attach(pid)
    }

    /// As [`View::processes`].
    ///
    /// # Errors
    /// When a directory is gone.
    pub fn processes(&self) -> Result<Vec<u32>, CgroupError> {
        self.view.processes()
    }

    /// Freezes every task and waits until they are.
    ///
    /// # Errors
    /// When there is no freezer, or a task does not come to a stop within ten seconds.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        self.frozen.store(true, Ordering::Relaxed);
        self.view.freeze()
    }

    /// Lets every task go on.
    ///
    /// # Errors
    /// When there is no freezer.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        self.view.thaw()?;
        self.frozen.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Lets every task go on if [`Group::freeze`] was the last word; else it costs nothing. For whoever has sent a
    /// SIGKILL and is going to wait.
    ///
    /// # Errors
    /// As for [`Group::thaw`].
    pub fn thaw_if_frozen(&self) -> Result<(), CgroupError> {
        if self.frozen.load(Ordering::Relaxed) { self.thaw() } else { Ok(()) }
    }

    /// Ends every process in it, frozen or not; also those that are forked meanwhile where the kernel can do that (v2,
    /// since 5.14). Returns how many it found.
    ///
    /// # Errors
    /// When a process cannot be signalled.
    pub fn kill(&self) -> Result<u32, CgroupError> {
        let mut killed = 0;
        for directory in self.view.distinct() {
            killed += kill_all(directory)?;
        }
        self.thaw_if_frozen()?;
        Ok(killed)
    }

    pub(super) fn change_devices(&self, rules: &[Rule]) -> Result<(), CgroupError> {
        let place = self.view.required(Controller::Devices, "devices")?;
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *devices {
            Some(in_force) => in_force.add(place, rules),
            // Only while the group is being made, when nobody else has it yet.
            None => Err(CgroupError::NoController { controller: Controller::Devices, setting: "devices" }),
        }
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
        for directory in self.view.distinct() {
            let removed = remove_directory(directory);
            if outcome.is_ok() {
                outcome = removed;
            }
        }
        self.view.places.clear();
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
pub(super) fn processes(directory: &Path) -> Result<Vec<u32>, CgroupError> {
    Ok(read(directory, "cgroup.procs")?.lines().filter_map(|line| line.parse().ok()).collect())
}

/// Ends the processes in one directory and tells how many there were.
pub(super) fn kill_all(directory: &Path) -> Result<u32, CgroupError> {
    let found = processes(directory)?;
    // v2 ends all at once, a fork in flight included. v1 and older kernels have no such file.
    match std::fs::metadata(directory.join(KILL)) {
        Ok(_) if !found.is_empty() => {
            write(directory, KILL, "1")?;
            return Ok(found.len() as u32);
        }
        _ => {}
    }
    let mut killed = 0;
    for pid in found {
        if let Ok(pidfd) = launch::pidfd_open(pid)
            // Still in the group after the pidfd was taken: so the pid is not another process's by now.
            && processes(directory)?.contains(&pid)
        {
            launch::send_signal(pidfd.as_fd(), nix::sys::signal::Signal::SIGKILL as i32)
                .map_err(CgroupError::file("end the processes in", directory))?;
            killed += 1;
        }
    }
    if killed > 0 && directory.join(freezer::STATE).exists() {
        write(directory, freezer::STATE, "THAWED")?;
    }
    Ok(killed)
}

/// The file of v2 that ends every process of a group.
const KILL: &str = "cgroup.kill";
