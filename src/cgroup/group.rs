//! One container's group in every hierarchy: made, joined, frozen, emptied, removed.
//!
//! On v1 it is a directory in each controller's hierarchy, joined after the clone. On v2 it is one directory for all,
//! made before the clone, and the container is born in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::delegate;
use super::detect::Layout;
use super::devices::{InForce, Rule};
use super::owner::Owner;
use super::{CgroupError, Controller, Hierarchy, Place, cpuset, devices, freezer, read, write};
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
    places: BTreeMap<Controller, Place>,
    /// Whether it was frozen by us and not thawed since.
    frozen: AtomicBool,
    /// Changed by whoever holds the group, while its processes run.
    devices: Mutex<Option<InForce>>,
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
        // On an early return the group's own drop removes what was made.
        let mut group = Self {
            name: fresh_name(),
            places: BTreeMap::new(),
            frozen: AtomicBool::new(false),
            devices: Mutex::new(None),
        };
        for (controller, mount_point) in &layout.v1 {
            let path = create_v1(mount_point, *controller, default_devices, &group.name)?;
            group.places.insert(*controller, Place { hierarchy: Hierarchy::V1, path });
        }
        if layout.uses_v2()
            && let Some((mount_point, _)) = &layout.v2
        {
            let path = create_v2(mount_point, layout, &group.name)?;
            for controller in Controller::ALL {
                if layout.place(controller).is_some_and(|place| place.hierarchy == Hierarchy::V2) {
                    group.places.insert(controller, Place { hierarchy: Hierarchy::V2, path: path.clone() });
                }
            }
        }
        let in_force = InForce::begin(group.place(Controller::Devices), default_devices)?;
        group.devices = Mutex::new(Some(in_force));
        Ok(group)
    }

    /// Makes a group inside this one, in the same hierarchies. This one's limits hold for both together, and its
    /// device rules cannot be widened in there. On v2 this one can have no processes of its own from then on.
    ///
    /// # Errors
    /// As for [`Group::create`]; EBUSY on v2 when this one has processes.
    pub fn create_child(&self) -> Result<Self, CgroupError> {
        let mut group = Self {
            name: fresh_name(),
            places: BTreeMap::new(),
            frozen: AtomicBool::new(false),
            devices: Mutex::new(None),
        };
        if let Some(unified) = self.unified() {
            let passed_on: Vec<&str> = self
                .places
                .iter()
                .filter(|(_, place)| place.hierarchy == Hierarchy::V2)
                .filter_map(|(controller, _)| controller.v2_name())
                .collect();
            delegate::enable(unified, &passed_on)?;
        }
        for (controller, place) in &self.places {
            let path = place.path.join(&group.name);
            create_if_missing(&path)?;
            group.places.insert(*controller, Place { hierarchy: place.hierarchy, path });
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
        let place = self.required(Controller::Devices, "devices")?;
        let in_force = InForce::confine(place)?;
        *self.devices.lock().unwrap_or_else(PoisonError::into_inner) = Some(in_force);
        Ok(())
    }

    /// The name of its directories.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is for a controller.
    #[must_use]
    pub fn place(&self, controller: Controller) -> Option<&Place> {
        self.places.get(&controller)
    }

    /// Its directory for a controller.
    #[must_use]
    pub fn directory(&self, controller: Controller) -> Option<&Path> {
        self.place(controller).map(|place| place.path.as_path())
    }

    /// Its directory on v2, if it has one.
    #[must_use]
    pub fn unified(&self) -> Option<&Path> {
        let on_v2 = self.places.values().find(|place| place.hierarchy == Hierarchy::V2);
        on_v2.map(|place| place.path.as_path())
    }

    /// A descriptor of its v2 directory, for a child to be born in.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open_unified(&self) -> Result<Option<OwnedFd>, CgroupError> {
        let open = |path| File::open(path).map(OwnedFd::from).map_err(CgroupError::file("open the group", path));
        self.unified().map(open).transpose()
    }

    /// Its directories, each once.
    fn distinct(&self) -> Vec<&Path> {
        let mut all: Vec<&Path> = self.places.values().map(|place| place.path.as_path()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Moves a process (all its threads) into every hierarchy's group. What it used before stays charged where it was.
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

    /// Freezes every task and waits until they are.
    ///
    /// # Errors
    /// When there is no freezer, or a task does not come to a stop within ten seconds.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        let place = self.required(Controller::Freezer, "freezer")?;
        self.frozen.store(true, Ordering::Relaxed);
        freezer::freeze(place)
    }

    /// Lets every task go on.
    ///
    /// # Errors
    /// When there is no freezer.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        freezer::thaw(self.required(Controller::Freezer, "freezer")?)?;
        self.frozen.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Lets every task go on if [`Group::freeze`] was called last. Costs nothing else: it is on the way of every
    /// removal, since on v1 a frozen process does not die.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub fn thaw_if_frozen(&self) -> Result<(), CgroupError> {
        if self.frozen.load(Ordering::Relaxed) { self.thaw() } else { Ok(()) }
    }

    /// Ends every process in it, also those that were forked meanwhile where the kernel can do that (v2, since 5.14).
    /// Returns how many it found.
    ///
    /// # Errors
    /// When a process cannot be signalled.
    pub fn kill(&self) -> Result<u32, CgroupError> {
        let mut killed = 0;
        for directory in self.distinct() {
            killed += kill_all(directory)?;
        }
        Ok(killed)
    }

    pub(super) fn change_devices(&self, rules: &[Rule]) -> Result<(), CgroupError> {
        let place = self.required(Controller::Devices, "devices")?;
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
        for directory in self.distinct() {
            let removed = remove_directory(directory);
            if outcome.is_ok() {
                outcome = removed;
            }
        }
        self.places.clear();
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

/// A name that carries this process as the owner.
fn fresh_name() -> String {
    static SEQUENCE: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", Owner::current(), SEQUENCE.fetch_add(1, Ordering::Relaxed))
}

/// The processes in one directory.
pub(super) fn processes(directory: &Path) -> Result<Vec<u32>, CgroupError> {
    Ok(read(directory, "cgroup.procs")?.lines().filter_map(|line| line.parse().ok()).collect())
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

/// Makes one directory under the hierarchy's parent group. The parent is made when it turns out to be missing, which
/// happens on first use and when another process has just collected it because it was empty.
fn create_v1(
    mount_point: &Path,
    controller: Controller,
    default_devices: bool,
    name: &str,
) -> Result<PathBuf, CgroupError> {
    let mut parent = mount_point.join(PARENT);
    if controller == Controller::Devices && default_devices {
        parent.push(DEFAULT_DEVICES);
    }
    create_under(parent.join(name), || prepare_v1_parent(mount_point, controller))
}

/// The same on v2.
fn create_v2(mount_point: &Path, layout: &Layout, name: &str) -> Result<PathBuf, CgroupError> {
    let parent = mount_point.join(PARENT);
    create_under(parent.join(name), || delegate::prepare(mount_point, &parent, &layout.v2_names()))
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

/// Makes the parent group in one v1 hierarchy. It stays until [`collect_orphans`] finds it empty.
fn prepare_v1_parent(mount_point: &Path, controller: Controller) -> Result<(), CgroupError> {
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

pub(super) fn create_if_missing(directory: &Path) -> Result<(), CgroupError> {
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
    mount_points.extend(layout.v2.as_ref().map(|(mount_point, _)| mount_point));
    mount_points.sort_unstable();
    mount_points.dedup();
    // The freezer first: what is frozen there does not die before it is thawed, and keeps the other groups busy.
    mount_points.sort_by_key(|mount_point| layout.v1.get(&Controller::Freezer) != Some(mount_point));
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
    if let Some((mount_point, _)) = &layout.v2 {
        outcome = outcome.and(delegate::collect(mount_point));
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

/// Ends the processes in one directory and tells how many there were.
fn kill_all(directory: &Path) -> Result<u32, CgroupError> {
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
    // On v1 a frozen process takes its SIGKILL only when it is thawed.
    if directory.join(freezer::STATE).exists() {
        freezer::thaw(&Place { hierarchy: Hierarchy::V1, path: directory.to_owned() })?;
    }
    Ok(killed)
}

/// The file of v2 that ends every process of a group.
const KILL: &str = "cgroup.kill";
