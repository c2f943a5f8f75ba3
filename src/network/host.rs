//! The host that network drivers work on: a network namespace, the open netlink sockets inside it, and what this
//! process has made there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::NetworkError;
use super::ipam::Subnet;
use super::nat::Nat;
use crate::fs::FileError;
use crate::netlink::{NetlinkError, Protocol, Socket, address, link, route};
use crate::sys::netns::NetNs;

/// A network namespace that plays the host: the lab's, or the machine's own.
///
/// Several threads may work on it at once.
#[derive(Debug)]
pub struct Host {
    ns: NetNs,
    /// Sockets that no one uses just now; a thread that finds none opens one more.
    idle: Mutex<Vec<Socket>>,
    nat: Nat,
    /// The subnets of the networks made here, by the networks' names.
    networks: Mutex<BTreeMap<String, Subnet>>,
}

impl Host {
    /// Opens the sockets and lets the namespace forward packets between its links.
    ///
    /// # Errors
    /// When the namespace cannot be entered, a socket opened, or `ip_forward` set.
    pub fn new(ns: NetNs) -> Result<Arc<Self>, NetworkError> {
        let sockets = (Socket::open_in(&ns, Protocol::Route), Socket::open_in(&ns, Protocol::Netfilter));
        let open = |socket: Result<Socket, NetlinkError>| socket.map_err(NetworkError::kernel("host"));
        let (route, netfilter) = (open(sockets.0)?, open(sockets.1)?);
        let host = Self { ns, idle: Mutex::new(vec![route]), nat: Nat::new(netfilter), networks: Mutex::default() };
        host.set("ipv4/ip_forward", "1")?;
        Ok(Arc::new(host))
    }

    /// The namespace.
    #[must_use]
    pub fn netns(&self) -> &NetNs {
        &self.ns
    }

    /// Gives a setting under `/proc/sys/net` of this namespace a value, unless it has it already. That directory shows
    /// the namespace of the thread that looks.
    ///
    /// # Errors
    /// When the setting does not exist or may not be changed.
    pub fn set(&self, setting: &str, value: &str) -> Result<(), NetworkError> {
        let path = Path::new("/proc/sys/net").join(setting);
        let written = self.ns.enter(|| {
            let old = std::fs::read_to_string(&path).map_err(FileError::new("read", &path))?;
            if old.trim_end() == value {
                return Ok(());
            }
            std::fs::write(&path, value).map_err(FileError::new("write", &path))
        });
        written.map_err(|source| NetworkError::Namespace { act: "enter the host's network namespace", source })??;
        Ok(())
    }

    /// Like [`Host::set`], for a setting that comes with a kernel module: without the module there is nothing to set.
    ///
    /// # Errors
    /// When the setting exists and may not be changed.
    pub fn set_if_present(&self, setting: &str, value: &str) -> Result<(), NetworkError> {
        match self.set(setting, value) {
            Err(NetworkError::Setting(error)) if error.is_not_found() => Ok(()),
            result => result,
        }
    }

    /// Runs `body` with a socket for links, addresses and routes inside this namespace.
    ///
    /// # Errors
    /// When a socket must be opened and cannot be, or as the body says.
    pub fn netlink<T>(&self, body: impl FnOnce(&mut Socket) -> Result<T, NetlinkError>) -> Result<T, NetlinkError> {
        let idle = locked(&self.idle).pop();
        let mut socket = match idle {
            Some(socket) => socket,
            None => Socket::open_in(&self.ns, Protocol::Route)?,
        };
        let result = body(&mut socket);
        locked(&self.idle).push(socket);
        result
    }

    /// The address translation of this namespace.
    pub(super) fn nat(&self) -> &Nat {
        &self.nat
    }

    /// Sets a subnet aside for a network, if no other network, address or route of this namespace has a part of it.
    pub(super) fn reserve(&self, network: &str, subnet: Subnet) -> Result<(), NetworkError> {
        // The lock is held while the kernel is asked, so that two threads cannot both find the same subnet free.
        let mut networks = locked(&self.networks);
        let mut used: Vec<(Subnet, String)> = Vec::new();
        used.extend(networks.iter().map(|(name, other)| (*other, format!("network {name} ({other})"))));
        used.extend(self.netlink(kernel_subnets).map_err(NetworkError::kernel(network))?);
        if networks.contains_key(network) {
            let problem = "there is a network of this name already".to_owned();
            return Err(NetworkError::Config { network: network.to_owned(), problem });
        }
        if let Some((_, with)) = used.into_iter().find(|(other, _)| other.overlaps(subnet)) {
            return Err(NetworkError::Overlap { network: network.to_owned(), subnet, with });
        }
        networks.insert(network.to_owned(), subnet);
        Ok(())
    }

    /// Forgets the subnet of a network.
    pub(super) fn unreserve(&self, network: &str) {
        locked(&self.networks).remove(network);
    }

    /// Deletes a link; one that is gone already is no error, for it goes with the namespace of its other end.
    pub(super) fn delete_link(&self, network: &str, name: &str) -> Result<(), NetworkError> {
        // The socket is busy as long as the kernel is, so it is none of those that others wait for.
        let socket = Socket::open_in(&self.ns, Protocol::Route);
        match socket.and_then(|socket| link::delete_and_leave(socket, name)) {
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
            result => result.map_err(NetworkError::kernel(network)),
        }
    }
}

/// The subnets that the kernel knows, each with a text that names it. The default route leads to everywhere else and
/// therefore counts for nothing.
fn kernel_subnets(socket: &mut Socket) -> Result<Vec<(Subnet, String)>, NetlinkError> {
    let addresses = address::list(socket)?.into_iter().map(|address| {
        let subnet = Subnet::around(address.address, address.prefix_len);
        (subnet, format!("the host's address {}/{}", address.address, address.prefix_len))
    });
    let routes = route::list(socket)?.into_iter().filter(|route| route.prefix_len > 0).map(|route| {
        let subnet = Subnet::around(route.destination, route.prefix_len);
        (subnet, format!("the host's route to {subnet}"))
    });
    Ok(addresses.chain(routes).collect())
}

/// Takes a lock. What the locks here guard is consistent between any two statements, so that a thread which panicked
/// while it held one has broken nothing.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
