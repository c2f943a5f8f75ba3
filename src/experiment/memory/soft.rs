//! A soft limit and a program that touches twice as much.
//!
//! v2 (`memory.high`) reclaims, and puts a program to sleep that still goes beyond: the further, the longer. What it
//! had after [`HOLD`] is compared with the limit. v1's soft limit means nothing until the whole host is short of
//! memory, and then only who is pushed first; isobench does not bring a host into that state. So on v1 there is no
//! verdict, only the observation `soft_excess`: the program gets all it asks for.

use std::time::Duration;

use super::super::subject::Subject;
use super::{Memory, baseline, further_tables, row, usage, value};
use crate::cgroup::{Group, Hierarchy, Limits, pressure};
use crate::experiment::{EnforcementObservation, ExperimentError, Observations, Stop};
use crate::sys::clock;
use crate::sys::region::page_size;
use crate::units::Limit;
use crate::workload::touch::{self, word};

/// So many pages before the limit the time begins: the kernel charges in batches, and is there a little earlier.
const BELOW: u64 = 128;

/// How long the program may try to get beyond the limit.
const HOLD: Duration = Duration::from_secs(1);

/// How far it may get within that time, in percent: each further batch of pages costs it a sleep, and the sleeps grow
/// with the square of the excess.
const TOLERANCE_PCT: f64 = 10.0;

pub(super) fn measure(memory: &Memory, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
    let start_ns = clock::now_ns();
    let page = page_size() as f64;
    let limit = memory.limit_pages();
    // With swap the group would stay below by swapping, so there is none for it. That needs a hard limit, out of reach.
    let beyond = (super::limit::swap_free()? > 0).then_some(Limit::Value(4 * memory.case.limit));
    let memory_soft = Some(Limit::Value(memory.case.limit));
    let limits = Limits { memory_soft, memory: beyond, memory_and_swap: beyond, ..Limits::default() };
    let subject = Subject::start(&*memory.runtime, touch::words(2 * limit), word::COUNT, None, limits)?;
    subject.wait("beginning to touch memory", stop, |board| board.get(word::TOUCHED) == 1)?;
    let base = baseline(&subject)?;
    let begin_ns = clock::now_ns();
    subject.board.post(word::TARGET, 2 * limit);
    // A slow machine takes its time to get there; what counts begins there.
    let below = limit.saturating_sub(base / page_size() + further_tables(limit) + BELOW);
    subject.wait("touching memory", stop, |board| board.get(word::TOUCHED) >= below)?;
    let deadline_ns = clock::now_ns() + HOLD.as_nanos() as u64;
    let slice = Duration::from_millis(20);
    let whole = |board: &crate::sys::board::Board| board.get(word::TOUCHED) >= 2 * limit;
    while !subject.board.wait(slice, whole) && clock::now_ns() < deadline_ns {
        subject.look("touching memory", u64::MAX, stop)?;
    }
    let (touched, touched_ns) = (subject.board.get(word::TOUCHED), subject.board.get(word::TOUCHED_NS));
    let usage = usage(&subject)?;
    let stalled = stalled_ns(&subject)?;
    subject.remove()?;

    let requested = limit as f64 * page;
    let in_use = base as f64 + page * (touched - 1 + further_tables(touched)) as f64;
    if memory.hierarchy == Hierarchy::V2 {
        let slowed = usage.and_then(|usage| usage.throttled).unwrap_or(0);
        into.enforcement.extend([
            EnforcementObservation {
                accounted: usage.map(|usage| usage.current as f64),
                tolerance_pct: TOLERANCE_PCT,
                ..row("soft".to_owned(), "bytes", requested, in_use, start_ns)
            },
            row("soft/throttled".to_owned(), "count", 1.0, if slowed > 0 { 1.0 } else { 0.0 }, start_ns),
        ]);
    }
    into.values.extend(stalled.map(|ns| value("memory_pressure", ns as f64, start_ns)));
    into.values.push(value("soft_excess", (in_use - requested).max(0.0) / requested, start_ns));
    into.values.push(value("page_touch", (touched_ns - begin_ns) as f64 / (touched - 1).max(1) as f64, begin_ns));
    Ok(())
}

/// How long the container stood still for want of memory, where the kernel tells (v2).
fn stalled_ns(subject: &Subject) -> Result<Option<u64>, ExperimentError> {
    let Some(path) = subject.group().and_then(Group::unified) else { return Ok(None) };
    let pressure = pressure::read(path).map_err(ExperimentError::while_doing("reading the pressure account"))?;
    Ok(pressure.memory.map(|pressure| pressure.some.total_ns))
}
