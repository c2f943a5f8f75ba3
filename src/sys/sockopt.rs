//! Socket options for which nix has no type; used by `netlink`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// Sets an option that is an integer, such as NETLINK_EXT_ACK at level SOL_NETLINK.
///
/// # Errors
/// ENOPROTOOPT when the kernel does not know the option.
pub fn set_int(fd: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: `value` lives through the call and `length` is its size; the kernel only reads it.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    Errno::result(result)?;
    Ok(())
}
