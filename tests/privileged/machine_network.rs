//! The default network of the machine, with a lab's host in the machine's place: several processes share it, and each
//! may be killed at any time. Judged by iproute2, nft and plain sockets.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};

use isobench::cgroup::owner::Owner;
use isobench::lab::Lab;
use isobench::network::PortMapping;
use isobench::network::machine::{LINK, MachineNetworks, Removed, Tenant};
use isobench::sys::netns::NetNs;
use serde_json::{Value, json};

use crate::harness::Case;
use crate::network::tools::*;
use crate::role;

pub fn cases() -> Vec<Case> {
    let judges = || found("ip") && found("nft");
    let case = |name, body| Case::new(name, body).needs(judges(), "needs iproute2 and nftables");
    vec![
        case("machine_network::processes_share_it", processes_share_it),
        case("machine_network::threads_share_it", threads_share_it),
        case("machine_network::what_a_killed_process_held_is_free", killed_process_frees),
        case("machine_network::a_killed_process_is_collected", killed_process_is_collected),
        case("machine_network::a_container_outlives_its_process", container_outlives_its_process),
        case("machine_network::the_command_line_shows_it", command_line_shows_it),
        case("machine_network::a_taken_port_names_its_container", taken_port_names_its_container),
        case("machine_network::a_published_port_is_reached_in_each_form", published_ports_are_reached),
        case("machine_network::nothing_is_left_after_removal", nothing_is_left),
        case("machine_network::a_bridge_that_was_deleted_is_made_again", deleted_bridge_is_made_again),
        case("machine_network::a_free_subnet_is_found", free_subnet_is_found),
        case("machine_network::an_unused_place_is_given_back", unused_place_is_given_back),
    ]
}

fn tenant(name: &str) -> Result<Tenant> {
    let process = Owner::of(std::process::id()).ok_or("no process")?;
    Ok(Tenant { id: isobench::image::digest::Digest::of(name.as_bytes()).hex(), name: name.to_owned(), process })
}

/// Role: puts a container on the network and keeps it there until its standard input ends. It answers port 80, and says
/// in a line of JSON where it is, or why it is nowhere.
pub fn hold_address(name: &str, ports: &[String]) -> Result {
    let ports: Vec<PortMapping> = ports.iter().map(|port| port.parse()).collect::<std::result::Result<_, _>>()?;
    let joined = MachineNetworks::open(NetNs::current()?)?.join(&tenant(name)?)?;
    let ns = container()?;
    let endpoint = match joined.network.attach(&ns, &ports) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            println!("{}", json!({"error": text_of(&error)}));
            return Ok(());
        }
    };
    tcp_server(&ns, WILDCARD, 80)?;
    let published: Vec<u16> = endpoint.ports.iter().map(|port| port.host_port).collect();
    let link = &endpoint.host_ifname;
    println!(
        "{}",
        json!({"address": endpoint.address, "ports": published, "link": link, "mac": endpoint.mac.to_string()})
    );
    std::io::stdin().read_to_end(&mut Vec::new())?;
    joined.network.detach(&endpoint)?;
    Ok(())
}

/// Role: as [`hold_address`], for a container that has a process of its own, which answers port 80 and is told of.
pub fn hold_for_another(name: &str, ports: &[String]) -> Result {
    let ports: Vec<PortMapping> = ports.iter().map(|port| port.parse()).collect::<std::result::Result<_, _>>()?;
    let joined = MachineNetworks::open(NetNs::current()?)?.join(&tenant(name)?)?;
    let ns = container()?;
    let mut command = Command::new("/proc/self/exe");
    command.args([role::SUBCOMMAND, "answer"]).stdin(Stdio::null()).stdout(Stdio::null());
    let child = ns.enter(|| command.spawn())??;
    let endpoint = joined.network.attach(&ns, &ports)?;
    joined.network.entrust(child.id())?;
    println!("{}", json!({"address": endpoint.address, "container": child.id()}));
    loop {
        nix::unistd::pause();
    }
}

/// Role: answers port 80 until it is killed.
pub fn answer_until_killed() -> Result {
    tcp_server(&NetNs::current()?, WILDCARD, 80)?;
    loop {
        nix::unistd::pause();
    }
}

/// A process in that role.
struct Holder {
    child: Child,
    said: Value,
}

impl Holder {
    fn spawn(host: &NetNs, name: &str, ports: &[&str]) -> Result<Child> {
        Self::spawn_as("hold-address", host, name, ports)
    }

    fn spawn_as(role: &str, host: &NetNs, name: &str, ports: &[&str]) -> Result<Child> {
        let mut command = Command::new("/proc/self/exe");
        command.args([role::SUBCOMMAND, role, name]).args(ports);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(host.enter(|| command.spawn())??)
    }

    fn of(mut child: Child) -> Result<Self> {
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
        Ok(Self { child, said: serde_json::from_str(&line)? })
    }

    fn start(host: &NetNs, name: &str, ports: &[&str]) -> Result<Self> {
        Self::of(Self::spawn(host, name, ports)?)
    }

    fn address(&self) -> Result<Ipv4Addr> {
        Ok(self.said["address"].as_str().ok_or_else(|| self.said.to_string())?.parse()?)
    }

    fn link(&self) -> Result<String> {
        Ok(self.said["link"].as_str().ok_or_else(|| self.said.to_string())?.to_owned())
    }

    fn port(&self, index: usize) -> Result<u16> {
        let port = self.said["ports"][index].as_u64().ok_or_else(|| self.said.to_string())?;
        Ok(u16::try_from(port)?)
    }

    fn error(&self) -> Result<&str> {
        self.said["error"].as_str().ok_or_else(|| self.said.to_string().into())
    }

    /// Ends it as a container ends.
    fn end(mut self) -> Result {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("{status}").into()) }
    }

    /// Kills it and everything of it with it.
    fn kill(mut self) -> Result {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a removal must bring back: links, rules and addresses.
fn look(host: &NetNs) -> Result<(Vec<Value>, Vec<Value>)> {
    Ok((json(host, "ip -j addr")?, ruleset(host)?))
}

fn bridge_ports(host: &NetNs) -> Result<BTreeSet<String>> {
    Ok(names(&json(host, &format!("ip -j link show master {LINK}"))?).into_iter().collect())
}

fn networks(lab: &Lab) -> Result<MachineNetworks> {
    Ok(MachineNetworks::open(lab.host().netns().clone())?)
}

fn removed(lab: &Lab) -> Result<Removed> {
    Ok(networks(lab)?.remove_unused()?)
}

fn processes_share_it() -> Result {
    const PROCESSES: usize = 12;
    let lab = Lab::new()?;
    let host = lab.host().netns();
    let mut alive: Vec<Holder> = Vec::new();
    for round in 0..3 {
        // Some leave while others come.
        let leaving: Vec<Holder> = alive.drain(..alive.len() / 2).collect();
        let names: Vec<String> = (alive.len() + leaving.len()..PROCESSES).map(|i| format!("c{round}-{i}")).collect();
        let coming: Vec<Child> = names.iter().map(|name| Holder::spawn(host, name, &["80"])).collect::<Result<_>>()?;
        leaving.into_iter().try_for_each(Holder::end)?;
        for child in coming {
            alive.push(Holder::of(child)?);
        }
        let addresses: BTreeSet<Ipv4Addr> = alive.iter().map(Holder::address).collect::<Result<_>>()?;
        assert_eq!(addresses.len(), alive.len(), "an address was given twice");
        let links: BTreeSet<String> = alive.iter().map(Holder::link).collect::<Result<_>>()?;
        assert_eq!(bridge_ports(host)?, links);
        assert_eq!(elements(host, "published")?, alive.len());
        for holder in &alive {
            call(lab.peer(), lab.host_address(), holder.port(0)?)?;
        }
    }
    // One container reaches another by its address.
    let joined = networks(&lab)?.join(&tenant("caller")?)?;
    let ns = container()?;
    let endpoint = joined.network.attach(&ns, &[])?;
    assert_eq!((endpoint.address, endpoint.mac), (joined.address, joined.mac));
    assert_eq!(call(&ns, alive[0].address()?, 80)?, endpoint.address.to_string());
    joined.network.detach(&endpoint)?;

    let seen = networks(&lab)?.look()?;
    let members: BTreeSet<Ipv4Addr> = seen.members.iter().map(|member| member.address).collect();
    assert_eq!(members, alive.iter().map(Holder::address).collect::<Result<_>>()?);
    assert_eq!((seen.links.len(), seen.published.len()), (alive.len(), alive.len()));
    assert_eq!(removed(&lab)?, Removed::default(), "it is in use");
    alive.into_iter().try_for_each(Holder::end)?;
    assert_eq!(removed(&lab)?, Removed { addresses: 0, networks: 1 });
    Ok(())
}

fn threads_share_it() -> Result {
    let lab = Lab::new()?;
    let host = lab.host().netns();
    let work = |thread: usize| -> std::result::Result<Vec<Ipv4Addr>, String> {
        let told = |error: Box<dyn std::error::Error>| error.to_string();
        let mut addresses = Vec::new();
        for turn in 0..8 {
            let act = || -> Result<Ipv4Addr> {
                let joined = networks(&lab)?.join(&tenant(&format!("t{thread}-{turn}"))?)?;
                let endpoint = joined.network.attach(&container()?, &["80".parse()?])?;
                joined.network.detach(&endpoint)?;
                Ok(endpoint.address)
            };
            addresses.push(act().map_err(told)?);
        }
        Ok(addresses)
    };
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || work(thread))).collect();
        threads.into_iter().try_for_each(|thread| -> Result {
            let addresses = thread.join().map_err(|_| "a thread panicked")??;
            // Lowest first: four at once need four.
            assert!(addresses.iter().all(|address| address.octets()[3] <= 5), "{addresses:?}");
            Ok(())
        })
    })?;
    assert_eq!((bridge_ports(host)?.len(), elements(host, "published")?), (0, 0));
    assert_eq!(removed(&lab)?.networks, 1);
    Ok(())
}

fn killed_process_frees() -> Result {
    let lab = Lab::new()?;
    let host = lab.host().netns();
    let first = Holder::start(host, "first", &["8080:80"])?;
    let (address, link) = (first.address()?, first.link()?);
    first.kill()?;
    assert_eq!(elements(host, "published")?, 1, "it went by itself: this test shows nothing");
    // The next that comes gets the address, the name of the link and the port.
    let second = Holder::start(host, "second", &["8080:80"])?;
    assert_eq!((second.address()?, second.link()?), (address, link));
    assert_eq!(elements(host, "published")?, 1);
    call(lab.peer(), lab.host_address(), 8080)?;
    second.end()?;
    assert_eq!(removed(&lab)?, Removed { addresses: 0, networks: 1 });
    Ok(())
}

fn killed_process_is_collected() -> Result {
    let lab = Lab::new()?;
    let host = lab.host().netns();
    let before = look(host)?;
    let stays = Holder::start(host, "stays", &[])?;
    for name in ["one", "two"] {
        Holder::start(host, name, &["80", "127.0.0.1::81/udp"])?.kill()?;
    }
    // The second took the first one's place, so that one is left.
    assert_eq!(removed(&lab)?, Removed { addresses: 1, networks: 0 });
    assert_eq!(bridge_ports(host)?, BTreeSet::from([stays.link()?]));
    assert_eq!((elements(host, "published")?, elements(host, "published_at")?), (0, 0));
    stays.kill()?;
    assert_eq!(removed(&lab)?, Removed { addresses: 1, networks: 1 });
    assert_eq!(look(host)?, before);
    Ok(())
}

fn container_outlives_its_process() -> Result {
    let lab = Lab::new()?;
    let host = lab.host().netns();
    let web = Holder::of(Holder::spawn_as("hold-for-another", host, "web", &["8080:80"])?)?;
    let (address, pid) = (web.address()?, web.said["container"].as_i64().ok_or("no container")?);
    let server = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
    until("it answers", || Ok(call(lab.peer(), lab.host_address(), 8080).is_ok()))?;
    web.kill()?;
    // Its address and its port stay its own, and it is still reached.
    let other = Holder::start(host, "other", &[])?;
    assert_ne!(other.address()?, address);
    let refused = Holder::start(host, "third", &["8080:80"])?;
    let id = &tenant("web")?.id[..12];
    assert_eq!(refused.error()?, format!("host port 0.0.0.0:8080/tcp is taken by container web ({id})"));
    call(lab.peer(), lab.host_address(), 8080)?;
    assert_eq!(removed(&lab)?, Removed::default());
    // Another process takes it over, and gives it back at its end.
    assert!(networks(&lab)?.take_over(&tenant("nobody")?)?.is_none());
    let (network, endpoint) = networks(&lab)?.take_over(&tenant("web")?)?.ok_or("nothing to take over")?;
    assert_eq!((endpoint.address, &endpoint.ports[..]), (address, &["8080:80".parse()?][..]));
    assert!(networks(&lab)?.take_over(&tenant("web")?)?.is_none(), "it has a living holder");
    let bound = host.enter(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 8080)))?;
    assert_eq!(bound.unwrap_err().kind(), std::io::ErrorKind::AddrInUse, "the port is held again");
    nix::sys::signal::kill(server, nix::sys::signal::Signal::SIGKILL)?;
    network.detach(&endpoint)?;
    other.end()?;
    assert_eq!(removed(&lab)?, Removed { addresses: 0, networks: 1 });
    Ok(())
}

fn isobench(host: &NetNs, root: &std::path::Path, arguments: &[&str]) -> Result<(i32, String, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isobench"));
    command.args(arguments).env("ISOBENCH_ROOT", root).stdin(Stdio::null());
    let output = host.enter(|| command.output())??;
    let text = |bytes| String::from_utf8(bytes);
    Ok((output.status.code().unwrap_or(-1), text(output.stdout)?, text(output.stderr)?))
}

fn command_line_shows_it() -> Result {
    let lab = Lab::new()?;
    let host = lab.host().netns();
    let root = tempfile::tempdir()?;
    let web = Holder::start(host, "web", &["127.0.0.1:8080:80"])?;
    let (code, listed, _) =
        isobench(host, root.path(), &["network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"])?;
    assert_eq!((code, listed.as_str()), (0, "bridge bridge local\nhost host local\nnone null local\n"));
    let (_, quiet, _) = isobench(host, root.path(), &["network", "ls", "-q", "--no-trunc", "--filter", "name=bridge"])?;
    let id = quiet.trim();
    let (code, shown, complaint) = isobench(host, root.path(), &["network", "inspect", &id[..12], "nothing"])?;
    assert_eq!((code, complaint.trim()), (1, "error: network nothing not found"));
    let shown: Value = serde_json::from_str(&shown)?;
    let network = &shown[0];
    assert_eq!((&network["Name"], &network["Id"]), (&"bridge".into(), &id.into()));
    assert_eq!(network["IPAM"]["Config"], json!([{"Subnet": "172.31.0.0/16", "Gateway": "172.31.0.1"}]));
    assert_eq!(network["Options"]["com.docker.network.bridge.name"], LINK);
    let member = &network["Containers"][tenant("web")?.id];
    assert_eq!((&member["Name"], &member["IPv4Address"]), (&"web".into(), &"172.31.0.2/16".into()));
    assert_eq!(member["MacAddress"], web.said["mac"]);
    assert_eq!(network["Published"], json!([{"Host": "127.0.0.1:8080/tcp", "Container": "172.31.0.2:80"}]));
    let listed = json(host, &format!("ip -j link show {}", web.link()?))?;
    assert_eq!(
        (&network["Ports"][0]["Name"], &network["Ports"][0]["Index"]),
        (&listed[0]["ifname"], &listed[0]["ifindex"])
    );
    let form = ["network", "inspect", "-f", "{{range .IPAM.Config}}{{.Gateway}}{{end}}", "bridge"];
    assert_eq!(isobench(host, root.path(), &form)?.1, "172.31.0.1\n");
    web.end()?;
    removed(&lab)?;
    Ok(())
}

fn taken_port_names_its_container() -> Result {
    let lab = Lab::new()?;
    let host = lab.host().netns();
    let web = Holder::start(host, "web", &["8080:80", "127.0.0.1:53:53/udp"])?;
    let id = &tenant("web")?.id[..12];
    for (port, shown) in [
        ("8080:81", "0.0.0.0:8080/tcp"),
        ("198.18.0.1:8080:81", "198.18.0.1:8080/tcp"),
        ("53:53/udp", "0.0.0.0:53/udp"),
    ] {
        let refused = Holder::start(host, "other", &[port])?;
        assert_eq!(refused.error()?, format!("host port {shown} is taken by container web ({id})"));
    }
    let _listener = host.enter(|| TcpListener::bind((WILDCARD, 7070)))??;
    let refused = Holder::start(host, "other", &["9090:80", "7070:80"])?;
    let own = std::fs::read_to_string("/proc/self/comm")?;
    let program = format!("the program {} (pid {}) on the host", own.trim_end(), std::process::id());
    assert_eq!(refused.error()?, format!("host port 0.0.0.0:7070/tcp is taken by {program}"));
    // Who was refused holds nothing, and what is stopped is free.
    web.end()?;
    let again = Holder::start(host, "again", &["8080:80", "53:53/udp", "9090:80"])?;
    assert_eq!(again.address()?, Ipv4Addr::new(172, 31, 0, 2));
    assert_eq!(elements(host, "published")?, 3);
    again.end()?;
    removed(&lab)?;
    Ok(())
}

fn published_ports_are_reached() -> Result {
    let lab = Lab::new()?;
    let host = lab.host().netns();
    let forms = ["198.18.0.1:8080:80", "198.18.0.1::80", "8081:80", "80"];
    let web = Holder::start(host, "web", &forms)?;
    assert_eq!((web.port(0)?, web.port(2)?), (8080, 8081));
    for (index, form) in forms.iter().enumerate() {
        let seen =
            call(lab.peer(), lab.host_address(), web.port(index)?).map_err(|error| format!("{form}: {error}"))?;
        assert_eq!(seen, lab.peer_address().to_string(), "{form}");
    }
    for index in [2, 3] {
        call(host, Ipv4Addr::LOCALHOST, web.port(index)?)?;
    }
    let port = web.port(3)?;
    web.end()?;
    for port in [8080, 8081, port] {
        let refused = call(lab.peer(), lab.host_address(), port).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{port}");
    }
    removed(&lab)?;
    Ok(())
}

fn nothing_is_left() -> Result {
    let lab = Lab::new()?;
    let host = lab.host().netns();
    let before = look(host)?;
    assert_eq!(removed(&lab)?, Removed::default(), "there was none");
    let unmade = networks(&lab)?.look()?;
    assert!(unmade.created.is_none() && unmade.id.len() == 64);
    let holder = Holder::start(host, "one", &["8080:80"])?;
    let made = networks(&lab)?.look()?;
    assert_eq!(made.id, unmade.id, "its identifier does not change when it is made");
    assert_eq!(made.subnet.ok_or("no subnet")?.1, Ipv4Addr::new(172, 31, 0, 1));
    assert_eq!(made.members[0].name, "one");
    assert_eq!(made.links[0].name, holder.link()?);
    assert_eq!(made.published, [("8080:80".parse()?, holder.address()?)]);
    holder.end()?;
    assert_eq!(bridge_ports(host)?, BTreeSet::new());
    // It stays until it is taken away, and is found again by the next.
    let index = json(host, &format!("ip -j link show {LINK}"))?[0]["ifindex"].clone();
    Holder::start(host, "two", &[])?.end()?;
    assert_eq!(json(host, &format!("ip -j link show {LINK}"))?[0]["ifindex"], index);
    assert_eq!(removed(&lab)?, Removed { addresses: 0, networks: 1 });
    assert_eq!(look(host)?, before);
    let notes = format!("/run/isobench/networks/{}", host.inode()?);
    assert!(!std::path::Path::new(&notes).exists(), "{notes}");
    Ok(())
}

fn deleted_bridge_is_made_again() -> Result {
    let lab = Lab::new()?;
    let host = lab.host().netns();
    let one = Holder::start(host, "one", &["8080:80"])?;
    run(host, &format!("ip link del {LINK}"))?;
    assert!(call(lab.peer(), lab.host_address(), 8080).is_err());
    let two = Holder::start(host, "two", &["8081:80"])?;
    assert_ne!(one.address()?, two.address()?);
    assert_eq!(bridge_ports(host)?, BTreeSet::from([one.link()?, two.link()?]));
    for port in [8080, 8081] {
        call(lab.peer(), lab.host_address(), port)?;
    }
    // Who empties the rule set has taken the ports away; the next comes to its own.
    run(host, "nft flush ruleset")?;
    let three = Holder::start(host, "three", &["8082:80"])?;
    call(lab.peer(), lab.host_address(), 8082)?;
    [one, two, three].into_iter().try_for_each(Holder::end)?;
    removed(&lab)?;
    // One of that name that is not ours stays as it is.
    run(host, &format!("ip link add {LINK} type veth peer name other"))?;
    let error = networks(&lab)?.join(&tenant("x")?).unwrap_err();
    let expected = format!("network bridge: there is a link {LINK} that isobench has not made; rename or remove it");
    assert_eq!(error.to_string(), expected);
    assert_eq!(removed(&lab)?, Removed::default());
    assert!(names(&json(host, "ip -j link")?).contains(&LINK.to_owned()));
    Ok(())
}

fn free_subnet_is_found() -> Result {
    let lab = Lab::new()?;
    let host = lab.host().netns();
    run(host, "ip route add 172.31.7.0/24 via 198.18.0.2")?;
    let one = Holder::start(host, "one", &[])?;
    assert_eq!(one.address()?, Ipv4Addr::new(172, 30, 0, 2));
    one.end()?;
    removed(&lab)?;
    run(host, "ip route add 172.16.0.0/12 via 198.18.0.2")?;
    let two = Holder::start(host, "two", &[])?;
    assert_eq!(two.address()?, Ipv4Addr::new(10, 255, 0, 2));
    two.end()?;
    removed(&lab)?;
    run(host, "ip route add 10.0.0.0/8 via 198.18.0.2")?;
    let error = networks(&lab)?.join(&tenant("x")?).unwrap_err();
    assert!(error.to_string().starts_with("no subnet is free for network bridge: each /16 from"), "{error}");
    removed(&lab)?;
    Ok(())
}

fn unused_place_is_given_back() -> Result {
    let lab = Lab::new()?;
    let networks = networks(&lab)?;
    let (one, two) = (networks.join(&tenant("one")?)?, networks.join(&tenant("two")?)?);
    assert_ne!(one.address, two.address);
    drop(one);
    let again = networks.join(&tenant("again")?)?;
    assert_eq!(again.address, Ipv4Addr::new(172, 31, 0, 2));
    // A refused attach gives it back too.
    let ns = container()?;
    run(&ns, "ip link add eth0 type bridge")?;
    assert!(again.network.attach(&ns, &["8080:80".parse()?]).is_err());
    drop((again, two));
    assert_eq!(networks.remove_unused()?, Removed { addresses: 0, networks: 1 });
    Ok(())
}
