//! Names of entries, taken apart, and what the layers below hold under them.

use std::fs::File;
use std::path::PathBuf;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, SFlag, fstat};

use super::super::{Limits, UnpackError};
use super::display;

/// The components of a path.
pub(super) type Split<'a> = &'a [&'a [u8]];

/// Takes a name apart. An absolute one is taken from the root, which is the layer's.
pub(super) fn split<'a>(name: &'a [u8], limits: &Limits) -> Result<Vec<&'a [u8]>, UnpackError> {
    let wrong = |why| UnpackError::Name { name: display(&name[..name.len().min(256)]), why };
    if name.len() > limits.path {
        return Err(wrong("its path is longer than is allowed"));
    }
    if name.contains(&0) {
        return Err(wrong("it holds a NUL byte"));
    }
    let components = name.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    let components: Vec<&[u8]> = components.collect();
    if components.contains(&&b".."[..]) {
        return Err(UnpackError::Outside(display(name)));
    }
    if components.iter().any(|part| part.len() > 255) {
        return Err(wrong("a part of its path is longer than 255 bytes"));
    }
    if components.len() > limits.depth {
        return Err(UnpackError::Limit { what: "directories within each other", limit: limits.depth as u64 });
    }
    Ok(components)
}

/// The topmost layer's directory of this path.
pub(super) fn look_below(below: &[PathBuf], path: &[u8]) -> Option<FileStat> {
    for layer in below {
        let layer = File::open(layer).ok()?;
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        match openat2(&layer, path, how) {
            Err(nix::errno::Errno::ENOENT) => {}
            Err(_) => return None,
            Ok(found) => {
                let stat = fstat(&found).ok()?;
                let is_directory = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
                return is_directory.then_some(stat);
            }
        }
    }
    None
}
