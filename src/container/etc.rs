//! What a container sees in `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`: pure functions of its configuration,
//! its place on the network and the host's own files.

use std::net::{IpAddr, Ipv4Addr};

use super::config::{Config, NetworkMode};
use crate::fs::{FileError, read_text};

/// The address of `--add-host NAME:host-gateway`.
pub const HOST_GATEWAY: &str = "host-gateway";
/// What every hosts file begins with.
const LOCAL: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";
/// The server of systemd-resolved, which listens on the host's loopback only.
const RESOLVED: &str = "127.0.0.53";
/// Where systemd-resolved says which servers it asks.
const RESOLVED_SERVERS: &str = "/run/systemd/resolve/resolv.conf";

/// Why the files of a container cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EtcError {
    /// A text is no further line of the hosts file.
    #[error("`{text}` is no further host: {problem}")]
    Host {
        /// The text.
        text: String,
        /// What is wrong, and what would be right.
        problem: &'static str,
    },
    /// A text is no name server.
    #[error("`{0}` is no name server: write an IP address")]
    Server(String),
    /// A text is no search domain.
    #[error("`{0}` is no search domain: write one such as example.com, or `.` for none")]
    Domain(String),
}

/// The host's own files, as far as containers get something of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFiles {
    /// `/etc/hosts`.
    pub hosts: String,
    /// `/etc/resolv.conf`, or what systemd-resolved has in its place for those who cannot reach it on loopback.
    pub resolv_conf: String,
    /// `/etc/resolv.conf` as it is.
    pub own_resolv_conf: String,
}

impl HostFiles {
    /// Reads them; one that is missing is empty.
    ///
    /// # Errors
    /// When one is there and cannot be read.
    pub fn read() -> Result<Self, FileError> {
        let own_resolv_conf = read("/etc/resolv.conf")?;
        let servers: Vec<&str> = words_of(&own_resolv_conf, "nameserver").flatten().collect();
        let behind = if servers == [RESOLVED] { read(RESOLVED_SERVERS)? } else { String::new() };
        let resolv_conf = if behind.is_empty() { own_resolv_conf.clone() } else { behind };
        Ok(Self { hosts: read("/etc/hosts")?, resolv_conf, own_resolv_conf })
    }
}

fn read(path: &str) -> Result<String, FileError> {
    match read_text(path) {
        Err(error) if error.is_not_found() => Ok(String::new()),
        text => text,
    }
}

/// The three files of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// `/etc/hosts`.
    pub hosts: String,
    /// `/etc/hostname`.
    pub hostname: String,
    /// `/etc/resolv.conf`.
    pub resolv_conf: String,
}

impl Files {
    /// Those of a container; `place` is its address and its gateway, where it is on a bridge.
    ///
    /// # Errors
    /// When a further host, a name server or a search domain is none.
    pub fn of(config: &Config, place: Option<(Ipv4Addr, Ipv4Addr)>, host: &HostFiles) -> Result<Self, EtcError> {
        let shares_host = config.network == NetworkMode::Host;
        let begin = if shares_host { &host.hosts } else { LOCAL };
        // From the host's own stack, the host is at its loopback.
        let gateway = if shares_host { Some(Ipv4Addr::LOCALHOST) } else { place.map(|(_, gateway)| gateway) };
        let mut hosts = begin.to_owned();
        if !hosts.is_empty() && !hosts.ends_with('\n') {
            hosts.push('\n');
        }
        for extra in &config.extra_hosts {
            let (name, address) = further_host(extra, gateway)?;
            hosts.push_str(&format!("{address}\t{name}\n"));
        }
        if let Some((address, _)) = place {
            hosts.push_str(&format!("{address}\t{}\n", own_names(config)));
        }
        let asked = (&config.dns[..], &config.dns_search[..]);
        let resolv_conf = match asked {
            ([], []) if shares_host => host.own_resolv_conf.clone(),
            _ if shares_host => resolv_conf(&host.own_resolv_conf, asked, |_| true)?,
            _ => resolv_conf(&host.resolv_conf, asked, reaches)?,
        };
        Ok(Self { hosts, hostname: format!("{}\n", config.hostname), resolv_conf })
    }
}

/// Checks what of the command line goes into the files, before a container is made.
///
/// # Errors
/// When a further host, a name server or a search domain is none.
pub fn check(config: &Config) -> Result<(), EtcError> {
    config.extra_hosts.iter().try_for_each(|text| further_host(text, Some(Ipv4Addr::LOCALHOST)).map(drop))?;
    resolv_conf("", (&config.dns, &config.dns_search), reaches).map(drop)
}

/// A container's own names: with the domain first, where it has one.
fn own_names(config: &Config) -> String {
    let name = &config.hostname;
    match (&config.domainname, name.split_once('.')) {
        (Some(domain), None) if !domain.is_empty() => format!("{name}.{domain} {name}"),
        (_, Some((short, _))) if !short.is_empty() => format!("{name} {short}"),
        _ => name.clone(),
    }
}

/// Reads `NAME:ADDRESS` or `NAME=ADDRESS`, where the address may be [`HOST_GATEWAY`].
fn further_host(text: &str, gateway: Option<Ipv4Addr>) -> Result<(&str, IpAddr), EtcError> {
    let wrong = |problem| EtcError::Host { text: text.to_owned(), problem };
    let (name, address) =
        text.split_once(['=', ':']).ok_or_else(|| wrong("write a name and an address, as in db:10.0.0.7"))?;
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
        return Err(wrong("the name before the colon cannot be one"));
    }
    if address == HOST_GATEWAY {
        let gateway = gateway.ok_or_else(|| wrong("a container that is on no bridge has no gateway"))?;
        return Ok((name, gateway.into()));
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let address = bare.parse().map_err(|_| wrong("what follows the name is no IP address"))?;
    Ok((name, address))
}

/// Whether a server of the host's can be reached from a bridge: it is not the host's loopback, and the bridge carries
/// IPv4.
fn reaches(server: &str) -> bool {
    server.parse::<Ipv4Addr>().is_ok_and(|address| !address.is_loopback() && !address.is_unspecified())
}

/// The resolver's file: what was asked for, else the host's, of which only servers that `usable` says are taken.
fn resolv_conf(
    host: &str,
    (dns, search): (&[String], &[String]),
    usable: impl Fn(&str) -> bool,
) -> Result<String, EtcError> {
    if let Some(server) = dns.iter().find(|server| server.parse::<IpAddr>().is_err()) {
        return Err(EtcError::Server(server.clone()));
    }
    let odd = |c: char| c.is_whitespace() || c.is_control();
    if let Some(domain) = search.iter().find(|domain| domain.is_empty() || domain.contains(odd)) {
        return Err(EtcError::Domain(domain.clone()));
    }
    let mut text = String::new();
    let hosts_servers = words_of(host, "nameserver").filter_map(|mut words| words.next());
    let servers: Vec<&str> = match dns {
        [] => hosts_servers.filter(|server| usable(server)).collect(),
        dns => dns.iter().map(String::as_str).collect(),
    };
    if servers.is_empty() {
        text.push_str("# No name server: the host has none that can be reached from here. Give one with --dns.\n");
    }
    servers.iter().for_each(|server| text.push_str(&format!("nameserver {server}\n")));
    // Of several lines the resolver takes the last.
    let hosts_search = ["search", "domain"].iter().find_map(|keyword| words_of(host, keyword).last());
    let domains: Vec<&str> = match search {
        [] => hosts_search.into_iter().flatten().collect(),
        search => search.iter().map(String::as_str).filter(|domain| *domain != ".").collect(),
    };
    if !domains.is_empty() {
        text.push_str(&format!("search {}\n", domains.join(" ")));
    }
    for options in words_of(host, "options") {
        text.push_str(&format!("options {}\n", options.collect::<Vec<_>>().join(" ")));
    }
    Ok(text)
}

/// The words that follow a keyword, a line each.
fn words_of<'a>(text: &'a str, keyword: &str) -> impl Iterator<Item = std::str::SplitWhitespace<'a>> {
    text.lines().filter_map(move |line| {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        (words.next() == Some(keyword)).then_some(words)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::fixture;

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 1);
    const OWN: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 2);

    fn host() -> HostFiles {
        HostFiles {
            hosts: "127.0.0.1 localhost\n10.0.0.9 build".to_owned(),
            resolv_conf: "# ours\nnameserver 127.0.0.1\nnameserver 10.0.0.53 # near\nnameserver fd00::1\n\
                domain old.example\nsearch a.example b.example\noptions ndots:2\n"
                .to_owned(),
            own_resolv_conf: "nameserver 127.0.0.53\n".to_owned(),
        }
    }

    fn config(network: NetworkMode) -> Config {
        Config { hostname: "web".to_owned(), network, ..fixture::config() }
    }

    fn bridge() -> Config {
        config(NetworkMode::Bridge("bridge".to_owned()))
    }

    #[test]
    fn on_a_bridge() {
        let extra_hosts = ["db:10.0.0.7", "six:[fd00::7]", "six2=fd00::8", "up:host-gateway"].map(str::to_owned).into();
        let config = Config { extra_hosts, domainname: Some("example.com".to_owned()), ..bridge() };
        let files = Files::of(&config, Some((OWN, GATEWAY)), &host()).unwrap();
        expect_test::expect![[r#"
            127.0.0.1	localhost
            ::1	localhost ip6-localhost ip6-loopback
            fe00::	ip6-localnet
            ff00::	ip6-mcastprefix
            ff02::1	ip6-allnodes
            ff02::2	ip6-allrouters
            10.0.0.7	db
            fd00::7	six
            fd00::8	six2
            172.31.0.1	up
            172.31.0.2	web.example.com web
        "#]]
        .assert_eq(&files.hosts);
        assert_eq!(files.hostname, "web\n");
        expect_test::expect![[r#"
            nameserver 10.0.0.53
            search a.example b.example
            options ndots:2
        "#]]
        .assert_eq(&files.resolv_conf);
    }

    #[test]
    fn a_hosts_server_on_loopback_is_replaced_by_nothing() {
        let host = HostFiles { resolv_conf: "nameserver 127.0.0.1\nnameserver ::1\n".to_owned(), ..host() };
        let files = Files::of(&bridge(), Some((OWN, GATEWAY)), &host).unwrap();
        assert!(files.resolv_conf.starts_with("# No name server"), "{}", files.resolv_conf);
        assert!(!files.resolv_conf.lines().any(|line| line.starts_with("nameserver")));
    }

    #[test]
    fn what_was_asked_for_comes_before_the_hosts() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        for (dns, search, expected) in [
            (&["1.1.1.1", "::1"][..], &[][..], "nameserver 1.1.1.1\nnameserver ::1\nsearch a.example b.example\n"),
            (&[], &["c.example"], "nameserver 10.0.0.53\nsearch c.example\n"),
            (&["127.0.0.1"], &["."], "nameserver 127.0.0.1\n"),
        ] {
            let config = Config { dns: texts(dns), dns_search: texts(search), ..bridge() };
            let files = Files::of(&config, Some((OWN, GATEWAY)), &host()).unwrap();
            assert_eq!(files.resolv_conf, format!("{expected}options ndots:2\n"), "{dns:?} {search:?}");
        }
    }

    #[test]
    fn on_the_hosts_network_the_files_are_the_hosts() {
        let extra_hosts = vec!["up:host-gateway".to_owned()];
        let own = Config { extra_hosts, ..config(NetworkMode::Host) };
        let files = Files::of(&own, None, &host()).unwrap();
        assert_eq!(files.hosts, "127.0.0.1 localhost\n10.0.0.9 build\n127.0.0.1\tup\n");
        assert_eq!(files.resolv_conf, "nameserver 127.0.0.53\n");
        let asked = Config { dns_search: vec!["x.example".to_owned()], ..config(NetworkMode::Host) };
        let files = Files::of(&asked, None, &host()).unwrap();
        assert_eq!(files.resolv_conf, "nameserver 127.0.0.53\nsearch x.example\n");
    }

    #[test]
    fn without_a_network_there_is_only_loopback() {
        let files = Files::of(&config(NetworkMode::None), None, &host()).unwrap();
        assert_eq!(files.hosts, LOCAL);
    }

    #[test]
    fn every_mistake_is_named() {
        let with = |extra: &str| Config { extra_hosts: vec![extra.to_owned()], ..bridge() };
        let mut wrong: Vec<Config> = ["", "db", ":1.2.3.4", "a b:1.2.3.4", "db:1.2.3", "db:[::1"].map(with).into();
        wrong.push(Config { dns: vec!["localhost".to_owned()], ..bridge() });
        wrong.push(Config { dns_search: vec!["a\nnameserver 6.6.6.6".to_owned()], ..bridge() });
        let errors: Vec<String> = wrong.iter().map(|config| check(config).unwrap_err().to_string()).collect();
        expect_test::expect![[r#"
            `` is no further host: write a name and an address, as in db:10.0.0.7
            `db` is no further host: write a name and an address, as in db:10.0.0.7
            `:1.2.3.4` is no further host: the name before the colon cannot be one
            `a b:1.2.3.4` is no further host: the name before the colon cannot be one
            `db:1.2.3` is no further host: what follows the name is no IP address
            `db:[::1` is no further host: what follows the name is no IP address
            `localhost` is no name server: write an IP address
            `a
            nameserver 6.6.6.6` is no search domain: write one such as example.com, or `.` for none"#]]
        .assert_eq(&errors.join("\n"));
        let nowhere = Config { extra_hosts: vec!["up:host-gateway".to_owned()], ..config(NetworkMode::None) };
        let error = Files::of(&nowhere, None, &host()).unwrap_err();
        assert!(error.to_string().ends_with("a container that is on no bridge has no gateway"), "{error}");
        assert!(check(&with("up:host-gateway")).is_ok());
    }
}
