//! What a block case needs before its first container: the disk, its scheduler, and an account that counts.

use std::error::Error;
use std::path::Path;

use crate::cgroup::{Controller, Group, Hierarchy, Layout, blkio};
use crate::experiment::ExperimentError;
use crate::lab::disk::{Disk, DiskError};
use crate::scenario::BfqMode;
use crate::scenario::blkio::BlockDevice;

const NOT_MOUNTED: &str = "the blkio controller is not mounted here";

/// The size of a disk that is made here.
pub(in crate::experiment) const DISK_BYTES: u64 = 64 << 20;

/// BFQ for exact shares, by the names in `queue/iosched`.
///
/// BFQ lends the disk to one group after the other, each with a budget of sectors, and shares hold as far as budgets
/// are used up. On a disk as fast as memory three things get in the way, and each has its setting:
///
/// - a program that has to wait for a CPU loses its turn, because BFQ waits only 8 ms for the next request of the group
///   whose turn it is: `slice_idle_us`; and for some programs not at all: `strict_guarantees`, which also keeps one
///   request on the disk at a time, so that the disk and not the programs decides who waits;
/// - a turn that lasts too long is charged by its time and not by its sectors: `timeout_sync`, in ms;
/// - a budget that BFQ has tuned for throughput is so large that a window holds few turns: `max_budget`, in sectors.
///
/// `low_latency` would give a group that has just begun more than its weight.
const STRICT: &[(&str, &str)] = &[
    ("low_latency", "0"),
    ("strict_guarantees", "1"),
    ("slice_idle_us", "1000000"),
    ("timeout_sync", "10000"),
    ("max_budget", "2048"),
];

/// Makes or opens the device; a host that has none is a named skip.
pub(in crate::experiment) fn disk(device: &BlockDevice, write: bool) -> Result<Disk, ExperimentError> {
    let layout = Layout::detect().map_err(ExperimentError::while_doing("looking for the block I/O controller"))?;
    if layout.place(Controller::Blkio).is_none() {
        return Err(ExperimentError::Unsupported(NOT_MOUNTED.to_owned()));
    }
    let disk = match device {
        BlockDevice::Loop => Disk::in_memory(DISK_BYTES),
        BlockDevice::Backing(path) => Disk::backed_by(path, DISK_BYTES),
        BlockDevice::Named(path) => Disk::named(Path::new(path), write),
    }
    .map_err(unsupported)?;
    let group = Group::create(&layout, false).map_err(ExperimentError::while_doing("making a group"))?;
    blkio::begin_account(&group, disk.limited())
        .map_err(ExperimentError::while_doing("setting up the account of the disk"))?;
    group.remove().map_err(ExperimentError::while_doing("removing a group"))?;
    Ok(disk)
}

/// The version of control groups that limits block I/O here.
pub(super) fn hierarchy() -> Result<Hierarchy, ExperimentError> {
    let layout = Layout::detect().map_err(ExperimentError::while_doing("looking for the block I/O controller"))?;
    let place = layout.place(Controller::Blkio);
    place.map(|place| place.hierarchy).ok_or_else(|| ExperimentError::Unsupported(NOT_MOUNTED.to_owned()))
}

/// Sets BFQ up on a disk of ours.
pub(in crate::experiment) fn use_bfq(disk: &mut Disk, mode: BfqMode) -> Result<(), ExperimentError> {
    let settings = match mode {
        BfqMode::Strict => STRICT,
        BfqMode::Default => &[],
    };
    disk.use_bfq(settings).map_err(unsupported)
}

/// A disk that cannot be had is something that the host lacks.
fn unsupported(error: DiskError) -> ExperimentError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    ExperimentError::Unsupported(text)
}
