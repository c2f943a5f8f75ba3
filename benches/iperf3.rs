//! `tcp_stream` beside iperf3: the same namespaces, the same CPUs, one flow, alternated.
//!
//! `cargo bench --bench iperf3`; needs root and iperf3. Not a criterion bench: the two sides have to take turns, so
//! that whatever disturbs the machine hits both, and the ratio is made in each turn.

use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use isobench::lab::Lab;
use isobench::stats::quantile::median;
use isobench::sys::netns::NetNs;
use isobench::units::human;
use isobench::workload::arguments::{Arguments, Role};
use isobench::workload::result::Line;
use isobench::workload::{SUBCOMMAND, Test};

/// The CPUs of the client and of the server.
const CPUS: (u32, u32) = (0, 1);

fn main() -> Result<(), Box<dyn Error>> {
    let once = std::env::args().any(|argument| argument == "--test");
    let (turns, duration) = if once { (1, Duration::from_millis(1000)) } else { (5, Duration::from_secs(2)) };
    if Command::new("iperf3").arg("--version").output().is_err() {
        println!("skipped: iperf3 is not installed");
        return Ok(());
    }
    let lab = Lab::new()?;
    let bridge = lab.bridge()?;
    let container = NetNs::new()?;
    let endpoint = bridge.attach(&container, &[])?;
    println!("{:8} {:>4}  {:>14} {:>14} {:>7}", "path", "turn", "isobench", "iperf3", "ratio");
    for (path, client) in [("host", lab.host().netns()), ("bridge", &container)] {
        let place = Place { client, server: lab.peer(), address: lab.peer_address() };
        let mut ratios = Vec::new();
        for turn in 0..turns {
            // The order changes, so that neither side always comes second.
            let (ours, theirs) = if turn % 2 == 0 {
                let ours = place.isobench(duration)?;
                (ours, place.iperf3(duration)?)
            } else {
                let theirs = place.iperf3(duration)?;
                (place.isobench(duration)?, theirs)
            };
            let (shown, shown_theirs) = (human(ours, "bit/s"), human(theirs, "bit/s"));
            println!("{path:8} {turn:>4}  {shown:>14} {shown_theirs:>14} {:>7.3}", ours / theirs);
            ratios.push(ours / theirs);
        }
        let middle = median(&ratios).unwrap_or(f64::NAN);
        println!("{path:8}  median of the ratios {middle:.3}");
    }
    bridge.detach(&endpoint)?;
    Ok(())
}

/// Where the traffic runs.
struct Place<'a> {
    client: &'a NetNs,
    server: &'a NetNs,
    address: Ipv4Addr,
}

/// A child that is ended and reaped whatever happens.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(namespace: &NetNs, command: &mut Command) -> Result<Guarded, Box<dyn Error>> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    Ok(Guarded(namespace.enter(|| command.spawn())??))
}

/// The next line of a workload's output.
fn line(child: &mut Guarded) -> Result<Line, Box<dyn Error>> {
    let mut text = String::new();
    // One byte at a time, since the next reader of this pipe must find what follows.
    BufReader::with_capacity(1, child.0.stdout.as_mut().ok_or("no output")?).read_line(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

impl Place<'_> {
    /// Payload bits a second that reached the server, by the isobench workload.
    fn isobench(&self, duration: Duration) -> Result<f64, Box<dyn Error>> {
        let program = |arguments: Arguments| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_isobench"));
            command.arg(SUBCOMMAND).args(arguments.to_words());
            command
        };
        let mut server = Arguments::server(Test::TcpStream, SocketAddr::from((self.address, 0)));
        server.cpu = Some(CPUS.1);
        let mut server = spawn(self.server, &mut program(server))?;
        let Line::Ready(ready) = line(&mut server)? else { return Err("the server is not ready".into()) };
        let mut client = Arguments::client(Test::TcpStream, ready.address);
        client.cpu = Some(CPUS.0);
        if let Role::Client(client) = &mut client.role {
            (client.duration, client.warmup) = (duration, Duration::from_millis(500));
        }
        let mut client = spawn(self.client, &mut program(client))?;
        while !matches!(line(&mut client)?, Line::Client(_)) {}
        loop {
            if let Line::Server(result) = line(&mut server)? {
                return Ok(result.bytes as f64 * 8.0 / (result.elapsed_ns as f64 / 1e9));
            }
        }
    }

    /// The same by iperf3, as its receiver counts it.
    fn iperf3(&self, duration: Duration) -> Result<f64, Box<dyn Error>> {
        let address = self.address.to_string();
        let mut server = spawn(self.server, Command::new("iperf3").args(["-s", "-1", "--forceflush", "-B", &address]))?;
        let mut greeting = [0; 64];
        // It prints when it listens.
        server.0.stdout.as_mut().ok_or("no output")?.read_exact(&mut greeting)?;
        let affinity = format!("{},{}", CPUS.0, CPUS.1);
        let seconds = duration.as_secs().max(1).to_string();
        let mut client = Command::new("iperf3");
        client.args(["-c", &address, "-J", "-O", "1", "-t", &seconds, "-A", &affinity]);
        let mut client = spawn(self.client, &mut client)?;
        let mut text = String::new();
        client.0.stdout.as_mut().ok_or("no output")?.read_to_string(&mut text)?;
        let report: serde_json::Value = serde_json::from_str(&text)?;
        let received = report["end"]["sum_received"]["bits_per_second"].as_f64();
        Ok(received.ok_or_else(|| format!("iperf3 says {}", report["error"]))?)
    }
}
