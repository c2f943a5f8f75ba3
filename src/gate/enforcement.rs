//! Enforcement as checks: every setting that a case measured must hold within its stated tolerance.
//!
//! A scenario need not ask for it; `enforce = false` in an `[[experiment]]` leaves its cases out. The verdicts are
//! `record`'s (the whole interval of the error within the tolerance, outside it, or neither), and count for the
//! outcome like those of any other check.

use crate::record::{CheckRow, EnforcementRow};

/// The name of these checks in `checks.csv`.
pub const CHECK: &str = "enforcement";

/// What the bound of a setting says beside its tolerance when the container did not get the CPU time to try it.
const STARVED: &str = " (kept from the CPU)";

/// One check a setting, in the order of the rows. `unenforced` are the ids of the cases that are left out.
#[must_use]
pub fn evaluate(rows: &[EnforcementRow], unenforced: &[String]) -> Vec<CheckRow> {
    let check = |row: &EnforcementRow| CheckRow {
        check: CHECK.to_owned(),
        case: row.case.clone(),
        metric: format!("{} {}", row.controller, row.setting),
        value: Some(row.error_pct),
        bound: format!("within {} %{}", row.tolerance_pct, if row.flags.starved { STARVED } else { "" }),
        verdict: row.verdict,
    };
    rows.iter().filter(|row| !unenforced.contains(&row.case)).map(check).collect()
}

/// Whether a check is one of these, and not one that a scenario wrote down.
#[must_use]
pub fn is_one(check: &CheckRow) -> bool {
    check.check == CHECK
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::Outcome;
    use crate::record::{Flags, Verdict};

    fn row(case: &str, verdict: Verdict) -> EnforcementRow {
        EnforcementRow {
            case: case.to_owned(),
            controller: "cpu".to_owned(),
            setting: "quota".to_owned(),
            requested: 0.5,
            achieved: 0.25,
            accounted: None,
            unit: "ratio".to_owned(),
            error_pct: -50.0,
            error_ci95_low: -50.0,
            error_ci95_high: -50.0,
            accounting_error_pct: None,
            tolerance_pct: 2.0,
            verdict,
            flags: Flags::default(),
        }
    }

    #[test]
    fn every_setting_counts_unless_its_case_is_left_out() {
        let rows = [row("a", Verdict::Pass), row("b", Verdict::Fail)];
        let checks = evaluate(&rows, &[]);
        assert_eq!(Outcome::of(&checks), Outcome::Fail);
        let told = (checks[1].metric.as_str(), checks[1].value, checks[1].bound.as_str());
        assert_eq!(told, ("cpu quota", Some(-50.0), "within 2 %"));
        assert!(checks.iter().all(is_one));
        assert_eq!(Outcome::of(&evaluate(&rows, &["b".to_owned()])), Outcome::Pass);
        assert_eq!(Outcome::of(&evaluate(&[row("a", Verdict::Inconclusive)], &[])), Outcome::Inconclusive);
    }
}
