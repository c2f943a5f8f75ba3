//! What a container changed over its image, as `diff` shows it.
//!
//! The upper directory is a container's, which may change it meanwhile: it is walked by descriptors and no link is
//! followed.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};

use super::pack::Tree;
use super::unpack::whiteout;
use crate::fs::FileError;

/// How a path differs from the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// It was added.
    Added,
    /// It, or something in it, was changed.
    Changed,
    /// It was removed.
    Deleted,
}

impl Difference {
    /// Docker's letter for it.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'C',
            Self::Deleted => 'D',
        }
    }
}

/// The upper directory of an overlay: what a container changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upper<'a> {
    pub(super) path: &'a Path,
    pub(super) tree: Tree,
}

impl<'a> Upper<'a> {
    /// Of a container in a user namespace, whose overlay keeps its notes in other attributes.
    #[must_use]
    pub fn of_user_namespace(path: &'a Path) -> Self {
        Self { path, tree: Tree::UserChanges }
    }
}

impl<'a> From<&'a Path> for Upper<'a> {
    fn from(path: &'a Path) -> Self {
        Self { path, tree: Tree::Changes }
    }
}

impl<'a> From<&'a PathBuf> for Upper<'a> {
    fn from(path: &'a PathBuf) -> Self {
        path.as_path().into()
    }
}

/// The deepest directory that is looked into, as it is the deepest that is packed.
const MOST_DEPTH: usize = 256;

/// The differences that the upper directory of an overlay makes to the layers below, the topmost first; by path.
///
/// # Errors
/// When a directory cannot be read.
pub fn changes<'a>(upper: impl Into<Upper<'a>>, below: &[PathBuf]) -> Result<Vec<(Difference, PathBuf)>, FileError> {
    let Upper { path: upper, tree } = upper.into();
    let open = |path: &Path| File::open(path).map(OwnedFd::from).map_err(FileError::new("open", path));
    let layers = below.iter().map(|layer| open(layer)).collect::<Result<_, _>>()?;
    let mut comparison = Comparison { layers, opaque: tree.opaque_attribute(), found: Vec::new() };
    let top = open(upper)?;
    comparison.directory(&top, Path::new(""), false).map_err(FileError::new("compare", upper))?;
    let mut found = comparison.found;
    found.sort_by(|(_, a), (_, b)| a.cmp(b));
    Ok(found)
}

struct Comparison {
    /// The layers below, the topmost first.
    layers: Vec<OwnedFd>,
    /// The attribute that tells the overlay of an opaque directory.
    opaque: Option<&'static str>,
    found: Vec<(Difference, PathBuf)>,
}

impl Comparison {
    fn note(&mut self, how: Difference, inside: &Path) {
        self.found.push((how, Path::new("/").join(inside)));
    }

    /// An open directory of the upper one. `hidden` says that nothing below shows through here, because a directory on
    /// the way is opaque.
    fn directory(&mut self, here: &OwnedFd, inside: &Path, hidden: bool) -> io::Result<()> {
        if inside.components().count() > MOST_DEPTH {
            return Err(io::Error::other(format!("there are more than {MOST_DEPTH} directories within each other")));
        }
        let opaque = self.is_opaque(here)?;
        if opaque && !hidden {
            for name in self.names_below(inside)? {
                if look(here, &name)?.is_none() {
                    self.note(Difference::Deleted, &inside.join(&name));
                }
            }
        }
        for name in names(here)? {
            // A container that runs may take away what was listed.
            let Some(stat) = look(here, &name)? else { continue };
            let path = inside.join(&name);
            let old = if hidden { None } else { self.look_below(&path)? };
            if whiteout::is(&stat) {
                if old.is_some() {
                    self.note(Difference::Deleted, &path);
                }
                continue;
            }
            self.note(if old.is_some() { Difference::Changed } else { Difference::Added }, &path);
            if is_directory(&stat)
                && let Some(directory) = enter(here, &name)?
            {
                let was_directory = old.is_some_and(|old| is_directory(&old));
                self.directory(&directory, &path, hidden || opaque || !was_directory)?;
            }
        }
        Ok(())
    }

    /// What the image has under a path: each directory on the way may be hidden by a layer above.
    fn look_below(&self, path: &Path) -> io::Result<Option<FileStat>> {
        for layer in &self.layers {
            match self.look_into(layer, path)? {
                Seen::There(stat) => return Ok(Some(stat)),
                Seen::Hidden => return Ok(None),
                Seen::Through => {}
            }
        }
        Ok(None)
    }

    /// What one layer says of a path.
    fn look_into(&self, layer: &OwnedFd, path: &Path) -> io::Result<Seen> {
        let mut directory = layer.try_clone()?;
        let mut opaque = false;
        let mut names = path.iter().peekable();
        while let Some(name) = names.next() {
            opaque |= self.is_opaque(&directory)?;
            match look(&directory, name)? {
                None if opaque => return Ok(Seen::Hidden),
                None => return Ok(Seen::Through),
                Some(stat) if whiteout::is(&stat) => return Ok(Seen::Hidden),
                Some(stat) if names.peek().is_none() => return Ok(Seen::There(stat)),
                Some(_) => match enter(&directory, name)? {
                    Some(next) => directory = next,
                    None => return Ok(Seen::Hidden),
                },
            }
        }
        Ok(Seen::Through)
    }

    fn is_opaque(&self, directory: &OwnedFd) -> io::Result<bool> {
        whiteout::is_opaque(self.opaque.as_slice(), |name, value| rustix::fs::fgetxattr(directory, name, value))
    }

    /// The names that the image has in a directory.
    fn names_below(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let mut all = BTreeSet::new();
        for layer in &self.layers {
            let mut directory = layer.try_clone()?;
            let mut there = true;
            for name in path {
                match enter(&directory, name)? {
                    Some(next) => directory = next,
                    None => there = false,
                }
                if !there {
                    break;
                }
            }
            if there {
                all.extend(names(&directory)?);
            }
        }
        let mut shown = Vec::new();
        for name in all {
            if self.look_below(&path.join(&name))?.is_some() {
                shown.push(name);
            }
        }
        Ok(shown)
    }
}

/// What one layer says of a path.
enum Seen {
    There(FileStat),
    /// Nothing, and those below it show.
    Through,
    /// Nothing, and none below shows.
    Hidden,
}

/// What stands in a directory under a name, itself where it is a link.
fn look(directory: &OwnedFd, name: &OsStr) -> io::Result<Option<FileStat>> {
    match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a directory in another; `None` where there is none by now. A link in its place is not followed.
fn enter(directory: &OwnedFd, name: &OsStr) -> io::Result<Option<OwnedFd>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(directory, name, flags, Mode::empty()) {
        Ok(opened) => Ok(Some(opened)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn names(directory: &OwnedFd) -> io::Result<Vec<OsString>> {
    // Opened anew: copies of a descriptor have one position among them.
    let opened = openat(directory, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::from_fd(opened)?.iter() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn is_directory(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_without_following_links() {
        let place = tempfile::tempdir().unwrap();
        let [upper, top, bottom] = ["upper", "top", "bottom"].map(|name| place.path().join(name));
        for directory in ["upper/d/new", "upper/o", "top/d", "bottom/d", "bottom/o", "bottom/l"] {
            std::fs::create_dir_all(place.path().join(directory)).unwrap();
        }
        for file in ["upper/d/f", "top/d/f", "bottom/d/g", "bottom/o/gone", "bottom/l/f", "upper/o/in"] {
            std::fs::write(place.path().join(file), "").unwrap();
        }
        // Links to a directory: where the image has one, and where it has none.
        for link in ["upper/l", "upper/m"] {
            std::os::unix::fs::symlink(&bottom, place.path().join(link)).unwrap();
        }
        let opaque = whiteout::OPAQUE_ATTRIBUTES[1];
        rustix::fs::lsetxattr(upper.join("o"), opaque, b"y", rustix::fs::XattrFlags::empty()).unwrap();
        let layers = [top, bottom];
        let told = |upper: Upper<'_>| -> Vec<String> {
            let found = changes(upper, &layers).unwrap();
            found.iter().map(|(how, path)| format!("{} {}", how.letter(), path.display())).collect()
        };
        let user = told(Upper::of_user_namespace(&upper));
        assert_eq!(user, ["C /d", "C /d/f", "A /d/new", "C /l", "A /m", "C /o", "D /o/gone", "A /o/in"]);
        // Elsewhere the attribute is no more than one that was copied up with a directory.
        let root = told(Upper::from(&upper));
        assert_eq!(root, ["C /d", "C /d/f", "A /d/new", "C /l", "A /m", "C /o", "A /o/in"]);
    }
}
