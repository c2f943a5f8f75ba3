//! A limit below what is in use already.
//!
//! Anonymous memory without swap cannot be given up: v1 refuses the new limit with EBUSY and leaves everything as it
//! was; v2 takes it and kills until it is true, and may be ahead of itself: it does not wait for the memory of the one
//! that it killed, and kills the next. Page cache is given up on both, and more of it than
//! the new limit asks for: how much is left is a metric, that it is no more than the limit is the verdict.

use super::super::subject::Subject;
use super::file::DiskFile;
use super::{Memory, cache, row, usage, value};
use crate::cgroup::{CgroupError, Controller, Group, Hierarchy, Limits, memory as controller};
use crate::experiment::{EnforcementObservation, ExperimentError, Observations, Stop};
use crate::sys::board::Board;
use crate::sys::clock;
use crate::sys::region::page_size;
use crate::units::Limit;
use crate::workload::cache::word as cache_word;
use crate::workload::touch::{self, word};

/// How much of the limit is in use when it is lowered, and to how much of it, as parts of eight.
const IN_USE: u64 = 6;
const LOWERED: u64 = 3;

/// What came of lowering the limit.
struct Lowered {
    /// What the kernel said; 0 when it took the new limit.
    errno: i32,
    /// The limit that is in force now, in bytes.
    in_force: u64,
    took_ns: u64,
}

/// Sets the group's limit, and says what became of it.
fn lower(subject: &Subject, hierarchy: Hierarchy, bytes: u64) -> Result<Lowered, ExperimentError> {
    const DOING: &str = "lowering the limit";
    // A runtime that has left the controller out has no limit to lower, and that is what the figures are to show.
    let Some(place) = subject.place(Controller::Memory) else {
        return Ok(Lowered { errno: 0, in_force: 0, took_ns: 0 });
    };
    let limits = Limits { memory: Some(Limit::Value(bytes)), ..Limits::default() };
    let begin = clock::now_ns();
    let outcome = subject.group().map(|group: &Group| group.apply(&limits));
    let took_ns = clock::now_ns() - begin;
    let errno = match outcome {
        Some(Err(CgroupError::Write { source, .. })) => source.raw_os_error().unwrap_or(0),
        Some(Err(error)) => return Err(ExperimentError::while_doing(DOING)(error)),
        Some(Ok(_)) | None => 0,
    };
    let file = if hierarchy == Hierarchy::V1 { controller::LIMIT } else { controller::MAX };
    let path = place.path.join(file);
    let kept = crate::fs::read_text(&path).map_err(ExperimentError::while_doing(DOING))?;
    Ok(Lowered { errno, in_force: kept.trim().parse().unwrap_or(u64::MAX), took_ns })
}

/// Anonymous memory.
pub(super) fn anonymous(memory: &Memory, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
    let start_ns = clock::now_ns();
    let pages = memory.limit_pages() * IN_USE / 8;
    let lowered_to = memory.limit_pages() * LOWERED / 8 * page_size();
    // Without swap, or the memory would go there.
    let limits = super::limit::asked(memory)?.limits;
    let subject = Subject::start(&*memory.runtime, touch::words(pages), word::COUNT, None, limits)?;
    subject.board.post(word::TARGET, pages);
    subject.wait("touching memory", stop, |board| board.get(word::TOUCHED) == pages)?;
    let lowered = lower(&subject, memory.hierarchy, lowered_to)?;
    let refuses = memory.hierarchy == Hierarchy::V1;
    let mut intact = 0;
    if refuses {
        subject.board.post(word::VERIFY, 1);
        let ended = |board: &Board| board.get(word::INTACT) != 0 || board.get(word::ENDED) != 0;
        subject.wait("looking at its memory", stop, ended)?;
        intact = subject.board.get(word::INTACT).saturating_sub(1);
    } else {
        // The kill may still be under way, or nobody be killed; then this ends after a while.
        let over = |board: &Board| board.get(word::ENDED) != 0 || subject.has_ended();
        subject.board.wait(std::time::Duration::from_secs(2), over);
    }
    // Where the first process was killed too, there is nobody left who could say how the other ended.
    let killed = touch::killed(subject.board.get(word::ENDED)) || subject.has_ended();
    let usage = usage(&subject)?;
    subject.remove()?;

    let page = page_size() as f64;
    let old = memory.limit_pages() as f64 * page;
    let (errno, in_force, kills) = if refuses { (libc::EBUSY, old, 0.0) } else { (0, lowered_to as f64, 1.0) };
    into.enforcement.extend([
        row("shrink/errno".to_owned(), "errno", f64::from(errno), f64::from(lowered.errno), start_ns),
        row("shrink/in_force".to_owned(), "bytes", in_force, lowered.in_force as f64, start_ns),
        EnforcementObservation {
            accounted: usage.map(|usage| usage.oom_kills as f64),
            ..row("shrink/kills".to_owned(), "count", kills, if killed { 1.0 } else { 0.0 }, start_ns)
        },
    ]);
    if refuses {
        let (held, kept) = (pages as f64 * page, intact as f64 * page);
        into.enforcement.push(row("shrink/intact".to_owned(), "bytes", held, kept, start_ns));
    }
    into.values.push(value("shrink_time", lowered.took_ns as f64, start_ns));
    Ok(())
}

/// Page cache.
pub(super) fn cached(memory: &Memory, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
    let start_ns = clock::now_ns();
    let pages = memory.limit_pages() * IN_USE / 8;
    let lowered_to = memory.limit_pages() * LOWERED / 8 * page_size();
    let file = DiskFile::make()?;
    // Reading what was never written fills the cache without a disk's doing.
    file.set_pages(pages)?;
    let limits = Limits { memory: Some(Limit::Value(memory.case.limit)), ..Limits::default() };
    let subject = cache::begin(&memory.runtime, &file, limits, stop)?;
    subject.board.post(cache_word::READ, pages);
    subject.wait("reading a file", stop, |board| board.get(cache_word::DONE) == pages)?;
    let before = file.cached(pages)?;
    let lowered = lower(&subject, memory.hierarchy, lowered_to)?;
    let after = file.cached(pages)?;
    let killed = subject.has_ended();
    let usage = usage(&subject)?;
    subject.remove()?;

    let page = page_size() as f64;
    let excess = (after * page_size()).saturating_sub(lowered_to);
    into.enforcement.extend([
        row("shrink-cache/before".to_owned(), "bytes", pages as f64 * page, before as f64 * page, start_ns),
        EnforcementObservation {
            accounted: usage.map(|usage| usage.current.saturating_sub(lowered_to) as f64),
            ..row("shrink-cache/excess".to_owned(), "bytes", 0.0, excess as f64, start_ns)
        },
        row("shrink-cache/in_force".to_owned(), "bytes", lowered_to as f64, lowered.in_force as f64, start_ns),
        row("shrink-cache/errno".to_owned(), "errno", 0.0, f64::from(lowered.errno), start_ns),
        EnforcementObservation {
            accounted: usage.map(|usage| usage.oom_kills as f64),
            ..row("shrink-cache/kills".to_owned(), "count", 0.0, if killed { 1.0 } else { 0.0 }, start_ns)
        },
    ]);
    into.values.push(value("shrink_time", lowered.took_ns as f64, start_ns));
    into.values.push(value("cache_kept", after as f64 * page / lowered_to as f64, start_ns));
    Ok(())
}
