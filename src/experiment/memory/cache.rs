//! A limit and a file four times as large, written and read through the page cache: the cache is reclaimed, nobody is
//! killed, and every page comes back from disk as it was written.
//!
//! *Achieved* is the most that the host saw in the page cache of the file while it was read (by mincore, whoever
//! brought it there), and what was charged before. It cannot be more than the limit; how much less depends on how far
//! reclaim goes, which is more than it must at a time.

use std::sync::Arc;

use super::super::subject::Subject;
use super::file::DiskFile;
use super::{Memory, baseline, row, usage, value};
use crate::cgroup::Limits;
use crate::experiment::{EnforcementObservation, ExperimentError, Observations, Stop};
use crate::runtime::Runtime;
use crate::sys::board::Board;
use crate::sys::clock;
use crate::sys::region::page_size;
use crate::units::Limit;
use crate::workload::cache::{self, word};

/// The file's size in limits.
const TIMES: u64 = 4;

/// How often the cache is looked at while the file is read. The reading pauses meanwhile: a look takes time, and would
/// see pages at the file's begin that are gone before those at its end have come.
const LOOKS: u64 = 16;

/// How much less than the limit the most that the cache held may be, or more, in percent.
const TOLERANCE_PCT: f64 = 10.0;

pub(super) fn measure(memory: &Memory, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
    let start_ns = clock::now_ns();
    let pages = TIMES * memory.limit_pages();
    let file = DiskFile::make()?;
    let limits = Limits { memory: Some(Limit::Value(memory.case.limit)), ..Limits::default() };
    let subject = begin(&memory.runtime, &file, limits, stop)?;
    let base = baseline(&subject)?;
    subject.board.post(word::WRITE, pages);
    let survived = until(&subject, "writing a file", stop, |board| board.get(word::WRITTEN) == pages)?;
    let mut cached = file.cached(pages)?;
    let mut survived = survived;
    for part in 1..=LOOKS {
        if survived {
            let target = pages * part / LOOKS;
            subject.board.post(word::READ, target);
            survived = until(&subject, "reading a file", stop, |board| board.get(word::DONE) == target)?;
            cached = cached.max(file.cached(pages)?);
        }
    }
    let usage = usage(&subject)?;
    let seen = |word| subject.board.get(word) as f64;
    let (written, intact, read_ns) = (seen(word::WRITTEN), seen(word::INTACT), seen(word::READ_NS));
    subject.remove()?;

    let page = page_size() as f64;
    let requested = memory.limit_pages() as f64 * page;
    let killed = if survived { 0.0 } else { 1.0 };
    into.enforcement.extend([
        EnforcementObservation {
            accounted: usage.map(|usage| usage.current as f64),
            tolerance_pct: TOLERANCE_PCT,
            ..row("cache".to_owned(), "bytes", requested, base as f64 + page * cached as f64, start_ns)
        },
        EnforcementObservation {
            accounted: usage.map(|usage| usage.oom_kills as f64),
            ..row("cache/kills".to_owned(), "count", 0.0, killed, start_ns)
        },
        row("cache/intact".to_owned(), "bytes", 2.0 * pages as f64 * page, (written + intact) * page, start_ns),
    ]);
    into.values.push(value("page_read", read_ns / pages as f64, start_ns));
    Ok(())
}

/// Starts the workload on a file and waits until it is ready for its first command.
pub(super) fn begin(
    runtime: &Arc<dyn Runtime>,
    file: &DiskFile,
    limits: Limits,
    stop: Stop<'_>,
) -> Result<Subject, ExperimentError> {
    let subject = Subject::start(&**runtime, cache::words(), word::COUNT, Some(file.duplicate()?), limits)?;
    subject.wait("getting ready", stop, |board| board.get(word::READY) == 1)?;
    Ok(subject)
}

/// Waits for the board, or for the end of the program; whether it was the board.
fn until(
    subject: &Subject,
    what: &str,
    stop: Stop<'_>,
    done: impl Fn(&Board) -> bool,
) -> Result<bool, ExperimentError> {
    match subject.wait(what, stop, done) {
        Ok(()) => Ok(true),
        // It was killed, which is for the verdict to say. A complaint says otherwise.
        Err(_) if subject.has_ended() && crate::workload::steer::complaint(&subject.board).is_none() => Ok(false),
        Err(error) => Err(error),
    }
}
