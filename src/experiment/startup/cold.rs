//! A cold start: the pages of the image's files are dropped from the page cache before each start.
//!
//! By posix_fadvise(2) on every regular file of the layers, which touches these files only; /proc/sys/vm/drop_caches
//! would take the cache of the whole machine, and what the harness itself needs with it. The names and the i-nodes stay
//! cached, as the kernel drops those only with everything else's. A page that is mapped by a running process cannot be
//! dropped, so cold starts are made one at a time and without a partner.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, OFlags, fadvise, fstatfs, syncfs};

use crate::experiment::ExperimentError;

/// The files whose pages are dropped.
pub(super) struct Cold {
    files: Vec<PathBuf>,
}

/// File systems that are the page cache themselves: nothing can be dropped there.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

impl Cold {
    /// Finds the regular files of the layers and puts what is not yet on disk there, since only clean pages are dropped.
    ///
    /// # Errors
    /// [`ExperimentError::Unsupported`] when a layer is in memory; when one cannot be listed.
    pub(super) fn of(layers: &[PathBuf]) -> Result<Self, ExperimentError> {
        let mut files = Vec::new();
        for layer in layers {
            let failed = || ExperimentError::while_doing(format!("listing the layer {}", layer.display()));
            let directory = File::open(layer).map_err(failed())?;
            let kind = fstatfs(&directory).map_err(io::Error::from).map_err(failed())?.f_type;
            if IN_MEMORY.contains(&(kind as u64)) {
                let layer = layer.display();
                return Err(ExperimentError::Unsupported(format!("{layer} is in memory, where no start is cold")));
            }
            syncfs(&directory).map_err(io::Error::from).map_err(failed())?;
            collect(layer, &mut files).map_err(failed())?;
        }
        Ok(Self { files })
    }

    /// Drops the pages of all files.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub(super) fn drop_pages(&self) -> Result<(), ExperimentError> {
        for path in &self.files {
            let failed = || ExperimentError::while_doing(format!("dropping the cached pages of {}", path.display()));
            let nofollow = OFlags::NOFOLLOW.bits().cast_signed();
            let file = File::options().read(true).custom_flags(nofollow).open(path).map_err(failed())?;
            fadvise(&file, 0, None, Advice::DontNeed).map_err(io::Error::from).map_err(failed())?;
        }
        Ok(())
    }
}

/// The regular files of a tree that have content.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            collect(&entry.path(), files)?;
        } else if metadata.is_file() && metadata.len() > 0 {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_with_content_are_dropped() {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let root = directory.path();
        std::fs::create_dir(root.join("sub")).unwrap();
        std::fs::write(root.join("sub/full"), "x").unwrap();
        std::fs::write(root.join("empty"), "").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("link")).unwrap();
        let mut files = Vec::new();
        collect(root, &mut files).unwrap();
        assert_eq!(files, [root.join("sub/full")]);
    }

    #[test]
    fn what_is_in_memory_is_a_named_skip() {
        let Err(ExperimentError::Unsupported(why)) = Cold::of(&["/dev/shm".into()]) else { panic!() };
        assert!(why.contains("/dev/shm"), "{why}");
    }
}
