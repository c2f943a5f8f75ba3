//! `tcp_crr`: a new connection for each request and reply, closed by the server first.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::WorkloadError;
use super::client::Task;
use super::flow::Flow;
use super::socket::{exchange, failure, message, read_message};
use super::window::Meter;
use crate::sys::clock;

/// Connects, asks, and closes until the window closes. A latency is from before connect(2) until the reply is there.
pub(super) fn client(server: SocketAddr, task: Task) -> Result<Flow, WorkloadError> {
    let mut buffer = message(task.message_size);
    let mut flow = Flow::with_latency()?;
    let mut meter = Meter::new(task.window, None);
    while !meter.over() {
        let asked_ns = clock::now_ns();
        let answered_ns = once(server, &mut buffer).map_err(failure(
            format!("connect to {server} for an exchange"),
            "server",
            task.timeout,
        ))?;
        let counts = meter.inside(clock::now_ns()) && task.window.contains(asked_ns);
        flow.count(task.message_size, counts);
        if counts {
            flow.record(answered_ns - asked_ns);
        }
    }
    flow.cost = meter.finish();
    Ok(flow)
}

/// One connection's life; returns when its reply had arrived.
fn once(server: SocketAddr, buffer: &mut [u8]) -> io::Result<u64> {
    let mut socket = TcpStream::connect(server)?;
    socket.set_nodelay(true)?;
    exchange(&socket, buffer)?;
    let answered_ns = clock::now_ns();
    // The server closes first and keeps the TIME_WAIT state; closing before its FIN is here would give it to us.
    match socket.read(&mut buffer[..1])? {
        0 => Ok(answered_ns),
        _ => Err(io::Error::new(ErrorKind::InvalidData, "more bytes than one reply")),
    }
}

/// Accepts and answers until the listener is shut down.
pub(super) fn server(listener: &TcpListener, task: Task) -> Result<Flow, WorkloadError> {
    let mut buffer = message(task.message_size);
    let mut flow = Flow::default();
    let mut meter = Meter::new(task.window, None);
    loop {
        let mut socket = match listener.accept() {
            Ok((socket, _)) => socket,
            // EINVAL: the listener was shut down, the test is over.
            Err(error) if error.kind() == ErrorKind::InvalidInput => break,
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => continue,
            Err(error) => return Err(failure("accept a connection", "client", task.timeout)(error)),
        };
        let failed = || failure("answer a request", "client", task.timeout);
        if read_message(&socket, &mut buffer).map_err(failed())? {
            socket.write_all(&buffer).map_err(failed())?;
            drop(socket);
            flow.count(task.message_size, meter.inside(clock::now_ns()));
        }
    }
    flow.cost = meter.finish();
    Ok(flow)
}
