//! `udp_rr`: requests and replies over UDP, one under way, given up after a time.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockaddrStorage, recvfrom, sendto};

use super::WorkloadError;
use super::arguments::MAX_DATAGRAM;
use super::client::Task;
use super::flow::Flow;
use super::socket::{failure, message};
use super::udp_stream::gone;
use super::window::Meter;
use crate::sys::clock;

/// After this a request or its reply counts as lost; far above any round trip between two namespaces.
const GIVE_UP: Duration = Duration::from_millis(200);

/// Asks until the window closes. An exchange counts when all of it lies inside.
pub(super) fn client(socket: &UdpSocket, task: Task) -> Result<Flow, WorkloadError> {
    socket.set_read_timeout(Some(GIVE_UP)).map_err(WorkloadError::system("set a socket's time-out"))?;
    let mut request = message(task.message_size);
    let mut reply = message(MAX_DATAGRAM as usize);
    let mut flow = Flow::with_latency()?;
    let mut meter = Meter::new(task.window, None);
    let mut number: u64 = 0;
    while !meter.over() {
        number += 1;
        let asked_ns = clock::now_ns();
        let answered = exchange(socket, number, &mut request, &mut reply).map_err(gone("exchange a message", task))?;
        let now_ns = clock::now_ns();
        let counts = meter.inside(now_ns) && task.window.contains(asked_ns);
        if answered {
            flow.count(task.message_size, counts);
        }
        match (counts, answered) {
            (true, true) => flow.record(now_ns - asked_ns),
            (true, false) => flow.lost += 1,
            (false, _) => {}
        }
    }
    flow.cost = meter.finish();
    Ok(flow)
}

/// Sends one request and waits for its reply; `false` when none came in time.
///
/// A reply to an earlier request, given up by then, carries another number and is dropped. Messages shorter than 8
/// bytes carry as much of the number as they hold.
fn exchange(socket: &UdpSocket, number: u64, request: &mut [u8], reply: &mut [u8]) -> std::io::Result<bool> {
    let number = number.to_le_bytes();
    let carried = request.len().min(number.len());
    request[..carried].copy_from_slice(&number[..carried]);
    socket.send(request)?;
    loop {
        match socket.recv(reply) {
            Ok(count) if count == request.len() && reply[..carried] == number[..carried] => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Answers until the socket is shut down.
pub(super) fn server(socket: &UdpSocket, task: Task) -> Result<Flow, WorkloadError> {
    let mut buffer = message(MAX_DATAGRAM as usize);
    let mut flow = Flow::default();
    let mut meter = Meter::new(task.window, None);
    loop {
        // std's recv_from(2) trusts that there is a sender's address, which a shut-down socket does not give.
        let (count, client) = match recvfrom::<SockaddrStorage>(socket.as_raw_fd(), &mut buffer) {
            // Shut down: no datagram of ours is empty.
            Ok((0, _)) => break,
            Ok((count, Some(client))) => (count, client),
            Ok((_, None)) | Err(Errno::EINTR) => continue,
            Err(error) => return Err(failure("receive from the client", "client", task.timeout)(error.into())),
        };
        match sendto(socket.as_raw_fd(), &buffer[..count], &client, MsgFlags::empty()) {
            Ok(_) => flow.count(count, meter.inside(clock::now_ns())),
            // The client is gone, or a queue dropped the reply; the client counts it as lost.
            Err(Errno::ENOBUFS | Errno::ECONNREFUSED | Errno::EPERM | Errno::EINTR) => {}
            Err(error) => return Err(failure("answer the client", "client", task.timeout)(error.into())),
        }
    }
    flow.cost = meter.finish();
    Ok(flow)
}
