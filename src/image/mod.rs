//! Images: the layers that a container's root is made of.
//!
//! For now there is one, the embedded `self` image; the engine takes layers as directories, top first, whatever
//! their source.

pub mod embedded;

use std::path::PathBuf;

/// A root file system as the engine takes it: directories to be stacked by overlayfs, the topmost first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootFs {
    /// The layers, read only, the topmost first; at least one.
    pub layers: Vec<PathBuf>,
}

/// Where the isobench binary stands inside every container that runs a workload.
pub const WORKLOAD_PATH: &str = "/isobench";

/// Where isobench keeps what outlives a process: images and, later, container state.
pub const STORE: &str = "/var/lib/isobench";
