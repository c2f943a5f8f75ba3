//! Names of entries, taken apart, and what the layers below hold under them.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, SFlag, fstat};

use super::super::{Limits, UnpackError, whiteout};
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

/// The topmost layer's directory of this path, unless a layer above hides it.
pub(super) fn look_below(below: &[PathBuf], path: &[u8]) -> Option<FileStat> {
    for layer in below {
        let layer = File::open(layer).ok()?;
        match resolve(&layer, path, OFlag::O_PATH) {
            Err(nix::errno::Errno::ENOENT) if hides(&layer, path) => return None,
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

fn resolve(layer: &File, path: &[u8], flags: OFlag) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(layer, path, how)
}

/// Whether a layer hides what lies below it under a path that it does not have: a directory on the way is opaque.
fn hides(layer: &File, path: &[u8]) -> bool {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    let parents = std::iter::once(&b"."[..]).chain(ends.map(|end| &path[..end]));
    for parent in parents {
        let Ok(directory) = resolve(layer, parent, OFlag::O_RDONLY | OFlag::O_DIRECTORY) else { return false };
        let get = |attribute: &str, value: &mut [u8]| rustix::fs::fgetxattr(&directory, attribute, value);
        let opaque = whiteout::is_opaque(&whiteout::OPAQUE_ATTRIBUTES, get);
        if opaque.unwrap_or(false) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_an_opaque_directory_hides_is_not_seen() {
        let place = tempfile::tempdir().unwrap();
        let layers = ["top", "bottom"].map(|name| place.path().join(name));
        std::fs::create_dir_all(layers[0].join("a/b")).unwrap();
        std::fs::create_dir_all(layers[1].join("a/b/c")).unwrap();
        let mode = PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(layers[1].join("a/b/c"), mode).unwrap();
        let seen = || look_below(&layers, b"a/b/c").map(|stat| stat.st_mode & 0o777);
        assert_eq!(seen(), Some(0o711));
        for directory in ["", "a", "a/b"] {
            let directory = layers[0].join(directory);
            let opaque = whiteout::OPAQUE_ATTRIBUTES[1];
            rustix::fs::lsetxattr(&directory, opaque, b"y", rustix::fs::XattrFlags::empty()).unwrap();
            assert_eq!(seen(), None, "{}", directory.display());
            rustix::fs::lremovexattr(&directory, opaque).unwrap();
        }
        assert_eq!(seen(), Some(0o711));
    }
}
