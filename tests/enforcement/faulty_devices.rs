//! Runtimes that are wrong by design: each wraps the built-in one and loses a part of what was asked of it. The tests
//! of every experiment that measures limits can use them: its verdicts have to find each out.

use std::net::Ipv4Addr;
use std::sync::Arc;

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
    /// It writes half of each number, and of device rules only the right to read.
    HalvesLimits,
    /// It leaves everything out that this controller was asked for.
    LeavesOut(Controller),
}

/// The built-in runtime with a fault.
pub struct Faulty {
    inner: Builtin,
    fault: Fault,
}

impl Faulty {
    /// Ready to start containers.
    pub fn with(fault: Fault) -> Result<Arc<dyn Runtime>, RuntimeError> {
        Ok(Arc::new(Self { inner: Builtin::new()?, fault }))
    }
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
        match self.fault {
            Fault::ForgetsToAttach => {
                let (group, applied) = group_of(&request)?;
                let limits = Limits { devices: everything(), ..Limits::default() };
                let inner = self.inner.start(StartRequest { limits, group_parent: None, ..request })?;
                Ok(Box::new(Outside { inner, group, applied }))
            }
            Fault::HalvesLimits => {
                let limits = halved(request.limits);
                self.inner.start(StartRequest { limits, ..request })
            }
            Fault::LeavesOut(controller) => {
                let limits = without(request.limits, controller);
                self.inner.start(StartRequest { limits, ..request })
            }
        }
    }
}

/// A group with all that was asked for, and nobody in it.
fn group_of(request: &StartRequest) -> Result<(Group, Vec<Applied>), RuntimeError> {
    let failed = |error: isobench::cgroup::CgroupError| RuntimeError::Failed {
        doing: "making the group that is then forgotten".to_owned(),
        source: error.into(),
    };
    let group = match &request.group_parent {
        Some(parent) => parent.create_child().map_err(failed)?,
        None => Group::create(&Layout::detect().map_err(failed)?, request.limits.devices.is_empty()).map_err(failed)?,
    };
    if !request.limits.devices.is_empty() {
        group.confine_devices().map_err(failed)?;
    }
    let applied = group.apply(&request.limits).map_err(failed)?;
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
    for rule in &mut halved.devices {
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

    fn wait(&mut self) -> Result<Reaped, RuntimeError> {
        self.inner.wait()
    }

    fn kill(&mut self) -> Result<(), RuntimeError> {
        self.inner.kill()
    }

    fn remove(self: Box<Self>) -> Result<(), RuntimeError> {
        let Self { inner, group, .. } = *self;
        let removed = inner.remove();
        let group = group.remove().map_err(|error| RuntimeError::Failed {
            doing: "removing the group that was forgotten".to_owned(),
            source: error.into(),
        });
        removed.and(group)
    }
}
