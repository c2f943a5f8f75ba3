//! Out-of-memory events of a group, as they come: an eventfd that v1 signals, a poll on `memory.events` on v2.
//!
//! The memory experiment arms a watch before the workload crosses its limit and waits for it beside the workload.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{CgroupError, Hierarchy, Place, read_keyed, write};

const V1_FILE: &str = "memory.oom_control";
const V1_REGISTER: &str = "cgroup.event_control";
const V2_FILE: &str = "memory.events";

/// A watch on one group. Events from before it was armed do not count.
#[derive(Debug)]
pub struct OomWatch {
    path: PathBuf,
    /// v1: what was registered; the registration ends with the eventfd. v2: what is polled.
    file: File,
    signal: Option<EventFd>,
    /// v2: the count of OOM kills when it was armed.
    before: u64,
}

impl OomWatch {
    /// Begins to watch.
    ///
    /// # Errors
    /// When the group has no memory controller or the kernel takes no registration.
    pub fn arm(place: &Place) -> Result<Self, CgroupError> {
        let name = if place.hierarchy == Hierarchy::V1 { V1_FILE } else { V2_FILE };
        let path = place.path.join(name);
        let file = File::open(&path).map_err(CgroupError::file("open", &path))?;
        let mut watch = Self { path, file, signal: None, before: 0 };
        match place.hierarchy {
            Hierarchy::V1 => {
                let signal = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
                    .map_err(|errno| CgroupError::file("make an eventfd for", &watch.path)(errno.into()))?;
                let numbers = format!("{} {}", signal.as_fd().as_raw_fd(), watch.file.as_raw_fd());
                write(&place.path, V1_REGISTER, &numbers)?;
                watch.signal = Some(signal);
            }
            Hierarchy::V2 => watch.before = watch.kills()?,
        }
        Ok(watch)
    }

    /// v2: OOM kills so far. Reading also takes the poll's event back, so that only a later one wakes it.
    fn kills(&mut self) -> Result<u64, CgroupError> {
        let mut text = String::new();
        let read = self.file.rewind().and_then(|()| self.file.read_to_string(&mut text));
        read.map_err(CgroupError::file("read", &self.path))?;
        let directory = self.path.parent().unwrap_or(&self.path);
        read_keyed(directory, V2_FILE, &text, "oom_kill")
    }

    /// Waits for the group to run out of memory, at most `timeout`; whether it has, since the watch was armed.
    ///
    /// v1 tells when the killing begins, v2 when somebody was chosen.
    ///
    /// # Errors
    /// When polling or reading fails, as after the group was removed.
    pub fn wait(&mut self, timeout: Duration) -> Result<bool, CgroupError> {
        let begin = Instant::now();
        loop {
            let left = timeout.saturating_sub(begin.elapsed());
            let (fd, flags): (BorrowedFd<'_>, _) = match &self.signal {
                Some(signal) => (signal.as_fd(), PollFlags::POLLIN),
                None => (self.file.as_fd(), PollFlags::POLLPRI),
            };
            let woken =
                match poll(&mut [PollFd::new(fd, flags)], PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                    Ok(ready) => ready > 0,
                    Err(nix::errno::Errno::EINTR) => false,
                    Err(errno) => return Err(CgroupError::file("wait for", &self.path)(errno.into())),
                };
            // memory.events has other events too.
            if woken && (self.signal.is_some() || self.kills()? > self.before) {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }
}
