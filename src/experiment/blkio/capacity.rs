//! What a disk carries without a throttle. Below twice what is asked, the disk and not the throttle would be measured.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::timeline::Timeline;
use super::{BlkioExperiment, Times, ns};
use crate::experiment::{ExperimentError, Stop};
use crate::lab::disk::Disk;
use crate::scenario::BlkioSetting;
use crate::scenario::blkio::{BlkioCase, BlkioLimit, LEAD};
use crate::sys::clock;
use crate::units::human;

/// How much more than asked the disk must carry.
const RESERVE: f64 = 2.0;
/// How long it is watched.
const WATCHED: Duration = Duration::from_millis(100);
/// How often it is tried before it is found too slow: something else may have kept it busy.
const TRIES: u32 = 3;

/// What was found in this process, in requests a second: the disks that isobench makes of one kind are alike, so each kind
/// of disk and of request is tried once.
static FOUND: Mutex<BTreeMap<String, f64>> = Mutex::new(BTreeMap::new());

/// Looks whether the disk carries what the case asks for; if not, the case is a named skip.
pub(super) fn demand(experiment: &BlkioExperiment, disk: &Disk) -> Result<(), ExperimentError> {
    let case = &experiment.case;
    let Some(asked) = requests_asked(experiment) else { return Ok(()) };
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let carried = found.entry(kind(experiment)).or_insert(0.0);
    for _ in 0..TRIES {
        if *carried >= RESERVE * asked {
            return Ok(());
        }
        *carried = carried.max(watch(experiment, disk)?);
    }
    if *carried >= RESERVE * asked {
        return Ok(());
    }
    let rate = |requests: f64| human(requests * f64::from(case.block_size), "bytes/s");
    Err(ExperimentError::Unsupported(format!(
        "{} carries {} of such requests without a throttle, and twice the {} that are asked are needed",
        case.device,
        rate(*carried),
        rate(asked)
    )))
}

/// What makes requests alike.
fn kind(experiment: &BlkioExperiment) -> String {
    let BlkioCase { device, io, block_size, queue_depth, containers, .. } = &experiment.case;
    format!("{device} {:?} {io} {block_size} {queue_depth} {containers}", experiment.operation())
}

/// The most that the throttles of a case let through, in requests a second, all containers together.
fn requests_asked(experiment: &BlkioExperiment) -> Option<f64> {
    let BlkioLimit::Throttle { setting, rate, change } = experiment.case.limit else { return None };
    let all: u64 = (0..experiment.case.containers).map(|index| experiment.rate_of(index, rate, 1.0)).sum();
    let most = all as f64 * change.unwrap_or(1.0).max(1.0);
    Some(match setting {
        BlkioSetting::ReadBps | BlkioSetting::WriteBps => most / f64::from(experiment.case.block_size),
        BlkioSetting::ReadIops | BlkioSetting::WriteIops | BlkioSetting::Weight => most,
    })
}

/// Lets the containers of the case work without a throttle for a moment.
fn watch(experiment: &BlkioExperiment, disk: &Disk) -> Result<f64, ExperimentError> {
    let start_ns = clock::now_ns() + ns(LEAD);
    let times = Times { start_ns, window_ns: start_ns, change_ns: None, end_ns: start_ns + ns(WATCHED) };
    let never = AtomicBool::new(false);
    let all = experiment.run_unlimited(disk, times, Stop(&never))?;
    let done = |timeline: Timeline| timeline.between(0, ns(WATCHED) / crate::workload::block::BIN_NS) as f64;
    let sum: f64 = all.iter().map(|one| done(Timeline::new(start_ns, &one.result.done))).sum();
    Ok(sum / WATCHED.as_secs_f64())
}
