//! Placement: no instruction of a container runs on a CPU that is not in its set, however its threads try.
//!
//! Three settings, each with nothing asked for and no tolerance: `looks` counts how often a thread found itself off the
//! set, `time` is the CPU time that the threads saw there, beside what the kernel charged to the group on those CPUs
//! (v1 tells it a CPU), and `affinity` counts how often the kernel granted a CPU off the set.

use std::sync::Arc;

use super::crew::{Member, Programme, Reading, perform};
use super::stage::{Scene, Stage};
use super::{EnforcementObservation, failed, mixed_up, push};
use crate::cgroup::cpuset::members;
use crate::cgroup::{Controller, Limits};
use crate::experiment::{ExperimentError, Observations};
use crate::workload::result::{Line, Window};
use crate::workload::roam::Roam;

/// A case.
pub(super) struct Placement<'a> {
    pub cpus: &'a str,
    pub threads: u32,
    pub duration_ns: u64,
}

impl Placement<'_> {
    pub(super) fn prepare(cpus: &str) -> Result<Stage, ExperimentError> {
        let stage = Stage::new(&[Controller::Cpu, Controller::Cpuacct, Controller::Cpuset], 1)?;
        let outcome = split(cpus, &stage.cpus);
        match outcome {
            Ok(_) => Ok(stage),
            Err(reason) => stage.remove().and(Err(ExperimentError::Unsupported(reason))),
        }
    }

    pub(super) fn measure(&self, scene: Scene<'_>, into: &mut Observations) -> Result<(), ExperimentError> {
        let stage = scene.stage;
        let (set, beyond) = split(self.cpus, &stage.cpus).map_err(failed("reading the set of CPUs"))?;
        let compose = |windows: &[Window]| -> Vec<Member> {
            let member = |window: &Window| Member {
                workload: Roam { window: *window, set: set.clone(), beyond: beyond.clone(), threads: self.threads }
                    .to_words(),
                limits: Limits { cpuset_cpus: Some(self.cpus.to_owned()), ..Limits::default() },
                parent: Arc::clone(&stage.stand),
            };
            windows.iter().map(member).collect()
        };
        let seen = perform(scene, Programme::of(self.duration_ns), 1, &compose)?;
        seen.push_harness(into);
        let (Some(window), Some((opened, closed)), [Line::Roam(result)]) =
            (seen.windows.first(), seen.readings.first(), seen.lines.as_slice())
        else {
            return Err(mixed_up());
        };
        if result.looks == 0 {
            return Err(failed("measuring where the threads run")("they did not look even once"));
        }
        push(into, "placement_looks", result.looks as f64, window.start_ns);
        let mut nothing = |setting: &str, unit, achieved: u64, accounted: Option<f64>| {
            into.enforcement.push(EnforcementObservation {
                controller: "cpuset",
                setting: setting.to_owned(),
                unit,
                iteration: 0,
                requested: 0.0,
                achieved: achieved as f64,
                accounted,
                tolerance_pct: 0.0,
                start_ns: window.start_ns,
            });
        };
        nothing("looks", "count", result.looks_beyond, None);
        nothing("time", "ns", result.cpu_beyond_ns, charged_beyond(opened, closed, &beyond));
        nothing("affinity", "count", result.granted, None);
        Ok(())
    }
}

/// The set, and the CPUs of this host that are not in it.
fn split(cpus: &str, host: &[u32]) -> Result<(Vec<u32>, Vec<u32>), String> {
    let set = members(cpus).filter(|set| !set.is_empty()).ok_or_else(|| format!("`{cpus}` is no list of CPUs"))?;
    if let Some(missing) = set.iter().find(|cpu| !host.contains(cpu)) {
        return Err(format!("CPU {missing} cannot be used here"));
    }
    let beyond: Vec<u32> = host.iter().filter(|cpu| !set.contains(cpu)).copied().collect();
    if beyond.is_empty() {
        return Err(format!("the set {cpus} holds every CPU of this host, so that there is none to stay off"));
    }
    Ok((set, beyond))
}

/// CPU time that the kernel charged on CPUs beyond the set, in ns.
fn charged_beyond(opened: &Reading, closed: &Reading, beyond: &[u32]) -> Option<f64> {
    let (before, after) = (opened.per_cpu_ns.as_ref()?, closed.per_cpu_ns.as_ref()?);
    let on = |cpu: &u32| Some(after.get(*cpu as usize)?.saturating_sub(*before.get(*cpu as usize)?) as f64);
    beyond.iter().map(on).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_split_in_two() {
        assert_eq!(split("0,2", &[0, 1, 2, 3]), Ok((vec![0, 2], vec![1, 3])));
        assert_eq!(split("4", &[0, 1]), Err("CPU 4 cannot be used here".to_owned()));
        assert!(split("0-1", &[0, 1]).unwrap_err().contains("every CPU of this host"));
    }

    #[test]
    fn only_time_beyond_the_set_is_summed() {
        let reading = |times: &[u64]| Reading { per_cpu_ns: Some(times.to_vec()), ..Reading::default() };
        let (opened, closed) = (reading(&[5, 10, 20]), reading(&[9, 10, 27]));
        assert_eq!(charged_beyond(&opened, &closed, &[1, 2]), Some(7.0));
        assert_eq!(charged_beyond(&opened, &closed, &[7]), None);
        assert_eq!(charged_beyond(&Reading::default(), &closed, &[1]), None);
    }
}
