//! Threads of `mix` that burn CPU time, and where the edges of the window are put under a quota.

use std::sync::atomic::{AtomicBool, Ordering};

use super::Window;
use crate::sys::clock;

/// A time in which a burner did nothing, and the program's CPU time at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stall {
    pub resumed_ns: u64,
    pub length_ns: u64,
    pub cpu_ns: u64,
}

/// What a burner did.
#[derive(Debug, Default)]
pub(super) struct Burnt {
    pub work: u64,
    pub stalls: Vec<Stall>,
}

/// The shortest time without progress that counts as a stall, in ns.
const STALL_NS: u64 = 1_000_000;
/// How often a burner looks at its CPU clock, in ns.
const CHECK_NS: u64 = 50_000;
/// How many periods after an edge of the window the beginning of a period is looked for.
pub(super) const EDGE_PERIODS: u64 = 2;

/// Computes (and walks through memory) until it is stopped. `checked`: it reads its CPU clock all the while, so that the
/// kernel looks at once whether a quota is used up and not at the next timer tick only.
pub(super) fn burn(window: Window, stop: &AtomicBool, walk: u64, checked: bool) -> Burnt {
    let mut burnt = Burnt::default();
    let mut memory = vec![1_u64; usize::try_from(walk / 8).unwrap_or(0)];
    let mut state = 1_u64;
    let mut last_ns = clock::now_ns();
    let mut checked_ns = last_ns;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..1000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        }
        // One word a cache line.
        for word in memory.iter_mut().step_by(8) {
            *word = word.wrapping_add(state);
        }
        let now_ns = clock::now_ns();
        burnt.work += u64::from(window.start_ns <= now_ns && now_ns < window.end_ns);
        if now_ns - last_ns >= STALL_NS && memory.is_empty() {
            let stall = Stall { resumed_ns: now_ns, length_ns: now_ns - last_ns, cpu_ns: clock::process_cpu_ns() };
            burnt.stalls.push(stall);
        }
        if checked && now_ns - checked_ns >= CHECK_NS {
            std::hint::black_box(clock::process_cpu_ns());
            checked_ns = now_ns;
        }
        last_ns = now_ns;
    }
    std::hint::black_box((state, memory));
    burnt
}

/// Where the window's edges are put under a quota: at the end of the longest stall in the two periods that follow each
/// of its ends. A throttled program resumes when a period begins, so that the time between holds whole periods and
/// not, as it comes, a quota more or less. `None` without a quota, or when nothing stalled.
pub(super) fn edges<'a>(
    stalls: impl Iterator<Item = &'a Stall> + Clone,
    window: Window,
    period_ns: u64,
) -> Option<(Stall, Stall)> {
    let after = |from_ns: u64| {
        let inside = |stall: &&Stall| (from_ns..=from_ns + EDGE_PERIODS * period_ns).contains(&stall.resumed_ns);
        stalls.clone().filter(inside).max_by_key(|stall| stall.length_ns).copied()
    };
    let (first, last) = (after(window.start_ns)?, after(window.end_ns)?);
    (period_ns > 0 && first.resumed_ns < last.resumed_ns).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_where_a_period_begins() {
        let stall = |resumed_ns, length_ns| Stall { resumed_ns, length_ns, cpu_ns: resumed_ns / 2 };
        let stalls = [stall(90, 30), stall(108, 2), stall(140, 30), stall(615, 4), stall(640, 29), stall(790, 40)];
        let window = Window { start_ns: 100, end_ns: 600 };
        let (first, last) = edges(stalls.iter(), window, 50).unwrap();
        assert_eq!((first.resumed_ns, last.resumed_ns), (140, 640));
        assert_eq!(edges(stalls.iter(), window, 0), None);
        assert_eq!(edges([].iter(), window, 50), None);
    }
}
