//! What can be put under test, behind one trait; the experiments know runtimes only by it.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

pub mod builtin;
pub mod floor;
pub mod stack;

use crate::cgroup::{Applied, Group, Limits};
pub use crate::container::Network;
pub use crate::container::spec::DeviceNode;
use crate::network::PortMapping;
use crate::scenario::RuntimeKind;
use crate::sys::clock;
pub use crate::sys::launch::{ExitStatus, Reaped};
use crate::sys::netns::NetNs;

/// What to start.
#[derive(Debug)]
pub struct StartRequest {
    /// The arguments of the in-container workload, as in `["stamp"]`: see [`crate::workload`].
    pub workload: Vec<String>,
    /// How it is connected.
    pub network: Network,
    /// The program's standard input; absent: /dev/null.
    pub stdin: Option<OwnedFd>,
    /// The program's standard output; absent: /dev/null.
    pub stdout: Option<OwnedFd>,
    /// When it was asked for: ns of CLOCK_MONOTONIC. The phases begin here.
    pub requested_ns: u64,
    /// Resource limits, written and read back before the program begins.
    pub limits: Limits,
    /// Device nodes beside the standard ones.
    pub devices: Vec<DeviceNode>,
    /// The group inside which the container's own is made.
    pub group_parent: Option<Arc<Group>>,
}

impl StartRequest {
    /// A request made now, with no limit, no further device, no input and no output.
    #[must_use]
    pub fn new(workload: Vec<String>, network: Network) -> Self {
        Self {
            workload,
            network,
            stdin: None,
            stdout: None,
            requested_ns: clock::now_ns(),
            limits: Limits::default(),
            devices: Vec::new(),
            group_parent: None,
        }
    }
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
    fn phases(&self) -> Vec<Phase>;

    /// Its control groups, where the runtime made any.
    fn group(&self) -> Option<&Group>;

    /// The limits as they were written and read back.
    fn applied(&self) -> &[Applied];

    /// Runs a further workload inside, beside the first process, to its end, and reaps it. It has no input and no output.
    ///
    /// # Errors
    /// When the container has ended, a step fails, or the runtime has no containers that could be joined.
    fn exec(&mut self, workload: &[String]) -> Result<Reaped, RuntimeError>;

    /// Waits for the first process to end and reaps it. Calling it again returns the same.
    ///
    /// # Errors
    /// When waiting fails.
    fn wait(&mut self) -> Result<Reaped, RuntimeError>;

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

    /// The layers of the root that its containers get; none where it gives them no root of their own.
    fn layers(&self) -> &[PathBuf] {
        &[]
    }

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
    Ok(match kind {
        RuntimeKind::Floor => Arc::new(floor::Floor::new()?),
        RuntimeKind::Builtin => Arc::new(builtin::Builtin::new()?),
    })
}

/// The runtime of a kind on an image, by what [`crate::image::Image::open`] takes, with so many small layers more on
/// top of it; the floor has no root of its own.
///
/// # Errors
/// When this host cannot run it, or the image is not there.
pub fn on_image(kind: RuntimeKind, image: &str, more: u32) -> Result<Arc<dyn Runtime>, RuntimeError> {
    let builtin = match kind {
        RuntimeKind::Floor => return by_kind(kind),
        RuntimeKind::Builtin if image == "self" => builtin::Builtin::new()?,
        RuntimeKind::Builtin => builtin::Builtin::on(image)?,
    };
    Ok(Arc::new(builtin.stacked(more)?))
}

impl RuntimeError {
    /// Names what was being done; made for `map_err`.
    fn while_doing<E>(doing: impl Into<String>) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let doing = doing.into();
        move |source| Self::Failed { doing, source: source.into() }
    }
}

/// The arguments with which the isobench binary runs an in-container workload.
fn workload_arguments(workload: &[String]) -> impl Iterator<Item = String> {
    ["__workload".to_owned()].into_iter().chain(workload.iter().cloned())
}
