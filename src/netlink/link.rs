//! Links: bridges, veth pairs, and what all links have in common.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::message::{Attributes, Batch, CREATE, DUMP, ECHO, EXCLUSIVE, attribute, text, u32_at, u64_at};
use super::{NetlinkError, Socket};

/// Bytes of a `struct ifinfomsg`.
const HEADER: usize = 16;
const UP: u32 = libc::IFF_UP as u32;
/// IF_OPER_UP of `linux/if.h`.
const OPERATIONAL: u8 = 6;
/// VETH_INFO_PEER of `linux/veth.h`.
const VETH_PEER: u16 = 1;
/// IFLA_INET6_ADDR_GEN_MODE of `linux/if_link.h`, and its value "none".
const ADDRESS_GENERATION: u16 = 8;
const GENERATE_NONE: u8 = 1;
/// IFLA_INET_CONF, and IPV4_DEVCONF_ROUTE_LOCALNET of `linux/ip.h`.
const INET_CONF: u16 = 1;
const ROUTE_LOCALNET: u16 = 26;

/// A link-layer address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What a link has carried since it was made, as the kernel counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets that were received in error.
    pub rx_errors: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Received packets that were dropped.
    pub rx_dropped: u64,
    /// Packets to send that were dropped.
    pub tx_dropped: u64,
}

/// A link as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// IFF_UP and its like.
    pub flags: u32,
    /// Whether the kernel has noted that it has a carrier. IFF_RUNNING does not tell: it is also there before anything
    /// was noted.
    pub operational: bool,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// The bridge that it is a port of.
    pub master: Option<u32>,
    /// Its link-layer address, where it has one of six bytes.
    pub mac: Option<Mac>,
    /// The driver, as in `bridge` or `veth`; none for a physical link or `lo`.
    pub kind: Option<String>,
    /// What it has carried.
    pub counters: Counters,
}

impl Link {
    /// Whether it was switched on.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.flags & UP != 0
    }
}

/// A link to change, by what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkRef<'a> {
    /// Its number in its namespace.
    Index(u32),
    /// Its name.
    Name(&'a str),
}

impl From<u32> for LinkRef<'_> {
    fn from(index: u32) -> Self {
        Self::Index(index)
    }
}

impl<'a> From<&'a str> for LinkRef<'a> {
    fn from(name: &'a str) -> Self {
        Self::Name(name)
    }
}

impl fmt::Display for LinkRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "link {index}"),
            Self::Name(name) => write!(f, "link {name}"),
        }
    }
}

/// One end of a veth pair, for [`add_veth`].
#[derive(Debug, Clone, Copy)]
pub struct VethEnd<'a> {
    /// The name.
    pub name: &'a str,
    /// The link-layer address; the kernel draws one when there is none.
    pub mac: Option<Mac>,
}

/// What to make of a veth pair while it is made. Both ends are switched off.
#[derive(Debug, Clone, Copy, Default)]
pub struct VethOptions {
    /// The largest packet of both ends, in bytes.
    pub mtu: Option<u32>,
    /// The bridge that the near end becomes a port of.
    pub master: Option<u32>,
}

/// Asks for a bridge, switched off, that forwards at once and keeps the given link-layer address whatever its ports
/// are.
pub fn add_bridge(batch: &mut Batch, name: &str, mac: Mac, mtu: Option<u32>) {
    request(batch, (libc::RTM_NEWLINK, CREATE | EXCLUSIVE), ("add bridge", name), &header(0, 0, 0), |message| {
        message.text(libc::IFLA_IFNAME, name).bytes(libc::IFLA_ADDRESS, &mac.0);
        if let Some(mtu) = mtu {
            message.u32(libc::IFLA_MTU, mtu);
        }
        message.nest(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "bridge");
        });
    });
}

/// Asks for a veth pair: `near` in the socket's namespace, `far` in the one that `far_ns` holds open.
pub fn add_veth(batch: &mut Batch, near: VethEnd<'_>, far: VethEnd<'_>, far_ns: impl AsFd, options: VethOptions) {
    let far_ns: BorrowedFd<'_> = far_ns.as_fd();
    let object = ("add veth pair", near.name);
    request(batch, (libc::RTM_NEWLINK, CREATE | EXCLUSIVE), object, &header(0, 0, 0), |message| {
        veth_end(message, near, options.mtu);
        if let Some(master) = options.master {
            message.u32(libc::IFLA_MASTER, master);
        }
        message.nest(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "veth").nest(libc::IFLA_INFO_DATA, |data| {
                data.headed(VETH_PEER, &header(0, 0, 0), |peer| {
                    veth_end(peer, far, options.mtu);
                    peer.u32(libc::IFLA_NET_NS_FD, far_ns.as_raw_fd() as u32);
                });
            });
        });
    });
}

/// By default the kernel makes a queue for each possible CPU, and each is a directory tree in sysfs that has to be made
/// and taken down. A veth end transmits without a lock, so more than one queue gains it nothing.
fn veth_end(message: &mut Attributes<'_>, end: VethEnd<'_>, mtu: Option<u32>) {
    message.text(libc::IFLA_IFNAME, end.name);
    if let Some(mac) = end.mac {
        message.bytes(libc::IFLA_ADDRESS, &mac.0);
    }
    if let Some(mtu) = mtu {
        message.u32(libc::IFLA_MTU, mtu);
    }
    message.u32(libc::IFLA_NUM_TX_QUEUES, 1).u32(libc::IFLA_NUM_RX_QUEUES, 1);
}

/// Asks to switch a link on.
pub fn set_up<'a>(batch: &mut Batch, link: impl Into<LinkRef<'a>>) {
    change(batch, "switch on", link.into(), (UP, UP), |_| {});
}

/// Asks to switch a link off.
pub fn set_down<'a>(batch: &mut Batch, link: impl Into<LinkRef<'a>>) {
    change(batch, "switch off", link.into(), (0, UP), |_| {});
}

/// Asks to make the link a port of the bridge `master`, or of none.
pub fn set_master<'a>(batch: &mut Batch, link: impl Into<LinkRef<'a>>, master: Option<u32>) {
    change(batch, "set the master of", link.into(), (0, 0), |message| {
        message.u32(libc::IFLA_MASTER, master.unwrap_or(0));
    });
}

/// Asks to set the largest packet that the link carries, in bytes.
pub fn set_mtu<'a>(batch: &mut Batch, link: impl Into<LinkRef<'a>>, mtu: u32) {
    change(batch, "set the mtu of", link.into(), (0, 0), |message| {
        message.u32(libc::IFLA_MTU, mtu);
    });
}

/// Asks to rename the link with this index; the kernel refuses the name of another one.
pub fn rename(batch: &mut Batch, link: u32, name: &str) {
    change(batch, "rename", link.into(), (0, 0), |message| {
        message.text(libc::IFLA_IFNAME, name);
    });
}

/// Asks that the link gets no IPv6 address by itself when it is switched on. Without this the kernel makes a
/// link-local one, and spends the next seconds on probing for duplicates, joining groups and soliciting routers. A
/// kernel without IPv6 refuses, and that is as good.
pub fn generate_no_ipv6_address<'a>(batch: &mut Batch, link: impl Into<LinkRef<'a>>) {
    change(batch, "stop address generation on", link.into(), (0, 0), |message| {
        message.nest(libc::IFLA_AF_SPEC, |families| {
            families.nest(libc::AF_INET6 as u16, |inet6| {
                inet6.u8(ADDRESS_GENERATION, GENERATE_NONE);
            });
        });
    });
    batch.tolerate(libc::EAFNOSUPPORT);
}

/// Asks that the link routes 127.0.0.0/8 like any other network, which the sysctl `route_localnet` also does. A port
/// published on the host's loopback needs it.
pub fn route_loopback_addresses<'a>(batch: &mut Batch, link: impl Into<LinkRef<'a>>) {
    change(batch, "route loopback addresses on", link.into(), (0, 0), |message| {
        message.nest(libc::IFLA_AF_SPEC, |families| {
            families.nest(libc::AF_INET as u16, |inet| {
                inet.nest(INET_CONF, |conf| {
                    conf.u32(ROUTE_LOCALNET, 1);
                });
            });
        });
    });
}

/// Asks to delete a link; a veth pair goes with either end.
pub fn delete(batch: &mut Batch, name: &str) {
    request(batch, (libc::RTM_DELLINK, 0), ("delete link", name), &header(0, 0, 0), |message| {
        message.text(libc::IFLA_IFNAME, name);
    });
}

/// Deletes a link and returns when it is gone, without waiting until the kernel has freed its memory.
///
/// By itself the request returns after an RCU barrier, tens of milliseconds after name, addresses and bridge port are
/// gone. Asked for an echo, the kernel tells of the deletion before it begins to wait (since Linux 6.2; an older one
/// answers at the end only). A thread is left to sit the wait out.
///
/// # Errors
/// ENODEV when there is no such link; else when the kernel refuses.
pub fn delete_and_leave(socket: Socket, name: &str) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    request(&mut batch, (libc::RTM_DELLINK, ECHO), ("delete link", name), &header(0, 0, 0), |message| {
        message.text(libc::IFLA_IFNAME, name);
    });
    socket.run_until_first_answer(batch)
}

/// The link with this name in the socket's namespace.
///
/// # Errors
/// ENODEV when there is none.
pub fn by_name(socket: &mut Socket, name: &str) -> Result<Link, NetlinkError> {
    let mut batch = Batch::new();
    get(&mut batch, name, 0);
    let mut found = None;
    socket.query(batch, |kind, payload| {
        if kind == libc::RTM_NEWLINK {
            found = parse(payload);
        }
    })?;
    found.ok_or_else(|| NetlinkError::Answer { act: "find", object: name.to_owned(), problem: "it holds no link" })
}

/// Waits until the kernel has taken note that links have a carrier. That of a fresh link comes up in a worker of the
/// kernel some time later, and until then the link drops what it should send. Since Linux 6.8 a look at the link does
/// that work at once; before, it is looked again until the worker has come. Of a veth pair, only the end that was
/// switched on first needs this: the other one has its carrier from the beginning, and the worker is slow to note it.
///
/// # Errors
/// ENODEV when one does not exist; when one has no carrier after two seconds.
pub fn settle(socket: &mut Socket, names: &[&str]) -> Result<(), NetlinkError> {
    const PATIENCE: Duration = Duration::from_secs(2);
    const PAUSE: Duration = Duration::from_micros(200);
    let begin = Instant::now();
    loop {
        let mut batch = Batch::new();
        for name in names {
            get(&mut batch, name, libc::RTEXT_FILTER_SKIP_STATS as u32);
        }
        let mut idle = None;
        socket.query(batch, |kind, payload| {
            let link = parse(payload).filter(|link| kind == libc::RTM_NEWLINK && !link.operational);
            idle = idle.take().or(link);
        })?;
        match idle {
            None => return Ok(()),
            Some(link) if begin.elapsed() > PATIENCE => {
                let problem = "it has no carrier";
                return Err(NetlinkError::Answer { act: "wait for", object: link.name, problem });
            }
            Some(_) => std::thread::sleep(PAUSE),
        }
    }
}

fn get(batch: &mut Batch, name: &str, filter: u32) {
    request(batch, (libc::RTM_GETLINK, 0), ("find link", name), &header(0, 0, 0), |message| {
        message.text(libc::IFLA_IFNAME, name).u32(libc::IFLA_EXT_MASK, filter);
    });
}

/// Every link in the socket's namespace.
///
/// # Errors
/// When the kernel refuses the dump.
pub fn list(socket: &mut Socket) -> Result<Vec<Link>, NetlinkError> {
    let mut batch = Batch::new();
    request(&mut batch, (libc::RTM_GETLINK, DUMP), ("list", "links"), &header(0, 0, 0), |_| {});
    let mut found = Vec::new();
    socket.query(batch, |kind, payload| {
        if kind == libc::RTM_NEWLINK {
            found.extend(parse(payload));
        }
    })?;
    Ok(found)
}

fn change(
    batch: &mut Batch,
    act: &'static str,
    link: LinkRef<'_>,
    (flags, mask): (u32, u32),
    attributes: impl FnOnce(&mut Attributes<'_>),
) {
    let (index, name) = match link {
        LinkRef::Index(index) => (index, None),
        LinkRef::Name(name) => (0, Some(name)),
    };
    batch.request((libc::RTM_SETLINK, 0), (act, link.to_string()), &header(index, flags, mask), |message| {
        if let Some(name) = name {
            message.text(libc::IFLA_IFNAME, name);
        }
        attributes(message);
    });
}

fn request(
    batch: &mut Batch,
    kind: (u16, u16),
    (act, name): (&'static str, &str),
    header: &[u8; HEADER],
    attributes: impl FnOnce(&mut Attributes<'_>),
) {
    batch.request(kind, (act, name), header, attributes);
}

/// A `struct ifinfomsg`: of `flags`, those in `mask` are set.
fn header(index: u32, flags: u32, mask: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = libc::AF_UNSPEC as u8;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&mask.to_ne_bytes());
    header
}

fn parse(payload: &[u8]) -> Option<Link> {
    let attributes = payload.get(HEADER..)?;
    let number = |kind| attribute(attributes, kind).and_then(|value| u32_at(value, 0));
    Some(Link {
        index: u32_at(payload, 4)?,
        name: text(attribute(attributes, libc::IFLA_IFNAME)?),
        flags: u32_at(payload, 8)?,
        operational: attribute(attributes, libc::IFLA_OPERSTATE) == Some(&[OPERATIONAL]),
        mtu: number(libc::IFLA_MTU)?,
        master: number(libc::IFLA_MASTER),
        mac: attribute(attributes, libc::IFLA_ADDRESS).and_then(|value| value.try_into().ok()).map(Mac),
        kind: attribute(attributes, libc::IFLA_LINKINFO)
            .and_then(|info| attribute(info, libc::IFLA_INFO_KIND))
            .map(text),
        counters: attribute(attributes, libc::IFLA_STATS64).and_then(counters).unwrap_or_default(),
    })
}

/// The first members of `struct rtnl_link_stats64`.
fn counters(stats: &[u8]) -> Option<Counters> {
    let member = |index: usize| u64_at(stats, index * 8);
    Some(Counters {
        rx_packets: member(0)?,
        tx_packets: member(1)?,
        rx_bytes: member(2)?,
        tx_bytes: member(3)?,
        rx_errors: member(4)?,
        tx_errors: member(5)?,
        rx_dropped: member(6)?,
        tx_dropped: member(7)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::{answers, hex};

    #[test]
    fn a_bridge_is_asked_for_in_one_message() {
        let mut batch = Batch::new();
        add_bridge(&mut batch, "br0", Mac([2, 0x1b, 172, 30, 0, 1]), Some(1400));
        expect_test::expect![[r#"
            4c000000 10000106 00000000 00000000 00000000 00000000 00000000 00000000
            08000300 62723000 0a000100 021bac1e 00010000 08000400 78050000 10001280
            0b000100 62726964 67650000
        "#]]
        .assert_eq(&hex(&batch));
    }

    #[test]
    fn a_veth_pair_is_enslaved_and_moved_in_one_message() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let mut batch = Batch::new();
        let near = VethEnd { name: "veth0", mac: None };
        let far = VethEnd { name: "eth0", mac: Some(Mac([2, 0x1b, 172, 30, 0, 2])) };
        add_veth(&mut batch, near, far, &reader, VethOptions { mtu: None, master: Some(3) });
        // The number of the descriptor is the only part that is not the same in every run: a pipe stands for the
        // namespace, and its number is put back to 7.
        let end = batch.bytes.len() - 4;
        assert_eq!(batch.bytes[end..], (reader.as_raw_fd() as u32).to_ne_bytes());
        batch.bytes[end..].copy_from_slice(&7u32.to_ne_bytes());
        expect_test::expect![[r#"
            9c000000 10000106 00000000 00000000 00000000 00000000 00000000 00000000
            0a000300 76657468 30000000 08001f00 01000000 08002000 01000000 08000a00
            03000000 58001280 09000100 76657468 00000000 48000280 44000100 00000000
            00000000 00000000 00000000 09000300 65746830 00000000 0a000100 021bac1e
            00020000 08001f00 01000000 08002000 01000000 08001c00 07000000
        "#]]
        .assert_eq(&hex(&batch));
    }

    #[test]
    fn a_listed_link_is_understood() {
        let mut batch = Batch::new();
        request(&mut batch, (libc::RTM_NEWLINK, 0), ("", ""), &header(9, UP, 0), |message| {
            let stats: Vec<u8> = (1u64..=24).flat_map(u64::to_ne_bytes).collect();
            message.text(libc::IFLA_IFNAME, "veth0").u32(libc::IFLA_MTU, 1500).u32(libc::IFLA_MASTER, 3);
            message.bytes(libc::IFLA_ADDRESS, &[2, 0, 0, 0, 0, 1]).bytes(libc::IFLA_STATS64, &stats);
            message.u8(libc::IFLA_OPERSTATE, OPERATIONAL);
            message.nest(libc::IFLA_LINKINFO, |info| {
                info.text(libc::IFLA_INFO_KIND, "veth");
            });
        });
        let link = parse(answers(&batch.bytes).next().unwrap().payload).unwrap();
        assert!(link.is_up() && link.operational);
        assert_eq!((link.index, link.name.as_str(), link.mtu, link.master), (9, "veth0", 1500, Some(3)));
        assert_eq!(link.kind.as_deref(), Some("veth"));
        assert_eq!(link.mac.unwrap().to_string(), "02:00:00:00:00:01");
        assert_eq!((link.counters.rx_packets, link.counters.tx_bytes, link.counters.tx_dropped), (1, 4, 8));
    }
}
