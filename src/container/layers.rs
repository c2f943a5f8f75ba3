//! Reads a file of a container's root without mounting it: what overlayfs would show of a stack of directories.
//!
//! The directories belong to containers, which may fill them with links that lead outside and may change them meanwhile.
//! So no path is ever given to the kernel: each name is opened by itself, beneath the open directories of the one
//! before it, and symbolic links are followed here.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

/// How many symbolic links are followed, as the kernel does.
const MOST_LINKS: u32 = 40;

/// The attributes of a directory that hides what lies below it.
const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// Why a file of a container's root cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LayersError {
    /// A directory of the stack cannot be opened.
    #[error("cannot open {}", path.display())]
    Layer {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be opened or read.
    #[error("cannot read {} of the container", path.display())]
    File {
        /// The path inside.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a directory, a device, or the like.
    #[error("{} of the container is no regular file", .0.display())]
    NotRegular(PathBuf),
    /// It is too large.
    #[error("{} of the container is larger than {largest} bytes", path.display())]
    TooLarge {
        /// The path inside.
        path: PathBuf,
        /// The most that is read.
        largest: u64,
    },
}

/// The content of a regular file, at most `largest` bytes. `directories` has the topmost one first. `None` when there is
/// no such file.
///
/// # Errors
/// When a directory cannot be opened, or the file is no regular one, is too large or cannot be read.
pub fn read<P: AsRef<Path>>(directories: &[P], path: &str, largest: u64) -> Result<Option<Vec<u8>>, LayersError> {
    let path = Path::new(path);
    let failed = |source: io::Error| LayersError::File { path: path.to_owned(), source };
    let file = match open(directories, path)? {
        Found::Nothing => return Ok(None),
        Found::File(file) => file,
        Found::Other => return Err(LayersError::NotRegular(path.to_owned())),
    };
    let mut content = Vec::new();
    file.take(largest + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > largest {
        return Err(LayersError::TooLarge { path: path.to_owned(), largest });
    }
    Ok(Some(content))
}

/// What a path leads to.
enum Found {
    Nothing,
    File(File),
    Other,
}

fn open<P: AsRef<Path>>(directories: &[P], path: &Path) -> Result<Found, LayersError> {
    let mut root = Vec::new();
    for directory in directories {
        let directory = directory.as_ref();
        let opened = rustix::fs::open(directory, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let layer = |errno: Errno| LayersError::Layer { path: directory.to_owned(), source: errno.into() };
        root.push(opened.map_err(layer)?);
    }
    walk(root, path).map_err(|errno| LayersError::File { path: path.to_owned(), source: errno.into() })
}

/// The directories of one path, merged, the topmost first.
type Merged = Vec<OwnedFd>;

fn walk(root: Merged, path: &Path) -> Result<Found, Errno> {
    let mut ahead = names(path);
    let mut parents: Vec<Merged> = vec![root];
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        if name == ".." {
            // Above the root there is the root.
            if parents.len() > 1 {
                parents.pop();
            }
            continue;
        }
        let Some(here) = parents.last() else { return Ok(Found::Nothing) };
        match look_up(here, &name)? {
            Entry::Nothing => return Ok(Found::Nothing),
            Entry::Directory(merged) => parents.push(merged),
            Entry::Link(target) => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::LOOP);
                }
                if target.is_absolute() {
                    parents.truncate(1);
                }
                ahead.extend(names(&target));
            }
            Entry::Regular(file) if ahead.is_empty() => return Ok(Found::File(file)),
            // Beneath a file there is nothing.
            Entry::Regular(_) | Entry::Other if !ahead.is_empty() => return Ok(Found::Nothing),
            Entry::Regular(_) | Entry::Other => return Ok(Found::Other),
        }
    }
    Ok(Found::Other)
}

/// The names of a path, the last one first.
fn names(path: &Path) -> Vec<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    };
    let mut names: Vec<OsString> = path.components().filter_map(name).collect();
    names.reverse();
    names
}

/// What a name stands for in merged directories.
enum Entry {
    Nothing,
    Directory(Merged),
    Link(PathBuf),
    Regular(File),
    Other,
}

fn look_up(directories: &Merged, name: &OsStr) -> Result<Entry, Errno> {
    let mut merged = Merged::new();
    for directory in directories {
        let status = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            status => status?,
        };
        let kind = FileType::from_raw_mode(status.st_mode);
        if kind == FileType::Directory {
            let opened = open_at(directory, name, OFlags::DIRECTORY)?;
            let opaque = is_opaque(&opened);
            merged.push(opened);
            if opaque {
                break;
            }
            continue;
        }
        // What is no directory ends the stack: a whiteout hides what lies below, and so does any other file.
        if !merged.is_empty() {
            break;
        }
        return match kind {
            FileType::CharacterDevice if status.st_rdev == 0 => Ok(Entry::Nothing),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new())?;
                Ok(Entry::Link(PathBuf::from(OsStr::from_bytes(target.as_bytes()))))
            }
            FileType::RegularFile => {
                // It may have become a pipe since.
                let file = File::from(open_at(directory, name, OFlags::NONBLOCK)?);
                let regular = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) == FileType::RegularFile;
                Ok(if regular { Entry::Regular(file) } else { Entry::Other })
            }
            _ => Ok(Entry::Other),
        };
    }
    Ok(if merged.is_empty() { Entry::Nothing } else { Entry::Directory(merged) })
}

fn open_at(directory: &OwnedFd, name: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(directory, name, flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn is_opaque(directory: &impl AsFd) -> bool {
    let mut value = [0; 4];
    OPAQUE.iter().any(|name| rustix::fs::fgetxattr(directory, *name, &mut value) == Ok(1) && value[0] == b'y')
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Three layers, the topmost first.
    fn layers() -> (tempfile::TempDir, [PathBuf; 3]) {
        let place = tempfile::tempdir().unwrap();
        let layers = ["upper", "middle", "lower"].map(|name| place.path().join(name));
        for layer in &layers {
            fs::create_dir_all(layer.join("etc")).unwrap();
        }
        fs::write(place.path().join("secret"), "of the host").unwrap();
        (place, layers)
    }

    fn text(layers: &[PathBuf], path: &str) -> Option<String> {
        read(layers, path, 100).unwrap().map(|content| String::from_utf8(content).unwrap())
    }

    fn hide(path: PathBuf) {
        use nix::sys::stat::{Mode, SFlag, mknod};
        mknod(&path, SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
    }

    #[test]
    fn the_topmost_one_is_read() {
        let (_place, layers) = layers();
        fs::write(layers[2].join("etc/passwd"), "lower").unwrap();
        assert_eq!(text(&layers, "/etc/passwd").as_deref(), Some("lower"));
        fs::write(layers[1].join("etc/passwd"), "middle").unwrap();
        assert_eq!(text(&layers, "/etc/passwd").as_deref(), Some("middle"));
        assert_eq!(text(&layers, "/etc/group"), None);
        assert_eq!(text(&layers, "/etc/passwd/beneath"), None);
    }

    #[test]
    fn whiteouts_and_opaque_directories_hide() {
        let (_place, layers) = layers();
        fs::write(layers[2].join("etc/passwd"), "lower").unwrap();
        fs::write(layers[2].join("etc/group"), "lower").unwrap();
        hide(layers[0].join("etc/passwd"));
        assert_eq!(text(&layers, "/etc/passwd"), None);
        assert_eq!(text(&layers, "/etc/group").as_deref(), Some("lower"));
        rustix::fs::setxattr(layers[1].join("etc"), OPAQUE[1], b"y", rustix::fs::XattrFlags::empty()).unwrap();
        assert_eq!(text(&layers, "/etc/group"), None);
        fs::remove_dir(layers[1].join("etc")).unwrap();
        assert_eq!(text(&layers, "/etc/group").as_deref(), Some("lower"));
        hide(layers[1].join("etc"));
        assert_eq!(text(&layers, "/etc/group"), None);
    }

    #[test]
    fn links_stay_inside_and_cross_layers() {
        let (_place, layers) = layers();
        fs::create_dir_all(layers[2].join("usr/share")).unwrap();
        fs::write(layers[2].join("usr/share/passwd"), "far").unwrap();
        symlink("/usr/share/passwd", layers[0].join("etc/passwd")).unwrap();
        symlink("../usr/share/passwd", layers[0].join("etc/relative")).unwrap();
        symlink("../../../../../../secret", layers[0].join("etc/climbs")).unwrap();
        symlink("/secret", layers[0].join("etc/absolute")).unwrap();
        symlink("loop", layers[0].join("etc/loop")).unwrap();
        assert_eq!(text(&layers, "/etc/passwd").as_deref(), Some("far"));
        assert_eq!(text(&layers, "/etc/relative").as_deref(), Some("far"));
        assert_eq!(text(&layers, "/../../etc/./relative").as_deref(), Some("far"));
        assert_eq!((text(&layers, "/etc/climbs"), text(&layers, "/etc/absolute")), (None, None));
        assert!(matches!(read(&layers, "/etc/loop", 1), Err(LayersError::File { .. })));
    }

    #[test]
    fn only_regular_files_of_a_bounded_size() {
        let (_place, layers) = layers();
        nix::unistd::mkfifo(&layers[0].join("etc/passwd"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(read(&layers, "/etc/passwd", 100), Err(LayersError::NotRegular(_))));
        assert!(matches!(read(&layers, "/etc", 100), Err(LayersError::NotRegular(_))));
        fs::write(layers[0].join("etc/group"), "x".repeat(101)).unwrap();
        assert!(matches!(read(&layers, "/etc/group", 100), Err(LayersError::TooLarge { .. })));
        assert_eq!(read(&layers, "/etc/group", 101).unwrap().unwrap().len(), 101);
    }
}
