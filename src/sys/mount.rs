//! Mounts that are held by a descriptor before they are anywhere: open_tree(2) and mount_setattr(2), for the launching
//! process. It takes a copy of what the host has at a path and gives it the attributes that a container is to see;
//! [`super::attach`] puts it into the container.

use std::ffi::{CString, c_uint};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// MOUNT_ATTR_*: attributes of a mount.
pub mod attribute {
    /// Nothing can be written by it.
    pub const READ_ONLY: u64 = 0x1;
    /// Set-user-id bits mean nothing.
    pub const NO_SUID: u64 = 0x2;
    /// Devices cannot be opened.
    pub const NO_DEVICES: u64 = 0x4;
    /// Nothing can be executed.
    pub const NO_EXEC: u64 = 0x8;
    /// Reads do not change the time of access.
    pub const NO_ACCESS_TIME: u64 = 0x10;
    /// Each read changes the time of access.
    pub const STRICT_ACCESS_TIME: u64 = 0x20;
    /// Reads of directories do not change their time of access.
    pub const NO_DIRECTORY_ACCESS_TIME: u64 = 0x80;
    /// Owners are shown as a user namespace maps them.
    pub const ID_MAPPED: u64 = 0x0010_0000;
}

/// What mount_setattr(2) changes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// Bits of [`attribute`] that are set.
    pub set: u64,
    /// MS_PRIVATE, MS_SLAVE, MS_SHARED, or 0 to leave it.
    pub propagation: u64,
    /// The user namespace whose mapping owners are shown by.
    pub id_map: Option<BorrowedFd<'a>>,
}

/// `struct mount_attr`.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Takes a copy of the mount that a path shows, attached nowhere; with all mounts below it if it is to be recursive. It
/// goes when its descriptor is closed, unless it was attached before. Links are followed.
///
/// # Errors
/// ENOENT, EPERM without CAP_SYS_ADMIN, EINVAL for a mount that may not be copied.
pub fn open_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    const OPEN_TREE_CLONE: c_uint = 1;
    const AT_RECURSIVE: c_uint = 0x8000;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as c_uint | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a live C string; the kernel makes a new descriptor for us.
    unsafe {
        let fd = libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as i32)) }
    }
}

/// Changes the attributes of a mount and, if it is to be recursive, of all below it: all or, on an error, none.
///
/// # Errors
/// EINVAL also when a file system cannot be id-mapped by this kernel.
pub fn change(mount: BorrowedFd<'_>, recursive: bool, change: Change<'_>) -> io::Result<()> {
    let mut attributes = MountAttr { set: change.set, clear: 0, propagation: change.propagation, user_namespace: 0 };
    if let Some(namespace) = change.id_map {
        attributes.set |= attribute::ID_MAPPED;
        attributes.user_namespace = namespace.as_raw_fd() as u64;
    }
    let flags = libc::AT_EMPTY_PATH | if recursive { 0x8000 } else { 0 };
    // SAFETY: an empty path, and a struct of the size given that lives during the call.
    let returned = unsafe {
        libc::syscall(
            SYS_MOUNT_SETATTR,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw mut attributes,
            size_of::<MountAttr>(),
        )
    };
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The same on every architecture.
const SYS_MOUNT_SETATTR: i64 = 442;

/// The propagation of the mount that a path is on, as the host has it: whether it is shared, and whether it receives.
///
/// # Errors
/// When the path is not there, /proc is not mounted, or the kernel tells no mount's number (before 5.8).
pub fn propagation(path: &Path) -> io::Result<(bool, bool)> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: zero is a valid statx; the path is a live C string and the struct valid for writing.
    let number = unsafe {
        let mut found: libc::statx = std::mem::zeroed();
        if libc::statx(libc::AT_FDCWD, name.as_ptr(), 0, libc::STATX_MNT_ID, &raw mut found) < 0 {
            return Err(io::Error::last_os_error());
        }
        found.stx_mnt_id
    };
    // Threads may be in mount namespaces of their own.
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo")?;
    let own = table.lines().find(|line| line.split(' ').next().and_then(|first| first.parse().ok()) == Some(number));
    let Some(line) = own else { return Err(io::Error::other("the mount is not in /proc/thread-self/mountinfo")) };
    let fields = || line.split(' ').skip(6).take_while(|field| *field != "-");
    let has = |name: &str| fields().any(|field| field.starts_with(name));
    Ok((has("shared:"), has("master:")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_structure_has_the_kernels_size() {
        assert_eq!(size_of::<MountAttr>(), 32);
    }

    #[test]
    fn a_path_that_is_missing_is_an_error() {
        assert_eq!(open_tree(Path::new("/nonexistent/x"), true).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        assert!(propagation(Path::new("/nonexistent/x")).is_err());
        propagation(Path::new("/proc")).unwrap();
    }
}
