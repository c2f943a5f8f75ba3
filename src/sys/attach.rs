//! Putting a mount into a container, in the child: by descriptors only, so that nothing that another process does to the
//! names meanwhile can move it out of the container's root.
//!
//! The target is resolved with openat2(2) inside the root, however its links lead; what is missing of it is made. A
//! volume that another container writes to may change at any moment, hence each part is resolved anew from the root and
//! never by a path that was looked at before. Like all of the interpreter this makes system calls only.

use std::ffi::{CStr, CString, c_int};

use super::raw::raw;

/// What is put on a target.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A mount that the launching process has opened.
    Opened {
        /// Its descriptor.
        fd: c_int,
        /// Whether a missing target is made as a directory; else as an empty file.
        directory: bool,
    },
    /// A new file system in memory.
    Memory {
        /// Its options, as fsconfig(2) takes them: key and value.
        options: Vec<(CString, CString)>,
        /// Bits of [`super::mount::attribute`].
        attributes: u64,
    },
}

/// A mount and where it goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Attachment {
    /// What an error names as its source.
    pub name: CString,
    /// What it is.
    pub source: Source,
    /// The path in the container, without the slash at its beginning.
    pub target: CString,
}

/// The longest path, with its NUL.
const MOST: usize = libc::PATH_MAX as usize;
/// As many links as the kernel follows in one path.
const MOST_LINKS: usize = 40;
/// How often a path is looked up again that the kernel could not follow because a name in it was changing.
const MOST_TRIES: usize = 1000;

const PROC_SUPER_MAGIC: i64 = 0x9fa0;
const SYSFS_MAGIC: i64 = 0x6265_6572;

/// Puts it there.
pub(super) fn attach(attachment: &Attachment) -> Result<(), c_int> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: a constant path.
    let root = unsafe { raw!(libc::SYS_openat, libc::AT_FDCWD, c"/".as_ptr(), flags, 0) }? as c_int;
    let directory = match &attachment.source {
        Source::Opened { directory, .. } => *directory,
        Source::Memory { .. } => true,
    };
    let target = resolve(root, attachment.target.as_bytes(), directory);
    close(root);
    let target = target?;
    let fits = refuse_kernel_files(target).and_then(|()| refuse_other_kind(target, directory));
    let attached = fits.and_then(|()| match &attachment.source {
        Source::Opened { fd, .. } => place(*fd, target),
        Source::Memory { options, attributes } => {
            let made = in_memory(options, *attributes)?;
            let placed = place(made, target);
            close(made);
            placed
        }
    });
    close(target);
    attached
}

/// Makes a directory inside the root, by a path that an image may have chosen: while this process holds descriptors of
/// the host, a path through `/proc/self/fd` would lead there (CVE-2024-21626).
pub(super) fn make_directories(path: &CStr) {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: a constant path.
    let Ok(root) = (unsafe { raw!(libc::SYS_openat, libc::AT_FDCWD, c"/".as_ptr(), flags, 0) }) else { return };
    if let Ok(made) = resolve(root as c_int, path.to_bytes(), true) {
        close(made);
    }
    close(root as c_int);
}

/// Puts a mount on a path that only the launching process has made.
pub(super) fn place_at(mount: c_int, path: &CStr) -> Result<(), c_int> {
    const FROM_EMPTY_PATH: c_int = 0x4;
    // SAFETY: both paths are live C strings.
    unsafe { raw!(libc::SYS_move_mount, mount, c"".as_ptr(), libc::AT_FDCWD, path.as_ptr(), FROM_EMPTY_PATH) }.map(drop)
}

fn place(mount: c_int, target: c_int) -> Result<(), c_int> {
    const FROM_EMPTY_PATH: c_int = 0x4;
    const TO_EMPTY_PATH: c_int = 0x40;
    // SAFETY: both paths are empty C strings, and the rest are numbers.
    unsafe { raw!(libc::SYS_move_mount, mount, c"".as_ptr(), target, c"".as_ptr(), FROM_EMPTY_PATH | TO_EMPTY_PATH) }
        .map(drop)
}

fn in_memory(options: &[(CString, CString)], attributes: u64) -> Result<c_int, c_int> {
    const CLOSE_ON_EXEC: c_int = 1;
    const SET_STRING: c_int = 1;
    const CREATE: c_int = 6;
    // SAFETY: every pointer is null or a live C string.
    unsafe {
        let context = raw!(libc::SYS_fsopen, c"tmpfs".as_ptr(), CLOSE_ON_EXEC)?;
        for (key, value) in options {
            raw!(libc::SYS_fsconfig, context, SET_STRING, key.as_ptr(), value.as_ptr(), 0)?;
        }
        raw!(libc::SYS_fsconfig, context, CREATE, 0, 0, 0)?;
        let mount = raw!(libc::SYS_fsmount, context, CLOSE_ON_EXEC, attributes)?;
        close(context as c_int);
        Ok(mount as c_int)
    }
}

/// A mount over the kernel's own files could show a program a state of its rights that is not true, or take the masks
/// away.
fn refuse_kernel_files(target: c_int) -> Result<(), c_int> {
    // SAFETY: zero is a valid statfs, which the kernel fills.
    let kind = unsafe {
        let mut found: libc::statfs = std::mem::zeroed();
        raw!(libc::SYS_fstatfs, target, &raw mut found)?;
        found.f_type as i64
    };
    if [PROC_SUPER_MAGIC, SYSFS_MAGIC].contains(&kind) { Err(libc::EPERM) } else { Ok(()) }
}

/// The kernel says only EINVAL when a directory comes on a file or a file on a directory.
fn refuse_other_kind(target: c_int, directory: bool) -> Result<(), c_int> {
    // SAFETY: an empty C string; zero is a valid statx, which the kernel fills.
    let mode = unsafe {
        let mut found: libc::statx = std::mem::zeroed();
        let wanted = libc::STATX_TYPE;
        raw!(libc::SYS_statx, target, c"".as_ptr(), libc::AT_EMPTY_PATH, wanted, &raw mut found)?;
        u32::from(found.stx_mode)
    };
    match (directory, mode & libc::S_IFMT == libc::S_IFDIR) {
        (true, false) => Err(libc::ENOTDIR),
        (false, true) => Err(libc::EISDIR),
        _ => Ok(()),
    }
}

fn close(fd: c_int) {
    // SAFETY: a plain number. A descriptor that is none any more is no harm here.
    let _ = unsafe { raw!(libc::SYS_close, fd) };
}

/// Opens a path inside the root; what is missing is made.
fn resolve(root: c_int, target: &[u8], directory: bool) -> Result<c_int, c_int> {
    let mut path = Route::of(&[target])?;
    for _ in 0..MOST_LINKS {
        if let Some(found) = path.make(root, directory)? {
            return Ok(found);
        }
    }
    Err(libc::ELOOP)
}

/// Opens a path inside the root, links followed, but none that leads to an open file of a process.
fn open_inside(root: c_int, path: *const u8) -> Result<c_int, c_int> {
    const NO_MAGIC_LINKS: u64 = 0x02;
    const IN_ROOT: u64 = 0x10;
    // `struct open_how`: flags, mode, resolve.
    let how: [u64; 3] = [(libc::O_PATH | libc::O_CLOEXEC) as u64, 0, NO_MAGIC_LINKS | IN_ROOT];
    let mut outcome = Err(libc::EAGAIN);
    for _ in 0..MOST_TRIES {
        // SAFETY: the caller's path ends with a NUL, the struct has the size given.
        outcome = unsafe { raw!(libc::SYS_openat2, root, path, how.as_ptr(), size_of_val(&how)) };
        if outcome != Err(libc::EAGAIN) {
            break;
        }
    }
    outcome.map(|fd| fd as c_int)
}

/// A path on the stack, with a NUL after it.
struct Route {
    bytes: [u8; MOST],
    length: usize,
}

impl Route {
    fn of(parts: &[&[u8]]) -> Result<Self, c_int> {
        let mut route = Self { bytes: [0; MOST], length: 0 };
        for part in parts {
            let end = route.length + part.len();
            // One byte stays for the NUL.
            let room = route.bytes.get_mut(route.length..end).filter(|_| end < MOST).ok_or(libc::ENAMETOOLONG)?;
            room.copy_from_slice(part);
            route.length = end;
        }
        Ok(route)
    }

    fn slice(&self, begin: usize, end: usize) -> &[u8] {
        self.bytes.get(begin..end.min(self.length)).unwrap_or_default()
    }

    /// Where the first part from `at` on begins and ends.
    fn part(&self, at: usize) -> Option<(usize, usize)> {
        let rest = self.slice(at, self.length);
        let begin = at + rest.iter().position(|byte| *byte != b'/')?;
        let part = self.slice(begin, self.length);
        let end = begin + part.iter().position(|byte| *byte == b'/').unwrap_or(part.len());
        Some((begin, end))
    }

    /// Does something with the path from `begin` to `end` as a C string.
    fn with<T>(&mut self, begin: usize, end: usize, act: impl FnOnce(*const u8) -> T) -> Result<T, c_int> {
        let byte = self.bytes.get_mut(end).ok_or(libc::ENAMETOOLONG)?;
        let kept = std::mem::replace(byte, 0);
        let start = self.bytes.get(begin..).ok_or(libc::ENAMETOOLONG)?.as_ptr();
        let outcome = act(start);
        if let Some(byte) = self.bytes.get_mut(end) {
            *byte = kept;
        }
        Ok(outcome)
    }

    /// Opens it, with what is missing made on the way; `None` where a link led to what is not there: the path goes on
    /// from the link's content now.
    fn make(&mut self, root: c_int, directory: bool) -> Result<Option<c_int>, c_int> {
        match self.with(0, self.length, |path| open_inside(root, path))? {
            Err(libc::ENOENT) => {}
            found => return found.map(Some),
        }
        let mut here = open_inside(root, c".".as_ptr().cast())?;
        let mut at = 0;
        while let Some((begin, end)) = self.part(at) {
            let last = self.part(end).is_none();
            let next = match self.with(0, end, |path| open_inside(root, path))? {
                Err(libc::ENOENT) => {
                    match self.with(begin, end, |name| make_entry(here, name, directory || !last))? {
                        Err(libc::EEXIST) => {
                            let followed = self.follow(here, begin, end);
                            close(here);
                            return followed.map(|()| None);
                        }
                        made => made?,
                    }
                    self.with(0, end, |path| open_inside(root, path))??
                }
                found => found?,
            };
            close(here);
            here = next;
            at = end;
        }
        Ok(Some(here))
    }

    /// Puts the content of the link between `begin` and `end`, which is in the directory `here`, in its place.
    fn follow(&mut self, here: c_int, begin: usize, end: usize) -> Result<(), c_int> {
        let mut content = [0u8; MOST];
        // SAFETY: the name is a C string, the buffer is valid for writing up to its length.
        let read = self.with(begin, end, |name| unsafe {
            raw!(libc::SYS_readlinkat, here, name, content.as_mut_ptr(), content.len())
        })?;
        let length = match read {
            // No link: it has just been made by someone else. The same path is tried again.
            Err(libc::EINVAL) => return Ok(()),
            read => read?,
        };
        let content = content.get(..length).unwrap_or_default();
        let before = if content.first() == Some(&b'/') { &[][..] } else { self.slice(0, begin) };
        *self = Self::of(&[before, content, self.slice(end, self.length)])?;
        Ok(())
    }
}

fn make_entry(here: c_int, name: *const u8, directory: bool) -> Result<(), c_int> {
    // SAFETY: the name is a live C string without a slash, as `Route::with` passes it.
    unsafe {
        if directory {
            return raw!(libc::SYS_mkdirat, here, name, 0o755).map(drop);
        }
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_WRONLY;
        let fd = raw!(libc::SYS_openat, here, name, flags, 0o644)?;
        close(fd as c_int);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    /// What a target leads to inside a root, as the path from there.
    fn leads(root: &std::path::Path, target: &str, directory: bool) -> Result<PathBuf, c_int> {
        let opened = File::open(root).unwrap();
        let fd = resolve(opened.as_raw_fd(), target.as_bytes(), directory)?;
        // SAFETY: `resolve` has just opened it for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let whole = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        Ok(whole.strip_prefix(root).expect("it left the root").to_owned())
    }

    #[test]
    fn a_target_stays_in_the_root_however_its_links_lead() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        for (link, to) in [
            ("out", "../../../../etc"),
            ("absolute", "/etc"),
            ("dangling", "/run/systemd/stub"),
            ("relative", "a/../b"),
            ("loop", "loop"),
            ("etc/up", "../../../made"),
        ] {
            symlink(to, root.join(link)).unwrap();
        }
        let found = |target, directory| leads(&root, target, directory).map(|path| path.display().to_string());
        assert_eq!(found("out/x", true).unwrap(), "etc/x");
        assert_eq!(found("absolute/y", false).unwrap(), "etc/y");
        assert_eq!(found("dangling", false).unwrap(), "run/systemd/stub");
        assert_eq!(found("etc/up/z", true).unwrap(), "made/z");
        assert_eq!(found("deep/er/still", true).unwrap(), "deep/er/still");
        assert_eq!(found("deep/er/file", false).unwrap(), "deep/er/file");
        assert!(root.join("deep/er/file").is_file() && root.join("run/systemd/stub").is_file());
        assert!(!directory.path().join("made").exists() && !directory.path().join("run").exists());
        assert_eq!(found("loop", true), Err(libc::ELOOP));
        assert_eq!(found("deep/er/file/below", true), Err(libc::ENOTDIR));
        let long = "a".repeat(5000);
        assert_eq!(leads(&root, &long, true), Err(libc::ENAMETOOLONG));
        // `a` is made for `..` to lead back from it.
        assert_eq!(found("relative", true).unwrap(), "b");
    }
}
