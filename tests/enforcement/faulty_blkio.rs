//! A runtime that is wrong by design, so that the verdicts can be seen to find it.

use std::net::Ipv4Addr;
use std::sync::Arc;

use isobench::cgroup::{Applied, Controller, Group, Limits};
use isobench::network::PortMapping;
use isobench::runtime::{Instance, Phase, Reaped, Runtime, RuntimeError, StartRequest};
use isobench::scenario::RuntimeKind;
use isobench::sys::netns::NetNs;

/// What the runtime does wrong.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// It writes no limit; the devices can be used all the same.
    ForgetsLimits,
    /// It writes half of each throttle.
    WritesHalf,
    /// The container's processes are in the parent of its group for this controller.
    LeavesOut(Controller),
}

/// The built-in runtime with a fault.
pub struct Faulty {
    pub inner: Arc<dyn Runtime>,
    pub fault: Fault,
}

impl Runtime for Faulty {
    fn kind(&self) -> RuntimeKind {
        self.inner.kind()
    }

    fn start(&self, mut request: StartRequest) -> Result<Box<dyn Instance>, RuntimeError> {
        match self.fault {
            Fault::ForgetsLimits => {
                request.limits = Limits { devices: request.limits.devices, ..Limits::default() };
            }
            Fault::WritesHalf => {
                request.limits.blkio_throttles.iter_mut().for_each(|throttle| throttle.rate /= 2);
            }
            Fault::LeavesOut(_) => {}
        }
        let instance = self.inner.start(request)?;
        if let Fault::LeavesOut(controller) = self.fault {
            let directory = instance.group().and_then(|group| group.directory(controller));
            let outside = directory.and_then(|path| path.parent()).and_then(|parent| parent.parent());
            let pid = instance.pid().to_string();
            if let Some(outside) = outside {
                std::fs::write(outside.join("cgroup.procs"), pid)
                    .map_err(|source| RuntimeError::Failed { doing: "leaving".to_owned(), source: source.into() })?;
            }
        }
        Ok(Box::new(FaultyInstance(instance)))
    }
}

struct FaultyInstance(Box<dyn Instance>);

impl Instance for FaultyInstance {
    fn pid(&self) -> u32 {
        self.0.pid()
    }

    fn address(&self) -> Option<Ipv4Addr> {
        self.0.address()
    }

    fn ports(&self) -> &[PortMapping] {
        self.0.ports()
    }

    fn netns(&self) -> Result<NetNs, RuntimeError> {
        self.0.netns()
    }

    fn phases(&self) -> Vec<Phase> {
        self.0.phases()
    }

    fn group(&self) -> Option<&Group> {
        self.0.group()
    }

    fn applied(&self) -> &[Applied] {
        self.0.applied()
    }

    fn wait(&mut self) -> Result<Reaped, RuntimeError> {
        self.0.wait()
    }

    fn kill(&mut self) -> Result<(), RuntimeError> {
        self.0.kill()
    }

    fn remove(self: Box<Self>) -> Result<(), RuntimeError> {
        self.0.remove()
    }
}
