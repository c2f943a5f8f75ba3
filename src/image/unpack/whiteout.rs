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

/// The attributes by which overlayfs knows a directory that hides all that lies below it: the one that only root of the
/// host can set and see, and the one that a mount in a user namespace goes by.
pub const OPAQUE_ATTRIBUTES: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

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

/// Whether an entry lies in a directory of aufs's own; or why it cannot lie where it does.
pub(super) fn within(parents: &[&[u8]]) -> Result<bool, &'static str> {
    match parents.iter().find_map(|name| of(name)) {
        None => Ok(false),
        Some(Ok(Whiteout::Housekeeping)) => Ok(true),
        Some(_) => Err("it lies in a whiteout, which is no directory"),
    }
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
    let [trusted, user] = OPAQUE_ATTRIBUTES;
    rustix::fs::fsetxattr(directory, trusted, b"y", XattrFlags::empty())?;
    match rustix::fs::fsetxattr(directory, user, b"y", XattrFlags::empty()) {
        // A file system without attributes of users has no use for it: a user namespace cannot read it there.
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Whether a directory hides all that lies below it, by one of some attributes as `get` reads them.
pub fn is_opaque(attributes: &[&str], get: impl Fn(&str, &mut [u8]) -> rustix::io::Result<usize>) -> io::Result<bool> {
    for attribute in attributes {
        let mut value = [0; 1];
        match get(attribute, &mut value) {
            Ok(length) if value[..length] == *b"y" => return Ok(true),
            // A longer value is none that overlayfs wrote.
            Ok(_) | Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::RANGE) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
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
    fn either_attribute_makes_a_directory_opaque() {
        use rustix::io::Errno;
        let with = |has: &'static str, value: &'static [u8]| {
            is_opaque(&OPAQUE_ATTRIBUTES, move |attribute, buffer| match attribute == has {
                true if value.len() > buffer.len() => Err(Errno::RANGE),
                true => {
                    buffer[..value.len()].copy_from_slice(value);
                    Ok(value.len())
                }
                false => Err(Errno::NODATA),
            })
        };
        for attribute in OPAQUE_ATTRIBUTES {
            assert!(with(attribute, b"y").unwrap(), "{attribute}");
            for other in [&b"n"[..], b"", b"yes"] {
                assert!(!with(attribute, other).unwrap(), "{attribute} {other:?}");
            }
        }
        assert!(is_opaque(&OPAQUE_ATTRIBUTES, |_, _| Err(Errno::IO)).is_err());
    }

    #[test]
    fn names_and_what_they_hide() {
        assert_eq!(of(b"wh.a"), None);
        assert_eq!(of(b".wh.a"), Some(Ok(Whiteout::Of(b"a"))));
        assert_eq!(of(b".wh..wh..opq"), Some(Ok(Whiteout::Opaque)));
        assert_eq!(of(b".wh..wh.plnk"), Some(Ok(Whiteout::Housekeeping)));
        assert_eq!(within(&[b"a", b"wh."]), Ok(false));
        assert_eq!(within(&[b"a", b".wh..wh.plnk"]), Ok(true));
        for name in [&b".wh.a"[..], b".wh..wh..opq", b".wh."] {
            assert!(within(&[name]).is_err(), "{}", String::from_utf8_lossy(name));
        }
        for name in [&b".wh."[..], b".wh..", b".wh..."] {
            assert!(matches!(of(name), Some(Err(_))), "{}", String::from_utf8_lossy(name));
        }
    }
}
