//! What containers that share a network namespace share, and what they do not: network modes `host` and `container`, by
//! programs in containers of the built-in runtime. The host is a lab's.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, PipeReader};
use std::net::SocketAddr;
use std::path::PathBuf;

use isobench::lab::Lab;
use isobench::runtime::{ExitStatus, Instance, Network, StartRequest, by_kind};
use isobench::scenario::RuntimeKind;
use isobench::workload::Test;
use isobench::workload::arguments::Arguments;
use isobench::workload::result::Line;

use crate::harness::Case;
use crate::pair::{client, with_client};

type Outcome = Result<(), Box<dyn Error>>;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("modes::host_has_each_port_once", host_has_each_port_once),
        Case::new(
            "modes::container_shares_the_network_and_nothing_else",
            container_shares_the_network_and_nothing_else,
        ),
    ]
}

/// A workload in a container.
struct Contained {
    instance: Box<dyn Instance>,
    lines: BufReader<PipeReader>,
}

impl Contained {
    fn start(arguments: &Arguments, network: &Network) -> Result<Self, Box<dyn Error>> {
        let (reader, writer) = std::io::pipe()?;
        let mut request = StartRequest::new(arguments.to_words(), network.clone());
        request.stdout = Some(writer.into());
        let instance = by_kind(RuntimeKind::Builtin)?.start(request)?;
        Ok(Self { instance, lines: BufReader::new(reader) })
    }

    fn server(bind: SocketAddr, network: &Network) -> Result<Self, Box<dyn Error>> {
        Self::start(&Arguments::server(Test::TcpRr, bind), network)
    }

    fn client(connect: SocketAddr, network: &Network) -> Result<Self, Box<dyn Error>> {
        Self::start(&with_client(client(Test::TcpRr, 200), |client| client.connect = connect), network)
    }

    fn line(&mut self) -> Result<Line, Box<dyn Error>> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(|error| format!("{line:?}: {error}").into())
    }

    /// Where it listens.
    fn ready(&mut self) -> Result<SocketAddr, Box<dyn Error>> {
        match self.line()? {
            Line::Ready(ready) => Ok(ready.address),
            other => Err(format!("not ready: {other:?}").into()),
        }
    }

    /// The message with which it fails.
    fn complaint(mut self) -> Result<String, Box<dyn Error>> {
        let message = match self.line()? {
            Line::Error(failure) => failure.message,
            other => return Err(format!("no error: {other:?}").into()),
        };
        assert_eq!(self.instance.wait()?.status, ExitStatus::Code(1));
        self.instance.remove()?;
        Ok(message)
    }

    fn namespace(&self, kind: &str) -> std::io::Result<PathBuf> {
        fs::read_link(format!("/proc/{}/ns/{kind}", self.instance.pid()))
    }
}

fn host_has_each_port_once() -> Outcome {
    let lab = Lab::new()?;
    let host = Network::Host(lab.host().netns().clone());
    let mut first = Contained::server("0.0.0.0:0".parse()?, &host)?;
    let address = first.ready()?;
    let second = Contained::server(address, &host)?;
    assert_eq!(second.complaint()?, format!("cannot bind TCP {address}: Address already in use (os error 98)"));
    // With a network of its own the same port is free, and on another address of the host too.
    let mut apart = Contained::server(address, &Network::None)?;
    assert_eq!(apart.ready()?, address);
    apart.instance.remove()?;
    first.instance.remove()?;
    let mut again = Contained::server(address, &host)?;
    assert_eq!(again.ready()?, address, "the port is not given back");
    Ok(again.instance.remove()?)
}

fn container_shares_the_network_and_nothing_else() -> Outcome {
    let mut partner = Contained::server("127.0.0.1:0".parse()?, &Network::None)?;
    let address = partner.ready()?;
    let stranger = Contained::client(address, &Network::None)?;
    let refused = stranger.complaint()?;
    assert!(refused.contains("Connection refused"), "{refused}");

    let joined = Network::Container(partner.instance.netns()?);
    let mut client = Contained::client(address, &joined)?;
    let Line::Window(_) = client.line()? else { return Err("no window".into()) };
    // Both run their programs now, so each is in all of its namespaces.
    for kind in ["cgroup", "ipc", "mnt", "pid", "uts"] {
        assert_ne!(client.namespace(kind)?, partner.namespace(kind)?, "{kind}");
    }
    assert_eq!(client.namespace("net")?, partner.namespace("net")?);
    assert_ne!(client.namespace("net")?, fs::read_link("/proc/self/ns/net")?);
    match (client.line()?, partner.line()?) {
        (Line::Client(sent), Line::Server(served)) => assert!(sent.messages > 0 && served.messages > 0),
        other => return Err(format!("unexpected ends: {other:?}").into()),
    }
    client.instance.remove()?;
    Ok(partner.instance.remove()?)
}
