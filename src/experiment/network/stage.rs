//! Where the traffic runs: a namespace that plays the host, one that plays the world outside, and a bridge where the
//! mode needs one. The only place of this experiment that knows how a lab is made.

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::experiment::ExperimentError;
use crate::lab::Lab;
use crate::network::bridge::BridgeNetwork;
use crate::sys::netns::NetNs;

/// The namespaces and addresses of one case.
pub(super) struct Stage {
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
    /// Owns the namespaces above.
    _lab: Lab,
}

impl Stage {
    /// Makes a lab, and a bridge in it when `bridge` says so.
    pub(super) fn lab(bridge: bool) -> Result<Self, ExperimentError> {
        let lab = Lab::new().map_err(ExperimentError::while_doing("making a lab"))?;
        let network = match bridge {
            true => Some(lab.bridge().map_err(ExperimentError::while_doing("making a bridge in the lab"))?),
            false => None,
        };
        Ok(Self {
            host: lab.host().netns().clone(),
            host_address: lab.host_address(),
            peer: lab.peer().clone(),
            peer_address: lab.peer_address(),
            bridge: network,
            _lab: lab,
        })
    }
}
