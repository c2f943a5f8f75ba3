//! TCP_INFO: what the kernel knows of one TCP connection. Read by the network workloads at the edges of their window.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd};

/// A few facts about one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpInfo {
    /// Segments sent again since the connection was made.
    pub retransmits: u32,
    /// The kernel's smoothed round-trip time, in ns (it keeps µs).
    pub rtt_ns: u64,
    /// The mean deviation of the round-trip time, in ns (it keeps µs).
    pub rtt_variance_ns: u64,
}

/// Asks the kernel about a connected TCP socket.
///
/// # Errors
/// When `socket` is not a TCP socket.
pub fn read(socket: impl AsFd) -> io::Result<TcpInfo> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: `info` has room for `length` bytes, and the kernel writes no more than `length`. The fd is borrowed,
    // so it stays open during the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the struct holds integers only, for which zero (what an older kernel leaves unwritten) is valid.
    let info = unsafe { info.assume_init() };
    Ok(TcpInfo {
        retransmits: info.tcpi_total_retrans,
        rtt_ns: u64::from(info.tcpi_rtt) * 1000,
        rtt_variance_ns: u64::from(info.tcpi_rttvar) * 1000,
    })
}
