//! The programs that run inside a container: a hidden subcommand of the one static binary, so that any image, even
//! an empty one, can run them.
//!
//! `main` hands its arguments to [`dispatch`] before anything else. Layer 3, imports layer 0 only.
//!
//! # Programs
//!
//! - `__workload stamp`: writes the time of the program's entry (ns of CLOCK_MONOTONIC) as 8 bytes, little-endian.
//! - `__workload hold`: does nothing until it is killed; keeps a container, and so its namespaces, alive.
//! - `__workload serve`: tells that it is there, and ends on SIGTERM, see [`serve`].
//! - `__init -- PROGRAM ARGS...`: the first process of a container with `--init`, see [`init`].
//! - `__workload burn|doze|roam --option value ...`: CPU time, wake-up latency and placement, see [`burn`], [`doze`] and
//!   [`roam`].
//! - `__workload block --path NODE ...`: reads or writes a block device between two instants, see [`block`].
//! - `__workload consume RESOURCE --amount ...`: uses a known amount of one resource, see [`consume`].
//! - `__workload device --probe c:1:3 ...`: tries what the device rules permit, see [`device`].
//! - `__workload mix --start NS --end NS ...`: burns CPU time, makes tasks and touches memory, see [`mix`].
//! - `__workload TEST server|client --option value ...`: one end of a network test, see [`arguments::Arguments`].
//!
//! - `__workload touch PAGES`, `cache`, `fork COUNT`, `spin THREADS`: programs that are steered over a board of shared
//!   memory on standard input, see [`steer`].
//!
//! # The network tests
//!
//! | test | one flow | a message |
//! |---|---|---|
//! | `tcp_stream` | one connection, client → server, Nagle's algorithm as the kernel has it | a write |
//! | `tcp_rr` | one connection with TCP_NODELAY, one request under way | a request and its reply of equal size |
//! | `tcp_crr` | a new connection (TCP_NODELAY) for each exchange, closed by the server first | connect, request, reply, close |
//! | `udp_stream` | datagrams from a connected socket, as fast as they go | a datagram |
//! | `udp_rr` | a connected socket, one request under way, given up after 200 ms | a request and its reply of equal size |
//!
//! In `tcp_crr` the server closes first, as a web server does: its side keeps the TIME_WAIT state, so the client never
//! runs out of ports, and the tables of a NAT hold at most one entry a client port.
//!
//! # What they print
//!
//! One JSON object a line on standard output ([`result::Line`]); times in ns, sizes in bytes:
//!
//! - a server prints `ready` (where it listens) and, at the end, `server`;
//! - a client prints `window` (when the measured time will open and close) as soon as its flows stand, and `client` at
//!   the end;
//! - the CPU programs print `burn`, `doze` or `roam` at the end;
//! - who fails prints `error` with the message, and ends with code 1 (2 for bad arguments).
//!
//! # One window for both ends
//!
//! Both ends run on one machine and so share CLOCK_MONOTONIC. The client opens a control connection to the server's
//! port, then the flows; it chooses the window, tells the server, and waits for its consent ([`control`]). Each end
//! asks the clock (by the vDSO, without a system call) after each message, and counts the messages that end inside the
//! window. So what the server counts is what *arrived in the program* inside the window, and CPU time is read by
//! each flow's own thread at both edges.

pub mod arguments;
pub mod block;
pub mod burn;
pub mod cache;
mod client;
pub mod consume;
mod control;
pub mod device;
pub mod doze;
mod flow;
pub mod fork;
pub mod init;
pub mod mix;
mod options;
pub mod result;
pub mod roam;
mod serve;
mod server;
mod socket;
pub mod spin;
mod stamp;
pub mod steer;
mod tcp_crr;
mod tcp_rr;
mod tcp_stream;
pub mod touch;
mod udp_rr;
mod udp_stream;
mod window;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use arguments::{Arguments, Role};
use result::{Failure, Line};

/// The first argument that makes the binary a workload.
pub const SUBCOMMAND: &str = "__workload";

/// A network test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// One-way bulk transfer over TCP.
    TcpStream,
    /// Requests and replies over one TCP connection.
    TcpRr,
    /// A new TCP connection for each request and reply.
    TcpCrr,
    /// One-way datagrams as fast as they go.
    UdpStream,
    /// Requests and replies over UDP.
    UdpRr,
}

impl Test {
    /// Every test.
    pub const ALL: &[Self] = &[Self::TcpStream, Self::TcpRr, Self::TcpCrr, Self::UdpStream, Self::UdpRr];

    /// The name on the command line and in results.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TcpStream => "tcp_stream",
            Self::TcpRr => "tcp_rr",
            Self::TcpCrr => "tcp_crr",
            Self::UdpStream => "udp_stream",
            Self::UdpRr => "udp_rr",
        }
    }

    /// Whether the flows are datagrams; the control connection is TCP all the same.
    #[must_use]
    pub fn is_udp(self) -> bool {
        matches!(self, Self::UdpStream | Self::UdpRr)
    }

    /// The smallest and the largest message, in bytes.
    #[must_use]
    pub fn message_sizes(self) -> (u32, u32) {
        match self {
            Self::TcpStream | Self::TcpRr | Self::TcpCrr => (1, arguments::MAX_TCP_MESSAGE),
            Self::UdpStream => (arguments::MIN_STREAM_DATAGRAM, arguments::MAX_DATAGRAM),
            Self::UdpRr => (1, arguments::MAX_DATAGRAM),
        }
    }

    /// The usual message: 128 KiB for a stream, as iperf3 writes; 1400 bytes for datagrams,
    /// which fit an Ethernet frame with a tunnel's header; 1 byte else.
    #[must_use]
    pub fn default_message_size(self) -> u32 {
        match self {
            Self::TcpStream => 128 << 10,
            Self::UdpStream => 1400,
            Self::TcpRr | Self::TcpCrr | Self::UdpRr => 1,
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a workload failed.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// Bad arguments; the message says what would be right.
    #[error("{0}")]
    Arguments(String),
    /// A system call failed.
    #[error("cannot {doing}")]
    System {
        /// What was tried, as in `connect to 10.0.0.2:5201`.
        doing: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The other end did nothing for too long.
    #[error("cannot {doing}: nothing happened for {}", crate::units::human(.after.as_nanos() as f64, "ns"))]
    TimedOut {
        /// What was tried.
        doing: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The other end went away.
    #[error("the {0} went away before the end of the test")]
    PeerGone(&'static str),
    /// The other end said something else than what was due.
    #[error("the {peer} sent `{got}` where {due} was due")]
    Protocol {
        /// `client` or `server`.
        peer: &'static str,
        /// What came.
        got: String,
        /// What should have come.
        due: &'static str,
    },
    /// A thread panicked; its message is on standard error.
    #[error("a thread of the workload panicked")]
    Panicked,
    /// The histogram could not be packed.
    #[error(transparent)]
    Latency(#[from] result::LatencyError),
}

impl WorkloadError {
    /// Names what was tried; made for `map_err`.
    fn system<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        move |source| Self::System { doing, source: source.into() }
    }
}

/// Runs a workload when the arguments (those after argv\[0\]) ask for one; `None` when they do not.
///
/// `entry_ns` is when the program's own first instruction ran: ns of CLOCK_MONOTONIC.
#[must_use]
pub fn dispatch(entry_ns: u64, mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let subcommand = arguments.next()?;
    if subcommand == init::SUBCOMMAND {
        return Some(init::run(arguments));
    }
    if subcommand != SUBCOMMAND {
        return None;
    }
    let name = arguments.next();
    match name.as_deref().and_then(|name| name.to_str()) {
        Some("stamp") => Some(stamp::run(entry_ns, io::stdout())),
        Some("hold") => hold(),
        Some("serve") => Some(serve::run(entry_ns, io::stdout())),
        Some(name @ ("burn" | "doze" | "roam")) => Some(report(cpu_program(name, arguments))),
        Some(touch::NAME) => Some(steer::run(touch::word::COUNT, arguments, touch::run)),
        Some(cache::NAME) => Some(steer::run(cache::word::COUNT, arguments, cache::run)),
        Some(fork::NAME) => Some(steer::run(fork::word::COUNT, arguments, fork::run)),
        Some(spin::NAME) => {
            let arguments: Vec<OsString> = arguments.collect();
            let text: Vec<String> = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
            let threads = spin::threads(&text).unwrap_or(0);
            Some(steer::run(spin::word::count(threads), arguments.into_iter(), spin::run))
        }
        Some("block") => {
            let arguments = words_of(arguments).and_then(|words| block::Arguments::parse(&words));
            Some(report(arguments.and_then(|arguments| block::run(&arguments))))
        }
        Some("consume") => {
            let arguments = words_of(arguments).and_then(|words| consume::Arguments::parse(&words));
            Some(report(arguments.and_then(|arguments| consume::run(&arguments))))
        }
        Some("device") => Some(endless(arguments, device::run)),
        Some("mix") => Some(endless(arguments, mix::run)),
        Some(mix::CHILD) => Some(endless(arguments, mix::run_child)),
        name => Some(report(network_test(name, arguments))),
    }
}

/// Waits for SIGKILL: the other signals do nothing to the first process of a pid namespace.
fn hold() -> ! {
    loop {
        nix::unistd::pause();
    }
}

/// The workloads beside the network tests.
const OTHERS: [&str; 14] = [
    "stamp", "hold", "serve", "burn", "doze", "roam", "touch", "cache", "fork", "spin", "block", "consume", "device",
    "mix",
];

/// Runs a program that ends by being killed: what it hands back is why it failed.
fn endless(
    arguments: impl Iterator<Item = OsString>,
    program: impl Fn(&[String]) -> Result<(), WorkloadError>,
) -> ExitCode {
    match words_of(arguments).and_then(|words| program(&words)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(Err(error)),
    }
}

fn network_test(name: Option<&str>, arguments: impl Iterator<Item = OsString>) -> Result<Line, WorkloadError> {
    let Some(&test) = Test::ALL.iter().find(|test| Some(test.as_str()) == name) else {
        let known: Vec<&str> = Test::ALL.iter().map(|test| test.as_str()).collect();
        let name = name.unwrap_or("");
        return Err(WorkloadError::Arguments(format!(
            "unknown workload `{name}`; known are {}, {}",
            OTHERS.join(", "),
            known.join(", ")
        )));
    };
    let arguments = Arguments::parse(test, &words_of(arguments)?)?;
    socket::die_with_parent(arguments.parent_death)?;
    socket::pin(arguments.cpu)?;
    match &arguments.role {
        Role::Server(server) => server::run(&arguments, server).map(Line::Server),
        Role::Client(client) => client::run(&arguments, client).map(Line::Client),
    }
}

fn cpu_program(name: &str, arguments: impl Iterator<Item = OsString>) -> Result<Line, WorkloadError> {
    let words = words_of(arguments)?;
    match name {
        "burn" => burn::Burn::parse(&words)?.run().map(Line::Burn),
        "doze" => doze::Doze::parse(&words)?.run().map(Line::Doze),
        _ => roam::Roam::parse(&words)?.run().map(Line::Roam),
    }
}

fn words_of(arguments: impl Iterator<Item = OsString>) -> Result<Vec<String>, WorkloadError> {
    arguments
        .map(|word| word.into_string().map_err(|word| format!("{} is not UTF-8", word.display())))
        .collect::<Result<_, _>>()
        .map_err(WorkloadError::Arguments)
}

fn report(outcome: Result<Line, WorkloadError>) -> ExitCode {
    let (line, code) = match outcome {
        Ok(line) => (line, ExitCode::SUCCESS),
        Err(error) => {
            let code = if matches!(error, WorkloadError::Arguments(_)) { 2 } else { 1 };
            (Line::Error(Failure { message: chain(&error) }), ExitCode::from(code))
        }
    };
    match print(&line) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Writes one line to standard output with one write(2).
fn print(line: &Line) -> Result<(), WorkloadError> {
    print_json(line)
}

/// The same for the lines of the programs that have their own.
fn print_json(line: &impl Serialize) -> Result<(), WorkloadError> {
    let text = serde_json::to_string(line).map_err(|error| WorkloadError::System {
        doing: "write the result as JSON".to_owned(),
        source: error.into(),
    })?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(WorkloadError::system("write to standard output"))
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> impl Iterator<Item = OsString> {
        line.split_whitespace().map(OsString::from).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn other_arguments_are_not_ours() {
        assert!(dispatch(0, arguments("")).is_none());
        assert!(dispatch(0, arguments("run scenario.toml")).is_none());
        assert!(dispatch(0, arguments("run __workload")).is_none());
    }

    #[test]
    fn an_unknown_workload_names_the_known_ones() {
        let error = network_test(Some("dance"), arguments("")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown workload `dance`; known are stamp, hold, serve, burn, doze, roam, touch, cache, fork, spin, block, consume, device, mix, tcp_stream, tcp_rr, tcp_crr, udp_stream, udp_rr"
        );
    }

    #[test]
    fn errors_read_as_one_line() {
        let source = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        let error = WorkloadError::System { doing: "connect to 10.0.0.2:5201".to_owned(), source };
        assert_eq!(chain(&error), "cannot connect to 10.0.0.2:5201: Connection refused (os error 111)");
        let error = WorkloadError::TimedOut { doing: "read a reply".to_owned(), after: Duration::from_secs(10) };
        assert_eq!(chain(&error), "cannot read a reply: nothing happened for 10 s");
    }
}
