//! The command line of the network workloads: words → [`Arguments`] and back. The experiments build it by
//! [`Arguments::to_words`], so that both sides agree by construction.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Test, WorkloadError};
use crate::units::{parse_bytes, parse_duration};

/// The largest message of a TCP test, in bytes.
pub const MAX_TCP_MESSAGE: u32 = 64 << 20;

/// The largest datagram over IPv4, in bytes of payload.
pub const MAX_DATAGRAM: u32 = 65_507;

/// The smallest message of `udp_stream`: each carries the time of its sending.
pub const MIN_STREAM_DATAGRAM: u32 = 8;

/// The most parallel flows.
pub const MAX_STREAMS: u32 = 1024;

/// What one end of a network workload has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    /// Which test.
    pub test: Test,
    /// Which end.
    pub role: Role,
    /// The only CPU that it may run on; absent: wherever the scheduler puts it.
    pub cpu: Option<u32>,
    /// How long any one wait (connect, accept, read, write) may last before it counts as a failure.
    pub timeout: Duration,
    /// The parent, as this program sees it, with which it ends; absent: it outlives its parent.
    pub parent_death: Option<u32>,
}

/// Which end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Serves one client, then ends.
    Server(Server),
    /// Opens the flows and decides on the window.
    Client(Client),
}

/// What a server has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where to listen; port 0 takes a free one.
    pub bind: SocketAddr,
    /// SO_RCVBUF of the data sockets in bytes, as setsockopt(2) takes it; absent: as the kernel has it.
    pub receive_buffer: Option<u32>,
}

/// What a client has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The server.
    pub connect: SocketAddr,
    /// The port of the server's datagrams where a NAT gives it another one than `connect`'s.
    pub data_port: Option<u16>,
    /// How long the window is open.
    pub duration: Duration,
    /// How long the flows run before it opens.
    pub warmup: Duration,
    /// Payload bytes a message.
    pub message_size: u32,
    /// Parallel flows.
    pub streams: u32,
}

impl Arguments {
    /// The default of `--timeout`.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

    /// A server with every option at its default.
    #[must_use]
    pub fn server(test: Test, bind: SocketAddr) -> Self {
        Self::with_role(test, Role::Server(Server { bind, receive_buffer: None }))
    }

    /// A client with every option at its default: one flow, one second after 100 ms, the test's usual message.
    #[must_use]
    pub fn client(test: Test, connect: SocketAddr) -> Self {
        let client = Client {
            connect,
            data_port: None,
            duration: Duration::from_secs(1),
            warmup: Duration::from_millis(100),
            message_size: test.default_message_size(),
            streams: 1,
        };
        Self::with_role(test, Role::Client(client))
    }

    fn with_role(test: Test, role: Role) -> Self {
        let timeout = Self::DEFAULT_TIMEOUT;
        Self { test, role, cpu: None, timeout, parent_death: None }
    }

    /// Reads the words after the test's name: the role, then `--option value` pairs.
    ///
    /// # Errors
    /// [`WorkloadError::Arguments`] with what would be right.
    pub fn parse(test: Test, words: &[String]) -> Result<Self, WorkloadError> {
        let Some((role, options)) = words.split_first() else {
            return Err(usage(format!("{test} needs a role: server or client")));
        };
        let address = |name: &str| -> Result<SocketAddr, WorkloadError> {
            let value = options.iter().position(|word| word == name).and_then(|at| options.get(at + 1));
            let value = value.ok_or_else(|| usage(format!("{test} {role} needs {name} ADDRESS:PORT")))?;
            number(name, value, "an address and a port, as in 10.0.0.2:5201")
        };
        let mut arguments = match role.as_str() {
            "server" => Self::server(test, address("--bind")?),
            "client" => Self::client(test, address("--connect")?),
            other => return Err(usage(format!("`{other}` is not a role of {test}: server or client"))),
        };
        for pair in options.chunks(2) {
            let [name, value] = pair else {
                return Err(usage(format!("`{}` has no value", pair[0])));
            };
            arguments.set(name, value)?;
        }
        arguments.check()?;
        Ok(arguments)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), WorkloadError> {
        match (name, &mut self.role) {
            ("--cpu", _) => self.cpu = Some(number(name, value, "a CPU number")?),
            ("--timeout", _) => self.timeout = duration(name, value)?,
            ("--parent-death", _) => self.parent_death = Some(number(name, value, "a process id")?),
            ("--bind", Role::Server(_)) | ("--connect", Role::Client(_)) => {}
            ("--receive-buffer", Role::Server(server)) => server.receive_buffer = Some(bytes(name, value)?),
            ("--data-port", Role::Client(client)) => client.data_port = Some(number(name, value, "a port")?),
            ("--duration", Role::Client(client)) => client.duration = duration(name, value)?,
            ("--warmup", Role::Client(client)) => client.warmup = duration(name, value)?,
            ("--message-size", Role::Client(client)) => client.message_size = bytes(name, value)?,
            ("--streams", Role::Client(client)) => client.streams = number(name, value, "a count")?,
            (_, role) => {
                let own = match role {
                    Role::Server(_) => "--bind, --receive-buffer",
                    Role::Client(_) => "--connect, --data-port, --duration, --warmup, --message-size, --streams",
                };
                return Err(usage(format!(
                    "unknown option `{name}`; known here are {own}, --cpu, --timeout, --parent-death"
                )));
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), WorkloadError> {
        if self.timeout.is_zero() {
            return Err(usage("--timeout must be more than 0".to_owned()));
        }
        let Role::Client(client) = &self.role else { return Ok(()) };
        let (low, high) = self.test.message_sizes();
        if !(low..=high).contains(&client.message_size) {
            let (test, size) = (self.test, client.message_size);
            return Err(usage(format!("{test} takes messages of {low} to {high} bytes, not {size}")));
        }
        if !(1..=MAX_STREAMS).contains(&client.streams) {
            return Err(usage(format!("--streams is 1 to {MAX_STREAMS}, not {}", client.streams)));
        }
        if client.duration.is_zero() {
            return Err(usage("--duration must be more than 0".to_owned()));
        }
        Ok(())
    }

    /// The words that [`crate::workload::dispatch`] understands after `__workload`, the test's name first.
    #[must_use]
    pub fn to_words(&self) -> Vec<String> {
        let ns = |duration: Duration| format!("{}ns", duration.as_nanos());
        let mut options: Vec<(&str, Option<String>)> = Vec::new();
        let role = match &self.role {
            Role::Server(server) => {
                options.extend([
                    ("--bind", Some(server.bind.to_string())),
                    ("--receive-buffer", server.receive_buffer.map(|bytes| bytes.to_string())),
                ]);
                "server"
            }
            Role::Client(client) => {
                options.extend([
                    ("--connect", Some(client.connect.to_string())),
                    ("--data-port", client.data_port.map(|port| port.to_string())),
                    ("--duration", Some(ns(client.duration))),
                    ("--warmup", Some(ns(client.warmup))),
                    ("--message-size", Some(client.message_size.to_string())),
                    ("--streams", Some(client.streams.to_string())),
                ]);
                "client"
            }
        };
        options.extend([
            ("--cpu", self.cpu.map(|cpu| cpu.to_string())),
            ("--timeout", Some(ns(self.timeout))),
            ("--parent-death", self.parent_death.map(|pid| pid.to_string())),
        ]);
        let mut words = vec![self.test.to_string(), role.to_owned()];
        for (name, value) in options {
            words.extend(value.into_iter().flat_map(|value| [name.to_owned(), value]));
        }
        words
    }
}

fn usage(message: String) -> WorkloadError {
    WorkloadError::Arguments(message)
}

fn number<T: std::str::FromStr>(name: &str, value: &str, what: &str) -> Result<T, WorkloadError> {
    value.parse().map_err(|_| usage(format!("{name}: `{value}` is not {what}")))
}

fn duration(name: &str, value: &str) -> Result<Duration, WorkloadError> {
    parse_duration(value).map_err(|error| usage(format!("{name}: {error}")))
}

fn bytes(name: &str, value: &str) -> Result<u32, WorkloadError> {
    let bytes = parse_bytes(value).map_err(|error| usage(format!("{name}: {error}")))?;
    u32::try_from(bytes).map_err(|_| usage(format!("{name}: {bytes} bytes are too many")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refuse(test: Test, line: &str) -> String {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Arguments::parse(test, &words).unwrap_err().to_string()
    }

    #[test]
    fn errors_say_what_would_be_right() {
        let cases = [
            (Test::TcpRr, "", "tcp_rr needs a role: server or client"),
            (Test::TcpRr, "both", "`both` is not a role of tcp_rr: server or client"),
            (Test::TcpRr, "server", "tcp_rr server needs --bind ADDRESS:PORT"),
            (Test::TcpRr, "client --connect", "tcp_rr client needs --connect ADDRESS:PORT"),
            (Test::TcpRr, "server --bind x", "--bind: `x` is not an address and a port, as in 10.0.0.2:5201"),
            (Test::TcpRr, "server --bind [::1]:0 --cpu", "`--cpu` has no value"),
            (Test::TcpRr, "server --bind [::1]:0 --cpu -1", "--cpu: `-1` is not a CPU number"),
            (
                Test::TcpRr,
                "server --bind [::1]:0 --duration 1s",
                "unknown option `--duration`; known here are --bind, --receive-buffer, --cpu, --timeout, --parent-death",
            ),
            (Test::TcpRr, "client --connect [::1]:9 --streams 0", "--streams is 1 to 1024, not 0"),
            (Test::TcpRr, "client --connect [::1]:9 --duration 0s", "--duration must be more than 0"),
            (Test::TcpRr, "client --connect [::1]:9 --timeout 0s", "--timeout must be more than 0"),
            (
                Test::UdpStream,
                "client --connect [::1]:9 --message-size 7",
                "udp_stream takes messages of 8 to 65507 bytes, not 7",
            ),
            (
                Test::TcpCrr,
                "client --connect [::1]:9 --message-size 8G",
                "--message-size: 8589934592 bytes are too many",
            ),
        ];
        for (test, line, message) in cases {
            assert_eq!(refuse(test, line), message, "{line}");
        }
        assert!(refuse(Test::TcpRr, "client --connect [::1]:9 --duration 1").contains("write a number and a unit"));
    }

    #[test]
    fn defaults_are_whole() {
        for &test in Test::ALL {
            let words = ["client", "--connect", "10.0.0.2:5201"].map(str::to_owned);
            let parsed = Arguments::parse(test, &words).unwrap();
            assert_eq!(parsed, Arguments::client(test, "10.0.0.2:5201".parse().unwrap()));
        }
    }

    proptest! {
        #[test]
        fn words_survive_a_round_trip(
            index in 0..Test::ALL.len(),
            server: bool,
            port: u16,
            data_port: Option<u16>,
            cpu: Option<u32>,
            ns in 1..1_000_000_000_000u64,
            size in MIN_STREAM_DATAGRAM..MAX_DATAGRAM,
            streams in 1..=MAX_STREAMS,
            parent: Option<u32>,
        ) {
            let test = Test::ALL[index];
            let address = SocketAddr::from(([10, 0, 0, 2], port));
            let mut arguments = if server { Arguments::server(test, address) } else { Arguments::client(test, address) };
            (arguments.cpu, arguments.parent_death) = (cpu, parent);
            arguments.timeout = Duration::from_nanos(ns);
            match &mut arguments.role {
                Role::Server(server) => server.receive_buffer = cpu.map(|bytes| bytes / 2),
                Role::Client(client) => {
                (client.data_port, client.message_size, client.streams) = (data_port, size, streams);
                (client.duration, client.warmup) = (Duration::from_nanos(ns), Duration::from_nanos(ns / 2));
                }
            }
            let words = arguments.to_words();
            prop_assert_eq!(&words[0], test.as_str());
            prop_assert_eq!(Arguments::parse(test, &words[1..]).unwrap(), arguments);
        }
    }
}
