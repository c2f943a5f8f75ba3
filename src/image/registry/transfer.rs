//! Several blobs on their way at the same time.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::image::digest::Digest;
use crate::image::error::ImageError;
use crate::image::spec::Descriptor;

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
