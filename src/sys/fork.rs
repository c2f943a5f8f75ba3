//! A plain fork, for the workloads that are one process among several inside a container.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

/// How long a thread that was joined may still be among the tasks: the kernel wakes who joins it before it takes the
/// thread away.
const LEAVING: Duration = Duration::from_millis(200);

/// Forks a child that runs `body` and ends with the code that it returns. Descriptors and mappings are shared as
/// fork(2) shares them.
///
/// # Errors
/// EAGAIN beyond a limit on tasks, ENOMEM; EINVAL when this process has more than one thread, because the child would
/// then find the locks of the others held for ever.
pub fn fork(body: impl FnOnce() -> i32) -> io::Result<Pid> {
    let until = Instant::now() + LEAVING;
    while std::fs::read_dir("/proc/self/task")?.count() != 1 {
        if Instant::now() > until {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a process with threads cannot fork"));
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    // SAFETY: this is the only thread, so the child has a whole copy of the process and may do what it likes.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(child),
        nix::unistd::ForkResult::Child => {
            let guard = AbortOnUnwind;
            let code = body();
            std::mem::forget(guard);
            // SAFETY: ends the process at once; destructors and exit handlers are the parent's.
            unsafe { libc::_exit(code) }
        }
    }
}

/// Reaps one child of this process that has ended, any: its pid, and its code, or 128 and the number of the signal that
/// ended it. `None` when none has ended, or there is no child.
///
/// # Errors
/// When waitpid(2) fails.
pub fn reap() -> io::Result<Option<(Pid, u8)>> {
    let mut status = 0;
    // SAFETY: status is valid for writing. By hand, because nix loses a status with a real-time signal in it.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    if pid < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ECHILD) { Ok(None) } else { Err(error) };
    }
    let status = ExitStatus::from_raw(status);
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).and_then(|code| u8::try_from(code).ok());
    Ok((pid > 0).then_some((Pid::from_raw(pid), code.unwrap_or(u8::MAX))))
}

/// A child must not run what the parent has on its stack.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_with_threads_is_refused() {
        // The test harness itself runs each test in a thread.
        let error = super::fork(|| 0).unwrap_err();
        assert_eq!(error.to_string(), "a process with threads cannot fork");
    }
}
