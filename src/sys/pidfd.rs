//! What a pidfd tells of a process that is no child of the caller.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};

use super::launch::ExitStatus;

/// How long is polled at once, in ms.
const SLICE_MS: u8 = 50;

/// `struct pidfd_info` of `linux/pidfd.h`, in its first version.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    /// pid, tgid, ppid, and the eight user and group ids.
    ids: [u32; 11],
    exit_code: i32,
}

const _: () = assert!(size_of::<Info>() == 64);

/// Which part is asked for: the exit code of a process that has been reaped.
const EXIT: u64 = 1 << 3;
/// PIDFD_GET_INFO: `_IOWR(0xff, 11, struct pidfd_info)`.
const GET_INFO: u64 = 0xc040_ff0b;

/// Waits until a process that has ended has been reaped by whoever its parent is now, at most for so long. Only then
/// does the kernel tell its code to others.
pub fn await_reaped(pidfd: BorrowedFd<'_>, patience: Duration) {
    let until = Instant::now() + patience;
    while Instant::now() < until {
        // No event is asked for: a hang-up, which comes once it is reaped, is told all the same.
        let mut fds = [PollFd::new(pidfd, PollFlags::empty())];
        match poll(&mut fds, SLICE_MS) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            _ => return,
        }
    }
}

/// How a process ended, by a pidfd that was opened while it lived; `None` while it lives or waits to be reaped, and on
/// kernels before 6.15, which do not keep it.
#[must_use]
pub fn exit_status(pidfd: BorrowedFd<'_>) -> Option<ExitStatus> {
    let mut info = Info { mask: EXIT, ..Info::default() };
    // SAFETY: the struct is as large as the request says and lives during the call.
    let returned = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO as libc::Ioctl, &raw mut info) };
    if returned < 0 || info.mask & EXIT == 0 {
        return None;
    }
    Some(decode(info.exit_code))
}

/// How a process ended that has not been reaped, which its parent may never do; `None` for any other. The caller has a
/// pidfd of it that says that it has ended, so that a zombie of that pid is it.
#[must_use]
pub fn exit_status_of_zombie(pid: u32) -> Option<ExitStatus> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything. The state is the third field, the code the 52nd.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    (*fields.first()? == "Z").then_some(())?;
    Some(decode(fields.get(49)?.parse().ok()?))
}

fn decode(wait_status: i32) -> ExitStatus {
    let status = std::process::ExitStatus::from_raw(wait_status);
    match status.code() {
        Some(code) => ExitStatus::Code(code),
        None => ExitStatus::Signal(status.signal().unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::launch::pidfd_open;
    use super::*;

    #[test]
    fn a_code_is_kept_for_who_has_a_pidfd() {
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "read x; exit 7"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pidfd = pidfd_open(child.id()).unwrap();
        assert_eq!(exit_status(pidfd.as_fd()), None);
        drop(child.stdin.take());
        child.wait().unwrap();
        let told = exit_status(pidfd.as_fd());
        // Before 6.15 the kernel forgets it.
        assert!(matches!(told, Some(ExitStatus::Code(7)) | None), "{told:?}");
    }
}
