//! How a monitor begins: it starts its container or takes one up, and says how that went.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

use jiff::Timestamp;

use super::clients::{Client, Clients};
use super::daemon::First;
use super::health::Checks;
use super::streams::Streams;
use super::subject::Subject;
use super::{Monitor, MonitorError};
use crate::container::launch::Stdio;
use crate::container::state::{Health, Process, State, Status};
use crate::container::store::{Locked, Store, Stored};
use crate::container::wire::Message;
use crate::container::{Container, connect, log, make};
use crate::fs::remove_if_there;
use crate::image::Image;
use crate::sys::clock;

/// What a monitor is born with.
pub(super) struct Beginning {
    pub lock: Locked,
    pub image: Option<Image>,
    pub stream: UnixStream,
    pub first: First,
}

/// The monitor's whole life.
pub(super) fn live(store: &Store, stored: &Stored, beginning: Beginning) -> Result<(), MonitorError> {
    let Beginning { lock, image, stream, first } = beginning;
    let mut client = Client::new(stream).map_err(MonitorError::system("speak to the command"))?;
    client.interest.attached = first.attached;
    let mut monitor = match Monitor::new(store, stored, image, first) {
        Ok(monitor) => monitor,
        Err(error) => {
            client.tell(&Message::Failed(error.exit_code(), chain(&error)));
            return Err(error);
        }
    };
    // The first client sees the output from the first byte, so it is there before the start.
    monitor.clients.all.push(client);
    match monitor.begin(&lock) {
        Ok(()) => monitor.clients.all[0].tell(&Message::Started),
        Err(error) => {
            let told = monitor.not_started(&lock, &error);
            monitor.clients.all[0].tell(&Message::Failed(error.exit_code(), chain(&error)));
            drop(lock);
            told?;
            return monitor.say_farewell();
        }
    }
    drop(lock);
    monitor.serve()
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// Listens in the container's directory, whose path may be longer than an address can be.
fn listen(stored: &Stored) -> Result<UnixListener, MonitorError> {
    let directory = &stored.directory;
    let open = File::open(directory).map_err(MonitorError::system("open the container's directory"))?;
    // What a monitor that died left.
    let removed = remove_if_there(directory.join(super::super::client::SOCKET));
    removed.map_err(crate::container::ContainerError::from)?;
    let path = format!("/proc/self/fd/{}/{}", open.as_raw_fd(), super::super::client::SOCKET);
    UnixListener::bind(path).map_err(MonitorError::system("listen on a socket"))
}

impl Monitor {
    fn new(store: &Store, stored: &Stored, image: Option<Image>, first: First) -> Result<Self, MonitorError> {
        Ok(Self {
            listener: listen(stored)?,
            store: store.clone(),
            stored: stored.clone(),
            image,
            clients: Clients::default(),
            subject: None,
            streams: Streams::default(),
            log: None,
            log_lost: None,
            checks: Checks::of(stored.config.health.as_ref()),
            started: Instant::now(),
            restarts: 0,
            pause: None,
            restart_at: None,
            kill_at: None,
            stopped_by_hand: false,
            size: first.size,
        })
    }

    fn begin(&mut self, lock: &Locked) -> Result<(), MonitorError> {
        let state = lock.state()?;
        match state.init.filter(|init| state.status.is_up() && init.is_alive()) {
            Some(init) => self.take_up(lock, state, init),
            None => self.start(lock, State { restarts: 0, stopped_by_hand: false, ..state }),
        }
    }

    /// Starts the container and writes that it runs.
    pub(super) fn start(&mut self, lock: &Locked, state: State) -> Result<(), MonitorError> {
        let requested_ns = clock::now_ns();
        let config = &self.stored.config;
        if self.image.is_none() {
            self.image = Some(make::open_image(config)?);
        }
        let Some(image) = &self.image else { return Ok(()) };
        self.log_lost = None;
        if config.log.kept && self.log.is_none() {
            self.log = Some(log::Writer::open(self.stored.log(), config.log)?);
        }
        let made = make::container(&self.store, &self.stored, image)?;
        let (streams, stdio) = if config.tty {
            (Streams::default(), Stdio::default())
        } else {
            Streams::pipes(config.open_stdin).map_err(MonitorError::system("make pipes"))?
        };
        let mut container = Container::start(&made.spec, &made.network, stdio, requested_ns)?;
        container.await_exec()?;
        self.streams = match container.take_terminal() {
            Some(master) => Streams::terminal(master).map_err(MonitorError::system("set up the terminal"))?,
            None => streams,
        };
        if let Some(size) = self.size {
            self.streams.resize(size);
        }
        self.started = Instant::now();
        let connection = container.endpoint().map(connect::connection);
        // Written before anyone can look: a container that ended at once is a zombie until `ended` reaps it.
        let pid = container.pid();
        let init = Process::of(pid).unwrap_or(Process { pid, start_ticks: 0 });
        self.subject = Some(Subject::Own(Box::new(container)));
        self.checks.begin(self.started);
        lock.write(&State {
            status: Status::Running,
            boot: crate::container::store::boot()?,
            init: Some(init),
            monitor: own(),
            exit_code: None,
            error: String::new(),
            oom_killed: false,
            started: Some(Timestamp::now().to_string()),
            restarts: self.restarts,
            stopped_by_hand: false,
            connection,
            health: self.checks.are_made().then_some(Health::Starting),
            probes: Vec::new(),
            failing_streak: 0,
            ..state
        })?;
        Ok(())
    }

    /// Goes on where a monitor that died left off.
    fn take_up(&mut self, lock: &Locked, state: State, init: Process) -> Result<(), MonitorError> {
        self.subject = Some(Subject::take_up(&self.stored.config, init.pid)?);
        if !init.is_alive() {
            // It ended meanwhile, and the pid may be another's by now; what is not it has nothing to be told.
            self.subject = None;
        }
        if self.stored.config.log.kept {
            self.log = Some(log::Writer::open(self.stored.log(), self.stored.config.log)?);
        }
        self.streams = if self.stored.config.tty { Streams::default() } else { Streams::taken_up(init.pid) };
        self.restarts = state.restarts;
        self.checks.begin(Instant::now());
        lock.write(&State { monitor: own(), ..state })?;
        Ok(())
    }

    /// Writes why the container could not be started.
    pub(super) fn not_started(&mut self, lock: &Locked, error: &MonitorError) -> Result<(), MonitorError> {
        let state = lock.state()?;
        let status = if state.started.is_some() { Status::Exited } else { Status::Created };
        lock.write(&State {
            status,
            init: None,
            monitor: None,
            exit_code: Some(error.exit_code()),
            error: chain(error),
            connection: None,
            ..state
        })?;
        if self.stored.config.auto_remove { self.remove() } else { Ok(()) }
    }
}

/// Not what `Owner::current` remembers, which may be from before the fork.
fn own() -> Option<Process> {
    Process::of(std::process::id())
}
