//! `kind = "blkio"`: every runtime × setting × value × way of I/O, and the shape of the requests.
//!
//! A case is called `blkio/<runtime>/<setting>/<value>/<io>`, as in `blkio/builtin/write_bps/8M/direct` and
//! `blkio/builtin/weight/4to1/direct`. Then follow, where they are not the usual: `/x<change>`, `/n2` for two
//! containers, `/default` for BFQ as the kernel has it. Where the file lists several values of a further key, a part is
//! added for it, in this order: `/b<block_size>`, `/q<queue_depth>`, `/<device>`, `/d<duration>`.

use std::path::PathBuf;
use std::time::Duration;

use super::matrix::{Dimension, product};
use super::raw::{Node, Value};
use super::read::{self, Table, Wrong};
use super::{BfqMode, BlkioSetting, BlockIo, Case, CaseKind, RuntimeKind};

/// The kernel gives a throttle's budget a slice of time at a time: 100 ms (20 ms on some kernels for SSDs). A window of
/// whole slices sees neither a part of a budget too much nor too little.
pub const SLICE: Duration = Duration::from_millis(100);

/// With fewer requests in the window one request is more than a quarter of a percent.
const LEAST_OPERATIONS: f64 = 400.0;

/// The tolerance of a throttle in percent of the rate: the figure that the harness promises to see.
pub const THROTTLE_TOLERANCE_PCT: f64 = 1.0;

/// The keys that span the matrix and the rest, for `isobench list`: name, values or range, default.
pub(super) const KEYS: &[super::Key] = &[
    ("runtime", "builtin", "\"builtin\"", "the runtime of the containers"),
    ("setting", "read_bps, write_bps, read_iops, write_iops, weight", "required", "what is limited"),
    ("bps", "\"64K\" to \"4G\"", "\"8M\"", "the rates of read_bps and write_bps, in bytes a second"),
    ("iops", "10 to 1000000", "1000", "the rates of read_iops and write_iops, in operations a second"),
    ("weights", "\"A:B\", each 1 to 1000", "\"2:1\"", "the BFQ weights of two containers"),
    (
        "io",
        "direct, buffered, synced",
        "\"direct\"",
        "past the page cache; through it; into it and written out after each write",
    ),
    ("change", "0.01 to 100", "none", "change the throttle of the running container to this multiple"),
    ("containers", "1, 2", "1 (weight: 2)", "with 2, the second has half the rate and half the block size"),
    ("bfq", "strict, default", "\"strict\"", "BFQ set up for exact shares, or as the kernel has it; weight only"),
    ("block_size", "512 to \"1M\"", "by the rate: \"4K\" to \"64K\"", "bytes a request"),
    ("queue_depth", "1 to 64", "1", "requests under way"),
    (
        "device",
        "loop, backing:PATH, /dev/NAME",
        "\"loop\"",
        "memory; a file below PATH and the disk it is on; a whole disk, whose content is overwritten by writes",
    ),
    ("duration", "\"200ms\" to \"10m\"", "\"2s\"", "the measured time, whole slices of 100ms"),
];

/// A case of the `blkio` experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct BlkioCase {
    /// The runtime of the containers.
    pub runtime: RuntimeKind,
    /// What is limited, and to how much.
    pub limit: BlkioLimit,
    /// How the page cache is used.
    pub io: BlockIo,
    /// Bytes a request; the second of two throttled containers takes half of it.
    pub block_size: u32,
    /// Requests under way, for each container.
    pub queue_depth: u32,
    /// What the containers work on.
    pub device: BlockDevice,
    /// How many containers work side by side.
    pub containers: u32,
    /// The measured time, in whole slices.
    pub duration: Duration,
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BlkioLimit {
    /// Bytes or operations a second.
    Throttle {
        /// Which of the four; never [`BlkioSetting::Weight`].
        setting: BlkioSetting,
        /// Bytes or operations a second.
        rate: u64,
        /// The multiple of the rate to which the running container's throttle is changed.
        change: Option<f64>,
    },
    /// The shares of two containers under BFQ.
    Weight {
        /// The weights.
        weights: (u32, u32),
        /// How BFQ is set up.
        bfq: BfqMode,
    },
}

/// What the containers work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockDevice {
    /// A loop device over memory.
    Loop,
    /// A loop device over a file in this directory; the disk below is throttled.
    Backing(PathBuf),
    /// A whole disk that is there.
    Named(PathBuf),
}

/// What a case measures.
pub(super) fn metrics(case: &BlkioCase) -> &'static [&'static str] {
    match case.limit {
        BlkioLimit::Weight { .. } => &["io_throughput", "io_stall", "io_cpu_wait", "weight_error"],
        BlkioLimit::Throttle { change: Some(_), .. } if case.io == BlockIo::Synced => {
            &["io_throughput", "io_operations", "io_stall", "io_cpu_wait", "settling_time", "io_charged"]
        }
        BlkioLimit::Throttle { change: Some(_), .. } => {
            &["io_throughput", "io_operations", "io_stall", "io_cpu_wait", "settling_time"]
        }
        BlkioLimit::Throttle { setting: BlkioSetting::WriteBps | BlkioSetting::WriteIops, .. }
            if case.io == BlockIo::Buffered =>
        {
            &["io_throughput", "io_operations", "io_stall", "io_cpu_wait", "buffered_excess"]
        }
        BlkioLimit::Throttle { .. } if case.io == BlockIo::Synced => {
            &["io_throughput", "io_operations", "io_stall", "io_cpu_wait", "io_charged"]
        }
        BlkioLimit::Throttle { .. } => &["io_throughput", "io_operations", "io_stall", "io_cpu_wait"],
    }
}

/// Reads one `[[experiment]]` of this kind and expands it to its cases.
pub(super) fn expand(mut table: Table<'_, '_>) -> Vec<Case> {
    let runtimes =
        table.list("runtime", &[RuntimeKind::Builtin], |node| match read::name("runtime", RuntimeKind::ALL)(node)? {
            RuntimeKind::Floor => Err(Wrong::new("the floor has no cgroup to put a limit on", "use \"builtin\"")),
            runtime => Ok(runtime),
        });
    let settings = table.required_list("setting", BlkioSetting::ALL, read::name("setting", BlkioSetting::ALL));
    let bps = table.list("bps", &[8 << 20], read::bytes(64 << 10, u32::MAX));
    let iops = table.list("iops", &[1000], read::whole(10, 1_000_000));
    let weights = table.list("weights", &[(200, 100)], read_weights);
    let ios = table.list("io", &[BlockIo::Direct], read::name("way of I/O", BlockIo::ALL));
    let changes = table.list("change", &[None], |node| read_change(node).map(Some));
    let containers = table.list("containers", &[1], read::whole(1, 2));
    let bfqs = table.list("bfq", &[BfqMode::Strict], read::name("set-up of BFQ", BfqMode::ALL));
    let sizes = table.list("block_size", &[None], |node| read_block(node).map(Some));
    let depths = table.list("queue_depth", &[1], read::whole(1, 64));
    let devices = table.list("device", &[BlockDevice::Loop], read_device);
    let durations = table.list("duration", &[Duration::from_secs(2)], read_duration);

    reject_unfit(&mut table, &settings, &ios, &devices);
    let mut cases = Vec::new();
    let outer = [runtimes.len(), settings.len(), ios.len(), depths.len(), devices.len(), durations.len(), sizes.len()];
    for [r, s, i, q, d, t, b] in product(outer) {
        let (setting, duration) = (*settings.at(s), *durations.at(t));
        let limits = limits(setting, &bps, &iops, &weights, &changes, &bfqs);
        for (limit, n) in limits.into_iter().flat_map(|limit| (0..containers.len()).map(move |n| (limit, n))) {
            let weight = setting == BlkioSetting::Weight;
            if weight && n > 0 {
                continue; // always two
            }
            let case = BlkioCase {
                runtime: *runtimes.at(r),
                limit,
                io: *ios.at(i),
                block_size: sizes.at(b).unwrap_or_else(|| usual_block(limit, duration)),
                queue_depth: *depths.at(q),
                device: devices.at(d).clone(),
                containers: if weight { 2 } else { *containers.at(n) },
                duration,
            };
            reject_coarse(&mut table, &case);
            let suffix = [
                sizes.suffix(b, |_| format!("b{}", short_bytes(u64::from(case.block_size)))),
                depths.suffix(q, |depth| format!("q{depth}")),
                devices.suffix(d, BlockDevice::word),
                durations.suffix(t, |duration| format!("d{duration:?}")),
            ]
            .concat();
            let id = format!("blkio/{}/{}/{}{suffix}", case.runtime, setting, variant(&case));
            cases.push(Case { id, baseline: None, kind: CaseKind::Blkio(case) });
        }
    }
    table.finish();
    cases
}

/// Every limit of a setting, by the keys that belong to it.
fn limits(
    setting: BlkioSetting,
    bps: &Dimension<u32>,
    iops: &Dimension<u32>,
    weights: &Dimension<(u32, u32)>,
    changes: &Dimension<Option<f64>>,
    bfqs: &Dimension<BfqMode>,
) -> Vec<BlkioLimit> {
    let rates = match setting {
        BlkioSetting::ReadBps | BlkioSetting::WriteBps => bps,
        BlkioSetting::ReadIops | BlkioSetting::WriteIops => iops,
        BlkioSetting::Weight => {
            let all = product([weights.len(), bfqs.len()]);
            return all.map(|[w, m]| BlkioLimit::Weight { weights: *weights.at(w), bfq: *bfqs.at(m) }).collect();
        }
    };
    product([rates.len(), changes.len()])
        .map(|[r, c]| BlkioLimit::Throttle { setting, rate: u64::from(*rates.at(r)), change: *changes.at(c) })
        .collect()
}

/// The parts of the id that tell the limit: the value, the way of I/O, and what is not the usual.
fn variant(case: &BlkioCase) -> String {
    let io = case.io;
    let mut text = match case.limit {
        BlkioLimit::Throttle { setting: BlkioSetting::ReadBps | BlkioSetting::WriteBps, rate, .. } => {
            format!("{}/{io}", short_bytes(rate))
        }
        BlkioLimit::Throttle { rate, .. } => format!("{rate}/{io}"),
        BlkioLimit::Weight { weights: (a, b), .. } => format!("{a}to{b}/{io}"),
    };
    match case.limit {
        BlkioLimit::Throttle { change: Some(change), .. } => text.push_str(&format!("/x{change}")),
        BlkioLimit::Weight { bfq: BfqMode::Default, .. } => text.push_str("/default"),
        BlkioLimit::Throttle { .. } | BlkioLimit::Weight { .. } => {}
    }
    if case.containers == 2 && matches!(case.limit, BlkioLimit::Throttle { .. }) {
        text.push_str("/n2");
    }
    text
}

/// The dimensions of a case beside the runtime, as text.
pub(super) fn parameters(case: &BlkioCase) -> Vec<(&'static str, String)> {
    let mut all = match case.limit {
        BlkioLimit::Throttle { setting, rate, change } => vec![
            ("setting", setting.to_string()),
            ("rate", rate.to_string()),
            ("change", change.map_or_else(String::new, |change| change.to_string())),
        ],
        BlkioLimit::Weight { weights: (a, b), bfq } => vec![
            ("setting", BlkioSetting::Weight.to_string()),
            ("weights", format!("{a}:{b}")),
            ("bfq", bfq.to_string()),
        ],
    };
    all.extend([
        ("io", case.io.to_string()),
        ("block_size", case.block_size.to_string()),
        ("queue_depth", case.queue_depth.to_string()),
        ("device", case.device.to_string()),
        ("containers", case.containers.to_string()),
        ("duration", format!("{:?}", case.duration)),
    ]);
    all
}

/// How long a case takes in one block; what is beside the window is on the high side.
pub(super) fn estimate(case: &BlkioCase) -> Duration {
    let changed = matches!(case.limit, BlkioLimit::Throttle { change: Some(_), .. });
    let windows = if changed { 2 } else { 1 };
    let settle = if changed { SETTLE } else { Duration::ZERO };
    LEAD + WARMUP + settle + (case.duration + SLICE) * windows + Duration::from_millis(60)
}

/// From the request for the containers until their workloads begin.
pub const LEAD: Duration = Duration::from_millis(40);
/// How long the workloads run before the window: the throttle's first budget is spent then.
pub const WARMUP: Duration = Duration::from_millis(200);
/// How long a changed throttle is given to hold.
pub const SETTLE: Duration = Duration::from_millis(500);

/// The case with its window scaled down: whole slices, and requests enough.
pub(super) fn shortened(full: &BlkioCase, scale: f64) -> Duration {
    let slices = |seconds: f64| (seconds / SLICE.as_secs_f64() - 1e-9).ceil().max(2.0) as u32 * SLICE;
    let least = match full.limit {
        BlkioLimit::Throttle { .. } => slices(LEAST_OPERATIONS / operations_per_second(full)),
        BlkioLimit::Weight { .. } => slices(0.6),
    };
    slices(full.duration.as_secs_f64() * scale).max(least).min(full.duration)
}

/// The fewest operations a second that the throttles of a case allow to the container that has the most.
fn operations_per_second(case: &BlkioCase) -> f64 {
    let BlkioLimit::Throttle { setting, rate, change } = case.limit else { return f64::INFINITY };
    let rate = rate as f64 * change.unwrap_or(1.0).min(1.0);
    match setting {
        BlkioSetting::ReadBps | BlkioSetting::WriteBps => rate / f64::from(case.block_size),
        // The second container has half the rate; with bytes it has half the block size too.
        _ if case.containers == 2 => rate / 2.0,
        _ => rate,
    }
}

/// From 4K to 64K, so that the window holds 800 requests, and a shortened one still enough.
fn usual_block(limit: BlkioLimit, duration: Duration) -> u32 {
    match limit {
        BlkioLimit::Weight { .. } => 64 << 10,
        BlkioLimit::Throttle { setting: BlkioSetting::ReadBps | BlkioSetting::WriteBps, rate, change } => {
            let bytes = rate as f64 * change.unwrap_or(1.0).min(1.0) * duration.as_secs_f64() / 800.0;
            1 << (bytes.max(1.0).log2().floor() as u32).clamp(12, 16)
        }
        BlkioLimit::Throttle { .. } => 4096,
    }
}

fn reject_coarse(table: &mut Table<'_, '_>, case: &BlkioCase) {
    let operations = operations_per_second(case) * case.duration.as_secs_f64();
    if operations < LEAST_OPERATIONS {
        let message = format!(
            "{} requests in {:?} are too few to see an error of {THROTTLE_TOLERANCE_PCT} %",
            operations.floor(),
            case.duration
        );
        let help = format!("at least {LEAST_OPERATIONS}: a longer duration, smaller blocks or a higher rate");
        table.problem(table.span(), message, help);
    }
}

/// Combinations that mean nothing.
fn reject_unfit(
    table: &mut Table<'_, '_>,
    settings: &Dimension<BlkioSetting>,
    ios: &Dimension<BlockIo>,
    devices: &Dimension<BlockDevice>,
) {
    let reads = settings.contains(&BlkioSetting::ReadBps) || settings.contains(&BlkioSetting::ReadIops);
    let weight = settings.contains(&BlkioSetting::Weight);
    let problems: Vec<_> = (ios.iter())
        .filter_map(|(io, span)| match io {
            BlockIo::Synced if reads => {
                Some((span.clone(), "`io`: synced is a way to write, and a setting here reads"))
            }
            BlockIo::Buffered | BlockIo::Synced if weight => {
                Some((span.clone(), "`io`: the weight is measured with direct I/O only"))
            }
            BlockIo::Buffered if devices.iter().any(|(device, _)| matches!(device, BlockDevice::Backing(_))) => Some((
                span.clone(),
                "`io`: buffered I/O stays in the loop device's cache, so the disk below is not seen",
            )),
            _ => None,
        })
        .collect();
    for (span, message) in problems {
        table.problem(span, message, "put the two into [[experiment]]s of their own");
    }
    if weight && let Some((_, span)) = devices.iter().find(|(device, _)| **device != BlockDevice::Loop) {
        let help = "use device = \"loop\": only a device of isobench's own is given the scheduler BFQ";
        table.problem(span.clone(), "`device`: the weight needs BFQ", help);
    }
}

fn read_weights(node: &Node) -> Result<(u32, u32), Wrong> {
    let text = read::text(node)?;
    let number = |text: &str| text.trim().parse().ok().filter(|weight| (1..=1000).contains(weight));
    let weights = text.split_once(':').and_then(|(a, b)| Some((number(a)?, number(b)?)));
    weights.ok_or_else(|| {
        Wrong::new(format!("`{text}` is not a pair of weights"), "write two numbers from 1 to 1000, as in \"200:100\"")
    })
}

fn read_change(node: &Node) -> Result<f64, Wrong> {
    let change = read::positive(node)?;
    if (0.01..=100.0).contains(&change) && change != 1.0 {
        return Ok(change);
    }
    Err(Wrong::new(format!("{change} is out of range"), "from 0.01 to 100, and not 1"))
}

fn read_block(node: &Node) -> Result<u32, Wrong> {
    let size = read::bytes(512, 1 << 20)(node)?;
    if size % 512 == 0 {
        Ok(size)
    } else {
        Err(Wrong::new(format!("{size} is not whole sectors"), "a multiple of 512"))
    }
}

fn read_duration(node: &Node) -> Result<Duration, Wrong> {
    let duration = read::duration(Duration::from_millis(200), Duration::from_secs(600))(node)?;
    if duration.as_nanos() % SLICE.as_nanos() == 0 {
        return Ok(duration);
    }
    Err(Wrong::new(format!("{duration:?} is not whole slices"), "a multiple of 100ms"))
}

fn read_device(node: &Node) -> Result<BlockDevice, Wrong> {
    let forms = "write \"loop\", \"backing:/a/directory\" or \"/dev/NAME\"";
    let Value::String(text) = &node.value else { return Err(Wrong::new("expected a string", forms)) };
    match (text.as_str(), text.strip_prefix("backing:")) {
        ("loop", _) => Ok(BlockDevice::Loop),
        (_, Some(path)) if path.starts_with('/') => Ok(BlockDevice::Backing(path.into())),
        (path, None) if path.starts_with("/dev/") => Ok(BlockDevice::Named(path.into())),
        _ => Err(Wrong::new(format!("`{text}` is no device"), forms)),
    }
}

impl BlockDevice {
    /// The device in the letters that a part of an id may have.
    fn word(&self) -> String {
        self.to_string().replace(['/', ':'], "-")
    }
}

impl std::fmt::Display for BlockDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Loop => f.write_str("loop"),
            Self::Backing(path) => write!(f, "backing:{}", path.display()),
            Self::Named(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A byte count as a scenario writes it: `8M`, `64K`, `1000`.
pub(super) fn short_bytes(bytes: u64) -> String {
    match bytes.trailing_zeros() {
        _ if bytes == 0 => "0".to_owned(),
        30.. => format!("{}G", bytes >> 30),
        20.. => format!("{}M", bytes >> 20),
        10.. => format!("{}K", bytes >> 10),
        _ => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests;
