//! The client of a network test: opens control and flows, decides on the window, runs, and tells what it saw.

use std::fs::read_to_string;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use super::arguments::{Arguments, Client};
use super::control::{Control, ToClient, ToServer};
use super::flow::{Flow, Flows};
use super::result::{ClientResult, Latency, Line};
use super::window::Window;
use super::{Test, WorkloadError, print, socket, tcp_crr, tcp_rr, tcp_stream, udp_rr, udp_stream};
use crate::sys::clock;
use crate::units::ns;

/// Both ends start their threads in this time, before the warm-up: a fixed part and one for each flow.
const LEAD_NS: u64 = 5_000_000;
const LEAD_PER_FLOW_NS: u64 = 100_000;

/// What every flow's thread needs to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Task {
    pub window: Window,
    pub message_size: usize,
    pub timeout: Duration,
}

/// A flow that is open and has sent nothing yet.
enum Opened {
    Tcp(TcpStream),
    Udp(UdpSocket),
    /// `tcp_crr` connects anew for each exchange.
    Nothing,
}

/// Runs the client's end to its result.
pub(super) fn run(arguments: &Arguments, client: &Client) -> Result<ClientResult, WorkloadError> {
    let (test, timeout) = (arguments.test, arguments.timeout);
    let mut control = open_control(arguments, client)?;
    let opened = (0..client.streams).map(|_| open(test, client, timeout)).collect::<Result<Vec<_>, _>>()?;
    let lead_ns = LEAD_NS + LEAD_PER_FLOW_NS * u64::from(client.streams);
    let window = Window::after(clock::now_ns(), lead_ns, ns(client.warmup), ns(client.duration));
    control.send(&ToServer::Window(window))?;
    control.expect(&ToClient::Started, "started")?;
    print(&Line::Window(window))?;

    let task = Task { window, message_size: client.message_size as usize, timeout };
    let mut flows = Flows::new();
    for flow in opened {
        let address = client.connect;
        flows.spawn(move || match (test, flow) {
            (Test::TcpStream, Opened::Tcp(socket)) => tcp_stream::client(&socket, task),
            (Test::TcpRr, Opened::Tcp(socket)) => tcp_rr::client(&socket, task),
            (Test::UdpStream, Opened::Udp(socket)) => udp_stream::client(&socket, task),
            (Test::UdpRr, Opened::Udp(socket)) => udp_rr::client(&socket, task),
            _ => tcp_crr::client(address, task),
        })?;
    }
    // Beside the flows, so that a flow that fails early is heard of at once.
    let watch = (test == Test::TcpCrr).then(|| thread::spawn(move || retransmits_inside(window)));
    let mut flow = flows.finish(window.end_ns.saturating_add(ns(timeout)), timeout)?;
    if let Some(watch) = watch {
        flow.cost.retransmits = watch.join().map_err(|_| WorkloadError::Panicked)?;
    }
    let sent = (test == Test::UdpStream).then_some(flow.messages);
    control.send(&ToServer::Finished { sent })?;
    control.expect(&ToClient::Done, "done")?;
    result(test, window, flow)
}

fn result(test: Test, window: Window, flow: Flow) -> Result<ClientResult, WorkloadError> {
    Ok(ClientResult {
        test,
        window,
        elapsed_ns: window.elapsed_ns(),
        bytes: flow.bytes,
        messages: flow.messages,
        lost: flow.lost,
        total_bytes: flow.total_bytes,
        total_messages: flow.total_messages,
        retransmits: flow.cost.retransmits,
        tcp_rtt_ns: flow.cost.tcp_rtt_ns,
        latency: flow.latency.as_ref().map(Latency::encode).transpose()?,
        cpu: flow.cost.cpu,
    })
}

fn open_control(arguments: &Arguments, client: &Client) -> Result<Control<TcpStream>, WorkloadError> {
    let timeout = arguments.timeout;
    let socket = socket::connect(client.connect, true, timeout)?;
    socket
        .set_read_timeout(Some(timeout))
        .and_then(|()| socket.set_write_timeout(Some(timeout)))
        .map_err(WorkloadError::system("set the control connection's time-out"))?;
    let mut control = Control::new(socket, "server", timeout);
    let (streams, message_size) = (client.streams, client.message_size);
    control.send(&ToServer::Hello { test: arguments.test, streams, message_size })?;
    control.expect(&ToClient::Accepted, "accepted")?;
    Ok(control)
}

fn open(test: Test, client: &Client, timeout: Duration) -> Result<Opened, WorkloadError> {
    match test {
        Test::TcpStream => socket::connect(client.connect, false, timeout).map(Opened::Tcp),
        Test::TcpRr => socket::connect(client.connect, true, timeout).map(Opened::Tcp),
        Test::TcpCrr => Ok(Opened::Nothing),
        Test::UdpStream | Test::UdpRr => {
            let mut server = client.connect;
            server.set_port(client.data_port.unwrap_or(server.port()));
            let any = match server.ip() {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            UdpSocket::bind(SocketAddr::new(any, 0))
                .and_then(|socket| socket.connect(server).map(|()| Opened::Udp(socket)))
                .map_err(WorkloadError::system(format!("open a UDP socket to {server}")))
        }
    }
}

/// The TCP segments that this network namespace sent again inside the window; `None` where /proc does not tell.
///
/// A connection that lives for one exchange is too short to be asked, and asking each would be a system call more.
fn retransmits_inside(window: Window) -> Option<u64> {
    clock::sleep_until(window.start_ns);
    let before = retransmitted_segments(&read_to_string("/proc/thread-self/net/snmp").ok()?)?;
    clock::sleep_until(window.end_ns);
    let after = retransmitted_segments(&read_to_string("/proc/thread-self/net/snmp").ok()?)?;
    Some(after.saturating_sub(before))
}

/// `RetransSegs` of the two `Tcp:` lines, names above values.
fn retransmitted_segments(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Tcp:"));
    let position = lines.next()?.split_whitespace().position(|name| name == "RetransSegs")?;
    lines.next()?.split_whitespace().nth(position)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retransmits_are_found_by_name() {
        let snmp =
            "Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm InSegs RetransSegs InErrs\nTcp: 1 900 42 0\nUdp: X\nUdp: 1\n";
        assert_eq!(retransmitted_segments(snmp), Some(42));
        assert_eq!(retransmitted_segments("Tcp: A B\nTcp: 1 2\n"), None);
        assert_eq!(retransmitted_segments(""), None);
    }
}
