//! The gate: what must hold, whether it does, and the exit code that tells a script.
//!
//! Functions of `record`'s summary; `cli` calls them after a run, `report` shows their rows.

pub mod checks;
pub mod enforcement;

use crate::record::{CheckRow, Verdict};

/// How a whole run came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No check failed, and none was inconclusive.
    Pass,
    /// At least one check failed.
    Fail,
    /// No check failed, but the data cannot tell for at least one.
    Inconclusive,
}

impl Outcome {
    /// The outcome of all checks together. Skipped ones do not count: their reasons stand in the report.
    #[must_use]
    pub fn of(checks: &[CheckRow]) -> Self {
        let any = |verdict| checks.iter().any(|check| check.verdict == verdict);
        if any(Verdict::Fail) {
            Outcome::Fail
        } else if any(Verdict::Inconclusive) {
            Outcome::Inconclusive
        } else {
            Outcome::Pass
        }
    }

    /// The process's exit code: 0 pass, 1 fail, 3 inconclusive (2 is for usage and environment errors).
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Pass => 0,
            Outcome::Fail => 1,
            Outcome::Inconclusive => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(verdicts: &[Verdict]) -> (Outcome, u8) {
        let row = |verdict: &Verdict| CheckRow {
            check: String::new(),
            case: String::new(),
            metric: String::new(),
            value: None,
            bound: String::new(),
            verdict: *verdict,
        };
        let outcome = Outcome::of(&verdicts.iter().map(row).collect::<Vec<_>>());
        (outcome, outcome.exit_code())
    }

    #[test]
    fn a_failure_outweighs_doubt_and_doubt_outweighs_success() {
        use Verdict::{Fail, Inconclusive, Pass, Skipped};
        assert_eq!(outcome(&[]), (Outcome::Pass, 0));
        assert_eq!(outcome(&[Pass, Skipped]), (Outcome::Pass, 0));
        assert_eq!(outcome(&[Pass, Inconclusive, Skipped]), (Outcome::Inconclusive, 3));
        assert_eq!(outcome(&[Inconclusive, Fail, Pass]), (Outcome::Fail, 1));
    }
}
