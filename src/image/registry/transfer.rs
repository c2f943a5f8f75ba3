//! Several blobs on their way at the same time.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::image::digest::Digest;
use crate::image::error::ImageError;
use crate::image::spec::Descriptor;

/// How far a blob came, and how many tries in a row got it no further.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The most that ever was there: what begins anew, or is forgotten, gets on only beyond it.
    highest: u64,
    vain: u32,
}

impl Progress {
    /// A try ended with so many bytes there; whether it got on.
    pub(super) fn note(&mut self, at: u64) -> bool {
        let further = at > self.highest;
        (self.highest, self.vain) = if further { (at, 0) } else { (self.highest, self.vain + 1) };
        further
    }

    /// How many tries in a row got nowhere.
    pub(super) fn vain(&self) -> u32 {
        self.vain
    }
}

/// Moves each of some blobs once, at most `parallel` at a time; their outcomes in their order. After a failure no
/// further one is begun.
pub(super) fn each<T: Send>(
    blobs: &[Descriptor],
    parallel: usize,
    act: impl Fn(&Descriptor) -> Result<T, ImageError> + Sync,
) -> Result<Vec<T>, ImageError> {
    let mut known: Vec<Digest> = Vec::new();
    let mut distinct = Vec::new();
    for blob in blobs {
        if !known.contains(&blob.digest) {
            known.push(blob.digest);
            distinct.push(blob);
        }
    }
    let waiting = Mutex::new(distinct.iter().enumerate());
    let stopped = AtomicBool::new(false);
    let outcomes = std::thread::scope(|scope| {
        let worker = || {
            let mut done = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((at, blob)) = next else { break };
                let outcome = act(blob);
                if outcome.is_err() {
                    stopped.store(true, Ordering::Relaxed);
                }
                done.push((at, outcome));
            }
            done
        };
        let workers: Vec<_> = (0..parallel.clamp(1, distinct.len().max(1))).map(|_| scope.spawn(worker)).collect();
        let mut outcomes = Vec::new();
        for worker in workers {
            match worker.join() {
                Ok(done) => outcomes.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        outcomes
    });
    let mut outcomes = outcomes;
    outcomes.sort_by_key(|(at, _)| *at);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_never_there_is_progress() {
        let mut progress = Progress::default();
        let noted = [600, 300, 600, 601, 0, 601].map(|at| (progress.note(at), progress.vain()));
        assert_eq!(noted, [(true, 0), (false, 1), (false, 2), (true, 0), (false, 1), (false, 2)]);
    }
}
