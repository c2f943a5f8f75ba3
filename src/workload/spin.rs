//! `spin THREADS`: threads that count as fast as they can, each in a word of its own, and stamp the first thing that
//! they do after being told to look out. What stands still does not count.

use super::WorkloadError;
use super::steer::only_number;
use crate::sys::board::Board;
use crate::sys::clock;

/// The program's name after `__workload`.
pub const NAME: &str = "spin";

/// The most threads.
pub const MAX_THREADS: u64 = 1000;

/// After so many rounds (some µs) a thread lets the others have the CPU.
const TURN: u64 = 1000;

/// The words of its board; each thread has a cache line.
pub mod word {
    /// In: the number of the current watch; a thread that sees a new one stamps it.
    pub const WATCH: usize = 0;
    /// How many words there are for so many threads.
    #[must_use]
    pub fn count(threads: usize) -> usize {
        8 * (threads + 1)
    }
    /// Out: how often a thread (from 0) has gone round.
    #[must_use]
    pub fn rounds(thread: usize) -> usize {
        8 * (thread + 1)
    }
    /// Out: the last watch that a thread has seen.
    #[must_use]
    pub fn seen(thread: usize) -> usize {
        8 * (thread + 1) + 1
    }
    /// Out: when it saw it, in ns of CLOCK_MONOTONIC.
    #[must_use]
    pub fn seen_ns(thread: usize) -> usize {
        8 * (thread + 1) + 2
    }
}

/// How many threads the arguments ask for: the board's size depends on it.
pub(super) fn threads(arguments: &[String]) -> Result<usize, WorkloadError> {
    let threads = only_number(arguments, "how many threads to run")?;
    if threads > MAX_THREADS {
        return Err(WorkloadError::Arguments(format!("{threads} threads are more than {MAX_THREADS}")));
    }
    Ok(threads as usize)
}

pub(super) fn run(board: &Board, arguments: &[String]) -> Result<(), WorkloadError> {
    let threads = threads(arguments)?;
    std::thread::scope(|scope| {
        for thread in 1..threads {
            std::thread::Builder::new()
                .stack_size(64 << 10)
                .spawn_scoped(scope, move || spin(board, thread))
                .map_err(WorkloadError::system("start a thread"))?;
        }
        spin(board, 0)
    })
}

fn spin(board: &Board, thread: usize) -> ! {
    let (rounds, seen, seen_ns) = (word::rounds(thread), word::seen(thread), word::seen_ns(thread));
    let mut round = 0;
    let mut known = 0;
    loop {
        round += 1;
        board.set(rounds, round);
        // So that each gets its turn soon, however many there are; the scheduler's slice is milliseconds long.
        if round % TURN == 0 {
            std::thread::yield_now();
        }
        let watch = board.get(word::WATCH);
        if watch != known {
            known = watch;
            board.set(seen_ns, clock::now_ns());
            board.set(seen, watch);
        }
    }
}

/// The words that start it, after `__workload`.
#[must_use]
pub fn words(threads: usize) -> Vec<String> {
    vec![NAME.to_owned(), threads.to_string()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_threads_share_a_cache_line() {
        let lines: Vec<usize> = (0..5).map(|thread| word::rounds(thread) / 8).collect();
        assert_eq!(lines, [1, 2, 3, 4, 5]);
        assert!((0..5).all(|thread| word::seen_ns(thread) < word::count(5)));
        assert!(threads(&["1001".to_owned()]).is_err());
    }
}
