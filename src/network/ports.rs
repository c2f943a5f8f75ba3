//! The forms in which a published port is written, as in docker's `-p`.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use super::{NetworkError, PortMapping, Protocol};

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Reads back by `FromStr`.
impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host_ip, self.host_port) {
            (Some(address), 0) => write!(f, "{address}::")?,
            (Some(address), port) => write!(f, "{address}:{port}:")?,
            (None, 0) => {}
            (None, port) => write!(f, "{port}:")?,
        }
        write!(f, "{}/{}", self.container_port, self.protocol)
    }
}

/// Reads `ip:hostPort:ctrPort`, `ip::ctrPort`, `hostPort:ctrPort` and `ctrPort`, each with `/tcp` (which may be left
/// out) or `/udp`. A host port that is left out is 0: a free one will be chosen.
impl FromStr for PortMapping {
    type Err = NetworkError;

    fn from_str(spec: &str) -> Result<Self, NetworkError> {
        parse(spec).map_err(|problem| NetworkError::PortSpec { spec: spec.to_owned(), problem })
    }
}

fn parse(spec: &str) -> Result<PortMapping, String> {
    let (ports, protocol) = match spec.split_once('/') {
        None => (spec, Protocol::Tcp),
        Some((ports, "tcp")) => (ports, Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some((_, other)) => return Err(format!("the protocol `{other}` is neither tcp nor udp")),
    };
    if ports.starts_with('[') {
        return Err("IPv6 addresses are not supported; write an IPv4 address".to_owned());
    }
    let parts: Vec<&str> = ports.split(':').collect();
    let (host_ip, host_port, container_port) = match parts[..] {
        [container] => (None, "", container),
        [host, container] if host.contains('.') => {
            return Err(format!(
                "after an address come two ports, as in {host}:8080:{container} or {host}::{container}"
            ));
        }
        [host, container] => (None, host, container),
        [address, host, container] => (Some(host_address(address)?), host, container),
        _ => return Err("write ip:hostPort:ctrPort, hostPort:ctrPort or ctrPort".to_owned()),
    };
    if host_port.is_empty() && parts.len() == 2 {
        return Err("the host port is missing; leave the colon out too for a free one".to_owned());
    }
    Ok(PortMapping {
        host_ip: host_ip.filter(|address| !address.is_unspecified()),
        host_port: if host_port.is_empty() { 0 } else { port("host port", host_port)? },
        container_port: port("container port", container_port)?,
        protocol,
    })
}

fn host_address(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| format!("the host address `{text}` is not an IPv4 address such as 127.0.0.1"))
}

fn port(what: &str, text: &str) -> Result<u16, String> {
    if text.contains('-') {
        return Err(format!("the {what} `{text}` is a range; give each port by itself"));
    }
    // u16's own parser would also take "+80".
    let number = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok()).flatten();
    match number {
        Some(0) | None => Err(format!("the {what} `{text}` is not a number from 1 to 65535")),
        Some(port) => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mapping(host_ip: Option<[u8; 4]>, host_port: u16, container_port: u16, protocol: Protocol) -> PortMapping {
        PortMapping { host_ip: host_ip.map(Ipv4Addr::from), host_port, container_port, protocol }
    }

    #[test]
    fn every_form() {
        let cases = [
            ("127.0.0.1:8080:80", mapping(Some([127, 0, 0, 1]), 8080, 80, Protocol::Tcp)),
            ("127.0.0.1::80", mapping(Some([127, 0, 0, 1]), 0, 80, Protocol::Tcp)),
            ("8080:80", mapping(None, 8080, 80, Protocol::Tcp)),
            ("80", mapping(None, 0, 80, Protocol::Tcp)),
            ("53:53/udp", mapping(None, 53, 53, Protocol::Udp)),
            ("53/udp", mapping(None, 0, 53, Protocol::Udp)),
            ("0.0.0.0:1:65535/tcp", mapping(None, 1, 65535, Protocol::Tcp)),
        ];
        for (spec, expected) in cases {
            assert_eq!(spec.parse::<PortMapping>().unwrap(), expected, "{spec}");
        }
    }

    #[test]
    fn every_mistake_is_named() {
        let specs = [
            "",
            "x",
            "0",
            "80:0",
            "65536",
            "+80",
            "80/sctp",
            ":80",
            "80:",
            "1.2.3.4:80",
            "1.2.3:80:80",
            "[::1]:80:80",
            "a:b:c:d",
            "8000-8010:80",
            "1.2.3.4:0:80",
        ];
        let errors: Vec<String> =
            specs.iter().map(|spec| spec.parse::<PortMapping>().unwrap_err().to_string()).collect();
        expect_test::expect![[r#"
            `` is not a published port: the container port `` is not a number from 1 to 65535
            `x` is not a published port: the container port `x` is not a number from 1 to 65535
            `0` is not a published port: the container port `0` is not a number from 1 to 65535
            `80:0` is not a published port: the container port `0` is not a number from 1 to 65535
            `65536` is not a published port: the container port `65536` is not a number from 1 to 65535
            `+80` is not a published port: the container port `+80` is not a number from 1 to 65535
            `80/sctp` is not a published port: the protocol `sctp` is neither tcp nor udp
            `:80` is not a published port: the host port is missing; leave the colon out too for a free one
            `80:` is not a published port: the container port `` is not a number from 1 to 65535
            `1.2.3.4:80` is not a published port: after an address come two ports, as in 1.2.3.4:8080:80 or 1.2.3.4::80
            `1.2.3:80:80` is not a published port: the host address `1.2.3` is not an IPv4 address such as 127.0.0.1
            `[::1]:80:80` is not a published port: IPv6 addresses are not supported; write an IPv4 address
            `a:b:c:d` is not a published port: write ip:hostPort:ctrPort, hostPort:ctrPort or ctrPort
            `8000-8010:80` is not a published port: the host port `8000-8010` is a range; give each port by itself
            `1.2.3.4:0:80` is not a published port: the host port `0` is not a number from 1 to 65535"#]]
        .assert_eq(&errors.join("\n"));
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(ip: Option<[u8; 4]>, host: u16, container in 1u16.., udp: bool) {
            prop_assume!(ip != Some([0; 4]));
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let port = mapping(ip, host, container, protocol);
            prop_assert_eq!(port.to_string().parse::<PortMapping>().unwrap(), port);
        }

        #[test]
        fn no_text_is_a_panic(spec in "[0-9:./\\[\\]tcpud-]{0,24}") {
            _ = spec.parse::<PortMapping>();
        }
    }
}
