//! Where a start's time goes: which starts stand for the median and the slow ones, and the median of each phase.
//!
//! Medians of phases do not add up to the median of the whole, so the chart shows two starts that happened, and the
//! table shows the medians. Read by the waterfall chart and by the HTML's table.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::RunRecord;

/// A case with this phase shows an end and not a start; it has a chart of its own.
pub(super) const KILL: &str = "kill";

/// What the phases of an experiment are parts of, in a word.
pub(super) fn subject(experiment: &str) -> &'static str {
    if experiment == "lifecycle" { "life" } else { "start" }
}

/// One start that happened: its phases in order and their sum.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Start {
    /// Name and duration in ns, in the order in which they ran.
    pub phases: Vec<(String, f64)>,
    /// All of them together, in ns.
    pub whole: f64,
}

/// The waterfall of a case.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Waterfall {
    /// The case's id.
    pub case: String,
    /// How many starts there were.
    pub count: usize,
    /// The start whose whole is nearest the median.
    pub median: Start,
    /// The start whose whole is nearest the 99th percentile, or the slowest of fewer than 100; `None` for one start.
    pub slow: Option<Start>,
    /// The median of each phase in ns, in order.
    pub medians: Vec<(String, f64)>,
    /// The median of the whole in ns.
    pub whole: f64,
}

impl Waterfall {
    /// What [`Waterfall::slow`] is.
    pub(super) fn slow_name(&self) -> &'static str {
        if self.count >= 100 { "p99" } else { "slowest" }
    }

    /// The phase's time in the median start, in ns; `None` when it has none.
    pub(super) fn time_of(&self, phase: &str) -> Option<f64> {
        let times: Vec<f64> = self.median.phases.iter().filter(|(name, _)| name == phase).map(|(_, ns)| *ns).collect();
        (!times.is_empty()).then(|| times.iter().sum())
    }
}

/// The steps of each start of a case, by block and iteration: begin, name and duration.
type Starts<'a> = BTreeMap<(u32, u32), Vec<(u64, &'a str, u64)>>;

/// The waterfall of every case that has one, warm-up blocks left out.
pub(super) fn of_run(run: &RunRecord) -> Vec<Waterfall> {
    let warmup: BTreeSet<u32> = run.blocks.iter().filter(|block| block.warmup).map(|block| block.block).collect();
    let mut starts: BTreeMap<&str, Starts<'_>> = BTreeMap::new();
    for row in run.phases.iter().filter(|row| !warmup.contains(&row.block)) {
        let start = starts.entry(&row.case).or_default().entry((row.block, row.iteration)).or_default();
        start.push((row.start_ns, &row.phase, row.duration_ns));
    }
    let is_start = |starts: &Starts<'_>| !starts.values().flatten().any(|(_, phase, _)| *phase == KILL);
    let of = |id: &str| starts.remove(id).filter(is_start).and_then(|starts| of_case(id, starts));
    run.cases.iter().map(|case| case.id.as_str()).filter_map(of).collect()
}

fn of_case(case: &str, starts: Starts<'_>) -> Option<Waterfall> {
    let mut starts: Vec<Start> = starts.into_values().map(start).collect();
    starts.sort_by(|a, b| a.whole.total_cmp(&b.whole));
    let wholes: Vec<f64> = starts.iter().map(|start| start.whole).collect();
    let median = starts.get((starts.len().checked_sub(1)?) / 2)?.clone();
    // Nearest rank, ceil(0.99 n), counted from 1.
    let rank = (starts.len() * 99).div_ceil(100);
    let slow = (starts.len() > 1).then(|| starts[rank - 1].clone());
    let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (name, ns) in starts.iter().flat_map(|start| &start.phases) {
        times.entry(name).or_default().push(*ns);
    }
    let order = in_order(starts.iter());
    let medians = order
        .into_iter()
        .map(|name| {
            let median = times.get_mut(name.as_str()).map_or(0.0, |times| {
                times.sort_by(f64::total_cmp);
                middle(times)
            });
            (name, median)
        })
        .collect();
    Some(Waterfall { case: case.to_owned(), count: starts.len(), median, slow, medians, whole: middle(&wholes) })
}

fn start(mut rows: Vec<(u64, &str, u64)>) -> Start {
    rows.sort_by_key(|(start_ns, _, _)| *start_ns);
    let phases: Vec<(String, f64)> = rows.into_iter().map(|(_, name, ns)| (name.to_owned(), ns as f64)).collect();
    let whole = phases.iter().map(|(_, ns)| ns).sum();
    Start { phases, whole }
}

/// The median of sorted values; 0 for none.
fn middle(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// Every phase's name in the order of time: a name that one start has and another lacks goes behind its predecessor.
pub(super) fn in_order<'a>(starts: impl Iterator<Item = &'a Start>) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    let mut seen: BTreeSet<Vec<&str>> = BTreeSet::new();
    for start in starts {
        if !seen.insert(start.phases.iter().map(|(name, _)| name.as_str()).collect()) {
            continue;
        }
        let mut at = 0;
        for (name, _) in &start.phases {
            match order.iter().position(|known| known == name) {
                Some(index) => at = index + 1,
                None => {
                    order.insert(at, name.clone());
                    at += 1;
                }
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    fn start_of(phases: &[(&str, f64)]) -> Start {
        let phases: Vec<(String, f64)> = phases.iter().map(|(name, ns)| ((*name).to_owned(), *ns)).collect();
        Start { whole: phases.iter().map(|(_, ns)| ns).sum(), phases }
    }

    #[test]
    fn a_phase_that_some_lack_keeps_its_place() {
        let starts =
            [start_of(&[("clone", 1.0), ("exec", 1.0)]), start_of(&[("clone", 1.0), ("network", 2.0), ("exec", 1.0)])];
        assert_eq!(in_order(starts.iter()), ["clone", "network", "exec"]);
    }

    #[test]
    fn the_chosen_starts_add_up_and_leave_the_warm_up_out() {
        let run = fixture::run();
        let falls = of_run(&run);
        assert_eq!(falls.len(), 5);
        for fall in &falls {
            assert_eq!(fall.count, fixture::BLOCKS as usize * fixture::STARTS as usize);
            let slow = fall.slow.as_ref().unwrap();
            assert!(fall.median.whole <= slow.whole);
            assert_eq!(fall.median.whole, fall.median.phases.iter().map(|(_, ns)| ns).sum::<f64>());
            // 120 starts: the whole nearest the median is at most half a rank away from it.
            assert!((fall.median.whole / fall.whole - 1.0).abs() < 0.05, "{}", fall.case);
        }
    }
}
