//! Files with errors that name the path and the act: whole-file reads, atomic writes, locks.
//!
//! Used by every layer that touches ordinary files. The hot path of a container start does not come through here.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What went wrong with a file, and with which.
#[derive(Debug, thiserror::Error)]
#[error("cannot {act} {}", path.display())]
pub struct FileError {
    /// What was tried: `read`, `write`, `create`, …
    pub act: &'static str,
    /// On which path.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

impl FileError {
    /// Names the act and the path of an I/O error; made for `map_err`.
    pub fn new(act: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self { act, path, source }
    }

    /// Whether the path was not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Reads a whole text file.
///
/// # Errors
/// When the file cannot be read or is not UTF-8.
pub fn read_text(path: impl AsRef<Path>) -> Result<String, FileError> {
    let path = path.as_ref();
    std::fs::read_to_string(path).map_err(FileError::new("read", path))
}

/// Creates a directory and its parents.
///
/// # Errors
/// When a component cannot be made.
pub fn create_dirs(path: impl AsRef<Path>) -> Result<(), FileError> {
    let path = path.as_ref();
    std::fs::create_dir_all(path).map_err(FileError::new("create directory", path))
}

/// Replaces a file's content in one step: a reader sees the old content or the new, never a part.
///
/// # Errors
/// When the temporary file beside it cannot be written or renamed.
pub fn write_atomic(path: impl AsRef<Path>, content: &[u8]) -> Result<(), FileError> {
    let path = path.as_ref();
    replace(path, content, parent(path), Durability::Process)
}

/// Replaces a file's content like [`write_atomic`], by way of a temporary file in another directory of the same file
/// system: so that who lists the file's own directory sees whole files only.
///
/// # Errors
/// When the temporary file cannot be written or renamed.
pub fn write_atomic_through(
    temporary: impl AsRef<Path>,
    path: impl AsRef<Path>,
    content: &[u8],
) -> Result<(), FileError> {
    replace(path.as_ref(), content, temporary.as_ref(), Durability::Process)
}

/// Replaces a file's content like [`write_atomic_through`], and is on disk before it can be seen: it outlives the
/// machine's fall too.
///
/// # Errors
/// When the temporary file cannot be written, put to disk or renamed, or the directory cannot be put to disk.
pub fn write_durable(temporary: impl AsRef<Path>, path: impl AsRef<Path>, content: &[u8]) -> Result<(), FileError> {
    let path = path.as_ref();
    replace(path, content, temporary.as_ref(), Durability::Machine)?;
    sync_directory(parent(path))
}

/// Puts a directory's names to disk.
///
/// # Errors
/// When it cannot be opened or synchronized.
pub fn sync_directory(path: impl AsRef<Path>) -> Result<(), FileError> {
    let path = path.as_ref();
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(FileError::new("write to disk", path))
}

/// Whose end a write outlives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durability {
    Process,
    Machine,
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn replace(path: &Path, content: &[u8], temporary: &Path, durability: Durability) -> Result<(), FileError> {
    let mut file = tempfile::Builder::new()
        .prefix(".isobench-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(temporary)
        .map_err(FileError::new("create a temporary file in", temporary))?;
    file.write_all(content).map_err(FileError::new("write", path))?;
    if durability == Durability::Machine {
        file.as_file().sync_all().map_err(FileError::new("write to disk", path))?;
    }
    file.persist(path).map_err(|error| FileError::new("replace", path)(error.error))?;
    Ok(())
}

/// Opens a file for reading, and only that: a pipe would block and a device has no end.
///
/// # Errors
/// When it cannot be opened or is no regular file.
pub fn open_regular(path: impl AsRef<Path>) -> Result<File, FileError> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = path.as_ref();
    let opened =
        OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed()).open(path);
    let file = opened.map_err(FileError::new("open", path))?;
    let metadata = file.metadata().map_err(FileError::new("look at", path))?;
    if !metadata.is_file() {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file");
        return Err(FileError::new("open", path)(source));
    }
    Ok(file)
}

/// Removes a file; one that is not there is gone already.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove_if_there(path: impl AsRef<Path>) -> Result<(), FileError> {
    match std::fs::remove_file(path.as_ref()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::new("remove", path.as_ref())(error)),
        _ => Ok(()),
    }
}

/// A lock on a file, released on drop and by the kernel when the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock; makes the file if it is missing.
    ///
    /// # Errors
    /// When the file cannot be opened or locked.
    pub fn exclusive(path: impl AsRef<Path>) -> Result<Self, FileError> {
        let path = path.as_ref();
        let file = open_lock_file(path)?;
        file.lock().map_err(FileError::new("lock", path))?;
        Ok(Self { _file: file })
    }

    /// Waits until no one holds the lock exclusively, and keeps it so; makes the file if it is missing.
    ///
    /// # Errors
    /// When the file cannot be opened or locked.
    pub fn shared(path: impl AsRef<Path>) -> Result<Self, FileError> {
        let path = path.as_ref();
        let file = open_lock_file(path)?;
        file.lock_shared().map_err(FileError::new("lock", path))?;
        Ok(Self { _file: file })
    }

    /// Takes the lock if no one holds it; `None` when someone does.
    ///
    /// # Errors
    /// When the file cannot be opened or locked for another reason.
    pub fn try_exclusive(path: impl AsRef<Path>) -> Result<Option<Self>, FileError> {
        let path = path.as_ref();
        let file = open_lock_file(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(FileError::new("lock", path)(error)),
        }
    }
}

fn open_lock_file(path: &Path) -> Result<File, FileError> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(FileError::new("open the lock file", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atomic_write_replaces_and_leaves_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv");
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(read_text(&path).unwrap(), "new");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_temporary_file_is_where_it_was_told_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let (visible, temporary) = (dir.path().join("visible"), dir.path().join("tmp"));
        create_dirs(&visible).unwrap();
        let path = visible.join("a.json");
        // Without the directory for temporary files nothing is written, and nothing is left beside the file.
        assert!(write_durable(&temporary, &path, b"x").is_err());
        assert!(write_atomic_through(&temporary, &path, b"x").is_err());
        assert_eq!(std::fs::read_dir(&visible).unwrap().count(), 0);
        create_dirs(&temporary).unwrap();
        write_durable(&temporary, &path, b"x").unwrap();
        write_atomic_through(&temporary, &path, b"y").unwrap();
        assert_eq!(read_text(&path).unwrap(), "y");
        assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
    }

    #[test]
    fn a_pipe_and_a_device_are_no_regular_files() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [pipe.as_path(), Path::new("/dev/zero"), dir.path()] {
            assert!(open_regular(path).is_err(), "{}", path.display());
        }
        std::fs::write(dir.path().join("file"), "x").unwrap();
        open_regular(dir.path().join("file")).unwrap();
    }

    #[test]
    fn errors_name_the_act_and_the_path() {
        let error = read_text("/nonexistent/x").unwrap_err();
        assert_eq!(error.to_string(), "cannot read /nonexistent/x");
        assert!(error.is_not_found());
    }

    #[test]
    fn a_lock_is_held_until_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = Lock::exclusive(&path).unwrap();
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop(held);
        assert!(Lock::try_exclusive(&path).unwrap().is_some());
    }
}
