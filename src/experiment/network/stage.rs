//! Where the traffic runs: a namespace that plays the host, one that plays the world outside, and a bridge where the
//! mode needs one. The only place of this experiment that knows how a lab is made.

use std::any::Any;
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::experiment::ExperimentError;
use crate::network::bridge::BridgeNetwork;
use crate::sys::netns::NetNs;

/// The namespaces and addresses of one case.
pub struct Stage {
    /// The namespace that plays the host.
    pub host: NetNs,
    /// The host's address on the link to the peer.
    pub host_address: Ipv4Addr,
    /// The namespace that plays the world outside.
    pub peer: NetNs,
    /// The peer's address on the link to the host.
    pub peer_address: Ipv4Addr,
    /// A bridge network on the host, where one is needed.
    pub bridge: Option<Arc<BridgeNetwork>>,
    /// What must live as long as the rest.
    pub keep: Box<dyn Any>,
}

impl Stage {
    /// Makes a lab, and a bridge in it when `bridge` says so.
    ///
    /// # Errors
    /// When the kernel refuses a part of it.
    pub fn lab(bridge: bool) -> Result<Self, ExperimentError> {
        let _ = bridge;
        Err(ExperimentError::Unsupported("this build has no lab yet, and traffic runs in a lab only".to_owned()))
    }
}
