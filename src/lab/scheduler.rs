//! The I/O scheduler of a loop device of ours: BFQ while it is needed, then the one it had.
//!
//! The kernel keeps a loop device's scheduler when the device is taken down, so a killed process would leave BFQ on
//! it. What was there is therefore written to a file before it is changed; [`collect`], called by `isobench gc`, puts
//! it back for processes that are gone.

use std::io;
use std::path::{Path, PathBuf};

use crate::cgroup::owner::Owner;
use crate::fs::{self, FileError};

/// Where the old schedulers are noted: one file a device, `OWNER SCHEDULER`.
const RECORDS: &str = "/run/isobench/schedulers";

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
    record: PathBuf,
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
        fs::create_dirs(RECORDS)?;
        let record = Path::new(RECORDS).join(device);
        fs::write_atomic(&record, format!("{} {old}", Owner::current()).as_bytes())?;
        let restore = Self { device: device.to_owned(), record, old };
        write(scheduler(device), "bfq")?;
        for (name, value) in settings {
            write(queue(device).join("iosched").join(name), value)?;
        }
        Ok(restore)
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        // A failure leaves the record, and so the work, to `gc`.
        if put_back(&self.device, &self.old).is_ok() {
            let _ = std::fs::remove_file(&self.record);
        }
    }
}

/// Puts back the schedulers that dead processes changed; returns how many.
///
/// # Errors
/// Everything is tried; the first failure is returned.
pub fn collect() -> Result<u32, SchedulerError> {
    let entries = match std::fs::read_dir(RECORDS) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(FileError::new("list", RECORDS)(error).into()),
    };
    let (mut collected, mut outcome) = (0, Ok(()));
    for entry in entries.flatten() {
        let done = collect_one(&entry.path());
        collected += u32::from(matches!(done, Ok(true)));
        outcome = outcome.and(done.map(drop));
    }
    outcome.map(|()| collected)
}

fn collect_one(record: &Path) -> Result<bool, SchedulerError> {
    let device = record.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = fs::read_text(record)?;
    let Some((owner, old)) = text.split_once(' ') else { return Ok(false) };
    if owner.parse().is_ok_and(Owner::is_alive) {
        return Ok(false);
    }
    put_back(&device, old.trim())?;
    std::fs::remove_file(record).map_err(FileError::new("remove", record))?;
    Ok(true)
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
