//! How long a scenario takes, and how `--quick` shortens it.
//!
//! The costs below are rough and on the high side (a slow machine, an unoptimised build); they serve the time left
//! that is shown before the first block has been measured, and the choice of a scale for `--quick`.

use std::time::Duration;

use super::{Case, CaseKind, MemorySetting, NetworkMode, RuntimeKind, Scenario, accounting, blkio, cpu};

/// What `--quick` aims at for the blocks; the rest of its 20 s is for preparing, summarising and drawing.
pub(super) const QUICK_BUDGET: Duration = Duration::from_secs(14);
/// `--quick` measures at least so many blocks (or what the file says, if that is fewer).
const QUICK_BLOCKS: u32 = 3;
/// `--quick` measures at least so long a sample.
const QUICK_DURATION: Duration = Duration::from_millis(100);
/// `--quick` watches a CPU quota at least so long: ten of its usual periods, so that what it overruns in the last one
/// (up to a timer tick) stays within the tolerance.
const QUICK_ENFORCEMENT: Duration = Duration::from_secs(1);
/// `--quick` lets a flow run at least so long before it measures.
const QUICK_WARMUP: Duration = Duration::from_millis(20);
/// `--quick` watches a frozen container at least so long.
const QUICK_FROZEN: Duration = Duration::from_millis(10);

/// Making a lab, a peer and what else the blocks of one case share, and giving it back.
const PREPARE: Duration = Duration::from_millis(40);
/// Beside the measured time of a network sample: two containers or processes, connecting, collecting.
const SAMPLE_OVERHEAD: Duration = Duration::from_millis(60);
/// Beside the work of a steered container: starting it, letting its group settle, removing it.
const STEERED_OVERHEAD: Duration = Duration::from_millis(60);
/// Between two cases of a block: reading the signs of disturbance, progress.
const BETWEEN: Duration = Duration::from_millis(2);

/// How long a scenario's blocks take, with what is prepared for them.
pub(super) fn of(scenario: &Scenario) -> Duration {
    let block: Duration = scenario.cases.iter().map(|case| BETWEEN + of_case(case)).sum();
    block * (scenario.run.blocks + scenario.run.warmup_blocks) + PREPARE * scenario.cases.len() as u32
}

/// How long one case takes in one block.
pub(super) fn of_case(case: &Case) -> Duration {
    match &case.kind {
        CaseKind::Startup(case) => {
            let start = match (case.runtime, case.network) {
                (RuntimeKind::Floor, _) => Duration::from_micros(2000),
                (_, NetworkMode::Host | NetworkMode::None | NetworkMode::Container) => Duration::from_micros(6000),
                (_, NetworkMode::Bridge) => Duration::from_micros(9000),
            };
            start * case.per_block
        }
        CaseKind::Network(case) => case.warmup + case.duration + SAMPLE_OVERHEAD,
        CaseKind::Cpu(case) => cpu::estimate(case),
        CaseKind::Memory(case) => {
            // A page touched or read, and given back.
            let page = Duration::from_nanos(if case.setting == MemorySetting::Cache { 12_000 } else { 3000 });
            STEERED_OVERHEAD + page * u32::try_from(case.limit >> 12).unwrap_or(u32::MAX)
        }
        CaseKind::Pids(case) => STEERED_OVERHEAD + Duration::from_micros(600) * case.limit,
        CaseKind::Freezer(case) => STEERED_OVERHEAD + 3 * (case.frozen + Duration::from_millis(4) * case.threads),
        CaseKind::Blkio(case) => blkio::estimate(case),
        CaseKind::Accounting(case) => accounting::estimate(case),
        CaseKind::Devices(_) => SAMPLE_OVERHEAD,
        CaseKind::Combined(case) => case.estimate() + SAMPLE_OVERHEAD,
        CaseKind::Interference(case) => case.estimate() + SAMPLE_OVERHEAD,
        CaseKind::Lifecycle(case) => case.estimate(),
    }
}

/// Divides blocks, durations and starts until the estimate fits the budget, or each is at its least.
///
/// Blocks and their length shrink by the same factor, because an interval needs blocks and a sample needs length. Ids stay as the file gives them, so that a quick run's cases can be compared.
pub(super) fn shorten(scenario: &mut Scenario) {
    let full = scenario.clone();
    let mut scale = 1.0_f64;
    while of(scenario) > QUICK_BUDGET && scale > 1e-4 {
        scale *= 0.95;
        apply(scenario, &full, scale);
    }
}

fn apply(scenario: &mut Scenario, full: &Scenario, scale: f64) {
    scenario.run.blocks = shrink(full.run.blocks, scale, QUICK_BLOCKS);
    scenario.run.warmup_blocks = shrink(full.run.warmup_blocks, scale, 1);
    for (case, full) in scenario.cases.iter_mut().zip(&full.cases) {
        match (&mut case.kind, &full.kind) {
            (CaseKind::Startup(case), CaseKind::Startup(full)) => {
                case.per_block = shrink(full.per_block, scale, full.concurrency.max(2));
            }
            (CaseKind::Network(case), CaseKind::Network(full)) => {
                case.duration = full.duration.mul_f64(scale).max(QUICK_DURATION.min(full.duration));
                case.warmup = full.warmup.mul_f64(scale).max(QUICK_WARMUP.min(full.warmup));
            }
            (CaseKind::Cpu(case), CaseKind::Cpu(full)) => {
                case.duration = full.duration.mul_f64(scale).max(cpu::shortest(full));
            }
            (CaseKind::Freezer(case), CaseKind::Freezer(full)) => {
                case.frozen = full.frozen.mul_f64(scale).max(QUICK_FROZEN.min(full.frozen));
            }
            (CaseKind::Blkio(case), CaseKind::Blkio(full)) => case.duration = blkio::shortened(full, scale),
            (CaseKind::Accounting(case), CaseKind::Accounting(full)) => {
                case.per_block = shrink(full.per_block, scale, 1);
            }
            (CaseKind::Combined(case), CaseKind::Combined(full)) => {
                case.duration = full.duration.mul_f64(scale).max(QUICK_ENFORCEMENT.min(full.duration));
            }
            (CaseKind::Interference(case), CaseKind::Interference(full)) => {
                case.duration = full.duration.mul_f64(scale).max(QUICK_DURATION.min(full.duration));
            }
            (CaseKind::Lifecycle(case), CaseKind::Lifecycle(full)) => {
                case.per_block = shrink(full.per_block, scale, 2);
            }
            // What the others do is given by their limit. `full` is a clone of `scenario`: its cases are of the same kinds.
            _ => {}
        }
    }
}

/// `full` scaled down, but not below `least`, and never above `full`.
fn shrink(full: u32, scale: f64, least: u32) -> u32 {
    ((f64::from(full) * scale).round() as u32).max(least).min(full)
}
