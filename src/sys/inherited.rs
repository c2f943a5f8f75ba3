//! Descriptors that a process got from whoever started it.

use std::io;

/// Closes every descriptor above the standard three that was not opened by this program: what this program opens is
/// marked close-on-exec, as Rust's standard library does it, and what comes over an exec is not. For a process that
/// outlives the command which made it: it must not hold its caller's pipes open.
///
/// # Errors
/// When /proc is not mounted.
pub fn close() -> io::Result<()> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        found.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    for descriptor in found.into_iter().filter(|&descriptor| descriptor > 2) {
        // SAFETY: plain numbers; a descriptor that is closed meanwhile is an error and no harm.
        let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFD) };
        if flags >= 0 && flags & libc::FD_CLOEXEC == 0 {
            // SAFETY: no value of this program owns it, since those are all close-on-exec.
            unsafe { libc::close(descriptor) };
        }
    }
    Ok(())
}
