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
        // On an early return the group's own drop removes what was made.
        let mut group = Self::empty();
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

    /// A group without directories yet, with a name that carries this process as the owner.
    fn empty() -> Self {
        Self { name: fresh_name(), places: BTreeMap::new(), devices: Mutex::new(None), frozen: AtomicBool::new(false) }
    }

    /// Makes a group inside this one, in the same hierarchies. This one's limits hold for both together, and its
    /// device rules cannot be widened in there. On v2 this one can have no processes of its own from then on.
    ///
    /// # Errors
    /// As for [`Group::create`]; EBUSY on v2 when this one has processes.
    pub fn create_child(&self) -> Result<Self, CgroupError> {
        let mut group = Self::empty();
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
        self.frozen.store(true, Ordering::Relaxed);
        freezer::freeze(self.required(Controller::Freezer, "freezer")?)
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
        for directory in self.distinct() {
            killed += kill_all(directory)?;
        }
        self.thaw_if_frozen()?;
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

/// Makes the parent group in one v1 hierarchy. It stays until [`collect_orphans`] finds it empty.
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
const PREPARING: &str = "isobench-preparing-";

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
    if killed > 0 && directory.join(freezer::STATE).exists() {
        write(directory, freezer::STATE, "THAWED")?;
    }
    Ok(killed)
}

/// The file of v2 that ends every process of a group.
const KILL: &str = "cgroup.kill";
