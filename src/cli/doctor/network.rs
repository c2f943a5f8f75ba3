//! Network abilities, tried in an anonymous network namespace: link drivers and nf_tables.
//!
//! Asking for a link of a kind makes the kernel load its module, where there is one; the link itself ends with the
//! probe's process.

use nix::sched::CloneFlags;

use super::probe::{Obstacle, Probe, enter};
use crate::netlink::nftables::{Chain, ChainType, Hook, Transaction};
use crate::netlink::{Batch, Protocol, Socket};

const NO_BRIDGE: &str = "cases with network = \"bridge\" or \"container\"";

/// One probe a driver, and nf_tables with address translation.
pub(super) const PROBES: &[Probe] = &[
    driver("veth", NO_BRIDGE, || add("veth")),
    driver("bridge", NO_BRIDGE, || add("bridge")),
    driver("nf_tables", NO_BRIDGE, nf_tables),
];

/// `struct ifinfomsg` is sixteen bytes; all zero means "any, unset".
const HEADER: [u8; 16] = [0; 16];
const NEW_LINK: (u16, u16) = (libc::RTM_NEWLINK, (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16);
/// The link or table that a probe makes.
const NAME: &str = "probe0";

const fn driver(name: &'static str, without: &'static str, attempt: fn() -> Result<(), Obstacle>) -> Probe {
    Probe { area: "network", name, without, attempt }
}

fn own_network(protocol: Protocol) -> Result<Socket, Obstacle> {
    enter(CloneFlags::CLONE_NEWNET)?;
    Ok(Socket::open(protocol)?)
}

fn add(kind: &str) -> Result<(), Obstacle> {
    let mut socket = own_network(Protocol::Route)?;
    let mut batch = Batch::new();
    batch.request(NEW_LINK, ("add link of kind", kind), &HEADER, |message| {
        message.text(libc::IFLA_IFNAME, NAME).nest(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, kind);
        });
    });
    Ok(socket.run(batch)?)
}

/// A table with a chain for address translation, as bridges use it.
fn nf_tables() -> Result<(), Obstacle> {
    let mut socket = own_network(Protocol::Netfilter)?;
    let mut transaction = Transaction::new();
    let chain =
        Chain { table: NAME, name: "postrouting", chain_type: ChainType::Nat, hook: Hook::Postrouting, priority: 100 };
    transaction.add_table(NAME).add_chain(&chain);
    Ok(transaction.commit(&mut socket)?)
}
