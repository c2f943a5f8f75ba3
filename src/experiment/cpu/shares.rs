//! Shares: how one CPU is split among containers that all want it, by CPU clock and by work done.
//!
//! `requested` is the container's part of the sum: of the shares on v1; on v2 of the weights that the shares become,
//! and the setting's name shows both directions, as in `shares/b 2 -> weight 1 -> 10`.
//!
//! # Nested
//!
//! Weights are relative among siblings, whatever stands elsewhere in the tree. For `1024:512` the outer groups `a` and
//! `b` have these shares; in `a` stand two containers of 1024 and 512, in `b` one with the least shares there are (2).
//! It must get all of `b`'s third all the same, and the two in `a` 4/9 and 2/9.
//!
//! # Conservation
//!
//! Three windows: all spin; the last one rests, and its part must go to the others; only the last one spins, and must
//! get the whole CPU. In the latter two the parts are of what the containers used and what the CPU stood idle, since
//! unused CPU time is what must not be there. What the rest of the host took is in neither.
//!
//! # When the machine stands still
//!
//! One of the contenders runs at any time. Where none does for longer than [`STANDSTILL_NS`], a virtual machine was stopped
//! as a whole, or something else had the CPU; whoever had his turn is charged for time in which he did no work. With
//! 20 ms of that in 750 ms, one of three had 4 % too little work. Such a performance is repeated, up to [`REPEATS`]
//! times; what the last one shows stands.
//!
//! # What the kernel's granularity allows
//!
//! A CPU is handed over at timer ticks, so a container runs for a tick at least (4 ms at 250 Hz), and in a window of T
//! gets a whole number of such turns, T × part ÷ tick of them in the mean. One turn more or less is `100 × tick ÷
//! (T × part)` percent. At 4 : 1 over 2 s that is 1 %; at 1024 : 2 the light one has one turn in 2.05 s, and 2 s see
//! none, one or two. So a part below [`LIGHT`] is given this as its tolerance, and its scenario gives it a longer
//! window.

use std::sync::Arc;

use super::crew::{Member, Programme, Reading, Seen, burner, perform};
use super::stage::Scene;
use super::trace::{Course, instants, longest_common_gap_ns, parts, usual_turn};
use super::{EnforcementObservation, TOLERANCE_PCT, mixed_up, push, tick_ns};
use crate::cgroup::cpu::{shares as shares_of, weight};
use crate::cgroup::{Group, Hierarchy};
use crate::experiment::{ExperimentError, Observations};
use crate::workload::burn::{Phase, PhaseTrace};
use crate::workload::result::{Line, Window};

/// A part of the CPU below which turns are so rare that the tolerance has to say so.
const LIGHT: f64 = 0.05;
/// More than any other task of the host runs at one go, and more than a turn.
const STANDSTILL_NS: u64 = 5_000_000;
/// How often a performance is repeated in which the machine stood still.
const REPEATS: u32 = 3;
/// The least shares there are.
const LEAST: u64 = 2;

/// A case.
pub(super) struct Shares<'a> {
    pub shares: &'a [u64],
    pub nested: bool,
    pub conservation: bool,
    pub duration_ns: u64,
}

/// One container.
#[derive(Debug, Clone, PartialEq)]
struct Contender {
    /// `a`, or `a.b` inside the outer group `a`.
    name: String,
    shares: u64,
    /// Which outer group it stands in.
    outer: Option<usize>,
    /// What it is to get of the CPU.
    part: f64,
}

/// Who contends, and for what.
fn contenders(shares: &[u64], nested: bool, hierarchy: Hierarchy) -> Vec<Contender> {
    let weigh = |shares: u64| match hierarchy {
        Hierarchy::V1 => shares as f64,
        Hierarchy::V2 => weight(shares) as f64,
    };
    let sum: f64 = shares.iter().map(|shares| weigh(*shares)).sum();
    let letter = |index: usize| char::from(b'a' + index as u8);
    let mut all = Vec::new();
    for (index, own) in shares.iter().enumerate() {
        let (name, part) = (letter(index), weigh(*own) / sum);
        match (nested, index) {
            (false, _) => all.push(Contender { name: name.to_string(), shares: *own, outer: None, part }),
            (true, 0) => all.extend(shares.iter().enumerate().map(|(inner, shares)| Contender {
                name: format!("{name}.{}", letter(inner)),
                shares: *shares,
                outer: Some(index),
                part: part * weigh(*shares) / sum,
            })),
            (true, _) => {
                all.push(Contender { name: name.to_string(), shares: LEAST, outer: Some(index), part });
            }
        }
    }
    all
}

/// Who spins in a window: all, all but the last, only the last.
fn spins(window: usize, member: usize, count: usize) -> bool {
    match window {
        0 => true,
        1 => member + 1 < count,
        _ => member + 1 == count,
    }
}

/// The tolerance on a part of the CPU over a window, in percent; see the head of this file.
fn tolerance_pct(part: f64, duration_ns: u64, tick_ns: u64) -> f64 {
    if part >= LIGHT {
        return TOLERANCE_PCT;
    }
    (100.0 * tick_ns as f64 / (duration_ns as f64 * part)).max(TOLERANCE_PCT)
}

impl Shares<'_> {
    pub(super) fn measure(&self, scene: Scene<'_>, into: &mut Observations) -> Result<(), ExperimentError> {
        let stage = scene.stage;
        let contenders = contenders(self.shares, self.nested, stage.hierarchy);
        let outers: Vec<Arc<Group>> = if self.nested {
            self.shares.iter().map(|shares| stage.outer(*shares)).collect::<Result<_, _>>()?
        } else {
            Vec::new()
        };
        let cpu = stage.meeting_cpu();
        let compose = |windows: &[Window]| -> Vec<Member> {
            let member = |(index, contender): (usize, &Contender)| {
                let phase = |(at, window): (usize, &Window)| Phase {
                    window: *window,
                    burn: spins(at, index, contenders.len()),
                };
                let workload = burner(cpu, windows.iter().enumerate().map(phase).collect());
                let outer = contender.outer.and_then(|outer| outers.get(outer));
                Member::with_shares(workload, contender.shares, outer.unwrap_or(&stage.stand))
            };
            contenders.iter().enumerate().map(member).collect()
        };
        let programme = Programme {
            windows: if self.conservation { 3 } else { 1 },
            birthplace: Some(cpu),
            idleness: self.conservation,
            ..Programme::of(self.duration_ns)
        };
        let mut seen = perform(scene, programme, contenders.len(), &compose)?;
        for _ in 0..REPEATS {
            if !stood_still(&traces(&seen)?, seen.windows.len()) {
                break;
            }
            seen = perform(scene, programme, contenders.len(), &compose)?;
        }
        seen.push_harness(into);
        let traces = traces(&seen)?;
        for (at, (window, (opened, closed))) in seen.windows.iter().zip(&seen.readings).enumerate() {
            let round = Round { case: self, hierarchy: stage.hierarchy, at, window: *window, opened, closed, cpu };
            round.judge(&contenders, &traces, into)?;
        }
        Ok(())
    }
}

/// The single thread's traces of each container, one a window.
fn traces(seen: &Seen) -> Result<Vec<&[PhaseTrace]>, ExperimentError> {
    seen.lines.iter().map(|line| trace(line, seen.windows.len())).collect()
}

/// The traces of a program that has one thread.
fn trace(line: &Line, windows: usize) -> Result<&[PhaseTrace], ExperimentError> {
    match line {
        Line::Burn(result) => match result.threads.as_slice() {
            [thread] if thread.phases.len() == windows => Ok(thread.phases.as_slice()),
            _ => Err(mixed_up()),
        },
        _ => Err(mixed_up()),
    }
}

/// Whether in one of the windows nobody ran who wanted to, for longer than [`STANDSTILL_NS`].
fn stood_still(traces: &[&[PhaseTrace]], windows: usize) -> bool {
    (0..windows).any(|at| {
        let spinning = traces.iter().enumerate().filter(|(member, _)| spins(at, *member, traces.len()));
        let courses: Vec<Course<'_>> =
            spinning.filter_map(|(_, phases)| Some(Course(&phases.get(at)?.points))).collect();
        longest_common_gap_ns(&courses) > STANDSTILL_NS
    })
}

/// One window of a case.
struct Round<'a> {
    case: &'a Shares<'a>,
    hierarchy: Hierarchy,
    /// Which window: see [`spins`].
    at: usize,
    window: Window,
    opened: &'a Reading,
    closed: &'a Reading,
    cpu: u32,
}

impl Round<'_> {
    fn judge(
        &self,
        contenders: &[Contender],
        traces: &[&[PhaseTrace]],
        into: &mut Observations,
    ) -> Result<(), ExperimentError> {
        let active: Vec<usize> =
            (0..contenders.len()).filter(|member| spins(self.at, *member, contenders.len())).collect();
        let course = |member: usize| traces.get(member).and_then(|phases| phases.get(self.at)).ok_or_else(mixed_up);
        let courses: Vec<Course<'_>> =
            active.iter().map(|member| Ok(Course(&course(*member)?.points))).collect::<Result<_, ExperimentError>>()?;
        let part = |index: usize| contenders[active[index]].part;
        let lightest = (0..active.len()).rev().min_by(|a, b| part(*a).total_cmp(&part(*b))).unwrap_or(0);
        let others: Vec<Course<'_>> =
            courses.iter().enumerate().filter(|(index, _)| *index != lightest).map(|(_, course)| *course).collect();
        let instants = instants(courses[lightest], &others, self.window);
        let parts = parts(&courses, &instants);
        if self.at == 0 {
            let start_ns = self.window.start_ns;
            let stall = traces.iter().filter_map(|phases| phases.first()).map(|trace| trace.longest_gap_ns).max();
            push(into, "longest_stall", stall.unwrap_or(0) as f64, start_ns);
            // A container that never had a turn of its own has no length of one.
            if let Some(turn) = usual_turn(courses[lightest], &others) {
                push(into, "turn", turn, start_ns);
            }
        }
        let unused_ns = self.unused_ns();
        let used_ns: f64 =
            (courses.iter()).map(|course| course.between(self.window.start_ns, self.window.end_ns).cpu_ns).sum();
        let kept = used_ns / (used_ns + unused_ns);
        let asked: f64 = active.iter().map(|member| contenders[*member].part).sum();
        for (index, member) in active.iter().enumerate() {
            let contender = &contenders[*member];
            let requested = contender.part / asked;
            let achieved = kept * parts[index].cpu_ns;
            let used = |from, to| courses[index].between(from, to).cpu_ns;
            let accounted = self.opened.accounted(self.closed, self.window, *member, achieved, used);
            let label = self.label(contender);
            self.push(into, format!("{}/{label}", self.name()), requested, achieved, accounted);
            if self.at == 0 {
                self.push(into, format!("work/{label}"), requested, parts[index].work, None);
            }
        }
        Ok(())
    }

    /// What the settings of this window are called.
    fn name(&self) -> &'static str {
        match (self.at, self.case.nested) {
            (0, false) => "shares",
            (0, true) => "nested",
            (1, _) => "idle",
            _ => "alone",
        }
    }

    /// The container's name, and on v2 what its shares become there, and back.
    fn label(&self, contender: &Contender) -> String {
        let Contender { name, shares, .. } = contender;
        match self.hierarchy {
            Hierarchy::V1 => name.clone(),
            Hierarchy::V2 => {
                let weight = weight(*shares);
                format!("{name} {shares} -> weight {weight} -> {}", shares_of(weight))
            }
        }
    }

    /// How long the CPU stood idle while somebody should have used it, in ns. Where all spin, idleness is not what is
    /// judged. Where /proc/stat does not tell, the whole window counts as idle, and the case fails rather than passes.
    fn unused_ns(&self) -> f64 {
        if self.at == 0 {
            return 0.0;
        }
        let idle_ns = self.opened.idle_until(self.closed, self.window, self.cpu);
        idle_ns.unwrap_or_else(|| self.window.elapsed_ns()) as f64
    }

    fn push(&self, into: &mut Observations, setting: String, requested: f64, achieved: f64, accounted: Option<f64>) {
        into.enforcement.push(EnforcementObservation {
            controller: "cpu",
            setting,
            unit: "ratio",
            iteration: 0,
            requested,
            // Nothing used at all is a part of nothing.
            achieved: if achieved.is_finite() { achieved } else { 0.0 },
            accounted: accounted.filter(|accounted| accounted.is_finite()),
            tolerance_pct: tolerance_pct(requested, self.case.duration_ns, tick_ns()),
            start_ns: self.window.start_ns,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(shares: &[u64], nested: bool, hierarchy: Hierarchy) -> Vec<(String, f64)> {
        contenders(shares, nested, hierarchy).into_iter().map(|each| (each.name, each.part)).collect()
    }

    #[test]
    fn parts_are_relative_among_siblings() {
        let third = 1.0 / 3.0;
        assert_eq!(parts(&[1024, 512], false, Hierarchy::V1), [("a".into(), 2.0 * third), ("b".into(), third)]);
        let nested = parts(&[1024, 512], true, Hierarchy::V1);
        let names: Vec<&str> = nested.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a.a", "a.b", "b"]);
        for ((_, part), expected) in nested.iter().zip([4.0 / 9.0, 2.0 / 9.0, third]) {
            assert!((part - expected).abs() < 1e-12, "{part} {expected}");
        }
        assert_eq!(contenders(&[1024, 512], true, Hierarchy::V1)[2].shares, LEAST);
    }

    #[test]
    fn v2_splits_by_weights() {
        // 1024 : 2 becomes 100 : 1, the least weight there is.
        let parts = parts(&[1024, 2], false, Hierarchy::V2);
        assert_eq!(parts[1].1, 1.0 / 101.0);
    }

    #[test]
    fn one_rests_and_then_is_alone() {
        let table: Vec<Vec<bool>> =
            (0..3).map(|window| (0..3).map(|member| spins(window, member, 3)).collect()).collect();
        assert_eq!(table, [[true; 3], [true, true, false], [false, false, true]]);
    }

    #[test]
    fn only_a_light_part_has_a_wider_tolerance() {
        let (two_s, tick) = (2_000_000_000, 4_000_000);
        assert_eq!(tolerance_pct(0.2, two_s, tick), 2.0);
        assert_eq!(tolerance_pct(512.0 / 513.0, two_s, tick), 2.0);
        // 1 of 513: a turn of 4 ms in 2.05 s.
        assert!((tolerance_pct(1.0 / 513.0, two_s, tick) - 102.6).abs() < 1e-9);
        assert!((tolerance_pct(1.0 / 513.0, 5 * two_s, tick) - 20.52).abs() < 1e-9);
        assert_eq!(tolerance_pct(0.04, 100 * two_s, tick), 2.0);
    }
}
