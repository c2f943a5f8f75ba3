//! Runtimes that are wrong by design: each wraps the built-in one and loses a part of what was asked of it. The tests
//! of every experiment that measures limits use them: its verdicts have to find each out.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use isobench::cgroup::devices::{Kind, Rule};
use isobench::cgroup::{Applied, Controller, Group, Layout, Limits};
use isobench::network::PortMapping;
use isobench::runtime::builtin::Builtin;
use isobench::runtime::{Instance, Phase, Reaped, Runtime, RuntimeError, StartRequest};
use isobench::scenario::RuntimeKind;
use isobench::sys::netns::NetNs;
use isobench::units::Limit;

/// What is wrong with a runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It makes the group, writes every limit, reads it back, and never puts the container in.
    ForgetsToAttach,
    /// It writes half of each number, and of rules on character devices only the right to read.
    HalvesLimits,
    /// It writes half of each number for the first container that it starts: half of everybody's shares would be the
    /// same split.
    HalvesTheFirst,
    /// It leaves everything out that this controller was asked for.
    LeavesOut(Controller),
    /// It writes no limit, and the group that it shows is without this controller and without the container.
    Lacks(Controller),
    /// The container's processes are outside its group for this controller.
    Strays(Controller),
}

/// The built-in runtime with a fault.
struct Faulty {
    inner: Builtin,
    fault: Fault,
    /// Whether a container has been started.
    started: AtomicBool,
}

/// A runtime with a fault, ready to start containers.
pub fn faulty(fault: Fault) -> Result<Arc<dyn Runtime>, RuntimeError> {
    Ok(Arc::new(Faulty { inner: Builtin::new()?, fault, started: AtomicBool::new(false) }))
}

/// The built-in runtime as it is.
pub fn faultless() -> Result<Arc<dyn Runtime>, RuntimeError> {
    Ok(Arc::new(Builtin::new()?))
}

impl Runtime for Faulty {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Builtin
    }

    fn start(&self, request: StartRequest) -> Result<Box<dyn Instance>, RuntimeError> {
        let first = !self.started.swap(true, Ordering::Relaxed);
        match self.fault {
            Fault::HalvesTheFirst if !first => self.inner.start(request),
            Fault::ForgetsToAttach => {
                let (group, applied) = group_of(&request)?;
                let limits = Limits { devices: everything(), ..Limits::default() };
                let inner = self.inner.start(StartRequest { limits, group_parent: None, ..request })?;
                Ok(Box::new(Outside { inner, group, applied }))
            }
            Fault::HalvesLimits | Fault::HalvesTheFirst => {
                let limits = halved(request.limits);
                self.inner.start(StartRequest { limits, ..request })
            }
            Fault::LeavesOut(controller) => {
                let limits = without(request.limits, controller);
                self.inner.start(StartRequest { limits, ..request })
            }
            Fault::Lacks(controller) => {
                let group = group_lacking(controller)?;
                let inner = self.inner.start(StartRequest { limits: Limits::default(), ..request })?;
                Ok(Box::new(Outside { inner, group, applied: Vec::new() }))
            }
            Fault::Strays(controller) => {
                let instance = self.inner.start(request)?;
                lead_astray(&*instance, controller)?;
                Ok(instance)
            }
        }
    }
}

fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(doing: &str) -> impl FnOnce(E) -> RuntimeError {
    move |error| RuntimeError::Failed { doing: doing.to_owned(), source: error.into() }
}

/// A group that this controller knows nothing of.
fn group_lacking(controller: Controller) -> Result<Group, RuntimeError> {
    let making = || failed("making a group without a controller");
    let mut layout = Layout::detect().map_err(making())?;
    layout.v1.remove(&controller);
    if let Some((_, names)) = &mut layout.v2 {
        names.retain(|name| Some(name.as_str()) != controller.v2_name());
    }
    Group::create(&layout, true).map_err(making())
}

/// Puts the container's first process above the group that all of isobench's groups are in.
fn lead_astray(instance: &dyn Instance, controller: Controller) -> Result<(), RuntimeError> {
    let directory = instance.group().and_then(|group| group.directory(controller));
    let top = directory.and_then(|path| path.ancestors().find(|path| path.ends_with("isobench")));
    let Some(outside) = top.and_then(Path::parent) else { return Ok(()) };
    // On v1 the container joins by itself, on its way to its program: it cannot be led away before it has come.
    let group = instance.group().and_then(|group| group.directory(controller));
    let members =
        group.map(|group| group.join("cgroup.procs")).ok_or_else(|| failed("leaving the group")("no group"))?;
    let pid = instance.pid().to_string();
    let deadline = Instant::now() + Duration::from_secs(5);
    while !std::fs::read_to_string(&members).map_err(failed("reading the members"))?.lines().any(|line| line == pid) {
        if Instant::now() > deadline {
            return Err(failed("leaving the group")("the container has never come"));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    std::fs::write(outside.join("cgroup.procs"), pid).map_err(failed("leaving the group"))
}

/// A group with all that was asked for, and nobody in it.
fn group_of(request: &StartRequest) -> Result<(Group, Vec<Applied>), RuntimeError> {
    let making = || failed("making the group that is then forgotten");
    let group = match &request.group_parent {
        Some(parent) => parent.create_child().map_err(making())?,
        None => {
            Group::create(&Layout::detect().map_err(making())?, request.limits.devices.is_empty()).map_err(making())?
        }
    };
    if !request.limits.devices.is_empty() {
        group.confine_devices().map_err(making())?;
    }
    let applied = group.apply(&request.limits).map_err(making())?;
    Ok((group, applied))
}

/// What a container may do that no devices controller holds back.
fn everything() -> Vec<Rule> {
    let all = |kind| Rule { allow: true, kind, major: None, minor: None, read: true, write: true, mknod: true };
    vec![all(Kind::Char), all(Kind::Block)]
}

fn halved(limits: Limits) -> Limits {
    let half = |limit: Option<Limit>| {
        limit.map(|limit| match limit {
            Limit::Value(value) => Limit::Value(value / 2),
            Limit::Max => Limit::Max,
        })
    };
    let mut halved = limits;
    halved.memory = half(halved.memory);
    halved.memory_and_swap = half(halved.memory_and_swap);
    halved.memory_soft = half(halved.memory_soft);
    halved.pids = half(halved.pids);
    halved.cpu_shares = halved.cpu_shares.map(|shares| (shares / 2).max(2));
    halved.blkio_weight = halved.blkio_weight.map(|weight| (weight / 2).max(1));
    if let Some(quota) = &mut halved.cpu_quota {
        quota.quota /= 2;
    }
    for throttle in &mut halved.blkio_throttles {
        throttle.rate /= 2;
    }
    for rule in halved.devices.iter_mut().filter(|rule| rule.kind == Kind::Char) {
        (rule.write, rule.mknod) = (false, false);
    }
    halved.devices.retain(|rule| rule.read);
    halved
}

fn without(limits: Limits, controller: Controller) -> Limits {
    match controller {
        Controller::Memory => Limits {
            memory: None,
            memory_and_swap: None,
            memory_soft: None,
            memory_min: None,
            memory_low: None,
            memory_oom_group: None,
            ..limits
        },
        Controller::Cpu => Limits { cpu_shares: None, cpu_quota: None, ..limits },
        Controller::Cpuset => Limits { cpuset_cpus: None, cpuset_mems: None, ..limits },
        Controller::Blkio => Limits { blkio_throttles: Vec::new(), blkio_weight: None, ..limits },
        Controller::Pids => Limits { pids: None, ..limits },
        Controller::Devices => Limits { devices: everything(), ..limits },
        Controller::Cpuacct | Controller::Freezer => limits,
    }
}

/// A container that is not in the group that it shows.
struct Outside {
    inner: Box<dyn Instance>,
    group: Group,
    applied: Vec<Applied>,
}

impl Instance for Outside {
    fn pid(&self) -> u32 {
        self.inner.pid()
    }

    fn address(&self) -> Option<Ipv4Addr> {
        self.inner.address()
    }

    fn ports(&self) -> &[PortMapping] {
        self.inner.ports()
    }

    fn netns(&self) -> Result<NetNs, RuntimeError> {
        self.inner.netns()
    }

    fn phases(&self) -> Vec<Phase> {
        self.inner.phases()
    }

    fn group(&self) -> Option<&Group> {
        Some(&self.group)
    }

    fn applied(&self) -> &[Applied] {
        &self.applied
    }

    fn exec(&mut self, workload: &[String]) -> Result<Reaped, RuntimeError> {
        self.inner.exec(workload)
    }

    fn wait(&mut self) -> Result<Reaped, RuntimeError> {
        self.inner.wait()
    }

    fn kill(&mut self) -> Result<(), RuntimeError> {
        self.inner.kill()
    }

    fn remove(self: Box<Self>) -> Result<(), RuntimeError> {
        let Self { inner, group, .. } = *self;
        let removed = inner.remove();
        let group = group.remove().map_err(failed("removing the group that was forgotten"));
        removed.and(group)
    }
}

/// The built-in runtime under a user who asks to stop as soon as the first container has started.
pub struct StopsAtStart {
    inner: Arc<dyn Runtime>,
    pub stop: AtomicBool,
    /// The containers: pid, and the directories of the group.
    pub started: Mutex<Vec<(u32, Vec<std::path::PathBuf>)>>,
}

impl StopsAtStart {
    pub fn new() -> Result<Arc<Self>, RuntimeError> {
        let inner = faultless()?;
        Ok(Arc::new(Self { inner, stop: AtomicBool::new(false), started: Mutex::default() }))
    }

    /// What is left of the containers.
    pub fn left(&self) -> Vec<String> {
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(!started.is_empty(), "no container was started");
        let processes = started.iter().map(|(pid, _)| format!("/proc/{pid}"));
        let groups = started.iter().flat_map(|(_, paths)| paths.iter().map(|path| path.display().to_string()));
        processes.chain(groups).filter(|path| std::fs::exists(path).unwrap_or(true)).collect()
    }
}

impl Runtime for StopsAtStart {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Builtin
    }

    fn start(&self, request: StartRequest) -> Result<Box<dyn Instance>, RuntimeError> {
        let instance = self.inner.start(request)?;
        let group = instance.group();
        let paths = Controller::ALL.iter().filter_map(|one| Some(group?.directory(*one)?.to_owned())).collect();
        self.started.lock().unwrap_or_else(PoisonError::into_inner).push((instance.pid(), paths));
        self.stop.store(true, Ordering::Relaxed);
        Ok(instance)
    }
}
