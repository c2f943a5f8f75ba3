//! What a container that outlives its command is to be: what `create` writes and `start` reads. Everything is settled
//! when it is made but for the name, the limits and the restart policy, which `rename` and `update` change.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::image::spec::HealthCheck;

/// A container as it was asked for, with what the image says filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The version of this form; see [`SCHEMA`].
    pub schema: u32,
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name, unique in the store.
    pub name: String,
    /// When it was made, by RFC 3339.
    pub created: String,
    /// What its image was asked for by.
    pub image: String,
    /// The image's identifier, `sha256:` and 64 digits; none for `self` and directories.
    pub image_id: Option<String>,
    /// The entry point, which comes before [`Config::command`].
    pub entrypoint: Vec<String>,
    /// The program and its arguments, or the arguments of the entry point.
    pub command: Vec<String>,
    /// `NAME=value` each; the last of one name holds.
    pub environment: Vec<String>,
    /// Where the program starts; absolute.
    pub working_directory: String,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty for root. Names are the image's own.
    pub user: String,
    /// Further groups, by name or number.
    pub groups: Vec<String>,
    /// The host name.
    pub hostname: String,
    /// The NIS domain name.
    pub domainname: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// How it is connected.
    pub network: NetworkMode,
    /// Ports to publish, each in one of the four forms of [`crate::network::PortMapping`].
    pub ports: Vec<String>,
    /// Ports that the image or `--expose` names, as in `80/tcp`.
    pub exposed: Vec<String>,
    /// Publish every exposed port on a free one of the host.
    pub publish_all: bool,
    /// Lines of /etc/hosts, as in `name:address`.
    pub extra_hosts: Vec<String>,
    /// Servers for /etc/resolv.conf; empty: the host's.
    pub dns: Vec<String>,
    /// Search domains for /etc/resolv.conf.
    pub dns_search: Vec<String>,
    /// Whether standard input stays open though no one is attached (`-i`).
    pub open_stdin: bool,
    /// Whether standard input ends with the client that was attached at the start: `-i` without `-d`.
    pub stdin_once: bool,
    /// Whether it has a terminal (`-t`).
    pub tty: bool,
    /// Binds, volumes and in-memory file systems.
    pub mounts: Vec<Mount>,
    /// Whether the root can only be read.
    pub read_only: bool,
    /// A user namespace of its own: the host's id for id 0 inside, and how many follow.
    pub user_namespace: Option<(u32, u32)>,
    /// Limits of its control groups.
    pub limits: Limits,
    /// Devices of the host to make inside.
    pub devices: Vec<Device>,
    /// Further device rules, each in the kernel's form, as in `c 1:3 rwm`.
    pub device_rules: Vec<String>,
    /// Limits of setrlimit(2), as in `("nofile", 1024, 4096)`: name, soft, hard.
    pub ulimits: Vec<(String, u64, u64)>,
    /// What it may do.
    pub security: Security,
    /// Whether a small init is PID 1, which reaps and passes signals on.
    pub init: bool,
    /// Whether it is removed once it has ended.
    pub auto_remove: bool,
    /// When it is started again by itself.
    pub restart: RestartPolicy,
    /// The signal that asks it to end, by number.
    pub stop_signal: i32,
    /// How long it is given to end.
    pub stop_timeout: Duration,
    /// How to see whether it is well.
    pub health: Option<HealthCheck>,
    /// How its output is kept.
    pub log: LogConfig,
}

/// The version of [`Config`]'s and [`super::state::State`]'s form that this program writes.
pub const SCHEMA: u32 = 1;

/// How a container is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// Only loopback.
    None,
    /// The host's stack.
    Host,
    /// `eth0` on this network; `bridge` is the default one.
    Bridge(String),
    /// The stack of another container, by name or id.
    Container(String),
}

/// Something that is mounted in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What it is.
    pub source: MountSource,
    /// Where it goes; absolute.
    pub target: String,
    /// Whether it can only be read.
    pub read_only: bool,
    /// How mounts made on one side show on the other, as in `rprivate`, `rslave`, `shared`; empty for `rprivate`.
    pub propagation: String,
}

/// Where a mount comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A path of the host.
    Bind {
        /// The path, absolute.
        path: String,
        /// Whether a missing path is made a directory, as `-v` does and `--mount` does not.
        create: bool,
    },
    /// A named volume.
    Volume {
        /// Its name: of the user's choice, or 64 hexadecimal digits for one that goes with the container.
        name: String,
        /// Whether it was made for this container alone.
        anonymous: bool,
    },
    /// A file system in memory, with mount options such as `size=64m,mode=1777`.
    Tmpfs {
        /// The options; empty for the kernel's.
        options: String,
    },
}

/// A device of the host that a container gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its path on the host.
    pub host: String,
    /// Its path inside, under `/dev`.
    pub container: String,
    /// What may be done with it: letters of `rwm`.
    pub access: String,
}

/// Limits as the command line takes them; absent: none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together; −1 for no limit.
    pub memory_swap: Option<i64>,
    /// Bytes of memory to which it is pushed back.
    pub memory_reservation: Option<u64>,
    /// Whether it is not killed when it is out of memory (v1 only).
    pub oom_kill_disable: bool,
    /// Relative weight of CPU time.
    pub cpu_shares: Option<u64>,
    /// CPU time a period, in µs.
    pub cpu_quota_us: Option<u64>,
    /// The period, in µs; absent: 100 000.
    pub cpu_period_us: Option<u64>,
    /// CPUs, as in `0-2,5`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes.
    pub cpuset_mems: Option<String>,
    /// Relative weight of block I/O.
    pub blkio_weight: Option<u64>,
    /// Bytes a second that may be read, by the device's path on the host.
    pub device_read_bps: Vec<(String, u64)>,
    /// Bytes a second that may be written.
    pub device_write_bps: Vec<(String, u64)>,
    /// Operations a second that may be read.
    pub device_read_iops: Vec<(String, u64)>,
    /// Operations a second that may be written.
    pub device_write_iops: Vec<(String, u64)>,
    /// Number of tasks; −1 for no limit.
    pub pids: Option<i64>,
}

/// What a container may do beyond or below the defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// Everything that root on the host may, all devices, nothing masked.
    pub privileged: bool,
    /// Capabilities beside the default ones, without `CAP_`, or `ALL`.
    pub cap_add: Vec<String>,
    /// Default capabilities that it does not get, or `ALL`.
    pub cap_drop: Vec<String>,
    /// Whether exec can never give more privileges.
    pub no_new_privileges: bool,
    /// The seccomp filter.
    pub seccomp: SeccompChoice,
}

/// Which seccomp filter a container gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeccompChoice {
    /// The built-in one.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// A profile in docker's form; its text, read when the container was made.
    Profile(String),
}

/// When a container is started again by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// When it ended with another code than 0, at most this often; 0 for no bound.
    OnFailure(u32),
    /// Always, unless it was stopped by hand.
    Always,
    /// As `Always`; it also stays stopped when the machine comes up again.
    UnlessStopped,
}

/// How a container's output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// Whether it is kept at all (`--log-driver none` says no).
    pub kept: bool,
    /// The size in bytes at which a new file is begun; `None`: never.
    pub max_size: Option<u64>,
    /// How many files there may be, the newest included; at least 1.
    pub max_files: u32,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { kept: true, max_size: None, max_files: 1 }
    }
}

impl Config {
    /// The program and its arguments: the entry point and what follows it.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        self.entrypoint.iter().chain(&self.command).cloned().collect()
    }

    /// The first 12 digits of its identifier, as lists show it.
    #[must_use]
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}
