//! The I/O scheduler of a loop device of ours: BFQ while it is needed, then the one it had.
//!
//! The kernel keeps a loop device's scheduler when the device is taken down, so a killed process would leave BFQ on
//! it. What was there is therefore noted before it is changed; [`collect`], called by `isobench gc`, puts
//! it back for processes that are gone.

use std::path::{Path, PathBuf};

use super::note::{self, Note};
use crate::fs::{self, FileError};

/// Where the old schedulers are noted.
const NOTES: &str = "/run/isobench/schedulers";

/// Why a scheduler could not be set.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// The kernel lacks BFQ.
    #[error("this kernel has no BFQ for {device} (it has {known})")]
    NoBfq {
        /// The device.
        device: String,
        /// The schedulers it has.
        known: String,
    },
    /// A file could not be used.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Puts a device's scheduler back on drop.
#[derive(Debug)]
pub(super) struct Restore {
    device: String,
    note: Note,
    old: String,
}

impl Restore {
    /// Notes the scheduler of a device and sets BFQ with these settings.
    pub(super) fn set_bfq(device: &str, settings: &[(&str, &str)]) -> Result<Self, SchedulerError> {
        let known = fs::read_text(scheduler(device))?;
        if !known.split_whitespace().any(|name| name.trim_matches(['[', ']']) == "bfq") {
            return Err(SchedulerError::NoBfq { device: device.to_owned(), known: known.trim().to_owned() });
        }
        let old = in_use(&known).unwrap_or("none").to_owned();
        let note = Note::write(NOTES, device, &old)?;
        let restore = Self { device: device.to_owned(), note, old };
        write(scheduler(device), "bfq")?;
        for (name, value) in settings {
            write(queue(device).join("iosched").join(name), value)?;
        }
        Ok(restore)
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        // A failure leaves the note, and so the work, to `gc`.
        if put_back(&self.device, &self.old).is_ok() {
            let _ = self.note.remove();
        }
    }
}

/// Puts back the schedulers that dead processes changed; returns how many.
///
/// # Errors
/// Everything is tried; the first failure is returned.
pub fn collect() -> Result<u32, SchedulerError> {
    note::collect(NOTES, |device, old| Ok(put_back(device, old).map(|()| true)?))
}

fn put_back(device: &str, old: &str) -> Result<(), FileError> {
    // A loop device beyond those of the boot may be gone altogether.
    if queue(device).exists() { write(scheduler(device), old) } else { Ok(()) }
}

fn write(path: PathBuf, value: &str) -> Result<(), FileError> {
    std::fs::write(&path, value).map_err(FileError::new("write", path))
}

fn queue(device: &str) -> PathBuf {
    Path::new("/sys/block").join(device).join("queue")
}

fn scheduler(device: &str) -> PathBuf {
    queue(device).join("scheduler")
}

/// The one in brackets of `none mq-deadline [bfq]`.
fn in_use(known: &str) -> Option<&str> {
    known.split_whitespace().find_map(|name| name.strip_prefix('[')?.strip_suffix(']'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheduler_in_use_stands_in_brackets() {
        assert_eq!(in_use("none mq-deadline kyber [bfq]\n"), Some("bfq"));
        assert_eq!(in_use("[none] mq-deadline"), Some("none"));
        assert_eq!(in_use("none"), None);
    }
}
