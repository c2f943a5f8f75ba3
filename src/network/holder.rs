//! Which program on the host has a port that is taken: a socket of /proc/net, and the process that has it open.
//!
//! Used by `nat` when the kernel has refused a port; it costs a look at every process.

use std::net::Ipv4Addr;
use std::path::Path;

use super::error::PortHolder;
use super::{PortMapping, Protocol};

/// TCP_LISTEN of `net/tcp_states.h`. A UDP socket that is bound has state 7.
const LISTENING: &str = "0A";

/// Who has a port in the calling thread's network namespace.
pub(super) fn of(port: PortMapping) -> PortHolder {
    let Some(inode) = socket(port) else { return PortHolder::Socket };
    match process(&inode) {
        Some((pid, name)) => PortHolder::Program { pid, name },
        None => PortHolder::Socket,
    }
}

/// The inode of a socket that has the port on a common address.
fn socket(port: PortMapping) -> Option<String> {
    let files: [&str; 2] = match port.protocol {
        Protocol::Tcp => ["tcp", "tcp6"],
        Protocol::Udp => ["udp", "udp6"],
    };
    files.iter().find_map(|file| {
        // A kernel without IPv6 has no such file, and no such socket either.
        let table = std::fs::read_to_string(Path::new("/proc/thread-self/net").join(file)).ok()?;
        table.lines().skip(1).find_map(|line| matching(line, port))
    })
}

/// The inode in a line of such a table, where its socket is in the port's way.
fn matching(line: &str, port: PortMapping) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let (address, number) = local.rsplit_once(':')?;
    if u16::from_str_radix(number, 16).ok()? != port.host_port {
        return None;
    }
    let bound = address_of(address)?;
    let common = bound.is_unspecified() || port.host_ip.is_none_or(|wanted| wanted == bound);
    let holds = port.protocol == Protocol::Udp || *state == LISTENING;
    (common && holds && *inode != "0").then(|| (*inode).to_owned())
}

/// An address as these tables write it: words in the machine's order. IPv6 counts as far as it stands for IPv4.
fn address_of(text: &str) -> Option<Ipv4Addr> {
    let word = |text: &str| u32::from_str_radix(text, 16).ok().map(|word| Ipv4Addr::from(word.to_ne_bytes()));
    match text.len() {
        8 => word(text),
        32 if text.bytes().all(|digit| digit == b'0') => Some(Ipv4Addr::UNSPECIFIED),
        32 => {
            let (prefix, last) = text.split_at(24);
            let mapped = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
            (prefix[..16].bytes().all(|digit| digit == b'0') && prefix[16..] == format!("{mapped:08X}"))
                .then(|| word(last))
                .flatten()
        }
        _ => None,
    }
}

/// A process that has a socket open, and its name. Of several, the one that had it first by its pid.
fn process(inode: &str) -> Option<(u32, String)> {
    let wanted = format!("socket:[{inode}]");
    let entries = std::fs::read_dir("/proc").ok()?;
    let mut pids: Vec<u32> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let pid = pids.into_iter().find(|pid| has_open(*pid, &wanted))?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some((pid, name.trim_end().to_owned()))
}

fn has_open(pid: u32, wanted: &str) -> bool {
    // A process may end while it is looked at; then it has nothing open.
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_found_by_port_and_common_address() {
        let hex = |address: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(address));
        let line = |address: &str, state: &str| {
            format!(
                "  0: {address}:1F90 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  0  0 4242 1 0 100"
            )
        };
        let (any, loopback) = (line(&hex([0; 4]), "0A"), line(&hex([127, 0, 0, 1]), "0A"));
        let any6 = line(&"0".repeat(32), "0A");
        let mapped = line(&format!("{}{}{}", "0".repeat(16), hex([0, 0, 255, 255]), hex([127, 0, 0, 1])), "0A");
        let connected = line(&hex([0; 4]), "01");
        for (line, spec, found) in [
            (&any, "8080:80", true),
            (&any, "10.0.0.1:8080:80", true),
            (&any, "8081:80", false),
            (&loopback, "8080:80", true),
            (&loopback, "127.0.0.1:8080:80", true),
            (&loopback, "10.0.0.1:8080:80", false),
            (&any6, "8080:80", true),
            (&mapped, "127.0.0.1:8080:80", true),
            (&mapped, "10.0.0.1:8080:80", false),
            (&connected, "8080:80", false),
            (&connected, "8080:80/udp", true),
        ] {
            let inode = matching(line, spec.parse().unwrap());
            assert_eq!(inode, found.then(|| "4242".to_owned()), "{spec} in {line}");
        }
    }

    #[test]
    fn the_holder_of_a_socket_is_this_process() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let host_port = listener.local_addr().unwrap().port();
        let port = PortMapping { host_ip: None, host_port, container_port: 80, protocol: Protocol::Tcp };
        let PortHolder::Program { pid, name } = of(port) else { panic!("not found") };
        assert_eq!(pid, std::process::id());
        assert_eq!(name, std::fs::read_to_string("/proc/self/comm").unwrap().trim_end());
    }
}
