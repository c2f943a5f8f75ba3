//! Control groups: which hierarchies this host has, one group a container, limits written and read back, usage.
//!
//! The container engine makes and removes groups; experiments read usage. The values go through cgroups-rs,
//! controller by controller and setter by setter, because its `apply` drops errors; making, joining and removing a
//! group is on the hot path of a start and goes straight to the files. A hierarchy that was not asked for
//! (`name=systemd`) is never joined.
//!
//! v1 and v2 stand side by side, a controller at a time: [`Layout::place`] says where a controller is, and the file
//! of the controller knows what it is called there and what the value means there.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

pub mod blkio;
pub mod cpu;
pub mod cpuset;
pub mod delegate;
pub mod detect;
pub mod devices;
mod directory;
pub mod favour;
pub mod freezer;
pub mod group;
pub mod limits;
pub mod memory;
pub mod oom;
mod orphans;
pub mod owner;
pub mod pids;
pub mod pressure;
mod setting;
pub mod view;

pub use detect::Layout;
pub use group::Group;
pub use limits::{Applied, Limits};
pub use view::View;

/// A resource controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Controller {
    /// Memory and swap.
    Memory,
    /// CPU bandwidth and weights.
    Cpu,
    /// CPU time accounting (v1 only; part of `cpu` on v2).
    Cpuacct,
    /// CPUs and memory nodes.
    Cpuset,
    /// Block I/O (`io` on v2).
    Blkio,
    /// Device permissions (a BPF program on v2).
    Devices,
    /// Number of tasks.
    Pids,
    /// Freezing (part of the core on v2).
    Freezer,
}

impl Controller {
    /// Every controller, in the order in which a container's groups are made: the dearest first.
    pub const ALL: [Controller; 8] = [
        Controller::Memory,
        Controller::Cpu,
        Controller::Cpuacct,
        Controller::Cpuset,
        Controller::Blkio,
        Controller::Devices,
        Controller::Pids,
        Controller::Freezer,
    ];

    /// The name that v1 mounts and `/proc/cgroups` use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Cpu => "cpu",
            Controller::Cpuacct => "cpuacct",
            Controller::Cpuset => "cpuset",
            Controller::Blkio => "blkio",
            Controller::Devices => "devices",
            Controller::Pids => "pids",
            Controller::Freezer => "freezer",
        }
    }
}

impl Controller {
    /// The name in `cgroup.controllers` of v2. `None`: v2 has it in every group, without being asked.
    #[must_use]
    pub fn v2_name(self) -> Option<&'static str> {
        match self {
            Controller::Memory | Controller::Cpu | Controller::Cpuset | Controller::Pids => Some(self.as_str()),
            Controller::Blkio => Some("io"),
            Controller::Cpuacct | Controller::Devices | Controller::Freezer => None,
        }
    }
}

/// The two interfaces that the kernel has for control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hierarchy {
    /// A hierarchy for each controller.
    V1,
    /// One hierarchy for all.
    V2,
}

/// A group's directory for one controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which interface the directory speaks.
    pub hierarchy: Hierarchy,
    /// The directory.
    pub path: PathBuf,
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What went wrong with a control group.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file or directory of a group could not be used.
    #[error("cannot {act} {}", path.display())]
    File {
        /// What was tried.
        act: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A setting could not be written.
    #[error("cannot set {controller} {setting} to {value} in {}", path.display())]
    Write {
        /// The controller.
        controller: Controller,
        /// The setting's file.
        setting: &'static str,
        /// The value.
        value: String,
        /// The group.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A value that the kernel would refuse, or silently make another one of.
    #[error("{setting} cannot be {value}: {expected}")]
    Value {
        /// The setting's name in [`Limits`].
        setting: &'static str,
        /// The value.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A limit that only cgroup v2 has.
    #[error("the limit {setting} needs cgroup v2; the {controller} controller is mounted as v1 here")]
    NeedsV2 {
        /// The controller.
        controller: Controller,
        /// The setting's file.
        setting: &'static str,
    },
    /// A device rule that v1 would take, and give another meaning.
    #[error("cgroup v1 cannot {} `{rule}`: it would make a hole in a wider rule", if rule.allow { "permit" } else { "forbid" })]
    DeviceRule {
        /// The rule.
        rule: devices::Rule,
    },
    /// A device rule of a v1 group that goes beyond what the group above permits.
    #[error(
        "cgroup v1 cannot permit `{rule}` in {}: the group above does not, and a group cannot have more than that; a \
         container that is to get more while it runs has to be started with a device rule of its own",
        path.display()
    )]
    DeviceWidening {
        /// The rule.
        rule: devices::Rule,
        /// The group.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The program that stands for the device rules on v2 could not be loaded or attached.
    #[error("cannot {act} the device program of {}{}{log}", path.display(), if log.is_empty() { "" } else { "; the verifier says: " })]
    Program {
        /// What was tried.
        act: &'static str,
        /// The group.
        path: PathBuf,
        /// The verifier's log; empty where it said nothing.
        log: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// v2 takes processes or controllers in a group, not both; and these processes are not ours to move.
    #[error("no limits can be given under {}: processes that are not isobench's stand in it ({processes}); move them to a group below it first", path.display())]
    Occupied {
        /// The group.
        path: PathBuf,
        /// The processes, as `PID NAME`.
        processes: String,
    },
    /// The kernel keeps another value than the one written.
    #[error("{controller} {setting} was set to {requested}, but the kernel keeps {kept} in {}", path.display())]
    ReadBack {
        /// The controller.
        controller: Controller,
        /// The setting's file.
        setting: &'static str,
        /// What was written.
        requested: String,
        /// What is read back.
        kept: String,
        /// The group.
        path: PathBuf,
    },
    /// A limit needs a controller that this host does not offer.
    #[error("the limit {setting} needs the {controller} controller, which is not mounted here")]
    NoController {
        /// The controller.
        controller: Controller,
        /// The setting.
        setting: &'static str,
    },
    /// A file holds something that the kernel does not document.
    #[error("cannot understand `{content}` in {}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it holds.
        content: String,
    },
    /// Processes stay in a group that is to be removed.
    #[error("{} still has processes after {tries} tries", path.display())]
    Busy {
        /// The group.
        path: PathBuf,
        /// How often removing was tried.
        tries: u32,
    },
}

impl CgroupError {
    /// Names the act and the path of an I/O error; made for `map_err`.
    fn file(act: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { act, path, source }
    }
}

/// Reads a file of a group, without its last line break.
pub(crate) fn read(directory: &Path, file: &str) -> Result<String, CgroupError> {
    let path = directory.join(file);
    let mut text = String::with_capacity(1024);
    // Not `fs::read_to_string`: it asks for the size first, and the kernel's files have none.
    let read = std::fs::File::open(&path).and_then(|file| file.take(u64::MAX).read_to_string(&mut text));
    read.map_err(CgroupError::file("read", &path))?;
    text.truncate(text.trim_end().len());
    Ok(text)
}

/// Reads a file of a group that holds one number.
pub(crate) fn read_number(directory: &Path, file: &str) -> Result<u64, CgroupError> {
    let text = read(directory, file)?;
    text.parse().map_err(|_| CgroupError::Content { path: directory.join(file), content: text })
}

/// The number behind a key in a file of lines `KEY NUMBER`, such as `memory.events` and `cpu.stat`.
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// As [`keyed`], where the kernel always has the key.
pub(crate) fn read_keyed(directory: &Path, file: &str, text: &str, key: &str) -> Result<u64, CgroupError> {
    keyed(text, key).ok_or_else(|| CgroupError::Content { path: directory.join(file), content: text.to_owned() })
}

/// Writes a file of a group.
pub(crate) fn write(directory: &Path, file: &str, value: &str) -> Result<(), CgroupError> {
    let path = directory.join(file);
    // Not `fs::write`: opening to create takes the lock of the whole directory, and only the kernel makes these files.
    let written =
        std::fs::File::options().write(true).open(&path).and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(CgroupError::file("write", path))
}
