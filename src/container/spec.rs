//! What a container is to be. Pure data: `plan` compiles it and finds what is wrong with it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use super::capabilities::CapabilitySet;
use crate::cgroup::devices::Kind;
use crate::cgroup::{Group, Limits};
use crate::image::RootFs;
use crate::network::PortMapping;
use crate::network::bridge::BridgeNetwork;
use crate::sys::netns::NetNs;

/// A container, but for what connects it to the world (network, standard streams).
#[derive(Debug, Clone)]
pub struct ContainerSpec {
    /// The layers of its root.
    pub root: RootFs,
    /// The private writable layer over them.
    pub writable: Writable,
    /// Whether the root can only be read.
    pub read_only_root: bool,
    /// What is mounted in it beside what every container has.
    pub mounts: Vec<Mount>,
    /// The program and its arguments; at least the program.
    pub arguments: Vec<String>,
    /// `NAME=value` each.
    pub environment: Vec<String>,
    /// Where it starts; absolute.
    pub working_directory: String,
    /// Who it runs as.
    pub user: User,
    /// The host name; at most 64 bytes.
    pub hostname: String,
    /// The NIS domain name, if it is to have one.
    pub domainname: Option<String>,
    /// A user namespace of its own with this mapping.
    pub user_namespace: Option<UserMapping>,
    /// A time namespace of its own (without offsets).
    pub time_namespace: bool,
    /// Resource limits; `None` leaves the container out of every cgroup of its own.
    pub limits: Option<Limits>,
    /// The group inside which its own is made; `None` for the common parent of all.
    pub group_parent: Option<Arc<Group>>,
    /// Device nodes beside the standard ones; what may be done with them is up to the device rules of `limits`.
    pub devices: Vec<DeviceNode>,
    /// What root inside may do.
    pub capabilities: CapabilitySet,
    /// Whether exec can never give more privileges.
    pub no_new_privileges: bool,
    /// The filter of its system calls.
    pub seccomp: Seccomp,
    /// Whether paths of /proc and /sys that tell about or reach the host are masked or read-only.
    pub mask_paths: bool,
    /// Resource limits of the process; only ever lowered.
    pub rlimits: Vec<Rlimit>,
    /// Whether its program has a terminal, opened on its own `/dev/pts`, in the place of the standard streams.
    pub terminal: bool,
    /// Whether a stub stands between the launching process and the program: see [`crate::sys::guard`]. For images that
    /// others made.
    pub guarded: bool,
    /// The identifier of a container that outlives the process that started it, which is also its control groups' name;
    /// `None` for one that ends with it.
    pub kept_as: Option<String>,
}

/// The filter of a container's system calls.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Seccomp {
    /// The built-in one, made for its capabilities.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// Another one, compiled.
    Filter(Arc<[seccompiler::sock_filter]>),
}

/// Where a container's changes of its root go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writable {
    /// Into memory, where they end with the container.
    Memory {
        /// How much there may be, in bytes.
        bytes: u64,
    },
    /// Into directories on disk, which outlive it. With a user namespace these and the layers are id-mapped: on disk
    /// everything belongs to whom it would belong to without one.
    Directory {
        /// The upper directory of the overlay.
        upper: PathBuf,
        /// Its work directory, beside the upper one.
        work: PathBuf,
    },
}

/// Something that is mounted in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What it is.
    pub source: MountSource,
    /// Where it goes: absolute, without `..`, and not the root. It is resolved inside the container, and made if it is
    /// missing. It may not lie in /proc or /sys.
    pub target: String,
    /// Whether it can only be read.
    pub read_only: bool,
    /// How mounts made on one side show on the other.
    pub propagation: Propagation,
    /// Whether the mounts below a bind's source come along.
    pub recursive: bool,
}

/// Where a mount comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A path of the host, links followed.
    Bind {
        /// The path.
        path: PathBuf,
        /// Whether, in a user namespace, owners show as they are on disk (root's files are root's inside), as volumes do.
        /// Otherwise they are whom the host's ids are inside, which is nobody for most.
        id_mapped: bool,
    },
    /// A new file system in memory, with mount options such as `size=64m,mode=1777`. Unless they say otherwise nothing
    /// is executed from it, and set-user-id bits and devices mean nothing.
    Tmpfs {
        /// The options, separated by commas.
        options: String,
    },
}

/// How mounts made on one side of a bind show on the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    /// Which way.
    pub kind: PropagationKind,
    /// Whether it holds for the mounts below too.
    pub recursive: bool,
}

/// Which way mounts show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PropagationKind {
    /// Neither way.
    Private,
    /// From the host to the container; the source must be on a mount that is shared or a slave.
    Slave,
    /// Both ways; the source must be on a shared mount.
    Shared,
}

impl Default for Propagation {
    /// Neither way, for everything.
    fn default() -> Self {
        Self { kind: PropagationKind::Private, recursive: true }
    }
}

impl FromStr for Propagation {
    type Err = String;

    /// From docker's words; empty is `rprivate`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, recursive) = match text {
            "" | "rprivate" => (PropagationKind::Private, true),
            "private" => (PropagationKind::Private, false),
            "rslave" => (PropagationKind::Slave, true),
            "slave" => (PropagationKind::Slave, false),
            "rshared" => (PropagationKind::Shared, true),
            "shared" => (PropagationKind::Shared, false),
            other => {
                return Err(format!(
                    "`{other}` is no propagation: private, rprivate, slave, rslave, shared or rshared"
                ));
            }
        };
        Ok(Self { kind, recursive })
    }
}

/// A user, its group and its further groups, by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// Which ids of the host stand for the ids from 0 inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserMapping {
    /// The host's id for id 0 inside.
    pub host_start: u32,
    /// How many ids follow each other; at least 1.
    pub count: u32,
}

/// A device node in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    /// Its name under `/dev`, without a slash.
    pub name: String,
    /// Block or character device.
    pub kind: Kind,
    /// The major number.
    pub major: u32,
    /// The minor number.
    pub minor: u32,
}

/// A limit of setrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// RLIMIT_*.
    pub resource: u32,
    /// The soft limit.
    pub soft: u64,
    /// The hard limit; never above what the launching process has.
    pub hard: u64,
}

/// How a container is connected, with the resources that the caller made for it (in a lab, or on the real host).
#[derive(Clone)]
pub enum Network {
    /// Shares this namespace, which plays the host.
    Host(NetNs),
    /// A namespace of its own with only loopback.
    None,
    /// A namespace of its own with `eth0` on this bridge.
    Bridge {
        /// The bridge network.
        network: Arc<BridgeNetwork>,
        /// Ports to publish on the bridge's host.
        ports: Vec<PortMapping>,
    },
    /// Shares the namespace of another container.
    Container(NetNs),
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Network::Host(_) => "host",
            Network::None => "none",
            Network::Bridge { .. } => "bridge",
            Network::Container(_) => "container",
        })
    }
}

impl ContainerSpec {
    /// The user namespace that layers and writable directories are id-mapped by, where they are.
    #[must_use]
    pub fn id_mapping(&self) -> Option<UserMapping> {
        self.user_namespace.filter(|_| matches!(self.writable, Writable::Directory { .. }))
    }

    /// A container of an image that runs a program with everything else as docker has it by default.
    #[must_use]
    pub fn new(root: RootFs, arguments: Vec<String>) -> Self {
        Self {
            root,
            writable: Writable::Memory { bytes: 1 << 30 },
            read_only_root: false,
            mounts: Vec::new(),
            arguments,
            environment: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
            working_directory: "/".to_owned(),
            user: User::default(),
            hostname: "isobench".to_owned(),
            domainname: None,
            user_namespace: None,
            time_namespace: false,
            limits: Some(Limits::default()),
            group_parent: None,
            devices: Vec::new(),
            capabilities: CapabilitySet::docker_default(),
            no_new_privileges: true,
            seccomp: Seccomp::Default,
            mask_paths: true,
            rlimits: Vec::new(),
            terminal: false,
            guarded: false,
            kept_as: None,
        }
    }
}
