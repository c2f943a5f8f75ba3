//! `udp_stream`: datagrams as fast as they go. Each begins with the time of its sending (ns of CLOCK_MONOTONIC, 8 bytes,
//! little-endian), so that the server can tell how many of those sent inside the window arrived at all. The client
//! says at the end how many it sent: a gap between sequence numbers would not show the last ones that were lost.

use std::io::ErrorKind;
use std::net::UdpSocket;

use super::WorkloadError;
use super::arguments::{MAX_DATAGRAM, MIN_STREAM_DATAGRAM};
use super::client::Task;
use super::flow::Flow;
use super::socket::{failure, message};
use super::window::Meter;
use crate::sys::clock;

const HEADER_LENGTH: usize = MIN_STREAM_DATAGRAM as usize;

/// The time of sending, which a datagram begins with.
fn sent_ns(datagram: &[u8]) -> Option<u64> {
    datagram.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// Sends until the window closes. A datagram counts by the time of its sending.
pub(super) fn client(socket: &UdpSocket, task: Task) -> Result<Flow, WorkloadError> {
    let mut buffer = message(task.message_size);
    let mut flow = Flow::default();
    let mut meter = Meter::new(task.window, None);
    loop {
        let now_ns = clock::now_ns();
        let inside = meter.inside(now_ns);
        if meter.over() {
            break;
        }
        buffer[..HEADER_LENGTH].copy_from_slice(&now_ns.to_le_bytes());
        match socket.send(&buffer) {
            // ENOBUFS: the device's queue dropped it, as a router on the way might have: sent, and lost.
            Ok(_) => flow.count(task.message_size, inside),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => flow.count(task.message_size, inside),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(gone("send to the server", task)(error)),
        }
    }
    flow.cost = meter.finish();
    Ok(flow)
}

/// A connected socket learns by ICMP that no one listens any more.
pub(super) fn gone(doing: &str, task: Task) -> impl FnOnce(std::io::Error) -> WorkloadError {
    let failed = failure(doing, "server", task.timeout);
    move |error| {
        if error.kind() == ErrorKind::ConnectionRefused { WorkloadError::PeerGone("server") } else { failed(error) }
    }
}

/// Receives until the socket is shut down.
pub(super) fn server(socket: &UdpSocket, task: Task) -> Result<Flow, WorkloadError> {
    let mut buffer = message(MAX_DATAGRAM as usize);
    let mut flow = Flow::default();
    let mut meter = Meter::new(task.window, None);
    loop {
        let count = match socket.recv(&mut buffer) {
            // Shut down: no datagram of ours is empty.
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(failure("receive from the client", "client", task.timeout)(error)),
        };
        let Some(sent_ns) = sent_ns(&buffer[..count]) else { continue };
        flow.count(count, meter.inside(clock::now_ns()));
        if task.window.contains(sent_ns) {
            flow.arrived += 1;
        }
    }
    flow.cost = meter.finish();
    Ok(flow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_tells_when_it_was_sent() {
        let mut datagram = message(20);
        datagram[..HEADER_LENGTH].copy_from_slice(&77u64.to_le_bytes());
        assert_eq!(sent_ns(&datagram), Some(77));
        assert_eq!(sent_ns(&datagram[..HEADER_LENGTH]), Some(77));
        assert_eq!(sent_ns(&datagram[..HEADER_LENGTH - 1]), None);
    }
}
