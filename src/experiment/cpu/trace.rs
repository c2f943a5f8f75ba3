//! From the points that spinning threads noted to CPU time and work over whole turns or whole periods: pure functions.
//!
//! # Why not simply over the window
//!
//! A contended CPU is handed out in turns of a timer tick or so, and a quota in periods. Where a window happens to cut
//! into a turn or a period, it sees up to one of them too many or too few, and with a quota of 1 ms in 100 ms that is
//! 5 % of what two seconds hold. That error is the window's and not the kernel's. So CPU time is taken between two
//! instants of the same kind inside the window: the beginnings of turns, the refills of the quota. What an enforcement that is wrong does shows there just the same.

use crate::workload::burn::Point;
use crate::workload::result::Window;

/// How far a resumption may lie from the refills' grid and still count as caused by one, in ns: a timer and a switch.
const NEAR_NS: u64 = 250_000;

/// One thread's way through one window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course<'a>(pub &'a [Point]);

/// What was used and done.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Progress {
    /// CPU time, in ns.
    pub cpu_ns: f64,
    /// Units of work.
    pub work: f64,
}

/// A time in which a thread stood still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    pub start_ns: u64,
    pub end_ns: u64,
}

impl Course<'_> {
    /// What it had used and done at an instant: even between two points, as at the nearest one outside of them.
    fn at(self, at_ns: u64) -> Progress {
        let of = |point: &Point| Progress { cpu_ns: point.cpu_ns as f64, work: point.work as f64 };
        let after = self.0.partition_point(|point| point.at_ns <= at_ns);
        match (after.checked_sub(1).and_then(|before| self.0.get(before)), self.0.get(after)) {
            (Some(before), Some(after)) => {
                let part = (at_ns - before.at_ns) as f64 / (after.at_ns - before.at_ns) as f64;
                let (low, high) = (of(before), of(after));
                Progress {
                    cpu_ns: low.cpu_ns + part * (high.cpu_ns - low.cpu_ns),
                    work: low.work + part * (high.work - low.work),
                }
            }
            (Some(only), None) | (None, Some(only)) => of(only),
            (None, None) => Progress::default(),
        }
    }

    /// What it used and did between two instants.
    pub(super) fn between(self, from_ns: u64, to_ns: u64) -> Progress {
        let (from, to) = (self.at(from_ns), self.at(to_ns));
        Progress { cpu_ns: to.cpu_ns - from.cpu_ns, work: to.work - from.work }
    }

    /// When it stood still: its two points have the same CPU time.
    pub(super) fn gaps(self) -> impl Iterator<Item = Gap> {
        let pairs = self.0.windows(2).filter(|pair| pair[0].cpu_ns == pair[1].cpu_ns);
        pairs.map(|pair| Gap { start_ns: pair[0].at_ns, end_ns: pair[1].at_ns })
    }

    /// When its turns began: after gaps of which the others together had at least half. The rest of the host causes
    /// gaps too, and after those no turn begins.
    fn turns(self, others: &[Course<'_>]) -> Vec<Gap> {
        let used = |gap: &Gap| others.iter().map(|other| other.between(gap.start_ns, gap.end_ns).cpu_ns).sum::<f64>();
        self.gaps().filter(|gap| used(gap) >= (gap.end_ns - gap.start_ns) as f64 / 2.0).collect()
    }
}

/// The instants at which the lightest contender's turns began, but for the first; the window's edges where that leaves
/// fewer than two.
///
/// Up to the first turn the contenders are still paying for what they used while they were started, and the light one
/// pays longest: of 1024 : 2, the second turn comes 1.3 s after the first, and every later one after 2.05 s.
pub(super) fn instants(lightest: Course<'_>, others: &[Course<'_>], window: Window) -> Vec<u64> {
    let starts: Vec<u64> = lightest.turns(others).iter().skip(1).map(|gap| gap.end_ns).collect();
    if starts.len() < 2 { vec![window.start_ns, window.end_ns] } else { starts }
}

/// Each contender's part of the CPU time, and of the work, of all together: the slope of the least-squares line through
/// its states at the given instants over everybody's. With two instants that is what was used between them; with many,
/// a turn more or less at either end hardly counts. The parts add up to one.
pub(super) fn parts(courses: &[Course<'_>], instants: &[u64]) -> Vec<Progress> {
    let Some(begin_ns) = instants.first() else { return vec![Progress::default(); courses.len()] };
    let states: Vec<Vec<Progress>> = (courses.iter())
        .map(|course| instants.iter().map(|at_ns| course.between(*begin_ns, *at_ns)).collect())
        .collect();
    let column = |states: &[Progress], of: fn(&Progress) -> f64| states.iter().map(of).collect::<Vec<f64>>();
    let part = |of: fn(&Progress) -> f64| -> Vec<f64> {
        let columns: Vec<Vec<f64>> = states.iter().map(|states| column(states, of)).collect();
        let total: Vec<f64> = (0..instants.len()).map(|at| columns.iter().map(|column| column[at]).sum()).collect();
        columns.iter().map(|column| slope(&total, column)).collect()
    };
    let (cpu, work) = (part(|each| each.cpu_ns), part(|each| each.work));
    cpu.into_iter().zip(work).map(|(cpu_ns, work)| Progress { cpu_ns, work }).collect()
}

/// The slope of the least-squares line of `y` over `x`; 0 where `x` does not vary.
fn slope(x: &[f64], y: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let (x_mean, y_mean) = (mean(x), mean(y));
    let (mut xx, mut xy) = (0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        xx += (x - x_mean) * (x - x_mean);
        xy += (x - x_mean) * (y - y_mean);
    }
    if xx == 0.0 { 0.0 } else { xy / xx }
}

/// The longest time in which none of them ran, in ns. Where threads share a CPU that they want all the time, it was
/// somebody else's then, or stood still as a whole.
pub(super) fn longest_common_gap_ns(threads: &[Course<'_>]) -> u64 {
    let Some((first, others)) = threads.split_first() else { return 0 };
    let mut common: Vec<Gap> = first.gaps().collect();
    for other in others {
        let gaps: Vec<Gap> = other.gaps().collect();
        common = overlaps(&common, &gaps);
    }
    common.iter().map(|gap| gap.end_ns - gap.start_ns).max().unwrap_or(0)
}

/// Where gaps of both lists overlap; each list is in order.
fn overlaps(a: &[Gap], b: &[Gap]) -> Vec<Gap> {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    let mut both = Vec::new();
    while let (Some(left), Some(right)) = (a.peek(), b.peek()) {
        let (start_ns, end_ns) = (left.start_ns.max(right.start_ns), left.end_ns.min(right.end_ns));
        if start_ns < end_ns {
            both.push(Gap { start_ns, end_ns });
        }
        if left.end_ns < right.end_ns {
            a.next();
        } else {
            b.next();
        }
    }
    both
}

/// How long a contender runs once it has its turn: the median, in ns of CPU time.
pub(super) fn usual_turn(contender: Course<'_>, others: &[Course<'_>]) -> Option<f64> {
    let turns = contender.turns(others);
    let mut lengths: Vec<f64> =
        turns.windows(2).map(|pair| contender.between(pair[0].end_ns, pair[1].start_ns).cpu_ns).collect();
    lengths.sort_by(f64::total_cmp);
    lengths.get(lengths.len() / 2).copied()
}

/// The longest part of the window that holds whole periods of a quota, from a refill to a refill; the whole window
/// where no two refills show, because the quota held nobody back.
///
/// A throttled thread resumes when its period ends, so refills show as the ends of gaps that lie on a grid of the
/// period. The grid's phase is the one that explains most of the time that was stood still.
pub(super) fn whole_periods(threads: &[Course<'_>], period_ns: u64, window: Window) -> Window {
    let gaps: Vec<Gap> = threads.iter().flat_map(|thread| thread.gaps()).collect();
    let near = |gap: &Gap, phase: &Gap| {
        let apart = gap.end_ns.abs_diff(phase.end_ns) % period_ns.max(1);
        apart.min(period_ns - apart) <= NEAR_NS.min(period_ns / 8)
    };
    let explained =
        |phase: &&Gap| -> u64 { gaps.iter().filter(|gap| near(gap, phase)).map(|gap| gap.end_ns - gap.start_ns).sum() };
    let Some(phase) = gaps.iter().max_by_key(explained) else { return window };
    let refills = || gaps.iter().filter(|gap| near(gap, phase)).map(|gap| gap.end_ns);
    match (refills().min(), refills().max()) {
        (Some(start_ns), Some(end_ns)) if end_ns - start_ns > period_ns / 2 => Window { start_ns, end_ns },
        _ => window,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A thread that runs in the given spans of ms, and does a unit of work a ms.
    fn course(spans: &[(u64, u64)]) -> Vec<Point> {
        let (mut points, mut cpu) = (Vec::new(), 0);
        for (from, to) in spans {
            points.push(Point { at_ns: from * MS, cpu_ns: cpu * MS, work: cpu });
            cpu += to - from;
            points.push(Point { at_ns: to * MS, cpu_ns: cpu * MS, work: cpu });
        }
        points
    }

    fn window(start: u64, end: u64) -> Window {
        Window { start_ns: start * MS, end_ns: end * MS }
    }

    #[test]
    fn progress_is_even_between_points_and_still_in_gaps() {
        let points = course(&[(10, 20), (30, 40)]);
        let course = Course(&points);
        assert_eq!(course.between(15 * MS, 35 * MS), Progress { cpu_ns: 10.0 * MS as f64, work: 10.0 });
        assert_eq!(course.between(21 * MS, 29 * MS), Progress::default());
        assert_eq!(course.between(0, 100 * MS).work, 20.0);
        assert_eq!(course.gaps().collect::<Vec<_>>(), [Gap { start_ns: 20 * MS, end_ns: 30 * MS }]);
        assert_eq!(Course(&[]).between(0, 5).work, 0.0);
    }

    #[test]
    fn a_split_at_the_beginnings_of_turns_is_exact_where_the_window_cuts_one() {
        // 2 : 1 in turns of 4 ms; the first turn is early, and the window ends in the middle of a turn of the light one.
        let heavy = course(&[(0, 2), (6, 14), (18, 26), (30, 38), (42, 50)]);
        let light = course(&[(2, 6), (14, 18), (26, 30), (38, 42), (50, 52)]);
        let (heavy, light) = (Course(&heavy), Course(&light));
        let instants = instants(light, &[heavy], window(0, 52));
        assert_eq!(instants, [26, 38, 50].map(|at| at * MS));
        let parts = parts(&[heavy, light], &instants);
        assert!(
            (parts[0].cpu_ns - 2.0 / 3.0).abs() < 1e-12 && (parts[1].cpu_ns - 1.0 / 3.0).abs() < 1e-12,
            "{parts:?}"
        );
        assert!((parts[0].work + parts[1].work - 1.0).abs() < 1e-12);
        assert_eq!(usual_turn(light, &[heavy]), Some(4.0 * MS as f64));
    }

    #[test]
    fn two_instants_give_what_was_used_between_them() {
        let (a, b) = (course(&[(0, 30)]), course(&[(30, 40)]));
        let parts = parts(&[Course(&a), Course(&b)], &[0, 40 * MS]);
        assert_eq!(parts.iter().map(|part| part.cpu_ns).collect::<Vec<_>>(), [0.75, 0.25]);
        assert_eq!(slope(&[1.0, 1.0], &[1.0, 2.0]), 0.0);
    }

    #[test]
    fn a_gap_that_the_host_caused_begins_no_turn() {
        let light = course(&[(0, 4), (12, 13), (15, 17), (25, 29)]);
        let heavy = course(&[(4, 12), (17, 25)]);
        let starts: Vec<u64> = Course(&light).turns(&[Course(&heavy)]).iter().map(|gap| gap.end_ns / MS).collect();
        assert_eq!(starts, [12, 25]);
        assert_eq!(instants(Course(&light), &[], window(0, 30)), [0, 30 * MS]);
    }

    #[test]
    fn a_quota_is_measured_from_refill_to_refill() {
        // 4 ms of each 10, refilled at 3, 13, 23, …; at 15 the host takes the CPU for a ms.
        let thread = course(&[(0, 2), (3, 7), (13, 15), (16, 18), (23, 27), (33, 37), (43, 45)]);
        let whole = whole_periods(&[Course(&thread)], 10 * MS, window(0, 45));
        assert_eq!(whole, window(3, 43));
        assert_eq!(Course(&thread).between(whole.start_ns, whole.end_ns).cpu_ns, 16.0 * MS as f64);
    }

    #[test]
    fn time_in_which_nobody_ran_is_found() {
        let (a, b) = (course(&[(0, 4), (8, 12), (40, 44)]), course(&[(4, 8), (12, 15), (37, 40)]));
        assert_eq!(longest_common_gap_ns(&[Course(&a), Course(&b)]), 22 * MS);
        assert_eq!(longest_common_gap_ns(&[Course(&a)]), 28 * MS);
        let (c, d) = (course(&[(0, 4), (8, 12)]), course(&[(4, 8), (12, 16)]));
        assert_eq!(longest_common_gap_ns(&[Course(&c), Course(&d)]), 0);
        assert_eq!(longest_common_gap_ns(&[]), 0);
    }

    #[test]
    fn without_throttling_the_whole_window_counts() {
        assert_eq!(whole_periods(&[Course(&course(&[(0, 50)]))], 10 * MS, window(0, 50)), window(0, 50));
        let once = course(&[(0, 20), (23, 50)]);
        assert_eq!(whole_periods(&[Course(&once)], 10 * MS, window(0, 50)), window(0, 50));
    }
}
