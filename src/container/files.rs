//! The files of a container as others read and change them: `cp`, `export`.
//!
//! Nothing of the container is executed or loaded, and no path is resolved in two steps: [`Root`] is a descriptor of the
//! container's root directory, and every path of the container is resolved beneath it by the kernel (openat2 with
//! RESOLVE_IN_ROOT), so that neither a link nor one that is put there meanwhile leads out. Beyond that all is done in
//! open directories, by names that are not followed. (CVE-2018-15664 came of a path that was checked first and used
//! later, CVE-2019-14271 of a library that was loaded after a chroot into the container.)

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, SFlag, fstat};

use crate::image::pack::pack_files;
use crate::image::unpack::{self, Copying, Limits, Options, Rights, UnpackError};

mod arrange;
mod root;

pub use arrange::{Arrangement, Seen, Source, Wanted, arrange};
pub use root::Bound;

/// What went wrong with the files of a container.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// Something of the kernel's failed.
    #[error("cannot {act} {path}")]
    System {
        /// What was tried.
        act: &'static str,
        /// On which path: the container's, or the host's.
        path: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A path is not there.
    #[error("could not find the file {0}")]
    Missing(String),
    /// A copy cannot be arranged.
    #[error("{0}")]
    Arrangement(String),
    /// The files could not be read.
    #[error("cannot read {0}")]
    Read(String, #[source] io::Error),
    /// The files could not be made.
    #[error("cannot copy to {0}")]
    Write(String, #[source] UnpackError),
    /// A container's root cannot be reached.
    #[error("the container has ended meanwhile")]
    Ended,
    /// Its image.
    #[error(transparent)]
    Image(#[from] crate::image::ImageError),
}

impl FilesError {
    fn system<E: Into<io::Error>>(act: &'static str, path: impl Into<String>) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::System { act, path, source: source.into() }
    }
}

/// The root directory below which paths are resolved: a container's, or the host's.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    /// Whether nothing may lead out, as of a container.
    confined: bool,
    /// Which of the host's ids stand for those from 0 on inside, and how many.
    ids: Option<(u32, u32)>,
    /// What keeps a stopped container's mounts.
    _namespace: Option<OwnedFd>,
    /// What keeps a stopped container's layers.
    _image: Option<crate::image::Image>,
}

/// A path that was taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    /// What the last component stands in.
    parent: Vec<u8>,
    /// The last component; `.` for the root, and where the path says so.
    name: Vec<u8>,
    /// Whether it ends in `/` or `/.`, and so names a directory whatever stands there.
    directory: bool,
}

/// Takes a path apart. One that ends in `..` is its own parent.
fn parts(path: &Path) -> Parts {
    let bytes = path.as_os_str().as_bytes();
    let directory = bytes.is_empty() || bytes.ends_with(b"/") || bytes.ends_with(b"/.") || bytes == b".";
    let mut components: Vec<&[u8]> = bytes.split(|c| *c == b'/').filter(|c| !c.is_empty() && *c != b".").collect();
    let absolute = |components: &[&[u8]]| [b"/", components.join(&b'/').as_slice()].concat();
    match components.pop() {
        Some(b"..") => {
            components.push(b"..");
            Parts { parent: absolute(&components), name: b".".to_vec(), directory: true }
        }
        Some(name) => Parts { parent: absolute(&components), name: name.to_vec(), directory },
        None => Parts { parent: b"/".to_vec(), name: b".".to_vec(), directory: true },
    }
}

impl Root {
    /// The host's own, for the other end of a copy.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn of_host() -> Result<Self, FilesError> {
        let fd = File::open("/").map_err(FilesError::system("open", "/"))?.into();
        Ok(Self { fd, confined: false, ids: None, _namespace: None, _image: None })
    }

    /// Opens a path, which is taken from this root.
    fn open(&self, path: &[u8], flags: OFlag) -> nix::Result<OwnedFd> {
        let resolve = match self.confined {
            true => ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS,
            false => ResolveFlag::empty(),
        };
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
        loop {
            match openat2(self.fd.as_fd(), path, how) {
                // The kernel cannot be sure that nothing was moved meanwhile.
                Err(Errno::EAGAIN) => {}
                opened => return opened,
            }
        }
    }

    /// What stands at a path; a link itself unless `follow` says so or the path ends in a slash. `None`: nothing.
    ///
    /// # Errors
    /// When a directory on the way cannot be entered.
    pub fn look(&self, path: &Path, follow: bool) -> Result<Option<Seen>, FilesError> {
        let flags = if follow || parts(path).directory { OFlag::O_PATH } else { OFlag::O_PATH | OFlag::O_NOFOLLOW };
        let looked = self.open(&whole(path), flags).and_then(|fd| fstat(&fd));
        match looked {
            Ok(stat) if is(&stat, SFlag::S_IFDIR) => Ok(Some(Seen::Directory)),
            Ok(_) => Ok(Some(Seen::File)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(FilesError::system("look at", path.to_string_lossy())(errno)),
        }
    }

    /// Writes what stands at a path to an archive, under the name `called`; empty or `.` for a directory of which only
    /// the content is wanted. Where the path is a link, the link is written, unless `follow` says to go through it.
    ///
    /// # Errors
    /// When it is not there or cannot be read, or the archive cannot be written.
    pub fn read(&self, path: &Path, follow: bool, called: &[u8], to: &mut dyn Write) -> Result<(), FilesError> {
        let shown = path.to_string_lossy().into_owned();
        let (place, name) = self.place(path, follow)?;
        pack_files(place.as_fd(), &name, called, self.ids, false, to).map_err(|source| FilesError::Read(shown, source))
    }

    /// Writes the root's own file system to an archive, without what is mounted in it.
    ///
    /// # Errors
    /// When it cannot be read, or the archive cannot be written.
    pub fn read_all(&self, to: &mut dyn Write) -> Result<(), FilesError> {
        let packed = pack_files(self.fd.as_fd(), c".", b"", self.ids, true, to);
        packed.map_err(|source| FilesError::Read("/".to_owned(), source))
    }

    /// The open directory that something stands in, and its name there.
    fn place(&self, path: &Path, follow: bool) -> Result<(OwnedFd, CString), FilesError> {
        const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY);
        let shown = || path.to_string_lossy().into_owned();
        let wrong = |errno| match errno {
            Errno::ENOENT => FilesError::Missing(shown()),
            errno => FilesError::system("open", shown())(errno),
        };
        let mut path = path.to_owned();
        for _ in 0..MOST_LINKS {
            let Parts { parent, name, directory } = parts(&path);
            if directory {
                return Ok((self.open(&whole(&path), DIRECTORY).map_err(wrong)?, c".".to_owned()));
            }
            let here = self.open(&parent, DIRECTORY).map_err(wrong)?;
            let name = CString::new(name).map_err(|_| FilesError::Missing(shown()))?;
            match nix::fcntl::readlinkat(&here, name.as_c_str()) {
                // The target is resolved anew from the root, so that it is never used outside of it.
                Ok(target) if follow => path = Path::new(std::ffi::OsStr::from_bytes(&parent)).join(target),
                Ok(_) | Err(Errno::EINVAL) => return Ok((here, name)),
                Err(errno) => return Err(wrong(errno)),
            }
        }
        Err(wrong(Errno::ELOOP))
    }

    /// Copies the entries of an archive into a directory. A file of a name that is there is replaced; a directory by a
    /// file, or the other way about, is an error. Without `keep` the copies belong to root and have no set-user-id bits.
    ///
    /// # Errors
    /// When the directory is not there, the archive is damaged, or an entry cannot be made. What was made by then stays.
    pub fn write<R: Read + Send>(&self, directory: &Path, archive: R, keep: bool) -> Result<(), FilesError> {
        let shown = directory.to_string_lossy().into_owned();
        let opened = self.open(&whole(directory), OFlag::O_RDONLY | OFlag::O_DIRECTORY);
        let opened = opened.map_err(|errno| match errno {
            Errno::ENOENT => FilesError::Missing(shown.clone()),
            errno => FilesError::system("open the directory", shown.clone())(errno),
        })?;
        let (first_id, _) = self.ids.unwrap_or((0, 0));
        let owner = if keep { None } else { Some((0, 0)) };
        // A device or a set-user-id program of a container is nothing to put on the host unasked.
        let copy = Copying { owner, first_id, special: self.confined || keep };
        let options = Options {
            limits: Limits { bytes: u64::MAX >> 1, entries: u64::MAX, ..Limits::default() },
            rights: Rights::own(),
            below: Vec::new(),
            end_marker: false,
            whiteouts: false,
            copy: Some(copy),
        };
        let unpacked = match self.ids {
            None => unpack::unpack(archive, &File::from(opened), &options),
            Some(_) => std::thread::scope(|scope| {
                // The file system is the user namespace's, in which only its own ids can make something.
                let thread = scope.spawn(|| {
                    act_as(first_id).map_err(UnpackError::Read)?;
                    unpack::unpack(archive, &File::from(opened), &options)
                });
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            }),
        };
        unpacked.map(drop).map_err(|error| FilesError::Write(shown, error))
    }
}

/// As many links as the kernel follows.
const MOST_LINKS: u32 = 40;

/// Makes this thread own what it makes as another id, with its capabilities.
fn act_as(id: u32) -> io::Result<()> {
    use rustix::thread::{capabilities, set_capabilities};
    nix::unistd::setfsuid(nix::unistd::Uid::from_raw(id));
    nix::unistd::setfsgid(nix::unistd::Gid::from_raw(id));
    // The kernel took those away that are about files.
    let mut sets = capabilities(None)?;
    sets.effective = sets.permitted;
    Ok(set_capabilities(None, sets)?)
}

/// A path from the root on; never empty.
fn whole(path: &Path) -> Vec<u8> {
    let mut whole = b"/".to_vec();
    whole.extend_from_slice(path.as_os_str().as_bytes());
    whole
}

fn is(stat: &FileStat, kind: SFlag) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == kind.bits()
}

/// The last component of a path, for a copy's name; `.` where there is none.
#[must_use]
pub fn base_name(path: &Path) -> Vec<u8> {
    parts(path).name
}

/// Where the last component of a path stands.
#[must_use]
pub fn parent(path: &Path) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(&parts(path).parent))
}

#[cfg(test)]
mod tests;
