//! The addresses of a network that several processes share: one file each, in a directory of the network's.
//!
//! The name of the file says which address and whose, so that one look at the directory is enough to find a free
//! address and those whose holder has died; the content says for which container, and its published ports. Files are
//! written under the lock of all networks ([`Leases::lock`]), so a process may be killed at any time: what it has not
//! given back is taken back by the next that looks. `machine` makes them, `bridge` uses its own.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::bridge::host_link;
use super::error::{HostPort, PortHolder};
use super::host::{Host, locked};
use super::nat::clash;
use super::{NetworkError, PortMapping};
use crate::cgroup::owner::Owner;
use crate::fs::{FileError, Lock, read_text, remove_if_there, write_atomic};

/// How many holders are looked at thoroughly each time that someone comes. That costs a read of /proc each; whether a
/// pid is there at all costs a hundredth.
const LOOKS: usize = 16;

/// A container that wants to be on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its identifier.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The process that gives its address back; when that has ended, the address is free.
    pub process: Owner,
}

/// An address that is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub address: Ipv4Addr,
    pub owner: Owner,
    path: PathBuf,
}

/// What the file of a taken address holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    pub id: String,
    pub name: String,
    /// In the form in which ports are published, with the host ports that were chosen.
    pub ports: Vec<String>,
    /// The container's first process, once it has been told: while it runs, the address is in use though its holder has
    /// died.
    pub container: Option<String>,
}

/// The taken addresses of one network.
#[derive(Debug, Clone)]
pub(super) struct Leases {
    network: String,
    directory: PathBuf,
    lock: PathBuf,
}

/// What a sweep found.
#[derive(Debug)]
pub(super) struct Swept {
    /// The addresses in use.
    pub live: Vec<Entry>,
    /// How many were taken back.
    pub freed: usize,
}

impl Leases {
    /// Those in a directory, which exists, with the file that is locked by whoever changes something.
    pub(super) fn new(network: &str, directory: PathBuf, lock: PathBuf) -> Self {
        Self { network: network.to_owned(), directory, lock }
    }

    /// Waits until no one else changes anything, and keeps it so.
    pub(super) fn lock(&self) -> Result<Lock, NetworkError> {
        Lock::exclusive(&self.lock).map_err(self.unusable())
    }

    fn unusable(&self) -> impl FnOnce(FileError) -> NetworkError {
        let network = self.network.clone();
        |source| NetworkError::Notes { network, source }
    }

    /// All of them, in the order of their addresses.
    pub(super) fn all(&self) -> Result<Vec<Entry>, NetworkError> {
        let listed = std::fs::read_dir(&self.directory);
        let listed = listed.map_err(FileError::new("list", &self.directory)).map_err(self.unusable())?;
        let mut all: Vec<Entry> = listed.flatten().filter_map(|entry| parse(&entry.path())).collect();
        all.sort_unstable_by_key(|entry| entry.address);
        Ok(all)
    }

    /// What is noted of one; `None` when it has been given back meanwhile.
    pub(super) fn note(&self, entry: &Entry) -> Result<Option<Note>, NetworkError> {
        let text = match read_text(&entry.path) {
            Err(error) if error.is_not_found() => return Ok(None),
            text => text.map_err(self.unusable())?,
        };
        let path = entry.path.clone();
        let damaged = |problem: serde_json::Error| NetworkError::Damaged { path, problem: problem.to_string() };
        serde_json::from_str(&text).map(Some).map_err(damaged)
    }

    fn write(&self, path: &Path, note: &Note) -> Result<(), NetworkError> {
        // Strings only: nothing that JSON could not hold.
        write_atomic(path, &serde_json::to_vec(note).unwrap_or_default()).map_err(self.unusable())
    }

    /// Takes an address for a container, for who holds the lock.
    pub(super) fn take(&self, address: Ipv4Addr, tenant: &Tenant) -> Result<Lease, NetworkError> {
        let path = self.directory.join(format!("{address}_{}", tenant.process));
        let note = Note { id: tenant.id.clone(), name: tenant.name.clone(), ports: Vec::new(), container: None };
        self.write(&path, &note)?;
        let entry = Entry { address, owner: tenant.process, path };
        Ok(self.lease(entry, note, true))
    }

    fn lease(&self, entry: Entry, note: Note, idle: bool) -> Lease {
        let (note, idle) = (Mutex::new(note), AtomicBool::new(idle));
        Lease { leases: self.clone(), entry, note, maker: std::process::id(), idle }
    }

    /// Takes over the address of a container whose holder has died, for who holds the lock; `None` when it has none.
    pub(super) fn take_over(&self, tenant: &Tenant) -> Result<Option<Lease>, NetworkError> {
        for entry in self.all()?.into_iter().filter(|entry| !entry.owner.is_alive()) {
            let Some(note) = self.note(&entry)?.filter(|note| note.id == tenant.id) else { continue };
            let path = self.directory.join(format!("{}_{}", entry.address, tenant.process));
            let renamed = std::fs::rename(&entry.path, &path).map_err(FileError::new("rename", &entry.path));
            renamed.map_err(self.unusable())?;
            let entry = Entry { address: entry.address, owner: tenant.process, path };
            return Ok(Some(self.lease(entry, note, false)));
        }
        Ok(None)
    }

    /// Whether the container itself runs, though its holder does not.
    fn outlives(&self, entry: &Entry) -> bool {
        // A note that cannot be read says nothing for the dead.
        let note = self.note(entry).ok().flatten();
        let container = note.and_then(|note| note.container?.parse::<Owner>().ok());
        container.is_some_and(Owner::is_alive)
    }

    /// Whether an address is in use, looked at thoroughly.
    pub(super) fn is_in_use(&self, entry: &Entry) -> bool {
        entry.owner.is_alive() || self.outlives(entry)
    }

    /// Takes back what the dead have not given back, for who holds the lock: published ports, links, addresses. Whether
    /// a holder lives is looked at thoroughly for all, or for some each time.
    pub(super) fn sweep(&self, host: &Host, thorough: bool) -> Result<Swept, NetworkError> {
        let mut live = self.all()?;
        let looks = if thorough { live.len() } else { LOOKS };
        if looks < live.len() {
            let begin = std::process::id() as usize % live.len();
            live.rotate_left(begin);
        }
        let mut index = 0;
        let is_dead = |entry: &mut Entry| {
            index += 1;
            let holderless = if index <= looks { !entry.owner.is_alive() } else { is_gone(entry.owner.pid) };
            holderless && !self.outlives(entry)
        };
        let dead: Vec<Entry> = live.extract_if(.., is_dead).collect();
        if !dead.is_empty() {
            self.clean(host, &dead)?;
        }
        Ok(Swept { live, freed: dead.len() })
    }

    /// The ports first: until they are gone, packets for them go astray. The file last: it says what there is to do.
    fn clean(&self, host: &Host, dead: &[Entry]) -> Result<(), NetworkError> {
        let addresses: Vec<Ipv4Addr> = dead.iter().map(|entry| entry.address).collect();
        if let Some(error) = host.nat().unpublish_addresses(&self.network, &addresses).into_iter().next() {
            return Err(error);
        }
        for entry in dead {
            host.delete_link(&self.network, &host_link(entry.address))?;
            remove_if_there(&entry.path).map_err(self.unusable())?;
        }
        // Files that were never finished: no one else writes now.
        for entry in std::fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                remove_if_there(entry.path()).map_err(self.unusable())?;
            }
        }
        Ok(())
    }

    /// The container that has a port which `holder` was found to hold; `own` is who wants it.
    fn name_holder(&self, own: &Entry, wanted: PortMapping, holder: PortHolder) -> PortHolder {
        let pid = match &holder {
            PortHolder::Program { pid, .. } => Some(*pid),
            PortHolder::Socket => None,
            _ => return holder,
        };
        // What cannot be read now names no one; the refusal stands without it.
        let others = self.all().unwrap_or_default().into_iter().filter(|entry| entry.address != own.address);
        for entry in others.filter(|entry| pid.is_none_or(|pid| pid == entry.owner.pid) && self.is_in_use(entry)) {
            let Ok(Some(note)) = self.note(&entry) else { continue };
            let mut ports = note.ports.iter().filter_map(|port| port.parse::<PortMapping>().ok());
            if ports.any(|port| clash(port, wanted)) {
                return PortHolder::Named { name: note.name, id: note.id };
            }
        }
        holder
    }
}

/// Whether there is no process of that pid; one that is there may be another.
fn is_gone(pid: u32) -> bool {
    i32::try_from(pid).is_ok_and(|pid| kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH))
}

fn parse(path: &Path) -> Option<Entry> {
    let (address, owner) = path.file_name()?.to_str()?.split_once('_')?;
    Some(Entry { address: address.parse().ok()?, owner: owner.parse().ok()?, path: path.to_owned() })
}

/// An address that this process has for a container. It is given back by [`Lease::end`], or on drop if nothing is
/// connected with it; else when its holder has ended, by whoever comes next.
#[derive(Debug)]
pub(super) struct Lease {
    leases: Leases,
    entry: Entry,
    note: Mutex<Note>,
    /// The process that took it: a fork of it has not.
    maker: u32,
    /// Whether nothing is connected with it.
    idle: AtomicBool,
}

impl Lease {
    /// The address.
    pub(super) fn address(&self) -> Ipv4Addr {
        self.entry.address
    }

    /// Says that a link or ports are connected with it.
    pub(super) fn connected(&self) {
        self.idle.store(false, Ordering::Relaxed);
    }

    /// Publishes ports and notes them. A refusal names the container that has the port, whichever process looks after
    /// it; what a dead one has left is taken away first.
    pub(super) fn publish(
        &self,
        host: &Host,
        ports: &[PortMapping],
        publish: impl Fn() -> Result<Vec<PortMapping>, NetworkError>,
    ) -> Result<Vec<PortMapping>, NetworkError> {
        if ports.is_empty() {
            return Ok(Vec::new());
        }
        // Before, so that who is refused meanwhile learns whose they are.
        self.note_ports(ports)?;
        let published = match publish() {
            Err(NetworkError::Kernel { source, .. }) if source.errno() == Some(libc::EEXIST) => {
                self.sweep(host).and_then(|()| publish())
            }
            published => published,
        };
        match published {
            Ok(published) => {
                if published != ports {
                    self.note_ports(&published)?;
                }
                Ok(published)
            }
            Err(error) => {
                self.note_ports(&[])?;
                Err(self.explain(error, ports))
            }
        }
    }

    /// Names the container that has a port.
    fn explain(&self, error: NetworkError, ports: &[PortMapping]) -> NetworkError {
        match error {
            NetworkError::PortTaken { port, holder } => {
                let holder = self.leases.name_holder(&self.entry, port.0, holder);
                NetworkError::PortTaken { port, holder }
            }
            // No socket holds it, but it is translated: for a container that outlived its process.
            NetworkError::Kernel { ref source, .. } if source.errno() == Some(libc::EEXIST) => {
                let named = |port: &PortMapping| {
                    let holder = self.leases.name_holder(&self.entry, *port, PortHolder::Socket);
                    (holder != PortHolder::Socket).then_some(NetworkError::PortTaken { port: HostPort(*port), holder })
                };
                ports.iter().find_map(named).unwrap_or(error)
            }
            error => error,
        }
    }

    fn sweep(&self, host: &Host) -> Result<(), NetworkError> {
        let _lock = self.leases.lock()?;
        self.leases.sweep(host, true).map(drop)
    }

    fn note_ports(&self, ports: &[PortMapping]) -> Result<(), NetworkError> {
        self.change(|note| note.ports = ports.iter().map(ToString::to_string).collect())
    }

    /// Notes the container's first process.
    pub(super) fn entrust(&self, process: Owner) -> Result<(), NetworkError> {
        self.change(|note| note.container = Some(process.to_string()))
    }

    fn change(&self, change: impl FnOnce(&mut Note)) -> Result<(), NetworkError> {
        let _lock = self.leases.lock()?;
        let mut note = locked(&self.note);
        change(&mut note);
        self.leases.write(&self.entry.path, &note)
    }

    /// The ports that are noted.
    pub(super) fn ports(&self) -> Vec<PortMapping> {
        locked(&self.note).ports.iter().filter_map(|port| port.parse().ok()).collect()
    }

    /// Gives the address back; nothing is connected with it any more.
    pub(super) fn end(&self) -> Result<(), NetworkError> {
        self.idle.store(false, Ordering::Relaxed);
        remove_if_there(&self.entry.path).map_err(self.leases.unusable())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.idle.load(Ordering::Relaxed) && self.maker == std::process::id() {
            let _ = self.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_which_address_and_whose() {
        let entry = parse(Path::new("/x/172.31.0.2_17-4242")).unwrap();
        assert_eq!((entry.address, entry.owner), (Ipv4Addr::new(172, 31, 0, 2), Owner { pid: 17, start_ticks: 4242 }));
        for name in ["172.31.0.2", "172.31.0.2_17", ".isobench-abc", "x_17-1", "lock"] {
            assert_eq!(parse(Path::new(name)), None, "{name}");
        }
    }

    #[test]
    fn an_address_lasts_as_long_as_its_holder_or_its_container() {
        let root = tempfile::tempdir().unwrap();
        let leases = Leases::new("bridge", root.path().to_owned(), root.path().join("lock"));
        let own = Owner::of(std::process::id()).unwrap();
        let dead = Owner { start_ticks: own.start_ticks + 1, ..own };
        let tenant = |id: &str, process| Tenant { id: id.to_owned(), name: id.to_owned(), process };
        let address = |last| Ipv4Addr::new(172, 31, 0, last);
        let one = leases.take(address(2), &tenant("one", own)).unwrap();
        let two = leases.take(address(3), &tenant("two", dead)).unwrap();
        let in_use = || -> Vec<bool> { leases.all().unwrap().iter().map(|entry| leases.is_in_use(entry)).collect() };
        assert_eq!(in_use(), [true, false]);
        two.entrust(own).unwrap();
        assert_eq!(in_use(), [true, true]);
        two.connected();
        drop((one, two));
        assert_eq!(leases.all().unwrap().len(), 1, "what was connected stays noted");
        assert!(leases.take_over(&tenant("one", own)).unwrap().is_none());
        let over = leases.take_over(&tenant("two", own)).unwrap().unwrap();
        assert_eq!((over.address(), leases.all().unwrap()[0].owner), (address(3), own));
        over.end().unwrap();
        assert!(leases.all().unwrap().is_empty());
    }

    #[test]
    fn only_a_pid_that_no_one_has_is_gone() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(!is_gone(std::process::id()));
        assert!(is_gone(pid) || Owner::of(pid).is_some(), "nothing else took it meanwhile");
    }
}
