//! Which cgroup hierarchies are mounted, where, with which controllers: v1, hybrid or v2.
//!
//! Read from `/proc/self/mountinfo`, so a controller counts only where it can be used, wherever it is mounted; that
//! something is at `/sys/fs/cgroup` says nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use procfs::FromRead;
use procfs::process::MountInfos;

use super::{CgroupError, Controller, Hierarchy, Place};

/// How the controllers are spread over hierarchies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Every controller in a v1 hierarchy, no v2 mount.
    V1,
    /// v1 hierarchies beside a v2 mount.
    Hybrid,
    /// Only a v2 mount.
    V2,
    /// Nothing mounted.
    None,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Version::V1 => "v1",
            Version::Hybrid => "hybrid",
            Version::V2 => "v2",
            Version::None => "none",
        })
    }
}

/// Where each controller can be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// The mount point of each controller's v1 hierarchy.
    pub v1: BTreeMap<Controller, PathBuf>,
    /// The mount point of the v2 hierarchy and the names of its controllers.
    pub v2: Option<(PathBuf, Vec<String>)>,
}

impl Layout {
    /// Looks at this process's mounts.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn detect() -> Result<Self, CgroupError> {
        let path = "/proc/self/mountinfo";
        let mounts = MountInfos::from_file(path).map_err(|error| CgroupError::File {
            act: "read",
            path: path.into(),
            source: std::io::Error::other(error),
        })?;
        Ok(Self::from_mounts(&mounts, |mount_point, file| std::fs::read_to_string(mount_point.join(file)).ok()))
    }

    /// The same from a given mount table; `look` reads a file at a mount point. It finds nothing where another mount
    /// lies over this one, and then this one is of no use.
    fn from_mounts(mounts: &MountInfos, look: impl Fn(&Path, &str) -> Option<String>) -> Self {
        let mut layout = Self::default();
        for mount in mounts.0.iter() {
            match mount.fs_type.as_str() {
                "cgroup" if look(&mount.mount_point, "cgroup.procs").is_some() => {
                    for controller in Controller::ALL {
                        // The first mount of a hierarchy wins, as it does for every other tool.
                        if mount.super_options.contains_key(controller.as_str()) {
                            layout.v1.entry(controller).or_insert_with(|| mount.mount_point.clone());
                        }
                    }
                }
                "cgroup2" if layout.v2.is_none() => {
                    let controllers = look(&mount.mount_point, "cgroup.controllers");
                    layout.v2 = controllers.map(|names| {
                        (mount.mount_point.clone(), names.split_whitespace().map(str::to_owned).collect())
                    });
                }
                _ => {}
            }
        }
        layout
    }

    /// Where a controller can be used: the mount point of its v1 hierarchy if it has one, else that of v2 if it is
    /// there. A v1 mount takes a controller away from v2, so both at once cannot be.
    #[must_use]
    pub fn place(&self, controller: Controller) -> Option<Place> {
        if let Some(path) = self.v1.get(&controller) {
            return Some(Place { hierarchy: Hierarchy::V1, path: path.clone() });
        }
        let (path, names) = self.v2.as_ref()?;
        let present = controller.v2_name().is_none_or(|name| names.iter().any(|have| have == name));
        present.then(|| Place { hierarchy: Hierarchy::V2, path: path.clone() })
    }

    /// Whether every controller that can be used is on v2.
    #[must_use]
    pub fn is_unified(&self) -> bool {
        self.v1.is_empty() && self.v2.is_some()
    }

    /// Whether any controller that is used is on v2. A v2 mount beside v1 that has only controllers of no use here,
    /// as systemd's hybrid layout has it, is left alone.
    #[must_use]
    pub fn uses_v2(&self) -> bool {
        self.v2.is_some() && Controller::ALL.iter().any(|controller| !self.v1.contains_key(controller))
    }

    /// The controllers that are used on v2, by their names there.
    pub(super) fn v2_names(&self) -> Vec<&'static str> {
        let on_v2 =
            |controller: &Controller| self.place(*controller).is_some_and(|place| place.hierarchy == Hierarchy::V2);
        Controller::ALL.into_iter().filter(on_v2).filter_map(Controller::v2_name).collect()
    }

    /// The overall kind.
    #[must_use]
    pub fn version(&self) -> Version {
        match (self.v1.is_empty(), &self.v2) {
            (true, None) => Version::None,
            (true, Some(_)) => Version::V2,
            (false, None) => Version::V1,
            (false, Some(_)) => Version::Hybrid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(mountinfo: &str) -> Layout {
        let mounts = MountInfos::from_read(mountinfo.as_bytes()).unwrap();
        Layout::from_mounts(&mounts, |mount_point, file| match file {
            _ if mount_point.ends_with("hidden") => None,
            "cgroup.controllers" if mount_point.ends_with("unified") => Some("hugetlb\n".to_owned()),
            "cgroup.controllers" => Some("cpuset cpu io memory pids\n".to_owned()),
            _ => Some(String::new()),
        })
    }

    const V1: &str = "30 24 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
31 24 0:27 / /sys/fs/cgroup/memory rw,nosuid shared:10 - cgroup cgroup rw,memory
32 24 0:28 / /sys/fs/cgroup/systemd rw,nosuid shared:11 - cgroup cgroup rw,xattr,name=systemd
";

    #[test]
    fn controllers_mounted_together_share_a_hierarchy() {
        let layout = layout(V1);
        assert_eq!(layout.version(), Version::V1);
        assert_eq!(layout.v1[&Controller::Cpu], layout.v1[&Controller::Cpuacct]);
        assert_eq!(layout.v1.len(), 3);
    }

    #[test]
    fn a_v2_mount_beside_v1_is_hybrid() {
        let text = format!("{V1}33 24 0:29 / /sys/fs/cgroup/unified rw shared:12 - cgroup2 cgroup2 rw\n");
        let layout = layout(&text);
        assert_eq!(layout.version(), Version::Hybrid);
        assert_eq!(layout.v2, Some(("/sys/fs/cgroup/unified".into(), vec!["hugetlb".to_owned()])));
    }

    #[test]
    fn only_a_v2_mount_is_v2_and_nothing_is_none() {
        let text = "33 24 0:29 / /sys/fs/cgroup rw shared:12 - cgroup2 cgroup2 rw,nsdelegate\n";
        let unified = layout(text);
        assert_eq!(unified.version(), Version::V2);
        assert!(unified.is_unified());
        for controller in Controller::ALL {
            let place = unified.place(controller).unwrap();
            assert_eq!(place, Place { hierarchy: Hierarchy::V2, path: "/sys/fs/cgroup".into() }, "{controller}");
        }
        assert_eq!(unified.v2_names(), ["memory", "cpu", "cpuset", "io", "pids"]);
        assert_eq!(layout("22 1 0:5 / /proc rw - proc proc rw\n").version(), Version::None);
    }

    #[test]
    fn a_hybrid_controller_is_where_it_is_mounted() {
        let text = format!("{V1}33 24 0:29 / /elsewhere rw shared:12 - cgroup2 cgroup2 rw\n");
        let layout = layout(&text);
        let hierarchy = |controller| layout.place(controller).map(|place| place.hierarchy);
        assert_eq!(hierarchy(Controller::Memory), Some(Hierarchy::V1));
        assert_eq!(hierarchy(Controller::Pids), Some(Hierarchy::V2));
        assert_eq!(hierarchy(Controller::Freezer), Some(Hierarchy::V2));
        assert_eq!(layout.v2_names(), ["cpuset", "io", "pids"]);
        assert!(layout.uses_v2() && !layout.is_unified());
    }

    #[test]
    fn what_v2_does_not_have_is_nowhere() {
        let text = format!("{V1}33 24 0:29 / /sys/fs/cgroup/unified rw shared:12 - cgroup2 cgroup2 rw\n");
        let layout = layout(&text);
        assert_eq!(layout.place(Controller::Pids), None);
        assert_eq!(layout.v2_names(), [""; 0]);
    }

    #[test]
    fn v1_for_everything_leaves_a_v2_mount_alone() {
        let names = Controller::ALL.map(Controller::as_str).join(",");
        let text = format!(
            "30 24 0:26 / /cg rw - cgroup cgroup rw,{names}\n33 24 0:29 / /cg/unified rw - cgroup2 cgroup2 rw\n"
        );
        assert!(!layout(&text).uses_v2());
    }

    #[test]
    fn a_mount_that_another_one_hides_is_not_used() {
        let text = "31 24 0:27 / /hidden rw - cgroup cgroup rw,memory\n32 24 0:28 / /hidden rw - cgroup2 cgroup2 rw\n\
                    33 24 0:28 / /seen rw - cgroup2 cgroup2 rw\n";
        let layout = layout(text);
        assert_eq!(layout.place(Controller::Memory).unwrap(), Place { hierarchy: Hierarchy::V2, path: "/seen".into() });
        assert!(layout.is_unified());
    }
}
