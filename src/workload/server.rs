//! The server of a network test: binds, serves one client as it asks, and tells what arrived.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::arguments::{Arguments, Server};
use super::client::Task;
use super::control::{Control, ToClient, ToServer};
use super::flow::{Flow, Flows};
use super::result::{Line, Ready, ServerResult};
use super::window::Window;
use super::{Test, WorkloadError, print, socket, tcp_crr, tcp_rr, tcp_stream, udp_rr, udp_stream};
use crate::sys::clock;
use crate::units;

/// How long datagrams may still be on their way when the client says that it has sent all.
const STRAGGLERS: Duration = Duration::from_millis(10);

/// The sockets that the flows share, and by which they are told to end.
struct Shared {
    listener: TcpListener,
    datagrams: Option<UdpSocket>,
}

/// Runs the server's end to its result.
pub(super) fn run(arguments: &Arguments, server: &Server) -> Result<ServerResult, WorkloadError> {
    let (test, timeout) = (arguments.test, arguments.timeout);
    let (listener, datagrams) = socket::bind(server.bind, test.is_udp())?;
    socket::receive_buffer(&listener, server.receive_buffer)?;
    if let Some(datagrams) = &datagrams {
        socket::receive_buffer(datagrams, server.receive_buffer)?;
    }
    // Accepted sockets inherit it: one system call less for each connection of tcp_crr.
    nix::sys::socket::setsockopt(&listener, nix::sys::socket::sockopt::TcpNoDelay, &(test != Test::TcpStream))
        .map_err(WorkloadError::system("set TCP_NODELAY"))?;
    let address = listener.local_addr().map_err(WorkloadError::system("ask for the bound address"))?;
    print(&Line::Ready(Ready { address }))?;

    let mut control = open_control(&listener, timeout)?;
    let (streams, message_size) = hello(&mut control, test)?;
    control.send(&ToClient::Accepted)?;
    let accepted = match test {
        Test::TcpStream | Test::TcpRr => accept_flows(&listener, streams, timeout)?,
        Test::TcpCrr | Test::UdpStream | Test::UdpRr => Vec::new(),
    };
    let window = match control.receive("window")? {
        ToServer::Window(window) => window,
        other => return Err(control.unexpected(format!("{other:?}").as_bytes(), "window")),
    };

    let task = Task { window, message_size: message_size as usize, timeout };
    let shared = Arc::new(Shared { listener, datagrams });
    let flows = spawn(test, accepted, streams, task, &shared)?;
    control.send(&ToClient::Started)?;
    let deadline_ns = window.end_ns.saturating_add(units::ns(timeout));
    let finished = finished(&mut control, deadline_ns);
    let flow = end(flows, &shared, deadline_ns, timeout);
    let (sent, flow) = match (finished, flow) {
        (Ok(sent), Ok(flow)) => (sent, flow),
        // A flow that saw more than the client's absence knows the cause.
        (_, Err(error)) if !matches!(error, WorkloadError::PeerGone(_)) => return Err(error),
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    control.send(&ToClient::Done)?;
    Ok(result(test, window, sent, &flow))
}

fn result(test: Test, window: Window, sent: Option<u64>, flow: &Flow) -> ServerResult {
    ServerResult {
        test,
        window,
        elapsed_ns: window.elapsed_ns(),
        bytes: flow.bytes,
        messages: flow.messages,
        total_bytes: flow.total_bytes,
        total_messages: flow.total_messages,
        sent,
        lost: sent.map(|sent| sent.saturating_sub(flow.arrived)),
        cpu: flow.cost.cpu,
    }
}

fn open_control(listener: &TcpListener, timeout: Duration) -> Result<Control<TcpStream>, WorkloadError> {
    let socket = socket::accept(listener, "a client", timeout)?;
    set_timeout(&socket, timeout)?;
    socket.set_nodelay(true).map_err(WorkloadError::system("set TCP_NODELAY"))?;
    Ok(Control::new(socket, "client", timeout))
}

fn set_timeout(socket: &TcpStream, timeout: Duration) -> Result<(), WorkloadError> {
    socket
        .set_read_timeout(Some(timeout))
        .and_then(|()| socket.set_write_timeout(Some(timeout)))
        .map_err(WorkloadError::system("set the control connection's time-out"))
}

/// The client's streams and message size; another test than ours is an error.
fn hello(control: &mut Control<TcpStream>, ours: Test) -> Result<(u32, u32), WorkloadError> {
    match control.receive("hello")? {
        ToServer::Hello { test, streams, message_size } if test == ours => Ok((streams, message_size)),
        other => Err(control.unexpected(format!("{other:?}").as_bytes(), "hello of the same test")),
    }
}

fn accept_flows(listener: &TcpListener, streams: u32, timeout: Duration) -> Result<Vec<TcpStream>, WorkloadError> {
    (0..streams).map(|_| socket::accept(listener, "a flow", timeout)).collect()
}

fn spawn(
    test: Test,
    accepted: Vec<TcpStream>,
    streams: u32,
    task: Task,
    shared: &Arc<Shared>,
) -> Result<Flows, WorkloadError> {
    let mut flows = Flows::new();
    for stream in accepted {
        flows.spawn(move || match test {
            Test::TcpRr => tcp_rr::server(&stream, task),
            _ => tcp_stream::server(&stream, task),
        })?;
    }
    let sharing = if matches!(test, Test::TcpStream | Test::TcpRr) { 0 } else { streams };
    for _ in 0..sharing {
        let shared = Arc::clone(shared);
        flows.spawn(move || match (test, &shared.datagrams) {
            (Test::UdpStream, Some(socket)) => udp_stream::server(socket, task),
            (Test::UdpRr, Some(socket)) => udp_rr::server(socket, task),
            _ => tcp_crr::server(&shared.listener, task),
        })?;
    }
    Ok(flows)
}

/// Waits for the client's last word.
fn finished(control: &mut Control<TcpStream>, deadline_ns: u64) -> Result<Option<u64>, WorkloadError> {
    let left = Duration::from_nanos(deadline_ns.saturating_sub(clock::now_ns()).max(1_000_000));
    set_timeout(control.socket(), left)?;
    match control.receive("finished")? {
        ToServer::Finished { sent } => Ok(sent),
        other => Err(control.unexpected(format!("{other:?}").as_bytes(), "finished")),
    }
}

/// Tells the flows that share a socket to end, and gathers what all of them counted. Connections end by themselves
/// when the client closes them.
fn end(flows: Flows, shared: &Shared, deadline_ns: u64, timeout: Duration) -> Result<Flow, WorkloadError> {
    if let Some(datagrams) = &shared.datagrams {
        thread::sleep(STRAGGLERS);
        // Readers take what is queued and then get 0 bytes. The call itself says ENOTCONN on such a socket, but the
        // kernel wakes the readers all the same.
        let _ = nix::sys::socket::shutdown(datagrams.as_raw_fd(), nix::sys::socket::Shutdown::Read);
    }
    // accept(2) then fails with EINVAL.
    let _ = nix::sys::socket::shutdown(shared.listener.as_raw_fd(), nix::sys::socket::Shutdown::Read);
    flows.finish(deadline_ns, timeout)
}
