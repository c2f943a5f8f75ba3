//! What the network tests are made of: programs that judge, servers that answer, containers that are attached.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use isobench::lab::Lab;
use isobench::netlink::{Batch, Protocol as NetlinkProtocol, Socket, link};
use isobench::network::bridge::{BridgeConfig, BridgeNetwork, Endpoint};
use isobench::network::{NetworkError, PortMapping};
use isobench::sys::netns::NetNs;
use serde_json::Value;

pub type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// How long a packet may take before it counts as lost. Nothing here takes a thousandth of it.
pub const PATIENCE: Duration = Duration::from_secs(5);
pub const WILDCARD: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

pub fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// The standard output of a program that runs inside a namespace.
pub fn run(ns: &NetNs, command: &str) -> Result<String> {
    let mut words = command.split_whitespace();
    let program = words.next().ok_or("an empty command")?;
    let output = ns.enter(|| Command::new(program).args(words).output())??;
    if !output.status.success() {
        return Err(format!("{command}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

pub fn json(ns: &NetNs, command: &str) -> Result<Vec<Value>> {
    let text = run(ns, command)?;
    Ok(match serde_json::from_str(if text.trim().is_empty() { "[]" } else { &text })? {
        Value::Array(items) => items,
        one => vec![one],
    })
}

/// What `nft` says is there, without its own version.
pub fn ruleset(ns: &NetNs) -> Result<Vec<Value>> {
    let listed = json(ns, "nft -j list ruleset")?.pop().ok_or("nft says nothing")?;
    let items = listed["nftables"].as_array().cloned().ok_or("nft lists nothing")?;
    Ok(items.into_iter().filter(|item| item.get("metainfo").is_none()).collect())
}

/// The elements of one of our maps, as `nft` shows them.
pub fn elements(ns: &NetNs, map: &str) -> Result<usize> {
    let found = ruleset(ns)?.into_iter().find(|item| item["map"]["name"] == map).ok_or("no such map")?;
    Ok(found["map"]["elem"].as_array().map_or(0, Vec::len))
}

pub fn names(links: &[Value]) -> Vec<String> {
    links.iter().map(|link| link["ifname"].as_str().unwrap_or("?").to_owned()).collect()
}

/// A namespace as the container engine hands it over: `lo` is up.
pub fn container() -> Result<NetNs> {
    let ns = NetNs::new()?;
    let mut batch = Batch::new();
    link::set_up(&mut batch, 1);
    Socket::open_in(&ns, NetlinkProtocol::Route)?.run(batch)?;
    Ok(ns)
}

pub fn attached(network: &BridgeNetwork, ports: &[&str]) -> Result<(NetNs, Endpoint)> {
    let ns = container()?;
    let ports: Vec<PortMapping> = ports.iter().map(|spec| spec.parse()).collect::<std::result::Result<_, _>>()?;
    let endpoint = network.attach(&ns, &ports)?;
    Ok((ns, endpoint))
}

/// Answers each TCP connection with the address that it came from, as long as the process lives.
pub fn tcp_server(ns: &NetNs, address: Ipv4Addr, port: u16) -> Result<u16> {
    let listener = ns.enter(|| TcpListener::bind((address, port)))??;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream);
        }
    });
    Ok(port)
}

pub fn answer(mut stream: TcpStream) {
    if let Ok(address) = stream.peer_addr() {
        _ = stream.write_all(address.ip().to_string().as_bytes());
    }
}

/// Answers each UDP packet with the address that it came from.
pub fn udp_server(ns: &NetNs, address: Ipv4Addr, port: u16) -> Result<u16> {
    let socket = ns.enter(|| UdpSocket::bind((address, port)))??;
    let port = socket.local_addr()?.port();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            _ = socket.send_to(from.ip().to_string().as_bytes(), from);
        }
    });
    Ok(port)
}

/// Which address a TCP server sees when it is called from this namespace.
pub fn call(ns: &NetNs, address: Ipv4Addr, port: u16) -> std::io::Result<String> {
    let target = SocketAddr::from((address, port));
    let mut stream = ns.enter(|| TcpStream::connect_timeout(&target, PATIENCE))??;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut seen = String::new();
    stream.read_to_string(&mut seen)?;
    Ok(seen)
}

/// Which address a UDP server sees when it is called from this namespace.
pub fn call_udp(ns: &NetNs, address: Ipv4Addr, port: u16, patience: Duration) -> std::io::Result<String> {
    let socket = ns.enter(|| UdpSocket::bind((WILDCARD, 0)))??;
    socket.set_read_timeout(Some(patience))?;
    socket.connect(SocketAddrV4::new(address, port))?;
    socket.send(b"who am I")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// A counter of /proc/net/snmp in a namespace, as in ("Tcp", "RetransSegs").
pub fn snmp(ns: &NetNs, group: &str, counter: &str) -> Result<u64> {
    let text = ns.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut lines = text.lines().filter(|line| line.starts_with(&format!("{group}:")));
    let (heads, values) = (lines.next().ok_or("no such group")?, lines.next().ok_or("no values")?);
    let place = heads.split_whitespace().position(|head| head == counter).ok_or("no such counter")?;
    Ok(values.split_whitespace().nth(place).ok_or("no value")?.parse()?)
}

pub fn text_of(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

pub fn bridge(lab: &Lab, name: &str, subnet: &str) -> std::result::Result<Arc<BridgeNetwork>, NetworkError> {
    let subnet = subnet.parse().expect("a subnet written in this file");
    let config = BridgeConfig { name: name.to_owned(), subnet, gateway: None, mtu: None };
    BridgeNetwork::create(Arc::clone(lab.host()), config)
}

/// Waits until the kernel has done something by itself.
pub fn until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !done()? {
        if std::time::Instant::now() > deadline {
            return Err(format!("waited in vain until {what}").into());
        }
        std::thread::yield_now();
    }
    Ok(())
}
