//! Two private namespaces with a veth between them, and the workloads that run in them.

use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use isobench::sys::netns::NetNs;
use isobench::workload::arguments::{Arguments, Client, Role};
use isobench::workload::result::{ClientResult, Line, ServerResult};
use isobench::workload::{SUBCOMMAND, Test};

pub type Outcome = Result<(), Box<dyn Error>>;

pub const CLIENT_ADDRESS: &str = "10.9.0.1";
pub const SERVER_ADDRESS: &str = "10.9.0.2";

/// Two namespaces with a veth between them: `va` at the client, `vb` at the server.
pub struct Pair {
    pub client: NetNs,
    pub server: NetNs,
}

impl Pair {
    pub fn new() -> Result<Self, Box<dyn Error>> {
        let pair = Self { client: NetNs::new()?, server: NetNs::new()? };
        let other = format!("/proc/{}/fd/{}", std::process::id(), pair.server.as_fd().as_raw_fd());
        ip(&pair.client, &format!("link add va type veth peer name vb netns {other}"))?;
        for (namespace, link, address) in [(&pair.client, "va", CLIENT_ADDRESS), (&pair.server, "vb", SERVER_ADDRESS)] {
            ip(namespace, &format!("address add {address}/24 dev {link}"))?;
            ip(namespace, &format!("link set {link} up"))?;
            ip(namespace, "link set lo up")?;
        }
        Ok(pair)
    }

    /// Runs both ends to their results.
    pub fn run(&self, server: Arguments, client: Arguments) -> Result<(ClientResult, ServerResult), Box<dyn Error>> {
        let (server, mut client) = self.start(server, client)?;
        client.window()?;
        let client = client.end()?;
        let server = server.end()?;
        match (client, server) {
            ((Line::Client(client), 0), (Line::Server(server), 0)) => Ok((client, server)),
            other => Err(format!("unexpected ends: {other:?}").into()),
        }
    }

    /// Starts both ends; the client connects to where the server says that it listens.
    pub fn start(&self, server: Arguments, mut client: Arguments) -> Result<(Program, Program), Box<dyn Error>> {
        let mut server = Program::start(&self.server, &server.to_words())?;
        let bound = server.ready()?;
        if let Role::Client(client) = &mut client.role {
            client.connect = bound;
        }
        Ok((server, Program::start(&self.client, &client.to_words())?))
    }
}

pub fn server(test: Test) -> Arguments {
    Arguments::server(test, format!("{SERVER_ADDRESS}:0").parse().expect("an address"))
}

/// A client with short times; the port is filled in by [`Pair::start`].
pub fn client(test: Test, duration_ms: u64) -> Arguments {
    let mut arguments = Arguments::client(test, format!("{SERVER_ADDRESS}:1").parse().expect("an address"));
    if let Role::Client(client) = &mut arguments.role {
        (client.duration, client.warmup) = (Duration::from_millis(duration_ms), Duration::from_millis(50));
    }
    arguments
}

pub fn with_client(mut arguments: Arguments, change: impl FnOnce(&mut Client)) -> Arguments {
    if let Role::Client(client) = &mut arguments.role {
        change(client);
    }
    arguments
}

/// A workload that runs; killed and reaped on drop.
pub struct Program {
    pub child: Child,
    lines: BufReader<ChildStdout>,
}

impl Program {
    pub fn start(namespace: &NetNs, words: &[String]) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(SUBCOMMAND).args(words).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = namespace.enter(|| command.spawn())??;
        let lines = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        Ok(Self { child, lines })
    }

    pub fn line(&mut self) -> Result<Line, Box<dyn Error>> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(|error| format!("{line:?}: {error}").into())
    }

    pub fn ready(&mut self) -> Result<SocketAddr, Box<dyn Error>> {
        match self.line()? {
            Line::Ready(ready) => Ok(ready.address),
            other => Err(format!("not ready: {other:?}").into()),
        }
    }

    pub fn window(&mut self) -> Outcome {
        match self.line()? {
            Line::Window(_) => Ok(()),
            other => Err(format!("no window: {other:?}").into()),
        }
    }

    /// Its next line, which must be its last, and its exit code.
    pub fn end(mut self) -> Result<(Line, i32), Box<dyn Error>> {
        let line = self.line()?;
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest)?;
        let code = self.child.wait()?.code().ok_or("ended by a signal")?;
        if rest.is_empty() { Ok((line, code)) } else { Err(format!("more output: {rest}").into()) }
    }

    /// The message of its last line, which must be an error with code 1.
    pub fn complaint(self) -> Result<String, Box<dyn Error>> {
        match self.end()? {
            (Line::Error(failure), 1) => Ok(failure.message),
            other => Err(format!("no error with code 1: {other:?}").into()),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn ip(namespace: &NetNs, arguments: &str) -> Result<String, Box<dyn Error>> {
    let output = namespace.enter(|| Command::new("ip").args(arguments.split_whitespace()).output())??;
    if output.status.success() {
        Ok(String::from_utf8(output.stdout)?)
    } else {
        Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr)).into())
    }
}
