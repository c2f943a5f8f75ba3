//! A plan: the flat list of operations that makes the child of a clone3 into a container.
//!
//! `container::plan` compiles it from a validated spec; `interpret` runs it in the child. Every string is a C string
//! made beforehand, so that running it allocates nothing and takes no lock: that keeps it safe in a child of a
//! process with threads.

use std::ffi::CString;
use std::fmt;
use std::os::fd::RawFd;
use std::sync::Arc;

use super::attach::Attachment;
use super::page::Gate;

/// How many mounts can be taken before the pivot and placed after it.
pub const SLOTS: usize = 64;

/// One step. The fields are what the system call of the same name takes.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Asks the kernel to end the child with SIGKILL when the launching thread ends, and makes sure that it has not
    /// ended yet: `parent` is a pidfd of the launching process, since a child in a new pid namespace cannot ask who
    /// its parent is. A change of the effective user or group undoes it.
    DieWithParent {
        /// A pidfd of the launching process.
        parent: RawFd,
    },
    /// Unblocks every signal and sets every disposition to its default.
    ResetSignals,
    /// Waits at a gate of the clock page.
    Await(Gate),
    /// Joins a v1 control group: writes `0` to its `tasks` file, below a descriptor of the hierarchy's mount point.
    JoinGroup {
        /// An fd of the mount point.
        mount: RawFd,
        /// The file.
        tasks: CString,
    },
    /// Joins the namespace behind an fd.
    JoinNamespace {
        /// An fd of a `/proc/PID/ns/*` file.
        fd: RawFd,
        /// Its CLONE_NEW* flag.
        kind: i32,
    },
    /// Moves into new namespaces of these CLONE_NEW* flags.
    Unshare(i32),
    /// Mounts.
    Mount {
        /// The source; absent for changes of an existing mount.
        source: Option<CString>,
        /// Where to.
        target: CString,
        /// The file system type.
        fstype: Option<CString>,
        /// MS_* flags.
        flags: u64,
        /// Options of the file system.
        data: Option<CString>,
    },
    /// Makes a path unreadable: a file is covered by `/dev/null`, a directory by an empty one, read-only. A missing
    /// path is left missing.
    Mask {
        /// What to cover.
        path: CString,
        /// An empty directory.
        empty: CString,
    },
    /// Makes a path of the new root read-only where it stands, keeping nosuid, nodev and noexec. A missing path is left
    /// missing.
    ReadOnly(CString),
    /// Takes a copy of the mount that a path of the old root shows, into a slot, for [`Op::PlaceMount`].
    TakeMount {
        /// The path.
        source: CString,
        /// Which slot; below [`SLOTS`].
        slot: usize,
    },
    /// Puts the mount in a slot on a path of the new root.
    PlaceMount {
        /// Which slot.
        slot: usize,
        /// The path.
        target: CString,
    },
    /// Puts a mount that the launching process has opened on a path that only it has made.
    PlaceOpened {
        /// The mount.
        mount: RawFd,
        /// The path.
        target: CString,
    },
    /// Puts a mount on a path of the container's root, which is resolved inside it and made where it is missing. A path
    /// that leads to the kernel's own files is EPERM.
    Attach(Box<Attachment>),
    /// Makes sure that a path is this character device itself and no link: EPERM otherwise.
    VerifyDevice {
        /// The path.
        path: CString,
        /// Its major and minor number.
        device: (u32, u32),
    },
    /// Makes a directory; one that is there already is fine, a symbolic link or a file in its place is not.
    Directory {
        /// The path.
        path: CString,
        /// The mode, not touched by the umask.
        mode: u32,
    },
    /// Makes a directory and those on the way to it, named from the root. No link leads out of the root, and none of
    /// /proc to what this process has open. Where it cannot be made, the step that enters it tells why.
    Directories(CString),
    /// Makes a device node, not touched by the umask.
    Node {
        /// The path.
        path: CString,
        /// The type and mode.
        mode: u32,
        /// Major and minor, as `makedev` packs them.
        device: u64,
    },
    /// Makes an empty file to mount on.
    File(CString),
    /// Makes a symbolic link.
    Symlink {
        /// What it holds.
        target: CString,
        /// Where it stands.
        path: CString,
    },
    /// Changes the working directory.
    Chdir(CString),
    /// Makes the mount at this path the root, with the old root stacked on top of it. The working directory stays
    /// where it is.
    Pivot(CString),
    /// Takes away the old root that [`Op::Pivot`] left stacked on the new one, which is the working directory now.
    DetachOldRoot,
    /// Sets the umask.
    Umask(u32),
    /// Sets the host name of the new uts namespace.
    Hostname(CString),
    /// Sets the NIS domain name of the new uts namespace.
    Domainname(CString),
    /// Brings `lo` up.
    LoopbackUp,
    /// Starts a session.
    NewSession,
    /// Makes `from` the descriptor `to`, open across the exec.
    Descriptor {
        /// The descriptor as the parent has it.
        from: RawFd,
        /// 0, 1 or 2.
        to: RawFd,
    },
    /// Puts what a guarded exec needs (see [`super::guard`]) on the descriptors 3 and 4.
    Guard {
        /// The stub's file.
        stub: RawFd,
        /// Where the stub tells of a failed execve.
        status: RawFd,
    },
    /// Closes every descriptor from this one up.
    CloseFrom(RawFd),
    /// Opens a terminal on the container's `/dev/pts`, makes it the session's, the standard streams and `/dev/console`, and
    /// sends its master over a socket.
    Terminal {
        /// One end of a pair of sockets.
        socket: RawFd,
        /// Whose the terminal is to be.
        owner: u32,
        /// Whether `/dev/console` is made.
        console: bool,
    },
    /// Sets a resource limit, but never above the hard limit that the process has.
    Rlimit {
        /// RLIMIT_*.
        resource: u32,
        /// The soft limit.
        soft: u64,
        /// The hard limit.
        hard: u64,
    },
    /// Keeps only these capabilities in the bounding set; the mask has bit N for capability N.
    BoundingSet {
        /// The capabilities that stay.
        keep: u64,
        /// The highest capability that the kernel knows.
        last: u32,
    },
    /// Sets the user, the groups.
    User {
        /// The user id.
        uid: u32,
        /// The group id.
        gid: u32,
        /// Supplementary groups.
        groups: Vec<u32>,
        /// Whether the credentials' change must keep capabilities until [`Op::Capabilities`] sets them.
        keep_capabilities: bool,
    },
    /// Sets the permitted, effective and inheritable sets and clears the ambient one.
    Capabilities {
        /// Permitted and effective.
        permitted: u64,
        /// Inheritable.
        inheritable: u64,
    },
    /// Gives up gaining privileges by exec.
    NoNewPrivileges,
    /// Installs a seccomp filter.
    Seccomp(Arc<[seccompiler::sock_filter]>),
    /// Executes the first path that exists. Where one exists and execve(2) says ENOENT all the same, the interpreter that
    /// it names is missing; that is left on the page as ELIBACC, which execve itself never says.
    Exec {
        /// Candidate paths in order.
        paths: Vec<CString>,
        /// The arguments, the program's name first.
        arguments: Vec<CString>,
        /// The environment, `NAME=value` each.
        environment: Vec<CString>,
        /// Whether it is done by the stub of an [`Op::Guard`] before.
        guarded: bool,
    },
}

/// A step and the phase of the waterfall that it counts to.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The phase's name, as in `overlay`.
    pub phase: &'static str,
    /// What to do.
    pub op: Op,
}

/// The whole plan.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The steps in order; the last one is an [`Op::Exec`].
    pub steps: Vec<Step>,
}

impl Plan {
    /// Adds a step.
    pub fn push(&mut self, phase: &'static str, op: Op) {
        self.steps.push(Step { phase, op });
    }
}

fn text(string: &CString) -> std::borrow::Cow<'_, str> {
    string.to_string_lossy()
}

impl fmt::Display for Op {
    /// What was tried and on what, for an error that goes on with the errno's text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::DieWithParent { .. } => f.write_str("tie the container's life to the launcher's"),
            Op::ResetSignals => f.write_str("reset signals"),
            Op::Await(gate) => write!(f, "wait for {gate:?}"),
            Op::JoinGroup { tasks, .. } => write!(f, "join the control group by {}", text(tasks)),
            Op::JoinNamespace { kind, .. } => write!(f, "join the {} namespace", namespace_name(*kind)),
            Op::Unshare(kind) => write!(f, "make a {} namespace", namespace_name(*kind)),
            Op::Mount { source, target, fstype, .. } => match (fstype, source) {
                (Some(fstype), _) => write!(f, "mount {} on {}", text(fstype), text(target)),
                (None, Some(source)) => write!(f, "bind {} on {}", text(source), text(target)),
                (None, None) => write!(f, "change the mount {}", text(target)),
            },
            Op::Mask { path, .. } => write!(f, "mask {}", text(path)),
            Op::ReadOnly(path) => write!(f, "make {} read-only", text(path)),
            Op::TakeMount { source, .. } => write!(f, "take the mount {}", text(source)),
            Op::PlaceMount { target, .. } => write!(f, "put a mount on {}", text(target)),
            Op::PlaceOpened { target, .. } => write!(f, "put a mount on {}", text(target)),
            Op::Attach(one) => write!(f, "mount {} on /{}", text(&one.name), text(&one.target)),
            Op::VerifyDevice { path, .. } => write!(f, "make sure of the device {}", text(path)),
            Op::Directory { path, .. } => write!(f, "make the directory {}", text(path)),
            Op::Directories(path) => write!(f, "make the directory /{}", text(path)),
            Op::Node { path, .. } => write!(f, "make the device node {}", text(path)),
            Op::File(path) => write!(f, "make the file {}", text(path)),
            Op::Symlink { path, .. } => write!(f, "make the symbolic link {}", text(path)),
            Op::Chdir(path) => write!(f, "change directory to {}", text(path)),
            Op::Pivot(_) => f.write_str("pivot_root into the container's root"),
            Op::DetachOldRoot => f.write_str("detach the host's root"),
            Op::Umask(_) => f.write_str("set the umask"),
            Op::Hostname(name) => write!(f, "set the host name {}", text(name)),
            Op::Domainname(name) => write!(f, "set the domain name {}", text(name)),
            Op::LoopbackUp => f.write_str("bring lo up"),
            Op::NewSession => f.write_str("start a session"),
            Op::Descriptor { to, .. } => write!(f, "connect descriptor {to}"),
            Op::Guard { .. } => f.write_str("keep the stub"),
            Op::Terminal { .. } => f.write_str("open a terminal"),
            Op::CloseFrom(first) => write!(f, "close descriptors from {first}"),
            Op::Rlimit { resource, soft, hard } => write!(f, "set rlimit {resource} to {soft}:{hard}"),
            Op::BoundingSet { .. } => f.write_str("reduce the capability bounding set"),
            Op::User { uid, gid, .. } => write!(f, "become user {uid}:{gid}"),
            Op::Capabilities { .. } => f.write_str("set capabilities"),
            Op::NoNewPrivileges => f.write_str("set no_new_privs"),
            Op::Seccomp(_) => f.write_str("install the seccomp filter"),
            Op::Exec { arguments, paths, .. } => {
                let name = arguments.first().or(paths.first()).map(text).unwrap_or_default();
                write!(f, "execute {name}")
            }
        }
    }
}

/// The name of a CLONE_NEW* flag as /proc/PID/ns has it; several are joined by a comma.
fn namespace_name(flags: i32) -> String {
    const NAMES: [(i32, &str); 7] = [
        (libc::CLONE_NEWNS, "mnt"),
        (libc::CLONE_NEWUTS, "uts"),
        (libc::CLONE_NEWIPC, "ipc"),
        (libc::CLONE_NEWPID, "pid"),
        (libc::CLONE_NEWNET, "net"),
        (libc::CLONE_NEWCGROUP, "cgroup"),
        (libc::CLONE_NEWUSER, "user"),
    ];
    let names: Vec<&str> = NAMES.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name).collect();
    names.join(",")
}
