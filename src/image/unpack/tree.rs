//! The making side of unpacking: entries become files beneath one root, whatever their names and links say.
//!
//! The directories from the root to the present one are held open, so that most entries are made by one system call
//! relative to their directory. A component is opened without following links; where it is a link, the kernel
//! resolves the whole path with the layer as the root (openat2), so that no link and no `..` leads out. A directory's
//! mode and times are set when it is left, since making something in it changes its times.

use std::fs::File;
use std::io::{self, BufRead, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, futimens, mkdirat, mknodat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, linkat, symlinkat, unlinkat};

use super::tarball::{Entry, Kind, TarReader};
use super::{Options, UnpackError, whiteout};

mod attributes;
mod path;

use path::Split;

/// What the unpacking process may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// All that an archive can ask for.
    Root,
    /// What a user may: everything belongs to it, and a device is an error.
    User,
}

impl Rights {
    /// Those of this process.
    #[must_use]
    pub fn own() -> Self {
        if nix::unistd::geteuid().is_root() { Self::Root } else { Self::User }
    }
}

/// The root and where in it the last entry was made.
pub(super) struct Tree<'a> {
    options: &'a Options,
    /// From the root down; never empty.
    levels: Vec<Level>,
    /// What was made, of entries and of directories that they lie in.
    made: u64,
    /// Bytes of the files made, without and with holes.
    written: u64,
    logical: u64,
}

/// An open directory.
struct Level {
    /// Its name in the level above; empty for the root.
    name: Vec<u8>,
    fd: OwnedFd,
    /// The mode to set when it is left.
    mode: Option<u32>,
    /// The times to set then.
    mtime: TimeSpec,
}

const OPEN_DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

impl<'a> Tree<'a> {
    /// Over an empty directory.
    pub(super) fn new(root: &File, options: &'a Options) -> Result<Self, UnpackError> {
        let fd = root.try_clone().map_err(|source| failed("open", b"/", source))?.into();
        let mtime = modified(&fstat(&fd).map_err(|errno| failed("look at", b"/", errno))?);
        let root = Level { name: Vec::new(), fd, mode: None, mtime };
        Ok(Self { options, levels: vec![root], made: 0, written: 0, logical: 0 })
    }

    /// One more is made: each takes an inode, whether the archive has an entry for it or not.
    fn count(&mut self) -> Result<(), UnpackError> {
        self.made += 1;
        let limit = self.options.limits.entries;
        if self.made > limit { Err(UnpackError::Limit { what: "entries", limit }) } else { Ok(()) }
    }

    /// Bytes of the files made, without holes.
    pub(super) fn bytes(&self) -> u64 {
        self.written
    }

    /// Leaves all directories.
    pub(super) fn finish(&mut self) -> Result<(), UnpackError> {
        self.leave_to(0)
    }

    /// Makes an entry; its data are read from the archive.
    pub(super) fn make<R: BufRead>(
        &mut self,
        entry: &Entry,
        archive: &mut TarReader<'_, R>,
    ) -> Result<(), UnpackError> {
        self.count()?;
        let split = path::split(&entry.name, &self.options.limits)?;
        let Some((name, parents)) = split.split_last() else {
            return self.make_root(entry);
        };
        let wrong_name = |why| UnpackError::Name { name: display(&entry.name), why };
        if self.options.whiteouts && whiteout::within(parents).map_err(wrong_name)? {
            return Ok(());
        }
        let whiteout = if self.options.whiteouts { whiteout::of(name) } else { None };
        if let Some(Err(why)) = whiteout {
            return Err(wrong_name(why));
        }
        if self.options.copy.is_some_and(|copy| !copy.special) && matches!(entry.kind, Kind::Char(..) | Kind::Block(..))
        {
            return Err(wrong_name("it is a device, and devices are not copied here"));
        }
        self.enter(parents, entry)?;
        if let Some(Ok(whiteout)) = whiteout {
            return whiteout::make(self.here(), &whiteout).map_err(|source| failed("white out", &entry.name, source));
        }
        let wrong = |source: Errno| failed("make", &entry.name, source);
        match &entry.kind {
            Kind::File => self.make_file(name, entry, archive),
            Kind::Directory => self.make_directory(name, entry),
            Kind::Symlink => {
                self.replacing(name, |here| symlinkat(entry.target.as_slice(), here, *name)).map_err(wrong)?;
                self.describe(name, entry)
            }
            Kind::HardLink => self.make_hard_link(name, entry),
            Kind::Char(major, minor) => self.make_node(name, entry, SFlag::S_IFCHR, (*major, *minor)),
            Kind::Block(major, minor) => self.make_node(name, entry, SFlag::S_IFBLK, (*major, *minor)),
            Kind::Fifo => self.make_node(name, entry, SFlag::S_IFIFO, (0, 0)),
        }
    }

    /// The directory that was entered.
    fn here(&self) -> BorrowedFd<'_> {
        // There is always the root.
        self.levels[self.levels.len() - 1].fd.as_fd()
    }

    fn root(&self) -> BorrowedFd<'_> {
        self.levels[0].fd.as_fd()
    }

    /// An entry for the root itself, as in `./`.
    fn make_root(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        if entry.kind != Kind::Directory {
            let why = "it stands for the root and is no directory";
            return Err(UnpackError::Name { name: display(&entry.name), why });
        }
        self.leave_to(1)?;
        if self.options.copy.is_some() {
            // It was there before.
            return Ok(());
        }
        self.describe_directory(entry)
    }

    /// Goes to a directory, by way of the levels that are open; what is missing is made.
    fn enter(&mut self, parents: Split<'_>, entry: &Entry) -> Result<(), UnpackError> {
        let open = self.levels[1..].iter().zip(parents).take_while(|(level, name)| level.name == **name).count();
        self.leave_to(open + 1)?;
        for depth in open..parents.len() {
            let (fd, mode, mtime) = self.open(&parents[..=depth], entry)?;
            self.levels.push(Level { name: parents[depth].to_vec(), fd, mode, mtime });
        }
        Ok(())
    }

    /// Closes levels until `count` are left, and sets the modes and times of their directories.
    fn leave_to(&mut self, count: usize) -> Result<(), UnpackError> {
        while self.levels.len() > count {
            let Some(level) = self.levels.pop() else { break };
            let wrong = |errno| failed("set the mode and times of the directory", &level.name, errno);
            if let Some(mode) = level.mode {
                fchmod(&level.fd, Mode::from_bits_truncate(mode)).map_err(wrong)?;
            }
            futimens(&level.fd, &level.mtime, &level.mtime).map_err(wrong)?;
        }
        Ok(())
    }

    /// Opens the last component of a path whose others are entered.
    fn open(&mut self, path: Split<'_>, entry: &Entry) -> Result<(OwnedFd, Option<u32>, TimeSpec), UnpackError> {
        let name = path[path.len() - 1];
        let whole = path.join(&b'/');
        let wrong = |errno| failed("go into", &whole, errno);
        let opened = match openat(self.here(), name, OPEN_DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty()) {
            Err(Errno::ENOENT) => return self.make_implied(name, &whole, entry, false),
            Err(Errno::ELOOP | Errno::ENOTDIR) => {
                if self.options.copy.is_some() {
                    let why = "it goes through something that is no directory";
                    return Err(UnpackError::Name { name: display(&entry.name), why });
                }
                let there = fstatat(self.here(), name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(wrong)?;
                if whiteout::is(&there) {
                    unlinkat(self.here(), name, UnlinkatFlags::NoRemoveDir).map_err(wrong)?;
                    return self.make_implied(name, &whole, entry, true);
                }
                match self.resolve(&whole, OPEN_DIRECTORY) {
                    Err(Errno::ENOENT) => {
                        let why = "it goes through a symbolic link that leads nowhere in the archive";
                        return Err(UnpackError::Name { name: display(&entry.name), why });
                    }
                    opened => opened.map_err(wrong)?,
                }
            }
            opened => opened.map_err(wrong)?,
        };
        let mtime = modified(&fstat(&opened).map_err(wrong)?);
        Ok((opened, None, mtime))
    }

    /// Resolves a path with the layer as the root: links and `..` stay in it.
    fn resolve(&self, path: &[u8], flags: OFlag) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        loop {
            match openat2(self.root(), path, how) {
                // The kernel cannot be sure that nothing was moved meanwhile.
                Err(Errno::EAGAIN) => {}
                outcome => return outcome,
            }
        }
    }

    /// Makes a directory that the archive goes through but does not hold: like that of the layers below, or else an
    /// ordinary one.
    fn make_implied(
        &mut self,
        name: &[u8],
        whole: &[u8],
        entry: &Entry,
        opaque: bool,
    ) -> Result<(OwnedFd, Option<u32>, TimeSpec), UnpackError> {
        self.count()?;
        let wrong = |errno| failed("make the directory", whole, errno);
        mkdirat(self.here(), name, Mode::S_IRWXU).map_err(wrong)?;
        let fd = openat(self.here(), name, OPEN_DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty()).map_err(wrong)?;
        if opaque {
            whiteout::set_opaque(&fd).map_err(|source| failed("make opaque", whole, source))?;
        }
        let Some(like) = path::look_below(&self.options.below, whole) else {
            return Ok((fd, Some(0o755), TimeSpec::new(entry.mtime, entry.mtime_ns.into())));
        };
        if self.options.rights == Rights::Root {
            let (owner, group) = (Uid::from_raw(like.st_uid), Gid::from_raw(like.st_gid));
            fchown(&fd, Some(owner), Some(group)).map_err(wrong)?;
        }
        Ok((fd, Some(like.st_mode & 0o7777), modified(&like)))
    }

    /// Does what makes `name` here; what stands in its place is taken away first.
    fn replacing<T>(&self, name: &[u8], make: impl Fn(BorrowedFd<'_>) -> nix::Result<T>) -> nix::Result<T> {
        match make(self.here()) {
            Err(Errno::EEXIST) => {
                self.remove(name)?;
                make(self.here())
            }
            outcome => outcome,
        }
    }

    fn remove(&self, name: &[u8]) -> nix::Result<()> {
        match unlinkat(self.here(), name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR) if self.options.copy.is_none() => {
                use std::os::unix::ffi::OsStrExt;
                let here = format!("/proc/self/fd/{}", self.here().as_raw_fd());
                let path = std::path::Path::new(&here).join(std::ffi::OsStr::from_bytes(name));
                std::fs::remove_dir_all(path).map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
            }
            outcome => outcome,
        }
    }

    fn make_file<R: BufRead>(
        &mut self,
        name: &[u8],
        entry: &Entry,
        archive: &mut TarReader<'_, R>,
    ) -> Result<(), UnpackError> {
        let limit = self.options.limits.bytes;
        self.logical = (self.logical.checked_add(entry.size).filter(|sum| *sum <= limit))
            .ok_or(UnpackError::Limit { what: "bytes in files", limit })?;
        let wrong = |errno: Errno| failed("make", &entry.name, errno);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = self.replacing(name, |here| openat(here, name, flags, Mode::S_IRUSR | Mode::S_IWUSR));
        let mut file = File::from(file.map_err(wrong)?);
        let writing = |source| failed("write", &entry.name, source);
        let mut written = 0;
        match &entry.pieces {
            None => {
                while archive.data(u64::MAX, &mut |part| file.write_all(part).map_err(writing))? > 0 {}
                written = entry.size;
            }
            Some(pieces) => {
                for piece in pieces {
                    let (mut at, end) = (piece.offset, piece.offset + piece.length);
                    while at < end {
                        at += archive.data(end - at, &mut |part| file.write_all_at(part, at).map_err(writing))?;
                    }
                    written += piece.length;
                }
                file.set_len(entry.size).map_err(writing)?;
            }
        }
        self.written = self.written.saturating_add(written);
        self.describe_open(&file, entry)
    }

    fn make_directory(&mut self, name: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let wrong = |errno: Errno| failed("make the directory", &entry.name, errno);
        match mkdirat(self.here(), name, Mode::S_IRWXU) {
            Err(Errno::EEXIST) => {
                let there = fstatat(self.here(), name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(wrong)?;
                if SFlag::from_bits_truncate(there.st_mode & SFlag::S_IFMT.bits()) != SFlag::S_IFDIR {
                    if self.options.copy.is_some() {
                        return Err(wrong(Errno::ENOTDIR));
                    }
                    self.remove(name).map_err(wrong)?;
                    mkdirat(self.here(), name, Mode::S_IRWXU).map_err(wrong)?;
                    if whiteout::is(&there) {
                        let fd = openat(self.here(), name, OPEN_DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty());
                        whiteout::set_opaque(&fd.map_err(wrong)?)
                            .map_err(|source| failed("make opaque", &entry.name, source))?;
                    }
                }
            }
            outcome => outcome.map_err(wrong)?,
        }
        let fd = openat(self.here(), name, OPEN_DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty()).map_err(wrong)?;
        self.levels.push(Level { name: name.to_vec(), fd, mode: None, mtime: TimeSpec::new(0, 0) });
        if self.levels.len() > self.options.limits.depth + 1 {
            let limit = self.options.limits.depth as u64;
            return Err(UnpackError::Limit { what: "directories within each other", limit });
        }
        self.describe_directory(entry)
    }

    fn make_hard_link(&self, name: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let target = path::split(&entry.target, &self.options.limits)?;
        let Some((last, parents)) = target.split_last() else {
            let why = "it is a hard link to the root";
            return Err(UnpackError::Name { name: display(&entry.name), why });
        };
        let wrong = |errno| failed("make the hard link", &entry.name, errno);
        let parent = match parents {
            [] => self.resolve(b".", OFlag::O_PATH | OFlag::O_DIRECTORY),
            parents => self.resolve(&parents.join(&b'/'), OFlag::O_PATH | OFlag::O_DIRECTORY),
        };
        let parent = parent.map_err(wrong)?;
        match linkat(&parent, *last, self.here(), name, AtFlags::empty()) {
            Err(Errno::EEXIST) => {
                let inode = |at: BorrowedFd<'_>, name: &[u8]| -> nix::Result<(u64, u64)> {
                    let there = fstatat(at, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                    Ok((there.st_dev, there.st_ino))
                };
                if inode(parent.as_fd(), last) == inode(self.here(), name) {
                    return Ok(());
                }
                self.remove(name).map_err(wrong)?;
                linkat(&parent, *last, self.here(), name, AtFlags::empty()).map_err(wrong)
            }
            outcome => outcome.map_err(wrong),
        }
    }

    fn make_node(
        &self,
        name: &[u8],
        entry: &Entry,
        kind: SFlag,
        (major, minor): (u32, u32),
    ) -> Result<(), UnpackError> {
        let device = nix::sys::stat::makedev(major.into(), minor.into());
        let wrong = |errno: Errno| failed("make the device or pipe", &entry.name, errno);
        self.replacing(name, |here| mknodat(here, name, kind, Mode::S_IRUSR | Mode::S_IWUSR, device)).map_err(wrong)?;
        self.describe(name, entry)
    }
}

fn modified(stat: &FileStat) -> TimeSpec {
    TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec)
}

fn display(name: &[u8]) -> String {
    super::shown(name)
}

fn failed(act: &'static str, name: &[u8], source: impl Into<io::Error>) -> UnpackError {
    UnpackError::Entry { act, name: display(name), source: source.into() }
}
