//! (under construction) Layers and the embedded `self` image.

/// Where the isobench binary stands inside every container that runs a workload.
pub const WORKLOAD_PATH: &str = "/isobench";
