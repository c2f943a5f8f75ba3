//! When how many requests were done, and the rates that follow. Pure functions of what the workload printed.
//!
//! # The window
//!
//! The kernel's throttle gives a group its budget a slice at a time (100 ms; 20 ms for SSDs on some older kernels): a
//! burst as fast as the device goes, then a wait for the next slice. So the count over time is a staircase, and three
//! things would be an error of the window and not of the kernel's:
//!
//! - the first slice, which is whole even if it has just begun, and with it a second burst at once: the warm-up is
//!   left out;
//! - a window that is not whole slices long: it would see one burst more or less. Ours is;
//! - an edge inside a burst: it would see a part of one. The count is therefore taken at every phase of a slice, in
//!   steps of 1 ms, and the median of them counts: the same at every phase where the bursts are short, and the mean
//!   rate where the requests come evenly.
//!
//! What is left is one request more or less, which the scenario keeps below half a percent.

use crate::scenario::blkio::SLICE;
use crate::workload::block::BIN_NS;

/// Bins in a slice.
const SLICE_BINS: u64 = SLICE.as_nanos() as u64 / BIN_NS;

/// How near to the new rate a slice must be after a change, as a part of it: one request of fifty, and the unevenness
/// of slices whose budget is not whole requests.
const SETTLED_WITHIN: f64 = 0.1;

/// For how many slices in a row the new rate must hold.
const SETTLED_FOR: u64 = 3;

/// Requests done since a start.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Timeline {
    start_ns: u64,
    /// How many were done before each bin.
    before: Vec<u64>,
}

impl Timeline {
    /// From the workload's bins, which count from `start_ns`; nothing was done later than the last.
    pub(super) fn new(start_ns: u64, done: &[(u32, u32)]) -> Self {
        let bins = done.last().map_or(0, |(bin, _)| *bin as usize + 1);
        let mut before = vec![0; bins + 1];
        for &(bin, count) in done {
            before[bin as usize + 1] += u64::from(count);
        }
        for bin in 1..before.len() {
            before[bin] += before[bin - 1];
        }
        Self { start_ns, before }
    }

    fn until(&self, bin: u64) -> u64 {
        let last = self.before.len() - 1;
        self.before[usize::try_from(bin).unwrap_or(last).min(last)]
    }

    /// Requests in so many bins from one on.
    pub(super) fn between(&self, from: u64, bins: u64) -> u64 {
        self.until(from + bins) - self.until(from)
    }

    fn bin_of(&self, at_ns: u64) -> u64 {
        at_ns.saturating_sub(self.start_ns).div_ceil(BIN_NS)
    }

    /// Requests in a window of `length_ns` that opens at `from_ns`, or up to a slice later.
    pub(super) fn count(&self, from_ns: u64, length_ns: u64) -> f64 {
        let (from, bins) = (self.bin_of(from_ns), length_ns / BIN_NS);
        let mut counts: Vec<u64> = (0..SLICE_BINS).map(|phase| self.between(from + phase, bins)).collect();
        counts.sort_unstable();
        let middle = counts.len() / 2;
        (counts[middle - 1] + counts[middle]) as f64 / 2.0
    }

    /// Requests a second in such a window.
    pub(super) fn rate(&self, from_ns: u64, length_ns: u64) -> f64 {
        self.count(from_ns, length_ns) * 1e9 / length_ns as f64
    }

    /// How long after `change_ns` the rate (requests a second) began to hold for [`SETTLED_FOR`] slices; all of the
    /// time up to `end_ns` where it never did.
    ///
    /// The resolution is a slice's: a rate cannot be told in less time than its budget comes in.
    pub(super) fn settled_after(&self, change_ns: u64, rate: f64, end_ns: u64) -> u64 {
        let wanted = rate * SLICE.as_secs_f64();
        // A slice whose budget is not whole requests has one more or one less.
        let slack = (wanted * SETTLED_WITHIN).max(1.0);
        let holds = |from: u64| {
            (0..SETTLED_FOR).all(|slice| {
                let seen = self.between(from + slice * SLICE_BINS, SLICE_BINS) as f64;
                (seen - wanted).abs() <= slack
            })
        };
        let (change, end) = (self.bin_of(change_ns), self.bin_of(end_ns));
        let settled = (change..end.saturating_sub(SETTLED_FOR * SLICE_BINS)).find(|&from| holds(from));
        settled.map_or(end_ns - change_ns, |bin| (bin - change) * BIN_NS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `per_slice` requests at the beginning of each slice of 100 ms, in a burst of one request each ms.
    fn staircase(slices: u32, per_slice: u32, phase: u32) -> Vec<(u32, u32)> {
        (0..slices).flat_map(|slice| (0..per_slice).map(move |index| (slice * 100 + phase + index, 1))).collect()
    }

    #[test]
    fn a_staircase_is_counted_without_an_error_of_the_edges() {
        for phase in [0, 13, 50, 99] {
            let timeline = Timeline::new(1_000, &staircase(30, 10, phase));
            assert_eq!(timeline.rate(1_000 + 300_000_000, 2_000_000_000), 100.0, "{phase}");
        }
    }

    #[test]
    fn what_is_even_is_counted_evenly() {
        let even: Vec<(u32, u32)> = (0..3000).map(|bin| (bin, 3)).collect();
        assert_eq!(Timeline::new(0, &even).rate(300_000_000, 2_000_000_000), 3000.0);
        assert_eq!(Timeline::new(0, &[]).rate(300_000_000, 2_000_000_000), 0.0);
    }

    #[test]
    fn the_new_rate_is_seen_when_it_begins_to_hold() {
        let mut done = staircase(10, 20, 0);
        // Nothing for two slices, then the new rate of 5 a slice.
        done.extend(staircase(20, 5, 0).into_iter().map(|(bin, count)| (bin + 1200, count)));
        let timeline = Timeline::new(0, &done);
        // A window of a slice holds the new rate once it reaches over its whole burst.
        let settled = timeline.settled_after(1_000_000_000, 50.0, 2_500_000_000);
        assert!((100_000_000..=205_000_000).contains(&settled), "{settled}");
        assert_eq!(timeline.settled_after(1_000_000_000, 200.0, 2_500_000_000), 1_500_000_000, "it never held");
    }

    proptest! {
        #[test]
        fn bins_add_up(bins in proptest::collection::btree_map(0..500u32, 1..9u32, 0..50)) {
            let done: Vec<(u32, u32)> = bins.into_iter().collect();
            let timeline = Timeline::new(0, &done);
            let all: u32 = done.iter().map(|(_, count)| count).sum();
            prop_assert_eq!(timeline.between(0, 1000), u64::from(all));
            prop_assert_eq!(timeline.between(0, 250) + timeline.between(250, 250), u64::from(all));
        }
    }
}
