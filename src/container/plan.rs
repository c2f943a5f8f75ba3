//! From a spec to a plan: a pure function, the one place that decides in which order a container is made.
//!
//! The order matters. The root is pivoted into first and everything else is mounted after that, by paths that can no
//! longer leave the container, whatever links its image holds. What the parent makes meanwhile (cgroups, network) is
//! waited for as late as possible. Rights are given up last, and the seccomp filter is the last of all.

mod mounts;
mod root;

use std::ffi::CString;
use std::os::fd::RawFd;

pub use root::outlying;

use super::capabilities;
use super::seccomp::{self, SeccompError};
use super::spec::{ContainerSpec, Seccomp};
use crate::cgroup::devices::Kind;
use crate::sys::guard;
use crate::sys::page::Gate;
use crate::sys::plan::{Op, Plan};

/// The host directory on which each child, in its own mount namespace, stacks its root. It stays empty.
pub const STAGING: &str = "/run/isobench/root";

/// The directory under it that covers masked directories. The working directory stays on the old root while the
/// mounts are made, so that it can be named.
const EMPTY: &str = "empty";

/// Why a spec cannot be made into a container.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// A text that the kernel takes as a C string holds a NUL byte.
    #[error("{what} holds a NUL byte: {text:?}")]
    Nul {
        /// Which text.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// There is no program to run.
    #[error("no program to run: give at least one argument")]
    NoProgram,
    /// There is nothing for a root.
    #[error("the image has no layer")]
    NoLayer,
    /// A path must be absolute.
    #[error("the working directory `{0}` is not absolute")]
    RelativeDirectory(String),
    /// The kernel keeps 64 bytes.
    #[error("the host name `{0}` is longer than 64 bytes")]
    HostnameTooLong(String),
    /// Overlayfs separates layers by colons.
    #[error("the layer path `{0}` holds a colon or a comma, which overlayfs cannot take")]
    LayerPath(String),
    /// The kernel takes one page of options.
    #[error(
        "the paths of {layers} layers take {bytes} bytes, and the kernel takes 4095 for a mount; layers in one directory take less"
    )]
    TooManyLayers {
        /// How many layers.
        layers: usize,
        /// How long their paths are together.
        bytes: usize,
    },
    /// A device node stands right under /dev.
    #[error("the device name `{0}` is not a plain name such as `loop0`")]
    DeviceName(String),
    /// A mount's target cannot be one.
    #[error("`{0}` cannot be mounted on: a target is absolute, without `..`, and not the root")]
    Target(String),
    /// Two mounts on one target.
    #[error("`{0}` is the target of more than one mount")]
    TwoMounts(String),
    /// An option of an in-memory file system is not known.
    #[error("`{0}` is no option of an in-memory file system")]
    TmpfsOption(String),
    /// The upper and the work directory of an overlay are on one mount.
    #[error("the upper directory {} and the work directory are not side by side", .0.display())]
    Writable(std::path::PathBuf),
    /// The filter could not be made.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
}

/// What connects the child to the launching process and to what that made for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    /// A pidfd of the launching process; the container ends with it. `None` lets it live on.
    pub parent: Option<RawFd>,
    /// Standard input, output, error.
    pub stdio: [RawFd; 3],
    /// A network namespace to join; `None` for a new one.
    pub join_network: Option<RawFd>,
    /// Whether the parent connects the new network namespace.
    pub await_network: bool,
    /// Whether the child begins its life in its own group (cgroup v2) and need not wait for it.
    pub born_in_group: bool,
    /// Where the child joins its group by itself, once it is made: an fd of a hierarchy's mount point, and the file below
    /// it. Empty where the parent moves it.
    pub doors: Vec<(RawFd, CString)>,
    /// Where the master of the terminal is sent to.
    pub terminal: Option<RawFd>,
    /// Whether it joins a container instead of becoming one.
    pub joins: bool,
    /// The stub and the pipe on which it tells of a failed execve.
    pub guard: Option<(RawFd, RawFd)>,
    /// Mounts that the launching process has opened for it.
    pub opened: Opened,
}

/// Descriptors of mounts that are attached nowhere yet; see [`super::mounts::open`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// The id-mapped mounts of the layers and the writable directory, where they are id-mapped.
    pub root: Option<OpenedRoot>,
    /// For each of the spec's mounts: the descriptor of a bind's source, and whether that is a directory.
    pub binds: Vec<Option<(RawFd, bool)>>,
}

/// Id-mapped mounts that a root is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedRoot {
    /// The directory that the lowest layer is in, if layers are named from there.
    pub base: Option<RawFd>,
    /// The layers that are elsewhere, in their order.
    pub others: Vec<RawFd>,
    /// The directory that the upper and the work directory are in.
    pub writable: RawFd,
}

/// The CLONE_NEW* flags for a spec. The root of a cgroup namespace is the group that the process is in when it is made:
/// it is among the flags for a child that is born in its own group; any other makes it for itself once it is there.
#[must_use]
pub fn clone_flags(spec: &ContainerSpec, wiring: &Wiring) -> u64 {
    const CLONE_NEWTIME: i32 = 0x80;
    let mut flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if wiring.join_network.is_none() {
        flags |= libc::CLONE_NEWNET;
    }
    if spec.user_namespace.is_some() {
        flags |= libc::CLONE_NEWUSER;
    }
    if spec.time_namespace {
        flags |= CLONE_NEWTIME;
    }
    if wiring.born_in_group {
        flags |= libc::CLONE_NEWCGROUP;
    }
    flags as u32 as u64
}

/// Compiles a spec.
///
/// # Errors
/// What is wrong with the spec; nothing has been touched then.
pub fn compile(spec: &ContainerSpec, wiring: &Wiring) -> Result<Plan, SpecError> {
    validate(spec)?;
    let mut plan = Plan::default();
    begin(&mut plan, spec, wiring)?;
    root::root(&mut plan, spec, wiring)?;
    kernel_file_systems(&mut plan, spec, wiring);
    devices(&mut plan, spec)?;
    if spec.mask_paths {
        masks(&mut plan);
    }
    plan.push("pivot", Op::Chdir(constant("/")));
    plan.push("pivot", Op::DetachOldRoot);
    mounts::mounts(&mut plan, spec, wiring)?;
    identity(&mut plan, spec, wiring)?;
    outside(&mut plan, spec, wiring);
    confine(&mut plan, spec, wiring)?;
    plan.push("exec", exec(spec, wiring.guard.is_some())?);
    Ok(plan)
}

/// Compiles the plan of a further program in a container: `spec` says what is its own (program, environment, directory,
/// user, rights); the rest of it is not read. `namespaces` are CLONE_NEW* flags of what is joined by `pidfd`, the
/// container's first process. The new process is a child of a thread that has its pid namespace already.
///
/// # Errors
/// What is wrong with the spec; nothing has been touched then.
pub fn compile_joining(
    spec: &ContainerSpec,
    wiring: &Wiring,
    pidfd: RawFd,
    namespaces: i32,
) -> Result<Plan, SpecError> {
    let mut plan = Plan::default();
    plan.push("isolate", Op::ResetSignals);
    for (mount, tasks) in &wiring.doors {
        plan.push("join_cgroup", Op::JoinGroup { mount: *mount, tasks: tasks.clone() });
    }
    plan.push("isolate", Op::JoinNamespace { fd: pidfd, kind: namespaces });
    if spec.user_namespace.is_some() {
        plan.push("isolate", Op::User { uid: 0, gid: 0, groups: Vec::new(), keep_capabilities: false });
    }
    confine(&mut plan, spec, wiring)?;
    plan.push("exec", exec(spec, wiring.guard.is_some())?);
    Ok(plan)
}

fn validate(spec: &ContainerSpec) -> Result<(), SpecError> {
    if spec.arguments.first().is_none_or(String::is_empty) {
        return Err(SpecError::NoProgram);
    }
    if spec.root.layers.is_empty() {
        return Err(SpecError::NoLayer);
    }
    if !spec.working_directory.starts_with('/') {
        return Err(SpecError::RelativeDirectory(spec.working_directory.clone()));
    }
    if spec.hostname.len() > 64 {
        return Err(SpecError::HostnameTooLong(spec.hostname.clone()));
    }
    Ok(())
}

/// A constant of this file.
fn constant(text: &'static str) -> CString {
    // Constants of this file hold no NUL; a test compiles them all.
    CString::new(text).unwrap_or_default()
}

/// A text of the spec.
fn string(what: &'static str, text: &str) -> Result<CString, SpecError> {
    CString::new(text).map_err(|_| SpecError::Nul { what, text: text.to_owned() })
}

const NO_EXTRAS: u64 = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;

fn mount(fstype: &'static str, target: &'static str, flags: u64, data: Option<&'static str>) -> Op {
    Op::Mount {
        source: Some(constant(fstype)),
        target: constant(target),
        fstype: Some(constant(fstype)),
        flags,
        data: data.map(constant),
    }
}

fn directory(path: &'static str, mode: u32) -> Op {
    Op::Directory { path: constant(path), mode }
}

/// From the clone to a mount namespace that nothing leaks out of.
fn begin(plan: &mut Plan, spec: &ContainerSpec, wiring: &Wiring) -> Result<(), SpecError> {
    die_with_parent(plan, "isolate", wiring);
    plan.push("isolate", Op::ResetSignals);
    plan.push("isolate", Op::Umask(0));
    if let Some((base, _)) = spec.root.shortened().filter(|_| spec.id_mapping().is_none()) {
        // Before this process is root of a user namespace only, which may not come to the directory by its path.
        plan.push("isolate", Op::Chdir(path("a layer's path", base)?));
    }
    if let Some(fd) = wiring.join_network {
        // Before the user namespace's rights are all that is left: joining needs rights over the other namespace.
        plan.push("network", Op::JoinNamespace { fd, kind: libc::CLONE_NEWNET });
    }
    if spec.user_namespace.is_some() {
        plan.push("wait_user_map", Op::Await(Gate::UserMap));
        let root = Op::User { uid: 0, gid: 0, groups: Vec::new(), keep_capabilities: false };
        plan.push("isolate", root);
        die_with_parent(plan, "isolate", wiring);
    }
    plan.push(
        "isolate",
        Op::Mount {
            source: None,
            target: constant("/"),
            fstype: None,
            // Private would do against leaks; slave keeps what the host unmounts from staying busy in here.
            flags: libc::MS_REC | libc::MS_SLAVE,
            data: None,
        },
    );
    Ok(())
}

/// A path of the spec.
fn path(what: &'static str, path: &std::path::Path) -> Result<CString, SpecError> {
    string(what, &path.to_string_lossy())
}

/// The kernel forgets a parent-death signal when the effective user or group changes, so every [`Op::User`] is followed
/// by it.
fn die_with_parent(plan: &mut Plan, phase: &'static str, wiring: &Wiring) {
    if let Some(parent) = wiring.parent {
        plan.push(phase, Op::DieWithParent { parent });
    }
}

fn kernel_file_systems(plan: &mut Plan, spec: &ContainerSpec, wiring: &Wiring) {
    plan.push("proc", directory("/proc", 0o555));
    plan.push("proc", mount("proc", "/proc", NO_EXTRAS, None));
    plan.push("sys", directory("/sys", 0o555));
    // sysfs shows the network namespace of its mounter, and a user namespace may mount it only if it owns that.
    let sysfs = match (spec.user_namespace, wiring.join_network) {
        (Some(_), Some(_)) => mount("tmpfs", "/sys", NO_EXTRAS | libc::MS_RDONLY, Some("size=0k,nr_inodes=1")),
        _ => mount("sysfs", "/sys", NO_EXTRAS | libc::MS_RDONLY, None),
    };
    plan.push("sys", sysfs);
}

/// The device nodes of a container: name, major, minor.
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// /dev on a small tmpfs, with the standard nodes and links, pseudo terminals, shared memory, message queues.
fn devices(plan: &mut Plan, spec: &ContainerSpec) -> Result<(), SpecError> {
    const LINKS: [(&str, &str); 6] = [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
        ("pts/ptmx", "/dev/ptmx"),
        ("/proc/kcore", "/dev/core"),
    ];
    plan.push("dev", directory("/dev", 0o755));
    plan.push("dev", mount("tmpfs", "/dev", libc::MS_NOSUID | libc::MS_STRICTATIME, Some("mode=755,size=64k")));
    for (slot, (name, major, minor)) in NODES.into_iter().enumerate() {
        let path = CString::new(format!("/dev/{name}")).unwrap_or_default();
        if spec.user_namespace.is_some() {
            plan.push("dev", Op::File(path.clone()));
            plan.push("dev", Op::PlaceMount { slot, target: path });
        } else {
            let device = libc::makedev(major, minor);
            plan.push("dev", Op::Node { path, mode: libc::S_IFCHR | 0o666, device });
        }
    }
    for node in &spec.devices {
        if node.name.is_empty() || node.name.contains('/') {
            return Err(SpecError::DeviceName(node.name.clone()));
        }
        let kind = if node.kind == Kind::Char { libc::S_IFCHR } else { libc::S_IFBLK };
        plan.push(
            "dev",
            Op::Node {
                path: string("a device's name", &format!("/dev/{}", node.name))?,
                mode: kind | 0o660,
                device: libc::makedev(node.major, node.minor),
            },
        );
    }
    for (target, path) in LINKS {
        plan.push("dev", Op::Symlink { target: constant(target), path: constant(path) });
    }
    plan.push("devpts", directory("/dev/pts", 0o755));
    // The tty group is 5 everywhere; a user namespace that maps fewer ids does not have it.
    let has_tty_group = spec.user_namespace.is_none_or(|mapping| mapping.count > 5);
    let options =
        if has_tty_group { "newinstance,ptmxmode=0666,mode=0620,gid=5" } else { "newinstance,ptmxmode=0666,mode=0620" };
    plan.push("devpts", mount("devpts", "/dev/pts", libc::MS_NOSUID | libc::MS_NOEXEC, Some(options)));
    plan.push("shm", directory("/dev/shm", 0o1777));
    plan.push("shm", mount("tmpfs", "/dev/shm", NO_EXTRAS, Some("mode=1777,size=64m")));
    plan.push("mqueue", directory("/dev/mqueue", 0o1777));
    plan.push("mqueue", mount("mqueue", "/dev/mqueue", NO_EXTRAS, None));
    Ok(())
}

/// What docker masks and makes read-only.
fn masks(plan: &mut Plan) {
    const MASKED: [&str; 10] = [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/sys/firmware",
    ];
    const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
    // What covers a file must be what it says.
    plan.push("mask", Op::VerifyDevice { path: constant("/dev/null"), device: (1, 3) });
    for path in MASKED {
        plan.push("mask", Op::Mask { path: constant(path), empty: constant(EMPTY) });
    }
    for path in READ_ONLY {
        plan.push("mask", Op::ReadOnly(constant(path)));
    }
}

/// Names, loopback.
fn identity(plan: &mut Plan, spec: &ContainerSpec, wiring: &Wiring) -> Result<(), SpecError> {
    plan.push("identity", Op::Hostname(string("the host name", &spec.hostname)?));
    if let Some(name) = &spec.domainname {
        plan.push("identity", Op::Domainname(string("the domain name", name)?));
    }
    if wiring.join_network.is_none() {
        plan.push("network", Op::LoopbackUp);
    }
    Ok(())
}

/// What the parent makes meanwhile.
fn outside(plan: &mut Plan, spec: &ContainerSpec, wiring: &Wiring) {
    // Device rules of its own take effect once its nodes are made, on v2 too: see `Container::confine_devices`.
    let confined_later = spec.limits.as_ref().is_some_and(|limits| !limits.devices.is_empty());
    if spec.limits.is_some() && (confined_later || !wiring.born_in_group) {
        plan.push("wait_cgroup", Op::Await(Gate::Cgroup));
    }
    for (mount, tasks) in &wiring.doors {
        plan.push("join_cgroup", Op::JoinGroup { mount: *mount, tasks: tasks.clone() });
    }
    if !wiring.born_in_group {
        plan.push("identity", Op::Unshare(libc::CLONE_NEWCGROUP));
    }
    if wiring.await_network {
        plan.push("wait_network", Op::Await(Gate::Network));
    }
}

/// Streams, limits, rights. Descriptors are closed after the last step that needs one.
fn confine(plan: &mut Plan, spec: &ContainerSpec, wiring: &Wiring) -> Result<(), SpecError> {
    plan.push("confine", Op::NewSession);
    match wiring.terminal {
        Some(socket) => {
            plan.push("confine", Op::Terminal { socket, owner: spec.user.uid, console: !wiring.joins });
        }
        None => {
            for (to, from) in (0..).zip(wiring.stdio) {
                plan.push("confine", Op::Descriptor { from, to });
            }
        }
    }
    let keep = spec.capabilities.0;
    plan.push("confine", Op::BoundingSet { keep, last: capabilities::last() });
    if !spec.no_new_privileges {
        // Without no_new_privs only who has CAP_SYS_ADMIN may install one, which goes with the user.
        filter(plan, spec)?;
    }
    let is_root = spec.user.uid == 0;
    if spec.user != super::spec::User::default() || spec.user_namespace.is_none() {
        let (uid, gid, groups) = (spec.user.uid, spec.user.gid, spec.user.groups.clone());
        plan.push("confine", Op::User { uid, gid, groups, keep_capabilities: true });
        // The last step that needs a descriptor; it polls one, which a limit of none would forbid.
        die_with_parent(plan, "confine", wiring);
    }
    match wiring.guard {
        Some((stub, status)) => {
            plan.push("confine", Op::Guard { stub, status });
            plan.push("confine", Op::CloseFrom(guard::NEXT));
        }
        None => plan.push("confine", Op::CloseFrom(3)),
    }
    for limit in &spec.rlimits {
        let (resource, soft, hard) = (limit.resource, limit.soft, limit.hard);
        plan.push("confine", Op::Rlimit { resource, soft, hard });
    }
    // Only root keeps rights over the exec; inheritable stays empty, so that no file can hand rights on.
    plan.push("confine", Op::Capabilities { permitted: if is_root { keep } else { 0 }, inheritable: 0 });
    plan.push("confine", Op::Umask(0o022));
    plan.push("confine", Op::Chdir(string("the working directory", &spec.working_directory)?));
    if spec.no_new_privileges {
        plan.push("confine", Op::NoNewPrivileges);
    }
    if spec.no_new_privileges {
        filter(plan, spec)?;
    }
    Ok(())
}

fn filter(plan: &mut Plan, spec: &ContainerSpec) -> Result<(), SpecError> {
    match &spec.seccomp {
        Seccomp::Default => plan.push("seccomp", Op::Seccomp(seccomp::default_filter(spec.capabilities)?)),
        Seccomp::Filter(filter) => plan.push("seccomp", Op::Seccomp(filter.clone())),
        Seccomp::Unconfined => {}
    }
    Ok(())
}

fn exec(spec: &ContainerSpec, guarded: bool) -> Result<Op, SpecError> {
    let strings = |what, texts: &[String]| -> Result<Vec<CString>, SpecError> {
        texts.iter().map(|text| string(what, text)).collect()
    };
    let program = &spec.arguments[0];
    let paths = if program.contains('/') {
        vec![program.clone()]
    } else {
        let path = spec.environment.iter().find_map(|variable| variable.strip_prefix("PATH="));
        let directories = path.unwrap_or("/usr/local/bin:/usr/bin:/bin").split(':');
        directories.map(|directory| format!("{}/{program}", directory.trim_end_matches('/'))).collect()
    };
    Ok(Op::Exec {
        paths: strings("the program's path", &paths)?,
        arguments: strings("an argument", &spec.arguments)?,
        environment: strings("an environment variable", &spec.environment)?,
        guarded,
    })
}

#[cfg(test)]
mod tests;
