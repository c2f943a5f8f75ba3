//! `tcp_rr`: requests and replies over one connection, one under way.

use std::io::Write;
use std::net::TcpStream;

use super::WorkloadError;
use super::client::Task;
use super::flow::Flow;
use super::socket::{close_writing, exchange, failure, message, read_message};
use super::window::Meter;
use crate::sys::clock;

/// Asks until the window closes. An exchange counts when all of it lies inside.
pub(super) fn client(socket: &TcpStream, task: Task) -> Result<Flow, WorkloadError> {
    let mut buffer = message(task.message_size);
    let mut flow = Flow::with_latency()?;
    let mut meter = Meter::new(task.window, Some(socket));
    while !meter.over() {
        let asked_ns = clock::now_ns();
        exchange(socket, &mut buffer).map_err(failure("exchange a message", "server", task.timeout))?;
        let answered_ns = clock::now_ns();
        let counts = meter.inside(answered_ns) && task.window.contains(asked_ns);
        flow.count(task.message_size, counts);
        if counts {
            flow.record(answered_ns - asked_ns);
        }
    }
    close_writing(socket);
    flow.cost = meter.finish();
    Ok(flow)
}

/// Answers until the client closes.
pub(super) fn server(mut socket: &TcpStream, task: Task) -> Result<Flow, WorkloadError> {
    let mut buffer = message(task.message_size);
    let mut flow = Flow::default();
    let mut meter = Meter::new(task.window, Some(socket));
    let failed = || failure("answer a message", "client", task.timeout);
    while read_message(socket, &mut buffer).map_err(failed())? {
        socket.write_all(&buffer).map_err(failed())?;
        flow.count(task.message_size, meter.inside(clock::now_ns()));
    }
    flow.cost = meter.finish();
    Ok(flow)
}
