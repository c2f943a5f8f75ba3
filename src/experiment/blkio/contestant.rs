//! One container of a block case: what it may, what it does, what it did, and what the kernel charged it.

use crate::cgroup::{CgroupError, Controller, Group, Limits, blkio};
use crate::experiment::end::{End, EndError, unexpected};
use crate::experiment::{ExperimentError, Stop};
use crate::lab::disk::Disk;
use crate::runtime::{Instance, Network, Runtime, StartRequest};
use crate::workload::block::{Arguments, Operation};
use crate::workload::result::{BlockResult, Line};

/// How long a workload may take to end after its time, in ns. Under a throttle the last request of each thread waits
/// for its budget.
const PATIENCE_NS: u64 = 20_000_000_000;

/// A running container.
pub(super) struct Contestant {
    end: End,
    arguments: Arguments,
}

/// What a container did, and what it was charged for.
#[derive(Debug, Clone)]
pub(super) struct Performance {
    pub arguments: Arguments,
    pub result: BlockResult,
    pub charged: Charged,
}

/// Bytes and operations of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Charged {
    pub bytes: u64,
    pub operations: u64,
}

impl Contestant {
    /// Starts a container that may use the disk, under these limits.
    pub(super) fn start(
        runtime: &dyn Runtime,
        disk: &Disk,
        mut limits: Limits,
        arguments: Arguments,
    ) -> Result<Self, ExperimentError> {
        limits.devices.push(disk.rule());
        let request = StartRequest {
            limits,
            devices: vec![disk.node()],
            ..StartRequest::new(arguments.to_words(), Network::None)
        };
        let end = End::start(runtime, request).map_err(ExperimentError::while_doing("starting a container"))?;
        Ok(Self { end, arguments })
    }

    /// Changes the limits of the running container.
    pub(super) fn change(&self, limits: &Limits) -> Result<(), ExperimentError> {
        let group = self.end.instance().and_then(Instance::group);
        let group = group.ok_or_else(|| {
            ExperimentError::Unsupported("this runtime has no group whose limits could be changed".to_owned())
        })?;
        group.apply(limits).map(drop).map_err(ExperimentError::while_doing("changing a throttle"))
    }

    /// Waits for the result, reads the account while the group is there, and gives the container back.
    pub(super) fn finish(mut self, disk: &Disk, stop: Stop<'_>) -> Result<Performance, ExperimentError> {
        let deadline_ns = self.arguments.end_ns + PATIENCE_NS;
        let result =
            match self.end.line("block", deadline_ns, stop).map_err(EndError::while_doing("running a program"))? {
                Line::Block(result) => result,
                other => return Err(EndError::while_doing("running a program")(unexpected(&other, "block"))),
            };
        let group = self.end.instance().and_then(Instance::group);
        let charged = charged(group, disk.limited(), self.arguments.operation);
        let charged = charged.map_err(ExperimentError::while_doing("reading the account"))?;
        self.end.finish(deadline_ns, stop).map_err(EndError::while_doing("ending a container"))?;
        Ok(Performance { arguments: self.arguments, result, charged })
    }
}

/// What a group was charged for on one device. A group without the controller is charged for nothing.
fn charged(group: Option<&Group>, device: (u32, u32), operation: Operation) -> Result<Charged, CgroupError> {
    let Some(place) = group.and_then(|group| group.place(Controller::Blkio)) else { return Ok(Charged::default()) };
    let usage = blkio::usage_of(place, device)?;
    Ok(match operation {
        Operation::Read => Charged { bytes: usage.read_bytes, operations: usage.read_operations },
        Operation::Write => Charged { bytes: usage.write_bytes, operations: usage.write_operations },
    })
}
