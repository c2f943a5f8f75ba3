//! The bridge driver: a virtual switch on the host, and for each container a veth pair between it and the container's
//! `eth0`; out by masquerade, in by published ports.
//!
//! `container` attaches what it starts while the start is running, so [`BridgeNetwork::attach`] asks the kernel for as
//! little as it can: two sends on the host, one inside the container, one look that settles the carrier.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use super::error::collected;
use super::host::{Host, locked};
use super::ipam::{Ipam, Subnet};
use super::lease::Lease;
use super::{NetworkError, PortMapping};
use crate::cgroup::owner::Owner;
use crate::netlink::link::{Mac, VethEnd, VethOptions};
use crate::netlink::{Batch, NetlinkError, Protocol, Socket, address, link, route};
use crate::sys::netns::NetNs;

/// The name of the link inside of a container.
pub const CONTAINER_LINK: &str = "eth0";
/// The kernel's limit for a link's name, without the zero byte.
const LONGEST_NAME: usize = libc::IF_NAMESIZE - 1;
/// What IPv4 needs, and the most that a veth carries.
const MTU_RANGE: std::ops::RangeInclusive<u32> = 68..=65535;

/// What a bridge network is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeConfig {
    /// The bridge's name, which is also the network's.
    pub name: String,
    /// The addresses of its containers.
    pub subnet: Subnet,
    /// The bridge's own address, to which containers send what is not for the subnet; absent: the subnet's first.
    pub gateway: Option<Ipv4Addr>,
    /// The largest packet, in bytes; absent: the kernel's default, 1500.
    pub mtu: Option<u32>,
}

/// A bridge network on one host.
#[derive(Debug)]
pub struct BridgeNetwork {
    host: Arc<Host>,
    name: String,
    mtu: Option<u32>,
    subnet: Subnet,
    gateway: Ipv4Addr,
    /// The bridge's number in the host's namespace.
    index: u32,
    state: Mutex<State>,
    /// The address that this process has on a network that it shares with others; it is the only one it gives.
    lease: Option<Lease>,
}

#[derive(Debug)]
struct State {
    ipam: Ipam,
    /// The ports of each attached container, by its address.
    endpoints: HashMap<Ipv4Addr, Vec<PortMapping>>,
    destroyed: bool,
}

/// How one container is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: Ipv4Addr,
    /// The length of the subnet's prefix, in bits.
    pub prefix_len: u8,
    /// Where it sends what is not for the subnet.
    pub gateway: Ipv4Addr,
    /// The link-layer address of its `eth0`.
    pub mac: Mac,
    /// The bridge port that leads to it.
    pub host_ifname: String,
    /// Its published ports, with the host ports that were chosen.
    pub ports: Vec<PortMapping>,
}

impl BridgeNetwork {
    /// Makes the bridge, switches it on and sets up the address translation. When a step fails, those before it are
    /// undone.
    ///
    /// # Errors
    /// When the configuration makes no sense, the subnet is in use on the host, or the kernel refuses a step.
    pub fn create(host: Arc<Host>, config: BridgeConfig) -> Result<Arc<Self>, NetworkError> {
        let ipam = validate(&config)?;
        let BridgeConfig { name, subnet, mtu, .. } = config;
        let gateway = ipam.gateway();
        host.reserve(&name, subnet)?;
        let index = match make_bridge(&host, &name, gateway, subnet, mtu) {
            Ok(index) => index,
            Err(error) => {
                host.unreserve(&name);
                return Err(error);
            }
        };
        let state = Mutex::new(State { ipam, endpoints: HashMap::new(), destroyed: false });
        Ok(Arc::new(Self { host, name, mtu, subnet, gateway, index, state, lease: None }))
    }

    /// A bridge that is there already, behind the link with this index. With a lease, that is the only address.
    pub(super) fn adopt(
        host: Arc<Host>,
        config: BridgeConfig,
        index: u32,
        lease: Option<Lease>,
    ) -> Result<Arc<Self>, NetworkError> {
        let ipam = validate(&config)?;
        let BridgeConfig { name, subnet, mtu, .. } = config;
        let gateway = ipam.gateway();
        let state = Mutex::new(State { ipam, endpoints: HashMap::new(), destroyed: false });
        Ok(Arc::new(Self { host, name, mtu, subnet, gateway, index, state, lease }))
    }

    /// The bridge's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The addresses of its containers.
    #[must_use]
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// The bridge's own address.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// The host that it is on.
    #[must_use]
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// The bridge's number in the host's namespace.
    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// How many containers are attached.
    #[must_use]
    pub fn endpoints(&self) -> usize {
        locked(&self.state).endpoints.len()
    }

    /// Connects a container's namespace: `eth0` with the lowest free address, a default route, and the ports published.
    /// Its `lo` is not touched. When a step fails, those before it are undone.
    ///
    /// # Errors
    /// When no address is free, a port is taken, or the kernel refuses a step.
    pub fn attach(&self, container: &NetNs, ports: &[PortMapping]) -> Result<Endpoint, NetworkError> {
        self.attach_with(container, None, ports)
    }

    /// Like [`BridgeNetwork::attach`], with a certain address.
    ///
    /// # Errors
    /// When the address is taken or not of this network; else as [`BridgeNetwork::attach`].
    pub fn attach_at(
        &self,
        container: &NetNs,
        address: Ipv4Addr,
        ports: &[PortMapping],
    ) -> Result<Endpoint, NetworkError> {
        self.attach_with(container, Some(address), ports)
    }

    fn attach_with(
        &self,
        container: &NetNs,
        wanted: Option<Ipv4Addr>,
        ports: &[PortMapping],
    ) -> Result<Endpoint, NetworkError> {
        let address = self.take_address(wanted.or(self.lease.as_ref().map(Lease::address)))?;
        let endpoint = self.endpoint(address);
        match self.connect(container, &endpoint, ports) {
            Ok(published) => {
                self.lease.iter().for_each(Lease::connected);
                locked(&self.state).endpoints.insert(address, published.clone());
                Ok(Endpoint { ports: published, ..endpoint })
            }
            Err(error) => {
                if matches!(error, NetworkError::Undo { .. }) {
                    self.lease.iter().for_each(Lease::connected);
                }
                locked(&self.state).ipam.release(address);
                Err(error)
            }
        }
    }

    /// Disconnects a container: its veth pair, its published ports and its address go. Goes on when a part fails.
    ///
    /// # Errors
    /// When the container is not attached, or with all that failed.
    pub fn detach(&self, endpoint: &Endpoint) -> Result<(), NetworkError> {
        let address = endpoint.address;
        let Some(ports) = locked(&self.state).endpoints.remove(&address) else {
            return Err(NetworkError::NotAttached { network: self.name.clone(), address });
        };
        let mut errors = self.host.nat().unpublish(&self.name, &ports);
        errors.extend(self.host.delete_link(&self.name, &host_link(address)).err());
        // Last, so that no one gets the address while its link is still there.
        locked(&self.state).ipam.release(address);
        if let (Some(lease), true) = (&self.lease, errors.is_empty()) {
            errors.extend(lease.end().err());
        }
        collected(&self.name, errors)
    }

    /// Says which process is the first of the container that is attached, on a network that is shared with other
    /// processes: while it runs, its address stays its own though this process be killed. Else nothing is to be done.
    ///
    /// # Errors
    /// When it cannot be noted.
    pub fn entrust(&self, pid: u32) -> Result<(), NetworkError> {
        // One that has ended already needs nothing to be kept for it.
        let entrusted = self.lease.as_ref().and_then(|lease| Some((lease, Owner::of(pid)?)));
        entrusted.map_or(Ok(()), |(lease, process)| lease.entrust(process))
    }

    /// Takes up a container that was attached by another process, which has died, with the lease of this network.
    pub(super) fn resume(&self) -> Result<Option<Endpoint>, NetworkError> {
        let Some(lease) = &self.lease else { return Ok(None) };
        let address = self.take_address(Some(lease.address()))?;
        let ports = lease.ports();
        self.host.nat().hold(self.host.netns(), &self.name, address, &ports)?;
        locked(&self.state).endpoints.insert(address, ports.clone());
        Ok(Some(Endpoint { ports, ..self.endpoint(address) }))
    }

    /// Takes the network down. Goes on when a part fails.
    ///
    /// # Errors
    /// When containers are attached (then nothing is done), or with all that failed.
    pub fn destroy(&self) -> Result<(), NetworkError> {
        let network = self.name.clone();
        {
            let mut state = locked(&self.state);
            if state.destroyed {
                return Err(NetworkError::Destroyed { network });
            }
            if state.ipam.given() > 0 {
                return Err(NetworkError::InUse { network, endpoints: state.ipam.given() });
            }
            state.destroyed = true;
        }
        let mut errors = Vec::new();
        errors.extend(self.host.nat().remove_network(&network).map_err(NetworkError::kernel(&network)).err());
        errors.extend(self.host.delete_link(&network, &network).err());
        self.host.unreserve(&network);
        collected(&network, errors)
    }

    fn take_address(&self, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, NetworkError> {
        let mut state = locked(&self.state);
        if state.destroyed {
            return Err(NetworkError::Destroyed { network: self.name.clone() });
        }
        let taken = match wanted {
            Some(address) => state.ipam.allocate_this(address).map(|()| address),
            None => state.ipam.allocate(),
        };
        taken.map_err(|source| NetworkError::Address { network: self.name.clone(), source })
    }

    fn endpoint(&self, address: Ipv4Addr) -> Endpoint {
        Endpoint {
            address,
            prefix_len: self.subnet.prefix_len(),
            gateway: self.gateway,
            mac: mac(address),
            host_ifname: host_link(address),
            ports: Vec::new(),
        }
    }

    /// Makes the link and sets it up; returns the ports as published.
    fn connect(
        &self,
        container: &NetNs,
        endpoint: &Endpoint,
        ports: &[PortMapping],
    ) -> Result<Vec<PortMapping>, NetworkError> {
        let published = self.publish(endpoint.address, ports)?;
        let undo_ports = |error: NetworkError| error.after_undo(self.host.nat().unpublish(&self.name, &published));
        self.make_link(container, endpoint).map_err(NetworkError::kernel(&self.name)).map_err(undo_ports)?;
        let port = endpoint.host_ifname.as_str();
        let set_up = || {
            self.set_up_port(port).map_err(NetworkError::kernel(&self.name))?;
            set_up_container(container, endpoint)?;
            let settled = self.host.netlink(|socket| link::settle(socket, &[port, &self.name]));
            settled.map_err(NetworkError::kernel(&self.name))
        };
        if let Err(error) = set_up() {
            let mut left = self.host.nat().unpublish(&self.name, &published);
            left.extend(self.host.delete_link(&self.name, port).err());
            return Err(error.after_undo(left));
        }
        Ok(published)
    }

    fn publish(&self, address: Ipv4Addr, ports: &[PortMapping]) -> Result<Vec<PortMapping>, NetworkError> {
        let publish = || self.host.nat().publish(self.host.netns(), &self.name, address, ports);
        match &self.lease {
            Some(lease) => lease.publish(&self.host, ports, publish),
            None => publish(),
        }
    }

    /// Both ends in one message, the far one in its place as `eth0`, the near one a port of the bridge.
    fn make_link(&self, container: &NetNs, endpoint: &Endpoint) -> Result<(), NetlinkError> {
        let near = VethEnd { name: &endpoint.host_ifname, mac: None };
        let far = VethEnd { name: CONTAINER_LINK, mac: Some(endpoint.mac) };
        let mut batch = Batch::new();
        link::add_veth(&mut batch, near, far, container, VethOptions { mtu: self.mtu, master: Some(self.index) });
        self.host.netlink(|socket| socket.run(batch))
    }

    /// Switches the near end on. Before that, no IPv6 address for it: the kernel would have such an address join
    /// groups, and flood those to every port of the bridge.
    fn set_up_port(&self, name: &str) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        link::generate_no_ipv6_address(&mut batch, name);
        link::set_up(&mut batch, name);
        self.host.netlink(|socket| socket.run(batch))
    }
}

/// Checks what can be checked without the kernel.
fn validate(config: &BridgeConfig) -> Result<Ipam, NetworkError> {
    let network = &config.name;
    let wrong = |problem: String| NetworkError::Config { network: network.clone(), problem };
    let odd = |c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c));
    if network.is_empty() || network.len() > LONGEST_NAME || network.contains(odd) || network.starts_with(['.', '-']) {
        let rule = "1 to 15 letters, digits, `-`, `_` and `.`, beginning with a letter, a digit or `_`";
        return Err(wrong(format!("`{network}` cannot be a bridge's name; write {rule}")));
    }
    // The directories of /proc/sys/net/ipv4/conf that are no links.
    if ["all", "default", "lo"].contains(&network.as_str()) {
        return Err(wrong(format!("`{network}` is a name that the kernel uses itself")));
    }
    if let Some(mtu) = config.mtu.filter(|mtu| !MTU_RANGE.contains(mtu)) {
        return Err(wrong(format!("an mtu of {mtu} bytes is not from {} to {}", MTU_RANGE.start(), MTU_RANGE.end())));
    }
    let network_address = config.subnet.network();
    if network_address.is_loopback() || network_address.is_multicast() || network_address.octets()[0] == 0 {
        return Err(wrong(format!("subnet {} is not one for hosts; write one such as 172.30.0.0/16", config.subnet)));
    }
    Ipam::new(config.subnet, config.gateway).map_err(|error| wrong(error.to_string()))
}

/// Makes the bridge and its address translation; undoes its own half-steps.
fn make_bridge(
    host: &Host,
    name: &str,
    gateway: Ipv4Addr,
    subnet: Subnet,
    mtu: Option<u32>,
) -> Result<u32, NetworkError> {
    let mut batch = Batch::new();
    link::add_bridge(&mut batch, name, mac(gateway), mtu);
    host.netlink(|socket| socket.run(batch)).map_err(NetworkError::kernel(name))?;
    let set_up = host.netlink(|socket| {
        let index = link::by_name(socket, name)?.index;
        let mut batch = Batch::new();
        link::generate_no_ipv6_address(&mut batch, index);
        link::route_loopback_addresses(&mut batch, index);
        address::add(&mut batch, index, gateway, subnet.prefix_len());
        link::set_up(&mut batch, index);
        socket.run(batch)?;
        Ok(index)
    });
    let set_up = set_up.and_then(|index| host.nat().add_network(name, index, subnet).map(|()| index));
    set_up.map_err(NetworkError::kernel(name)).map_err(|error| {
        let left = host.delete_link(name, name).err();
        error.after_undo(left.into_iter().collect())
    })
}

/// One batch inside the container: no address that IPv6 makes up, the address, link on, default route.
fn set_up_container(container: &NetNs, endpoint: &Endpoint) -> Result<(), NetworkError> {
    let network = || format!("of the container at {}", endpoint.address);
    let kernel = |source| NetworkError::Kernel { network: network(), source };
    let inside = container.enter(|| {
        let index = nix::net::if_::if_nametoindex(CONTAINER_LINK).map_err(std::io::Error::from);
        (index, Socket::open(Protocol::Route))
    });
    let enter = |act| move |source| NetworkError::Namespace { act, source };
    let (index, socket) = inside.map_err(enter("enter the container's network namespace"))?;
    let index = index.map_err(enter("find eth0 in the container's network namespace"))?;
    let mut batch = Batch::new();
    link::generate_no_ipv6_address(&mut batch, index);
    // The link is switched on as late as can be: from then on a worker of the kernel competes for the same lock.
    address::add(&mut batch, index, endpoint.address, endpoint.prefix_len);
    link::set_up(&mut batch, index);
    route::add_default(&mut batch, index, endpoint.gateway);
    socket.map_err(kernel)?.run(batch).map_err(kernel)
}

/// The name of the bridge port that leads to an address; unique on a host because the address is.
pub(super) fn host_link(address: Ipv4Addr) -> String {
    format!("veth{:08x}", u32::from(address))
}

/// A locally administered link-layer address that follows from the IPv4 address. An address that is given to the next
/// container then still agrees with what its neighbours remember.
pub(super) fn mac(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    Mac([0x02, 0x1b, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, subnet: &str) -> BridgeConfig {
        BridgeConfig { name: name.to_owned(), subnet: subnet.parse().unwrap(), gateway: None, mtu: None }
    }

    #[test]
    fn a_configuration_is_checked_before_anything_is_done() {
        assert!(validate(&config("br-0.a_b", "172.30.0.0/16")).is_ok());
        let mut wrong: Vec<BridgeConfig> = ["", "sixteen-letters-", "a/b", "a b", "..", "-x", "all", "lo"]
            .map(|name| config(name, "10.0.0.0/8"))
            .into();
        wrong.extend(["127.0.0.0/8", "224.0.0.0/24", "0.0.0.0/8", "10.0.0.0/31"].map(|subnet| config("br0", subnet)));
        wrong.push(BridgeConfig { mtu: Some(67), ..config("br0", "10.0.0.0/8") });
        wrong.push(BridgeConfig { gateway: Some(Ipv4Addr::LOCALHOST), ..config("br0", "10.0.0.0/8") });
        let errors: Vec<String> = wrong.iter().map(|config| validate(config).unwrap_err().to_string()).collect();
        expect_test::expect![[r#"
            network : `` cannot be a bridge's name; write 1 to 15 letters, digits, `-`, `_` and `.`, beginning with a letter, a digit or `_`
            network sixteen-letters-: `sixteen-letters-` cannot be a bridge's name; write 1 to 15 letters, digits, `-`, `_` and `.`, beginning with a letter, a digit or `_`
            network a/b: `a/b` cannot be a bridge's name; write 1 to 15 letters, digits, `-`, `_` and `.`, beginning with a letter, a digit or `_`
            network a b: `a b` cannot be a bridge's name; write 1 to 15 letters, digits, `-`, `_` and `.`, beginning with a letter, a digit or `_`
            network ..: `..` cannot be a bridge's name; write 1 to 15 letters, digits, `-`, `_` and `.`, beginning with a letter, a digit or `_`
            network -x: `-x` cannot be a bridge's name; write 1 to 15 letters, digits, `-`, `_` and `.`, beginning with a letter, a digit or `_`
            network all: `all` is a name that the kernel uses itself
            network lo: `lo` is a name that the kernel uses itself
            network br0: subnet 127.0.0.0/8 is not one for hosts; write one such as 172.30.0.0/16
            network br0: subnet 224.0.0.0/24 is not one for hosts; write one such as 172.30.0.0/16
            network br0: subnet 0.0.0.0/8 is not one for hosts; write one such as 172.30.0.0/16
            network br0: `10.0.0.0/31` is not a subnet: it has no room for a gateway and a container; the longest prefix that does is /30
            network br0: an mtu of 67 bytes is not from 68 to 65535
            network br0: 127.0.0.1 is not in subnet 10.0.0.0/8"#]].assert_eq(&errors.join("\n"));
    }

    #[test]
    fn names_follow_from_the_address() {
        let address = Ipv4Addr::new(172, 30, 1, 255);
        assert_eq!(host_link(address), "vethac1e01ff");
        assert!(host_link(address).len() <= LONGEST_NAME);
        assert_eq!(mac(address).to_string(), "02:1b:ac:1e:01:ff");
    }
}
