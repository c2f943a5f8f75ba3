//! Whether a container that was kept from the CPU can be the reason for an error. Pure functions of what was seen.
//!
//! A throttle gives a budget and waits; a program that does not run does not use it. What is lost is at most the rate
//! times the time in which no request waited, and what was left of the slice that ended meanwhile. The workload tells how
//! long its threads could have run and did not. So an error above the tolerance is put down to that only if the time
//! lost is more than the tolerance, and enough for that error: half a limit is found on a busy machine too.

use crate::experiment::EnforcementObservation;
use crate::record::enforcement::signed_error_pct;
use crate::scenario::blkio::SLICE;

/// The settings whose error `wait_ns` without a CPU in a window of `window_ns` can explain. An account that must be
/// exact has nothing to do with time, and is never among them.
pub(super) fn starved(rows: &[EnforcementObservation], wait_ns: u64, window_ns: u64) -> Vec<String> {
    let part_pct = |ns: u64| 100.0 * ns as f64 / window_ns as f64;
    let explained_pct = part_pct(wait_ns + SLICE.as_nanos() as u64);
    let by_starvation = |row: &&EnforcementObservation| {
        let error_pct = signed_error_pct(row.achieved, row.requested).abs();
        let tolerance = row.tolerance_pct;
        tolerance > 0.0 && part_pct(wait_ns) > tolerance && error_pct > tolerance && error_pct < explained_pct
    };
    rows.iter().filter(by_starvation).map(|row| row.setting.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(setting: &str, achieved: f64, tolerance_pct: f64) -> EnforcementObservation {
        EnforcementObservation {
            controller: "blkio",
            setting: setting.to_owned(),
            unit: "bytes/s",
            iteration: 0,
            requested: 100.0,
            achieved,
            accounted: None,
            tolerance_pct,
            start_ns: 0,
        }
    }

    #[test]
    fn only_an_error_that_the_wait_explains_is_put_down_to_it() {
        const MS: u64 = 1_000_000;
        let found = |achieved, wait_ms| !starved(&[row("rate", achieved, 1.0)], wait_ms * MS, 500 * MS).is_empty();
        assert!(found(95.0, 30));
        assert!(!found(95.0, 4), "less than the tolerance");
        assert!(!found(99.5, 30), "no error");
        assert!(!found(50.0, 30), "half is not explained");
        assert!(starved(&[row("bytes", 95.0, 0.0)], 30 * MS, 500 * MS).is_empty());
    }
}
