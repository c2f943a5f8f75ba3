//! The networks of a machine, as its commands share them: containers that are run by hand each have a process of their
//! own, and all of those work on the same bridge.
//!
//! What is noted of them is in a directory a network namespace (`/run/isobench/networks/INODE`): it belongs to the
//! namespace, and like everything in one it does not outlive the machine's boot. `network.json` says what the bridge
//! is, `leases/` who is on it ([`super::lease`]). One lock, for all namespaces, is held by whoever changes something;
//! nothing slow happens under it.
//!
//! There is one network so far, `bridge`. It is made when the first container joins it and stays until
//! [`MachineNetworks::remove_unused`].

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::bridge::{BridgeConfig, BridgeNetwork, Endpoint, host_link, mac};
use super::host::Host;
use super::ipam::{Ipam, IpamError, Subnet};
use super::lease::{Entry, Leases};
use super::{NetworkError, PortMapping, nat};
use crate::fs::{FileError, create_dirs, read_text, write_atomic};
use crate::image::digest::Digest;
use crate::netlink::link::{Link, Mac};
use crate::netlink::{Batch, Protocol, Socket, link};
use crate::sys::netns::NetNs;

pub use super::lease::Tenant;

/// The name of the network that containers are on unless they ask for another.
pub const DEFAULT: &str = "bridge";
/// Its link in the host's namespace.
pub const LINK: &str = "isobench0";
/// Where all is noted.
const DIRECTORY: &str = "/run/isobench/networks";
/// The version of [`Record`]'s form.
const SCHEMA: u32 = 1;
/// Subnets for the network, of those that RFC 1918 leaves to private networks: the highest first, since people and
/// other programs begin at the low ones.
const PREFIX: u8 = 16;

/// The networks of the namespace that plays the host.
#[derive(Debug, Clone)]
pub struct MachineNetworks {
    ns: NetNs,
    /// What is noted of this namespace.
    directory: PathBuf,
    lock: PathBuf,
}

/// A network as it is noted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    schema: u32,
    boot: String,
    created: String,
    subnet: String,
    gateway: Ipv4Addr,
    /// Whether it was made to its end, and its removal has not begun.
    ready: bool,
}

/// A place on a network, which is taken.
#[derive(Debug)]
pub struct Joined {
    /// The network; it gives that one address, and takes it back when it is detached or dropped.
    pub network: Arc<BridgeNetwork>,
    /// The address.
    pub address: Ipv4Addr,
    /// The link-layer address that the container's `eth0` will have.
    pub mac: Mac,
}

/// What was taken away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Addresses whose holder had died.
    pub addresses: usize,
    /// Networks that no one was on.
    pub networks: usize,
}

/// A network as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// 64 hexadecimal digits.
    pub id: String,
    /// When it was made, by RFC 3339; none before the first container.
    pub created: Option<String>,
    /// Its subnet and its own address there.
    pub subnet: Option<(Subnet, Ipv4Addr)>,
    /// Who is on it, by address.
    pub members: Vec<Member>,
    /// The bridge's ports, as the kernel has them.
    pub links: Vec<Link>,
    /// The ports of the host that lead to its addresses, as the kernel has them.
    pub published: Vec<(PortMapping, Ipv4Addr)>,
}

/// A container on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its identifier.
    pub id: String,
    /// The name that it had when it joined.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// The link-layer address of its `eth0`.
    pub mac: Mac,
}

impl MachineNetworks {
    /// Those of a namespace; nothing is made yet.
    ///
    /// # Errors
    /// When the namespace cannot be told from others.
    pub fn open(ns: NetNs) -> Result<Self, NetworkError> {
        let act = "look at the host's network namespace";
        let inode = ns.inode().map_err(|source| NetworkError::Namespace { act, source })?;
        let directory = Path::new(DIRECTORY);
        Ok(Self { ns, lock: directory.join("lock"), directory: directory.join(inode.to_string()) })
    }

    /// Puts a container on the network `bridge`, which is made if it is missing. The address is taken from now on;
    /// [`BridgeNetwork::attach`] connects the container with it.
    ///
    /// # Errors
    /// When the network cannot be made, has no address left, or something cannot be noted.
    pub fn join(&self, tenant: &Tenant) -> Result<Joined, NetworkError> {
        let host = Host::new(self.ns.clone())?;
        let leases = self.leases();
        create_dirs(DIRECTORY).map_err(unusable)?;
        let _lock = leases.lock()?;
        create_dirs(self.directory.join("leases")).map_err(unusable)?;
        let live = leases.sweep(&host, false)?.live;
        let (config, index) = self.find_or_make(&host, &live)?;
        let gateway = config.gateway;
        let address = free_address(&config, &live).or_else(|error| match error {
            IpamError::Full(_) => {
                leases.sweep(&host, true).and_then(|swept| free_address(&config, &swept.live).map_err(no_address))
            }
            error => Err(no_address(error)),
        })?;
        let lease = leases.take(address, tenant)?;
        let network = BridgeNetwork::adopt(host, BridgeConfig { gateway, ..config }, index, Some(lease))?;
        Ok(Joined { network, address, mac: mac(address) })
    }

    /// Takes over the place of a container that outlived the process which had it, so that it can be given back at the
    /// container's end by [`BridgeNetwork::detach`]; `None` when the container has none.
    ///
    /// # Errors
    /// When the notes cannot be used or the namespace not be worked in.
    pub fn take_over(&self, tenant: &Tenant) -> Result<Option<(Arc<BridgeNetwork>, Endpoint)>, NetworkError> {
        if !self.directory.is_dir() {
            return Ok(None);
        }
        let leases = self.leases();
        let _lock = leases.lock()?;
        let Some(record) = self.record()? else { return Ok(None) };
        let Some(lease) = leases.take_over(tenant)? else { return Ok(None) };
        let (host, config) = (Host::new(self.ns.clone())?, config(self.subnet(&record)?, record.gateway));
        let index = find_link(&host)?.map_or(0, |link| link.index);
        let network = BridgeNetwork::adopt(host, config, index, Some(lease))?;
        let endpoint = network.resume()?;
        Ok(endpoint.map(|endpoint| (network, endpoint)))
    }

    /// What there is, without changing anything.
    ///
    /// # Errors
    /// When the notes are damaged or the kernel does not tell.
    pub fn look(&self) -> Result<View, NetworkError> {
        let record = self.record()?;
        let mut view = View {
            id: self.id()?,
            created: None,
            subnet: None,
            members: Vec::new(),
            links: Vec::new(),
            published: Vec::new(),
        };
        let Some(record) = record.filter(|record| record.ready) else { return Ok(view) };
        let subnet = self.subnet(&record)?;
        view.created = Some(record.created);
        view.subnet = Some((subnet, record.gateway));
        view.members = self.members()?;
        let open = |protocol| Socket::open_in(&self.ns, protocol).map_err(NetworkError::kernel(DEFAULT));
        let links = link::list(&mut open(Protocol::Route)?).map_err(NetworkError::kernel(DEFAULT))?;
        let bridge = links.iter().find(|link| link.name == LINK).map(|link| link.index);
        view.links = links.into_iter().filter(|link| bridge.is_some() && link.master == bridge).collect();
        let published = nat::published(open(Protocol::Netfilter)?).map_err(NetworkError::kernel(DEFAULT))?;
        view.published = published.into_iter().filter(|(_, address)| subnet.contains(*address)).collect();
        Ok(view)
    }

    fn members(&self) -> Result<Vec<Member>, NetworkError> {
        let leases = self.leases();
        let mut members = Vec::new();
        for entry in leases.all()?.into_iter().filter(|entry| leases.is_in_use(entry)) {
            if let Some(note) = leases.note(&entry)? {
                let (address, mac) = (entry.address, mac(entry.address));
                members.push(Member { id: note.id, name: note.name, address, mac });
            }
        }
        Ok(members)
    }

    /// Takes back what the dead have not given back, and takes the network down if no one is on it.
    ///
    /// # Errors
    /// When the notes cannot be used or the kernel refuses a step; it can be tried again.
    pub fn remove_unused(&self) -> Result<Removed, NetworkError> {
        let mut removed = Removed::default();
        if self.directory.is_dir() {
            let leases = self.leases();
            let _lock = leases.lock()?;
            create_dirs(self.directory.join("leases")).map_err(unusable)?;
            let host = Host::new(self.ns.clone())?;
            let swept = leases.sweep(&host, true)?;
            removed.addresses = swept.freed;
            if swept.live.is_empty() {
                removed.networks = usize::from(self.take_down(host)?);
                remove_directory(&self.directory)?;
            }
        }
        Ok(removed)
    }

    /// Takes the bridge and its rules away; false when there was no bridge.
    fn take_down(&self, host: Arc<Host>) -> Result<bool, NetworkError> {
        let Some(record) = self.record()? else { return Ok(false) };
        self.write(&Record { ready: false, ..record.clone() })?;
        let link = find_link(&host)?.filter(is_ours);
        let config = config(self.subnet(&record)?, record.gateway);
        let index = link.as_ref().map_or(0, |link| link.index);
        BridgeNetwork::adopt(host, config, index, None)?.destroy()?;
        Ok(link.is_some())
    }

    /// Forgets what is noted of namespaces that are gone, where no address is left to give back. A namespace that only
    /// a descriptor holds cannot be told from one that is gone; its next container gets a new bridge.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn forget_gone() -> Result<usize, NetworkError> {
        Self::forget_gone_in(Path::new(DIRECTORY))
    }

    fn forget_gone_in(directory: &Path) -> Result<usize, NetworkError> {
        let mut forgotten = 0;
        let Ok(entries) = std::fs::read_dir(directory) else { return Ok(0) };
        let there = namespaces();
        for entry in entries.flatten() {
            let Some(inode) = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()) else { continue };
            let leases = Leases::new(DEFAULT, entry.path().join("leases"), directory.join("lock"));
            let _lock = leases.lock()?;
            let given = leases.all().is_ok_and(|all| !all.is_empty());
            if !given && !there.contains(&inode) {
                remove_directory(&entry.path())?;
                forgotten += 1;
            }
        }
        Ok(forgotten)
    }

    /// The network's identifier. It follows from the namespace, so that there is one before the network is made.
    fn id(&self) -> Result<String, NetworkError> {
        let namespace = self.directory.file_name().unwrap_or_default().to_string_lossy();
        let text = format!("isobench network {DEFAULT} of namespace {namespace} in boot {}", boot()?);
        Ok(Digest::of(text.as_bytes()).hex())
    }

    fn leases(&self) -> Leases {
        Leases::new(DEFAULT, self.directory.join("leases"), self.lock.clone())
    }

    /// The bridge that is noted, if it is there; else one that is made now. For who holds the lock.
    fn find_or_make(&self, host: &Arc<Host>, live: &[Entry]) -> Result<(BridgeConfig, u32), NetworkError> {
        let record = self.record()?;
        let link = find_link(host)?;
        if let (Some(record), Some(link)) = (&record, &link)
            && record.ready
            && link.mac == Some(mac(record.gateway))
        {
            let subnet = self.subnet(record)?;
            let kernel = NetworkError::kernel(DEFAULT);
            if !host.nat().is_there().map_err(NetworkError::kernel(DEFAULT))? {
                host.nat().add_network(LINK, link.index, subnet).map_err(kernel)?;
            }
            return Ok((config(subnet, record.gateway), link.index));
        }
        match link {
            Some(link) if is_ours(&link) => host.delete_link(DEFAULT, LINK)?,
            Some(_) => {
                let problem = format!("there is a link {LINK} that isobench has not made; rename or remove it");
                return Err(NetworkError::Config { network: DEFAULT.to_owned(), problem });
            }
            None => {}
        }
        let before = record.map(|record| self.subnet(&record)).transpose()?;
        let network = self.make(host, before)?;
        reconnect(host, &network, live)?;
        Ok((config(network.subnet(), network.gateway()), network.index()))
    }

    /// Makes the bridge with the first subnet that is free, that of before if it can be.
    fn make(&self, host: &Arc<Host>, before: Option<Subnet>) -> Result<Arc<BridgeNetwork>, NetworkError> {
        for subnet in before.into_iter().chain(subnets()) {
            let gateway = subnet.first_host();
            let (created, subnet_text) = (Timestamp::now().to_string(), subnet.to_string());
            let record = Record { schema: SCHEMA, boot: boot()?, created, subnet: subnet_text, gateway, ready: false };
            self.write(&record)?;
            match BridgeNetwork::create(Arc::clone(host), config(subnet, gateway)) {
                Err(NetworkError::Overlap { .. }) => {}
                made => {
                    let made = made?;
                    self.write(&Record { ready: true, ..record })?;
                    return Ok(made);
                }
            }
        }
        Err(NetworkError::NoSubnet { network: DEFAULT.to_owned() })
    }

    fn path(&self) -> PathBuf {
        self.directory.join("network.json")
    }

    /// What is noted; none when there is nothing, or it is of another boot.
    fn record(&self) -> Result<Option<Record>, NetworkError> {
        let text = match read_text(self.path()) {
            Err(error) if error.is_not_found() => return Ok(None),
            text => text.map_err(unusable)?,
        };
        let record: Record = serde_json::from_str(&text).map_err(|error| self.damaged(error.to_string()))?;
        if record.schema != SCHEMA {
            let problem = format!("it is of version {}, and this program reads version {SCHEMA}", record.schema);
            return Err(self.damaged(problem));
        }
        let boot = boot()?;
        Ok((record.boot == boot).then_some(record))
    }

    fn write(&self, record: &Record) -> Result<(), NetworkError> {
        // String keys only, which is all that JSON asks for.
        write_atomic(self.path(), &serde_json::to_vec(record).unwrap_or_default()).map_err(unusable)
    }

    fn subnet(&self, record: &Record) -> Result<Subnet, NetworkError> {
        record.subnet.parse().map_err(|error: IpamError| self.damaged(error.to_string()))
    }

    fn damaged(&self, problem: String) -> NetworkError {
        NetworkError::Damaged { path: self.path(), problem }
    }
}

fn unusable(source: FileError) -> NetworkError {
    NetworkError::Notes { network: DEFAULT.to_owned(), source }
}

fn no_address(source: IpamError) -> NetworkError {
    NetworkError::Address { network: DEFAULT.to_owned(), source }
}

fn config(subnet: Subnet, gateway: Ipv4Addr) -> BridgeConfig {
    BridgeConfig { name: LINK.to_owned(), subnet, gateway: Some(gateway), mtu: None }
}

/// From 172.31.0.0/16 down to 172.16.0.0/16, then from 10.255.0.0/16 down to 10.231.0.0/16.
fn subnets() -> impl Iterator<Item = Subnet> {
    let subnet = |a: u8| move |b: u8| Subnet::around(Ipv4Addr::new(a, b, 0, 0), PREFIX);
    (16..=31).rev().map(subnet(172)).chain((231..=255).rev().map(subnet(10)))
}

/// The lowest address that no one has.
fn free_address(config: &BridgeConfig, live: &[Entry]) -> Result<Ipv4Addr, IpamError> {
    let mut ipam = Ipam::new(config.subnet, config.gateway)?;
    for entry in live {
        // One that is left from another subnet takes nothing from this one.
        let _ = ipam.allocate_this(entry.address);
    }
    ipam.allocate()
}

fn find_link(host: &Host) -> Result<Option<Link>, NetworkError> {
    match host.netlink(|socket| link::by_name(socket, LINK)) {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
        found => found.map(Some).map_err(NetworkError::kernel(DEFAULT)),
    }
}

/// Whether a link is a bridge with a link-layer address as only this program gives.
fn is_ours(link: &Link) -> bool {
    let Mac(ours) = mac(Ipv4Addr::UNSPECIFIED);
    link.kind.as_deref() == Some("bridge") && link.mac.is_some_and(|Mac(bytes)| bytes[..2] == ours[..2])
}

/// Makes the links of those who are on the network ports of its new bridge: someone had deleted the old one.
fn reconnect(host: &Host, network: &BridgeNetwork, live: &[Entry]) -> Result<(), NetworkError> {
    for entry in live.iter().filter(|entry| network.subnet().contains(entry.address)) {
        let mut batch = Batch::new();
        link::set_master(&mut batch, host_link(entry.address).as_str(), Some(network.index()));
        match host.netlink(|socket| socket.run(batch)) {
            // It is about to be made, or has gone with its container.
            Err(error) if error.errno() == Some(libc::ENODEV) => {}
            changed => changed.map_err(NetworkError::kernel(DEFAULT))?,
        }
    }
    Ok(())
}

fn remove_directory(directory: &Path) -> Result<(), NetworkError> {
    std::fs::remove_dir_all(directory).map_err(FileError::new("remove", directory)).map_err(unusable)
}

fn boot() -> Result<String, NetworkError> {
    Ok(read_text("/proc/sys/kernel/random/boot_id").map_err(unusable)?.trim().to_owned())
}

/// The inode numbers of the network namespaces that a process is in or a file of /run/netns holds.
fn namespaces() -> BTreeSet<u64> {
    use std::os::unix::fs::MetadataExt;
    let list = |directory: &str| std::fs::read_dir(directory).into_iter().flatten().flatten();
    let processes = list("/proc").map(|entry| entry.path().join("ns/net"));
    let files = list("/run/netns").map(|entry| entry.path());
    processes.chain(files).filter_map(|path| Some(std::fs::metadata(path).ok()?.ino())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::owner::Owner;

    #[test]
    fn there_are_forty_one_subnets_to_choose_from() {
        let all: Vec<String> = subnets().map(|subnet| subnet.to_string()).collect();
        assert_eq!(all.len(), 41);
        assert_eq!((all[0].as_str(), all[15].as_str()), ("172.31.0.0/16", "172.16.0.0/16"));
        assert_eq!((all[16].as_str(), all[40].as_str()), ("10.255.0.0/16", "10.231.0.0/16"));
    }

    #[test]
    fn a_namespace_that_is_gone_is_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let own = NetNs::current().unwrap().inode().unwrap().to_string();
        let tenant = Tenant {
            id: "1".repeat(64),
            name: "one".to_owned(),
            process: Owner { pid: std::process::id(), start_ticks: 1 },
        };
        // No namespace has such numbers.
        for name in ["1", "2", own.as_str()] {
            create_dirs(root.path().join(name).join("leases")).unwrap();
        }
        let leases = Leases::new(DEFAULT, root.path().join("2/leases"), root.path().join("lock"));
        let mut lease = Some(leases.take(Ipv4Addr::new(172, 31, 0, 2), &tenant).unwrap());
        assert_eq!(MachineNetworks::forget_gone_in(root.path()).unwrap(), 1);
        assert!(root.path().join("2").is_dir() && root.path().join(&own).is_dir());
        drop(lease.take());
        assert_eq!(MachineNetworks::forget_gone_in(root.path()).unwrap(), 1);
        assert!(root.path().join(&own).is_dir());
        assert_eq!(MachineNetworks::forget_gone_in(&root.path().join("nothing")).unwrap(), 0);
    }
}
