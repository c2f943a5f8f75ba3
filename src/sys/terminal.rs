//! A container's terminal: opened by the child on the container's own `/dev/pts`, its master sent to the parent.
//!
//! The child's half is a step of the plan and so makes raw system calls only; the parent's half is [`Master`].

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::raw::raw;

/// Rows and columns.
pub type Size = (u16, u16);

/// A control message that holds one descriptor, laid out as the kernel reads it.
#[repr(C, align(8))]
struct OneDescriptor {
    length: usize,
    level: c_int,
    kind: c_int,
    descriptor: c_int,
}

/// TIOCGPTPEER of `linux/ioctl.h`: the other end of a terminal, whatever its path leads to.
const TIOCGPTPEER: u64 = 0x5441;

/// Child: opens a terminal, sends its master, and makes it the controlling one of this session and the streams 0, 1, 2.
pub(super) fn open(socket: c_int, owner: u32, console: bool) -> Result<(), c_int> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    let unlock: c_int = 0;
    // SAFETY: for the whole block: paths are C strings, the pointers are to values that live during the calls.
    unsafe {
        let master = raw!(libc::SYS_openat, libc::AT_FDCWD, c"/dev/pts/ptmx".as_ptr(), flags, 0)?;
        raw!(libc::SYS_ioctl, master, libc::TIOCSPTLCK, &raw const unlock)?;
        let terminal = raw!(libc::SYS_ioctl, master, TIOCGPTPEER, flags)?;
        raw!(libc::SYS_fchown, terminal, owner, u32::MAX)?;
        send(socket, master as c_int)?;
        if console {
            bind_console(terminal as c_int)?;
        }
        raw!(libc::SYS_ioctl, terminal, libc::TIOCSCTTY, 0)?;
        for stream in 0..3 {
            raw!(libc::SYS_dup3, terminal, stream, 0)?;
        }
    }
    Ok(())
}

/// Puts the terminal on /dev/console: by descriptors from the beginning to the end, so that no link can lead it
/// elsewhere.
///
/// # Safety
/// None beyond what its numbers are: `terminal` is checked by the kernel.
unsafe fn bind_console(terminal: c_int) -> Result<(), c_int> {
    const OPEN_TREE_CLONE: c_int = 1;
    const MOVE_MOUNT_EMPTY_PATHS: c_int = 4 | 0x40;
    let create = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_RDONLY;
    // SAFETY: paths are C strings; descriptors are those that the kernel just gave.
    unsafe {
        let place = raw!(libc::SYS_openat, libc::AT_FDCWD, c"/dev/console".as_ptr(), create, 0o600)?;
        let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | libc::AT_EMPTY_PATH;
        let mount = raw!(libc::SYS_open_tree, terminal, c"".as_ptr(), flags)?;
        raw!(libc::SYS_move_mount, mount, c"".as_ptr(), place, c"".as_ptr(), MOVE_MOUNT_EMPTY_PATHS)?;
        raw!(libc::SYS_close, mount)?;
        raw!(libc::SYS_close, place)?;
    }
    Ok(())
}

/// Sends one descriptor with one byte.
///
/// # Safety
/// None beyond what its numbers are.
unsafe fn send(socket: c_int, descriptor: c_int) -> Result<(), c_int> {
    let mut byte = 0u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = OneDescriptor {
        length: size_of::<usize>() + 3 * size_of::<c_int>(),
        level: libc::SOL_SOCKET,
        kind: libc::SCM_RIGHTS,
        descriptor,
    };
    // SAFETY: zero is a valid msghdr; every pointer put in lives until the call returns.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = size_of::<OneDescriptor>();
        raw!(libc::SYS_sendmsg, socket, &raw const message, libc::MSG_NOSIGNAL)?;
    }
    Ok(())
}

/// Parent: waits for the master of a child's terminal. `None` when the child ended without sending one; the parent's own
/// copy of the child's end must be closed by then.
///
/// # Errors
/// When the socket fails.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Master>> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut byte = [0u8];
    let mut parts = [io::IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([c_int; 1]);
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
        .map_err(io::Error::from)?;
    for control in message.cmsgs().map_err(io::Error::from)? {
        if let ControlMessageOwned::ScmRights(descriptors) = control
            && let Some(&descriptor) = descriptors.first()
        {
            // SAFETY: the kernel just made this descriptor for us.
            return Ok(Some(Master(unsafe { File::from_raw_fd(descriptor) })));
        }
    }
    Ok(None)
}

/// The end of a terminal that is not the program's.
#[derive(Debug)]
pub struct Master(pub File);

impl Master {
    /// Tells the terminal how large it is; its foreground programs hear of a change by SIGWINCH.
    ///
    /// # Errors
    /// When it is no terminal any more.
    pub fn resize(&self, size: Size) -> io::Result<()> {
        resize(self.0.as_fd(), size)
    }
}

fn resize(terminal: BorrowedFd<'_>, (rows, columns): Size) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the struct lives during the call.
    match unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How large a terminal is; `None` for what is no terminal.
#[must_use]
pub fn size(terminal: BorrowedFd<'_>) -> Option<Size> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the struct lives during the call.
    match unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) } {
        0 => Some((size.ws_row, size.ws_col)),
        _ => None,
    }
}

/// A pair of sockets for one descriptor: the parent's end and the child's.
///
/// # Errors
/// When no pair can be made.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_passes_and_an_end_is_told() {
        let (parent, child) = pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        // SAFETY: live descriptors.
        unsafe { send(child.as_raw_fd(), file.as_raw_fd()) }.unwrap();
        drop(child);
        let Master(got) = receive(parent.as_fd()).unwrap().unwrap();
        let device = |file: &File| nix::sys::stat::fstat(file).unwrap().st_rdev;
        assert_eq!(device(&got), device(&file));
        assert!(receive(parent.as_fd()).unwrap().is_none());
    }
}
