//! Address translation: out of a network by masquerade, into it by published ports.
//!
//! One nf_tables table a host. A published port is one element of a map, found by hash, so that adding one, removing
//! one and finding one cost the same however many there are. `bridge` is the caller.
//!
//! ```text
//! table ip isobench {
//!     map published    { inet_proto . inet_service : ipv4_addr . inet_service }
//!     map published_at { ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }
//!     chain prerouting { nat; fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @published_at
//!                             fib daddr type local dnat ip to meta l4proto . th dport map @published }
//!     chain output     { nat; the same, for what the host itself sends }
//!     chain masquerade_BRIDGE { nat postrouting; what leaves the subnet, and what comes back into it by a port }
//!     chain loopback_BRIDGE   { filter prerouting; nothing from the network may claim to be for 127.0.0.0/8 }
//! }
//! ```

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Mutex;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockname, listen, setsockopt, socket, sockopt,
};

use super::error::{HostPort, PortHolder};
use super::host::locked;
use super::ipam::Subnet;
use super::{NetworkError, PortMapping, Protocol, holder};
use crate::netlink::expression::{Expression, Field, Meta, Register};
use crate::netlink::nftables::{Chain, ChainType, DataType, Hook, Map, Transaction, elements, table_use};
use crate::netlink::{NetlinkError, Socket};
use crate::sys::netns::NetNs;

/// The table that is ours.
pub const TABLE: &str = "isobench";
/// The map of ports that are published on every address of the host.
pub const PUBLISHED: &str = "published";
/// The map of ports that are published on one address of the host.
pub const PUBLISHED_AT: &str = "published_at";
/// How many chains and maps the table has when no network is left.
const BASE_USE: u32 = 4;

/// Priorities of `linux/netfilter_ipv4.h`.
const RAW: i32 = -300;
const DNAT: i32 = -100;
const SNAT: i32 = 100;
/// IPS_DST_NAT: the connection's destination has been translated.
const STATUS_DNAT: u32 = 1 << 5;
/// RTN_LOCAL as nf_tables loads it.
const LOCAL: u32 = libc::RTN_LOCAL as u32;
const A: Register = Register(0);
const B: Register = Register(1);
const C: Register = Register(2);

/// The address translation of one host namespace.
#[derive(Debug)]
pub(super) struct Nat {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    socket: Socket,
    held: HashMap<(Protocol, u16), Vec<Held>>,
}

/// A published port, with a socket that keeps the host's own programs off it. It never gets a packet: the translation
/// comes before it.
#[derive(Debug)]
struct Held {
    port: PortMapping,
    network: String,
    address: Ipv4Addr,
    _socket: OwnedFd,
}

impl Nat {
    /// `socket` speaks to nf_tables in the host's namespace.
    pub(super) fn new(socket: Socket) -> Self {
        Self { state: Mutex::new(State { socket, held: HashMap::new() }) }
    }

    /// Sets up the translation for a network behind the link with this index.
    pub(super) fn add_network(&self, name: &str, link: u32, subnet: Subnet) -> Result<(), NetlinkError> {
        let mut state = locked(&self.state);
        let mut changes = Transaction::new();
        base(&mut changes);
        network(&mut changes, name, link, subnet);
        changes.commit(&mut state.socket)
    }

    /// Whether the table is there; someone may have emptied the whole rule set.
    pub(super) fn is_there(&self) -> Result<bool, NetlinkError> {
        Ok(table_use(&mut locked(&self.state).socket, TABLE)?.is_some())
    }

    /// Takes the translation for a network away, and the whole table with the last one. What is gone already is no
    /// error.
    pub(super) fn remove_network(&self, name: &str) -> Result<(), NetlinkError> {
        let mut state = locked(&self.state);
        let mut changes = Transaction::new();
        changes.delete_chain(TABLE, &masquerade_chain(name)).delete_chain(TABLE, &loopback_chain(name));
        match changes.commit(&mut state.socket) {
            Err(error) if error.errno() == Some(libc::ENOENT) => {}
            committed => committed?,
        }
        // Other networks of this namespace, and those of other processes, use the table beyond what every one has.
        if table_use(&mut state.socket, TABLE)? == Some(BASE_USE) {
            let mut changes = Transaction::new();
            changes.delete_table(TABLE);
            changes.commit(&mut state.socket)?;
        }
        Ok(())
    }

    /// Publishes the ports for a container, all or none, and returns them with the host ports that were chosen.
    pub(super) fn publish(
        &self,
        host: &NetNs,
        network: &str,
        address: Ipv4Addr,
        ports: &[PortMapping],
    ) -> Result<Vec<PortMapping>, NetworkError> {
        if ports.is_empty() {
            return Ok(Vec::new());
        }
        let ports = ports.iter().map(|port| checked(*port)).collect::<Result<Vec<_>, _>>()?;
        let mut state = locked(&self.state);
        let sockets = host
            .enter(|| take_ports(&state, &ports))
            .map_err(|source| NetworkError::Namespace { act: "enter the host's network namespace", source })??;
        let mut changes = Transaction::new();
        for (port, _) in &sockets {
            let data = [&address.octets()[..], &padded_port(port.container_port)].concat();
            changes.add_element((TABLE, map_of(*port)), &HostPort(*port).to_string(), &key(*port), &data);
        }
        changes.commit(&mut state.socket).map_err(NetworkError::kernel(network))?;
        if let Err(error) = listen_on(&sockets) {
            let published: Vec<PortMapping> = sockets.iter().map(|(port, _)| *port).collect();
            return Err(error.after_undo(state.remove_elements(network, &published)));
        }
        let mut published = Vec::with_capacity(ports.len());
        for (port, socket) in sockets {
            let held = Held { port, network: network.to_owned(), address, _socket: socket };
            state.held.entry((port.protocol, port.host_port)).or_default().push(held);
            published.push(port);
        }
        Ok(published)
    }

    /// Holds ports that another process had published, and which stay so though it has died. One that a program of the
    /// host has taken meanwhile is still translated, and is not held.
    pub(super) fn hold(
        &self,
        host: &NetNs,
        network: &str,
        address: Ipv4Addr,
        ports: &[PortMapping],
    ) -> Result<(), NetworkError> {
        let mut state = locked(&self.state);
        for port in ports {
            let socket = host
                .enter(|| take_port(*port))
                .map_err(|source| NetworkError::Namespace { act: "enter the host's network namespace", source })?;
            let Ok(taken) = socket else { continue };
            if listen_on(std::slice::from_ref(&taken)).is_ok() {
                let held = Held { port: *port, network: network.to_owned(), address, _socket: taken.1 };
                state.held.entry((port.protocol, port.host_port)).or_default().push(held);
            }
        }
        Ok(())
    }

    /// Takes published ports back. Goes on when one fails, and returns what failed.
    pub(super) fn unpublish(&self, network: &str, ports: &[PortMapping]) -> Vec<NetworkError> {
        if ports.is_empty() {
            return Vec::new();
        }
        let mut state = locked(&self.state);
        let errors = state.remove_elements(network, ports);
        // The elements first: while they are there, the sockets keep others from taking a port that would not work.
        for port in ports {
            if let Some(held) = state.held.get_mut(&(port.protocol, port.host_port)) {
                held.retain(|held| held.port.host_ip != port.host_ip);
                if held.is_empty() {
                    state.held.remove(&(port.protocol, port.host_port));
                }
            }
        }
        errors
    }

    /// Takes back what is published for these addresses, whoever published it; no socket of this process holds any of
    /// it.
    pub(super) fn unpublish_addresses(&self, network: &str, addresses: &[Ipv4Addr]) -> Vec<NetworkError> {
        let mut state = locked(&self.state);
        let published = match state.published() {
            Err(error) => return vec![NetworkError::kernel(network)(error)],
            Ok(published) => published.into_iter().filter(|(_, address)| addresses.contains(address)),
        };
        let ports: Vec<PortMapping> = published.map(|(port, _)| port).collect();
        if ports.is_empty() { Vec::new() } else { state.remove_elements(network, &ports) }
    }
}

/// Every published port of a namespace, whoever published it, with where it leads. `socket` speaks to nf_tables there.
pub(super) fn published(socket: Socket) -> Result<Vec<(PortMapping, Ipv4Addr)>, NetlinkError> {
    State { socket, held: HashMap::new() }.published()
}

impl State {
    /// Every published port of the namespace, whoever published it, with where it leads.
    fn published(&mut self) -> Result<Vec<(PortMapping, Ipv4Addr)>, NetlinkError> {
        let mut published = Vec::new();
        for map in [PUBLISHED, PUBLISHED_AT] {
            let found = elements(&mut self.socket, TABLE, map)?;
            published.extend(found.iter().filter_map(|(key, data)| parse_element(key, data)));
        }
        Ok(published)
    }

    fn remove_elements(&mut self, network: &str, ports: &[PortMapping]) -> Vec<NetworkError> {
        if self.remove_together(ports).is_ok() {
            return Vec::new();
        }
        // One that is missing fails the whole transaction; one by one, the others still go.
        let failed = ports.iter().filter_map(|port| self.remove_together(&[*port]).err());
        let failed = failed.filter(|error| error.errno() != Some(libc::ENOENT));
        failed.map(|source| NetworkError::kernel(network)(source)).collect()
    }

    fn remove_together(&mut self, ports: &[PortMapping]) -> Result<(), NetlinkError> {
        let mut changes = Transaction::new();
        for port in ports {
            changes.delete_element((TABLE, map_of(*port)), &HostPort(*port).to_string(), &key(*port));
        }
        changes.commit(&mut self.socket)
    }

    /// Who has this port, as far as this process has published it.
    fn holder(&self, wanted: PortMapping) -> Option<PortHolder> {
        let held = self.held.get(&(wanted.protocol, wanted.host_port))?;
        let held = held.iter().find(|held| clash(held.port, wanted))?;
        Some(PortHolder::Container { network: held.network.clone(), address: held.address, port: held.port })
    }
}

/// A mapping that can be looked up: the wildcard address is not one that packets are sent to, but the same as none.
fn checked(port: PortMapping) -> Result<PortMapping, NetworkError> {
    if port.container_port == 0 {
        let problem = "the container port is not a number from 1 to 65535".to_owned();
        return Err(NetworkError::PortSpec { spec: port.to_string(), problem });
    }
    Ok(PortMapping { host_ip: port.host_ip.filter(|address| !address.is_unspecified()), ..port })
}

/// Whether two mappings want the same host port on a common address.
pub(super) fn clash(one: PortMapping, other: PortMapping) -> bool {
    let same_port = one.protocol == other.protocol && one.host_port == other.host_port;
    same_port && (one.host_ip.is_none() || other.host_ip.is_none() || one.host_ip == other.host_ip)
}

/// Binds a socket to every port, in the calling thread's namespace; port 0 becomes one that is free.
fn take_ports(state: &State, ports: &[PortMapping]) -> Result<Vec<(PortMapping, OwnedFd)>, NetworkError> {
    let mut taken: Vec<(PortMapping, OwnedFd)> = Vec::with_capacity(ports.len());
    for port in ports {
        let port = *port;
        let holder = match port.host_port {
            0 => None,
            _ if taken.iter().any(|(other, _)| clash(*other, port)) => Some(PortHolder::SameRequest),
            _ => state.holder(port),
        };
        if let Some(holder) = holder {
            return Err(NetworkError::PortTaken { port: HostPort(port), holder });
        }
        taken.push(take_port(port).map_err(|errno| unavailable(port, errno))?);
    }
    Ok(taken)
}

fn take_port(mut port: PortMapping) -> nix::Result<(PortMapping, OwnedFd)> {
    let kind = match port.protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let fd = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if port.protocol == Protocol::Tcp {
        // Else the remains of an old connection (TIME_WAIT) would keep the port from being published for a minute.
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    let address = std::net::SocketAddrV4::new(port.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED), port.host_port);
    bind(fd.as_raw_fd(), &SockaddrIn::from(address))?;
    port.host_port = getsockname::<SockaddrIn>(fd.as_raw_fd())?.port();
    Ok((port, fd))
}

/// A TCP port is safe from other programs only while it is listened on. That begins after the translation is in place,
/// so that no client is ever left waiting in the queue of a socket that no one accepts from.
fn listen_on(sockets: &[(PortMapping, OwnedFd)]) -> Result<(), NetworkError> {
    for (port, fd) in sockets {
        if port.protocol == Protocol::Tcp {
            // A backlog of 1 is the shortest for which nix has a value.
            let listened = Backlog::new(1).and_then(|backlog| listen(fd, backlog));
            listened.map_err(|errno| unavailable(*port, errno))?;
        }
    }
    Ok(())
}

fn unavailable(port: PortMapping, errno: Errno) -> NetworkError {
    match errno {
        Errno::EADDRINUSE => NetworkError::PortTaken { port: HostPort(port), holder: holder::of(port) },
        errno => NetworkError::PortUnavailable { port: HostPort(port), source: errno.into() },
    }
}

fn map_of(port: PortMapping) -> &'static str {
    if port.host_ip.is_some() { PUBLISHED_AT } else { PUBLISHED }
}

/// The key of a published port: host address (where one is given), protocol, port; each fills four bytes.
fn key(port: PortMapping) -> Vec<u8> {
    let protocol = match port.protocol {
        Protocol::Tcp => libc::IPPROTO_TCP as u8,
        Protocol::Udp => libc::IPPROTO_UDP as u8,
    };
    let address = port.host_ip.map(|address| address.octets());
    let address = address.as_ref().map_or(&[][..], |octets| &octets[..]);
    [address, &[protocol, 0, 0, 0], &padded_port(port.host_port)].concat()
}

/// Reads an element back: a published port and the address that it leads to.
fn parse_element(key: &[u8], data: &[u8]) -> Option<(PortMapping, Ipv4Addr)> {
    let word = |bytes: &[u8], index: usize| -> Option<[u8; 4]> { bytes.get(index * 4..index * 4 + 4)?.try_into().ok() };
    let port = |bytes: [u8; 4]| u16::from_be_bytes([bytes[0], bytes[1]]);
    let (host_ip, at) = match key.len() {
        8 => (None, 0),
        12 => (Some(Ipv4Addr::from(word(key, 0)?)), 1),
        _ => return None,
    };
    let protocol = match i32::from(word(key, at)?[0]) {
        libc::IPPROTO_TCP => Protocol::Tcp,
        libc::IPPROTO_UDP => Protocol::Udp,
        _ => return None,
    };
    let (host_port, container_port) = (port(word(key, at + 1)?), port(word(data, 1)?));
    Some((PortMapping { host_ip, host_port, container_port, protocol }, Ipv4Addr::from(word(data, 0)?)))
}

fn padded_port(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// What every host has, whatever its networks. Harmless when it is there already: rules are put in anew.
fn base(changes: &mut Transaction) {
    let data = &[DataType::Ipv4Address, DataType::Port];
    let key = &[DataType::Ipv4Address, DataType::Protocol, DataType::Port];
    changes.add_table(TABLE);
    changes.add_map(&Map { table: TABLE, name: PUBLISHED, key: &key[1..], data });
    changes.add_map(&Map { table: TABLE, name: PUBLISHED_AT, key, data });
    for (name, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        changes.add_chain(&Chain { table: TABLE, name, chain_type: ChainType::Nat, hook, priority: DNAT });
        changes.flush_chain(TABLE, name);
        let to_this_host = [Expression::DestinationKind(A), Expression::Equal(A, LOCAL.to_ne_bytes().to_vec())];
        let at = [
            Expression::Payload(Field::DestinationAddress, A),
            Expression::Meta(Meta::TransportProtocol, B),
            Expression::Payload(Field::DestinationPort, C),
            Expression::Lookup { map: PUBLISHED_AT.into(), key: A, data: A },
            Expression::Dnat(A, B),
        ];
        let anywhere = [
            Expression::Meta(Meta::TransportProtocol, A),
            Expression::Payload(Field::DestinationPort, B),
            Expression::Lookup { map: PUBLISHED.into(), key: A, data: A },
            Expression::Dnat(A, B),
        ];
        changes.add_rule(TABLE, name, &[&to_this_host[..], &at].concat());
        changes.add_rule(TABLE, name, &[&to_this_host[..], &anywhere].concat());
    }
}

/// What one network has: its two chains.
fn network(changes: &mut Transaction, name: &str, link: u32, subnet: Subnet) {
    let (masquerade, loopback) = (masquerade_chain(name), loopback_chain(name));
    let link = link.to_ne_bytes().to_vec();
    let leaves_by_it = [Expression::Meta(Meta::OutputLink, A), Expression::Equal(A, link.clone())];
    let leaves_by_another = [Expression::Meta(Meta::OutputLink, A), Expression::NotEqual(A, link.clone())];
    let loopback_addresses = Subnet::around(Ipv4Addr::LOCALHOST, 8);

    let (chain_type, hook) = (ChainType::Nat, Hook::Postrouting);
    changes.add_chain(&Chain { table: TABLE, name: &masquerade, chain_type, hook, priority: SNAT });
    changes.flush_chain(TABLE, &masquerade);
    // From the network to the outside.
    let rule = [&leaves_by_another[..], &within(Field::SourceAddress, subnet), &[Expression::Masquerade]].concat();
    changes.add_rule(TABLE, &masquerade, &rule);
    // From the host's 127.0.0.1 to a published port: the container must not answer to its own loopback.
    let from_loopback = within(Field::SourceAddress, loopback_addresses);
    changes.add_rule(TABLE, &masquerade, &[&leaves_by_it[..], &from_loopback, &[Expression::Masquerade]].concat());
    // From one container through the host's port to another: the answer must come back the same way, not straight.
    let translated = [
        Expression::ConnectionStatus(A),
        Expression::Mask(A, STATUS_DNAT.to_ne_bytes()),
        Expression::NotEqual(A, vec![0; 4]),
        Expression::Masquerade,
    ];
    let from_subnet = within(Field::SourceAddress, subnet);
    changes.add_rule(TABLE, &masquerade, &[&leaves_by_it[..], &from_subnet, &translated].concat());

    let (chain_type, hook) = (ChainType::Filter, Hook::Prerouting);
    changes.add_chain(&Chain { table: TABLE, name: &loopback, chain_type, hook, priority: RAW });
    changes.flush_chain(TABLE, &loopback);
    // `route_localnet` on the bridge would let containers reach what the host listens to on its loopback only.
    // Answers to the host's own loopback are not caught: they are addressed to the bridge until translated, which
    // comes later.
    let comes_by_it = [Expression::Meta(Meta::InputLink, A), Expression::Equal(A, link)];
    let to_loopback = within(Field::DestinationAddress, loopback_addresses);
    changes.add_rule(TABLE, &loopback, &[&comes_by_it[..], &to_loopback, &[Expression::Drop]].concat());
}

fn within(field: Field, subnet: Subnet) -> [Expression<'static>; 3] {
    [
        Expression::Payload(field, A),
        Expression::Mask(A, subnet.mask().octets()),
        Expression::Equal(A, subnet.network().octets().to_vec()),
    ]
}

fn masquerade_chain(network: &str) -> String {
    format!("masquerade_{network}")
}

fn loopback_chain(network: &str) -> String {
    format!("loopback_{network}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(spec: &str) -> PortMapping {
        spec.parse().unwrap()
    }

    #[test]
    fn keys_fill_registers_of_four_bytes() {
        assert_eq!(key(port("8080:80")), [6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
        assert_eq!(key(port("127.0.0.1:53:53/udp")), [127, 0, 0, 1, 17, 0, 0, 0, 0, 53, 0, 0]);
        assert_eq!((map_of(port("8080:80")), map_of(port("127.0.0.1:1:2"))), (PUBLISHED, PUBLISHED_AT));
    }

    #[test]
    fn an_element_reads_back() {
        let address = Ipv4Addr::new(172, 31, 0, 2);
        for spec in ["8080:80", "127.0.0.1:53:5353/udp"] {
            let data = [&address.octets()[..], &padded_port(port(spec).container_port)].concat();
            assert_eq!(parse_element(&key(port(spec)), &data), Some((port(spec), address)));
        }
        assert_eq!(parse_element(&[6, 0, 0, 0], &[]), None);
        assert_eq!(parse_element(&key(port("8080:80")), &[1, 2, 3, 4]), None);
    }

    #[test]
    fn a_mapping_is_brought_into_the_form_that_is_looked_up() {
        let wildcard = PortMapping { host_ip: Some(Ipv4Addr::UNSPECIFIED), ..port("8080:80") };
        assert_eq!(checked(wildcard).unwrap(), port("8080:80"));
        let error = checked(PortMapping { container_port: 0, ..port("8080:80") }).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`8080:0/tcp` is not a published port: the container port is not a number from 1 to 65535"
        );
    }

    #[test]
    fn ports_clash_on_a_common_address_only() {
        for (one, other, expected) in [
            ("8080:80", "8080:81", true),
            ("8080:80", "127.0.0.1:8080:80", true),
            ("127.0.0.1:8080:80", "127.0.0.1:8080:80", true),
            ("127.0.0.1:8080:80", "127.0.0.2:8080:80", false),
            ("8080:80", "8080:80/udp", false),
            ("8080:80", "8081:80", false),
        ] {
            assert_eq!(clash(port(one), port(other)), expected, "{one} and {other}");
            assert_eq!(clash(port(other), port(one)), expected, "{other} and {one}");
        }
    }
}
