//! Owners, modes, times and extended attributes of what was made.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmod, fchmodat, futimens, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat};
use rustix::fs::XattrFlags;

use super::super::UnpackError;
use super::super::tarball::{Entry, Kind};
use super::{Rights, Tree, failed};

fn mtime(entry: &Entry) -> TimeSpec {
    TimeSpec::new(entry.mtime, entry.mtime_ns.into())
}

impl Tree<'_> {
    /// Whose a copy is to be.
    fn owner(&self, entry: &Entry) -> (Option<Uid>, Option<Gid>) {
        let (uid, gid) = match self.options.copy {
            None => (entry.uid, entry.gid),
            Some(copy) => {
                let (uid, gid) = copy.owner.unwrap_or((entry.uid, entry.gid));
                (uid.saturating_add(copy.first_id), gid.saturating_add(copy.first_id))
            }
        };
        (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
    }

    /// The mode that it gets.
    pub(super) fn mode(&self, entry: &Entry) -> u32 {
        if self.options.copy.is_some_and(|copy| !copy.special) { entry.mode & 0o1777 } else { entry.mode }
    }

    /// Of an open file. The owner comes first: setting it takes set-user-id bits and capabilities away.
    pub(super) fn describe_open(&self, file: &File, entry: &Entry) -> Result<(), UnpackError> {
        let wrong = |errno| failed("set the owner, mode and times of", &entry.name, errno);
        if self.options.rights == Rights::Root {
            let (uid, gid) = self.owner(entry);
            fchown(file, uid, gid).map_err(wrong)?;
        }
        for (name, value) in self.taken_attributes(entry) {
            self.judge(rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()), name, entry)?;
        }
        fchmod(file, Mode::from_bits_truncate(self.mode(entry))).map_err(wrong)?;
        futimens(file, &mtime(entry), &mtime(entry)).map_err(wrong)
    }

    /// Of the directory that was entered; its mode and times wait until it is left.
    pub(super) fn describe_directory(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        if self.options.rights == Rights::Root {
            let (uid, gid) = self.owner(entry);
            fchown(self.here(), uid, gid).map_err(|errno| failed("set the owner of", &entry.name, errno))?;
        }
        for (name, value) in self.taken_attributes(entry) {
            self.judge(rustix::fs::fsetxattr(self.here(), name, value, XattrFlags::empty()), name, entry)?;
        }
        let mode = self.mode(entry);
        if let Some(level) = self.levels.last_mut() {
            level.mode = Some(mode);
            level.mtime = mtime(entry);
        }
        Ok(())
    }

    /// Of a link, a device or a pipe here, which cannot be opened.
    pub(super) fn describe(&self, name: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let wrong = |errno| failed("set the owner, mode and times of", &entry.name, errno);
        if self.options.rights == Rights::Root {
            let (uid, gid) = self.owner(entry);
            fchownat(self.here(), name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(wrong)?;
        }
        let mut path = format!("/proc/self/fd/{}/", self.here().as_fd().as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        for (attribute, value) in self.taken_attributes(entry) {
            let set = rustix::fs::lsetxattr(path.as_slice(), attribute, value, XattrFlags::empty());
            self.judge(set, attribute, entry)?;
        }
        if entry.kind != Kind::Symlink {
            // By a descriptor of the thing itself: others may have put a link in its place.
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let node = openat(self.here(), name, flags, Mode::empty()).map_err(wrong)?;
            let (path, mode) =
                (format!("/proc/self/fd/{}", node.as_raw_fd()), Mode::from_bits_truncate(self.mode(entry)));
            fchmodat(AT_FDCWD, path.as_str(), mode, FchmodatFlags::FollowSymlink).map_err(wrong)?;
        }
        utimensat(self.here(), name, &mtime(entry), &mtime(entry), UtimensatFlags::NoFollowSymlink).map_err(wrong)
    }

    /// Those that a layer may bring. Overlayfs's own would change what its other layers mean.
    fn taken_attributes<'e>(&self, entry: &'e Entry) -> impl Iterator<Item = (&'e [u8], &'e [u8])> {
        let own = [&b"trusted.overlay."[..], b"user.overlay."];
        let none = self.options.copy.is_some_and(|copy| !copy.special);
        (entry.xattrs.iter().filter(move |_| !none))
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
