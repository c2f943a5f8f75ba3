//! Device permissions of cgroup v2: a BPF program attached to the group.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::{Policy, program};
use crate::cgroup::CgroupError;
use crate::sys::bpf;

/// A program that is attached to a group. It goes with the group, so dropping this detaches nothing.
#[derive(Debug)]
pub(in crate::cgroup) struct Attached {
    program: Arc<OwnedFd>,
}

impl Attached {
    /// Puts a policy in force in a group that has none of ours.
    pub(super) fn new(path: &Path, policy: &Policy) -> Result<Self, CgroupError> {
        let program = load(path, policy)?;
        attach(path, &program, None)?;
        Ok(Self { program })
    }

    /// Puts another policy in force, with no moment in between in which neither or both hold.
    pub(super) fn replace(&mut self, path: &Path, policy: &Policy) -> Result<(), CgroupError> {
        let program = load(path, policy)?;
        attach(path, &program, Some(self.program.as_fd()))?;
        self.program = program;
        Ok(())
    }
}

/// Loads the program of a policy; that of the default policy only once, for every container has it.
fn load(path: &Path, policy: &Policy) -> Result<Arc<OwnedFd>, CgroupError> {
    static CONTAINER: OnceLock<Arc<OwnedFd>> = OnceLock::new();
    let is_default = *policy == Policy::container();
    if let Some(program) = CONTAINER.get().filter(|_| is_default) {
        return Ok(program.clone());
    }
    let loaded = bpf::load_device_program(&program::compile(policy));
    let loaded = Arc::new(loaded.map_err(|error| CgroupError::Program {
        act: "load",
        path: path.to_owned(),
        log: error.log,
        source: error.source,
    })?);
    Ok(if is_default { CONTAINER.get_or_init(|| loaded).clone() } else { loaded })
}

/// Attaches a program and makes sure that it is.
fn attach(path: &Path, program: &OwnedFd, replaced: Option<BorrowedFd<'_>>) -> Result<(), CgroupError> {
    let failed = |act| {
        let path = path.to_owned();
        move |source| CgroupError::Program { act, path, log: String::new(), source }
    };
    let group = File::open(path).map_err(CgroupError::file("open", path))?;
    bpf::attach_device_program(group.as_fd(), program.as_fd(), replaced).map_err(failed("attach"))?;
    let id = bpf::program_id(program.as_fd()).map_err(failed("read back"))?;
    let attached = bpf::attached_device_programs(group.as_fd()).map_err(failed("read back"))?;
    if attached.contains(&id) {
        Ok(())
    } else {
        Err(failed("find")(io::Error::new(io::ErrorKind::NotFound, "it is not attached after it was attached")))
    }
}
