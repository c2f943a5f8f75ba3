//! What a noisy neighbour takes and what each limit on it gives back, in words.

use crate::record::RunRecord;
use crate::record::summary::SummaryRow;

use super::figure::{self, Ratio};

/// The experiment's kind.
pub(super) const KIND: &str = "interference";
/// What the answer is about.
const METRIC: &str = "victim_rate";

/// One sentence a case that has a neighbour.
pub(super) fn sentences(run: &RunRecord, summary: &[SummaryRow]) -> Vec<String> {
    let rows: Vec<(&SummaryRow, Ratio)> = (summary.iter())
        .filter(|row| row.experiment == KIND && row.metric == METRIC)
        .filter_map(|row| Some((row, Ratio::of(row)?)))
        .collect();
    let parameter = |row: &SummaryRow, key: &str| {
        let case = run.cases.iter().find(|case| case.id == row.case);
        case.and_then(|case| case.parameters.get(key).cloned()).unwrap_or_default()
    };
    let unlimited = |neighbour: &str| {
        let is_it = |row: &SummaryRow| parameter(row, "neighbour") == neighbour && parameter(row, "limit") == "none";
        rows.iter().find(|(row, _)| is_it(row)).map(|(_, ratio)| *ratio)
    };
    rows.iter()
        .map(|(row, ratio)| {
            let (neighbour, limit) = (parameter(row, "neighbour"), parameter(row, "limit"));
            let evidence = match ratio.ci {
                Some((low, high)) => format!("95 % interval {} to {}", figure::share(low), figure::share(high)),
                None => "too few blocks for an interval".to_owned(),
            };
            let kept = format!("the container keeps {} of its rate ({evidence})", figure::share(ratio.at));
            if limit == "none" {
                return format!("beside a {neighbour} neighbour without limits {kept}");
            }
            let back = unlimited(&neighbour).map_or_else(String::new, |without| given_back(*ratio, without));
            format!("with {} {kept}{back}", phrase(&neighbour, &limit))
        })
        .collect()
}

/// What a limit gives back of what the neighbour takes without it; nothing is said where it takes nothing.
fn given_back(limited: Ratio, without: Ratio) -> String {
    let loses = without.ci.map_or(without.at < 1.0, |(_, high)| high < 1.0);
    if !loses {
        return String::new();
    }
    let part = (limited.at - without.at) / (1.0 - without.at);
    match part {
        part if part >= 0.995 => ": the limit gives back all that was lost".to_owned(),
        part if part <= 0.005 => ": the limit gives nothing back".to_owned(),
        part => format!(": the limit gives back {} of what was lost", figure::share(part)),
    }
}

fn phrase(neighbour: &str, limit: &str) -> String {
    let on = match limit {
        "shares" => "few CPU shares",
        "quota" => "a CPU quota",
        "cpuset" => "another CPU",
        "memory" => "a memory limit",
        "throttle" => "an I/O throttle",
        "weight" => "a small I/O weight",
        other => return format!("{other} on the {neighbour} neighbour"),
    };
    format!("{on} for the {neighbour} neighbour")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn what_a_limit_gives_back_is_a_part_of_what_was_lost() {
        let ratio = |at: f64| Ratio { at, ci: Some((at - 0.01, at + 0.01)) };
        assert_eq!(given_back(ratio(0.95), ratio(0.5)), ": the limit gives back 90 % of what was lost");
        assert_eq!(given_back(ratio(1.0), ratio(0.5)), ": the limit gives back all that was lost");
        assert_eq!(given_back(ratio(0.4), ratio(0.5)), ": the limit gives nothing back");
        assert_eq!(given_back(ratio(1.0), ratio(0.995)), "");
    }

    #[test]
    fn each_neighbour_has_its_sentences() {
        let case = |limit: &str| {
            let mut case = fixture::case(&format!("interference/builtin/cpu/{limit}"), None);
            case.network = String::new();
            case.parameters =
                [("neighbour", "cpu"), ("limit", limit)].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
            case.baseline = (limit != "alone").then(|| "interference/builtin/cpu/alone".to_owned());
            case
        };
        let run = fixture::run_of(["alone", "none", "quota"].map(case).to_vec(), 1, 1);
        let row = |limit: &str, at: f64| SummaryRow {
            case: format!("interference/builtin/cpu/{limit}"),
            experiment: KIND.to_owned(),
            metric: METRIC.to_owned(),
            ratio_to: Some("interference/builtin/cpu/alone".to_owned()),
            ratio: Some(at),
            ratio_ci95_low: Some(at - 0.01),
            ratio_ci95_high: Some(at + 0.01),
            ..fixture::summary(&fixture::run()).remove(0)
        };
        let told = sentences(&run, &[row("none", 0.5), row("quota", 0.95)]);
        assert_eq!(
            told,
            [
                "beside a cpu neighbour without limits the container keeps 50 % of its rate (95 % interval 49 % to 51 %)",
                "with a CPU quota for the cpu neighbour the container keeps 95 % of its rate (95 % interval 94 % to 96 %): \
                 the limit gives back 90 % of what was lost"
            ]
        );
    }
}
