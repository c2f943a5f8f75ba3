//! Network drivers on a given host namespace: a [`host::Host`] is where they work, the lab's or the real one.
//!
//! Layer 2. `container` attaches what it starts, `lab` makes hosts to work on. One file a driver; [`ipam`] hands out
//! addresses, [`nat`] translates them, [`ports`] reads the forms in which ports are published, [`machine`] shares a
//! network with other processes.

pub mod bridge;
pub mod error;
mod holder;
pub mod host;
pub mod ipam;
pub mod lease;
pub mod machine;
pub mod nat;
pub mod ports;

use std::net::Ipv4Addr;

pub use error::NetworkError;

/// A transport protocol whose ports can be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One published port: what reaches the host there is sent on to the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortMapping {
    /// The host address; `None` means every one.
    pub host_ip: Option<Ipv4Addr>,
    /// The host port; 0 asks for a free one.
    pub host_port: u16,
    /// The port in the container.
    pub container_port: u16,
    /// The protocol.
    pub protocol: Protocol,
}
