//! What both ends do to themselves and to their sockets: CPU, parent's death, bind, connect, whole messages.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::{Pid, getppid};

use super::WorkloadError;

/// How often a server that may take any port tries again when TCP's free port is taken for UDP.
const PORT_ATTEMPTS: u32 = 32;

/// Lets the kernel kill this process when its parent's thread ends.
pub(super) fn die_with_parent(expected: Option<u32>) -> Result<(), WorkloadError> {
    let Some(expected) = expected else { return Ok(()) };
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(WorkloadError::system("ask for a signal at the parent's death"))?;
    // A parent that died before the prctl sends nothing any more.
    let parent = getppid().as_raw();
    if i64::from(parent) == i64::from(expected) {
        return Ok(());
    }
    Err(WorkloadError::Arguments(format!("--parent-death {expected}: the parent is {parent}")))
}

/// Keeps this process on one CPU.
pub(super) fn pin(cpu: Option<u32>) -> Result<(), WorkloadError> {
    let Some(cpu) = cpu else { return Ok(()) };
    let mut set = CpuSet::new();
    set.set(cpu as usize)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(WorkloadError::system(format!("run on CPU {cpu}")))
}

/// The sockets of a server: TCP for control (and TCP flows), UDP on the same port where the test wants it.
pub(super) fn bind(address: SocketAddr, udp: bool) -> Result<(TcpListener, Option<UdpSocket>), WorkloadError> {
    let mut attempts = if address.port() == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let listener = TcpListener::bind(address).map_err(WorkloadError::system(format!("bind TCP {address}")))?;
        if !udp {
            return Ok((listener, None));
        }
        let bound = listener.local_addr().map_err(WorkloadError::system("ask for the bound address"))?;
        match UdpSocket::bind(bound) {
            Ok(socket) => return Ok((listener, Some(socket))),
            Err(error) if error.kind() == ErrorKind::AddrInUse && attempts > 0 => {}
            Err(error) => return Err(WorkloadError::system(format!("bind UDP {bound}"))(error)),
        }
    }
}

/// Sets SO_RCVBUF; the kernel doubles the number and caps it at net.core.rmem_max.
pub(super) fn receive_buffer(socket: &impl AsFd, bytes: Option<u32>) -> Result<(), WorkloadError> {
    let Some(bytes) = bytes else { return Ok(()) };
    setsockopt(socket, sockopt::RcvBuf, &(bytes as usize))
        .map_err(WorkloadError::system(format!("set a receive buffer of {bytes} bytes")))
}

/// Accepts a connection within `timeout`. Linux lets SO_RCVTIMEO bound accept(2) too.
pub(super) fn accept(listener: &TcpListener, what: &str, timeout: Duration) -> Result<TcpStream, WorkloadError> {
    let doing = || format!("accept {what}");
    set_receive_timeout(listener, timeout).map_err(WorkloadError::system(doing()))?;
    let (socket, _) = listener.accept().map_err(failure(doing(), "client", timeout))?;
    set_receive_timeout(listener, Duration::ZERO).map_err(WorkloadError::system(doing()))?;
    Ok(socket)
}

fn set_receive_timeout(socket: &impl AsFd, timeout: Duration) -> nix::Result<()> {
    let microseconds = i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX);
    setsockopt(socket, sockopt::ReceiveTimeout, &TimeVal::microseconds(microseconds))
}

/// Connects within `timeout`, with TCP_NODELAY as asked.
pub(super) fn connect(address: SocketAddr, nodelay: bool, timeout: Duration) -> Result<TcpStream, WorkloadError> {
    let doing = || format!("connect to {address}");
    let socket = TcpStream::connect_timeout(&address, timeout).map_err(failure(doing(), "server", timeout))?;
    socket.set_nodelay(nodelay).map_err(WorkloadError::system(doing()))?;
    Ok(socket)
}

/// Turns what a socket says when the other end is silent or gone into those words.
pub(super) fn failure(
    doing: impl Into<String>,
    peer: &'static str,
    timeout: Duration,
) -> impl FnOnce(io::Error) -> WorkloadError {
    let doing = doing.into();
    move |error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => WorkloadError::TimedOut { doing, after: timeout },
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => WorkloadError::PeerGone(peer),
        _ => WorkloadError::System { doing, source: error },
    }
}

/// A buffer whose pages exist: fresh zero pages would all be one page of the kernel, and stay in the cache as one.
pub(super) fn message(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index % 251) as u8 | 1).collect()
}

/// Reads one message of the buffer's size; `false` when the other end closed before its first byte.
pub(super) fn read_message(mut socket: impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < buffer.len() {
        match socket.read(&mut buffer[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Sends one request and reads its reply into the same buffer.
pub(super) fn exchange(mut socket: &TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    socket.write_all(buffer)?;
    if read_message(socket, buffer)? { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

/// Closes this end's writing half, so that the other end sees the flow's end after its last byte.
pub(super) fn close_writing(socket: &TcpStream) {
    // A connection that is gone already needs no closing.
    let _ = socket.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_whole_or_end_between_two() {
        let mut input: &[u8] = b"abcdef";
        let mut buffer = [0; 3];
        assert!(read_message(&mut input, &mut buffer).unwrap());
        assert_eq!(&buffer, b"abc");
        assert!(read_message(&mut input, &mut buffer).unwrap());
        assert!(!read_message(&mut input, &mut buffer).unwrap());
        let mut cut: &[u8] = b"ab";
        assert_eq!(read_message(&mut cut, &mut buffer).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_wrong_parent_or_cpu_is_an_error() {
        let error = pin(Some(100_000)).unwrap_err().to_string();
        assert_eq!(error, "cannot run on CPU 100000");
        assert!(pin(None).is_ok() && die_with_parent(None).is_ok());
    }
}
