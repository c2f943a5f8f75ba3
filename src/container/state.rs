//! What a container that outlives its command is doing: written by whoever changes it, under the container's lock.

use serde::{Deserialize, Serialize};

use crate::cgroup::owner::Owner;

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It was made and never started.
    Created,
    /// It runs.
    Running,
    /// It runs, and is frozen.
    Paused,
    /// It has ended and is about to be started again by its restart policy.
    Restarting,
    /// It has ended.
    Exited,
}

impl Status {
    /// Docker's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
        }
    }

    /// Whether it has processes.
    #[must_use]
    pub fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// How well a container with a health check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// No check has succeeded yet.
    Starting,
    /// The last check succeeded.
    Healthy,
    /// As many checks in a row failed as it takes.
    Unhealthy,
}

/// One health check that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// When it began, by RFC 3339.
    pub start: String,
    /// When it ended.
    pub end: String,
    /// The code that it ended with.
    pub exit_code: i32,
    /// What it wrote, at most 4096 bytes.
    pub output: String,
}

/// Its place on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The network's name.
    pub network: String,
    /// Its address.
    pub address: String,
    /// The length of the subnet's prefix.
    pub prefix_len: u8,
    /// Where it sends what is not for the subnet.
    pub gateway: String,
    /// The link-layer address of its `eth0`.
    pub mac: String,
    /// Its published ports with the host ports that were chosen, each as `ip:hostPort:ctrPort/protocol`.
    pub ports: Vec<String>,
}

/// A process that cannot be confused with a later one of its pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its pid on the host.
    pub pid: u32,
    /// When it started: clock ticks since boot.
    pub start_ticks: u64,
}

impl Process {
    /// A running process; `None` for one that has ended.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        Owner::of(pid).map(|owner| Self { pid, start_ticks: owner.start_ticks })
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_alive(self) -> bool {
        Owner { pid: self.pid, start_ticks: self.start_ticks }.is_alive()
    }
}

/// The state of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The version of this form.
    pub schema: u32,
    /// What it is doing.
    pub status: Status,
    /// In which boot of the machine that was written.
    pub boot: String,
    /// Its first process, while it is up.
    pub init: Option<Process>,
    /// The process that looks after it.
    pub monitor: Option<Process>,
    /// The code that it ended with: the program's, or 128 and the signal's number.
    pub exit_code: Option<i32>,
    /// Why it could not be started.
    pub error: String,
    /// Whether the kernel ended a process of it for want of memory.
    pub oom_killed: bool,
    /// When it was started last, by RFC 3339.
    pub started: Option<String>,
    /// When it ended last, by RFC 3339.
    pub finished: Option<String>,
    /// How often its restart policy has started it.
    pub restarts: u32,
    /// Whether it was stopped by hand, which ends what the restart policy does.
    pub stopped_by_hand: bool,
    /// Whether its removal was begun.
    pub removing: bool,
    /// Where it is connected, while it is up.
    pub connection: Option<Connection>,
    /// How well it is, if it has a health check.
    pub health: Option<Health>,
    /// The last health checks, the newest last, at most 5.
    pub probes: Vec<Probe>,
    /// How many health checks in a row have failed.
    pub failing_streak: u32,
}

impl State {
    /// Of a container that was just made.
    #[must_use]
    pub fn created(boot: String) -> Self {
        Self {
            schema: super::config::SCHEMA,
            status: Status::Created,
            boot,
            init: None,
            monitor: None,
            exit_code: None,
            error: String::new(),
            oom_killed: false,
            started: None,
            finished: None,
            restarts: 0,
            stopped_by_hand: false,
            removing: false,
            connection: None,
            health: None,
            probes: Vec::new(),
            failing_streak: 0,
        }
    }

    /// Whether its monitor runs.
    #[must_use]
    pub fn is_monitored(&self) -> bool {
        self.monitor.is_some_and(Process::is_alive)
    }

    /// Whether its first process runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.init.is_some_and(Process::is_alive)
    }
}
