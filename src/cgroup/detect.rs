//! Which cgroup hierarchies are mounted, where, with which controllers: v1, hybrid or v2.
//!
//! Read from `/proc/self/mountinfo`, so a controller counts only where it can be used, wherever it is mounted.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use procfs::FromRead;
use procfs::process::MountInfos;

use super::{CgroupError, Controller};

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
        Ok(Self::from_mounts(&mounts, |mount_point| {
            let controllers = std::fs::read_to_string(mount_point.join("cgroup.controllers")).unwrap_or_default();
            controllers.split_whitespace().map(str::to_owned).collect()
        }))
    }

    /// The same from a given mount table; `v2_controllers` reads a v2 mount's `cgroup.controllers`.
    fn from_mounts(mounts: &MountInfos, v2_controllers: impl Fn(&Path) -> Vec<String>) -> Self {
        let mut layout = Self::default();
        for mount in mounts.0.iter() {
            match mount.fs_type.as_str() {
                "cgroup" => {
                    for controller in Controller::ALL {
                        // The first mount of a hierarchy wins, as it does for every other tool.
                        if mount.super_options.contains_key(controller.as_str()) {
                            layout.v1.entry(controller).or_insert_with(|| mount.mount_point.clone());
                        }
                    }
                }
                "cgroup2" if layout.v2.is_none() => {
                    layout.v2 = Some((mount.mount_point.clone(), v2_controllers(&mount.mount_point)));
                }
                _ => {}
            }
        }
        layout
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
        Layout::from_mounts(&mounts, |_| vec!["hugetlb".to_owned()])
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
        assert_eq!(layout(text).version(), Version::V2);
        assert_eq!(layout("22 1 0:5 / /proc rw - proc proc rw\n").version(), Version::None);
    }
}
