//! The floor: a bare clone3 with a container's namespace flags and an exec of the same workload. No mounts, no
//! cgroups, no rights given up, no veth. As in fork, the child runs in a copy of the launcher's memory; the built-in
//! runtime saves that copy.

use std::ffi::CString;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use super::{Instance, Network, Phase, Reaped, Runtime, RuntimeError, StartRequest, workload_arguments};
use crate::cgroup::{Applied, Group};
use crate::network::PortMapping;
use crate::scenario::RuntimeKind;
use crate::sys::launch::{Child, Memory, launch, pidfd_open};
use crate::sys::netns::NetNs;
use crate::sys::plan::{Op, Plan};

/// The runtime.
#[derive(Debug)]
pub struct Floor {
    binary: CString,
    null: File,
    own_pidfd: OwnedFd,
}

impl Floor {
    /// Finds the running binary.
    ///
    /// # Errors
    /// When /proc or /dev/null is missing.
    pub fn new() -> Result<Self, RuntimeError> {
        // The real path and not /proc/self/exe: in the new pid namespace that would be looked up in the old /proc.
        let path = std::fs::read_link("/proc/self/exe").map_err(RuntimeError::while_doing("finding this binary"))?;
        let null = File::options().read(true).write(true).open("/dev/null");
        Ok(Self {
            binary: CString::new(path.as_os_str().as_bytes())
                .map_err(RuntimeError::while_doing("finding this binary"))?,
            null: null.map_err(RuntimeError::while_doing("opening /dev/null"))?,
            own_pidfd: pidfd_open(std::process::id()).map_err(RuntimeError::while_doing("making a pidfd"))?,
        })
    }

    fn plan(&self, request: &StartRequest, join: Option<&NetNs>) -> Result<Plan, RuntimeError> {
        let mut plan = Plan::default();
        plan.push("isolate", Op::DieWithParent { parent: self.own_pidfd.as_raw_fd() });
        if let Some(namespace) = join {
            let fd = namespace.as_fd().as_raw_fd();
            plan.push("network", Op::JoinNamespace { fd, kind: libc::CLONE_NEWNET });
        }
        let null = self.null.as_raw_fd();
        let stdin = request.stdin.as_ref().map_or(null, AsRawFd::as_raw_fd);
        let stdout = request.stdout.as_ref().map_or(null, AsRawFd::as_raw_fd);
        for (from, to) in [(stdin, 0), (stdout, 1), (null, 2)] {
            plan.push("streams", Op::Descriptor { from, to });
        }
        let arguments = ["isobench".to_owned()].into_iter().chain(workload_arguments(&request.workload));
        let arguments = arguments.map(CString::new).collect::<Result<_, _>>();
        plan.push(
            "exec",
            Op::Exec {
                paths: vec![self.binary.clone()],
                arguments: arguments.map_err(RuntimeError::while_doing("preparing the workload"))?,
                environment: Vec::new(),
                guarded: false,
            },
        );
        Ok(plan)
    }
}

impl Runtime for Floor {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Floor
    }

    fn start(&self, request: StartRequest) -> Result<Box<dyn Instance>, RuntimeError> {
        let namespaces =
            libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
        let (join, flags) = match &request.network {
            Network::Host(namespace) => (Some(namespace), namespaces),
            Network::None => (None, namespaces | libc::CLONE_NEWNET),
            other => {
                return Err(RuntimeError::NetworkMode { runtime: RuntimeKind::Floor, network: format!("{other:?}") });
            }
        };
        let plan = self.plan(&request, join)?;
        let child = launch(plan, flags as u32 as u64, None, Memory::Copied)
            .map_err(RuntimeError::while_doing("cloning into new namespaces"))?;
        Ok(Box::new(FloorInstance { child, requested_ns: request.requested_ns }))
    }
}

/// A process of this runtime.
#[derive(Debug)]
struct FloorInstance {
    child: Child,
    requested_ns: u64,
}

impl Instance for FloorInstance {
    fn pid(&self) -> u32 {
        self.child.pid()
    }

    fn address(&self) -> Option<Ipv4Addr> {
        None
    }

    fn ports(&self) -> &[PortMapping] {
        &[]
    }

    fn netns(&self) -> Result<NetNs, RuntimeError> {
        NetNs::of_pid(self.child.pid()).map_err(RuntimeError::while_doing("looking for a process's network"))
    }

    fn phases(&self) -> Vec<Phase> {
        self.child
            .spans(self.requested_ns)
            .into_iter()
            .map(|(name, start_ns, end_ns)| Phase { name, start_ns, end_ns })
            .collect()
    }

    fn group(&self) -> Option<&Group> {
        None
    }

    fn applied(&self) -> &[Applied] {
        &[]
    }

    fn exec(&mut self, _: &[String]) -> Result<Reaped, RuntimeError> {
        Err(RuntimeError::while_doing("running a program beside a process")("the floor has no containers"))
    }

    fn wait(&mut self) -> Result<Reaped, RuntimeError> {
        let reaped = self.child.wait().map_err(RuntimeError::while_doing("waiting for a process"))?;
        if let Some(failure) = self.child.failure() {
            let step = self.child.plan().steps.get(failure.operation).map(|step| step.op.to_string());
            let source = std::io::Error::from_raw_os_error(failure.errno);
            return Err(RuntimeError::while_doing(format!("to {}", step.unwrap_or_default()))(source));
        }
        Ok(reaped)
    }

    fn kill(&mut self) -> Result<(), RuntimeError> {
        self.child.signal(libc::SIGKILL).map_err(RuntimeError::while_doing("ending a process"))
    }

    fn remove(mut self: Box<Self>) -> Result<(), RuntimeError> {
        self.kill()?;
        self.child.wait().map(drop).map_err(RuntimeError::while_doing("waiting for a process"))
    }
}
