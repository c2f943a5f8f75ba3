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
//! # When a container does not get to do its part
//!
//! A window in which a container was kept from the CPU (its run delay) for more than the tolerance allows, and whose
//! error that can explain, is taken again; see [`starvation`]. If it stays so, the setting is marked `starved`. A
//! container that came too late is given longer to start. A disk that does not carry twice what is asked would be
//! measured instead of the throttle: such a case is a named skip, see [`capacity`].
//!
//! # What is told and not judged
//!
//! - **Buffered writes**: the program writes into the page cache, and the kernel writes the pages out later. On v1 the
//!   kernel's flusher does so in its own name: no throttle of the container's holds it back, and it is not charged. On
//!   v2 it does so in the container's name, but the program is held back only once the cache may hold no more dirty
//!   pages. So there is no rate that was asked for; the metric `buffered_excess` tells what was seen. With
//!   `io = "synced"` the program itself writes the pages out, and the throttle holds, on v1 too;
//! - **the account of synced writes on v2** (`io_charged`): the kernel charges a write-out to the group that it takes
//!   for the owner of the device's pages as a whole, which is found by majority and changes late. Each run gets a fresh
//!   disk there, so that the owner is not a container that has gone;
//! - **BFQ as the kernel has it** (`bfq = "default"`): it is tuned for throughput; `weight_error` tells what was seen.

mod capacity;
mod contestant;
mod setup;
mod starvation;
mod timeline;

use std::sync::Arc;
use std::time::Duration;

use super::{EnforcementObservation, Experiment, ExperimentError, Judged, Observation, Observations, Stop};
use crate::cgroup::blkio::{Throttle, ThrottleKind};
use crate::cgroup::{Hierarchy, Limits};
use crate::lab::disk::Disk;
use crate::runtime::Runtime;
use crate::scenario::blkio::{BlkioCase, BlkioLimit, LEAD, SETTLE, SLICE, THROTTLE_TOLERANCE_PCT, WARMUP};
use crate::scenario::{BfqMode, BlkioSetting, BlockIo};
use crate::sys::clock;
use crate::units::ns;
use crate::workload::block::{Arguments, Mode, Operation};

use contestant::{Contestant, Performance};
pub(super) use setup::{disk, use_bfq};
use timeline::Timeline;

/// The tolerance of a share under BFQ, in percent of the share.
const WEIGHT_TOLERANCE_PCT: f64 = 2.0;

/// How often a block is tried whose containers came too late for their start, or were kept from the CPU.
const TRIES: u32 = 4;

/// How many times longer the containers are given to start, when they came too late.
const LONGER: u32 = 4;

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
    fn from(now_ns: u64, case: &BlkioCase, lead: Duration) -> Self {
        let start_ns = now_ns + ns(lead);
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

    fn make_disk(&self) -> Result<Disk, ExperimentError> {
        let mut disk = disk(&self.case.device, self.operation() == Operation::Write)?;
        if let BlkioLimit::Weight { bfq, .. } = self.case.limit {
            use_bfq(&mut disk, bfq)?;
        }
        Ok(disk)
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

    /// All containers, started.
    fn start(
        &self,
        disk: &Disk,
        times: Times,
        limits: impl Fn(u32) -> Limits,
    ) -> Result<Vec<Contestant>, ExperimentError> {
        let start = |index| Contestant::start(&*self.runtime, disk, limits(index), self.arguments(disk, index, times));
        (0..self.case.containers).map(start).collect()
    }

    /// What all containers do when nothing holds them back.
    fn run_unlimited(&self, disk: &Disk, times: Times, stop: Stop<'_>) -> Result<Vec<Performance>, ExperimentError> {
        let contestants = self.start(disk, times, |_| Limits::default())?;
        contestants.into_iter().map(|one| one.finish(disk, stop)).collect()
    }

    /// One run of all containers. Returns what they did and when the throttle was changed.
    fn run(
        &self,
        disk: &Disk,
        times: Times,
        stop: Stop<'_>,
    ) -> Result<(Vec<Performance>, Option<u64>), ExperimentError> {
        let contestants = self.start(disk, times, |index| self.limits(disk, index, 1.0))?;
        let mut changed_ns = None;
        if let (Some(at_ns), BlkioLimit::Throttle { change: Some(change), .. }) = (times.change_ns, self.case.limit) {
            stop.sleep_until(at_ns)?;
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
                judged: Judged::Achieved,
            });
        };
        row(setting.as_str(), 1.0, seen.times.window_ns);
        if let (Some(changed_ns), Some(change)) = (seen.changed_ns, change) {
            row(&format!("{setting}/changed"), change, changed_ns + ns(SETTLE));
            if index == 0 {
                let rate = self.rate_of(index, rate, change) as f64 / a_request;
                let value = timeline.settled_after(changed_ns, rate, seen.times.end_ns) as f64;
                into.values.push(Observation::first("settling_time", value, changed_ns));
            }
        }
    }

    /// All that a run came to. Returns the longest time that a container was kept from the CPU, in ns.
    fn observe(&self, all: &[Performance], seen: &Seen, into: &mut Observations) -> Result<u64, ExperimentError> {
        self.observe_flow(all, seen.times, into);
        self.observe_weight(all, seen.times, into);
        if !self.writes_into_the_cache() {
            for (one, index) in all.iter().zip(0..) {
                self.observe_throttle(one, index, seen, into);
                self.observe_account(one, index, into)?;
            }
        }
        let wait_ns = all.iter().filter_map(|one| one.result.cpu_wait_ns).max();
        into.values.extend(wait_ns.map(|ns| Observation::first("io_cpu_wait", ns as f64, seen.times.start_ns)));
        Ok(wait_ns.unwrap_or(0))
    }

    /// What was charged, against what was counted.
    fn observe_account(&self, one: &Performance, index: u32, into: &mut Observations) -> Result<(), ExperimentError> {
        if self.case.io == BlockIo::Synced {
            let part = one.charged.bytes as f64 / one.result.bytes.max(1) as f64;
            into.values.push(Observation::first("io_charged", part, one.result.began_ns));
            if setup::hierarchy()? == Hierarchy::V2 {
                return Ok(());
            }
        }
        let mut row = |name: &str, unit, counted: u64, charged: u64| {
            into.enforcement.push(EnforcementObservation {
                controller: "blkio",
                setting: self.setting_name(name, index),
                unit,
                iteration: 0,
                requested: counted as f64,
                achieved: counted as f64,
                accounted: Some(charged as f64),
                tolerance_pct: 0.0,
                start_ns: one.result.began_ns,
                judged: Judged::Accounted,
            });
        };
        row("bytes", "bytes", one.result.bytes, one.charged.bytes);
        // Through the page cache the requests are the kernel's, and a flush counts as one.
        if self.case.io == BlockIo::Direct {
            row("operations", "count", one.result.operations, one.charged.operations);
        }
        Ok(())
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
        into.values.push(Observation::first("weight_error", error, times.window_ns));
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
                judged: Judged::Achieved,
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
        into.values.push(Observation::first("io_throughput", bytes, times.window_ns));
        let longest = all.iter().map(|one| one.result.longest_ns).max().unwrap_or(0);
        into.values.push(Observation::first("io_stall", longest as f64, times.window_ns));
        let BlkioLimit::Throttle { setting, rate, .. } = self.case.limit else { return };
        into.values.push(Observation::first("io_operations", operations, times.window_ns));
        if self.writes_into_the_cache() {
            let asked: u64 = (0..self.case.containers).map(|index| self.rate_of(index, rate, 1.0)).sum();
            let seen = if setting == BlkioSetting::WriteBps { bytes } else { operations };
            into.values.push(Observation::first("buffered_excess", seen / asked as f64, times.window_ns));
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
        let disk = self.make_disk()?;
        if !self.writes_into_the_cache() {
            capacity::demand(self, &disk)?;
        }
        self.disk = Some(disk);
        Ok(())
    }

    fn measure(&mut self, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
        if self.case.io == BlockIo::Synced && setup::hierarchy()? == Hierarchy::V2 {
            // The old one first: a device of the host's own cannot be opened twice.
            self.disk = None;
            self.disk = Some(self.make_disk()?);
        }
        let disk = self.disk.as_ref().ok_or_else(not_prepared)?;
        let (mut lead, mut late_ns) = (LEAD, 0);
        for attempt in 1..=TRIES {
            let times = Times::from(clock::now_ns(), &self.case, lead);
            let (all, changed_ns) = self.run(disk, times, stop)?;
            late_ns = all.iter().map(|one| one.result.began_ns).max().unwrap_or(0).saturating_sub(times.start_ns);
            // Later than that, the throttle's first budget would be spent inside the window.
            if late_ns > ns(WARMUP) / 3 {
                lead *= LONGER;
                continue;
            }
            let mut seen = Observations::default();
            let wait_ns = self.observe(&all, &Seen { times, changed_ns }, &mut seen)?;
            seen.starved = starvation::starved(&seen.enforcement, wait_ns, ns(self.case.duration));
            if seen.starved.is_empty() || attempt == TRIES {
                into.values.extend(seen.values);
                into.enforcement.extend(seen.enforcement);
                into.starved.extend(seen.starved);
                return Ok(());
            }
        }
        let message =
            format!("a container began {} after its time, {TRIES} times", crate::units::human(late_ns as f64, "ns"));
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

#[cfg(test)]
mod tests {
    use crate::record::metric;

    #[test]
    fn every_metric_is_in_the_list() {
        let names =
            "io_throughput io_operations io_stall io_cpu_wait io_charged settling_time buffered_excess weight_error";
        metric::tests::listed("blkio", &names.split(' ').collect::<Vec<_>>());
    }
}
