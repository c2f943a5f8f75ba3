//! Where the containers of a `cpu` case stand: a group of their own with the most weight on the host, and CPUs that the
//! harness may give them.

use std::sync::Arc;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::failed;
use crate::cgroup::favour::{Favour, MOST_SHARES};
use crate::cgroup::{Controller, Group, Hierarchy, Layout, Limits};
use crate::experiment::{ExperimentError, Stop};
use crate::runtime::Runtime;

/// What a case is measured with.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub stage: &'a Stage,
    pub runtime: &'a dyn Runtime,
    pub stop: Stop<'a>,
}

/// What all blocks of a case share.
pub(super) struct Stage {
    /// Every container's group is made in it.
    pub stand: Arc<Group>,
    /// Which interface the cpu controller speaks.
    pub hierarchy: Hierarchy,
    /// The CPUs that this process may use, in order.
    pub cpus: Vec<u32>,
    _favour: Favour,
}

impl Stage {
    /// Makes it, if this host has what the case needs.
    pub(super) fn new(needed: &[Controller], threads: usize) -> Result<Self, ExperimentError> {
        let layout = Layout::detect().map_err(failed("looking for the control groups"))?;
        for controller in needed {
            if layout.place(*controller).is_none() {
                let reason = format!("the {controller} controller is not mounted here");
                return Err(ExperimentError::Unsupported(reason));
            }
        }
        let hierarchy = layout.place(Controller::Cpu).map_or(Hierarchy::V1, |place| place.hierarchy);
        let cpus = allowed_cpus()?;
        if cpus.len() < threads {
            let have = cpus.len();
            let reason = format!("so much CPU time needs {threads} CPUs, and {have} may be used here");
            return Err(ExperimentError::Unsupported(reason));
        }
        let stand = Group::create(&layout, false).map_err(failed("making a group for the containers"))?;
        let favour = Favour::of_parent(&stand).map_err(failed("putting the containers before the host's work"))?;
        let most = Limits { cpu_shares: Some(MOST_SHARES), ..Limits::default() };
        stand.apply(&most).map_err(failed("putting the containers before the host's work"))?;
        Ok(Self { stand: Arc::new(stand), hierarchy, cpus, _favour: favour })
    }

    /// The CPU on which contenders meet: the last, because the first serves most of a small machine's interrupts.
    pub(super) fn meeting_cpu(&self) -> u32 {
        self.cpus.last().copied().unwrap_or(0)
    }

    /// A group with shares, in which containers can stand.
    pub(super) fn outer(&self, shares: u64) -> Result<Arc<Group>, ExperimentError> {
        let making = || failed("making an outer group");
        let group = self.stand.create_child().map_err(making())?;
        group.apply(&Limits { cpu_shares: Some(shares), ..Limits::default() }).map_err(making())?;
        Ok(Arc::new(group))
    }

    /// Gives everything back.
    pub(super) fn remove(self) -> Result<(), ExperimentError> {
        match Arc::try_unwrap(self.stand) {
            Ok(stand) => stand.remove().map_err(failed("removing the containers' group")),
            // Whoever holds it removes it when it is dropped.
            Err(_) => Ok(()),
        }
    }
}

fn allowed_cpus() -> Result<Vec<u32>, ExperimentError> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).map_err(failed("asking which CPUs are allowed"))?;
    let cpus = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false));
    Ok(cpus.map(|cpu| cpu as u32).collect())
}
