//! Block I/O: throttles of bytes and operations a second, BFQ's weight, and what was served. `blkio` on v1, `io` on
//! v2.

use std::collections::BTreeMap;
use std::path::Path;

use cgroups_rs::blkio::BlkIoController;

use super::limits::Applied;
use super::setting::Setting;
use super::{CgroupError, Controller, Group, Hierarchy, Place, read};

/// The file of all throttles on v2.
pub const MAX: &str = "io.max";
/// The file of BFQ's weight on v1.
pub const V1_WEIGHT: &str = "blkio.bfq.weight";
/// The file of BFQ's weight on v2.
pub const V2_WEIGHT: &str = "io.bfq.weight";

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
    /// The file of the throttle on v1.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            ThrottleKind::ReadBps => "blkio.throttle.read_bps_device",
            ThrottleKind::WriteBps => "blkio.throttle.write_bps_device",
            ThrottleKind::ReadIops => "blkio.throttle.read_iops_device",
            ThrottleKind::WriteIops => "blkio.throttle.write_iops_device",
        }
    }

    /// The key of the throttle in `io.max` of v2.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            ThrottleKind::ReadBps => "rbps",
            ThrottleKind::WriteBps => "wbps",
            ThrottleKind::ReadIops => "riops",
            ThrottleKind::WriteIops => "wiops",
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

fn setting<'a>(place: &'a Place, file: &'static str) -> Setting<'a> {
    Setting { controller: Controller::Blkio, file, path: &place.path }
}

/// Writes throttles: one by one on v1, one line a device on v2. One row a write.
///
/// # Errors
/// ENODEV when there is no such device.
pub(super) fn apply_throttles(
    place: &Place,
    throttles: &[Throttle],
    applied: &mut Vec<Applied>,
) -> Result<(), CgroupError> {
    match place.hierarchy {
        Hierarchy::V1 => {
            for throttle in throttles {
                applied.push(v1_throttle(place, throttle)?);
            }
        }
        Hierarchy::V2 => {
            for line in v2_lines(throttles) {
                // cgroups-rs writes one key a call; one line a device takes effect as a whole.
                applied.push(setting(place, MAX).write(line.clone(), &line, |kept| v2_keeps(kept, &line))?);
            }
        }
    }
    Ok(())
}

fn v1_throttle(place: &Place, throttle: &Throttle) -> Result<Applied, CgroupError> {
    let Throttle { kind, major, minor, rate } = *throttle;
    let controller = BlkIoController::new(place.path.clone(), false);
    let set = match kind {
        ThrottleKind::ReadBps => controller.throttle_read_bps_for_device(major, minor, rate),
        ThrottleKind::WriteBps => controller.throttle_write_bps_for_device(major, minor, rate),
        ThrottleKind::ReadIops => controller.throttle_read_iops_for_device(major, minor, rate),
        ThrottleKind::WriteIops => controller.throttle_write_iops_for_device(major, minor, rate),
    };
    let requested = format!("{major}:{minor} {rate}");
    setting(place, kind.file()).after(requested.clone(), set, |kept| {
        let device = format!("{major}:{minor} ");
        match kept.lines().find(|line| line.starts_with(&device)) {
            Some(line) => line == requested,
            None => rate == 0,
        }
    })
}

/// One `io.max` line for each device, in the devices' order; of two throttles of one kind the later counts.
fn v2_lines(throttles: &[Throttle]) -> Vec<String> {
    let mut devices: BTreeMap<(u64, u64), BTreeMap<&'static str, u64>> = BTreeMap::new();
    for throttle in throttles {
        let device = devices.entry((throttle.major, throttle.minor)).or_default();
        device.insert(throttle.kind.key(), throttle.rate);
    }
    let value = |rate: u64| if rate == 0 { "max".to_owned() } else { rate.to_string() };
    let line = |((major, minor), keys): ((u64, u64), BTreeMap<&str, u64>)| {
        let keys = keys.into_iter().map(|(key, rate)| format!(" {key}={}", value(rate)));
        format!("{major}:{minor}{}", keys.collect::<String>())
    };
    devices.into_iter().map(line).collect()
}

/// Whether `io.max` shows every key of the line as written. A device without any throttle has no line.
fn v2_keeps(kept: &str, line: &str) -> bool {
    let (device, keys) = line.split_once(' ').unwrap_or((line, ""));
    let shown = kept.lines().find_map(|line| line.strip_prefix(device)?.strip_prefix(' ')).unwrap_or_default();
    keys.split(' ').all(|key| shown.split(' ').any(|word| word == key) || (shown.is_empty() && key.ends_with("=max")))
}

/// Writes BFQ's weight, which counts on devices whose scheduler is BFQ.
///
/// # Errors
/// ENOENT when the kernel has no BFQ, or has not loaded it yet.
pub(super) fn apply_weight(place: &Place, weight: u64) -> Result<Applied, CgroupError> {
    let requested = weight.to_string();
    match place.hierarchy {
        // cgroups-rs writes `blkio.weight`, a file that went away with CFQ in Linux 5.0.
        Hierarchy::V1 => setting(place, V1_WEIGHT).write(requested.clone(), &requested, |kept| kept == requested),
        Hierarchy::V2 => {
            let set = BlkIoController::new(place.path.clone(), true).set_weight(weight);
            let shown = format!("default {weight}");
            setting(place, V2_WEIGHT)
                .after(requested.clone(), set, |kept| kept == requested || kept.lines().any(|line| line == shown))
        }
    }
}

/// Reads what was served. v1: by the throttling layer's own counters, which count every device whatever its scheduler.
///
/// # Errors
/// When a file cannot be read.
pub fn usage(place: &Place) -> Result<Usage, CgroupError> {
    match place.hierarchy {
        Hierarchy::V1 => v1_usage(&place.path),
        Hierarchy::V2 => Ok(v2_sums(&read(&place.path, "io.stat")?)),
    }
}

/// Reads what was served of one device.
///
/// v1 counts a device only from the first throttle on that was ever put on it, for whatever group: [`begin_account`].
///
/// # Errors
/// When a file cannot be read.
pub fn usage_of(place: &Place, (major, minor): (u32, u32)) -> Result<Usage, CgroupError> {
    let device = format!("{major}:{minor} ");
    let only = |text: String| -> String {
        text.lines().filter(|line| line.starts_with(&device)).flat_map(|line| [line, "\n"]).collect()
    };
    match place.hierarchy {
        Hierarchy::V1 => {
            let (read_bytes, write_bytes) = v1_sums(&only(read(&place.path, "blkio.throttle.io_service_bytes")?));
            let (read_operations, write_operations) = v1_sums(&only(read(&place.path, "blkio.throttle.io_serviced")?));
            Ok(Usage { read_bytes, write_bytes, read_operations, write_operations })
        }
        Hierarchy::V2 => Ok(v2_sums(&only(read(&place.path, "io.stat")?))),
    }
}

/// Makes v1 count the I/O of a device for every group: since Linux 6.10 the throttling layer, whose counters these are,
/// is set up for a device only when a first throttle is put on it. `group` gets one and loses it again; what was set up
/// stays until the device goes. Nothing to do on v2.
///
/// # Errors
/// When the throttle cannot be written.
pub fn begin_account(group: &Group, (major, minor): (u32, u32)) -> Result<(), CgroupError> {
    let place = group.view().required(Controller::Blkio, "blkio_throttles")?;
    let throttle = |rate| Throttle { kind: ThrottleKind::ReadBps, major: major.into(), minor: minor.into(), rate };
    match place.hierarchy {
        Hierarchy::V1 => apply_throttles(place, &[throttle(1 << 40), throttle(0)], &mut Vec::new()),
        Hierarchy::V2 => Ok(()),
    }
}

fn v1_usage(path: &Path) -> Result<Usage, CgroupError> {
    let (read_bytes, write_bytes) = v1_sums(&read(path, "blkio.throttle.io_service_bytes")?);
    let (read_operations, write_operations) = v1_sums(&read(path, "blkio.throttle.io_serviced")?);
    Ok(Usage { read_bytes, write_bytes, read_operations, write_operations })
}

/// Sums the lines `MAJOR:MINOR Read N` and `… Write N` of a per-device file.
fn v1_sums(text: &str) -> (u64, u64) {
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

/// Sums the lines `MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N …` of `io.stat`.
fn v2_sums(text: &str) -> Usage {
    let mut usage = Usage::default();
    for word in text.split_whitespace() {
        let Some((key, Ok(count))) = word.split_once('=').map(|(key, count)| (key, count.parse::<u64>())) else {
            continue;
        };
        match key {
            "rbytes" => usage.read_bytes += count,
            "wbytes" => usage.write_bytes += count,
            "rios" => usage.read_operations += count,
            "wios" => usage.write_operations += count,
            _ => {}
        }
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_lines_are_summed_and_totals_ignored() {
        let text = "7:0 Read 4096\n7:0 Write 8192\n7:0 Sync 1\n7:0 Total 12288\n253:0 Read 1\nTotal 12289\n";
        assert_eq!(v1_sums(text), (4097, 8192));
        assert_eq!(v1_sums("Total 0"), (0, 0));
    }

    #[test]
    fn io_stat_is_summed_over_devices() {
        let text = "7:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=9 dios=9\n253:0 \n253:1 rbytes=1 wbytes=0 rios=1 wios=0\n";
        let expected = Usage { read_bytes: 4097, write_bytes: 8192, read_operations: 2, write_operations: 2 };
        assert_eq!(v2_sums(text), expected);
        assert_eq!(v2_sums(""), Usage::default());
    }

    #[test]
    fn throttles_of_one_device_become_one_line() {
        let throttle = |kind, minor, rate| Throttle { kind, major: 7, minor, rate };
        let lines = v2_lines(&[
            throttle(ThrottleKind::WriteIops, 1, 5),
            throttle(ThrottleKind::ReadBps, 0, 1000),
            throttle(ThrottleKind::WriteBps, 0, 0),
            throttle(ThrottleKind::ReadBps, 0, 2000),
        ]);
        assert_eq!(lines, ["7:0 rbps=2000 wbps=max", "7:1 wiops=5"]);
    }

    #[test]
    fn io_max_is_compared_key_by_key() {
        let kept = "7:0 rbps=2000 wbps=max riops=max wiops=max\n7:1 rbps=max wbps=max riops=max wiops=5\n";
        assert!(v2_keeps(kept, "7:0 rbps=2000 wbps=max"));
        assert!(v2_keeps(kept, "7:1 wiops=5"));
        assert!(!v2_keeps(kept, "7:1 wiops=6"));
        assert!(!v2_keeps(kept, "7:2 rbps=1"));
        assert!(v2_keeps(kept, "7:2 rbps=max"));
        assert!(!v2_keeps(kept, "7:0 rbps=max"));
    }
}
