//! `network`: what a mode's way costs in throughput, latency, connections and CPU time.
//!
//! One sample is one run of a workload's two ends ([`crate::workload`]): one in a container of the runtime under test,
//! the other in the peer (or in a second container). Each sample takes fresh containers, so that no state of an earlier
//! one (TIME_WAIT sockets, tuned buffers) carries over. Called by the schedule through [`Experiment`].

mod cpu;
mod metrics;
mod route;
mod stage;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::end::{End, EndError, unexpected};
use super::{Experiment, ExperimentError, Observations, Stop, cpus};
use crate::network::{PortMapping, Protocol};
use crate::runtime::{Instance, Network, Runtime, RuntimeError, StartRequest};
use crate::scenario::{NetworkCase, NetworkMode, NetworkTest};
use crate::sys::clock;
use crate::units::ns;
use crate::workload::Test;
use crate::workload::arguments::{Arguments, Role};
use crate::workload::result::{ClientResult, Line, ServerResult};

use cpu::CpuMeter;
use route::{Bind, Place, Route, SERVER_PORT, Target};
use stage::Stage;

/// How long anything beside the flow itself may take: a start, a line, an end.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a failing end is listened to for its reason, once the other has failed.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// One case of the `network` experiment.
pub struct NetworkExperiment {
    case: NetworkCase,
    runtime: Arc<dyn Runtime>,
    ready: Option<Ready>,
}

/// What all blocks share.
struct Ready {
    stage: Stage,
    route: Route,
    /// The CPUs of client and server, where they are pinned.
    cpus: Option<(u32, u32)>,
    meter: Option<CpuMeter>,
    /// Holds the network namespace that the ends join, in mode `container`.
    partner: Option<Box<dyn Instance>>,
}

/// What both ends and the harness saw in one window.
struct Outcome {
    client: ClientResult,
    server: ServerResult,
    beside_ns: Option<u64>,
}

impl NetworkExperiment {
    /// An experiment for one case, in a lab of its own.
    #[must_use]
    pub fn new(case: NetworkCase, runtime: Arc<dyn Runtime>) -> Self {
        Self { case, runtime, ready: None }
    }

    /// The way of the traffic, if this case can be measured at all.
    fn check(&self) -> Result<Route, ExperimentError> {
        let route = Route::of(self.case.network, self.case.path).map_err(ExperimentError::Unsupported)?;
        let test = workload_of(self.case.test);
        let (low, high) = test.message_sizes();
        let size = self.case.message_size;
        if !(low..=high).contains(&size) {
            let reason = format!("{test} takes messages of {low} to {high} bytes, not {size}");
            return Err(ExperimentError::Unsupported(reason));
        }
        Ok(route)
    }

    fn needs_bridge(&self) -> bool {
        matches!(self.case.network, NetworkMode::Bridge | NetworkMode::Container)
    }

    /// Starts the container whose namespace the others join.
    fn partner(&self, ready: &Ready) -> Result<Box<dyn Instance>, ExperimentError> {
        let request = StartRequest::new(vec!["hold".to_owned()], bridge(&ready.stage, self.published(ready.route))?);
        self.runtime.start(request).map_err(start_failed("starting the partner container"))
    }

    /// The ports that the traffic of this route needs on the host.
    fn published(&self, route: Route) -> Vec<PortMapping> {
        if !route.publishes() {
            return Vec::new();
        }
        let udp = workload_of(self.case.test).is_udp().then_some(Protocol::Udp);
        // Control runs over TCP in every test.
        let protocols = [Protocol::Tcp].into_iter().chain(udp);
        protocols
            .map(|protocol| PortMapping { host_ip: None, host_port: 0, container_port: SERVER_PORT, protocol })
            .collect()
    }

    /// The network of an end in a container. Only a server on the bridge itself publishes ports.
    fn network(&self, ready: &Ready, server: bool) -> Result<Network, ExperimentError> {
        match self.case.network {
            NetworkMode::Host => Ok(Network::Host(ready.stage.host.clone())),
            NetworkMode::None => Ok(Network::None),
            NetworkMode::Bridge => {
                let ports = if server { self.published(ready.route) } else { Vec::new() };
                bridge(&ready.stage, ports)
            }
            NetworkMode::Container => {
                let partner = ready.partner.as_ref().ok_or_else(not_prepared)?;
                let namespace = partner.netns().map_err(failed("looking for the partner's network"))?;
                Ok(Network::Container(namespace))
            }
        }
    }

    fn start(&self, ready: &Ready, place: Place, arguments: Arguments) -> Result<End, ExperimentError> {
        let server = matches!(arguments.role, Role::Server(_));
        let doing = format!("starting the {} in the {}", end_name(server), place_name(place));
        match place {
            Place::Peer => End::process(&ready.stage.peer, arguments).map_err(failed(doing)),
            Place::Container => {
                let network = self.network(ready, server)?;
                End::container(&*self.runtime, network, &arguments).map_err(|error| match error {
                    EndError::Runtime(error) => start_failed(doing)(error),
                    error => failed(doing)(error),
                })
            }
        }
    }

    /// One run of both ends. Whatever happens, both are ended, reaped and removed.
    fn run(&self, ready: &Ready, stop: Stop<'_>) -> Result<Outcome, ExperimentError> {
        let mut server = self.start(ready, ready.route.server, self.server_arguments(ready))?;
        let bound = match server.line("ready", soon(), stop) {
            Ok(Line::Ready(line)) => line.address,
            Ok(line) => return Err(EndError::while_doing("waiting for the server")(unexpected(&line, "ready"))),
            Err(error) => return Err(EndError::while_doing("waiting for the server")(error)),
        };
        let (connect, data_port) = self.target(ready, &server, bound)?;
        let mut client = self.start(ready, ready.route.client, self.client_arguments(ready, connect, data_port))?;
        match self.watch(ready, &mut client, &mut server, stop) {
            Ok(outcome) => {
                client.finish(soon(), stop).map_err(EndError::while_doing("ending the client"))?;
                server.finish(soon(), stop).map_err(EndError::while_doing("ending the server"))?;
                Ok(outcome)
            }
            Err(EndError::Interrupted) => Err(ExperimentError::Interrupted),
            Err(error) => Err(both_sides(error, &mut server, stop)),
        }
    }

    /// Follows the two ends through the window and takes their results.
    fn watch(&self, ready: &Ready, client: &mut End, server: &mut End, stop: Stop<'_>) -> Result<Outcome, EndError> {
        let window = match client.line("window", soon(), stop)? {
            Line::Window(window) => window,
            line => return Err(unexpected(&line, "window")),
        };
        let read = || ready.meter.as_ref().and_then(CpuMeter::read);
        stop.sleep_until(window.start_ns)?;
        let opened = read();
        stop.sleep_until(window.end_ns)?;
        let closed = read();
        let beside_ns = opened.zip(closed).map(|(opened, closed)| closed.since(opened));
        // Beyond the window an end may take its own patience to notice that the other is silent.
        let deadline_ns = soon() + ns(PATIENCE);
        let client = match client.line("client", deadline_ns, stop)? {
            Line::Client(result) => result,
            line => return Err(unexpected(&line, "client")),
        };
        let server = match server.line("server", deadline_ns, stop)? {
            Line::Server(result) => result,
            line => return Err(unexpected(&line, "server")),
        };
        Ok(Outcome { client, server, beside_ns })
    }

    fn server_arguments(&self, ready: &Ready) -> Arguments {
        let (address, port) = match ready.route.bind {
            Bind::Peer => (ready.stage.peer_address, 0),
            Bind::Host => (ready.stage.host_address, 0),
            Bind::Loopback => (Ipv4Addr::LOCALHOST, 0),
            Bind::Any => (Ipv4Addr::UNSPECIFIED, SERVER_PORT),
        };
        let mut arguments = Arguments::server(workload_of(self.case.test), SocketAddr::from((address, port)));
        arguments.cpu = ready.cpus.map(|(_, server)| server);
        arguments.timeout = PATIENCE;
        arguments
    }

    fn client_arguments(&self, ready: &Ready, connect: SocketAddr, data_port: Option<u16>) -> Arguments {
        let mut arguments = Arguments::client(workload_of(self.case.test), connect);
        arguments.cpu = ready.cpus.map(|(client, _)| client);
        arguments.timeout = PATIENCE;
        if let Role::Client(client) = &mut arguments.role {
            client.data_port = data_port;
            (client.duration, client.warmup) = (self.case.duration, self.case.warmup);
            (client.message_size, client.streams) = (self.case.message_size, self.case.streams);
        }
        arguments
    }

    /// Where the client finds the server, and the port of its datagrams where that is another one.
    fn target(
        &self,
        ready: &Ready,
        server: &End,
        bound: SocketAddr,
    ) -> Result<(SocketAddr, Option<u16>), ExperimentError> {
        let lost = |what: &str| ExperimentError::while_doing("looking for the server")(what.to_owned());
        match ready.route.target {
            Target::Bound => Ok((bound, None)),
            Target::Container => {
                let address = server.instance().and_then(Instance::address);
                let address = address.ok_or_else(|| lost("the server's container has no address"))?;
                Ok((SocketAddr::from((address, bound.port())), None))
            }
            Target::Published => {
                let holder = ready.partner.as_deref().or(server.instance());
                let ports = holder.map_or(&[][..], |holder| holder.ports());
                let port = |protocol| {
                    ports.iter().find(|mapping| mapping.protocol == protocol).map(|mapping| mapping.host_port)
                };
                let tcp = port(Protocol::Tcp).ok_or_else(|| lost("the server's port was not published"))?;
                Ok((SocketAddr::from((ready.stage.host_address, tcp)), port(Protocol::Udp)))
            }
        }
    }
}

impl Experiment for NetworkExperiment {
    fn prepare(&mut self) -> Result<(), ExperimentError> {
        let route = self.check()?;
        let cpus = if self.case.pin { Some(cpus::two("pinning both ends")?) } else { None };
        let stage = Stage::lab(self.needs_bridge())?;
        let mut ready = Ready { stage, route, cpus, meter: CpuMeter::find(), partner: None };
        if self.case.network == NetworkMode::Container {
            ready.partner = Some(self.partner(&ready)?);
        }
        self.ready = Some(ready);
        Ok(())
    }

    fn measure(&mut self, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
        let ready = self.ready.as_ref().ok_or_else(not_prepared)?;
        let outcome = self.run(ready, stop)?;
        metrics::push(&outcome.client, &outcome.server, outcome.beside_ns, into).map_err(failed("judging the results"))
    }

    fn finish(&mut self) -> Result<(), ExperimentError> {
        let Some(ready) = self.ready.take() else { return Ok(()) };
        // The partner first: it stands on the stage.
        match ready.partner {
            Some(partner) => partner.remove().map_err(failed("removing the partner container")),
            None => Ok(()),
        }
    }
}

impl Drop for NetworkExperiment {
    fn drop(&mut self) {
        // For a caller that did not come to `finish`; an error has nowhere to go any more.
        let _ = self.finish();
    }
}

fn bridge(stage: &Stage, ports: Vec<PortMapping>) -> Result<Network, ExperimentError> {
    match &stage.bridge {
        Some(network) => Ok(Network::Bridge { network: Arc::clone(network), ports }),
        None => Err(ExperimentError::Unsupported("there is no bridge on this stage".to_owned())),
    }
}

fn workload_of(test: NetworkTest) -> Test {
    match test {
        NetworkTest::TcpStream => Test::TcpStream,
        NetworkTest::TcpRr => Test::TcpRr,
        NetworkTest::TcpCrr => Test::TcpCrr,
        NetworkTest::UdpStream => Test::UdpStream,
        NetworkTest::UdpRr => Test::UdpRr,
    }
}

fn failed<E>(doing: impl Into<String>) -> impl FnOnce(E) -> ExperimentError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    ExperimentError::while_doing(doing)
}

/// A runtime that lacks the network mode makes the case a named skip.
fn start_failed(doing: impl Into<String>) -> impl FnOnce(RuntimeError) -> ExperimentError {
    let doing = doing.into();
    move |error| match error {
        RuntimeError::NetworkMode { .. } => ExperimentError::Unsupported(error.to_string()),
        RuntimeError::Failed { .. } => failed(doing)(error),
    }
}

/// What the client's failure is, with what the server says about it: often the server knows the cause.
fn both_sides(error: EndError, server: &mut End, stop: Stop<'_>) -> ExperimentError {
    let complaint = server.complaint(clock::now_ns() + ns(LAST_WORDS), stop);
    match complaint {
        Some(said) => failed("running the two ends")(format!("{error}; the server says: {said}")),
        None => failed("running the two ends")(error),
    }
}

fn not_prepared() -> ExperimentError {
    ExperimentError::while_doing("measuring")("the experiment was not prepared".to_owned())
}

fn end_name(server: bool) -> &'static str {
    if server { "server" } else { "client" }
}

fn place_name(place: Place) -> &'static str {
    match place {
        Place::Container => "container",
        Place::Peer => "peer's namespace",
    }
}

fn soon() -> u64 {
    clock::now_ns() + ns(PATIENCE)
}
