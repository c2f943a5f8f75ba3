//! The blkio controller of cgroup v1: throttles of bytes and operations a second, and what was served.

use std::path::Path;

use cgroups_rs::blkio::BlkIoController;

use super::limits::{Applied, compare};
use super::{CgroupError, Controller, read};

/// What a throttle limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrottleKind {
    /// Bytes read a second.
    ReadBps,
    /// Bytes written a second.
    WriteBps,
    /// Read operations a second.
    ReadIops,
    /// Write operations a second.
    WriteIops,
}

impl ThrottleKind {
    /// The file of the throttle.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            ThrottleKind::ReadBps => "blkio.throttle.read_bps_device",
            ThrottleKind::WriteBps => "blkio.throttle.write_bps_device",
            ThrottleKind::ReadIops => "blkio.throttle.read_iops_device",
            ThrottleKind::WriteIops => "blkio.throttle.write_iops_device",
        }
    }
}

/// A throttle on one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    /// What it limits.
    pub kind: ThrottleKind,
    /// The device's major number.
    pub major: u64,
    /// The device's minor number.
    pub minor: u64,
    /// Bytes or operations a second; 0 takes the throttle away.
    pub rate: u64,
}

/// Block I/O served for a group, over all devices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations.
    pub read_operations: u64,
    /// Write operations.
    pub write_operations: u64,
}

/// Writes a throttle.
///
/// # Errors
/// ENODEV when there is no such device.
pub(super) fn apply_throttle(path: &Path, throttle: &Throttle) -> Result<Applied, CgroupError> {
    let Throttle { kind, major, minor, rate } = *throttle;
    let controller = BlkIoController::new(path.to_owned(), false);
    let set = match kind {
        ThrottleKind::ReadBps => controller.throttle_read_bps_for_device(major, minor, rate),
        ThrottleKind::WriteBps => controller.throttle_write_bps_for_device(major, minor, rate),
        ThrottleKind::ReadIops => controller.throttle_read_iops_for_device(major, minor, rate),
        ThrottleKind::WriteIops => controller.throttle_write_iops_for_device(major, minor, rate),
    };
    let requested = format!("{major}:{minor} {rate}");
    set.map_err(|source| CgroupError::Write {
        controller: Controller::Blkio,
        setting: kind.file(),
        value: requested.clone(),
        path: path.to_owned(),
        source,
    })?;
    let kept = read(path, kind.file())?;
    let row = Applied { controller: Controller::Blkio, setting: kind.file(), requested, kept };
    compare(path, row, |row| {
        let device = format!("{major}:{minor} ");
        match row.kept.lines().find(|line| line.starts_with(&device)) {
            Some(line) => line == row.requested,
            None => rate == 0,
        }
    })
}

/// Sums the lines `MAJOR:MINOR Read N` and `… Write N` of a per-device file.
fn sums(text: &str) -> (u64, u64) {
    let (mut read, mut written) = (0, 0);
    for line in text.lines() {
        let mut words = line.split_whitespace().skip(1);
        let (Some(kind), Some(Ok(count))) = (words.next(), words.next().map(str::parse::<u64>)) else { continue };
        match kind {
            "Read" => read += count,
            "Write" => written += count,
            _ => {}
        }
    }
    (read, written)
}

/// Reads what was served, by the throttling layer's own counters, which count every device whatever its scheduler.
///
/// # Errors
/// When a file cannot be read.
pub fn usage(path: &Path) -> Result<Usage, CgroupError> {
    let (read_bytes, write_bytes) = sums(&read(path, "blkio.throttle.io_service_bytes")?);
    let (read_operations, write_operations) = sums(&read(path, "blkio.throttle.io_serviced")?);
    Ok(Usage { read_bytes, write_bytes, read_operations, write_operations })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_lines_are_summed_and_totals_ignored() {
        let text = "7:0 Read 4096\n7:0 Write 8192\n7:0 Sync 1\n7:0 Total 12288\n253:0 Read 1\nTotal 12289\n";
        assert_eq!(sums(text), (4097, 8192));
        assert_eq!(sums("Total 0"), (0, 0));
    }
}
