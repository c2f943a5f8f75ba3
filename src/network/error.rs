//! Why a network could not be made, joined or taken down.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;

use super::PortMapping;
use super::ipam::{IpamError, Subnet};
use crate::fs::FileError;
use crate::netlink::NetlinkError;

/// Why a network driver did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A text is no published port.
    #[error("`{spec}` is not a published port: {problem}")]
    PortSpec {
        /// The text.
        spec: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// A network's configuration makes no sense.
    #[error("network {network}: {problem}")]
    Config {
        /// The network.
        network: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// An address could not be had.
    #[error("network {network} has no address to give")]
    Address {
        /// The network.
        network: String,
        /// Why not.
        #[source]
        source: IpamError,
    },
    /// A subnet is in use already.
    #[error("subnet {subnet} of network {network} overlaps {with}")]
    Overlap {
        /// The new network.
        network: String,
        /// Its subnet.
        subnet: Subnet,
        /// What has some of these addresses.
        with: String,
    },
    /// A host port is taken.
    #[error("host port {port} is taken by {holder}")]
    PortTaken {
        /// The port that was wanted.
        port: HostPort,
        /// Who has it.
        holder: PortHolder,
    },
    /// A host port cannot be taken, though no one holds it.
    #[error("host port {port} cannot be published")]
    PortUnavailable {
        /// The port that was wanted.
        port: HostPort,
        /// Why not; EADDRNOTAVAIL says that the host does not have that address.
        #[source]
        source: io::Error,
    },
    /// A network namespace could not be worked in.
    #[error("cannot {act}")]
    Namespace {
        /// What was being done.
        act: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A kernel setting could not be made.
    #[error("cannot set up the host namespace")]
    Setting(#[from] FileError),
    /// What is noted of the networks of a namespace cannot be read or written.
    #[error("the notes on network {network} cannot be used")]
    Notes {
        /// The network.
        network: String,
        /// Which file, and why.
        #[source]
        source: FileError,
    },
    /// A note on a network is damaged or was written by another version.
    #[error("{} cannot be understood: {problem}", path.display())]
    Damaged {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Every subnet that a network could have overlaps something on the host.
    #[error(
        "no subnet is free for network {network}: each /16 from 172.16.0.0 to 172.31.0.0 and from 10.231.0.0 to 10.255.0.0 overlaps something on the host"
    )]
    NoSubnet {
        /// The network.
        network: String,
    },
    /// The kernel refused a step.
    #[error("network {network}")]
    Kernel {
        /// The network.
        network: String,
        /// The step, and why.
        #[source]
        source: NetlinkError,
    },
    /// A network still has containers on it.
    #[error("network {network} still has {endpoints} containers on it")]
    InUse {
        /// The network.
        network: String,
        /// How many.
        endpoints: usize,
    },
    /// A network has been destroyed.
    #[error("network {network} has been destroyed")]
    Destroyed {
        /// The network.
        network: String,
    },
    /// A container is not on the network.
    #[error("network {network} has no container at {address}")]
    NotAttached {
        /// The network.
        network: String,
        /// The address that was looked for.
        address: Ipv4Addr,
    },
    /// Something failed, and what had been done until then could not all be undone.
    #[error("{}; and this could not be undone: {}", chain(.cause), list(.left))]
    Undo {
        /// What failed first.
        cause: Box<NetworkError>,
        /// What failed while undoing.
        left: Vec<NetworkError>,
    },
    /// Parts could not be taken down; the others were.
    #[error("network {network} was not taken down completely: {}", list(.errors))]
    Teardown {
        /// The network.
        network: String,
        /// What failed.
        errors: Vec<NetworkError>,
    },
}

impl NetworkError {
    /// Names the network in an error of the kernel's; made for `map_err`.
    pub(super) fn kernel(network: &str) -> impl FnOnce(NetlinkError) -> Self {
        |source| Self::Kernel { network: network.to_owned(), source }
    }

    /// This error after an attempt to undo what had been done before it.
    pub(super) fn after_undo(self, left: Vec<Self>) -> Self {
        if left.is_empty() { self } else { Self::Undo { cause: Box::new(self), left } }
    }
}

/// Success when nothing failed, else every failure in one error.
pub(super) fn collected(network: &str, mut errors: Vec<NetworkError>) -> Result<(), NetworkError> {
    match errors.len() {
        0 => Ok(()),
        1 => errors.pop().map_or(Ok(()), Err),
        _ => Err(NetworkError::Teardown { network: network.to_owned(), errors }),
    }
}

/// A port on the host's side, as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostPort(pub PortMapping);

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.0.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
        write!(f, "{address}:{}/{}", self.0.host_port, self.0.protocol)
    }
}

/// Who has a host port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortHolder {
    /// A container for which it is published.
    Container {
        /// The container's network.
        network: String,
        /// Its address there.
        address: Ipv4Addr,
        /// The port as published.
        port: PortMapping,
    },
    /// A container that another process looks after.
    Named {
        /// Its name.
        name: String,
        /// Its identifier.
        id: String,
    },
    /// A program on the host.
    Program {
        /// Its pid.
        pid: u32,
        /// Its name, as the kernel has it.
        name: String,
    },
    /// A socket of a program on the host that could not be found.
    Socket,
    /// The same request, which asks for it twice.
    SameRequest,
}

impl fmt::Display for PortHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container { network, address, port } => {
                write!(f, "the container at {address} on network {network} (published as {})", HostPort(*port))
            }
            Self::Named { name, id } => write!(f, "container {name} ({})", id.get(..12).unwrap_or(id)),
            Self::Program { pid, name } => write!(f, "the program {name} (pid {pid}) on the host"),
            Self::Socket => f.write_str("a socket of a program on the host"),
            Self::SameRequest => f.write_str("another port of the same container"),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn list(errors: &[NetworkError]) -> String {
    errors.iter().map(|error| chain(error)).collect::<Vec<_>>().join("; ")
}
