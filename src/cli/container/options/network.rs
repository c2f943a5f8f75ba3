//! How a container is connected, and what it knows about names.

use std::net::IpAddr;

use clap::Args;

use super::values::{OptionsError, number, wrong};
use crate::container::config::NetworkMode;
use crate::container::etc::HOST_GATEWAY;
use crate::network::PortMapping;

/// Options about the network.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Network")]
pub(super) struct NetworkOptions {
    /// bridge, none, host, container:NAME, or the name of a network
    #[arg(long, visible_alias = "net", value_name = "NETWORK", default_value = "bridge")]
    network: String,
    /// Publish a port: ip:hostPort:ctrPort, hostPort:ctrPort, ip::ctrPort or ctrPort, with /udp for UDP
    #[arg(short, long = "publish", value_name = "PORT")]
    ports: Vec<String>,
    /// Publish every exposed port on a free port of the host
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Expose a port or a range of ports, as in 80, 53/udp or 8000-8010
    #[arg(long, value_name = "PORT")]
    expose: Vec<String>,
    /// A line of /etc/hosts
    #[arg(long = "add-host", value_name = "NAME:ADDRESS")]
    hosts: Vec<String>,
    /// A name server
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// A domain in which names are looked up; . for none
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// The host name [default: the first digits of the identifier]
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// The NIS domain name
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
}

/// What they come to.
pub(super) struct Connected {
    pub(super) network: NetworkMode,
    pub(super) ports: Vec<String>,
    pub(super) exposed: Vec<String>,
    pub(super) publish_all: bool,
    pub(super) extra_hosts: Vec<String>,
    pub(super) dns: Vec<String>,
    pub(super) dns_search: Vec<String>,
    pub(super) hostname: Option<String>,
    pub(super) domainname: Option<String>,
}

impl NetworkOptions {
    pub(super) fn connected<'a>(&self, image: impl Iterator<Item = &'a String>) -> Result<Connected, OptionsError> {
        let network = mode(&self.network)?;
        self.check_shared(&network)?;
        for text in &self.ports {
            text.parse::<PortMapping>().map_err(|error| wrong("--publish", text, problem(&error)))?;
        }
        let mut exposed: Vec<String> = image.map(|port| with_protocol(port)).collect();
        for text in &self.expose {
            exposed.extend(expose(text)?);
        }
        exposed.sort_unstable();
        exposed.dedup();
        Ok(Connected {
            network,
            ports: self.ports.clone(),
            exposed,
            publish_all: self.publish_all,
            extra_hosts: self.hosts.iter().map(|text| host(text)).collect::<Result<_, _>>()?,
            dns: self.dns.iter().map(|text| server(text)).collect::<Result<_, _>>()?,
            dns_search: self.dns_search.iter().map(|text| domain(text)).collect::<Result<_, _>>()?,
            hostname: self.hostname.as_ref().map(|text| host_name("--hostname", text)).transpose()?,
            domainname: self.domainname.as_ref().map(|text| host_name("--domainname", text)).transpose()?,
        })
    }

    /// What another container's stack has settled already.
    fn check_shared(&self, network: &NetworkMode) -> Result<(), OptionsError> {
        if !matches!(network, NetworkMode::Container(_)) {
            return Ok(());
        }
        let given = [
            ("--publish", !self.ports.is_empty()),
            ("--publish-all", self.publish_all),
            ("--expose", !self.expose.is_empty()),
            ("--add-host", !self.hosts.is_empty()),
            ("--dns", !self.dns.is_empty()),
            ("--dns-search", !self.dns_search.is_empty()),
            ("--hostname", self.hostname.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(OptionsError::Conflict(format!(
                "{flag} cannot be used with --network {}: give it to that container",
                self.network
            ))),
            None => Ok(()),
        }
    }
}

/// The problem of a port without the port, which the option's own error names.
fn problem(error: &crate::network::NetworkError) -> String {
    match error {
        crate::network::NetworkError::PortSpec { problem, .. } => problem.clone(),
        other => other.to_string(),
    }
}

fn mode(text: &str) -> Result<NetworkMode, OptionsError> {
    match text {
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        "default" => Ok(NetworkMode::Bridge("bridge".to_owned())),
        _ => match text.split_once(':') {
            Some(("container", name)) if !name.is_empty() => Ok(NetworkMode::Container(name.to_owned())),
            None if !text.is_empty() => Ok(NetworkMode::Bridge(text.to_owned())),
            _ => Err(wrong("--network", text, "write bridge, none, host, container:NAME or the name of a network")),
        },
    }
}

fn with_protocol(port: &str) -> String {
    if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") }
}

/// A port or a range, with a protocol.
fn expose(text: &str) -> Result<Vec<String>, OptionsError> {
    const FLAG: &str = "--expose";
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if !matches!(protocol, "tcp" | "udp" | "sctp") {
        return Err(wrong(FLAG, text, format!("the protocol `{protocol}` is none of tcp, udp and sctp")));
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let port = |part: &str| {
        number(FLAG, part, 1..=u16::MAX).map_err(|_| wrong(FLAG, text, format!("`{part}` is no port from 1 to 65535")))
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(wrong(FLAG, text, "the range ends before it begins"));
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// A line of /etc/hosts as `name:address`.
fn host(text: &str) -> Result<String, OptionsError> {
    const FLAG: &str = "--add-host";
    let expected = || wrong(FLAG, text, "write NAME:ADDRESS, as in db:10.0.0.5");
    let split = text.split_once('=').or_else(|| text.split_once(':'));
    let (name, address) = split.filter(|(name, _)| !name.is_empty()).ok_or_else(expected)?;
    if name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
        return Err(expected());
    }
    if address == HOST_GATEWAY {
        return Ok(format!("{name}:{address}"));
    }
    let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
    let parsed: IpAddr = bare.parse().map_err(|_| wrong(FLAG, text, format!("`{address}` is no IP address")))?;
    Ok(format!("{name}:{parsed}"))
}

fn server(text: &str) -> Result<String, OptionsError> {
    let address: IpAddr = text.parse().map_err(|_| wrong("--dns", text, "write an IP address, as in 10.0.0.53"))?;
    Ok(address.to_string())
}

fn domain(text: &str) -> Result<String, OptionsError> {
    let labels = || text.trim_end_matches('.').split('.');
    let good = |label: &str| {
        !label.is_empty() && label.len() <= 63 && label.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
    };
    if text == "." || (text.len() <= 255 && labels().all(good)) {
        return Ok(text.to_owned());
    }
    Err(wrong("--dns-search", text, "write a domain, as in example.org, or . for none"))
}

/// A name that sethostname(2) and a line of /etc/hosts can take.
fn host_name(flag: &'static str, text: &str) -> Result<String, OptionsError> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if !text.is_empty() && text.len() <= 64 && text.chars().all(good) && !text.starts_with(['-', '.']) {
        return Ok(text.to_owned());
    }
    Err(wrong(flag, text, "write at most 64 letters, digits, `-`, `_` and `.`, a letter or digit first"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    #[command(disable_help_flag = true)]
    struct Line {
        #[command(flatten)]
        options: NetworkOptions,
    }

    fn connected(line: &str) -> Result<Connected, String> {
        let line = Line::parse_from(std::iter::once("x").chain(line.split_whitespace()));
        line.options.connected(["80/tcp".to_owned(), "9".to_owned()].iter()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_line_about_the_network() {
        let made = connected(
            "-p 8080:80 -p 127.0.0.1:1:2/udp -P --expose 80 --expose 7-9/udp --add-host db:10.0.0.5 --add-host v6=::1 \
             --dns 10.0.0.53 --dns-search example.org -h box --domainname lan",
        )
        .unwrap();
        assert_eq!(made.network, NetworkMode::Bridge("bridge".to_owned()));
        assert_eq!(made.ports, ["8080:80", "127.0.0.1:1:2/udp"]);
        assert_eq!(made.exposed, ["7/udp", "8/udp", "80/tcp", "9/tcp", "9/udp"]);
        assert_eq!(made.extra_hosts, ["db:10.0.0.5", "v6:::1"]);
        assert_eq!((made.dns, made.dns_search), (vec!["10.0.0.53".to_owned()], vec!["example.org".to_owned()]));
        assert_eq!((made.hostname.as_deref(), made.domainname.as_deref()), (Some("box"), Some("lan")));
    }

    #[test]
    fn networks() {
        let network = |text: &str| mode(text).ok();
        assert_eq!(network("none"), Some(NetworkMode::None));
        assert_eq!(network("host"), Some(NetworkMode::Host));
        assert_eq!(network("default"), Some(NetworkMode::Bridge("bridge".to_owned())));
        assert_eq!(network("mine"), Some(NetworkMode::Bridge("mine".to_owned())));
        assert_eq!(network("container:web"), Some(NetworkMode::Container("web".to_owned())));
        assert_eq!((network(""), network("container:"), network("netns:x")), (None, None, None));
    }

    #[test]
    fn wrong_lines_say_why() {
        let lines = [
            "-p 0",
            "--expose 9-8",
            "--expose 80/icmp",
            "--expose 70000",
            "--add-host db",
            "--add-host db:host",
            "--dns name",
            "--dns-search a..b",
            "-h a/b",
            "--network container:web -p 80",
            "--network container:web -h x",
        ];
        let told: Vec<String> = lines.iter().map(|line| connected(line).err().unwrap() + "\n").collect();
        expect_test::expect![[r#"
            --publish cannot be `0`: the container port `0` is not a number from 1 to 65535
            --expose cannot be `9-8`: the range ends before it begins
            --expose cannot be `80/icmp`: the protocol `icmp` is none of tcp, udp and sctp
            --expose cannot be `70000`: `70000` is no port from 1 to 65535
            --add-host cannot be `db`: write NAME:ADDRESS, as in db:10.0.0.5
            --add-host cannot be `db:host`: `host` is no IP address
            --dns cannot be `name`: write an IP address, as in 10.0.0.53
            --dns-search cannot be `a..b`: write a domain, as in example.org, or . for none
            --hostname cannot be `a/b`: write at most 64 letters, digits, `-`, `_` and `.`, a letter or digit first
            --publish cannot be used with --network container:web: give it to that container
            --hostname cannot be used with --network container:web: give it to that container
        "#]]
        .assert_eq(&told.concat());
    }
}
