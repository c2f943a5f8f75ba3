//! The bridge network in a lab: judged by iproute2, nft, /proc and plain sockets, none of which is ours.

use std::collections::BTreeSet;
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

use crate::harness::Case;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// How long a packet may take before it counts as lost. Nothing here takes a thousandth of it.
const PATIENCE: Duration = Duration::from_secs(5);
const WILDCARD: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

pub fn cases() -> Vec<Case> {
    let ip = || found("ip");
    let nft = || found("nft");
    vec![
        Case::new("network::a_lab_is_two_namespaces_and_an_uplink", lab_is_two_namespaces)
            .needs(ip(), "needs iproute2"),
        Case::new("network::attach_configures_both_ends", attach_configures_both_ends).needs(ip(), "needs iproute2"),
        Case::new("network::the_first_packet_is_not_lost", first_packet_is_not_lost),
        Case::new("network::the_peer_sees_the_hosts_address", peer_sees_the_hosts_address),
        Case::new("network::a_published_port_is_reached_from_everywhere", published_port_is_reached),
        Case::new("network::a_port_published_on_loopback_stays_there", loopback_port_stays_there),
        Case::new("network::containers_reach_each_other", containers_reach_each_other),
        Case::new("network::a_container_without_network_reaches_nothing", none_reaches_nothing),
        Case::new("network::containers_do_not_reach_the_hosts_loopback", hosts_loopback_is_safe)
            .needs(ip() && nft(), "needs iproute2 and nftables"),
        Case::new("network::nothing_is_left_after_removal", nothing_is_left)
            .needs(ip() && nft(), "needs iproute2 and nftables"),
        Case::new("network::a_taken_port_names_its_holder", taken_port_names_its_holder),
        Case::new("network::a_failed_attach_leaves_nothing", failed_attach_leaves_nothing)
            .needs(ip() && nft(), "needs iproute2 and nftables"),
        Case::new("network::a_container_may_vanish_first", container_may_vanish_first).needs(ip(), "needs iproute2"),
        Case::new("network::three_hundred_containers", three_hundred_containers).needs(ip(), "needs iproute2"),
        Case::new("network::a_full_subnet_is_refused", full_subnet_is_refused),
        Case::new("network::an_overlap_is_refused_by_name", overlap_is_refused).needs(ip(), "needs iproute2"),
        Case::new("network::two_labs_are_apart", two_labs_are_apart),
        Case::new("network::the_machines_own_namespace_is_untouched", own_namespace_is_untouched)
            .needs(ip() && nft(), "needs iproute2 and nftables"),
        Case::new("network::four_threads_attach_at_once", four_threads_attach).needs(ip(), "needs iproute2"),
        Case::new("network::the_kernels_refusals_are_explained", refusals_are_explained),
        Case::new("network::links_are_changed_one_by_one", links_are_changed).needs(ip(), "needs iproute2"),
    ]
}

// ---- what the tests are made of

fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// The standard output of a program that runs inside a namespace.
fn run(ns: &NetNs, command: &str) -> Result<String> {
    let mut words = command.split_whitespace();
    let program = words.next().ok_or("an empty command")?;
    let output = ns.enter(|| Command::new(program).args(words).output())??;
    if !output.status.success() {
        return Err(format!("{command}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn json(ns: &NetNs, command: &str) -> Result<Vec<Value>> {
    let text = run(ns, command)?;
    Ok(match serde_json::from_str(if text.trim().is_empty() { "[]" } else { &text })? {
        Value::Array(items) => items,
        one => vec![one],
    })
}

/// What `nft` says is there, without its own version.
fn ruleset(ns: &NetNs) -> Result<Vec<Value>> {
    let listed = json(ns, "nft -j list ruleset")?.pop().ok_or("nft says nothing")?;
    let items = listed["nftables"].as_array().cloned().ok_or("nft lists nothing")?;
    Ok(items.into_iter().filter(|item| item.get("metainfo").is_none()).collect())
}

/// The elements of one of our maps, as `nft` shows them.
fn elements(ns: &NetNs, map: &str) -> Result<usize> {
    let found = ruleset(ns)?.into_iter().find(|item| item["map"]["name"] == map).ok_or("no such map")?;
    Ok(found["map"]["elem"].as_array().map_or(0, Vec::len))
}

fn names(links: &[Value]) -> Vec<String> {
    links.iter().map(|link| link["ifname"].as_str().unwrap_or("?").to_owned()).collect()
}

/// A namespace as the container engine hands it over: `lo` is up.
fn container() -> Result<NetNs> {
    let ns = NetNs::new()?;
    let mut batch = Batch::new();
    link::set_up(&mut batch, 1);
    Socket::open_in(&ns, NetlinkProtocol::Route)?.run(batch)?;
    Ok(ns)
}

fn attached(network: &BridgeNetwork, ports: &[&str]) -> Result<(NetNs, Endpoint)> {
    let ns = container()?;
    let ports: Vec<PortMapping> = ports.iter().map(|spec| spec.parse()).collect::<std::result::Result<_, _>>()?;
    let endpoint = network.attach(&ns, &ports)?;
    Ok((ns, endpoint))
}

/// Answers each TCP connection with the address that it came from, as long as the process lives.
fn tcp_server(ns: &NetNs, address: Ipv4Addr, port: u16) -> Result<u16> {
    let listener = ns.enter(|| TcpListener::bind((address, port)))??;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream);
        }
    });
    Ok(port)
}

fn answer(mut stream: TcpStream) {
    if let Ok(address) = stream.peer_addr() {
        _ = stream.write_all(address.ip().to_string().as_bytes());
    }
}

/// Answers each UDP packet with the address that it came from.
fn udp_server(ns: &NetNs, address: Ipv4Addr, port: u16) -> Result<u16> {
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
fn call(ns: &NetNs, address: Ipv4Addr, port: u16) -> std::io::Result<String> {
    let target = SocketAddr::from((address, port));
    let mut stream = ns.enter(|| TcpStream::connect_timeout(&target, PATIENCE))??;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut seen = String::new();
    stream.read_to_string(&mut seen)?;
    Ok(seen)
}

/// Which address a UDP server sees when it is called from this namespace.
fn call_udp(ns: &NetNs, address: Ipv4Addr, port: u16, patience: Duration) -> std::io::Result<String> {
    let socket = ns.enter(|| UdpSocket::bind((WILDCARD, 0)))??;
    socket.set_read_timeout(Some(patience))?;
    socket.connect(SocketAddrV4::new(address, port))?;
    socket.send(b"who am I")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// A counter of /proc/net/snmp in a namespace, as in ("Tcp", "RetransSegs").
fn snmp(ns: &NetNs, group: &str, counter: &str) -> Result<u64> {
    let text = ns.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut lines = text.lines().filter(|line| line.starts_with(&format!("{group}:")));
    let (heads, values) = (lines.next().ok_or("no such group")?, lines.next().ok_or("no values")?);
    let place = heads.split_whitespace().position(|head| head == counter).ok_or("no such counter")?;
    Ok(values.split_whitespace().nth(place).ok_or("no value")?.parse()?)
}

fn text_of(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn bridge(lab: &Lab, name: &str, subnet: &str) -> std::result::Result<Arc<BridgeNetwork>, NetworkError> {
    let subnet = subnet.parse().expect("a subnet written in this file");
    let config = BridgeConfig { name: name.to_owned(), subnet, gateway: None, mtu: None };
    BridgeNetwork::create(Arc::clone(lab.host()), config)
}

/// Waits until the kernel has done something by itself.
fn until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !done()? {
        if std::time::Instant::now() > deadline {
            return Err(format!("waited in vain until {what}").into());
        }
        std::thread::yield_now();
    }
    Ok(())
}

// ---- the lab

fn lab_is_two_namespaces() -> Result {
    let lab = Lab::new()?;
    let (host, peer) = (lab.host().netns(), lab.peer());
    assert_ne!(host.inode()?, peer.inode()?);
    for (ns, own) in [(host, lab.host_address()), (peer, lab.peer_address())] {
        let links = json(ns, "ip -j addr")?;
        assert_eq!(names(&links), ["lo", "uplink"]);
        let addresses: Vec<&Value> = links[1]["addr_info"].as_array().into_iter().flatten().collect();
        assert_eq!(addresses.len(), 1, "{addresses:?}");
        assert_eq!(addresses[0]["local"], own.to_string());
        assert_eq!(links[1]["operstate"], "UP");
        assert!(links[0]["flags"].as_array().is_some_and(|flags| flags.contains(&"UP".into())), "{:?}", links[0]);
    }
    let routes = |ns| json(ns, "ip -j route");
    assert_eq!(routes(host)?.iter().filter(|route| route["dst"] == "default").count(), 1);
    assert_eq!(routes(peer)?.len(), 1, "the peer knows the uplink only");
    assert_eq!(host.enter(|| std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward"))??, "1\n");
    assert_eq!(peer.enter(|| std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward"))??, "0\n");

    let before = lab.uplink_counters()?;
    let port = tcp_server(peer, WILDCARD, 0)?;
    assert_eq!(call(host, lab.peer_address(), port)?, lab.host_address().to_string());
    let after = lab.uplink_counters()?;
    assert!(after.tx_packets > before.tx_packets && after.rx_bytes > before.rx_bytes, "{before:?} {after:?}");
    // The last packets of the connection may still be on their way when the first of the two looks.
    until("iproute2 counts the same", || {
        let counters = lab.uplink_counters()?;
        let listed = json(host, "ip -j -s link show uplink")?[0]["stats64"].clone();
        let (tx, rx) = (&listed["tx"], &listed["rx"]);
        let bytes = tx["bytes"] == counters.tx_bytes && rx["bytes"] == counters.rx_bytes;
        Ok(bytes && tx["packets"] == counters.tx_packets && rx["packets"] == counters.rx_packets)
    })?;
    Ok(())
}

fn two_labs_are_apart() -> Result {
    let (one, two) = (Lab::new()?, Lab::new()?);
    let (network_one, network_two) = (one.bridge()?, two.bridge()?);
    let (container_one, endpoint_one) = attached(&network_one, &["8080:80"])?;
    let (container_two, endpoint_two) = attached(&network_two, &[])?;
    assert_eq!(endpoint_one.address, endpoint_two.address);
    tcp_server(&container_one, WILDCARD, 80)?;

    let before = two.uplink_counters()?;
    assert_eq!(call(one.peer(), one.host_address(), 8080)?, one.peer_address().to_string());
    assert_eq!(two.uplink_counters()?, before);
    let refused = call(two.peer(), two.host_address(), 8080).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let refused = call(&container_two, endpoint_two.address, 80).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    Ok(())
}

fn own_namespace_is_untouched() -> Result {
    let own = NetNs::current()?;
    let look = || -> Result<_> { Ok((names(&json(&own, "ip -j link")?), json(&own, "ip -j route")?, ruleset(&own)?)) };
    let before = look()?;
    let lab = Lab::new()?;
    let network = lab.bridge()?;
    let (_ns, endpoint) = attached(&network, &["8080:80", "80/udp"])?;
    assert_eq!(look()?, before);
    network.detach(&endpoint)?;
    network.destroy()?;
    assert_eq!(look()?, before);
    assert_eq!(NetNs::current()?.inode()?, own.inode()?);
    Ok(())
}

// ---- attach and detach

fn attach_configures_both_ends() -> Result {
    let lab = Lab::new()?;
    let subnet = "10.9.0.0/20".parse()?;
    let gateway = Some(Ipv4Addr::new(10, 9, 15, 254));
    let config = BridgeConfig { name: "red".to_owned(), subnet, gateway, mtu: Some(1400) };
    let network = BridgeNetwork::create(Arc::clone(lab.host()), config)?;
    let ns = container()?;
    let endpoint = network.attach_at(&ns, Ipv4Addr::new(10, 9, 1, 7), &[])?;

    until("eth0 reports that it is up", || Ok(json(&ns, "ip -j link show eth0")?[0]["operstate"] == "UP"))?;
    let links = json(&ns, "ip -j -d addr")?;
    assert_eq!(names(&links), ["lo", "eth0"]);
    let eth0 = &links[1];
    assert_eq!(eth0["address"], endpoint.mac.to_string());
    assert_eq!((&eth0["mtu"], &eth0["operstate"]), (&1400.into(), &"UP".into()));
    let addresses = eth0["addr_info"].as_array().ok_or("no addresses")?;
    assert_eq!(addresses.len(), 1, "one IPv4 address and no other: {addresses:?}");
    assert_eq!((&addresses[0]["local"], &addresses[0]["prefixlen"]), (&"10.9.1.7".into(), &20.into()));
    assert_eq!(addresses[0]["broadcast"], "10.9.15.255");
    let routes = json(&ns, "ip -j route")?;
    let default = routes.iter().find(|route| route["dst"] == "default").ok_or("no default route")?;
    assert_eq!((&default["gateway"], &default["dev"]), (&"10.9.15.254".into(), &"eth0".into()));

    let host = lab.host().netns();
    let port = &json(host, &format!("ip -j -d addr show {}", endpoint.host_ifname))?[0];
    assert_eq!((&port["master"], &port["operstate"], &port["mtu"]), (&"red".into(), &"UP".into(), &1400.into()));
    assert_eq!(port["linkinfo"]["info_slave_data"]["state"], "forwarding");
    assert_eq!(port["addr_info"].as_array().map(Vec::len), Some(0));
    let bridge = &json(host, "ip -j -d addr show red")?[0];
    assert_eq!((&bridge["operstate"], &bridge["mtu"]), (&"UP".into(), &1400.into()));
    assert_eq!(bridge["addr_info"][0]["local"], "10.9.15.254");
    assert_eq!(bridge["linkinfo"]["info_kind"], "bridge");
    let localnet = host.enter(|| std::fs::read_to_string("/proc/sys/net/ipv4/conf/red/route_localnet"))??;
    assert_eq!(localnet, "1\n");

    // The bridge keeps its link-layer address when ports come and go, or the gateway would move under the containers.
    let mac = bridge["address"].clone();
    network.detach(&endpoint)?;
    assert_eq!(json(host, "ip -j addr show red")?[0]["address"], mac);
    Ok(())
}

/// A fresh link drops packets until the kernel has noted its carrier; a dropped SYN would be sent again one second later.
fn first_packet_is_not_lost() -> Result {
    for _ in 0..20 {
        let lab = Lab::new()?;
        let port = tcp_server(lab.peer(), WILDCARD, 0)?;
        let network = lab.bridge()?;
        let (ns, endpoint) = attached(&network, &[])?;
        call(&ns, lab.peer_address(), port)?;
        assert_eq!(snmp(&ns, "Tcp", "RetransSegs")?, 0);
        network.detach(&endpoint)?;
        let (ns, _) = attached(&network, &["80:80"])?;
        tcp_server(&ns, WILDCARD, 80)?;
        call(lab.peer(), lab.host_address(), 80)?;
        assert_eq!(snmp(lab.peer(), "Tcp", "RetransSegs")?, 0);
    }
    Ok(())
}

fn nothing_is_left() -> Result {
    let lab = Lab::new()?;
    let host = lab.host().netns();
    let bare = json(host, "ip -j addr")?;
    assert_eq!(ruleset(host)?, Vec::<Value>::new());
    let network = lab.bridge()?;
    let other = bridge(&lab, "blue", "172.31.0.0/16")?;
    // An empty bridge has no carrier, which may show late.
    let routes = || -> Result<String> { Ok(run(host, "ip route")?.replace(" linkdown", "")) };
    let before = (ruleset(host)?, routes()?);

    let (first, one) = attached(&network, &["127.0.0.1:8080:80", "8081:81", "8082:82/udp"])?;
    let (second, two) = attached(&other, &["9090:90"])?;
    assert_eq!((elements(host, "published")?, elements(host, "published_at")?), (3, 1));
    network.detach(&one)?;
    assert_eq!((elements(host, "published")?, elements(host, "published_at")?), (1, 0));
    assert_eq!(names(&json(&first, "ip -j link")?), ["lo"]);
    other.detach(&two)?;
    assert_eq!(names(&json(&second, "ip -j link")?), ["lo"]);
    assert_eq!((ruleset(host)?, routes()?), before);
    assert!(matches!(network.detach(&one), Err(NetworkError::NotAttached { .. })));

    other.destroy()?;
    assert!(ruleset(host)?.iter().any(|item| item["chain"]["name"] == "masquerade_br0"));
    assert!(!ruleset(host)?.iter().any(|item| item.to_string().contains("blue")));
    network.destroy()?;
    assert_eq!(ruleset(host)?, Vec::<Value>::new());
    assert_eq!(json(host, "ip -j addr")?, bare);
    assert!(matches!(network.destroy(), Err(NetworkError::Destroyed { .. })));
    assert!(matches!(network.attach(&first, &[]), Err(NetworkError::Destroyed { .. })));
    // The name and the subnet are free again.
    lab.bridge()?;
    Ok(())
}

fn failed_attach_leaves_nothing() -> Result {
    let lab = Lab::new()?;
    let host = lab.host().netns();
    let network = lab.bridge()?;
    let bare = (names(&json(host, "ip -j link")?), ruleset(host)?);
    let ns = container()?;
    // `eth0` is there already: the veth pair is refused, after the ports have been published.
    run(&ns, "ip link add eth0 type bridge")?;
    let ports: [PortMapping; 2] = ["8080:80".parse()?, "127.0.0.1::81/udp".parse()?];
    let error = network.attach(&ns, &ports).unwrap_err();
    assert!(text_of(&error).starts_with("network br0: cannot add veth pair vethac1e0002"), "{}", text_of(&error));
    assert_eq!((names(&json(host, "ip -j link")?), ruleset(host)?), bare);
    // A default route is there already: the container is refused after the pair has been made.
    let other = container()?;
    run(&other, "ip link add other type bridge")?;
    run(&other, "ip addr add 10.1.1.1/24 dev other")?;
    run(&other, "ip link set other up")?;
    run(&other, "ip route add default via 10.1.1.2")?;
    let error = network.attach(&other, &ports).unwrap_err();
    assert!(text_of(&error).contains("cannot add default route through 172.30.0.1"), "{}", text_of(&error));
    assert_eq!((names(&json(host, "ip -j link")?), ruleset(host)?), bare);
    assert_eq!(names(&json(&other, "ip -j link")?), ["lo", "other"]);

    let (_ns, endpoint) = attached(&network, &["8080:80"])?;
    assert_eq!(endpoint.address, Ipv4Addr::new(172, 30, 0, 2), "the address was given back");
    assert!(matches!(network.destroy(), Err(NetworkError::InUse { endpoints: 1, .. })));
    Ok(())
}

fn container_may_vanish_first() -> Result {
    let lab = Lab::new()?;
    let network = lab.bridge()?;
    let (ns, endpoint) = attached(&network, &["8080:80"])?;
    drop(ns);
    let host = lab.host().netns();
    until("the link is gone with the namespace", || {
        Ok(!names(&json(host, "ip -j link")?).contains(&endpoint.host_ifname))
    })?;
    network.detach(&endpoint)?;
    let (_ns, again) = attached(&network, &["8080:80"])?;
    assert_eq!(again, endpoint);
    Ok(())
}

fn three_hundred_containers() -> Result {
    let lab = Lab::new()?;
    let network = lab.bridge()?;
    let mut all = Vec::new();
    for index in 0..300u16 {
        all.push(attached(&network, &[&format!("{}:80", 10_000 + index)])?);
    }
    let host = lab.host().netns();
    assert_eq!(json(host, "ip -j link show master br0")?.len(), 300);
    assert_eq!(network.endpoints(), 300);
    let addresses: BTreeSet<Ipv4Addr> = all.iter().map(|(_, endpoint)| endpoint.address).collect();
    assert_eq!(addresses.len(), 300);
    let (last, endpoint) = all.last().ok_or("none")?;
    tcp_server(last, WILDCARD, 80)?;
    assert_eq!(call(&all[0].0, endpoint.address, 80)?, all[0].1.address.to_string());
    assert_eq!(call(lab.peer(), lab.host_address(), 10_299)?, lab.peer_address().to_string());

    for (_, endpoint) in &all {
        network.detach(endpoint)?;
    }
    assert_eq!(json(host, "ip -j link show master br0")?.len(), 0);
    network.destroy()?;
    assert_eq!(names(&json(host, "ip -j link")?), ["lo", "uplink"]);
    Ok(())
}

fn four_threads_attach() -> Result {
    let lab = Lab::new()?;
    let network = lab.bridge()?;
    let port = tcp_server(lab.peer(), WILDCARD, 0)?;
    let work = |_| -> std::result::Result<Vec<(NetNs, Endpoint)>, String> {
        let mut kept = Vec::new();
        for index in 0..15 {
            let (ns, endpoint) = attached(&network, &["80"]).map_err(|error| text_of(&*error))?;
            call(&ns, lab.peer_address(), port).map_err(|error| error.to_string())?;
            if index % 3 == 0 {
                network.detach(&endpoint).map_err(|error| text_of(&error))?;
            } else {
                kept.push((ns, endpoint));
            }
        }
        Ok(kept)
    };
    let kept: std::result::Result<Vec<_>, String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || work(thread))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?).collect()
    });
    let kept: Vec<(NetNs, Endpoint)> = kept?.into_iter().flatten().collect();
    let addresses: BTreeSet<Ipv4Addr> = kept.iter().map(|(_, endpoint)| endpoint.address).collect();
    let ports: BTreeSet<u16> = kept.iter().map(|(_, endpoint)| endpoint.ports[0].host_port).collect();
    assert_eq!((kept.len(), addresses.len(), ports.len()), (40, 40, 40));
    assert_eq!(json(lab.host().netns(), "ip -j link show master br0")?.len(), 40);
    std::thread::scope(|scope| {
        for part in kept.chunks(10) {
            let network = &network;
            scope.spawn(move || part.iter().for_each(|(_, endpoint)| network.detach(endpoint).expect("detach")));
        }
    });
    network.destroy()?;
    assert_eq!(names(&json(lab.host().netns(), "ip -j link")?), ["lo", "uplink"]);
    Ok(())
}

// ---- who reaches whom

fn peer_sees_the_hosts_address() -> Result {
    let lab = Lab::new()?;
    let network = lab.bridge()?;
    let (ns, _) = attached(&network, &[])?;
    let (tcp, udp) = (tcp_server(lab.peer(), WILDCARD, 0)?, udp_server(lab.peer(), WILDCARD, 0)?);
    assert_eq!(call(&ns, lab.peer_address(), tcp)?, lab.host_address().to_string());
    assert_eq!(call_udp(&ns, lab.peer_address(), udp, PATIENCE)?, lab.host_address().to_string());
    // Back to the host itself there is nothing to translate.
    let to_host = tcp_server(lab.host().netns(), WILDCARD, 0)?;
    assert_eq!(call(&ns, network.gateway(), to_host)?, "172.30.0.2");
    Ok(())
}

fn published_port_is_reached() -> Result {
    let lab = Lab::new()?;
    let network = lab.bridge()?;
    let (ns, endpoint) = attached(&network, &["8080:80", "0:9/udp".trim_start_matches("0:"), "5353:53/udp"])?;
    let (neighbour, other) = attached(&network, &[])?;
    assert_eq!((endpoint.ports[0].host_port, endpoint.ports[2].host_port), (8080, 5353));
    assert_ne!(endpoint.ports[1].host_port, 0, "a free port was chosen");
    tcp_server(&ns, WILDCARD, 80)?;
    udp_server(&ns, WILDCARD, 53)?;
    udp_server(&ns, WILDCARD, 9)?;
    let (host, gateway) = (lab.host().netns(), network.gateway().to_string());
    // From the host by its own address the source is that address; through loopback it is the bridge's.
    let callers = [
        (lab.peer(), lab.host_address(), lab.peer_address().to_string()),
        (host, lab.host_address(), lab.host_address().to_string()),
        (host, Ipv4Addr::LOCALHOST, gateway.clone()),
        (host, network.gateway(), gateway.clone()),
        (&neighbour, lab.host_address(), gateway.clone()),
        (&neighbour, network.gateway(), gateway.clone()),
        (&ns, lab.host_address(), gateway),
    ];
    for (from, address, seen) in callers {
        let case = format!("{address} as {seen}");
        assert_eq!(call(from, address, 8080).map_err(|e| format!("{case}: {e}"))?, seen, "{case}");
        for port in [5353, endpoint.ports[1].host_port] {
            let answer = call_udp(from, address, port, PATIENCE).map_err(|e| format!("udp {case}: {e}"))?;
            assert_eq!(answer, seen, "udp {case}");
        }
    }
    assert_eq!(call(&neighbour, endpoint.address, 80)?, other.address.to_string(), "straight, nothing is translated");

    network.detach(&endpoint)?;
    let refused = call(lab.peer(), lab.host_address(), 8080).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    Ok(())
}

fn loopback_port_stays_there() -> Result {
    let lab = Lab::new()?;
    let network = lab.bridge()?;
    let (ns, _) = attached(&network, &["127.0.0.1:8080:80"])?;
    tcp_server(&ns, WILDCARD, 80)?;
    call(lab.host().netns(), Ipv4Addr::LOCALHOST, 8080)?;
    for (from, address) in [(lab.peer(), lab.host_address()), (lab.host().netns(), lab.host_address())] {
        let refused = call(from, address, 8080).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    // One port, two addresses, two containers.
    let (second, _) = attached(&network, &["198.18.0.1:8080:80"])?;
    tcp_server(&second, WILDCARD, 80)?;
    call(lab.peer(), lab.host_address(), 8080)?;
    Ok(())
}

fn containers_reach_each_other() -> Result {
    let lab = Lab::new()?;
    let network = lab.bridge()?;
    let (one, a) = attached(&network, &[])?;
    let (two, b) = attached(&network, &[])?;
    let (tcp, udp) = (tcp_server(&two, WILDCARD, 0)?, udp_server(&two, WILDCARD, 0)?);
    assert_eq!(call(&one, b.address, tcp)?, a.address.to_string());
    assert_eq!(call_udp(&one, b.address, udp, PATIENCE)?, a.address.to_string());
    // The host reaches them by address too, the peer does not: it has no route.
    assert_eq!(call(lab.host().netns(), b.address, tcp)?, network.gateway().to_string());
    assert_eq!(call(lab.peer(), b.address, tcp).unwrap_err().raw_os_error(), Some(libc_network_unreachable()));
    Ok(())
}

fn none_reaches_nothing() -> Result {
    let lab = Lab::new()?;
    let network = lab.bridge()?;
    let (other, endpoint) = attached(&network, &["8080:80"])?;
    tcp_server(&other, WILDCARD, 80)?;
    let peer = tcp_server(lab.peer(), WILDCARD, 0)?;
    let ns = container()?;
    for (address, port) in
        [(lab.peer_address(), peer), (lab.host_address(), 8080), (endpoint.address, 80), (network.gateway(), 8080)]
    {
        let error = call(&ns, address, port).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc_network_unreachable()), "{address}:{port}: {error}");
    }
    let own = tcp_server(&ns, Ipv4Addr::LOCALHOST, 0)?;
    assert_eq!(call(&ns, Ipv4Addr::LOCALHOST, own)?, "127.0.0.1");
    Ok(())
}

fn libc_network_unreachable() -> i32 {
    nix::errno::Errno::ENETUNREACH as i32
}

/// `route_localnet` lets a container that routes 127.0.0.0/8 to the bridge knock at the host's loopback; a rule drops it.
fn hosts_loopback_is_safe() -> Result {
    let lab = Lab::new()?;
    let network = lab.bridge()?;
    let (ns, _) = attached(&network, &[])?;
    let host = lab.host().netns();
    let port = udp_server(host, Ipv4Addr::LOCALHOST, 0)?;
    ns.enter(|| std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1"))??;
    run(&ns, "ip addr del 127.0.0.1/8 dev lo")?;
    run(&ns, "ip route add 127.0.0.1/32 via 172.30.0.1 dev eth0 src 172.30.0.2")?;
    let received = || snmp(host, "Udp", "InDatagrams");
    let before = received()?;
    let short = Duration::from_millis(100);
    assert!(call_udp(&ns, Ipv4Addr::LOCALHOST, port, short).is_err());
    assert_eq!(received()?, before);
    // Without the rule it does arrive, so that the rule is what stops it.
    run(host, "nft delete chain ip isobench loopback_br0")?;
    _ = call_udp(&ns, Ipv4Addr::LOCALHOST, port, short);
    assert_eq!(received()?, before + 1);
    Ok(())
}

// ---- what is refused

fn taken_port_names_its_holder() -> Result {
    let lab = Lab::new()?;
    let network = lab.bridge()?;
    let (_first, held) = attached(&network, &["8080:80", "127.0.0.1:9090:90/udp"])?;
    let host = lab.host().netns();
    let tcp = host.enter(|| TcpListener::bind((WILDCARD, 7070)))??;
    let udp = host.enter(|| UdpSocket::bind((lab.host_address(), 7171)))??;
    let refused = |specs: &[&str]| -> Result<String> {
        match attached(&network, specs) {
            Ok((_, endpoint)) => Err(format!("{specs:?} was granted: {endpoint:?}").into()),
            Err(error) => Ok(text_of(&*error)),
        }
    };
    let container = "the container at 172.30.0.2 on network br0";
    let socket = "a socket of a program on the host";
    for (specs, expected) in [
        (
            &["8080:1"][..],
            format!("host port 0.0.0.0:8080/tcp is taken by {container} (published as 0.0.0.0:8080/tcp)"),
        ),
        (
            &["127.0.0.1:8080:1"],
            format!("host port 127.0.0.1:8080/tcp is taken by {container} (published as 0.0.0.0:8080/tcp)"),
        ),
        (
            &["9090:1/udp"],
            format!("host port 0.0.0.0:9090/udp is taken by {container} (published as 127.0.0.1:9090/udp)"),
        ),
        (&["7070:1"], format!("host port 0.0.0.0:7070/tcp is taken by {socket}")),
        (&["7171:1/udp"], format!("host port 0.0.0.0:7171/udp is taken by {socket}")),
        (&["6060:1", "6060:2"], "host port 0.0.0.0:6060/tcp is taken by another port of the same container".to_owned()),
        (
            &["6061:1", "8080:2"],
            format!("host port 0.0.0.0:8080/tcp is taken by {container} (published as 0.0.0.0:8080/tcp)"),
        ),
    ] {
        assert_eq!(refused(specs)?, expected);
    }
    let elsewhere = refused(&["203.0.113.1:80:80"])?;
    assert!(elsewhere.starts_with("host port 203.0.113.1:80/tcp cannot be published: "), "{elsewhere}");

    // A published port is taken for the host's programs too, by every address it covers.
    let bound = host.enter(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 8080)))?;
    assert_eq!(bound.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    let bound = host.enter(|| UdpSocket::bind((WILDCARD, 9090)))?;
    assert_eq!(bound.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);

    // Everything is free again once its holder is gone, and half-granted requests hold nothing.
    drop((tcp, udp));
    network.detach(&held)?;
    let ports = ["8080:80", "9090:90/udp", "7070:1", "7171:1/udp", "6060:1", "6061:2", "8080:3/udp"];
    let (_ns, endpoint) = attached(&network, &ports)?;
    assert_eq!(endpoint.ports.len(), ports.len());
    Ok(())
}

fn full_subnet_is_refused() -> Result {
    let lab = Lab::new()?;
    let network = bridge(&lab, "tiny", "10.8.0.0/29")?;
    let all: Vec<(NetNs, Endpoint)> = (0..5).map(|_| attached(&network, &[])).collect::<Result<_>>()?;
    let error = attached(&network, &[]).unwrap_err();
    assert_eq!(text_of(&*error), "network tiny has no address to give: subnet 10.8.0.0/29 is full");
    let (ns, third) = &all[2];
    network.detach(third)?;
    let error = network.attach_at(ns, Ipv4Addr::new(10, 8, 0, 2), &[]).unwrap_err();
    assert_eq!(text_of(&error), "network tiny has no address to give: 10.8.0.2 is taken");
    assert_eq!(network.attach(ns, &[])?.address, third.address);
    Ok(())
}

fn overlap_is_refused() -> Result {
    let lab = Lab::new()?;
    let _network = lab.bridge()?;
    let host = lab.host().netns();
    run(host, "ip route add 10.77.0.0/16 via 198.18.0.2")?;
    run(host, "ip addr add 192.0.2.9/32 dev lo")?;
    for (subnet, with) in [
        ("172.30.5.0/24", "network br0 (172.30.0.0/16)"),
        ("172.16.0.0/12", "network br0 (172.30.0.0/16)"),
        ("198.18.0.0/15", "the host's address 198.18.0.1/30"),
        ("10.0.0.0/8", "the host's route to 10.77.0.0/16"),
        ("192.0.2.0/24", "the host's address 192.0.2.9/32"),
    ] {
        let error = bridge(&lab, "red", subnet).unwrap_err();
        assert_eq!(text_of(&error), format!("subnet {subnet} of network red overlaps {with}"));
    }
    assert!(matches!(bridge(&lab, "br0", "10.0.0.0/16"), Err(NetworkError::Config { .. })));
    // A link of that name which is not ours: refused by the kernel, and nothing of the attempt stays.
    let error = bridge(&lab, "uplink", "10.0.0.0/16").unwrap_err();
    assert!(text_of(&error).starts_with("network uplink: cannot add bridge uplink"), "{}", text_of(&error));
    assert_eq!(names(&json(host, "ip -j link")?), ["lo", "uplink", "br0"]);
    bridge(&lab, "red", "10.0.0.0/16")?;
    Ok(())
}

// ---- netlink by itself

fn refusals_are_explained() -> Result {
    let ns = NetNs::new()?;
    let mut socket = Socket::open_in(&ns, NetlinkProtocol::Route)?;
    let error = link::by_name(&mut socket, "nothing").unwrap_err();
    assert_eq!(error.errno(), Some(nix::errno::Errno::ENODEV as i32));
    assert!(error.to_string().starts_with("cannot find link nothing"), "{error}");
    // The first refusal of a batch is the one that is told, and the socket is good for the next batch.
    let mut batch = Batch::new();
    link::set_mtu(&mut batch, 1, u32::MAX);
    link::set_up(&mut batch, 99);
    let error = socket.run(batch).unwrap_err();
    assert!(error.to_string().starts_with("cannot set the mtu of link 1 (kernel: "), "{error}");
    assert!(!link::by_name(&mut socket, "lo")?.is_up());
    Ok(())
}

fn links_are_changed() -> Result {
    let ns = NetNs::new()?;
    let mut socket = Socket::open_in(&ns, NetlinkProtocol::Route)?;
    let mut batch = Batch::new();
    link::add_bridge(&mut batch, "br0", link::Mac([2, 0, 0, 0, 0, 9]), None);
    let end = |name| link::VethEnd { name, mac: None };
    link::add_veth(&mut batch, end("a"), end("b"), &ns, link::VethOptions::default());
    socket.run(batch)?;
    let (bridge, a) = (link::by_name(&mut socket, "br0")?, link::by_name(&mut socket, "a")?);
    assert_eq!((bridge.kind.as_deref(), a.kind.as_deref()), (Some("bridge"), Some("veth")));
    let mut batch = Batch::new();
    link::rename(&mut batch, a.index, "near");
    link::set_mtu(&mut batch, a.index, 1280);
    link::set_master(&mut batch, a.index, Some(bridge.index));
    link::set_up(&mut batch, a.index);
    socket.run(batch)?;
    let near = &json(&ns, "ip -j link show near")?[0];
    assert_eq!((&near["mtu"], &near["master"]), (&1280.into(), &"br0".into()));
    assert!(link::by_name(&mut socket, "near")?.is_up());
    let mut batch = Batch::new();
    link::set_down(&mut batch, a.index);
    link::set_master(&mut batch, a.index, None);
    socket.run(batch)?;
    let listed = link::list(&mut socket)?;
    let near = listed.iter().find(|link| link.name == "near").ok_or("not listed")?;
    assert!(!near.is_up() && near.master.is_none());
    let mut batch = Batch::new();
    link::delete(&mut batch, "b");
    link::delete(&mut batch, "br0");
    socket.run(batch)?;
    assert_eq!(names(&json(&ns, "ip -j link")?), ["lo"]);
    Ok(())
}
