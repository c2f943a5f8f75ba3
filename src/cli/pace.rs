//! How far a run is and how long it will still take: the scenario's estimate, corrected by what was seen.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::scenario::Scenario;

/// The pace of one run.
#[derive(Debug)]
pub(super) struct Pace {
    /// What each case is estimated to take in a block.
    estimates: BTreeMap<String, Duration>,
    /// What each case took when it was measured last.
    seen: BTreeMap<String, Duration>,
    /// How often each case is still to be measured.
    left: BTreeMap<String, u32>,
}

impl Pace {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let blocks = scenario.run.blocks + scenario.run.warmup_blocks;
        let each = |case: &crate::scenario::Case| (case.id.clone(), case.estimate());
        Self {
            estimates: scenario.cases.iter().map(each).collect(),
            seen: BTreeMap::new(),
            left: scenario.cases.iter().map(|case| (case.id.clone(), blocks)).collect(),
        }
    }

    /// A case will not be measured.
    pub(super) fn skipped(&mut self, case: &str) {
        self.left.remove(case);
    }

    /// A case was measured once.
    pub(super) fn measured(&mut self, case: &str, took: Duration) {
        self.seen.insert(case.to_owned(), took);
        if let Some(left) = self.left.get_mut(case) {
            *left = left.saturating_sub(1);
        }
    }

    /// Measurements that are still to come.
    pub(super) fn measurements_left(&self) -> u64 {
        self.left.values().map(|left| u64::from(*left)).sum()
    }

    /// How long they will take: each case as it was seen last, as estimated before it was seen.
    pub(super) fn time_left(&self) -> Duration {
        (self.left.iter())
            .map(|(case, left)| {
                let each = self.seen.get(case).or_else(|| self.estimates.get(case)).copied().unwrap_or_default();
                each * *left
            })
            .sum()
    }
}

/// A time left for people: `1 min 20 s`, `45 s`, rounded up, since a run never ends early.
pub(super) fn rough(left: Duration) -> String {
    let seconds = left.as_millis().div_ceil(1000);
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, 0) => format!("{minutes} min"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Options;

    #[test]
    fn what_was_seen_replaces_the_estimate() {
        let text = "[scenario]\nname = \"t\"\nquestion = \"?\"\n[run]\nblocks = 2\nwarmup_blocks = 1\n\
                    [[experiment]]\nkind = \"network\"\nnetwork = [\"host\", \"bridge\"]\ntest = \"tcp_rr\"\n";
        let scenario = Scenario::parse(text, "t.toml", &Options::default()).unwrap();
        let ids: Vec<&str> = scenario.cases.iter().map(|case| case.id.as_str()).collect();
        let mut pace = Pace::new(&scenario);
        assert_eq!(pace.measurements_left(), 6);
        let estimate = scenario.cases[0].estimate();
        assert_eq!(pace.time_left(), estimate * 6);
        pace.measured(ids[0], Duration::from_secs(2));
        assert_eq!(pace.time_left(), Duration::from_secs(4) + estimate * 3);
        pace.skipped(ids[1]);
        assert_eq!((pace.measurements_left(), pace.time_left()), (2, Duration::from_secs(4)));
    }

    #[test]
    fn times_left_are_rough() {
        for (left, text) in [(0, "0 s"), (1, "1 s"), (45_000, "45 s"), (59_001, "1 min"), (80_000, "1 min 20 s")] {
            assert_eq!(rough(Duration::from_millis(left)), text);
        }
    }
}
