//! The block case: a victim that reads a disk, one request after the other, and a neighbour that floods the same disk
//! with writes.
//!
//! The disk is a loop device over memory, of which each has a half. It is as fast as the CPUs, so that the neighbour
//! takes CPU time from the kernel's threads that serve the disk as much as turns on it.

use std::time::Duration;

use super::{Interference, LEAD, PATIENCE, failed, ns, out_of_order};
use crate::cgroup::Limits;
use crate::cgroup::blkio::{Throttle, ThrottleKind};
use crate::experiment::{ExperimentError, HistogramObservation, Observation, Observations, Stop};
use crate::lab::disk::{Disk, NODE};
use crate::record::metric;
use crate::scenario::NeighbourLimit;
use crate::sys::clock;
use crate::workload::block::{Arguments, Mode, Operation};
use crate::workload::result::Line;

/// Requests of the neighbour that are under way at once, and bytes of each.
const FLOOD_DEPTH: u32 = 8;
const FLOOD_BLOCK: u32 = 64 << 10;
/// Bytes of each of the victim's reads.
const READ_BLOCK: u32 = 4096;
/// What a throttle lets the neighbour write, in bytes a second.
const THROTTLED: u64 = 8 << 20;
/// The BFQ weights of the victim and of the neighbour.
const WEIGHTS: (u64, u64) = (1000, 10);

/// The limits of the neighbour on the disk.
pub(super) fn limits(disk: &Disk, limit: NeighbourLimit, limits: Limits) -> Limits {
    let (major, minor) = disk.limited();
    match limit {
        NeighbourLimit::Throttle => {
            let (major, minor) = (major.into(), minor.into());
            let throttle = Throttle { kind: ThrottleKind::WriteBps, major, minor, rate: THROTTLED };
            Limits { blkio_throttles: vec![throttle], ..limits }
        }
        NeighbourLimit::Weight => Limits { blkio_weight: Some(WEIGHTS.1), ..limits },
        _ => limits,
    }
}

impl Interference {
    /// A victim that reads, and a neighbour that writes.
    pub(super) fn reading(&self, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
        let stage = self.stage()?;
        let bytes = stage.disk.as_ref().map_or(0, Disk::bytes);
        let start_ns = clock::now_ns() + ns(LEAD);
        let victim = Arguments {
            path: format!("/dev/{NODE}"),
            operation: Operation::Read,
            mode: Mode::Direct,
            block_size: READ_BLOCK,
            queue_depth: 1,
            offset: 0,
            length: bytes / 2,
            start_ns,
            end_ns: start_ns + ns(self.case.duration),
        };
        let neighbour = if self.case.limit == NeighbourLimit::Alone {
            None
        } else {
            let flood = Arguments {
                operation: Operation::Write,
                block_size: FLOOD_BLOCK,
                queue_depth: FLOOD_DEPTH,
                offset: bytes / 2,
                // At once, and until it is killed.
                start_ns: clock::now_ns(),
                end_ns: victim.end_ns + ns(PATIENCE),
                ..victim.clone()
            };
            Some(self.start("the neighbour", flood.to_words(), self.limits(stage))?)
        };
        let limits = Limits {
            cpuset_cpus: Some(stage.cpus.0.to_string()),
            blkio_weight: (self.case.limit == NeighbourLimit::Weight).then_some(WEIGHTS.0),
            ..Limits::default()
        };
        let mut victim = self.start("the measured container", victim.to_words(), limits)?;
        let Line::Block(result) = victim.line(self.case.duration + PATIENCE, stop)? else {
            return Err(out_of_order());
        };
        let latency = result.latency.decode().map_err(failed("reading latencies"))?;
        let seconds = Duration::from_nanos(result.ended_ns - result.began_ns).as_secs_f64();
        let middle = latency.value_at_quantile(0.5) as f64;
        into.values.extend([
            Observation::first("victim_rate", result.operations as f64 / seconds, result.began_ns),
            Observation::first("victim_latency", middle, result.began_ns),
        ]);
        let metric = metric::named("victim_latency");
        into.histograms.push(HistogramObservation { metric, iteration: 0, histogram: latency });
        neighbour.map_or(Ok(()), super::Program::finish)?;
        victim.finish()
    }
}
