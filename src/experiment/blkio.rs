//! `blkio`: does a throttle let through what it says, does a weight give the share that it says, and is what was done
//! charged to who did it?
//!
//! A case runs one container, or two side by side, each with the workload [`crate::workload::block`] on one disk, by
//! default a loop device over memory. What was done is counted inside, request by request; see [`timeline`] for how a
//! rate is told from it without an error of the window. Called by the schedule through [`Experiment`].
//!
//! # What is judged
//!
//! - `read_bps` … `write_iops`: the rate in the window against the throttle, within 1 %;
//! - the same after a change on the running container, as `…/changed`, with the metric `settling_time`;
//! - `bytes` and `operations`: what the kernel charged to the container against what its program counted, over the
//!   whole life of the container, exactly. With two containers this is the attribution;
//! - `weight/a` and `weight/b`: the parts of the disk under BFQ set up for exact shares, within 2 %: with budgets of
//!   1 MiB and hundreds of them in a window, what is uneven at the edges is less than 1 %.
//!
//! # What is told and not judged
//!
//! - **Buffered writes**: the program writes into the page cache, and the kernel writes the pages out later. On v1 the
//!   kernel's flusher does so in its own name: no throttle of the container's holds it back, and it is not charged. On
//!   v2 it does so in the container's name, but the program is held back only once the cache may hold no more dirty
//!   pages. So there is no rate that was asked for; the metric `buffered_excess` tells what was seen. With
//!   `io = "synced"` the program itself writes the pages out, and the throttle holds, on v1 too;
//! - **BFQ as the kernel has it** (`bfq = "default"`): it is tuned for throughput; `weight_error` tells what was seen.

mod contestant;
mod setup;
mod timeline;

use std::sync::Arc;
use std::time::Duration;

use super::network::end::sleep_until;
use super::{EnforcementObservation, Experiment, ExperimentError, Observation, Observations, Stop};
use crate::cgroup::Limits;
use crate::cgroup::blkio::{Throttle, ThrottleKind};
use crate::lab::disk::Disk;
use crate::record::metric::{self, Metric};
use crate::runtime::Runtime;
use crate::scenario::blkio::{BlkioCase, BlkioLimit, LEAD, SETTLE, SLICE, THROTTLE_TOLERANCE_PCT, WARMUP};
use crate::scenario::{BfqMode, BlkioSetting, BlockIo};
use crate::sys::clock;
use crate::workload::block::{Arguments, Mode, Operation};

pub(super) use contestant::stopped_or_failed;
use contestant::{Contestant, Performance};
pub(super) use setup::disk;
use timeline::Timeline;

/// The tolerance of a share under BFQ, in percent of the share.
const WEIGHT_TOLERANCE_PCT: f64 = 2.0;

/// How often a block is tried whose containers came too late for their start.
const TRIES: u32 = 3;

/// One case of the experiment.
pub struct BlkioExperiment {
    case: BlkioCase,
    runtime: Arc<dyn Runtime>,
    disk: Option<Disk>,
}

/// When what happens, in ns of CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy)]
struct Times {
    start_ns: u64,
    window_ns: u64,
    /// When the throttle is changed, where it is.
    change_ns: Option<u64>,
    end_ns: u64,
}

impl Times {
    fn from(now_ns: u64, case: &BlkioCase) -> Self {
        let start_ns = now_ns + ns(LEAD);
        let window_ns = start_ns + ns(WARMUP);
        // A slice more, because the count is taken at each phase of one.
        let closed_ns = window_ns + ns(case.duration + SLICE);
        match case.limit {
            BlkioLimit::Throttle { change: Some(_), .. } => {
                let end_ns = closed_ns + ns(SETTLE + case.duration + SLICE);
                Self { start_ns, window_ns, change_ns: Some(closed_ns), end_ns }
            }
            BlkioLimit::Throttle { .. } | BlkioLimit::Weight { .. } => {
                Self { start_ns, window_ns, change_ns: None, end_ns: closed_ns }
            }
        }
    }
}

impl BlkioExperiment {
    /// An experiment for a case, with the runtime that the case names.
    #[must_use]
    pub fn new(case: BlkioCase, runtime: Arc<dyn Runtime>) -> Self {
        Self { case, runtime, disk: None }
    }

    /// Which way the requests go; the weight is measured by reads.
    fn operation(&self) -> Operation {
        match self.case.limit {
            BlkioLimit::Throttle { setting: BlkioSetting::WriteBps | BlkioSetting::WriteIops, .. } => Operation::Write,
            BlkioLimit::Throttle { .. } | BlkioLimit::Weight { .. } => Operation::Read,
        }
    }

    fn limits(&self, disk: &Disk, index: u32, factor: f64) -> Limits {
        match self.case.limit {
            BlkioLimit::Throttle { setting, rate, .. } => {
                let (major, minor) = disk.limited();
                let rate = self.rate_of(index, rate, factor);
                let throttle = Throttle { kind: kind_of(setting), major: major.into(), minor: minor.into(), rate };
                Limits { blkio_throttles: vec![throttle], ..Limits::default() }
            }
            BlkioLimit::Weight { weights: (a, b), .. } => {
                Limits { blkio_weight: Some(u64::from(if index == 0 { a } else { b })), ..Limits::default() }
            }
        }
    }

    /// The second of two containers has half the rate, so that a charge to the wrong one shows.
    fn rate_of(&self, index: u32, rate: u64, factor: f64) -> u64 {
        let rate = (rate as f64 * factor).round() as u64;
        if index == 0 { rate } else { rate / 2 }
    }

    fn arguments(&self, disk: &Disk, index: u32, times: Times) -> Arguments {
        let block_size = match self.case.limit {
            BlkioLimit::Throttle { .. } if index > 0 => (self.case.block_size / 2).max(512),
            BlkioLimit::Throttle { .. } | BlkioLimit::Weight { .. } => self.case.block_size,
        };
        // Each container has a part of its own, so that none finds the other's pages in the cache.
        let length = disk.bytes() / u64::from(self.case.containers);
        Arguments {
            path: format!("/dev/{}", disk.node().name),
            operation: self.operation(),
            mode: match self.case.io {
                BlockIo::Direct => Mode::Direct,
                BlockIo::Buffered => Mode::Buffered,
                BlockIo::Synced => Mode::Synced,
            },
            block_size,
            queue_depth: self.case.queue_depth,
            offset: length * u64::from(index),
            length,
            start_ns: times.start_ns,
            end_ns: times.end_ns,
        }
    }

    /// One run of all containers. Returns what they did and when the throttle was changed.
    fn run(
        &self,
        disk: &Disk,
        times: Times,
        stop: Stop<'_>,
    ) -> Result<(Vec<Performance>, Option<u64>), ExperimentError> {
        let mut contestants = Vec::new();
        for index in 0..self.case.containers {
            let (limits, arguments) = (self.limits(disk, index, 1.0), self.arguments(disk, index, times));
            contestants.push(Contestant::start(&*self.runtime, disk, limits, arguments)?);
        }
        let mut changed_ns = None;
        if let (Some(at_ns), BlkioLimit::Throttle { change: Some(change), .. }) = (times.change_ns, self.case.limit) {
            sleep_until(at_ns, stop).map_err(stopped_or_failed("waiting for the change"))?;
            changed_ns = Some(clock::now_ns());
            for (contestant, index) in contestants.iter().zip(0..) {
                contestant.change(&self.limits(disk, index, change))?;
            }
        }
        let finished: Result<Vec<_>, _> = contestants.into_iter().map(|one| one.finish(disk, stop)).collect();
        Ok((finished?, changed_ns))
    }

    fn observe_throttle(&self, one: &Performance, index: u32, seen: &Seen, into: &mut Observations) {
        let BlkioLimit::Throttle { setting, rate, change } = self.case.limit else { return };
        let bytes = matches!(setting, BlkioSetting::ReadBps | BlkioSetting::WriteBps);
        let unit = if bytes { "bytes/s" } else { "1/s" };
        let a_request = if bytes { f64::from(one.arguments.block_size) } else { 1.0 };
        // The account is of the whole life; scaled to the window it says what it would say of the rate.
        let (counted, charged) = match bytes {
            true => (one.result.bytes, one.charged.bytes),
            false => (one.result.operations, one.charged.operations),
        };
        let part = charged as f64 / counted.max(1) as f64;
        let timeline = Timeline::new(seen.times.start_ns, &one.result.done);
        let mut row = |name: &str, factor, from_ns| {
            let achieved = timeline.rate(from_ns, ns(self.case.duration)) * a_request;
            into.enforcement.push(EnforcementObservation {
                controller: "blkio",
                setting: self.setting_name(name, index),
                unit,
                iteration: 0,
                requested: self.rate_of(index, rate, factor) as f64,
                achieved,
                accounted: Some(achieved * part),
                tolerance_pct: THROTTLE_TOLERANCE_PCT,
                start_ns: from_ns,
            });
        };
        row(setting.as_str(), 1.0, seen.times.window_ns);
        if let (Some(changed_ns), Some(change)) = (seen.changed_ns, change) {
            row(&format!("{setting}/changed"), change, changed_ns + ns(SETTLE));
            if index == 0 {
                let rate = self.rate_of(index, rate, change) as f64 / a_request;
                let value = timeline.settled_after(changed_ns, rate, seen.times.end_ns) as f64;
                into.values.push(observation("settling_time", value, changed_ns));
            }
        }
    }

    /// What was charged, against what was counted.
    fn observe_account(&self, one: &Performance, index: u32, into: &mut Observations) {
        let mut row = |name: &str, unit, counted: u64, charged: u64| {
            into.enforcement.push(EnforcementObservation {
                controller: "blkio",
                setting: self.setting_name(name, index),
                unit,
                iteration: 0,
                requested: counted as f64,
                achieved: charged as f64,
                accounted: Some(charged as f64),
                tolerance_pct: 0.0,
                start_ns: one.result.began_ns,
            });
        };
        row("bytes", "bytes", one.result.bytes, one.charged.bytes);
        // Through the page cache the requests are the kernel's, and a flush counts as one.
        if self.case.io == BlockIo::Direct {
            row("operations", "count", one.result.operations, one.charged.operations);
        }
    }

    fn observe_weight(&self, all: &[Performance], times: Times, into: &mut Observations) {
        let (BlkioLimit::Weight { weights: (a, b), bfq }, [first, second]) = (self.case.limit, all) else { return };
        let counts = [first, second]
            .map(|one| Timeline::new(times.start_ns, &one.result.done).count(times.window_ns, ns(self.case.duration)));
        let done = counts[0] + counts[1];
        let charged = (first.charged.bytes + second.charged.bytes).max(1) as f64;
        let parts = [(first, a, counts[0], 0), (second, b, counts[1], 1)];
        let requested = |weight: u32| f64::from(weight) / f64::from(a + b);
        let share = |count: f64| if done > 0.0 { count / done } else { 0.0 };
        let error = (share(counts[0]) - requested(a)).abs() / requested(a);
        into.values.push(observation("weight_error", error, times.window_ns));
        if bfq == BfqMode::Default {
            return;
        }
        for (one, weight, count, index) in parts {
            into.enforcement.push(EnforcementObservation {
                controller: "blkio",
                setting: self.setting_name("weight", index),
                unit: "ratio",
                iteration: 0,
                requested: requested(weight),
                achieved: share(count),
                accounted: Some(one.charged.bytes as f64 / charged),
                tolerance_pct: WEIGHT_TOLERANCE_PCT,
                start_ns: times.window_ns,
            });
        }
    }

    fn observe_flow(&self, all: &[Performance], times: Times, into: &mut Observations) {
        let (mut bytes, mut operations) = (0.0, 0.0);
        for one in all {
            let rate = Timeline::new(times.start_ns, &one.result.done).rate(times.window_ns, ns(self.case.duration));
            operations += rate;
            bytes += rate * f64::from(one.arguments.block_size);
        }
        into.values.push(observation("io_throughput", bytes, times.window_ns));
        let longest = all.iter().map(|one| one.result.longest_ns).max().unwrap_or(0);
        into.values.push(observation("io_stall", longest as f64, times.window_ns));
        let BlkioLimit::Throttle { setting, rate, .. } = self.case.limit else { return };
        into.values.push(observation("io_operations", operations, times.window_ns));
        if self.writes_into_the_cache() {
            let asked: u64 = (0..self.case.containers).map(|index| self.rate_of(index, rate, 1.0)).sum();
            let seen = if setting == BlkioSetting::WriteBps { bytes } else { operations };
            into.values.push(observation("buffered_excess", seen / asked as f64, times.window_ns));
        }
    }

    fn writes_into_the_cache(&self) -> bool {
        self.case.io == BlockIo::Buffered && self.operation() == Operation::Write
    }

    /// With two containers a setting says which one it is about.
    fn setting_name(&self, name: &str, index: u32) -> String {
        match (self.case.containers, index) {
            (1, _) => name.to_owned(),
            (_, 0) => format!("{name}/a"),
            _ => format!("{name}/b"),
        }
    }
}

/// What a run saw beside the containers' results.
struct Seen {
    times: Times,
    changed_ns: Option<u64>,
}

impl Experiment for BlkioExperiment {
    fn prepare(&mut self) -> Result<(), ExperimentError> {
        let mut disk = disk(&self.case.device, self.operation() == Operation::Write)?;
        if let BlkioLimit::Weight { bfq, .. } = self.case.limit {
            setup::use_bfq(&mut disk, bfq)?;
        }
        self.disk = Some(disk);
        Ok(())
    }

    fn measure(&mut self, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
        let disk = self.disk.as_ref().ok_or_else(not_prepared)?;
        let mut late = 0;
        for _ in 0..TRIES {
            let times = Times::from(clock::now_ns(), &self.case);
            let (all, changed_ns) = self.run(disk, times, stop)?;
            late = all.iter().map(|one| one.result.began_ns).max().unwrap_or(0).saturating_sub(times.start_ns);
            // Later than that, the throttle's first budget would be spent inside the window.
            if late > ns(WARMUP) / 3 {
                continue;
            }
            self.observe_flow(&all, times, into);
            self.observe_weight(&all, times, into);
            if !self.writes_into_the_cache() {
                let seen = Seen { times, changed_ns };
                for (one, index) in all.iter().zip(0..) {
                    self.observe_throttle(one, index, &seen, into);
                    self.observe_account(one, index, into);
                }
            }
            return Ok(());
        }
        let message =
            format!("a container began {} after its time, {TRIES} times", crate::units::human(late as f64, "ns"));
        Err(ExperimentError::while_doing("starting the containers together")(message))
    }

    fn finish(&mut self) -> Result<(), ExperimentError> {
        // The loop device goes with its last descriptor; the scheduler is put back before.
        self.disk = None;
        Ok(())
    }
}

fn not_prepared() -> ExperimentError {
    ExperimentError::while_doing("measuring")("the experiment was not prepared".to_owned())
}

fn kind_of(setting: BlkioSetting) -> ThrottleKind {
    match setting {
        BlkioSetting::ReadBps | BlkioSetting::Weight => ThrottleKind::ReadBps,
        BlkioSetting::WriteBps => ThrottleKind::WriteBps,
        BlkioSetting::ReadIops => ThrottleKind::ReadIops,
        BlkioSetting::WriteIops => ThrottleKind::WriteIops,
    }
}

fn observation(name: &str, value: f64, start_ns: u64) -> Observation {
    Observation { metric: metric_named(name), iteration: 0, value, start_ns }
}

/// A metric of this experiment; the list has every name that is used here, and a test says so.
fn metric_named(name: &str) -> &'static Metric {
    metric::find(name).unwrap_or(&metric::METRICS[0])
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_in_the_list() {
        let names = ["io_throughput", "io_operations", "io_stall", "settling_time", "buffered_excess", "weight_error"];
        for name in names {
            assert_eq!((metric_named(name).name, metric_named(name).experiment), (name, "blkio"));
        }
    }
}
