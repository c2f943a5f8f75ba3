//! `devices`: what the device rules permit, against what a program in the container is let do.
//!
//! What is expected is the pure function [`Policy::permits`] over the default rules and the case's; what is seen comes
//! from the `device` workload, which opens each node for reading and for writing, and makes one. The setting
//! `accesses` counts the accesses that came out as expected: all, or it fails. Each access that did not is a setting of
//! its own beside it (`kmsg/read`: 0 requested, 1 achieved), so that a reader sees which one was wrong; one wrong
//! access in one block is enough. After rules were added to the running container, the settings end in `/changed`.
//!
//! The nodes are made by the harness, through the container's root: the rules may forbid the container to make them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::stat::{Mode, mknod};

use super::program::{Program, unsupported};
use super::{EnforcementObservation, Experiment, ExperimentError, Judged, Observations, Stop};
use crate::cgroup::Limits;
use crate::cgroup::devices::{self, Access, Kind, Policy, Rule};
use crate::runtime::{Network, Runtime, StartRequest};
use crate::scenario::{Device, DeviceAccess, DeviceKind, DeviceRule, DevicesCase};
use crate::sys::clock;
use crate::workload::device::{Answers, Line, Probe, node_path};

/// How long the program may take for a round.
const PATIENCE: Duration = Duration::from_secs(10);

/// One case of the experiment.
pub struct Devices {
    case: DevicesCase,
    runtime: Arc<dyn Runtime>,
}

impl Devices {
    /// An experiment for a case, with the runtime that the case names.
    #[must_use]
    pub fn new(case: DevicesCase, runtime: Arc<dyn Runtime>) -> Self {
        Self { case, runtime }
    }

    fn start(&self, stop: Stop<'_>) -> Result<Program, ExperimentError> {
        let probes = self.case.devices.iter().map(probe);
        let words = probes.clone().flat_map(|probe| ["--probe".to_owned(), probe.to_word()]);
        let mut asked = rules(&self.case.rules);
        if asked.is_empty() && !self.case.then.is_empty() {
            // A v1 group with only the default rules stands under one with the default rules, and could not be widened.
            asked.push(devices::DEFAULT[0]);
        }
        let request = StartRequest {
            limits: Limits { devices: asked, ..Limits::default() },
            ..StartRequest::new(["device".to_owned()].into_iter().chain(words).collect(), Network::None)
        };
        let mut program = Program::start("the container", &*self.runtime, request)?;
        match program.line(PATIENCE, stop)? {
            Line::Ready {} => {}
            line => return Err(unexpected(&line)),
        }
        make_nodes(program.instance()?.pid(), probes)?;
        Ok(program)
    }

    /// One round of probing, held against a policy.
    fn round(
        &self,
        program: &mut Program,
        policy: &Policy,
        suffix: &str,
        into: &mut Observations,
        stop: Stop<'_>,
    ) -> Result<(), ExperimentError> {
        let start_ns = clock::now_ns();
        program.go_on()?;
        let answers = match program.line(PATIENCE, stop)? {
            Line::Probed { answers } if answers.len() == self.case.devices.len() => answers,
            line => return Err(unexpected(&line)),
        };
        let tried = judge(&self.case.devices, &self.case.accesses, policy, &answers);
        into.enforcement.extend(rows(&tried, suffix, start_ns));
        Ok(())
    }

    fn change(&self, program: &Program) -> Result<(), ExperimentError> {
        let limits = Limits { devices: rules(&self.case.then), ..Limits::default() };
        let changed = program.group()?.apply(&limits);
        changed.map(drop).map_err(ExperimentError::while_doing("adding device rules to the running container"))
    }
}

impl Experiment for Devices {
    /// Tries once whether these rules can be had here: v1 cannot express all of them.
    fn prepare(&mut self) -> Result<(), ExperimentError> {
        let never = std::sync::atomic::AtomicBool::new(false);
        let program = self.start(Stop(&never)).map_err(unsupported)?;
        if !self.case.then.is_empty() {
            self.change(&program).map_err(unsupported)?;
        }
        program.finish()
    }

    fn measure(&mut self, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
        let mut program = self.start(stop)?;
        let mut policy = Policy::container();
        policy.rules.extend(rules(&self.case.rules));
        self.round(&mut program, &policy, "", into, stop)?;
        if !self.case.then.is_empty() {
            self.change(&program)?;
            policy.rules.extend(rules(&self.case.then));
            self.round(&mut program, &policy, "/changed", into, stop)?;
        }
        program.finish()
    }

    fn finish(&mut self) -> Result<(), ExperimentError> {
        Ok(())
    }
}

/// One access: what should have come of it and what did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tried {
    /// `kmsg/read`.
    pub name: String,
    /// Whether the policy permits it.
    pub expected: bool,
    /// Whether it was let through.
    pub seen: bool,
}

/// Holds answers against a policy.
pub(super) fn judge(devices: &[Device], accesses: &[DeviceAccess], policy: &Policy, answers: &[Answers]) -> Vec<Tried> {
    let pairs = devices.iter().zip(answers);
    let all = pairs.flat_map(|(device, answers)| accesses.iter().map(move |access| (device, *access, answers)));
    all.map(|(device, access, answers)| {
        let (bits, answer) = match access {
            DeviceAccess::Read => (devices::READ, answers.read),
            DeviceAccess::Write => (devices::WRITE, answers.write),
            DeviceAccess::Mknod => (devices::MKNOD, answers.mknod),
        };
        let wanted = Access { kind: kind(device.kind), major: device.major, minor: device.minor, bits };
        let name = format!("{}/{access}", device.name.replace(' ', "-"));
        Tried { name, expected: policy.permits(&wanted), seen: answer.permitted }
    })
    .collect()
}

/// The sum, and a row for each access that went wrong.
pub(super) fn rows(tried: &[Tried], suffix: &str, start_ns: u64) -> Vec<EnforcementObservation> {
    let row = |setting: String, requested: f64, achieved: f64| EnforcementObservation {
        controller: "devices",
        setting,
        unit: "count",
        iteration: 0,
        requested,
        achieved,
        accounted: None,
        tolerance_pct: 0.0,
        start_ns,
        judged: Judged::Achieved,
    };
    let right = tried.iter().filter(|access| access.expected == access.seen).count();
    let mut rows = vec![row(format!("accesses{suffix}"), tried.len() as f64, right as f64)];
    let number = |permitted: bool| f64::from(u8::from(permitted));
    rows.extend(
        tried
            .iter()
            .filter(|access| access.expected != access.seen)
            .map(|access| row(format!("{}{suffix}", access.name), number(access.expected), number(access.seen))),
    );
    rows
}

/// The workload's words for a device.
pub(super) fn probe(device: &Device) -> Probe {
    Probe { block: device.kind == DeviceKind::Block, major: device.major, minor: device.minor }
}

/// Makes the nodes that are probed, through the root of the container's first process.
pub(super) fn make_nodes(pid: u32, probes: impl Iterator<Item = Probe>) -> Result<(), ExperimentError> {
    for (position, probe) in probes.enumerate() {
        let path = format!("/proc/{pid}/root{}", node_path(position));
        mknod(path.as_str(), probe.kind(), Mode::from_bits_truncate(0o666), probe.number())
            .map_err(io::Error::from)
            .map_err(ExperimentError::while_doing(format!("making the device node {}", node_path(position))))?;
    }
    Ok(())
}

/// A scenario's rules as the controller takes them.
pub(super) fn rules(rules: &[DeviceRule]) -> Vec<Rule> {
    let rule = |rule: &DeviceRule| Rule {
        allow: rule.allow,
        kind: kind(rule.kind),
        major: rule.major,
        minor: rule.minor,
        read: rule.read,
        write: rule.write,
        mknod: rule.mknod,
    };
    rules.iter().map(rule).collect()
}

fn kind(kind: DeviceKind) -> Kind {
    match kind {
        DeviceKind::Char => Kind::Char,
        DeviceKind::Block => Kind::Block,
    }
}

fn unexpected(line: &Line) -> ExperimentError {
    ExperimentError::while_doing("probing devices")(format!("the container said {line:?} out of order"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::device::Answer;

    fn answers(read: i32, write: i32, mknod: i32) -> Answers {
        let answer = |errno| Answer { errno, permitted: errno != libc::EPERM };
        Answers { read: answer(read), write: answer(write), mknod: answer(mknod) }
    }

    fn devices() -> [Device; 2] {
        let device = |name: &str, minor| Device { name: name.to_owned(), kind: DeviceKind::Char, major: 1, minor };
        [device("null", 3), device("kmsg", 11)]
    }

    #[test]
    fn a_matrix_that_comes_out_is_one_row() {
        // A driver's own error is no refusal by the rules.
        let seen = [answers(0, libc::ENXIO, 0), answers(libc::EPERM, libc::EPERM, libc::EPERM)];
        let tried = judge(&devices(), DeviceAccess::ALL, &Policy::container(), &seen);
        let rows = rows(&tried, "", 7);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].setting.as_str(), rows[0].requested, rows[0].achieved), ("accesses", 6.0, 6.0));
    }

    #[test]
    fn each_wrong_access_is_named() {
        let seen = [answers(0, 0, libc::EPERM), answers(0, libc::EPERM, libc::EPERM)];
        let tried = judge(&devices(), DeviceAccess::ALL, &Policy::container(), &seen);
        let told: Vec<(String, f64, f64)> =
            rows(&tried, "/changed", 7).into_iter().map(|row| (row.setting, row.requested, row.achieved)).collect();
        assert_eq!(
            told,
            [
                ("accesses/changed".to_owned(), 6.0, 4.0),
                ("null/mknod/changed".to_owned(), 1.0, 0.0),
                ("kmsg/read/changed".to_owned(), 0.0, 1.0),
            ]
        );
    }
}
