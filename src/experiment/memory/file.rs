//! A file on a disk, made for one measurement, whose pages in the page cache can be given up.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::experiment::ExperimentError;
use crate::image::STORE;
use crate::sys::region::{cached_pages, page_size};

/// An unlinked file.
#[derive(Debug)]
pub(super) struct DiskFile(File);

impl DiskFile {
    /// Makes one, in the store or else in the temporary directory.
    ///
    /// A file system that lives in memory is no use, however it is called: its pages are not a copy of anything, and
    /// without swap nothing can reclaim them. So each candidate must show that it lets go of a page.
    pub(super) fn make() -> Result<Self, ExperimentError> {
        let temporary = std::env::temp_dir();
        let candidates = [Path::new(STORE), Path::new("/var/tmp"), temporary.as_path()];
        let found = candidates.iter().find_map(|directory| {
            let file = tempfile::tempfile_in(directory).ok()?;
            lets_go(&file).ok()?.then_some(file)
        });
        let names: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        found.map(Self).ok_or_else(|| {
            let names = names.join(", ");
            ExperimentError::Unsupported(format!(
                "none of {names} is on a disk, so no page cache can be reclaimed there"
            ))
        })
    }

    /// Sets its length; what was never written reads as zeroes.
    pub(super) fn set_pages(&self, pages: u64) -> Result<(), ExperimentError> {
        self.0.set_len(pages * page_size()).map_err(ExperimentError::while_doing("making a file"))
    }

    /// A descriptor for the container.
    pub(super) fn duplicate(&self) -> Result<OwnedFd, ExperimentError> {
        let file = self.0.try_clone().map_err(ExperimentError::while_doing("duplicating a file"))?;
        Ok(file.into())
    }

    /// How many of its first pages are in the page cache.
    pub(super) fn cached(&self, pages: u64) -> Result<u64, ExperimentError> {
        cached_pages(self.0.as_fd(), pages * page_size())
            .map_err(ExperimentError::while_doing("looking at the page cache of a file"))
    }
}

fn lets_go(file: &File) -> std::io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let bytes = 4 * page_size();
    file.write_all_at(&vec![1; bytes as usize], 0)?;
    file.sync_data()?;
    posix_fadvise(file, 0, bytes as i64, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    let kept = cached_pages(file.as_fd(), bytes)?;
    file.set_len(0)?;
    Ok(kept == 0)
}
