//! `accounting`: is a container charged for what it used?
//!
//! A case runs one container whose program uses a known amount of one resource ([`crate::workload::consume`]): it
//! rests, uses, and rests. The account is read in both rests, and the difference compared with the program's own count.
//! Called by the schedule through [`Experiment`].
//!
//! In the rows, *requested* and *achieved* are both what the program counted, and *accounted* what was charged. The
//! error is what is charged too much (or, negative, too little), in percent of what was used.
//!
//! # Tolerances
//!
//! - `cpu`: 1 % from 100 ms on; below, 20 µs more for the way into and out of the two rests. The thread's clock and
//!   the account are fed by the same clock of the scheduler's; v2 shows whole µs;
//! - `memory`: 1 % from 64 MiB on; below, the page tables (0.2 %) and two batches of 64 pages: a CPU charges 64 pages at
//!   once and keeps what is not used yet, so that a reading may be off by as much. A single page is charged as 64, or,
//!   out of what was kept, as none: its tolerance is so wide that its row fails only for what is charged to it besides;
//! - `block` and `network`: exact. Network is what eth0 of the container's counts, there being no controller for it:
//!   payload and 42 bytes of headers a datagram.

mod reading;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use super::blkio::disk;
use super::end::{End, EndError, unexpected};
use super::{EnforcementObservation, Experiment, ExperimentError, Judged, Observation, Observations, Stop};
use crate::cgroup::Limits;
use crate::lab::Lab;
use crate::lab::disk::Disk;
use crate::network::bridge::BridgeNetwork;
use crate::record::metric;
use crate::runtime::{Network, Runtime, StartRequest};
use crate::scenario::accounting::{AccountingCase, Amount};
use crate::scenario::blkio::BlockDevice;
use crate::sys::clock;
use crate::units::ns;
use crate::workload::consume::{Arguments, REST};
use crate::workload::result::{Consumed, Line};

use reading::{Account, Reading};

/// Payload bytes of a datagram.
const DATAGRAM: u32 = 1024;

/// Bytes of a request to the disk.
const BLOCK: u32 = 4096;

/// How far into a rest the account is read: the program has gone to sleep by then.
const INTO_REST: Duration = Duration::from_millis(15);

/// How long a program may take beside what it uses, in ns.
const PATIENCE_NS: u64 = 10_000_000_000;

/// How often a measurement is tried whose readings did not fall into the rests.
const TRIES: u32 = 4;

/// A batch of pages that a CPU charges at once, in bytes.
const BATCH: f64 = 64.0 * 4096.0;

/// A program of one thread leaves what is not used yet on the CPUs that it ran on; two are allowed for.
const CPUS_VISITED: f64 = 2.0;

/// Eight bytes of a page table for each page, charged to the same account, in percent of the pages.
const PAGE_TABLES_PCT: f64 = 0.2;

/// From these amounts on, the tolerance is 1 %.
const ENOUGH_CPU: Duration = Duration::from_millis(100);
const ENOUGH_MEMORY: u32 = 64 << 20;

/// The way into and out of the rests, in ns.
const EDGES_NS: f64 = 20_000.0;

/// One case of the experiment.
pub struct AccountingExperiment {
    case: AccountingCase,
    runtime: Arc<dyn Runtime>,
    place: Option<Place>,
}

/// What all blocks share.
enum Place {
    /// CPU and memory need nothing.
    Nothing,
    /// A disk.
    Disk(Disk),
    /// A lab with a bridge, and a socket on its host that takes the datagrams, so that none is answered by ICMP.
    Net { network: Arc<BridgeNetwork>, to: SocketAddr, _socket: UdpSocket, _lab: Lab },
}

/// One measurement.
struct Measured {
    consumed: Consumed,
    before: Reading,
    after: Reading,
}

impl AccountingExperiment {
    /// An experiment for a case, with the runtime that the case names.
    #[must_use]
    pub fn new(case: AccountingCase, runtime: Arc<dyn Runtime>) -> Self {
        Self { case, runtime, place: None }
    }

    fn request(&self, place: &Place) -> StartRequest {
        let arguments = match (self.case.amount, place) {
            (Amount::Cpu(time), _) => Arguments::Cpu { ns: ns(time) },
            (Amount::Memory(bytes), _) => Arguments::Memory { bytes: bytes.into() },
            (Amount::Block(bytes), _) => {
                let path = format!("/dev/{}", crate::lab::disk::NODE);
                Arguments::Block { path, bytes: bytes.into(), block_size: BLOCK }
            }
            (Amount::Network(bytes), place) => {
                let to =
                    if let Place::Net { to, .. } = place { *to } else { SocketAddr::from((Ipv4Addr::LOCALHOST, 9)) };
                Arguments::Datagrams { to, bytes: bytes.into(), size: DATAGRAM }
            }
        };
        let network = match place {
            Place::Net { network, .. } => Network::Bridge { network: network.clone(), ports: Vec::new() },
            Place::Nothing | Place::Disk(_) => Network::None,
        };
        let request = StartRequest::new(arguments.to_words(), network);
        match place {
            Place::Disk(disk) => StartRequest {
                limits: Limits { devices: vec![disk.rule()], ..Limits::default() },
                devices: vec![disk.node()],
                ..request
            },
            Place::Nothing | Place::Net { .. } => request,
        }
    }

    /// One container from its start to its end; `None` when a reading missed its rest.
    fn run(&self, place: &Place, stop: Stop<'_>) -> Result<Option<Measured>, ExperimentError> {
        let mut end = End::start(&*self.runtime, self.request(place))
            .map_err(ExperimentError::while_doing("starting a container"))?;
        let running = || EndError::while_doing("running a program");
        let account = match (self.case.amount, place) {
            (Amount::Cpu(_), _) => Account::Cpu,
            (Amount::Memory(_), _) => Account::Memory,
            (Amount::Network(_), _) => Account::Network,
            (Amount::Block(_), Place::Disk(disk)) => Account::Block { device: disk.limited() },
            (Amount::Block(_), Place::Nothing | Place::Net { .. }) => return Err(not_prepared()),
        };
        rest(&mut end, 1, stop).map_err(running())?;
        let before = account.read(end.instance())?;
        rest(&mut end, 2, stop).map_err(running())?;
        let after = account.read(end.instance())?;
        let deadline_ns = clock::now_ns() + PATIENCE_NS;
        let consumed = match end.line("consumed", deadline_ns, stop).map_err(running())? {
            Line::Consumed(consumed) => consumed,
            other => return Err(running()(unexpected(&other, "consumed"))),
        };
        end.finish(deadline_ns, stop).map_err(EndError::while_doing("ending a container"))?;
        let in_time = before.end_ns < consumed.began_ns && after.end_ns < consumed.ended_ns;
        Ok(in_time.then_some(Measured { consumed, before, after }))
    }

    fn observe(&self, measured: &Measured, iteration: u32, into: &mut Observations) {
        let Measured { consumed, before, after } = measured;
        let charged = after.since(*before);
        let mut row = |controller, setting: &str, unit, used: u64, charged: u64, tolerance_pct| {
            into.enforcement.push(EnforcementObservation {
                controller,
                setting: setting.to_owned(),
                unit,
                iteration,
                requested: used as f64,
                achieved: used as f64,
                accounted: Some(charged as f64),
                tolerance_pct,
                start_ns: consumed.began_ns,
                judged: Judged::Accounted,
            });
        };
        match self.case.amount {
            Amount::Cpu(time) => {
                row("cpu", "charged", "ns", consumed.cpu_ns, charged.first, cpu_tolerance_pct(time));
            }
            Amount::Memory(bytes) => {
                row("memory", "charged", "bytes", consumed.bytes, charged.first, memory_tolerance_pct(bytes));
            }
            Amount::Block(_) => {
                row("blkio", "bytes", "bytes", consumed.bytes, charged.first, 0.0);
                row("blkio", "operations", "count", consumed.operations, charged.second, 0.0);
            }
            Amount::Network(_) => {
                row("network", "bytes", "bytes", consumed.bytes, charged.first, 0.0);
                row("network", "packets", "count", consumed.operations, charged.second, 0.0);
            }
        }
        for reading in [before, after] {
            let value = (reading.end_ns - reading.begin_ns) as f64;
            let metric = metric::named("read_cost");
            into.values.push(Observation { metric, iteration, value, start_ns: reading.begin_ns });
        }
    }
}

/// Waits for the begin of a rest, and until the program is asleep.
fn rest(end: &mut End, which: u8, stop: Stop<'_>) -> Result<(), EndError> {
    match end.line("resting", clock::now_ns() + PATIENCE_NS + PATIENCE_NS, stop)? {
        Line::Resting(resting) if resting.rest == which => {}
        other => return Err(unexpected(&other, "resting")),
    }
    debug_assert!(INTO_REST < REST);
    Ok(stop.sleep_until(clock::now_ns() + ns(INTO_REST))?)
}

impl Experiment for AccountingExperiment {
    fn prepare(&mut self) -> Result<(), ExperimentError> {
        self.place = Some(match self.case.amount {
            Amount::Cpu(_) | Amount::Memory(_) => Place::Nothing,
            Amount::Block(_) => Place::Disk(disk(&BlockDevice::Loop, true)?),
            Amount::Network(_) => {
                let lab = Lab::new().map_err(ExperimentError::while_doing("making a lab"))?;
                let network = lab.bridge().map_err(ExperimentError::while_doing("making a bridge in the lab"))?;
                let address = (lab.host_address(), 0);
                let socket = lab.host().netns().enter(|| UdpSocket::bind(address));
                let socket = socket.flatten().map_err(ExperimentError::while_doing("opening a socket in the lab"))?;
                let to = socket.local_addr().map_err(ExperimentError::while_doing("asking for the socket's port"))?;
                Place::Net { network, to, _socket: socket, _lab: lab }
            }
        });
        Ok(())
    }

    fn measure(&mut self, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
        let place = self.place.as_ref().ok_or_else(not_prepared)?;
        for iteration in 0..self.case.per_block {
            let mut measured = None;
            for _ in 0..TRIES {
                measured = self.run(place, stop)?;
                if measured.is_some() {
                    break;
                }
            }
            let missed = || format!("the harness came too late to read while the program rested, {TRIES} times");
            let measured = measured.ok_or_else(|| ExperimentError::while_doing("reading the account")(missed()))?;
            self.observe(&measured, iteration, into);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), ExperimentError> {
        self.place = None;
        Ok(())
    }
}

fn not_prepared() -> ExperimentError {
    ExperimentError::while_doing("measuring")("the experiment was not prepared".to_owned())
}

fn cpu_tolerance_pct(used: Duration) -> f64 {
    if used >= ENOUGH_CPU { 1.0 } else { 1.0 + 100.0 * EDGES_NS / used.as_nanos() as f64 }
}

fn memory_tolerance_pct(bytes: u32) -> f64 {
    if bytes >= ENOUGH_MEMORY { 1.0 } else { PAGE_TABLES_PCT + 100.0 * CPUS_VISITED * BATCH / f64::from(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerances_are_one_percent_where_enough_is_used() {
        assert_eq!(cpu_tolerance_pct(Duration::from_millis(100)), 1.0);
        assert!((cpu_tolerance_pct(Duration::from_millis(1)) - 3.0).abs() < 1e-9);
        assert_eq!(memory_tolerance_pct(64 << 20), 1.0);
        assert!((memory_tolerance_pct(1 << 20) - 50.2).abs() < 1e-9);
        let largest_below = memory_tolerance_pct((64 << 20) - 4096);
        assert!(largest_below > 0.98 && largest_below < 1.0, "no step upwards at the edge: {largest_below}");
    }

    #[test]
    fn every_metric_is_in_the_list() {
        metric::tests::listed("accounting", &["read_cost"]);
    }
}
