//! Who reaches whom, and as whom it is seen.

use std::net::Ipv4Addr;
use std::time::Duration;

use isobench::lab::Lab;

use super::tools::*;

pub fn peer_sees_the_hosts_address() -> Result {
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

pub fn published_port_is_reached() -> Result {
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

pub fn loopback_port_stays_there() -> Result {
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

pub fn containers_reach_each_other() -> Result {
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

pub fn none_reaches_nothing() -> Result {
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

/// `route_localnet` lets a container that routes 127.0.0.0/8 to the bridge knock at the host's loopback; a rule drops
/// it.
pub fn hosts_loopback_is_safe() -> Result {
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
