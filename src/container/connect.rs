//! How a container that outlives its command is connected: its network mode, as the configuration has it, becomes what
//! [`super::Container::start`] takes. The process that looks after the container calls this, since addresses and ports
//! are held for as long as that process lives.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::Network;
use super::config::{Config, NetworkMode};
use super::state::{Connection, State};
use super::store::{Store, StoreError, Stored};
use crate::cgroup::owner::Owner;
use crate::fs::FileError;
use crate::network::bridge::{BridgeNetwork, Endpoint};
use crate::network::machine::{self, MachineNetworks, Tenant};
use crate::network::{NetworkError, PortMapping};
use crate::sys::netns::NetNs;

/// Why a container cannot be connected.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The network failed, or a port is none.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The container whose network is to be shared cannot be found, or is not running.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A namespace cannot be opened.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no such network.
    #[error("network {0} not found")]
    Unknown(String),
    /// A container would have to share its own network.
    #[error("a container cannot share its own network")]
    Itself,
    /// The calling process cannot be found in /proc.
    #[error("cannot find this process in /proc")]
    NoProcess,
}

/// What is there for a container before it is started.
pub struct Prepared {
    /// What to start it with. A place on a bridge is given back when this is dropped without a start.
    pub network: Network,
    /// Its address and its gateway, where it is on a bridge.
    pub place: Option<(Ipv4Addr, Ipv4Addr)>,
    /// The container whose network it shares; its hosts file and its like are this one's too.
    pub shares: Option<Stored>,
}

/// Prepares the network of a container for its start by this process; `host` is the namespace that plays the host.
///
/// # Errors
/// When the network is unknown or cannot be made, or the container to share with does not run.
pub fn prepare(config: &Config, store: &Store, host: NetNs) -> Result<Prepared, ConnectError> {
    let prepared = |network| Prepared { network, place: None, shares: None };
    match &config.network {
        NetworkMode::None => Ok(prepared(Network::None)),
        NetworkMode::Host => Ok(prepared(Network::Host(host))),
        NetworkMode::Bridge(name) if name == machine::DEFAULT => {
            let ports = ports(config)?;
            let joined = MachineNetworks::open(host)?.join(&tenant(config)?)?;
            let place = Some((joined.address, joined.network.gateway()));
            Ok(Prepared { network: Network::Bridge { network: joined.network, ports }, place, shares: None })
        }
        NetworkMode::Bridge(name) => Err(ConnectError::Unknown(name.clone())),
        NetworkMode::Container(name) => {
            let other = store.find(name)?;
            if other.config.id == config.id {
                return Err(ConnectError::Itself);
            }
            let namespace = namespace_of(&other)?;
            Ok(Prepared { network: Network::Container(namespace), place: None, shares: Some(other) })
        }
    }
}

/// Takes over the place of a container that outlived the process which looked after it: the network and the endpoint
/// that are to be detached when the container ends. `None` when it is on no bridge.
///
/// # Errors
/// When the notes on the network cannot be used.
pub fn take_over(config: &Config, host: NetNs) -> Result<Option<(Arc<BridgeNetwork>, Endpoint)>, ConnectError> {
    let NetworkMode::Bridge(_) = &config.network else { return Ok(None) };
    Ok(MachineNetworks::open(host)?.take_over(&tenant(config)?)?)
}

/// A container as the network knows it. Its process is not what `Owner::current` remembers: this process may be a fork
/// of the one that was asked.
fn tenant(config: &Config) -> Result<Tenant, ConnectError> {
    let process = Owner::of(std::process::id()).ok_or(ConnectError::NoProcess)?;
    Ok(Tenant { id: config.id.clone(), name: config.name.clone(), process })
}

/// The network namespace of a running container.
///
/// # Errors
/// When it does not run, or its namespace cannot be opened.
pub fn namespace_of(container: &Stored) -> Result<NetNs, ConnectError> {
    let state = container.state()?;
    let stopped = || container.refuse("share the network of", state.status, "; start it first");
    let process = state.init.filter(|process| state.status.is_up() && process.is_alive()).ok_or_else(stopped)?;
    let namespace = NetNs::of_pid(process.pid);
    // Its end, and another process of that pid, may have come between.
    if !process.is_alive() {
        return Err(stopped().into());
    }
    Ok(namespace.map_err(FileError::new("open", format!("/proc/{}/ns/net", process.pid)))?)
}

/// The ports to publish: those that were given, and with `--publish-all` the exposed ones that are not among them.
///
/// # Errors
/// When one is none.
pub fn ports(config: &Config) -> Result<Vec<PortMapping>, NetworkError> {
    let mut ports = config.ports.iter().map(|port| port.parse()).collect::<Result<Vec<PortMapping>, _>>()?;
    if config.publish_all {
        for exposed in &config.exposed {
            let port: PortMapping = exposed.parse()?;
            let same =
                |other: &PortMapping| (other.container_port, other.protocol) == (port.container_port, port.protocol);
            if !ports.iter().any(same) {
                ports.push(port);
            }
        }
    }
    Ok(ports)
}

/// What is noted of a place once the container is connected.
#[must_use]
pub fn connection(endpoint: &Endpoint) -> Connection {
    let port = |port: &PortMapping| {
        let address = port.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
        format!("{address}:{}:{}/{}", port.host_port, port.container_port, port.protocol)
    };
    Connection {
        network: machine::DEFAULT.to_owned(),
        address: endpoint.address.to_string(),
        prefix_len: endpoint.prefix_len,
        gateway: endpoint.gateway.to_string(),
        mac: endpoint.mac.to_string(),
        ports: endpoint.ports.iter().map(port).collect(),
    }
}

/// Whether a container is up on the network of a mode.
#[must_use]
pub fn is_on(config: &Config, state: &State, mode: &NetworkMode) -> bool {
    config.network == *mode && state.status.is_up() && state.is_alive()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::fixture;
    use crate::container::state::{Process, Status};

    #[test]
    fn exposed_ports_are_published_where_they_are_not_yet() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let (given, exposed) = (texts(&["8080:80"]), texts(&["80/tcp", "53/udp", "443"]));
        let mut config = Config { ports: given, exposed, ..fixture::config() };
        let shown = |config: &Config| ports(config).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown(&config), ["8080:80/tcp"]);
        config.publish_all = true;
        assert_eq!(shown(&config), ["8080:80/tcp", "53/udp", "443/tcp"]);
        config.ports.push("x".to_owned());
        assert!(ports(&config).is_err());
    }

    #[test]
    fn only_the_network_of_a_running_container_is_shared() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let other = Config { id: "1".repeat(64), name: "other".to_owned(), ..fixture::config() };
        let other = store.create(other).unwrap();
        let config = |mode| Config { id: "2".repeat(64), network: mode, ..fixture::config() };
        let own = NetNs::current().unwrap();
        let prepare = |config: &Config| prepare(config, &store, own.clone());
        let refused = |config: &Config| prepare(config).err().map(|error| error.to_string());

        let shares = config(NetworkMode::Container("other".to_owned()));
        let created = "cannot share the network of container 111111111111: it is created; start it first";
        assert_eq!(refused(&shares).as_deref(), Some(created));
        let mut state = other.state().unwrap();
        (state.status, state.init) = (Status::Running, Process::of(std::process::id()));
        other.lock().unwrap().write(&state).unwrap();
        let prepared = prepare(&shares).unwrap();
        let Network::Container(namespace) = prepared.network else { panic!("not shared") };
        assert_eq!(namespace.inode().unwrap(), own.inode().unwrap());
        assert_eq!(prepared.shares.unwrap().config.id, other.config.id);
        // It has ended, and no one has noted it yet.
        state.init = state.init.map(|init| Process { start_ticks: init.start_ticks + 1, ..init });
        other.lock().unwrap().write(&state).unwrap();
        assert!(refused(&shares).unwrap().ends_with("; start it first"));

        let nowhere = config(NetworkMode::Container("nobody".to_owned()));
        assert_eq!(refused(&nowhere).as_deref(), Some("no such container: nobody"));
        let itself = Config { id: "1".repeat(64), ..config(NetworkMode::Container("other".to_owned())) };
        assert_eq!(refused(&itself).as_deref(), Some("a container cannot share its own network"));
        let unknown = config(NetworkMode::Bridge("red".to_owned()));
        assert_eq!(refused(&unknown).as_deref(), Some("network red not found"));
        assert!(matches!(prepare(&config(NetworkMode::None)).unwrap().network, Network::None));
        assert!(matches!(prepare(&config(NetworkMode::Host)).unwrap().network, Network::Host(_)));
    }
}
