//! A group's directories as any process finds them by name: looked at, frozen, given limits, emptied; not owned.
//!
//! [`super::Group`] is a view whose directories go with it. A process that did not make a group (an exec, a pause, a
//! list of usage figures) looks it up with [`View::existing`], and dropping that view leaves everything as it is.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::detect::Layout;
use super::directory::{remove_directory, v1_parent};
use super::group::{PARENT, kill_all, processes};
use super::{CgroupError, Controller, Hierarchy, Place, freezer, write};

/// The directories of one group, one a controller; controllers mounted together share one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub(super) name: String,
    pub(super) places: BTreeMap<Controller, Place>,
}

impl View {
    /// The group of a name, in every hierarchy where it has a directory. `None` when it has none at all.
    #[must_use]
    pub fn existing(name: &str, layout: &Layout) -> Option<Self> {
        // A name is one directory below the parent, never a way out of it.
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            return None;
        }
        let mut places = BTreeMap::new();
        for controller in Controller::ALL {
            let Some(Place { hierarchy, path }) = layout.place(controller) else { continue };
            let parents = match hierarchy {
                // A container with the default device rules stands under the group that carries them.
                Hierarchy::V1 if controller == Controller::Devices => {
                    vec![v1_parent(controller, true), v1_parent(controller, false)]
                }
                Hierarchy::V1 | Hierarchy::V2 => vec![PARENT.into()],
            };
            let found = parents.into_iter().map(|parent| path.join(parent).join(name)).find(|path| path.is_dir());
            if let Some(path) = found {
                places.insert(controller, Place { hierarchy, path });
            }
        }
        (!places.is_empty()).then(|| Self { name: name.to_owned(), places })
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

    /// The directory of a controller, or the error that names the setting that cannot be had.
    pub(super) fn required(&self, controller: Controller, setting: &'static str) -> Result<&Place, CgroupError> {
        self.place(controller).ok_or(CgroupError::NoController { controller, setting })
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
    #[must_use]
    pub fn distinct(&self) -> Vec<&Path> {
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
        freezer::freeze(self.required(Controller::Freezer, "freezer")?)
    }

    /// Lets every task go on.
    ///
    /// # Errors
    /// When there is no freezer.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        freezer::thaw(self.required(Controller::Freezer, "freezer")?)
    }

    /// Whether every task is frozen now.
    ///
    /// # Errors
    /// When there is no freezer.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        freezer::is_frozen(self.required(Controller::Freezer, "freezer")?)
    }

    /// Ends every process in it, frozen or not; also those that are forked meanwhile where the kernel can do that (v2,
    /// since 5.14). A frozen group is thawed, since what is frozen on v1 does not die. Returns how many it found.
    ///
    /// # Errors
    /// When a process cannot be signalled.
    pub fn kill(&self) -> Result<u32, CgroupError> {
        let mut killed = 0;
        for directory in self.distinct() {
            killed += kill_all(directory)?;
        }
        if self.place(Controller::Freezer).is_some() {
            self.thaw()?;
        }
        Ok(killed)
    }

    /// Removes its directories, as [`super::Group::remove`] does: for a group whose maker has died.
    ///
    /// # Errors
    /// Every directory is tried; the first error is returned.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let mut outcome = Ok(());
        for directory in self.distinct() {
            outcome = outcome.and(remove_directory(directory));
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(root: &Path) -> Layout {
        let v1 = [Controller::Memory, Controller::Devices].map(|each| (each, root.join(each.as_str())));
        Layout { v1: v1.into(), v2: None }
    }

    #[test]
    fn a_group_is_found_by_name_and_outlives_its_view() {
        let root = tempfile::tempdir().unwrap();
        let memory = root.path().join("memory/isobench/abc");
        let devices = root.path().join("devices/isobench/default-devices/abc");
        std::fs::create_dir_all(&memory).unwrap();
        std::fs::create_dir_all(&devices).unwrap();
        let view = View::existing("abc", &layout(root.path())).unwrap();
        assert_eq!(view.directory(Controller::Memory), Some(memory.as_path()));
        assert_eq!(view.directory(Controller::Devices), Some(devices.as_path()));
        assert_eq!(view.directory(Controller::Pids), None);
        drop(view);
        assert!(memory.is_dir() && devices.is_dir());
    }

    #[test]
    fn a_group_that_is_not_there_and_a_way_out_are_none() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("memory/isobench")).unwrap();
        for name in ["abc", "", ".", "..", "a/b"] {
            assert_eq!(View::existing(name, &layout(root.path())), None, "{name}");
        }
    }
}
