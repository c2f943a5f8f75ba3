//! What can be put under test, behind one trait; the experiments know runtimes only by it.

use std::fmt;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::network::PortMapping;
use crate::network::bridge::BridgeNetwork;
use crate::scenario::RuntimeKind;
use crate::sys::netns::NetNs;

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

/// What to start.
#[derive(Debug)]
pub struct StartRequest {
    /// The arguments of the in-container workload, as in `["stamp"]`: see [`crate::workload`].
    pub workload: Vec<String>,
    /// How it is connected.
    pub network: Network,
    /// The program's standard output; absent: /dev/null.
    pub stdout: Option<OwnedFd>,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// What is known once the program has been reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// How it ended.
    pub status: ExitStatus,
    /// When it was reaped: ns of CLOCK_MONOTONIC.
    pub reaped_ns: u64,
    /// User CPU time of the container's processes, in ns.
    pub user_ns: u64,
    /// System CPU time of the container's processes, in ns.
    pub system_ns: u64,
}

/// One step of a start, from the request to the exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// The phase's name, as in `overlay`.
    pub name: &'static str,
    /// When it began: ns of CLOCK_MONOTONIC.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: u64,
}

/// A container (or process) that was started.
pub trait Instance: Send {
    /// The first process as the host sees it.
    fn pid(&self) -> u32;

    /// The address on the bridge, where it has one.
    fn address(&self) -> Option<Ipv4Addr>;

    /// The ports as published, with the host ports that were chosen.
    fn ports(&self) -> &[PortMapping];

    /// The network namespace it is in.
    ///
    /// # Errors
    /// When the process is gone.
    fn netns(&self) -> Result<NetNs, RuntimeError>;

    /// The steps of the start, without gaps, in order.
    fn phases(&self) -> &[Phase];

    /// Waits for the first process to end and reaps it. Calling it again returns the same.
    ///
    /// # Errors
    /// When waiting fails.
    fn wait(&mut self) -> Result<Exit, RuntimeError>;

    /// Ends every process of the container with SIGKILL; [`Instance::wait`] then returns.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    fn kill(&mut self) -> Result<(), RuntimeError>;

    /// Gives back everything that the container used. A running one is ended first.
    ///
    /// # Errors
    /// When something could not be given back.
    fn remove(self: Box<Self>) -> Result<(), RuntimeError>;
}

/// A runtime under test.
pub trait Runtime: Send + Sync {
    /// Which one it is.
    fn kind(&self) -> RuntimeKind;

    /// Starts one container; returns when its program has been handed to the kernel for execution.
    ///
    /// # Errors
    /// When the container cannot be made; nothing of it is left behind.
    fn start(&self, request: StartRequest) -> Result<Box<dyn Instance>, RuntimeError>;
}

/// Why a runtime could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The runtime does not know this network mode.
    #[error("the {runtime} runtime has no network mode `{network}`")]
    NetworkMode {
        /// The runtime.
        runtime: RuntimeKind,
        /// The mode.
        network: String,
    },
    /// A step failed.
    #[error("{doing}")]
    Failed {
        /// What was being done.
        doing: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The runtime of a kind, ready to start containers.
///
/// # Errors
/// When this host cannot run it.
pub fn by_kind(kind: RuntimeKind) -> Result<Arc<dyn Runtime>, RuntimeError> {
    Err(RuntimeError::NetworkMode { runtime: kind, network: String::new() })
}
