//! Names for people: cases without what they have in common, metrics, experiments, and which cases belong together.
//!
//! Everything in the report that names a case goes through here, so that a case has one name on one page.

use crate::record::CaseRecord;
use crate::record::metric::{self, Better, METRICS};
use crate::record::summary::SummaryRow;

/// The name of one series (a runtime with a network mode) and the rest of the case's id, by which charts are split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place<'a> {
    /// `(runtime, network)`.
    pub series: (&'a str, &'a str),
    /// What remains of the id, joined by spaces: `c1`, `egress tcp_stream`; empty when nothing does.
    pub facet: String,
}

/// Takes a case's id apart. Ids that do not begin with experiment, runtime and network still give a facet.
pub(super) fn place(case: &CaseRecord) -> Place<'_> {
    let mut rest: Vec<&str> = case.id.split('/').collect();
    for known in [&case.experiment, &case.runtime, &case.network] {
        if let Some(index) = rest.iter().position(|part| !known.is_empty() && part == known) {
            rest.remove(index);
        }
    }
    Place { series: (&case.runtime, &case.network), facet: rest.join(" ") }
}

/// Shortens names made of words: words that all of them share at the same place are dropped.
///
/// `["egress tcp_rr", "ingress tcp_rr"]` become `["egress", "ingress"]`; a single name is kept whole.
pub(super) fn without_common(names: &[String]) -> Vec<String> {
    let split: Vec<Vec<&str>> = names.iter().map(|name| name.split(' ').collect()).collect();
    let width = split.first().map_or(0, Vec::len);
    let distinct = names.iter().any(|name| *name != names[0]);
    if !distinct || split.iter().any(|words| words.len() != width) {
        return names.to_vec();
    }
    let differs: Vec<bool> =
        (0..width).map(|column| split.iter().any(|words| words[column] != split[0][column])).collect();
    let keep = |words: &Vec<&str>| {
        words.iter().zip(&differs).filter(|(_, differs)| **differs).map(|(word, _)| *word).collect::<Vec<_>>().join(" ")
    };
    split.iter().map(keep).collect()
}

/// Names for case ids as one group shows them: the shared parts of the ids dropped, the rest joined by spaces.
pub(super) fn short_ids(ids: &[&str]) -> Vec<String> {
    let names: Vec<String> = ids.iter().map(|id| id.replace('/', " ")).collect();
    if names.iter().all(|name| *name == names[0]) {
        return ids.iter().map(|id| id.split('/').skip(1).collect::<Vec<_>>().join(" ")).collect();
    }
    without_common(&names)
}

/// An experiment as a heading.
pub(super) fn experiment(kind: &str) -> String {
    match kind {
        "startup" => "Start-up".to_owned(),
        other => capitalised(other),
    }
}

/// What a metric is called in titles: a few words, with the metric's name in files kept recognisable.
pub(super) fn metric_title(name: &str) -> String {
    match name {
        "ready" => "Time to ready",
        "exit" => "Time to exit",
        "teardown" => "Teardown time",
        "start_rate" => "Starts a second",
        "throughput" => "Throughput",
        "rtt" => "Round-trip time",
        "connects" => "Connections a second",
        "messages" => "Messages a second",
        "loss" => "Loss",
        "cpu_per_byte" => "CPU time a byte",
        "cpu_per_message" => "CPU time a message",
        "retransmits" => "Retransmits",
        "victim_rate" => "Work of the measured container",
        "victim_rtt" => "Round-trip time of the measured container",
        other => return capitalised(&other.replace('_', " ")),
    }
    .to_owned()
}

/// Upper case for the first letter.
pub(super) fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Lower case for the first letter, where it does not begin an abbreviation.
pub(super) fn lowered(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

/// The metrics that occur in the rows, in the order of the metric list; unknown ones last, as they appear.
pub(super) fn metrics<'a>(rows: impl IntoIterator<Item = &'a SummaryRow>) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if !names.contains(&row.metric.as_str()) {
            names.push(&row.metric);
        }
    }
    names.sort_by_key(|name| METRICS.iter().position(|known| known.name == *name).unwrap_or(METRICS.len()));
    names
}

/// The experiments that occur in the cases, in their order.
pub(super) fn experiments(cases: &[CaseRecord]) -> Vec<&str> {
    let mut kinds: Vec<&str> = Vec::new();
    for case in cases {
        if !kinds.contains(&case.experiment.as_str()) {
            kinds.push(&case.experiment);
        }
    }
    kinds
}

/// Which way is better, by the row itself; `None` for a metric that the run's writer did not know.
pub(super) fn better(row: &SummaryRow) -> Option<Better> {
    [Better::Lower, Better::Higher].into_iter().find(|better| better.as_str() == row.better)
}

/// What a metric means, where this version knows it.
pub(super) fn meaning(name: &str) -> Option<&'static str> {
    metric::find(name).map(|metric| metric.meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn shared_words_are_dropped() {
        assert_eq!(without_common(&names(&["egress tcp_rr", "ingress tcp_rr"])), ["egress", "ingress"]);
        assert_eq!(without_common(&names(&["egress", "egress"])), ["egress", "egress"]);
        assert_eq!(without_common(&names(&["a b", "a"])), ["a b", "a"]);
        assert_eq!(without_common(&[]), Vec::<String>::new());
    }

    #[test]
    fn abbreviations_stay_large() {
        assert_eq!(
            (lowered("CPU time"), lowered("Time to exit"), lowered("")),
            ("CPU time".into(), "time to exit".into(), "".into())
        );
        assert_eq!(capitalised("élan"), "Élan");
    }

    #[test]
    fn a_single_case_keeps_its_name() {
        assert_eq!(short_ids(&["startup/builtin/host/c1"]), ["builtin host c1"]);
        assert_eq!(short_ids(&["startup/floor/none/c1", "startup/builtin/host/c1"]), ["floor none", "builtin host"]);
    }
}
