//! clone3 and what follows for the parent: a child that runs a plan, its pidfd, its end.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;

use super::clock;
use super::interpret;
use super::page::{ClockPage, Failure, Gate, MAX_STAMPS};
use super::plan::{Op, Plan};

/// `struct clone_args` up to the fields that this program uses.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// A child that is running its plan, or the program that the plan executed.
///
/// Dropping it without [`Child::wait`] ends it with SIGKILL and reaps it: no child outlives its owner unnoticed.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    pidfd: OwnedFd,
    page: ClockPage,
    cloned_ns: (u64, u64),
    reaped: Option<Reaped>,
}

/// A named span of time: name, begin, end in ns of CLOCK_MONOTONIC.
pub type Span = (&'static str, u64, u64);

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// What the kernel told when the child was reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reaped {
    /// How it ended.
    pub status: ExitStatus,
    /// When: ns of CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// User CPU time of the child and the descendants that it waited for, in ns.
    pub user_ns: u64,
    /// System CPU time of the same, in ns.
    pub system_ns: u64,
    /// Major page faults.
    pub major_faults: u64,
    /// Involuntary context switches.
    pub involuntary_switches: u64,
}

/// Clones a child into new namespaces (`flags`: CLONE_NEW*) that runs `plan`.
///
/// # Errors
/// EINVAL when the plan is longer than the clock page; what clone3 says: EPERM without privilege, ENOSPC beyond a
/// namespace limit, EAGAIN beyond a process limit.
pub fn launch(plan: &Plan, flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Child> {
    if plan.steps.len() > MAX_STAMPS || !matches!(plan.steps.last().map(|step| &step.op), Some(Op::Exec { .. })) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a plan has at most 500 steps and ends with exec"));
    }
    let page = ClockPage::new()?;
    let mut pidfd: i32 = -1;
    let mut arguments = CloneArgs {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    let before = clock::now_ns();
    // SAFETY: without CLONE_VM the child has its own copy of the address space; it runs nothing but the interpreter,
    // which allocates nothing, takes no lock and never returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<CloneArgs>()) };
    match pid {
        0 => interpret::run(plan, &page),
        pid if pid > 0 => Ok(Child {
            pid: pid as u32,
            // SAFETY: the kernel just made this descriptor for us.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
            page,
            cloned_ns: (before, clock::now_ns()),
            reaped: None,
        }),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Child {
    /// The process as the caller's pid namespace sees it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// When clone3 was called and when it returned to the parent: ns of CLOCK_MONOTONIC.
    #[must_use]
    pub fn cloned_ns(&self) -> (u64, u64) {
        self.cloned_ns
    }

    /// Lets the child through a gate.
    pub fn open(&self, gate: Gate) {
        self.page.open(gate);
    }

    /// The phases of `plan`, the one that it was launched with, as far as they are done: name, begin, end in ns of
    /// CLOCK_MONOTONIC. They follow each other without gaps; the first, `prepare`, begins at `requested_ns`.
    #[must_use]
    pub fn spans(&self, plan: &Plan, requested_ns: u64) -> Vec<Span> {
        let (before_clone, _) = self.cloned_ns;
        let mut spans: Vec<Span> = vec![("prepare", requested_ns, before_clone)];
        let mut begin = before_clone;
        for (index, (step, at)) in plan.steps.iter().zip(self.page.stamps()).enumerate() {
            // The first step's stamp ends the clone as well: the child's life begins somewhere inside.
            let phase = if index == 0 { "clone" } else { step.phase };
            match spans.last_mut() {
                Some((name, _, end)) if *name == phase => *end = at,
                _ => spans.push((phase, begin, at)),
            }
            begin = at;
        }
        spans
    }

    /// How many steps of its plan it has done.
    #[must_use]
    pub fn steps_done(&self) -> usize {
        self.page.stamps().count()
    }

    /// The step that failed, if one did.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.page.failure()
    }

    /// Sends a signal; a child that has ended already is no error.
    ///
    /// # Errors
    /// EPERM, EINVAL.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        send_signal(self.pidfd.as_fd(), signal)
    }

    /// Whether it has ended (and waits to be reaped, or was).
    ///
    /// # Errors
    /// When poll fails.
    pub fn has_ended(&self) -> io::Result<bool> {
        if self.reaped.is_some() {
            return Ok(true);
        }
        poll_in(self.pidfd.as_fd(), Some(0))
    }

    /// Waits until it has ended, at most `timeout_ms`; true when it has. It is not reaped yet.
    ///
    /// # Errors
    /// When poll fails.
    pub fn wait_ended(&self, timeout_ms: Option<i32>) -> io::Result<bool> {
        Ok(self.reaped.is_some() || poll_in(self.pidfd.as_fd(), timeout_ms)?)
    }

    /// Waits for its end and reaps it. Later calls return the same.
    ///
    /// # Errors
    /// When wait4 fails.
    pub fn wait(&mut self) -> io::Result<Reaped> {
        if let Some(reaped) = self.reaped {
            return Ok(reaped);
        }
        let mut status = 0;
        // SAFETY: zero is a valid rusage.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        loop {
            // SAFETY: status and usage are valid for writing; the pid is our child that nobody else reaps.
            let pid = unsafe { libc::wait4(self.pid as i32, &raw mut status, libc::__WALL, &raw mut usage) };
            if pid > 0 {
                break;
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        let reaped = Reaped {
            status: exit_status(status),
            at_ns: clock::now_ns(),
            user_ns: timeval_ns(usage.ru_utime),
            system_ns: timeval_ns(usage.ru_stime),
            major_faults: usage.ru_majflt as u64,
            involuntary_switches: usage.ru_nivcsw as u64,
        };
        self.reaped = Some(reaped);
        Ok(reaped)
    }
}

impl AsFd for Child {
    /// The pidfd: readable once the child has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.reaped.is_none() {
            // Neither can fail for a child that was not reaped; and a destructor has nobody to tell.
            let _ = self.signal(libc::SIGKILL);
            self.page.abort();
            let _ = self.wait();
        }
    }
}

fn exit_status(raw: i32) -> ExitStatus {
    let status = std::process::ExitStatus::from_raw(raw);
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, signal) => ExitStatus::Signal(signal.unwrap_or(0)),
    }
}

fn timeval_ns(time: libc::timeval) -> u64 {
    time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1000
}

/// Waits until the descriptor is readable; `None` waits without end.
fn poll_in(fd: BorrowedFd<'_>, timeout_ms: Option<i32>) -> io::Result<bool> {
    let timeout = match timeout_ms {
        None => nix::poll::PollTimeout::NONE,
        Some(ms) => nix::poll::PollTimeout::try_from(ms).map_err(io::Error::other)?,
    };
    let mut fds = [nix::poll::PollFd::new(fd, nix::poll::PollFlags::POLLIN)];
    loop {
        match nix::poll::poll(&mut fds, timeout) {
            Ok(ready) => return Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Sends a signal by pidfd, which can never hit a process that got the pid afterwards; ESRCH is no error.
///
/// # Errors
/// EPERM, EINVAL.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: plain numbers; a null siginfo means the same as kill(2).
    let returned = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    if returned < 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ESRCH) {
            return Err(error);
        }
    }
    Ok(())
}

/// A pidfd of a process.
///
/// # Errors
/// ESRCH when there is no such process.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; the kernel makes a new descriptor for us.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as i32)) }
    }
}
