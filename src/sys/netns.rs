//! Network namespaces held by a file descriptor: they, and every link, route and nft rule inside, die with it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace, kept alive by an fd. Cloning shares the fd.
#[derive(Debug, Clone)]
pub struct NetNs {
    fd: Arc<File>,
}

/// What the caller's thread was in; puts it back on drop.
struct Restore(File);

impl Drop for Restore {
    fn drop(&mut self) {
        // A thread that stays in the wrong namespace would send its next packet to the wrong network: better to end.
        if let Err(error) = setns(&self.0, CloneFlags::CLONE_NEWNET) {
            eprintln!("isobench: cannot return to the network namespace: {error}");
            std::process::abort();
        }
    }
}

impl NetNs {
    /// Makes a new namespace with nothing in it but a `lo` that is down.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN; ENOSPC beyond `/proc/sys/user/max_net_namespaces`.
    pub fn new() -> io::Result<Self> {
        let _restore = Restore(current_file()?);
        unshare(CloneFlags::CLONE_NEWNET)?;
        Self::current()
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When /proc is not mounted.
    pub fn current() -> io::Result<Self> {
        Ok(Self { fd: Arc::new(current_file()?) })
    }

    /// The namespace of a process.
    ///
    /// # Errors
    /// ENOENT when there is no such process, EACCES when it may not be inspected.
    pub fn of_pid(pid: u32) -> io::Result<Self> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// The namespace that a file such as `/run/netns/NAME` holds.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: impl AsRef<std::path::Path>) -> io::Result<Self> {
        Ok(Self { fd: Arc::new(File::open(path)?) })
    }

    /// Runs `body` with the calling thread inside this namespace, and brings the thread back.
    ///
    /// Sockets made inside stay in this namespace. Threads made inside inherit it.
    ///
    /// # Errors
    /// When the namespace cannot be entered; the body's own outcome is returned inside.
    pub fn enter<T>(&self, body: impl FnOnce() -> T) -> io::Result<T> {
        let _restore = Restore(current_file()?);
        setns(&*self.fd, CloneFlags::CLONE_NEWNET)?;
        Ok(body())
    }

    /// The inode number that tells namespaces apart, as in `net:[4026531840]`.
    ///
    /// # Errors
    /// When fstat fails.
    pub fn inode(&self) -> io::Result<u64> {
        Ok(nix::sys::stat::fstat(&*self.fd)?.st_ino)
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn current_file() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}
