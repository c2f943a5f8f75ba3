//! The cpu controller (weight, quota, throttling) and the CPU time that is counted: cpuacct on v1, `cpu.stat` on v2.
//!
//! # Shares and weights
//!
//! v1 has shares (2 to 262144, 1024 by default), v2 has weights (1 to 10000, 100 by default). [`weight`] keeps the
//! proportion, 1024 shares to 100, which is the kernel's own (`sched_weight_to_cgroup` in `kernel/sched/sched.h`
//! turns one into the other so). Other runtimes do not: runc and crun long used `1 + (shares − 2) × 9999 ÷ 262142`,
//! which makes 39 of the default 1024 while a group without shares stays at 100; since 2025 they use
//! `10 ^ ((log² + 125 log) ÷ 612 − 7 ÷ 34)` of the binary logarithm, which meets 1024 and 100, but makes 1.74 : 1 of
//! 2048 : 1024. Here shares are a ratio between siblings, with or without a value of their own, and a ratio is what
//! is measured. The price: below 10 and above 102400 shares the weight is at its bound, see [`weight`].

use std::time::Duration;

use cgroups_rs::cpu::CpuController;

use super::limits::Applied;
use super::setting::Setting;
use super::{CgroupError, Controller, Hierarchy, Place, keyed, read, read_keyed, read_number};

/// The file of the relative weight on v1.
pub const SHARES: &str = "cpu.shares";
/// The file of the quota on v1.
pub const QUOTA: &str = "cpu.cfs_quota_us";
/// The file of the period that the quota counts for on v1.
pub const PERIOD: &str = "cpu.cfs_period_us";
/// The file of the relative weight on v2.
pub const WEIGHT: &str = "cpu.weight";
/// The file of quota and period on v2.
pub const MAX: &str = "cpu.max";

const STAT: &str = "cpu.stat";

/// What `cpu.cfs_quota_us` says where there is no limit.
const NO_QUOTA: i64 = -1;

/// CPU time that a group may use in each period, summed over all CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The CPU time; whole microseconds, at least 1 ms. [`Duration::MAX`]: as much as there is.
    pub quota: Duration,
    /// The period; 1 ms to 1 s.
    pub period: Duration,
}

impl Quota {
    /// No limit: takes back what an earlier quota said. The period is the kernel's default.
    pub const UNLIMITED: Self = Self { quota: Duration::MAX, period: Duration::from_millis(100) };

    /// Whether it holds nobody back.
    #[must_use]
    pub fn is_unlimited(self) -> bool {
        self.quota == Duration::MAX
    }
}

/// How the quota has held a group back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods in which the group had something to run.
    pub periods: u64,
    /// Those in which it used its quota up.
    pub throttled_periods: u64,
    /// How long its run queues stood still, in ns, summed over CPUs.
    pub throttled_ns: u64,
}

/// The v2 weight for v1 shares: `shares × 100 ÷ 1024`, rounded, within 1 to 10000. Exact to half a weight from 10 to
/// 102400 shares; beyond them the bound, so 1024 : 2 becomes 100 : 1.
#[must_use]
pub fn weight(shares: u64) -> u64 {
    (shares.saturating_mul(100).saturating_add(512) / 1024).clamp(1, 10_000)
}

/// The v1 shares for a v2 weight; [`weight`] of the result is the weight again.
#[must_use]
pub fn shares(weight: u64) -> u64 {
    (weight.saturating_mul(1024).saturating_add(50) / 100).clamp(2, 262_144)
}

fn setting<'a>(place: &'a Place, file: &'static str) -> Setting<'a> {
    Setting { controller: Controller::Cpu, file, path: &place.path }
}

/// Writes the weight, given as shares.
///
/// # Errors
/// When the kernel keeps another value.
pub(super) fn apply_shares(place: &Place, requested: u64) -> Result<Applied, CgroupError> {
    let v2 = place.hierarchy == Hierarchy::V2;
    // cgroups-rs writes the same number to `cpu.shares` and to `cpu.weight`, so it is converted before.
    let (file, value) = if v2 { (WEIGHT, weight(requested)) } else { (SHARES, requested) };
    let set = CpuController::new(place.path.clone(), v2).set_shares(value);
    setting(place, file).after(value.to_string(), set, |kept| kept == value.to_string())
}

/// Writes quota and period: one row of read back values a file.
///
/// # Errors
/// EINVAL when a value is out of the kernel's range or beyond the parent's.
pub(super) fn apply_quota(place: &Place, quota: Quota) -> Result<Vec<Applied>, CgroupError> {
    let period_us = quota.period.as_micros() as u64;
    let controller = CpuController::new(place.path.clone(), place.hierarchy == Hierarchy::V2);
    match place.hierarchy {
        Hierarchy::V1 => {
            let row = |file, value: String, set| setting(place, file).after(value.clone(), set, |kept| kept == value);
            let quota_us = if quota.is_unlimited() { NO_QUOTA } else { quota.quota.as_micros() as i64 };
            let period = row(PERIOD, period_us.to_string(), controller.set_cfs_period(period_us))?;
            let quota = row(QUOTA, quota_us.to_string(), controller.set_cfs_quota(quota_us))?;
            Ok(vec![quota, period])
        }
        Hierarchy::V2 => {
            let line = if quota.is_unlimited() {
                format!("max {period_us}")
            } else {
                format!("{} {period_us}", quota.quota.as_micros())
            };
            Ok(vec![setting(place, MAX).write(line.clone(), &line, |kept| kept == line)?])
        }
    }
}

/// CPU time charged so far, in ns; `place` is the group's for cpuacct. v2 counts in µs.
///
/// # Errors
/// When the file cannot be read.
pub fn usage_ns(place: &Place) -> Result<u64, CgroupError> {
    match place.hierarchy {
        Hierarchy::V1 => read_number(&place.path, "cpuacct.usage"),
        Hierarchy::V2 => {
            let text = read(&place.path, STAT)?;
            Ok(read_keyed(&place.path, STAT, &text, "usage_usec")?.saturating_mul(1000))
        }
    }
}

/// What the quota has done so far.
///
/// # Errors
/// When the file cannot be read or understood.
pub fn throttling(place: &Place) -> Result<Throttling, CgroupError> {
    let text = read(&place.path, STAT)?;
    parse_throttling(&text)
        .ok_or_else(|| CgroupError::Content { path: place.path.join(STAT), content: text.replace('\n', ", ") })
}

/// `cpu.stat` has the same keys on v1 and v2, but for the unit of the time.
fn parse_throttling(text: &str) -> Option<Throttling> {
    let v1 = keyed(text, "throttled_time");
    Some(Throttling {
        periods: keyed(text, "nr_periods")?,
        throttled_periods: keyed(text, "nr_throttled")?,
        throttled_ns: v1.or_else(|| Some(keyed(text, "throttled_usec")?.saturating_mul(1000)))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_and_the_bounds_meet() {
        assert_eq!((weight(1024), shares(100)), (100, 1024));
        assert_eq!((weight(2), weight(262_144)), (1, 10_000));
        assert_eq!((shares(1), shares(10_000)), (10, 102_400));
        assert_eq!((weight(0), weight(u64::MAX)), (1, 10_000));
    }

    #[test]
    fn every_weight_comes_back_from_its_shares() {
        for each in 1..=10_000 {
            assert_eq!(weight(shares(each)), each);
        }
    }

    #[test]
    fn a_ratio_of_shares_stays_one_where_other_formulas_bend_it() {
        let linear = |shares: u64| 1 + (shares - 2) * 9999 / 262_142;
        let quadratic = |shares: u64| {
            let log = (shares as f64).log2();
            10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as u64
        };
        let ratio = |of: &dyn Fn(u64) -> u64| of(2048) as f64 / of(1024) as f64;
        assert_eq!(ratio(&weight), 2.0);
        assert_eq!((linear(1024), linear(2048)), (39, 79));
        assert_eq!((quadratic(2), quadratic(1024), quadratic(262_144)), (1, 100, 10_000));
        assert!(ratio(&quadratic) < 1.75);
        // Against a sibling without shares, which has 1024 or 100: 2 : 1 is asked for.
        assert_eq!(weight(2048) as f64 / 100.0, 2.0);
        assert!(linear(2048) < 100);
    }

    #[test]
    fn both_kinds_of_cpu_stat_are_read() {
        let v2 = "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 9\nnr_throttled 4\nthrottled_usec 12\n";
        let v1 = "nr_periods 9\nnr_throttled 4\nthrottled_time 12000\nwait_sum 3\n";
        let expected = Some(Throttling { periods: 9, throttled_periods: 4, throttled_ns: 12_000 });
        assert_eq!(parse_throttling(v2), expected);
        assert_eq!(parse_throttling(v1), expected);
        // A v2 group without the controller counts only time.
        assert_eq!(parse_throttling("usage_usec 5\nuser_usec 3\nsystem_usec 2\n"), None);
    }
}
