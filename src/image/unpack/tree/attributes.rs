//! Owners, modes, times and extended attributes of what was made.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmod, fchmodat, futimens, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat};
use rustix::fs::XattrFlags;

use super::super::UnpackError;
use super::super::tarball::{Entry, Kind};
use super::{Rights, Tree, failed};

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
}

fn mtime(entry: &Entry) -> TimeSpec {
    TimeSpec::new(entry.mtime, entry.mtime_ns.into())
}

impl Tree<'_> {
    /// Of an open file. The owner comes first: setting it takes set-user-id bits and capabilities away.
    pub(super) fn describe_open(&self, file: &File, entry: &Entry) -> Result<(), UnpackError> {
        let wrong = |errno| failed("set the owner, mode and times of", &entry.name, errno);
        if self.options.rights == Rights::Root {
            let (uid, gid) = owner(entry);
            fchown(file, uid, gid).map_err(wrong)?;
        }
        for (name, value) in self.taken_attributes(entry) {
            self.judge(rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()), name, entry)?;
        }
        fchmod(file, Mode::from_bits_truncate(entry.mode)).map_err(wrong)?;
        futimens(file, &mtime(entry), &mtime(entry)).map_err(wrong)
    }

    /// Of the directory that was entered; its mode and times wait until it is left.
    pub(super) fn describe_directory(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        if self.options.rights == Rights::Root {
            let (uid, gid) = owner(entry);
            fchown(self.here(), uid, gid).map_err(|errno| failed("set the owner of", &entry.name, errno))?;
        }
        for (name, value) in self.taken_attributes(entry) {
            self.judge(rustix::fs::fsetxattr(self.here(), name, value, XattrFlags::empty()), name, entry)?;
        }
        if let Some(level) = self.levels.last_mut() {
            level.mode = Some(entry.mode);
            level.mtime = mtime(entry);
        }
        Ok(())
    }

    /// Of a link, a device or a pipe here, which cannot be opened.
    pub(super) fn describe(&self, name: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let wrong = |errno| failed("set the owner, mode and times of", &entry.name, errno);
        if self.options.rights == Rights::Root {
            let (uid, gid) = owner(entry);
            fchownat(self.here(), name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(wrong)?;
        }
        let mut path = format!("/proc/self/fd/{}/", self.here().as_fd().as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        for (attribute, value) in self.taken_attributes(entry) {
            let set = rustix::fs::lsetxattr(path.as_slice(), attribute, value, XattrFlags::empty());
            self.judge(set, attribute, entry)?;
        }
        if entry.kind != Kind::Symlink {
            let mode = Mode::from_bits_truncate(entry.mode);
            // What was just made in a directory that no one else reaches is no link.
            fchmodat(self.here(), name, mode, FchmodatFlags::FollowSymlink).map_err(wrong)?;
        }
        utimensat(self.here(), name, &mtime(entry), &mtime(entry), UtimensatFlags::NoFollowSymlink).map_err(wrong)
    }

    /// Those that a layer may bring. Overlayfs's own would change what its other layers mean.
    fn taken_attributes<'e>(&self, entry: &'e Entry) -> impl Iterator<Item = (&'e [u8], &'e [u8])> {
        let own = [&b"trusted.overlay."[..], b"user.overlay."];
        (entry.xattrs.iter())
            .map(|(name, value)| (name.as_slice(), value.as_slice()))
            .filter(move |(name, _)| !own.iter().any(|prefix| name.starts_with(prefix)))
    }

    /// A file system may lack attributes; only a program's capabilities are worth an error then.
    fn judge(&self, set: rustix::io::Result<()>, attribute: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let Err(error) = set else { return Ok(()) };
        let needed = attribute == b"security.capability";
        let errno = Errno::from_raw(error.raw_os_error());
        match errno {
            Errno::EOPNOTSUPP if !needed => Ok(()),
            Errno::EPERM if self.options.rights == Rights::User => Ok(()),
            _ => Err(failed("set an extended attribute of", &entry.name, errno)),
        }
    }
}
