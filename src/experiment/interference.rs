//! `interference`: how much of a container's performance a noisy neighbour takes, and how much a limit on the neighbour
//! gives back.
//!
//! The victim computes (`mix`, in a window), reads a disk (`block`) or asks for replies over a bridge (`tcp_rr`); the
//! neighbour runs beside it from before the window until it is killed; one that ends before is an error, except where
//! its own memory limit ends it. `victim_rate` of each case is held against the undisturbed victim of the same block.
//! For a CPU neighbour both are on one CPU; for a memory neighbour each has its own, so that only caches and the
//! memory's bandwidth are shared; so has each beside a block neighbour, see [`reading`]; a network neighbour shares the
//! bridge and the CPUs.

mod reading;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::program::{Program, unsupported};
use super::{Experiment, ExperimentError, HistogramObservation, Observation, Observations, Stop, blkio, cpus};
use crate::cgroup::{Limits, cpu};
use crate::lab::Lab;
use crate::lab::awake::Awake;
use crate::lab::disk::Disk;
use crate::network::bridge::BridgeNetwork;
use crate::record::metric;
use crate::runtime::{Network, Runtime, StartRequest};
use crate::scenario::blkio::BlockDevice;
use crate::scenario::{BfqMode, InterferenceCase, Neighbour, NeighbourLimit};
use crate::sys::clock;
use crate::units::{Limit, ns};
use crate::workload::Test;
use crate::workload::arguments::{Arguments as Flow, Role};
use crate::workload::mix::{Arguments, Mixed};
use crate::workload::result::Line;

/// How long the neighbour runs before the victim's window opens.
const LEAD: Duration = Duration::from_millis(150);
/// How long anything may take beside the window.
const PATIENCE: Duration = Duration::from_secs(20);
/// Threads of a CPU neighbour.
const NOISY_THREADS: u32 = 4;
/// What a memory neighbour walks through, in bytes.
const NOISY_BYTES: u64 = 128 << 20;
/// What its victim walks through: about a second-level cache, so that it feels what happens behind it.
const VICTIM_BYTES: u64 = 16 << 20;
/// Flows of a network neighbour, each as fast as it goes. Of TCP: a flood of datagrams fills the queues so that the
/// victim does not even get its connection.
const FLOOD_STREAMS: u32 = 8;
/// The limits that hold a neighbour back.
const SHARES: u64 = 64;
const QUOTA: cpu::Quota = cpu::Quota { quota: Duration::from_millis(2), period: Duration::from_millis(20) };
const MEMORY: u64 = 48 << 20;
/// The port of every server: each has a namespace of its own.
const PORT: u16 = 5201;

/// One case of the experiment.
pub struct Interference {
    case: InterferenceCase,
    runtime: Arc<dyn Runtime>,
    stage: Option<Stage>,
}

/// What the blocks share.
struct Stage {
    /// The victim's CPU and another one.
    cpus: (u32, u32),
    bridge: Option<Arc<BridgeNetwork>>,
    disk: Option<Disk>,
    /// For a victim that waits for replies.
    _awake: Option<Awake>,
    /// Dropped last: the bridge is in it.
    _lab: Option<Lab>,
}

impl Interference {
    /// An experiment for a case, with the runtime that the case names.
    #[must_use]
    pub fn new(case: InterferenceCase, runtime: Arc<dyn Runtime>) -> Self {
        Self { case, runtime, stage: None }
    }

    fn stage(&self) -> Result<&Stage, ExperimentError> {
        self.stage.as_ref().ok_or_else(|| failed("measuring")("the experiment was not prepared".to_owned()))
    }

    /// The neighbour's limits; where it may run is a limit too.
    fn limits(&self, stage: &Stage) -> Limits {
        let (victim, other) = stage.cpus;
        let same = self.case.neighbour == Neighbour::Cpu && self.case.limit != NeighbourLimit::Cpuset;
        let cpus = match self.case.neighbour {
            Neighbour::Network if self.case.limit != NeighbourLimit::Cpuset => None,
            _ => Some(if same { victim } else { other }.to_string()),
        };
        let limits = Limits { cpuset_cpus: cpus, ..Limits::default() };
        match self.case.limit {
            NeighbourLimit::Alone | NeighbourLimit::None | NeighbourLimit::Cpuset => limits,
            NeighbourLimit::Shares => Limits { cpu_shares: Some(SHARES), ..limits },
            NeighbourLimit::Quota => Limits { cpu_quota: Some(QUOTA), ..limits },
            NeighbourLimit::Memory => Limits { memory: Some(Limit::Value(MEMORY)), ..limits },
            limit @ (NeighbourLimit::Throttle | NeighbourLimit::Weight) => match &stage.disk {
                Some(disk) => reading::limits(disk, limit, limits),
                None => limits,
            },
        }
    }

    fn start(&self, name: &'static str, words: Vec<String>, mut limits: Limits) -> Result<Program, ExperimentError> {
        let stage = self.stage()?;
        let bridge = stage.bridge.clone();
        let network = bridge.map_or(Network::None, |network| Network::Bridge { network, ports: Vec::new() });
        limits.devices.extend(stage.disk.as_ref().map(Disk::rule));
        let devices = stage.disk.iter().map(Disk::node).collect();
        let request = StartRequest { limits, devices, ..StartRequest::new(words, network) };
        Program::start(name, &*self.runtime, request)
    }

    /// Looks whether the neighbour ran to the end of the victim's window, and ends it. Its own memory limit may end it
    /// before, which is told; nothing else may.
    fn end_neighbour(&self, neighbour: Option<Program>, into: &mut Observations) -> Result<(), ExperimentError> {
        let Some(mut neighbour) = neighbour else { return Ok(()) };
        let ran = neighbour.is_running()?;
        if self.case.limit == NeighbourLimit::Memory {
            let killed = neighbour.group()?.usage().map_err(failed("asking for the neighbour's end"))?;
            let killed = killed.memory.is_some_and(|memory| memory.oom_kills > 0);
            if !ran && !killed {
                return Err(neighbour.why_it_ended());
            }
            into.values.push(Observation::first("neighbour_killed", if ran { 0.0 } else { 1.0 }, clock::now_ns()));
        } else if !ran {
            return Err(neighbour.why_it_ended());
        }
        neighbour.finish()
    }

    /// A victim that computes, and a neighbour that computes or walks through memory.
    fn computing(&self, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
        let stage = self.stage()?;
        let start_ns = clock::now_ns() + ns(LEAD);
        let window = Arguments { start_ns, end_ns: start_ns + ns(self.case.duration), ..Arguments::default() };
        let memory = self.case.neighbour == Neighbour::Memory;
        let neighbour = if self.case.limit == NeighbourLimit::Alone {
            None
        } else {
            let noisy = Arguments {
                burn: if memory { 1 } else { NOISY_THREADS },
                walk: if memory { NOISY_BYTES } else { 0 },
                // It is killed when the victim is done; its own window only has to be one.
                end_ns: window.end_ns + ns(PATIENCE),
                ..window
            };
            Some(self.start("the neighbour", noisy.to_words(), self.limits(stage))?)
        };
        let victim = Arguments { burn: 1, walk: if memory { VICTIM_BYTES } else { 0 }, ..window };
        let limits = Limits { cpuset_cpus: Some(stage.cpus.0.to_string()), ..Limits::default() };
        let mut victim = self.start("the measured container", victim.to_words(), limits)?;
        let mixed: Mixed = victim.line(self.case.duration + PATIENCE, stop)?;
        let seconds = self.case.duration.as_secs_f64();
        into.values.push(Observation::first("victim_rate", mixed.work as f64 / seconds, mixed.start_ns));
        self.end_neighbour(neighbour, into)?;
        victim.finish()
    }

    /// A victim that asks for replies, and a neighbour that sends in bulk, each from container to container.
    fn networking(&self, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
        let stage = self.stage()?;
        let noisy = if self.case.limit == NeighbourLimit::Alone {
            None
        } else {
            let flow = |flow: &mut Flow| {
                if let Role::Client(client) = &mut flow.role {
                    client.duration = self.case.duration + PATIENCE;
                    client.streams = FLOOD_STREAMS;
                }
            };
            Some(self.flow(
                Test::TcpStream,
                ["the neighbour's server", "the neighbour"],
                self.limits(stage),
                flow,
                stop,
            )?)
        };
        let flow = |flow: &mut Flow| {
            if let Role::Client(client) = &mut flow.role {
                (client.duration, client.warmup) = (self.case.duration, LEAD);
            }
        };
        let names = ["the measured container's server", "the measured container"];
        let [server, mut client] = self.flow(Test::TcpRr, names, Limits::default(), flow, stop)?;
        let Line::Client(result) = client.line(self.case.duration + PATIENCE, stop)? else {
            return Err(out_of_order());
        };
        let latency = result.latency.ok_or_else(out_of_order)?;
        let histogram = latency.decode().map_err(failed("reading latencies"))?;
        let seconds = result.elapsed_ns.max(1) as f64 / 1e9;
        into.values.push(Observation::first("victim_rate", result.messages as f64 / seconds, result.window.start_ns));
        into.values.push(Observation::first(
            "victim_rtt",
            histogram.value_at_quantile(0.5) as f64,
            result.window.start_ns,
        ));
        into.histograms.push(HistogramObservation { metric: metric::named("victim_rtt"), iteration: 0, histogram });
        let [noisy_server, noisy_client] = noisy.map_or([None, None], |ends| ends.map(Some));
        self.end_neighbour(noisy_client, into)?;
        for program in noisy_server.into_iter().chain([client, server]) {
            program.finish()?;
        }
        Ok(())
    }

    /// A server and a client of a network test, running.
    fn flow(
        &self,
        test: Test,
        [server_name, client_name]: [&'static str; 2],
        limits: Limits,
        adjust: impl Fn(&mut Flow),
        stop: Stop<'_>,
    ) -> Result<[Program; 2], ExperimentError> {
        let any = SocketAddr::from(([0, 0, 0, 0], PORT));
        let mut server = self.start(server_name, Flow::server(test, any).to_words(), limits.clone())?;
        let Line::Ready(_) = server.line(PATIENCE, stop)? else { return Err(out_of_order()) };
        let address =
            server.instance()?.address().ok_or_else(|| failed("measuring")("a server has no address".to_owned()))?;
        let mut flow = Flow::client(test, SocketAddr::from((address, PORT)));
        adjust(&mut flow);
        let mut client = self.start(client_name, flow.to_words(), limits)?;
        let Line::Window(_) = client.line(PATIENCE, stop)? else { return Err(out_of_order()) };
        Ok([server, client])
    }
}

impl Experiment for Interference {
    fn prepare(&mut self) -> Result<(), ExperimentError> {
        // Interrupts are mostly at the lowest.
        let (other, victim) = cpus::two("interference")?;
        let cpus = (victim, other);
        let (mut lab, mut bridge, mut disk, mut awake) = (None, None, None, None);
        match self.case.neighbour {
            Neighbour::Cpu | Neighbour::Memory => {}
            Neighbour::Block => {
                let made = disk.insert(blkio::disk(&BlockDevice::Loop, true)?);
                if self.case.limit == NeighbourLimit::Weight {
                    blkio::use_bfq(made, BfqMode::Default)?;
                }
            }
            Neighbour::Network => {
                let made = Lab::new().map_err(failed("making a lab"))?;
                bridge = Some(made.bridge().map_err(failed("making a bridge in the lab"))?);
                lab = Some(made);
            }
        }
        if matches!(self.case.neighbour, Neighbour::Block | Neighbour::Network) {
            awake = Awake::request().map_err(failed("keeping the CPUs awake"))?;
        }
        self.stage = Some(Stage { cpus, bridge, disk, _awake: awake, _lab: lab });
        // Whether the limits can be had here at all.
        let limits = self.limits(self.stage()?);
        self.start("the neighbour", vec!["hold".to_owned()], limits).map_err(unsupported)?.finish()
    }

    fn measure(&mut self, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
        match self.case.neighbour {
            Neighbour::Cpu | Neighbour::Memory => self.computing(into, stop),
            Neighbour::Block => self.reading(into, stop),
            Neighbour::Network => self.networking(into, stop),
        }
    }

    fn finish(&mut self) -> Result<(), ExperimentError> {
        self.stage = None;
        Ok(())
    }
}

fn failed<E>(doing: &'static str) -> impl FnOnce(E) -> ExperimentError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    ExperimentError::while_doing(doing)
}

fn out_of_order() -> ExperimentError {
    failed("measuring")("a container said something else than was due".to_owned())
}

#[cfg(test)]
mod tests {
    use crate::record::metric;

    #[test]
    fn every_metric_is_in_the_list() {
        metric::tests::listed("interference", &["victim_rate", "victim_rtt", "victim_latency", "neighbour_killed"]);
    }
}
