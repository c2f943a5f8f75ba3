//! isobench's own container runtime under test, on the `self` image or another, with everything a container gets by default.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::stack::Stack;
use super::{Instance, Phase, Reaped, Runtime, RuntimeError, StartRequest, workload_arguments};
use crate::cgroup::{Applied, Group};
use crate::container::exec;
use crate::container::launch::Stdio;
use crate::container::{Container, ContainerSpec};
use crate::image::{Image, RootFs, Store, WORKLOAD_PATH, embedded};
use crate::network::PortMapping;
use crate::scenario::RuntimeKind;
use crate::sys::netns::NetNs;

/// The runtime.
#[derive(Debug)]
pub struct Builtin {
    root: RootFs,
    /// Keeps what the root is made of in the store.
    _image: Option<Image>,
    /// The layers that were put on top of the image.
    _stack: Option<Stack>,
}

impl Builtin {
    /// Makes the `self` image if it is missing.
    ///
    /// # Errors
    /// When the image cannot be made.
    pub fn new() -> Result<Self, RuntimeError> {
        let root = embedded::root_fs().map_err(RuntimeError::while_doing("making the self image"))?;
        Ok(Self { root, _image: None, _stack: None })
    }

    /// On an image by what [`Image::open`] takes, with the isobench binary laid over it.
    ///
    /// # Errors
    /// When the image is not there or cannot be unpacked.
    pub fn on(image: &str) -> Result<Self, RuntimeError> {
        let opening = || RuntimeError::while_doing(format!("opening the image `{image}`"));
        let store = Store::of_machine().map_err(opening())?;
        let image = Image::open(&store, image, "a benchmark").map_err(opening())?;
        let root = image.with_workload().map_err(opening())?;
        Ok(Self { root, _image: Some(image), _stack: None })
    }

    /// The same with so many small layers more, on top of the image.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn stacked(mut self, more: u32) -> Result<Self, RuntimeError> {
        if more > 0 {
            let stack = Stack::new(more).map_err(RuntimeError::while_doing("making layers"))?;
            self.root.layers.splice(0..0, stack.layers.iter().cloned());
            self._stack = Some(stack);
        }
        Ok(self)
    }
}

impl Runtime for Builtin {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Builtin
    }

    fn layers(&self) -> &[PathBuf] {
        &self.root.layers
    }

    fn start(&self, request: StartRequest) -> Result<Box<dyn Instance>, RuntimeError> {
        let mut spec = ContainerSpec::new(self.root.clone(), command(&request.workload));
        spec.limits = Some(request.limits);
        spec.devices = request.devices;
        spec.group_parent = request.group_parent;
        let stdio = Stdio { stdin: request.stdin, stdout: request.stdout, ..Stdio::default() };
        let container = Container::start(&spec, &request.network, stdio, request.requested_ns)
            .map_err(RuntimeError::while_doing("starting a container"))?;
        Ok(Box::new(BuiltinInstance(container)))
    }
}

/// How the isobench binary in a container is told to run a workload.
fn command(workload: &[String]) -> Vec<String> {
    [WORKLOAD_PATH.to_owned()].into_iter().chain(workload_arguments(workload)).collect()
}

/// A container of this runtime.
#[derive(Debug)]
struct BuiltinInstance(Container);

impl Instance for BuiltinInstance {
    fn pid(&self) -> u32 {
        self.0.pid()
    }

    fn address(&self) -> Option<Ipv4Addr> {
        self.0.endpoint().map(|endpoint| endpoint.address)
    }

    fn ports(&self) -> &[PortMapping] {
        self.0.endpoint().map_or(&[], |endpoint| &endpoint.ports)
    }

    fn netns(&self) -> Result<NetNs, RuntimeError> {
        self.0.netns().map_err(RuntimeError::while_doing("looking for a container's network"))
    }

    fn phases(&self) -> Vec<Phase> {
        let spans = self.0.timeline().critical.into_iter();
        spans.map(|(name, start_ns, end_ns)| Phase { name, start_ns, end_ns }).collect()
    }

    fn group(&self) -> Option<&Group> {
        self.0.group()
    }

    fn applied(&self) -> &[Applied] {
        self.0.applied()
    }

    fn exec(&mut self, workload: &[String]) -> Result<Reaped, RuntimeError> {
        let spec = ContainerSpec::new(RootFs { layers: Vec::new() }, command(workload));
        let v2 = self.group().and_then(Group::unified).map(PathBuf::from);
        let directories = self.group().map(|group| group.view().distinct()).unwrap_or_default();
        let v1 = directories.into_iter().filter(|path| Some(*path) != v2.as_deref()).map(PathBuf::from).collect();
        let target = exec::Target { pidfd: self.0.pidfd(), v1, v2 };
        let executed = exec::start(&target, &spec, Stdio::default()).and_then(|mut program| program.wait());
        executed.map_err(RuntimeError::while_doing("running a program in a container"))
    }

    fn wait(&mut self) -> Result<Reaped, RuntimeError> {
        self.0.wait().map_err(RuntimeError::while_doing("running a container"))
    }

    fn kill(&mut self) -> Result<(), RuntimeError> {
        self.0.signal(libc::SIGKILL).map_err(RuntimeError::while_doing("ending a container"))
    }

    fn remove(self: Box<Self>) -> Result<(), RuntimeError> {
        self.0.remove().map(drop).map_err(RuntimeError::while_doing("removing a container"))
    }
}
