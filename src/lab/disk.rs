//! Disks for the block experiments: a loop device over memory, a loop device over a file on a real disk, or a device
//! that the scenario names. Used by `experiment::blkio` and `experiment::accounting`.
//!
//! The default is memory: no disk is worn, and what is measured is the kernel's layer above the disk, where cgroups
//! do their work, and not the disk. The file is anonymous and goes with the process.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::loops::{Loop, LoopError};
use super::scheduler::{Restore, SchedulerError};
use crate::cgroup::devices::{Kind, Rule};
use crate::container::spec::DeviceNode;

/// The name of the disk under `/dev` in a container.
pub const NODE: &str = "blkdev";

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file that a loop device stands on could not be made.
    #[error("cannot make a file of {bytes} bytes {place}")]
    File {
        /// How large.
        bytes: u64,
        /// `in memory`, or `in PATH`.
        place: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No loop device could be had.
    #[error("cannot make a loop device")]
    Loop(#[from] LoopError),
    /// The numbers of a loop device could not be asked for.
    #[error("cannot look at the loop device")]
    Numbers(#[source] io::Error),
    /// The named device cannot be used.
    #[error("cannot use {}", path.display())]
    Device {
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The path names something else.
    #[error("{} is {what}", path.display())]
    Unfit {
        /// The path.
        path: PathBuf,
        /// What it is, as in `no block device`.
        what: &'static str,
    },
    /// Only a disk that was made here is given another scheduler.
    #[error("the scheduler of {0} is left as it is: only a loop device of isobench's own is given another one")]
    NotOurs(String),
    /// The scheduler could not be set.
    #[error(transparent)]
    Scheduler(#[from] SchedulerError),
}

/// A block device for containers to work on. What isobench made goes with this value.
#[derive(Debug)]
pub struct Disk {
    /// Its scheduler as it was; put back before the device goes.
    scheduler: Option<Restore>,
    /// Keeps the device.
    owned: Option<Loop>,
    name: String,
    numbers: (u32, u32),
    limited: (u32, u32),
    bytes: u64,
}

impl Disk {
    /// A loop device over memory, all of it allocated beforehand: the first write costs what every write costs, and
    /// no container is charged for the memory.
    ///
    /// # Errors
    /// Without loop devices or the right to make one.
    pub fn in_memory(bytes: u64) -> Result<Self, DiskError> {
        let failed =
            |source: nix::Error| DiskError::File { bytes, place: "in memory".to_owned(), source: source.into() };
        let file = File::from(memfd_create(c"isobench-disk", MFdFlags::MFD_CLOEXEC).map_err(failed)?);
        fallocate(&file, FallocateFlags::empty(), 0, signed(bytes)).map_err(failed)?;
        Self::over(&file, bytes, false, None)
    }

    /// A loop device over a file without a name in the directory `path`. Throttles are put on the disk that the file
    /// lies on: a loop device passes the charge of each request on to the disk below.
    ///
    /// # Errors
    /// When the file system has no disk below it, or cannot do direct I/O.
    pub fn backed_by(path: &Path, bytes: u64) -> Result<Self, DiskError> {
        let failed = |source| DiskError::File { bytes, place: format!("in {}", path.display()), source };
        let mut options = File::options();
        let file =
            options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(path).map_err(failed)?;
        let number = file.metadata().map_err(failed)?.dev();
        let Some(limited) = whole_disk((libc::major(number), libc::minor(number))) else {
            return Err(DiskError::Unfit { path: path.to_owned(), what: "on a file system without a disk of its own" });
        };
        fallocate(&file, FallocateFlags::empty(), 0, signed(bytes)).map_err(|errno| failed(errno.into()))?;
        Self::over(&file, bytes, true, Some(limited))
    }

    /// A device that is there. For `write` it must not be in use: what is on it is overwritten.
    ///
    /// # Errors
    /// When it is no block device, is a partition, or is in use and is to be written.
    pub fn named(path: &Path, write: bool) -> Result<Self, DiskError> {
        let failed = |source| DiskError::Device { path: path.to_owned(), source };
        let unfit = |what| DiskError::Unfit { path: path.to_owned(), what };
        let kind = std::fs::metadata(path).map_err(failed)?;
        if !kind.file_type().is_block_device() {
            return Err(unfit("no block device"));
        }
        let numbers = (libc::major(kind.rdev()), libc::minor(kind.rdev()));
        if whole_disk(numbers) != Some(numbers) {
            // The kernel throttles whole disks only.
            return Err(unfit("a partition; name the whole disk"));
        }
        // O_EXCL on a block device is refused when it is mounted or held by another part of the kernel.
        let mut options = File::options();
        options.read(true).write(write).custom_flags(if write { libc::O_EXCL } else { 0 });
        let mut device = options.open(path).map_err(failed)?;
        let bytes = io::Seek::seek(&mut device, io::SeekFrom::End(0)).map_err(failed)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { scheduler: None, owned: None, name, numbers, limited: numbers, bytes })
    }

    fn over(file: &File, bytes: u64, direct: bool, limited: Option<(u32, u32)>) -> Result<Self, DiskError> {
        let made = Loop::over(file.as_fd(), direct)?;
        let numbers = made.device().numbers().map_err(DiskError::Numbers)?;
        let name = made.device().name();
        let limited = limited.unwrap_or(numbers);
        Ok(Self { scheduler: None, owned: Some(made), name, numbers, limited, bytes })
    }

    /// Its name, as in `loop3`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The major and minor number of the device that throttles are put on and that keeps the account.
    #[must_use]
    pub fn limited(&self) -> (u32, u32) {
        self.limited
    }

    /// Its node for a container: `/dev/blkdev`.
    #[must_use]
    pub fn node(&self) -> DeviceNode {
        let (major, minor) = self.numbers;
        DeviceNode { name: NODE.to_owned(), kind: Kind::Block, major, minor }
    }

    /// The rule that lets a container read and write it, and make its node: the container's own start does that, as a
    /// member of its group.
    #[must_use]
    pub fn rule(&self) -> Rule {
        let (major, minor) = self.numbers;
        let (major, minor) = (Some(major), Some(minor));
        Rule { allow: true, kind: Kind::Block, major, minor, read: true, write: true, mknod: true }
    }

    /// Gives a loop device the scheduler BFQ with these settings, by their names in `queue/iosched`. It gets its old
    /// scheduler back when the disk goes; after `kill -9`, by `isobench gc`.
    ///
    /// # Errors
    /// When the device is not ours, or the kernel has no BFQ.
    pub fn use_bfq(&mut self, settings: &[(&'static str, &'static str)]) -> Result<(), DiskError> {
        if self.owned.is_none() {
            return Err(DiskError::NotOurs(self.name.clone()));
        }
        // The old one first, so that a second call does not take BFQ for what was there before.
        self.scheduler = None;
        self.scheduler = Some(Restore::set_bfq(&self.name, settings)?);
        Ok(())
    }
}

/// The disk that a device is or is a partition of; `None` for numbers that no disk has, as those of btrfs or overlay.
fn whole_disk((major, minor): (u32, u32)) -> Option<(u32, u32)> {
    let device = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let whole = if device.join("partition").exists() { device.parent()?.to_owned() } else { device };
    let numbers = std::fs::read_to_string(whole.join("dev")).ok()?;
    let (major, minor) = numbers.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
