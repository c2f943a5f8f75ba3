//! What is refused, and whether the refusal says why.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use isobench::lab::Lab;
use isobench::network::NetworkError;
use isobench::network::bridge::Endpoint;
use isobench::sys::netns::NetNs;

use super::tools::*;

pub fn taken_port_names_its_holder() -> Result {
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
    let own = std::fs::read_to_string("/proc/self/comm")?;
    let socket = format!("the program {} (pid {}) on the host", own.trim_end(), std::process::id());
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

pub fn full_subnet_is_refused() -> Result {
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

pub fn overlap_is_refused() -> Result {
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
