//! What a container changed over its image, as `diff` shows it.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

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

/// The differences that the upper directory of an overlay makes to the layers below, the topmost first; by path.
///
/// # Errors
/// When a directory cannot be read.
pub fn changes(upper: &Path, below: &[PathBuf]) -> Result<Vec<(Difference, PathBuf)>, FileError> {
    let mut found = Vec::new();
    walk(upper, below, Path::new("/"), false, &mut found).map_err(FileError::new("compare", upper))?;
    found.sort_by(|(_, a), (_, b)| a.cmp(b));
    Ok(found)
}

/// `hidden` says that nothing below shows through here, because a directory on the way is opaque.
fn walk(
    upper: &Path,
    below: &[PathBuf],
    inside: &Path,
    hidden: bool,
    found: &mut Vec<(Difference, PathBuf)>,
) -> io::Result<()> {
    let relative = |path: &Path| path.strip_prefix("/").unwrap_or(path).to_owned();
    let opaque = is_opaque(&upper.join(relative(inside)))?;
    if opaque && !hidden {
        for name in names_below(below, &relative(inside))? {
            let path = inside.join(&name);
            if std::fs::symlink_metadata(upper.join(relative(&path))).is_err() {
                found.push((Difference::Deleted, path));
            }
        }
    }
    for entry in std::fs::read_dir(upper.join(relative(inside)))? {
        let entry = entry?;
        let path = inside.join(entry.file_name());
        let metadata = entry.metadata()?;
        let old = if hidden { None } else { look_below(below, &relative(&path))? };
        if is_whiteout(&metadata) {
            if old.is_some() {
                found.push((Difference::Deleted, path));
            }
            continue;
        }
        found.push((if old.is_some() { Difference::Changed } else { Difference::Added }, path.clone()));
        if metadata.is_dir() {
            let was_directory = old.is_some_and(|old| old.is_dir());
            walk(upper, below, &path, hidden || opaque || !was_directory, found)?;
        }
    }
    Ok(())
}

fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn is_opaque(directory: &Path) -> io::Result<bool> {
    let mut value = [0; 1];
    match rustix::fs::lgetxattr(directory, super::unpack::whiteout::OPAQUE_ATTRIBUTE, &mut value[..]) {
        Ok(length) => Ok(value[..length] == *b"y"),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What the image has under a path: each directory on the way may be hidden by a layer above.
fn look_below(below: &[PathBuf], path: &Path) -> io::Result<Option<Metadata>> {
    'layers: for layer in below {
        let mut at = layer.clone();
        let mut opaque = false;
        let mut components = path.components().peekable();
        while let Some(component) = components.next() {
            at.push(component);
            let last = components.peek().is_none();
            match std::fs::symlink_metadata(&at) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if opaque {
                        return Ok(None);
                    }
                    continue 'layers;
                }
                Err(error) => return Err(error),
                Ok(metadata) if is_whiteout(&metadata) => return Ok(None),
                Ok(metadata) if last => return Ok(Some(metadata)),
                Ok(metadata) if metadata.is_dir() => opaque |= is_opaque(&at)?,
                Ok(_) => return Ok(None),
            }
        }
    }
    Ok(None)
}

/// The names that the image has in a directory.
fn names_below(below: &[PathBuf], path: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = std::collections::BTreeSet::new();
    for layer in below {
        let listing = match std::fs::read_dir(layer.join(path)) {
            Ok(listing) => listing,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(error),
        };
        for entry in listing {
            names.insert(entry?.file_name());
        }
    }
    let mut shown = Vec::new();
    for name in names {
        if look_below(below, &path.join(&name))?.is_some() {
            shown.push(name);
        }
    }
    Ok(shown)
}
