//! Whiteouts: how an archive says that a layer hides what lies below, and how overlayfs has it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, mknodat};
use rustix::fs::XattrFlags;

/// What a whiteout's name begins with.
pub const PREFIX: &[u8] = b".wh.";

/// The name of the file that hides all that lies below its directory.
pub const OPAQUE: &[u8] = b".wh..wh..opq";

/// The attribute by which overlayfs knows a directory that hides all that lies below it.
pub const OPAQUE_ATTRIBUTE: &str = "trusted.overlay.opaque";

/// What the name of an entry hides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whiteout<'a> {
    /// One name.
    Of(&'a [u8]),
    /// All of its directory.
    Opaque,
    /// Nothing: a file that aufs kept for itself.
    Housekeeping,
}

/// Whether a name is a whiteout's, and of what; or why it cannot be.
pub(super) fn of(name: &[u8]) -> Option<Result<Whiteout<'_>, &'static str>> {
    if name == OPAQUE {
        return Some(Ok(Whiteout::Opaque));
    }
    let hidden = name.strip_prefix(PREFIX)?;
    if hidden.starts_with(PREFIX) {
        return Some(Ok(Whiteout::Housekeeping));
    }
    if matches!(hidden, b"" | b"." | b"..") {
        return Some(Err("it is a whiteout of no name"));
    }
    Some(Ok(Whiteout::Of(hidden)))
}

/// Makes a whiteout in a directory.
pub(super) fn make(directory: BorrowedFd<'_>, whiteout: &Whiteout<'_>) -> io::Result<()> {
    let name = match whiteout {
        Whiteout::Housekeeping => return Ok(()),
        Whiteout::Opaque => return set_opaque(&directory),
        Whiteout::Of(name) => *name,
    };
    match mknodat(directory, name, SFlag::S_IFCHR, Mode::empty(), 0) {
        Err(Errno::EEXIST) => {
            // The layer has the name too: a file hides what is below by itself, a directory must be told to.
            let there = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            if there.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits() {
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                set_opaque(&openat(directory, name, flags, Mode::empty())?)?;
            }
            Ok(())
        }
        outcome => Ok(outcome?),
    }
}

/// Makes a directory hide all that lies below it.
pub(super) fn set_opaque(directory: &impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(directory, OPAQUE_ATTRIBUTE, b"y", XattrFlags::empty())?)
}

/// Whether this is overlayfs's whiteout: a character device 0:0.
#[must_use]
pub fn is(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits() && stat.st_rdev == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_what_they_hide() {
        assert_eq!(of(b"wh.a"), None);
        assert_eq!(of(b".wh.a"), Some(Ok(Whiteout::Of(b"a"))));
        assert_eq!(of(b".wh..wh..opq"), Some(Ok(Whiteout::Opaque)));
        assert_eq!(of(b".wh..wh.plnk"), Some(Ok(Whiteout::Housekeeping)));
        for name in [&b".wh."[..], b".wh..", b".wh..."] {
            assert!(matches!(of(name), Some(Err(_))), "{}", String::from_utf8_lossy(name));
        }
    }
}
