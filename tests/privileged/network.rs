//! The bridge network in a lab: judged by iproute2, nft, /proc and plain sockets, none of which is ours.

mod netlink;
mod reach;
mod refusals;
pub mod tools;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isobench::lab::Lab;
use isobench::network::bridge::{BridgeConfig, BridgeNetwork, Endpoint};
use isobench::network::{NetworkError, PortMapping};
use isobench::sys::netns::NetNs;
use serde_json::Value;

use crate::harness::Case;
use tools::*;

pub fn cases() -> Vec<Case> {
    let ip = || found("ip");
    let nft = || found("nft");
    vec![
        Case::new("network::a_lab_is_two_namespaces_and_an_uplink", lab_is_two_namespaces)
            .needs(ip(), "needs iproute2"),
        Case::new("network::attach_configures_both_ends", attach_configures_both_ends).needs(ip(), "needs iproute2"),
        Case::new("network::the_first_packet_is_not_lost", first_packet_is_not_lost),
        Case::new("network::the_peer_sees_the_hosts_address", reach::peer_sees_the_hosts_address),
        Case::new("network::a_published_port_is_reached_from_everywhere", reach::published_port_is_reached),
        Case::new("network::a_port_published_on_loopback_stays_there", reach::loopback_port_stays_there),
        Case::new("network::containers_reach_each_other", reach::containers_reach_each_other),
        Case::new("network::a_container_without_network_reaches_nothing", reach::none_reaches_nothing),
        Case::new("network::containers_do_not_reach_the_hosts_loopback", reach::hosts_loopback_is_safe)
            .needs(ip() && nft(), "needs iproute2 and nftables"),
        Case::new("network::nothing_is_left_after_removal", nothing_is_left)
            .needs(ip() && nft(), "needs iproute2 and nftables"),
        Case::new("network::a_taken_port_names_its_holder", refusals::taken_port_names_its_holder),
        Case::new("network::a_failed_attach_leaves_nothing", failed_attach_leaves_nothing)
            .needs(ip() && nft(), "needs iproute2 and nftables"),
        Case::new("network::a_container_may_vanish_first", container_may_vanish_first).needs(ip(), "needs iproute2"),
        Case::new("network::three_hundred_containers", three_hundred_containers).needs(ip(), "needs iproute2"),
        Case::new("network::a_full_subnet_is_refused", refusals::full_subnet_is_refused),
        Case::new("network::an_overlap_is_refused_by_name", refusals::overlap_is_refused).needs(ip(), "needs iproute2"),
        Case::new("network::two_labs_are_apart", two_labs_are_apart),
        Case::new("network::a_lab_tracks_nothing_by_itself", lab_tracks_nothing)
            .needs(std::path::Path::new(TRACKED).exists(), "needs connection tracking in the kernel"),
        Case::new("network::the_machines_own_namespace_is_untouched", own_namespace_is_untouched)
            .needs(ip() && nft(), "needs iproute2 and nftables"),
        Case::new("network::four_threads_attach_at_once", four_threads_attach).needs(ip(), "needs iproute2"),
        Case::new("network::the_kernels_refusals_are_explained", netlink::refusals_are_explained),
        Case::new("network::links_are_changed_one_by_one", netlink::links_are_changed).needs(ip(), "needs iproute2"),
    ]
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
        // Not its `operstate`, which the kernel brings up to date some time later.
        for (link, flag) in [(&links[0], "UP"), (&links[1], "LOWER_UP")] {
            assert!(link["flags"].as_array().is_some_and(|flags| flags.contains(&flag.into())), "{link:?}");
        }
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

/// How many connections the kernel tracks in a namespace.
const TRACKED: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// One tracked packet is enough to make each removal of a container walk the whole machine's table.
fn lab_tracks_nothing() -> Result {
    let lab = Lab::new()?;
    let network = lab.bridge()?;
    let (_ns, endpoint) = attached(&network, &[])?;
    let tracked = || -> Result<String> { Ok(lab.host().netns().enter(|| std::fs::read_to_string(TRACKED))??) };
    // The kernel puts the reports of a new member off by up to a second (RFC 3376, 8.11).
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(tracked()?.trim(), "0");
    let port = tcp_server(lab.peer(), WILDCARD, 0)?;
    call(lab.host().netns(), lab.peer_address(), port)?;
    assert_eq!(tracked()?.trim(), "1", "it counts what is sent");
    network.detach(&endpoint)?;
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

/// A fresh link drops packets until the kernel has noted its carrier; a dropped SYN is sent again one second later, and
/// so is a dropped question for a neighbour's address, which counts as no retransmission.
fn first_packet_is_not_lost() -> Result {
    const SENT_AGAIN: Duration = Duration::from_secs(1);
    for _ in 0..40 {
        let lab = Lab::new()?;
        let port = tcp_server(lab.peer(), WILDCARD, 0)?;
        let network = lab.bridge()?;
        let (ns, endpoint) = attached(&network, &[])?;
        let begin = Instant::now();
        call(&ns, lab.peer_address(), port)?;
        assert_eq!(snmp(&ns, "Tcp", "RetransSegs")?, 0);
        assert!(begin.elapsed() < SENT_AGAIN, "outwards: {:?}", begin.elapsed());
        network.detach(&endpoint)?;
        let (ns, _) = attached(&network, &["80:80"])?;
        tcp_server(&ns, WILDCARD, 80)?;
        let begin = Instant::now();
        call(lab.peer(), lab.host_address(), 80)?;
        assert_eq!(snmp(lab.peer(), "Tcp", "RetransSegs")?, 0);
        assert!(begin.elapsed() < SENT_AGAIN, "inwards: {:?}", begin.elapsed());
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
