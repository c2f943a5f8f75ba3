//! Starting a container and ending it: the parent's half of the work.
//!
//! While the child mounts its root, the parent makes its cgroups and connects its network; the child waits for both
//! only right before it gives up its rights, and then joins its v1 groups by itself. On cgroup v2 the group is made
//! before the clone instead, and the child is born in it: from its first instruction everything is charged to it.
//! Everything that was made is owned by [`Container`] and given back by [`Container::remove`], or on drop.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::links::Links;
use super::mounts::{self, MountError};
use super::plan::{self, STAGING, SpecError, Wiring};
use super::spec::{ContainerSpec, Network, UserMapping};
use crate::cgroup::devices::Rule;
use crate::cgroup::group::fresh_name;
use crate::cgroup::limits::Usage;
use crate::cgroup::{Applied, CgroupError, Group, Layout, Limits};
use crate::fs::FileError;
use crate::network::NetworkError;
use crate::network::bridge::{BridgeNetwork, Endpoint};
use crate::sys::clock;
use crate::sys::guard::Verdict;
use crate::sys::launch::{Child, Memory, Reaped, Span, launch, pidfd_open};
use crate::sys::netns::NetNs;
use crate::sys::page::Gate;
use crate::sys::plan::Op;
use crate::sys::terminal::Master;

/// Why a container could not be started, waited for or removed.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The spec is wrong.
    #[error("the container cannot be made as specified")]
    Spec(#[from] SpecError),
    /// A mount cannot be prepared.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// clone3 failed.
    #[error("cannot clone into new namespaces")]
    Clone(#[source] io::Error),
    /// A step of the child failed.
    #[error("cannot {step}")]
    Step {
        /// What was tried and on what.
        step: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The program is not in the container.
    #[error("the program `{0}` is not found in the container")]
    ProgramNotFound(String),
    /// The program is there; what its first line (`#!`) or its ELF header names to run it is not.
    #[error("the program `{0}` is in the container, but the interpreter that it names is not")]
    InterpreterNotFound(String),
    /// The program is there, but cannot be executed.
    #[error("the program `{program}` cannot be executed")]
    ProgramNotExecutable {
        /// The program.
        program: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The control groups could not be made, set, read or removed.
    #[error("the container's control groups failed")]
    Cgroup(#[from] CgroupError),
    /// The network could not be connected or disconnected.
    #[error("the container's network failed")]
    Network(#[from] NetworkError),
    /// A file of the host could not be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The child could not be waited for or signalled.
    #[error("cannot {act} the container's first process")]
    Process {
        /// What was tried.
        act: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// When each part of a start happened, by one clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timeline {
    /// From the request to the exec, one after the other without gaps: the child's side, where the start's time goes.
    pub critical: Vec<Span>,
    /// What the parent did meanwhile: `cgroup`, `network`.
    pub beside: Vec<Span>,
}

/// The standard streams of a container; absent: /dev/null.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Standard input.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
}

/// A started container.
#[derive(Debug)]
pub struct Container {
    child: Child,
    requested_ns: u64,
    /// When making the group began, where that came before the clone.
    grouping_ns: Option<u64>,
    beside: Vec<Span>,
    group: Option<Group>,
    applied: Vec<Applied>,
    connection: Option<(Arc<BridgeNetwork>, Endpoint)>,
    terminal: Option<Master>,
    verdict: Option<Verdict>,
    /// Why a guarded program could not be executed.
    not_executed: Option<i32>,
}

/// What a removed container had used.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Removed {
    /// What its control groups had charged, where it had any.
    pub usage: Option<Usage>,
}

/// What a start shares with every other start of this process: looked up once.
struct Shared {
    layout: Layout,
    /// A descriptor of each v1 hierarchy's mount point, for a child that has left the host's mounts.
    hierarchies: BTreeMap<PathBuf, File>,
    null: File,
    own_pidfd: OwnedFd,
}

fn shared() -> Result<&'static Shared, ContainerError> {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    if let Some(shared) = SHARED.get() {
        return Ok(shared);
    }
    crate::fs::create_dirs(STAGING)?;
    let null = File::options().read(true).write(true).open("/dev/null");
    let layout = Layout::detect()?;
    let open = |path: &PathBuf| match File::open(path) {
        Ok(directory) => Ok((path.clone(), directory)),
        Err(error) => Err(FileError::new("open", path)(error)),
    };
    let made = Shared {
        hierarchies: layout.v1.values().map(open).collect::<Result<_, _>>()?,
        layout,
        null: null.map_err(FileError::new("open", "/dev/null"))?,
        own_pidfd: pidfd_open(std::process::id())
            .map_err(|source| ContainerError::Process { act: "make a pidfd beside", source })?,
    };
    Ok(SHARED.get_or_init(|| made))
}

impl Container {
    /// Starts a container; `requested_ns` is when it was asked for (ns of CLOCK_MONOTONIC), where its timeline begins.
    ///
    /// Returns once the child has been let through to its exec; on cgroup v1 it joins its groups on the way there, before
    /// the program's first instruction. That the exec itself failed shows in
    /// [`Container::wait`]. The container ends when this process ends, or the thread that called this.
    ///
    /// # Errors
    /// When any part fails; nothing is left behind then.
    pub fn start(
        spec: &ContainerSpec,
        network: &Network,
        stdio: Stdio,
        requested_ns: u64,
    ) -> Result<Self, ContainerError> {
        let shared = shared()?;
        let stream = |stream: &Option<OwnedFd>| stream.as_ref().map_or(shared.null.as_raw_fd(), AsRawFd::as_raw_fd);
        let join = match network {
            Network::Host(namespace) | Network::Container(namespace) => Some(namespace.as_fd().as_raw_fd()),
            Network::None | Network::Bridge { .. } => None,
        };
        let name = spec.kept_as.clone().unwrap_or_else(fresh_name);
        let mut links = Links::of(spec)?;
        let opened = mounts::open(spec)?;
        let wiring = Wiring {
            parent: spec.kept_as.is_none().then_some(shared.own_pidfd.as_raw_fd()),
            stdio: [stream(&stdio.stdin), stream(&stdio.stdout), stream(&stdio.stderr)],
            join_network: join,
            await_network: matches!(network, Network::Bridge { .. }),
            born_in_group: shared.layout.is_unified(),
            doors: doors(shared, spec, &name),
            terminal: links.terminal_end(),
            joins: false,
            guard: links.guard()?,
            opened: opened.descriptors(),
        };
        let plan = plan::compile(spec, &wiring)?;
        let grouping_ns = clock::now_ns();
        let (mut group, mut applied) = (None, Vec::new());
        if let Some(limits) = spec.limits.as_ref().filter(|_| wiring.born_in_group) {
            applied = make_group(&mut group, name.clone(), &shared.layout, spec, limits)?;
        }
        let unified = group.as_ref().map(Group::open_unified).transpose()?.flatten();
        let flags = plan::clone_flags(spec, &wiring);
        let child = launch(plan, flags, unified.as_ref().map(AsFd::as_fd), memory_until_exec(spec))
            .map_err(ContainerError::Clone)?;
        let mut container = Self {
            child,
            requested_ns,
            grouping_ns: group.is_some().then_some(grouping_ns),
            beside: Vec::new(),
            group,
            applied,
            connection: None,
            terminal: None,
            verdict: None,
            not_executed: None,
        };
        links.close_childs_ends();
        let membership = if wiring.born_in_group {
            Membership::Born
        } else if wiring.doors.is_empty() {
            Membership::Moved
        } else {
            Membership::Joins
        };
        let provided = container.provide(spec, network, &shared.layout, name, membership);
        match provided.and_then(|()| links.receive()) {
            Ok((terminal, verdict)) => {
                (container.terminal, container.verdict) = (terminal, verdict);
                Ok(container)
            }
            Err(error) => Err(container.abandon(error)),
        }
    }

    /// The parent's half, in the order in which the child waits for it.
    fn provide(
        &mut self,
        spec: &ContainerSpec,
        network: &Network,
        layout: &Layout,
        name: String,
        membership: Membership,
    ) -> Result<(), ContainerError> {
        if let Some(mapping) = spec.user_namespace {
            write_user_map(self.child.pid(), mapping)?;
            self.child.open(Gate::UserMap);
        }
        if let Some(limits) = spec.limits.as_ref().filter(|_| self.group.is_none()) {
            let begin = clock::now_ns();
            self.applied = make_group(&mut self.group, name, layout, spec, limits)?;
            if membership == Membership::Moved {
                self.group.iter().try_for_each(|group| group.attach(self.child.pid()))?;
            }
            self.beside.push(("cgroup", begin, clock::now_ns()));
        }
        if let Some(limits) = &spec.limits {
            if !limits.devices.is_empty() {
                // One that joins later has made its nodes when it does.
                if membership != Membership::Joins {
                    self.await_nodes()?;
                }
                self.confine_devices(&limits.devices)?;
            }
            self.child.open(Gate::Cgroup);
        }
        if let Network::Bridge { network, ports } = network {
            let begin = clock::now_ns();
            let endpoint = network.attach(&self.netns()?, ports)?;
            self.connection = Some((network.clone(), endpoint));
            self.child.open(Gate::Network);
            self.beside.push(("network", begin, clock::now_ns()));
            network.entrust(self.child.pid())?;
        }
        Ok(())
    }

    /// Waits until the child has made its nodes: device rules of its own need not permit what only the making of the
    /// container needs. Until then it can do no harm, for it runs nothing but its plan.
    fn await_nodes(&self) -> Result<(), ContainerError> {
        const LOOK_AGAIN: Duration = Duration::from_micros(50);
        let nodes = self.child.plan().steps.iter().rposition(|step| matches!(step.op, Op::Node { .. }));
        let needed = nodes.map_or(0, |last| last + 1);
        let ended = || self.child.has_ended().map_err(|source| ContainerError::Process { act: "look at", source });
        while self.child.steps_done() < needed && self.child.failure().is_none() && !ended()? {
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    fn confine_devices(&self, rules: &[Rule]) -> Result<(), ContainerError> {
        if let Some(group) = &self.group {
            group.confine_devices()?;
            group.apply(&Limits { devices: rules.to_vec(), ..Limits::default() })?;
        }
        Ok(())
    }

    /// Takes down a container whose start failed, and chooses the error to tell: if the child failed first, what the
    /// parent saw is only the consequence.
    fn abandon(self, error: ContainerError) -> ContainerError {
        let error = self.failed_step().unwrap_or(error);
        // The first error is the one to tell; what a half-made container cannot give back is left to `gc`.
        let _ = self.remove();
        error
    }

    /// The first process, as the host sees it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// The limits as they were written and read back.
    #[must_use]
    pub fn applied(&self) -> &[Applied] {
        &self.applied
    }

    /// Its control groups, where it has any.
    #[must_use]
    pub fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    /// Its place on the bridge, where it has one.
    #[must_use]
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.connection.as_ref().map(|(_, endpoint)| endpoint)
    }

    /// Its network namespace.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn netns(&self) -> Result<NetNs, ContainerError> {
        NetNs::of_pid(self.child.pid())
            .map_err(|source| ContainerError::Process { act: "find the network namespace of", source })
    }

    /// When each part of the start happened, as far as it has come.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        let mut critical = self.child.spans(self.requested_ns);
        if let (Some(begin), Some((_, _, end))) = (self.grouping_ns, critical.first_mut()) {
            let cloned = std::mem::replace(end, begin);
            critical.insert(1, ("cgroup", begin, cloned));
        }
        Timeline { critical, beside: self.beside.clone() }
    }

    /// Waits for the first process to end and reaps it. Calling it again returns the same.
    ///
    /// # Errors
    /// When the child failed before or at its exec: which step, on what, and why.
    pub fn wait(&mut self) -> Result<Reaped, ContainerError> {
        let reaped = self.child.wait().map_err(|source| ContainerError::Process { act: "wait for", source })?;
        match self.failed_step() {
            Some(error) => Err(error),
            None => Ok(reaped),
        }
    }

    /// The pidfd of the first process: readable once it has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.as_fd()
    }

    /// Sends a signal to the first process. SIGKILL ends every process of the container with it.
    ///
    /// # Errors
    /// EINVAL for no such signal.
    pub fn signal(&self, signal: i32) -> Result<(), ContainerError> {
        self.child.signal(signal).map_err(|source| ContainerError::Process { act: "signal", source })
    }

    /// Waits until a guarded program has been executed; for another one it returns at once.
    ///
    /// # Errors
    /// When it cannot be, or a step before failed: which, and why.
    pub fn await_exec(&mut self) -> Result<(), ContainerError> {
        if let Some(verdict) = self.verdict.take() {
            let act = "hear of the exec of";
            self.not_executed = verdict.wait().map_err(|source| ContainerError::Process { act, source })?;
        }
        self.failed_step().map_or(Ok(()), Err)
    }

    /// The master of its terminal, once, where it has one.
    pub fn take_terminal(&mut self) -> Option<Master> {
        self.terminal.take()
    }

    fn failed_step(&self) -> Option<ContainerError> {
        failed_step(&self.child, self.not_executed)
    }

    /// Gives everything back: ends and reaps what still runs, disconnects the network, reads the usage and removes
    /// the control groups. Goes on after a failure.
    ///
    /// # Errors
    /// The first failure.
    pub fn remove(mut self) -> Result<Removed, ContainerError> {
        let ended = self.end();
        let usage = self.group.as_ref().map(Group::usage).transpose();
        self.give_back_after(ended)?;
        Ok(Removed { usage: usage? })
    }

    /// As [`Container::remove`], for who has no use for the usage.
    ///
    /// # Errors
    /// The first failure.
    pub fn give_back(mut self) -> Result<(), ContainerError> {
        let ended = self.end();
        self.give_back_after(ended)
    }

    fn give_back_after(&mut self, ended: Result<(), ContainerError>) -> Result<(), ContainerError> {
        let disconnected = self.disconnect();
        let removed = self.group.take().map_or(Ok(()), Group::remove);
        ended?;
        disconnected?;
        Ok(removed?)
    }

    fn end(&mut self) -> Result<(), ContainerError> {
        self.signal(libc::SIGKILL)?;
        self.group.iter().try_for_each(Group::thaw_if_frozen)?;
        self.child.wait().map_err(|source| ContainerError::Process { act: "wait for", source })?;
        Ok(())
    }

    fn disconnect(&mut self) -> Result<(), ContainerError> {
        match self.connection.take() {
            Some((network, endpoint)) => Ok(network.detach(&endpoint)?),
            None => Ok(()),
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // `remove` tells what went wrong; a destructor has nobody to tell and leaves the rest to `gc`. The group is
        // removed by its own drop, after the processes are gone.
        if self.group.is_some() || self.connection.is_some() {
            let _ = self.end();
            let _ = self.disconnect();
        }
    }
}

/// What failed in a child: a step of its plan, or the exec that a stub did for it.
pub(super) fn failed_step(child: &Child, not_executed: Option<i32>) -> Option<ContainerError> {
    let steps = &child.plan().steps;
    let (step, errno) = match (child.failure(), not_executed) {
        (Some(failure), _) => (steps.get(failure.operation)?, failure.errno),
        // The stub executes what was seen to be there.
        (None, Some(libc::ENOENT)) => (steps.last()?, libc::ELIBACC),
        (None, Some(errno)) => (steps.last()?, errno),
        (None, None) => return None,
    };
    let source = io::Error::from_raw_os_error(errno);
    Some(match &step.op {
        Op::Exec { arguments, .. } => {
            let program = arguments.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            match errno {
                libc::ENOENT | libc::ENOTDIR => ContainerError::ProgramNotFound(program),
                libc::ELIBACC => ContainerError::InterpreterNotFound(program),
                _ => ContainerError::ProgramNotExecutable { program, source },
            }
        }
        op => ContainerError::Step { step: op.to_string(), source },
    })
}

/// How a child comes into its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Membership {
    /// By the clone (v2).
    Born,
    /// By itself, right before it gives up its rights (v1).
    Joins,
    /// The parent moves it, meanwhile.
    Moved,
}

/// Where the child can join its group by itself: see [`Group::doors`]. Nowhere if it is born there, or if its user
/// namespace leaves it without the right, or if the group is inside another one.
fn doors(shared: &Shared, spec: &ContainerSpec, name: &str) -> Vec<(RawFd, CString)> {
    let own = spec.limits.as_ref().filter(|_| spec.group_parent.is_none() && spec.user_namespace.is_none());
    let Some(limits) = own.filter(|_| !shared.layout.uses_v2()) else { return Vec::new() };
    let doors = Group::doors(&shared.layout, name, limits.devices.is_empty());
    let descriptor = |(mount, file): (PathBuf, PathBuf)| {
        let hierarchy = shared.hierarchies.get(&mount).map(AsRawFd::as_raw_fd).unwrap_or(-1);
        // Neither the parent's name nor the group's holds a NUL.
        let file = CString::new(file.into_os_string().into_encoded_bytes()).unwrap_or_default();
        (hierarchy, file)
    };
    doors.into_iter().map(descriptor).collect()
}

/// Whether the child may share this process's memory until its exec, which saves it a copy of it: see
/// [`crate::sys::launch::Memory`]. Not when a memory limit could end it before, for the kernel ends all who share;
/// and not when it changes its user or its time on the way, which are the memory's too.
fn memory_until_exec(spec: &ContainerSpec) -> Memory {
    let limited = spec.group_parent.is_some() || spec.limits.as_ref().is_some_and(Limits::bound_memory);
    let changed = spec.user.uid != 0 || spec.user_namespace.is_some() || spec.time_namespace;
    if limited || changed { Memory::Copied } else { Memory::Shared }
}

/// Makes a group with limits, but for device rules of its own. It is in `group` as soon as it exists, so that it is
/// owned whatever fails afterwards.
fn make_group(
    group: &mut Option<Group>,
    name: String,
    layout: &Layout,
    spec: &ContainerSpec,
    limits: &Limits,
) -> Result<Vec<Applied>, CgroupError> {
    // What a v1 group inherits it cannot widen, so a container with rules of its own gets the default ones itself.
    let own_rules = !limits.devices.is_empty();
    let group = group.insert(match &spec.group_parent {
        Some(parent) => parent.create_child()?,
        None => Group::create_as(name, layout, !own_rules)?,
    });
    if own_rules { group.apply(&Limits { devices: Vec::new(), ..limits.clone() }) } else { group.apply(limits) }
}

/// The maps of a new user namespace. Root on the host may map groups without denying setgroups.
pub(super) fn write_user_map(pid: u32, mapping: UserMapping) -> Result<(), FileError> {
    let line = format!("0 {} {}\n", mapping.host_start, mapping.count);
    for file in ["gid_map", "uid_map"] {
        let path = format!("/proc/{pid}/{file}");
        std::fs::write(&path, &line).map_err(FileError::new("write", path))?;
    }
    Ok(())
}
