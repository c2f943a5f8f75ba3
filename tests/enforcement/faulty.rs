//! Runtimes that are wrong by design, and the verdicts on them.

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use isobench::cgroup::{Applied, Controller, Group, Layout, Limits};
use isobench::experiment::{Experiment, Observations, Stop};
use isobench::network::PortMapping;
use isobench::record::enforcement::{EnforcementSample, judge};
use isobench::record::{EnforcementRow, Flags, Verdict};
use isobench::runtime::{Instance, Phase, Reaped, Runtime, RuntimeError, StartRequest, by_kind};
use isobench::scenario::RuntimeKind;
use isobench::sys::netns::NetNs;
use isobench::units::Limit;

/// What a runtime does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It makes the group and writes the limits, and does not put the container into it.
    NotAttached,
    /// It writes half of what was asked.
    Half,
    /// It leaves a controller out.
    Without(Controller),
}

/// The built-in runtime with a fault.
struct Faulty {
    inner: Arc<dyn Runtime>,
    fault: Fault,
}

pub fn faulty(fault: Fault) -> Result<Arc<dyn Runtime>, RuntimeError> {
    Ok(Arc::new(Faulty { inner: by_kind(RuntimeKind::Builtin)?, fault }))
}

fn failed<E: Error + Send + Sync + 'static>(error: E) -> RuntimeError {
    RuntimeError::Failed { doing: "being wrong by design".to_owned(), source: Box::new(error) }
}

fn half(limit: Option<Limit>) -> Option<Limit> {
    match limit {
        Some(Limit::Value(value)) => Some(Limit::Value(value / 2)),
        other => other,
    }
}

impl Runtime for Faulty {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Builtin
    }

    fn start(&self, mut request: StartRequest) -> Result<Box<dyn Instance>, RuntimeError> {
        let limits = request.limits.clone();
        let mut layout = Layout::detect().map_err(failed)?;
        match self.fault {
            Fault::Half => {
                request.limits.memory = half(limits.memory);
                request.limits.memory_and_swap = half(limits.memory_and_swap);
                request.limits.memory_soft = half(limits.memory_soft);
                request.limits.pids = half(limits.pids);
                return self.inner.start(request);
            }
            Fault::NotAttached => request.limits = Limits::default(),
            Fault::Without(controller) => {
                request.limits = Limits::default();
                layout.v1.remove(&controller);
                if let Some((_, names)) = &mut layout.v2 {
                    names.retain(|name| Some(name.as_str()) != controller.v2_name());
                }
            }
        }
        let group = Group::create(&layout, true).map_err(failed)?;
        let applied = match self.fault {
            Fault::NotAttached => group.apply(&limits).map_err(failed)?,
            _ => Vec::new(),
        };
        Ok(Box::new(Misled { inner: self.inner.start(request)?, group, applied }))
    }
}

/// A container whose runtime believes that it is in another group than it is.
struct Misled {
    inner: Box<dyn Instance>,
    group: Group,
    applied: Vec<Applied>,
}

impl Instance for Misled {
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
    fn wait(&mut self) -> Result<Reaped, RuntimeError> {
        self.inner.wait()
    }
    fn kill(&mut self) -> Result<(), RuntimeError> {
        self.inner.kill()
    }
    fn remove(self: Box<Self>) -> Result<(), RuntimeError> {
        self.inner.remove()?;
        self.group.remove().map_err(failed)
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
        let inner = by_kind(RuntimeKind::Builtin)?;
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

/// Measures once and judges.
pub fn rows(mut experiment: impl Experiment) -> Result<(Vec<EnforcementRow>, Observations), Box<dyn Error>> {
    let stop = AtomicBool::new(false);
    let mut seen = Observations::default();
    experiment.prepare()?;
    experiment.measure(&mut seen, Stop(&stop))?;
    experiment.finish()?;
    let samples: Vec<EnforcementSample> = (seen.enforcement.iter())
        .map(|row| EnforcementSample {
            case: "case".to_owned(),
            controller: row.controller.to_owned(),
            setting: row.setting.clone(),
            unit: row.unit.to_owned(),
            block: 1,
            iteration: row.iteration,
            requested: row.requested,
            achieved: row.achieved,
            accounted: row.accounted,
            tolerance_pct: row.tolerance_pct,
            start_ns: row.start_ns,
            flags: Flags::default(),
        })
        .collect();
    Ok((judge(&samples, 1), seen))
}

/// Every row must pass, and the settings be these.
pub fn all_pass(rows: &[EnforcementRow], settings: &[&str]) {
    let seen: Vec<&str> = rows.iter().map(|row| row.setting.as_str()).collect();
    assert_eq!(seen, settings);
    assert!(rows.iter().all(|row| row.verdict == Verdict::Pass), "{rows:#?}");
}

/// The verdict on one setting.
pub fn verdict(rows: &[EnforcementRow], setting: &str) -> Verdict {
    rows.iter().find(|row| row.setting == setting).unwrap_or_else(|| panic!("no row {setting}: {rows:#?}")).verdict
}
