//! The interpreter of a plan, run in the child of a clone3.
//!
//! It only makes system calls, and these without the C library: no allocation, no lock, no panic, no errno. So it is
//! safe in a child of a process with threads, where another thread may have held any lock at the moment of the clone,
//! and in a child that shares the memory of that process.

use std::ffi::{CStr, CString, c_char, c_int, c_ulong};
use std::ptr::null;

use super::attach;
use super::launch::{Errand, ExecStrings};
use super::plan::{Op, SLOTS};
use super::raw::raw;
use super::{guard, terminal};

/// The errno of a failed step.
type Outcome = Result<(), c_int>;

/// Descriptors of mounts on their way from the old root to the new one.
type Slots = [c_int; SLOTS];

/// The most signals that Linux has.
const SIGNALS: c_int = 64;

/// Paths are absolute or meant from the working directory.
const AT: c_int = libc::AT_FDCWD;

/// Runs every step, stamps each on the page, and never returns: the last step executes the program. A step that
/// fails is left on the page, and the child ends.
pub(super) fn run(errand: &Errand) -> ! {
    let page = &errand.page;
    let mut slots: Slots = [-1; SLOTS];
    for (index, step) in errand.plan.steps.iter().enumerate() {
        if let Op::Exec { .. } = step.op {
            // Stamped before, since after a successful exec there is nobody left to stamp.
            page.stamp(index);
        }
        match perform(&step.op, errand, &mut slots) {
            Ok(()) => page.stamp(index),
            Err(errno) => {
                page.fail(index, errno);
                break;
            }
        }
    }
    loop {
        // SAFETY: ends the process without running anything of the parent's; it does not return.
        let _ = unsafe { raw!(libc::SYS_exit_group, 127) };
    }
}

fn check(returned: Result<usize, c_int>) -> Outcome {
    returned.map(drop)
}

fn pointer(string: Option<&CString>) -> *const c_char {
    string.map_or(null(), |string| string.as_ptr())
}

fn perform(op: &Op, errand: &Errand, slots: &mut Slots) -> Outcome {
    match op {
        Op::DieWithParent { parent } => die_with_parent(*parent),
        Op::ResetSignals => reset_signals(),
        Op::Await(gate) => errand.page.pass(*gate).then_some(()).ok_or(libc::ECANCELED),
        Op::JoinGroup { mount, tasks } => join_group(*mount, tasks),
        Op::Mount { source, target, fstype, flags, data } => {
            mount(pointer(source.as_ref()), target, pointer(fstype.as_ref()), *flags, pointer(data.as_ref()))
        }
        Op::Mask { path, empty } => mask(path, empty),
        Op::ReadOnly(path) => read_only(path),
        Op::TakeMount { source, slot } => take_mount(source, *slot, slots),
        Op::PlaceMount { slot, target } => place_mount(*slot, target, slots),
        Op::PlaceOpened { mount, target } => attach::place_at(*mount, target),
        Op::Attach(attachment) => attach::attach(attachment),
        Op::VerifyDevice { path, device } => verify_device(path, *device),
        Op::Directory { path, mode } => directory(path, *mode),
        Op::Directories(path) => {
            attach::make_directories(path);
            Ok(())
        }
        Op::User { uid, gid, groups, keep_capabilities } => user(*uid, *gid, groups, *keep_capabilities),
        Op::BoundingSet { keep, last } => bounding_set(*keep, *last),
        Op::Capabilities { permitted, inheritable } => capabilities(*permitted, *inheritable),
        Op::LoopbackUp => loopback_up(),
        Op::Seccomp(filter) => seccomp(filter),
        Op::Terminal { socket, owner, console } => terminal::open(*socket, *owner, *console),
        Op::Exec { paths, guarded: false, .. } => exec(paths, &errand.strings),
        Op::Exec { paths, guarded: true, .. } => exec_by_stub(paths, &errand.strings),
        other => simple(other),
    }
}

/// The steps that are one system call.
fn simple(op: &Op) -> Outcome {
    // SAFETY: for the whole block: every pointer comes from a live CString of the plan; the numbers are plain
    // values that the kernel checks.
    unsafe {
        match op {
            Op::JoinNamespace { fd, kind } => check(raw!(libc::SYS_setns, *fd, *kind)),
            Op::Unshare(flags) => check(raw!(libc::SYS_unshare, *flags)),
            Op::Node { path, mode, device } => check(raw!(libc::SYS_mknodat, AT, path.as_ptr(), *mode, *device)),
            Op::File(path) => {
                let flags = libc::O_CREAT | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_RDONLY;
                let fd = raw!(libc::SYS_openat, AT, path.as_ptr(), flags, 0o644)?;
                check(raw!(libc::SYS_close, fd))
            }
            Op::Symlink { target, path } => check(raw!(libc::SYS_symlinkat, target.as_ptr(), AT, path.as_ptr())),
            Op::Chdir(path) => check(raw!(libc::SYS_chdir, path.as_ptr())),
            Op::Pivot(root) => check(raw!(libc::SYS_pivot_root, root.as_ptr(), root.as_ptr())),
            Op::DetachOldRoot => check(raw!(libc::SYS_umount2, c".".as_ptr(), libc::MNT_DETACH)),
            Op::Umask(mask) => check(raw!(libc::SYS_umask, *mask)),
            Op::Hostname(name) => check(raw!(libc::SYS_sethostname, name.as_ptr(), name.as_bytes().len())),
            Op::Domainname(name) => check(raw!(libc::SYS_setdomainname, name.as_ptr(), name.as_bytes().len())),
            Op::NewSession => check(raw!(libc::SYS_setsid)),
            Op::Descriptor { from, to } => descriptor(*from, *to),
            Op::Guard { stub, status } => keep_guard(*stub, *status),
            Op::CloseFrom(first) => check(raw!(libc::SYS_close_range, *first, c_int::MAX, 0)),
            Op::Rlimit { resource, soft, hard } => lower(*resource, *soft, *hard),
            Op::NoNewPrivileges => check(raw!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)),
            // `perform` has the others.
            _ => Err(libc::ENOSYS),
        }
    }
}

/// Sets a limit of the process, but never above what it is: no container gets more than its launcher had.
fn lower(resource: u32, soft: u64, hard: u64) -> Outcome {
    let mut now = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both structs are valid; the kernel writes the one and reads the other.
    unsafe {
        check(raw!(libc::SYS_prlimit64, 0, resource, 0, &raw mut now))?;
        let rlim_max = hard.min(now.rlim_max);
        let limit = libc::rlimit64 { rlim_cur: soft.min(rlim_max), rlim_max };
        check(raw!(libc::SYS_prlimit64, 0, resource, &raw const limit, 0))
    }
}

fn die_with_parent(parent: c_int) -> Outcome {
    let mut poll = libc::pollfd { fd: parent, events: libc::POLLIN, revents: 0 };
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: plain values and one valid pollfd. The death may have come before the prctl; then no signal would
    // follow, hence the look at the pidfd afterwards.
    unsafe {
        check(raw!(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        check(raw!(libc::SYS_ppoll, &raw mut poll, 1, &raw const at_once, 0, 0))?;
    }
    if poll.revents != 0 { Err(libc::ECANCELED) } else { Ok(()) }
}

fn join_group(mount: c_int, tasks: &CStr) -> Outcome {
    // SAFETY: the path is a live C string, the text one byte.
    unsafe {
        let fd = raw!(libc::SYS_openat, mount, tasks.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC, 0)?;
        let written = check(raw!(libc::SYS_write, fd, c"0".as_ptr(), 1));
        let _ = raw!(libc::SYS_close, fd);
        written
    }
}

fn reset_signals() -> Outcome {
    // The kernel's own sigaction: handler, flags, restorer, mask. Zero is SIG_DFL with nothing set. glibc's wrapper
    // would refuse the two signals that it keeps for itself, and those must be reset too.
    let default = [0u64; 4];
    // SAFETY: `default` is as large as the kernel's struct; SIGKILL and SIGSTOP are refused and need no reset.
    unsafe {
        for signal in 1..=SIGNALS {
            let _ = raw!(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0, 8);
        }
        let none = 0u64;
        check(raw!(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, 0, 8))
    }
}

fn mount(source: *const c_char, target: &CStr, fstype: *const c_char, flags: c_ulong, data: *const c_char) -> Outcome {
    // SAFETY: every pointer is null or from a live CString.
    check(unsafe { raw!(libc::SYS_mount, source, target.as_ptr(), fstype, flags, data) })
}

fn verify_device(path: &CStr, device: (u32, u32)) -> Outcome {
    // SAFETY: the path is a live C string; zero is a valid statx, which the kernel fills.
    let found = unsafe {
        let mut found: libc::statx = std::mem::zeroed();
        let wanted = libc::STATX_TYPE;
        check(raw!(libc::SYS_statx, AT, path.as_ptr(), libc::AT_SYMLINK_NOFOLLOW, wanted, &raw mut found))?;
        found
    };
    let is_character = u32::from(found.stx_mode) & libc::S_IFMT == libc::S_IFCHR;
    let same = is_character && (found.stx_rdev_major, found.stx_rdev_minor) == device;
    same.then_some(()).ok_or(libc::EPERM)
}

fn mask(path: &CStr, empty: &CStr) -> Outcome {
    match mount(c"/dev/null".as_ptr(), path, null(), libc::MS_BIND, null()) {
        Err(libc::ENOENT) => Ok(()),
        Err(libc::ENOTDIR) => {
            mount(empty.as_ptr(), path, null(), libc::MS_BIND, null())?;
            let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
            mount(null(), path, null(), libc::MS_BIND | libc::MS_REMOUNT | flags, null())
        }
        outcome => outcome,
    }
}

/// A bind of the path onto itself can be read-only while the rest of its file system is not.
fn read_only(path: &CStr) -> Outcome {
    match mount(path.as_ptr(), path, null(), libc::MS_BIND | libc::MS_REC, null()) {
        Err(libc::ENOENT) => Ok(()),
        Err(errno) => Err(errno),
        Ok(()) => {
            // In a user namespace the flags that the file system came with are locked, so they are named again.
            let flags = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY;
            let kept = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
            mount(null(), path, null(), flags | kept, null())
        }
    }
}

fn take_mount(source: &CStr, slot: usize, slots: &mut Slots) -> Outcome {
    const OPEN_TREE_CLONE: c_int = 1;
    let slot = slots.get_mut(slot).ok_or(libc::EBADF)?;
    // SAFETY: the path is a live C string.
    let fd = unsafe { raw!(libc::SYS_open_tree, AT, source.as_ptr(), OPEN_TREE_CLONE | libc::O_CLOEXEC) }?;
    *slot = fd as c_int;
    Ok(())
}

fn place_mount(slot: usize, target: &CStr, slots: &mut Slots) -> Outcome {
    const MOVE_MOUNT_F_EMPTY_PATH: c_int = 4;
    let fd = slots.get(slot).copied().ok_or(libc::EBADF)?;
    // SAFETY: both paths are live C strings; the descriptor is one that `take_mount` left, or -1, which is refused.
    unsafe {
        check(raw!(libc::SYS_move_mount, fd, c"".as_ptr(), AT, target.as_ptr(), MOVE_MOUNT_F_EMPTY_PATH,))?;
        check(raw!(libc::SYS_close, fd))
    }
}

/// A directory that is there is opened to see that it is one: a symbolic link or a file in its place is ENOTDIR.
fn directory(path: &CStr, mode: u32) -> Outcome {
    // SAFETY: the path is a live C string.
    unsafe {
        match check(raw!(libc::SYS_mkdirat, AT, path.as_ptr(), mode)) {
            Err(libc::EEXIST) => {
                let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
                let fd = raw!(libc::SYS_openat, AT, path.as_ptr(), flags, 0)?;
                check(raw!(libc::SYS_close, fd))
            }
            outcome => outcome,
        }
    }
}

/// dup3 refuses equal descriptors, where only the close-on-exec flag has to go.
fn descriptor(from: c_int, to: c_int) -> Outcome {
    // SAFETY: plain numbers.
    unsafe {
        if from == to {
            check(raw!(libc::SYS_fcntl, to, libc::F_SETFD, 0))
        } else {
            check(raw!(libc::SYS_dup3, from, to, 0))
        }
    }
}

fn user(uid: u32, gid: u32, groups: &[u32], keep_capabilities: bool) -> Outcome {
    // SAFETY: `groups` is a live slice, the rest are plain numbers.
    unsafe {
        if keep_capabilities {
            check(raw!(libc::SYS_prctl, libc::PR_SET_KEEPCAPS, 1, 0, 0, 0))?;
        }
        check(raw!(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        check(raw!(libc::SYS_setresgid, gid, gid, gid))?;
        check(raw!(libc::SYS_setresuid, uid, uid, uid))
    }
}

fn bounding_set(keep: u64, last: u32) -> Outcome {
    for capability in 0..=last {
        if keep & (1 << capability) == 0 {
            // SAFETY: plain numbers.
            check(unsafe { raw!(libc::SYS_prctl, libc::PR_CAPBSET_DROP, capability, 0, 0, 0) })?;
        }
    }
    Ok(())
}

/// capset(2) by its third version: two 32-bit halves of three sets.
fn capabilities(permitted: u64, inheritable: u64) -> Outcome {
    const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
    let header = [LINUX_CAPABILITY_VERSION_3, 0];
    let half = |shift: u32| [(permitted >> shift) as u32, (permitted >> shift) as u32, (inheritable >> shift) as u32];
    let sets = [half(0), half(32)];
    // SAFETY: header and sets are laid out as the kernel's structs and live during the call.
    unsafe {
        check(raw!(libc::SYS_capset, header.as_ptr(), sets.as_ptr()))?;
        check(raw!(libc::SYS_prctl, libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    }
}

fn loopback_up() -> Outcome {
    // SAFETY: `request` is a valid ifreq for both ioctls, and its name a short C string.
    unsafe {
        let socket = raw!(libc::SYS_socket, libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)?;
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as c_char;
        request.ifr_name[1] = b'o' as c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
        let outcome = check(raw!(libc::SYS_ioctl, socket, libc::SIOCSIFFLAGS, &raw const request));
        let _ = raw!(libc::SYS_close, socket);
        outcome
    }
}

fn seccomp(filter: &[seccompiler::sock_filter]) -> Outcome {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut().cast() };
    // SAFETY: seccompiler's sock_filter has the kernel's layout; the kernel copies the program and changes nothing.
    check(unsafe { raw!(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) })
}

fn exec(paths: &[CString], strings: &ExecStrings) -> Outcome {
    let mut outcome = libc::ENOENT;
    for path in paths {
        let (argv, envp) = (strings.arguments.as_ptr(), strings.environment.as_ptr());
        // SAFETY: all strings are live, both arrays end with a null pointer. It returns only on failure.
        match check(unsafe { raw!(libc::SYS_execve, path.as_ptr(), argv, envp) }) {
            // As a shell searches PATH: go on, but remember a file that was there and could not be executed.
            Err(libc::ENOENT) if exists(path) => outcome = libc::ELIBACC,
            Err(libc::ENOENT | libc::ENOTDIR) | Ok(()) => {}
            Err(libc::EACCES) => outcome = libc::EACCES,
            Err(other) => return Err(other),
        }
    }
    Err(outcome)
}

/// Puts the two descriptors where [`super::guard`] has them. Each may stand in the other's place, so both go out of the
/// way first.
fn keep_guard(stub: c_int, status: c_int) -> Outcome {
    // SAFETY: plain numbers.
    unsafe {
        let stub = raw!(libc::SYS_fcntl, stub, libc::F_DUPFD_CLOEXEC, guard::NEXT)?;
        let status = raw!(libc::SYS_fcntl, status, libc::F_DUPFD_CLOEXEC, guard::NEXT)?;
        check(raw!(libc::SYS_dup3, status, guard::STATUS, 0))?;
        check(raw!(libc::SYS_dup3, stub, guard::STUB, libc::O_CLOEXEC))
    }
}

/// Executes the stub with the first path that can be executed. What the program's own exec says comes by the stub.
fn exec_by_stub(paths: &[CString], strings: &ExecStrings) -> Outcome {
    let mut outcome = libc::ENOENT;
    for (path, arguments) in paths.iter().zip(&strings.by_stub) {
        // SAFETY: the path is a live C string.
        match check(unsafe { raw!(libc::SYS_faccessat, AT, path.as_ptr(), libc::X_OK) }) {
            Ok(()) => {
                let (argv, envp) = (arguments.as_ptr(), strings.environment.as_ptr());
                // SAFETY: as in `exec`; the descriptor is the stub's.
                return check(unsafe {
                    raw!(libc::SYS_execveat, guard::STUB, c"".as_ptr(), argv, envp, libc::AT_EMPTY_PATH)
                });
            }
            Err(libc::ENOENT | libc::ENOTDIR) => {}
            Err(libc::EACCES) => outcome = libc::EACCES,
            Err(other) => return Err(other),
        }
    }
    Err(outcome)
}

/// Whether a path leads to a file, links followed.
fn exists(path: &CStr) -> bool {
    // SAFETY: the path is a live C string.
    unsafe { raw!(libc::SYS_faccessat, AT, path.as_ptr(), libc::F_OK) }.is_ok()
}
