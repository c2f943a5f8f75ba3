//! `tcp_stream`: one-way bulk transfer over one connection.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use super::WorkloadError;
use super::client::Task;
use super::flow::Flow;
use super::socket::{close_writing, failure, message};
use super::window::Meter;
use crate::sys::clock;

/// What the receiver reads at once, at least; small messages of a stream arrive joined, as with any receiver.
const MIN_READ: usize = 128 << 10;

/// Writes messages until the window closes.
pub(super) fn client(mut socket: &TcpStream, task: Task) -> Result<Flow, WorkloadError> {
    let buffer = message(task.message_size);
    let mut flow = Flow::default();
    let mut meter = Meter::new(task.window, Some(socket));
    while !meter.over() {
        match socket.write(&buffer) {
            Ok(count) => flow.count(count, meter.inside(clock::now_ns())),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failure("write to the server", "server", task.timeout)(error)),
        }
    }
    close_writing(socket);
    flow.cost = meter.finish();
    Ok(flow)
}

/// Reads until the client closes.
pub(super) fn server(mut socket: &TcpStream, task: Task) -> Result<Flow, WorkloadError> {
    let mut buffer = message(task.message_size.max(MIN_READ));
    let mut flow = Flow::default();
    let mut meter = Meter::new(task.window, Some(socket));
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => flow.count(count, meter.inside(clock::now_ns())),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failure("read from the client", "client", task.timeout)(error)),
        }
    }
    flow.cost = meter.finish();
    Ok(flow)
}
