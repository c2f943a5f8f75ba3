//! From a command to a monitor: the fork, and what makes the child a process of its own.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;

use nix::sys::prctl;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use super::MonitorError;
use super::start::{Beginning, live};
use crate::container::store::{Locked, Store, Stored};
use crate::image::Image;
use crate::sys::{fork as process, inherited};

/// What the first client wants.
#[derive(Debug, Clone, Copy, Default)]
pub struct First {
    /// The output from the first byte.
    pub attached: bool,
    /// Rows and columns of its terminal.
    pub size: Option<(u16, u16)>,
}

/// Forks a monitor that starts the container, or takes up one that runs without a monitor. The lock on the container
/// goes with it, and so does the image. Returns the connection on which the monitor tells how the start went
/// ([`super::super::wire::Message::Started`] or `Failed`) and then serves its first client.
///
/// # Errors
/// When no process can be made; EINVAL where this one has threads.
pub fn fork(
    store: &Store,
    stored: &Stored,
    lock: Locked,
    image: Option<Image>,
    first: First,
) -> Result<UnixStream, MonitorError> {
    let (ours, theirs) = UnixStream::pair().map_err(MonitorError::system("make a pair of sockets"))?;
    let mut carried = Some(Beginning { lock, image, stream: theirs, first });
    let body = || {
        let lived = carried.take().map(|beginning| {
            become_daemon().map_err(MonitorError::system("become a process of its own"))?;
            live(store, stored, beginning)
        });
        // The state and the clients have been told what there is to tell.
        i32::from(!matches!(lived, Some(Ok(()))))
    };
    process::fork(body).map_err(MonitorError::system("fork a monitor"))?;
    if let Some(beginning) = carried {
        // The child has both: only the copy of the lock's descriptor closes here, and the image's lease stays.
        std::mem::forget(beginning.image);
    }
    Ok(ours)
}

/// A session of its own, no terminal, no streams of whoever ran the command, no directory kept busy. It cannot be
/// dumped or traced by who is not root on the host: a program in the container must not reach its files by `/proc`.
fn become_daemon() -> io::Result<()> {
    setsid()?;
    std::env::set_current_dir("/")?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    inherited::close()?;
    prctl::set_dumpable(false)?;
    prctl::set_name(c"isobench-mon")?;
    Ok(())
}
