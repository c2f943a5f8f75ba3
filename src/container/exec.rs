//! A further program in a container that runs: in all its namespaces and control groups, with rights of its own.
//!
//! Called by the `exec` command, by health checks and by the `lifecycle` experiment. The container's first process is
//! joined by its pidfd, so a pid that went to another process is never joined.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns};

use super::launch::{ContainerError, Stdio, failed_step};
use super::links::Links;
use super::plan::{self, Wiring};
use super::spec::ContainerSpec;
use crate::fs::FileError;
use crate::sys::guard::Verdict;
use crate::sys::launch::{Child, Memory, Reaped, launch};
use crate::sys::terminal::Master;

/// What is joined.
#[derive(Debug)]
pub struct Target<'a> {
    /// The first process.
    pub pidfd: BorrowedFd<'a>,
    /// Its directories in the hierarchies of v1.
    pub v1: Vec<PathBuf>,
    /// Its directory on v2.
    pub v2: Option<PathBuf>,
}

/// A program that was started in a container. It ends when this is dropped; see [`Executed::leave`].
#[derive(Debug)]
pub struct Executed {
    child: Child,
    terminal: Option<Master>,
    verdict: Option<Verdict>,
    not_executed: Option<i32>,
}

/// Starts a program in a container. Of `spec`, what is the program's own is read: arguments, environment, directory,
/// user, capabilities, filter, limits of the process, terminal, guard, and whether there is a user namespace.
///
/// # Errors
/// When the container has ended, or a step fails; see also [`Executed::await_exec`].
pub fn start(target: &Target<'_>, spec: &ContainerSpec, stdio: Stdio) -> Result<Executed, ContainerError> {
    let failed = |act| move |source| ContainerError::Process { act, source };
    let null = File::options().read(true).write(true).open("/dev/null").map_err(FileError::new("open", "/dev/null"))?;
    let stream = |stream: &Option<OwnedFd>| stream.as_ref().map_or(null.as_raw_fd(), AsRawFd::as_raw_fd);
    let mut links = Links::of(spec)?;
    let v1 = doors(&target.v1)?;
    let wiring = Wiring {
        parent: None,
        stdio: [stream(&stdio.stdin), stream(&stdio.stdout), stream(&stdio.stderr)],
        join_network: None,
        await_network: false,
        born_in_group: target.v2.is_some(),
        doors: v1.iter().map(|(directory, file)| (directory.as_raw_fd(), file.clone())).collect(),
        terminal: links.terminal_end(),
        joins: true,
        opened: plan::Opened::default(),
        guard: links.guard()?,
    };
    let plan = plan::compile_joining(spec, &wiring, target.pidfd.as_raw_fd(), namespaces(spec))?;
    let v2 =
        target.v2.as_ref().map(|path| File::open(path).map_err(FileError::new("open the group", path))).transpose()?;
    let memory = if spec.user.uid == 0 && spec.user_namespace.is_none() { Memory::Shared } else { Memory::Copied };
    // A thread of its own: the pid namespace of future children is the thread's, and this one is to keep its own.
    let launched = std::thread::scope(|scope| {
        let launching = || -> io::Result<Child> {
            setns(target.pidfd, CloneFlags::CLONE_NEWPID)?;
            launch(plan, 0, v2.as_ref().map(AsFd::as_fd), memory)
        };
        scope.spawn(launching).join().unwrap_or_else(|_| Err(io::Error::other("the launching thread panicked")))
    });
    let child = launched.map_err(failed("start a program beside"))?;
    links.close_childs_ends();
    match links.receive() {
        Ok((terminal, verdict)) => Ok(Executed { child, terminal, verdict, not_executed: None }),
        Err(error) => Err(failed_step(&child, None).unwrap_or(error)),
    }
}

/// Every namespace of a container but the pid one, which the parent has joined for its children.
fn namespaces(spec: &ContainerSpec) -> i32 {
    let flags =
        libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWNET | libc::CLONE_NEWCGROUP;
    if spec.user_namespace.is_some() { flags | libc::CLONE_NEWUSER } else { flags }
}

/// Each v1 directory, open, and the file in it by which a thread joins.
fn doors(directories: &[PathBuf]) -> Result<Vec<(File, CString)>, ContainerError> {
    let open = |path: &PathBuf| {
        File::open(path).map(|file| (file, c"tasks".to_owned())).map_err(FileError::new("open the group", path))
    };
    Ok(directories.iter().map(open).collect::<Result<_, _>>()?)
}

impl Executed {
    /// Waits until a guarded program has been executed.
    ///
    /// # Errors
    /// When it cannot be, or a step before failed: which, and why.
    pub fn await_exec(&mut self) -> Result<(), ContainerError> {
        if let Some(verdict) = self.verdict.take() {
            let act = "hear of an exec beside";
            self.not_executed = verdict.wait().map_err(|source| ContainerError::Process { act, source })?;
        }
        failed_step(&self.child, self.not_executed).map_or(Ok(()), Err)
    }

    /// The master of its terminal, once, where it has one.
    pub fn take_terminal(&mut self) -> Option<Master> {
        self.terminal.take()
    }

    /// Lets it live on by itself. It has been executed by now; its end is for the system's init to see.
    pub fn leave(self) {
        std::mem::forget(self);
    }

    /// The program's process, as the caller's pid namespace sees it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Sends it a signal; one that has ended is no error.
    ///
    /// # Errors
    /// EINVAL for no such signal.
    pub fn signal(&self, signal: i32) -> Result<(), ContainerError> {
        self.child.signal(signal).map_err(|source| ContainerError::Process { act: "signal a program beside", source })
    }

    /// Waits for its end and reaps it.
    ///
    /// # Errors
    /// When a step of it failed.
    pub fn wait(&mut self) -> Result<Reaped, ContainerError> {
        let reaped =
            self.child.wait().map_err(|source| ContainerError::Process { act: "wait for a program beside", source })?;
        match failed_step(&self.child, self.not_executed) {
            Some(error) => Err(error),
            None => Ok(reaped),
        }
    }
}

impl AsFd for Executed {
    /// Readable once it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.child.as_fd()
    }
}
