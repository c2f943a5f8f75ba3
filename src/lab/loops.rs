//! Loop devices of ours: one that is there and unused, else one that is added and taken away again.
//!
//! Autoclear lets the file go when a process is killed, but a device that the kernel added stays, and with it a disk
//! more in every tool's list. So a device is noted before it is added; [`collect`], called by `isobench gc`, removes
//! those of processes that are gone.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::BorrowedFd;

use super::note::{self, Note};
use crate::fs::FileError;
use crate::sys::loopdev::{self, LoopDevice};

/// Where the added devices are noted.
const NOTES: &str = "/run/isobench/loops";

/// Another process may take a device between the look and the set-up; then the next one is tried.
const TRIES: u32 = 32;

/// Why there is no loop device.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// The kernel refused a step.
    #[error("cannot {act} {device}")]
    Kernel {
        /// What was tried.
        act: &'static str,
        /// On which device.
        device: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// /sys cannot be read.
    #[error("cannot look for the loop devices that there are")]
    Look(#[source] io::Error),
    /// Others were quicker each time.
    #[error("another process took each of {TRIES} loop devices first")]
    Taken,
    /// A note could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl LoopError {
    fn kernel(act: &'static str, number: u32) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Kernel { act, device: loopdev::name(number), source }
    }
}

/// A loop device over a file. What was added for it goes with it.
#[derive(Debug)]
pub struct Loop {
    // The order is that of the drops: a device in use cannot be removed.
    device: LoopDevice,
    _added: Option<Added>,
}

impl Loop {
    /// Sets a device over a file; `direct` as in [`LoopDevice::over`].
    ///
    /// # Errors
    /// Without loop devices in this kernel or the right to use them, and for a file that none can stand on. Nothing is
    /// left behind then.
    pub fn over(file: BorrowedFd<'_>, direct: bool) -> Result<Self, LoopError> {
        let mut tried = BTreeSet::new();
        for _ in 0..TRIES {
            let present = loopdev::present().map_err(LoopError::Look)?;
            let (number, added) = match unused(&present, &tried) {
                Some(number) => (number, None),
                None => {
                    let number = first_missing(&present, &tried);
                    let Some(added) = Added::new(number)? else {
                        tried.insert(number);
                        continue;
                    };
                    (number, Some(added))
                }
            };
            match LoopDevice::over(number, file, direct) {
                Ok(device) => return Ok(Self { device, _added: added }),
                Err(error) if is_taken(&error) || is_gone(number)? => tried.insert(number),
                Err(error) => return Err(LoopError::kernel("set up", number)(error)),
            };
        }
        Err(LoopError::Taken)
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &LoopDevice {
        &self.device
    }
}

/// Whether somebody set the device up meanwhile.
fn is_taken(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBUSY)
}

/// Whether `gc` or its owner removed the device meanwhile.
fn is_gone(number: u32) -> Result<bool, LoopError> {
    Ok(loopdev::present().map_err(LoopError::Look)?.iter().all(|(one, _)| *one != number))
}

/// The first device that stands over no file.
fn unused(present: &[(u32, bool)], tried: &BTreeSet<u32>) -> Option<u32> {
    present.iter().find(|(number, in_use)| !in_use && !tried.contains(number)).map(|(number, _)| *number)
}

/// The first number that no device has.
fn first_missing(present: &[(u32, bool)], tried: &BTreeSet<u32>) -> u32 {
    let is_missing = |number: &u32| !tried.contains(number) && present.iter().all(|(one, _)| one != number);
    (0..).find(is_missing).unwrap_or(u32::MAX)
}

/// A device that was not there before; removed on drop.
#[derive(Debug)]
struct Added {
    number: u32,
    note: Note,
}

impl Added {
    /// Notes a device and adds it; `None` when another process has added it first.
    fn new(number: u32) -> Result<Option<Self>, LoopError> {
        // The other process may be one of ours, with a note under this name.
        let Some(note) = Note::write_new(NOTES, &loopdev::name(number), "")? else { return Ok(None) };
        match loopdev::add(number) {
            Ok(()) => Ok(Some(Self { number, note })),
            Err(error) => {
                note.remove()?;
                let exists = error.raw_os_error() == Some(libc::EEXIST);
                if exists { Ok(None) } else { Err(LoopError::kernel("add", number)(error)) }
            }
        }
    }
}

impl Drop for Added {
    fn drop(&mut self) {
        // A failure leaves the note, and so the work, to `gc`.
        if take_away(self.number).is_ok_and(|gone| gone) {
            let _ = self.note.remove();
        }
    }
}

/// Removes a device; false when somebody else uses it now, and then it is theirs as long as they do.
fn take_away(number: u32) -> io::Result<bool> {
    match loopdev::remove(number) {
        Ok(()) => Ok(true),
        Err(error) => match error.raw_os_error() {
            // Removed already; or the loop module is not even loaded.
            Some(libc::ENODEV | libc::ENOENT) => Ok(true),
            Some(libc::EBUSY) => Ok(false),
            _ => Err(error),
        },
    }
}

/// Removes the devices that dead processes added; returns how many.
///
/// # Errors
/// Everything is tried; the first failure is returned.
pub fn collect() -> Result<u32, LoopError> {
    note::collect(NOTES, |device, _| match loopdev::number(device) {
        Some(number) => take_away(number).map_err(LoopError::kernel("remove", number)),
        None => Ok(true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_unused_device_is_taken_else_the_first_missing_number() {
        let none = BTreeSet::new();
        let present = [(0, true), (1, false), (2, false), (4, true)];
        assert_eq!(unused(&present, &none), Some(1));
        assert_eq!(unused(&present, &BTreeSet::from([1])), Some(2));
        assert_eq!(unused(&present, &BTreeSet::from([1, 2])), None);
        assert_eq!(first_missing(&present, &none), 3);
        assert_eq!(first_missing(&present, &BTreeSet::from([3])), 5);
        assert_eq!((unused(&[], &none), first_missing(&[], &none)), (None, 0));
    }
}
