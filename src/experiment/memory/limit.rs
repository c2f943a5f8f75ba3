//! The hard limit, by a program that touches anonymous memory page by page until it is killed.
//!
//! *Requested* is the limit. *Achieved* is what was in use when it was killed: the pages that it had touched, which it
//! counts itself, the page tables for them, which follow from their number, and what was charged before the first of
//! them ([`super::baseline`]). *Accounted* is the controller's own peak. The kernel charges in batches, but takes
//! single pages once a batch no longer fits, so that the error should be none, and is allowed to be one batch.

use std::time::Duration;

use super::super::subject::{SLICE, Subject};
use super::{Memory, baseline, further_tables, row, usage, value};
use crate::cgroup::oom::OomWatch;
use crate::cgroup::{Controller, Hierarchy, Limits, Place, memory};
use crate::experiment::{EnforcementObservation, ExperimentError, Judged, Observations, PhaseObservation, Stop};
use crate::scenario::{MemoryCase, MemorySetting};
use crate::sys::clock;
use crate::sys::region::page_size;
use crate::units::Limit;
use crate::workload::touch::{self, word};

/// How many pages the kernel charges at once when it can: MEMCG_CHARGE_BATCH.
const CHARGE_BATCH: u64 = 64;

/// How many such batches the sum of memory and swap may be off: a page that came back from swap counts twice until its
/// slot is given up, and each CPU has slots in hand.
const SWAP_BATCHES: u64 = 4;

/// Pages that are touched one by one, with a look at the account after each: two batches are among them.
const SINGLE_STEPS: u64 = 160;

/// How far accounting may be from what was touched, in percent.
const ACCOUNTING_TOLERANCE_PCT: f64 = 1.0;

/// How long the kernel's event may come after the kill.
const EVENT_PATIENCE: Duration = Duration::from_secs(2);

/// A case about swap needs its limit, and the one with swap needs swap.
pub(super) fn need_swap(place: &Place, case: &MemoryCase) -> Result<(), ExperimentError> {
    let missing = |reason: String| Err(ExperimentError::Unsupported(reason));
    if place.hierarchy == Hierarchy::V1 && !place.path.join(memory::MEMSW_LIMIT).exists() {
        return missing("this kernel keeps no account of swap".to_owned());
    }
    let (wanted, free) = (2 * case.limit, swap_free()?);
    if case.setting == MemorySetting::Swap && free < wanted {
        let [wanted, free] = [wanted, free].map(|bytes| crate::units::human(bytes as f64, "bytes"));
        return missing(format!(
            "it needs {wanted} of free swap and there are {free}; isobench adds none, because swap is the whole host's"
        ));
    }
    Ok(())
}

/// Free swap of the host, in bytes.
pub(super) fn swap_free() -> Result<u64, ExperimentError> {
    let path = "/proc/swaps";
    let text = crate::fs::read_text(path).map_err(ExperimentError::while_doing("looking for swap"))?;
    // Name, type, size, used, priority; sizes in KiB.
    let free = text.lines().skip(1).filter_map(|line| {
        let mut numbers = line.split_whitespace().skip(2).map_while(|word| word.parse::<u64>().ok());
        Some((numbers.next()?.saturating_sub(numbers.next()?)) << 10)
    });
    Ok(free.sum())
}

/// What is asked of the controller.
pub(super) struct Asked {
    pub(super) limits: Limits,
    /// Pages that may be in use in all, swap included.
    pages: u64,
}

pub(super) fn asked(memory: &Memory) -> Result<Asked, ExperimentError> {
    let limit = memory.case.limit;
    let both = match memory.case.setting {
        MemorySetting::Swap => Some(2 * limit),
        MemorySetting::NoSwap => Some(limit),
        // Where the host has swap, a limit of memory alone would only push the program there.
        _ => (swap_free()? > 0).then_some(limit),
    };
    let pages = memory.limit_pages() * if memory.case.setting == MemorySetting::Swap { 2 } else { 1 };
    let limits =
        Limits { memory: Some(Limit::Value(limit)), memory_and_swap: both.map(Limit::Value), ..Limits::default() };
    Ok(Asked { limits, pages })
}

/// How the touching ended.
struct End {
    /// Pages touched.
    touched: u64,
    /// When the last one was, in ns of CLOCK_MONOTONIC.
    touched_ns: u64,
    /// When the killed program was reaped.
    killed_ns: Option<u64>,
    /// When the kernel's event reached the harness.
    event_ns: Option<u64>,
    /// Whether the process that only looked on was spared.
    bystander_lives: bool,
}

impl End {
    /// The kill as phases without gaps: the touching, then what came next, be it the event or the reaping. None where
    /// nobody was killed.
    fn timeline(&self, begin_ns: u64) -> Vec<PhaseObservation> {
        let Some(killed_ns) = self.killed_ns else { return Vec::new() };
        let mut ends = vec![(self.touched_ns, "touch"), (killed_ns, "kill")];
        ends.extend(self.event_ns.map(|event_ns| (event_ns, "event")));
        ends.sort_unstable();
        let mut start_ns = begin_ns;
        let phase = |(end_ns, phase)| {
            let duration_ns = u64::saturating_sub(end_ns, start_ns);
            let observation = PhaseObservation { iteration: 0, phase, start_ns, duration_ns };
            start_ns += duration_ns;
            observation
        };
        ends.into_iter().map(phase).collect()
    }
}

pub(super) fn measure(memory: &Memory, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
    let start_ns = clock::now_ns();
    let page = page_size() as f64;
    let asked = asked(memory)?;
    // Where nothing stops it, it stops at twice what it may have: no host runs out of memory by this.
    let subject =
        Subject::start(&*memory.runtime, touch::words(2 * asked.pages), word::COUNT, None, asked.limits.clone())?;
    subject.wait("beginning to touch memory", stop, |board| board.get(word::TOUCHED) == 1)?;
    let base = baseline(&subject)?;
    let batch = charge_batch(&subject, stop)?;
    let begin_ns = clock::now_ns();
    let end = cross(&subject, 2 * asked.pages, stop)?;
    let usage = usage(&subject)?;
    subject.remove()?;

    let in_use = base as f64 + page * (end.touched - 1 + further_tables(end.touched + 1)) as f64;
    let requested = asked.pages as f64 * page;
    let setting = memory.case.setting.as_str();
    let peak = usage.and_then(|usage| match memory.case.setting {
        MemorySetting::Swap => usage.peak_with_swap,
        _ => usage.peak,
    });
    let batches = if memory.case.setting == MemorySetting::Swap { SWAP_BATCHES } else { 1 };
    let kills = usage.map(|usage| usage.oom_kills as f64);
    let killed = if end.killed_ns.is_some() { 1.0 } else { 0.0 } + if end.bystander_lives { 0.0 } else { 1.0 };
    let seen = if end.event_ns.is_some() { 1.0 } else { 0.0 };
    into.enforcement.push(EnforcementObservation {
        accounted: peak.map(|peak| peak as f64),
        tolerance_pct: 100.0 * (batches * CHARGE_BATCH) as f64 / asked.pages as f64,
        ..row(setting.to_owned(), "bytes", requested, in_use, start_ns)
    });
    if usage.is_none() || peak.is_some() {
        into.enforcement.push(EnforcementObservation {
            accounted: peak.map(|peak| peak as f64),
            judged: Judged::Accounted,
            tolerance_pct: ACCOUNTING_TOLERANCE_PCT,
            ..row(format!("{setting}/accounted"), "bytes", in_use, in_use, start_ns)
        });
    }
    into.enforcement.extend([
        EnforcementObservation { accounted: kills, ..row(format!("{setting}/kills"), "count", 1.0, killed, start_ns) },
        row(format!("{setting}/events"), "count", 1.0, seen, start_ns),
    ]);

    into.phases.extend(end.timeline(begin_ns));
    let touching = (end.touched_ns - begin_ns) as f64 / (end.touched - 1 - SINGLE_STEPS).max(1) as f64;
    into.values.push(value("page_touch", touching, begin_ns));
    into.values.extend(batch.map(|pages| value("charge_batch", pages as f64, start_ns)));
    let after = |at: Option<u64>| at.map(|at| at.saturating_sub(end.touched_ns) as f64);
    into.values.extend(after(end.killed_ns).map(|delay| value("kill_delay", delay, end.touched_ns)));
    into.values.extend(after(end.event_ns).map(|delay| value("oom_event_delay", delay, end.touched_ns)));
    Ok(())
}

/// Touches single pages and looks at the account after each: the largest rise is how much the kernel charges at once,
/// in bytes. `None` without a group.
fn charge_batch(subject: &Subject, stop: Stop<'_>) -> Result<Option<u64>, ExperimentError> {
    let Some(mut before) = usage(subject)?.map(|usage| usage.current) else {
        step(subject, 1 + SINGLE_STEPS, stop)?;
        return Ok(None);
    };
    let mut largest = 0;
    for target in 2..=1 + SINGLE_STEPS {
        step(subject, target, stop)?;
        let now = usage(subject)?.map_or(0, |usage| usage.current);
        largest = largest.max(now.saturating_sub(before));
        before = now;
    }
    Ok(Some(largest))
}

fn step(subject: &Subject, target: u64, stop: Stop<'_>) -> Result<(), ExperimentError> {
    subject.board.post(word::TARGET, target);
    subject.wait("touching single pages", stop, |board| board.get(word::TOUCHED) >= target)
}

/// Lets the program touch up to `most` pages, and waits until it is killed or has touched them all.
fn cross(subject: &Subject, most: u64, stop: Stop<'_>) -> Result<End, ExperimentError> {
    let watching = || ExperimentError::while_doing("watching for the kernel's event");
    let place = subject.place(Controller::Memory);
    let mut watch = place.map(OomWatch::arm).transpose().map_err(watching())?;
    let deadline_ns = clock::now_ns() + 120_000_000_000;
    let board = &subject.board;
    let over = || board.get(word::ENDED) != 0 || board.get(word::TOUCHED) >= most;
    let mut event_ns = None;
    board.post(word::TARGET, most);
    while !over() && !subject.has_ended() {
        match &mut watch {
            Some(watch) if event_ns.is_none() => {
                if watch.wait(SLICE).map_err(watching())? {
                    event_ns = Some(clock::now_ns());
                }
            }
            _ => drop(board.wait(SLICE, |_| over() || subject.has_ended())),
        }
        if !over() && !subject.has_ended() {
            subject.look("touching memory", deadline_ns, stop)?;
        }
    }
    let killed = touch::killed(board.get(word::ENDED));
    if let Some(watch) = watch.as_mut().filter(|_| killed && event_ns.is_none())
        && watch.wait(EVENT_PATIENCE).map_err(watching())?
    {
        event_ns = Some(clock::now_ns());
    }
    Ok(End {
        touched: board.get(word::TOUCHED),
        touched_ns: board.get(word::TOUCHED_NS),
        killed_ns: killed.then(|| board.get(word::ENDED_NS)),
        event_ns,
        bystander_lives: !subject.has_ended(),
    })
}
