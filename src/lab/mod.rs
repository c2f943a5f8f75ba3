//! The lab: a host and an outside world that exist only for one benchmark.
//!
//! Layer 3. A benchmark never touches the machine's own network. A lab is two network namespaces without names, a
//! host and a peer, and a veth pair between them; both are held open by this process and die with it, with every
//! link, route and nf_tables rule inside. No route leads out of a lab, and labs do not see each other.
//!
//! ```text
//!     host                                   peer (the outside world)
//!   ┌──────────────────────────────┐       ┌──────────────────────┐
//!   │ br0 172.30.0.1/16    uplink  ├───────┤ uplink               │
//!   │  ├ container    198.18.0.1/30│       │ 198.18.0.2/30        │
//!   │  └ container                 │       │ knows no 172.30.0.0  │
//!   └──────────────────────────────┘       └──────────────────────┘
//! ```

pub mod awake;
pub mod disk;
pub mod loops;
mod note;
pub mod scheduler;

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::netlink::link::{Counters, VethEnd, VethOptions};
use crate::netlink::{Batch, NetlinkError, Protocol, Socket, address, link, route};
use crate::network::NetworkError;
use crate::network::bridge::{BridgeConfig, BridgeNetwork};
use crate::network::host::Host;
use crate::network::ipam::Subnet;
use crate::sys::netns::NetNs;

/// The name of the uplink's both ends.
pub const UPLINK: &str = "uplink";
/// The name of the lab's default bridge.
pub const BRIDGE: &str = "br0";
/// The uplink's addresses are from 198.18.0.0/15, which RFC 2544 sets aside for benchmarks: no one's real network.
const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const PEER_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const UPLINK_PREFIX: u8 = 30;
/// The default bridge's subnet; 65533 containers.
const BRIDGE_NETWORK: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 0);
const BRIDGE_PREFIX: u8 = 16;
/// `lo` is the first link of every namespace.
const LOOPBACK: u32 = 1;

/// Whether frames that a bridge forwards pass iptables and nf_tables too. That comes with the module `br_netfilter`,
/// for all bridges of a namespace, and would put the host's NAT between containers that are neighbours. A host
/// without the module does not do it, and neither does a lab.
const BRIDGED_FRAMES_PASS_NETFILTER: [&str; 3] =
    ["bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables", "bridge/bridge-nf-call-arptables"];

/// Whether a host reports its membership in 224.0.0.0/24 to the routers. A bridge joins a group there, and its report
/// stays in the host's table of tracked connections for ten minutes. While that table holds one entry, every address
/// and every link that goes away makes the kernel walk all of it, those of all other namespaces too, for what was
/// masqueraded behind it: the traffic of one case would cost the starts of another.
const LINK_LOCAL_REPORTS: &str = "ipv4/igmp_link_local_mcast_reports";

/// Why a lab could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// No network namespace could be made.
    #[error("cannot make a network namespace for the lab's {role}")]
    Namespace {
        /// `host` or `peer`.
        role: &'static str,
        /// EPERM without CAP_SYS_ADMIN.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a step on the uplink.
    #[error("cannot set up the lab's uplink")]
    Uplink(#[from] NetlinkError),
    /// The lab's host could not be set up.
    #[error("cannot set up the lab's host")]
    Host(#[from] NetworkError),
}

/// A host namespace and a peer namespace joined by an uplink.
#[derive(Debug)]
pub struct Lab {
    host: Arc<Host>,
    peer: NetNs,
}

impl Lab {
    /// Makes both namespaces and the uplink. The host's default route leads to the peer; the peer knows only the
    /// uplink's own subnet, so that a container's packets come back only if the host translates their source.
    ///
    /// # Errors
    /// When a namespace cannot be made or the kernel refuses a step. Nothing is left behind.
    pub fn new() -> Result<Self, LabError> {
        let namespace = |role| move |source| LabError::Namespace { role, source };
        let host_ns = NetNs::new().map_err(namespace("host"))?;
        let peer = NetNs::new().map_err(namespace("peer"))?;
        let host = Host::new(host_ns)?;
        for setting in BRIDGED_FRAMES_PASS_NETFILTER {
            host.set_if_present(setting, "0")?;
        }
        host.set_if_present(LINK_LOCAL_REPORTS, "0")?;
        host.netlink(|socket| {
            let mut batch = Batch::new();
            let end = VethEnd { name: UPLINK, mac: None };
            link::add_veth(&mut batch, end, end, &peer, VethOptions::default());
            socket.run(batch)?;
            set_up_end(socket, HOST_ADDRESS, Some(PEER_ADDRESS))
        })?;
        let mut outside = Socket::open_in(&peer, Protocol::Route)?;
        set_up_end(&mut outside, PEER_ADDRESS, None)?;
        host.netlink(|socket| link::settle(socket, &[UPLINK]))?;
        Ok(Self { host, peer })
    }

    /// The host; network drivers work on it.
    #[must_use]
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// The namespace that stands for the outside world.
    #[must_use]
    pub fn peer(&self) -> &NetNs {
        &self.peer
    }

    /// The host's address on the uplink.
    #[must_use]
    pub fn host_address(&self) -> Ipv4Addr {
        HOST_ADDRESS
    }

    /// The peer's address on the uplink.
    #[must_use]
    pub fn peer_address(&self) -> Ipv4Addr {
        PEER_ADDRESS
    }

    /// Makes the lab's default bridge network: `br0`, 172.30.0.0/16. There can be one.
    ///
    /// # Errors
    /// When there is one already, or the kernel refuses a step.
    pub fn bridge(&self) -> Result<Arc<BridgeNetwork>, LabError> {
        let subnet = Subnet::around(BRIDGE_NETWORK, BRIDGE_PREFIX);
        let config = BridgeConfig { name: BRIDGE.to_owned(), subnet, gateway: None, mtu: None };
        Ok(BridgeNetwork::create(Arc::clone(&self.host), config)?)
    }

    /// What the host's end of the uplink has carried so far: `tx` is towards the peer.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn uplink_counters(&self) -> Result<Counters, LabError> {
        Ok(self.host.netlink(|socket| link::by_name(socket, UPLINK))?.counters)
    }
}

/// One end of the uplink, and the namespace's `lo`.
fn set_up_end(socket: &mut Socket, own: Ipv4Addr, gateway: Option<Ipv4Addr>) -> Result<(), NetlinkError> {
    let uplink = link::by_name(socket, UPLINK)?.index;
    let mut batch = Batch::new();
    link::set_up(&mut batch, LOOPBACK);
    link::generate_no_ipv6_address(&mut batch, uplink);
    address::add(&mut batch, uplink, own, UPLINK_PREFIX);
    link::set_up(&mut batch, uplink);
    if let Some(gateway) = gateway {
        route::add_default(&mut batch, uplink, gateway);
    }
    socket.run(batch)
}
