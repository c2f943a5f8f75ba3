//! The `self` image: a root file system that holds this very binary and the few files a program expects.
//!
//! Nothing to download, nothing to install. It is made on first use under [`super::STORE`], once for each build of
//! the binary, and shared by every process of that build.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::{RootFs, STORE, WORKLOAD_PATH};
use crate::fs::{FileError, Lock, create_dirs};

/// Directories of the root. Those that the engine mounts on are here too, so that no start has to make them.
const DIRECTORIES: [(&str, u32); 13] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("mnt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("var", 0o755),
    ("var/tmp", 0o1777),
];

/// Files of the root.
const FILES: [(&str, &str); 6] = [
    ("etc/passwd", "root:x:0:0:root:/root:/isobench\nnobody:x:65534:65534:nobody:/:/isobench\n"),
    ("etc/group", "root:x:0:\ntty:x:5:\nnobody:x:65534:\n"),
    ("etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost\n"),
    ("etc/hostname", "localhost\n"),
    ("etc/resolv.conf", ""),
    ("etc/os-release", "ID=isobench\nNAME=\"isobench self image\"\n"),
];

/// The `self` image of the running binary; made if it is missing.
///
/// # Errors
/// When the store cannot be written or the binary cannot be read.
pub fn root_fs() -> Result<RootFs, FileError> {
    Ok(RootFs { layers: vec![made("", fill_root)?] })
}

/// A layer with nothing but the running binary (and its shared objects, where it has any), to be stacked on any image;
/// made if it is missing.
///
/// # Errors
/// As [`root_fs`].
pub fn workload_layer() -> Result<PathBuf, FileError> {
    made("-workload", fill_workload)
}

/// The directory of this build and kind, filled if it is missing.
fn made(suffix: &str, fill: fn(&Path, &Path) -> Result<(), FileError>) -> Result<PathBuf, FileError> {
    let images = Path::new(STORE).join("self");
    let binary = Path::new("/proc/self/exe");
    let target = images.join(build_key(binary)? + suffix);
    if !target.exists() {
        create_dirs(&images)?;
        let _lock = Lock::exclusive(images.join("lock"))?;
        if !target.exists() {
            make(binary, &images, &target, fill)?;
        }
    }
    Ok(target)
}

/// Removes the `self` images of other builds, which no process of this build can be using.
///
/// An image may be in use by a running process of another build; its overlay mounts keep the directory's content
/// reachable, but new starts of that process would fail, so images younger than a day are left alone.
///
/// # Errors
/// When the store cannot be listed or an image cannot be removed.
pub fn remove_stale() -> Result<u32, FileError> {
    const KEEP: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
    let images = Path::new(STORE).join("self");
    let current = build_key(Path::new("/proc/self/exe"))?;
    let entries = match std::fs::read_dir(&images) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(FileError::new("list", images)(error)),
    };
    let mut removed = 0;
    for entry in entries.flatten() {
        let path = entry.path();
        let old = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > KEEP));
        let own = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&current));
        if path.is_dir() && old && !own {
            std::fs::remove_dir_all(&path).map_err(FileError::new("remove", &path))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// What tells builds apart without reading the whole binary at each start.
fn build_key(binary: &Path) -> Result<String, FileError> {
    let metadata = std::fs::metadata(binary).map_err(FileError::new("look at", binary))?;
    Ok(format!("{:x}-{:x}-{:x}-{:x}", metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec()))
}

/// Builds a directory beside its place and moves it there in one step.
fn make(
    binary: &Path,
    images: &Path,
    target: &Path,
    fill: fn(&Path, &Path) -> Result<(), FileError>,
) -> Result<(), FileError> {
    let staging = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(PermissionsExt::from_mode(0o755))
        .tempdir_in(images)
        .map_err(FileError::new("create a directory in", images))?;
    fill(binary, staging.path())?;
    std::fs::rename(staging.path(), target).map_err(FileError::new("move the image to", target))
}

fn fill_root(binary: &Path, root: &Path) -> Result<(), FileError> {
    for (name, mode) in DIRECTORIES {
        let path = root.join(name);
        std::fs::create_dir(&path).map_err(FileError::new("create directory", &path))?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).map_err(FileError::new("chmod", &path))?;
    }
    for (name, content) in FILES {
        let path = root.join(name);
        std::fs::write(&path, content).map_err(FileError::new("write", &path))?;
    }
    let link = root.join("usr/bin/isobench");
    symlink(WORKLOAD_PATH, &link).map_err(FileError::new("link", link))?;
    fill_workload(binary, root)
}

fn fill_workload(binary: &Path, root: &Path) -> Result<(), FileError> {
    copy(binary, &root.join(WORKLOAD_PATH.trim_start_matches('/')))?;
    for library in shared_objects()? {
        let place = root.join(library.strip_prefix("/").unwrap_or(&library));
        if let Some(parent) = place.parent() {
            create_dirs(parent)?;
        }
        copy(&library, &place)?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), FileError> {
    std::fs::copy(from, to).map_err(FileError::new("copy to", to))?;
    std::fs::set_permissions(to, PermissionsExt::from_mode(0o755)).map_err(FileError::new("chmod", to))
}

/// The shared objects that this process has mapped, the dynamic loader among them: none for a static binary.
fn shared_objects() -> Result<BTreeSet<PathBuf>, FileError> {
    let maps = crate::fs::read_text("/proc/self/maps")?;
    let paths = maps.lines().filter_map(|line| line.split_whitespace().nth(5)).map(PathBuf::from);
    Ok(paths.filter(|path| path.is_absolute() && path.to_string_lossy().contains(".so")).collect())
}
