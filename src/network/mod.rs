//! (under construction) Network drivers on a given host namespace.

pub mod bridge;

use std::net::Ipv4Addr;

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

/// (under construction)
#[derive(Debug, thiserror::Error)]
#[error("network")]
pub struct NetworkError;
