//! One setting of a group: written, by cgroups-rs or straight to its file, then read back and compared.

use std::error::Error;
use std::io;
use std::path::Path;

use super::limits::Applied;
use super::{CgroupError, Controller, read};

/// A file of a group that takes a value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting<'a> {
    pub(super) controller: Controller,
    pub(super) file: &'static str,
    pub(super) path: &'a Path,
}

impl Setting<'_> {
    /// After cgroups-rs has written the value: tells what the kernel said, or reads back. `accept` allows for the
    /// kernel's own rounding.
    pub(super) fn after(
        self,
        requested: impl Into<String>,
        outcome: cgroups_rs::error::Result<()>,
        accept: impl FnOnce(&str) -> bool,
    ) -> Result<Applied, CgroupError> {
        self.finish(requested.into(), outcome.map_err(io_error), accept)
    }

    /// Writes the value straight to the file, where cgroups-rs has no setter or a wrong one.
    pub(super) fn write(
        self,
        requested: impl Into<String>,
        value: &str,
        accept: impl FnOnce(&str) -> bool,
    ) -> Result<Applied, CgroupError> {
        self.finish(requested.into(), std::fs::write(self.path.join(self.file), value), accept)
    }

    fn finish(
        self,
        requested: String,
        outcome: io::Result<()>,
        accept: impl FnOnce(&str) -> bool,
    ) -> Result<Applied, CgroupError> {
        let Self { controller, file: setting, path } = self;
        if let Err(source) = outcome {
            let path = path.to_owned();
            return Err(CgroupError::Write { controller, setting, value: requested, path, source });
        }
        let kept = read(path, setting)?;
        if accept(&kept) {
            Ok(Applied { controller, setting, requested, kept })
        } else {
            Err(CgroupError::ReadBack { controller, setting, requested, kept, path: path.to_owned() })
        }
    }
}

/// What the kernel said, out of an error of cgroups-rs, which would name file and value once more.
pub(super) fn io_error(error: cgroups_rs::error::Error) -> io::Error {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause.and_then(io::Error::raw_os_error) {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::other(error),
    }
}
