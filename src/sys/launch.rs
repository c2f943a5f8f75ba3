//! clone3 and what follows for the parent: a child that runs a plan, its pidfd, its end.

use std::ffi::{CString, c_char, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::ptr::null;
use std::sync::Arc;

use super::clock;
use super::clone::{CloneArgs, Stack, clone3};
use super::interpret;
use super::page::{ClockPage, Failure, Gate, MAX_STAMPS};
use super::plan::{Op, Plan};

pub use super::clone::Memory;

/// A child that is running its plan, or the program that the plan executed.
///
/// Dropping it without [`Child::wait`] ends it with SIGKILL and reaps it: no child outlives its owner unnoticed.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    pidfd: OwnedFd,
    errand: Arc<Errand>,
    /// Where a child that shares memory runs until its exec.
    _stack: Option<Stack>,
    cloned_ns: (u64, u64),
    reaped: Option<Reaped>,
}

/// What a child reads while it runs its plan; it lives as long as the child, which may share this very memory.
#[derive(Debug)]
pub(super) struct Errand {
    pub plan: Plan,
    pub page: ClockPage,
    pub strings: ExecStrings,
}

/// The null-terminated arrays of pointers that execve takes: into the plan's own strings, which do not move.
#[derive(Debug)]
pub(super) struct ExecStrings {
    pub arguments: Vec<*const c_char>,
    pub environment: Vec<*const c_char>,
    /// For a guarded exec, what the stub gets for each path.
    pub by_stub: Vec<Vec<*const c_char>>,
}

// SAFETY: the pointers are to heap memory of the plan beside them, which nobody changes.
unsafe impl Send for ExecStrings {}
// SAFETY: as above.
unsafe impl Sync for ExecStrings {}

impl ExecStrings {
    fn of(plan: &Plan) -> Option<Self> {
        let Some(Op::Exec { paths, arguments, environment, guarded }) = plan.steps.last().map(|step| &step.op) else {
            return None;
        };
        fn pointers(strings: &[CString]) -> impl Iterator<Item = *const c_char> {
            strings.iter().map(|string| string.as_ptr()).chain([null()])
        }
        // A stub's first argument is the path.
        let by_stub = |path: &CString| [path.as_ptr()].into_iter().chain(pointers(arguments)).collect();
        Some(Self {
            arguments: pointers(arguments).collect(),
            environment: pointers(environment).collect(),
            by_stub: paths.iter().filter(|_| *guarded).map(by_stub).collect(),
        })
    }
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

/// Clones a child into new namespaces (`flags`: CLONE_NEW*) that runs `plan`; into a cgroup of v2 if one is given.
///
/// # Errors
/// EINVAL when the plan is longer than the clock page or does not end with exec; what clone3 says: EPERM without
/// privilege, ENOSPC beyond a namespace limit, EAGAIN beyond a process limit.
pub fn launch(plan: Plan, flags: u64, cgroup: Option<BorrowedFd<'_>>, memory: Memory) -> io::Result<Child> {
    let strings = ExecStrings::of(&plan).filter(|_| plan.steps.len() <= MAX_STAMPS).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "a plan has at most 500 steps and ends with exec")
    })?;
    let errand = Arc::new(Errand { strings, page: ClockPage::new()?, plan });
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
    // SAFETY: the interpreter allocates nothing, takes no lock, calls the C library for the clock alone and never
    // returns; the errand and the stack live in the `Child`, which waits for the child before it lets go of them.
    let (pid, stack) = unsafe { clone3(&mut arguments, memory, begin, Arc::as_ptr(&errand).cast())? };
    Ok(Child {
        pid,
        // SAFETY: the kernel just made this descriptor for us.
        pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        errand,
        _stack: stack,
        cloned_ns: (before, clock::now_ns()),
        reaped: None,
    })
}

/// Where the child begins.
unsafe extern "C" fn begin(errand: *const c_void) -> ! {
    // SAFETY: `launch` passes a pointer to an errand that outlives the child's use of it.
    interpret::run(unsafe { &*errand.cast::<Errand>() })
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
        self.errand.page.open(gate);
    }

    /// The plan that it was launched with.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.errand.plan
    }

    /// The phases of its plan as far as they are done: name, begin, end in ns of
    /// CLOCK_MONOTONIC. They follow each other without gaps; the first, `prepare`, begins at `requested_ns`.
    #[must_use]
    pub fn spans(&self, requested_ns: u64) -> Vec<Span> {
        let (before_clone, _) = self.cloned_ns;
        let mut spans: Vec<Span> = vec![("prepare", requested_ns, before_clone)];
        let mut begin = before_clone;
        for (index, (step, at)) in self.plan().steps.iter().zip(self.errand.page.stamps()).enumerate() {
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
        self.errand.page.stamps().count()
    }

    /// The step that failed, if one did.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.errand.page.failure()
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
            self.errand.page.abort();
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
    let returned =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, null::<libc::siginfo_t>(), 0) };
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

#[cfg(test)]
mod tests {
    use super::super::clone::CAN_SHARE;
    use super::*;

    fn plan(first: Op, arguments: &[&str]) -> Plan {
        let mut plan = Plan::default();
        plan.push("first", first);
        let arguments = arguments.iter().map(|argument| CString::new(*argument).unwrap()).collect();
        plan.push(
            "exec",
            Op::Exec { paths: vec![c"/bin/sh".to_owned()], arguments, environment: Vec::new(), guarded: false },
        );
        plan
    }

    /// kcmp(2): whether two processes have one memory.
    fn share_memory(pid: u32) -> bool {
        const KCMP_VM: i32 = 1;
        // SAFETY: plain numbers.
        unsafe { libc::syscall(libc::SYS_kcmp, std::process::id(), pid, KCMP_VM, 0, 0) == 0 }
    }

    #[test]
    fn memory_is_shared_until_the_exec_and_only_when_asked() {
        for (memory, shared) in [(Memory::Copied, false), (Memory::Shared, CAN_SHARE)] {
            let plan = plan(Op::Await(Gate::Network), &["sh", "-c", "exit 7"]);
            let mut child = launch(plan, 0, None, memory).unwrap();
            assert_eq!(share_memory(child.pid()), shared, "{memory:?}");
            child.open(Gate::Network);
            assert_eq!(child.wait().unwrap().status, ExitStatus::Code(7));
            assert_eq!(child.failure(), None);
            assert_eq!(child.spans(0).len(), 3);
        }
    }

    #[test]
    fn a_failed_step_leaves_the_parents_errno_alone() {
        for memory in [Memory::Copied, Memory::Shared] {
            let missing = plan(Op::Chdir(c"/missing/directory".to_owned()), &["sh"]);
            // SAFETY: the location is the thread's own and always valid.
            unsafe { *libc::__errno_location() = 77 };
            let mut child = launch(missing, 0, None, memory).unwrap();
            while !child.errand.page.stamps().any(|_| true) && child.failure().is_none() {
                std::hint::spin_loop();
            }
            // SAFETY: as above.
            let errno = unsafe { *libc::__errno_location() };
            assert_eq!(child.failure(), Some(Failure { operation: 0, errno: libc::ENOENT }));
            assert_eq!(errno, 77, "{memory:?}");
            assert_eq!(child.wait().unwrap().status, ExitStatus::Code(127));
        }
    }

    #[test]
    fn a_plan_must_end_with_exec() {
        let refused = launch(Plan::default(), 0, None, Memory::Shared).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }
}
