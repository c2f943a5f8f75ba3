//! The answer in plain words: one sentence a comparison, made from the summary rows and nothing else.

use crate::record::summary::SummaryRow;
use crate::record::{CaseRecord, RunRecord};

use super::figure::{self, Ratio};
use super::label::{self, place};
use super::{interference, limits};

/// Metrics that answer a question by themselves, in the order of telling; the tables hold all others.
const TOLD: &[&str] = &["exit", "start_rate", "throughput", "rtt", "connects", "messages", "cpu_per_byte"];
/// So many sentences a metric at most; the other comparisons are left to the tables.
const SENTENCES: usize = 6;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// By experiment, the sentences.
    pub parts: Vec<Part>,
}

/// What was found in one experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// The experiment's kind.
    pub experiment: String,
    /// Whole sentences, without the full stop.
    pub sentences: Vec<String>,
    /// How many more comparisons the tables hold.
    pub left_out: usize,
}

/// Answers the question as far as the data goes; no parts when nothing was measured.
pub(super) fn answer(run: &RunRecord, summary: &[SummaryRow]) -> Answer {
    let experiments = label::experiments(&run.cases);
    let mut parts: Vec<Part> =
        experiments.into_iter().filter_map(|experiment| part(run, summary, experiment)).collect();
    let (sentences, left_out) = limits::sentences(&run.enforcement);
    if !sentences.is_empty() {
        parts.insert(0, Part { experiment: limits::SECTION.to_owned(), sentences, left_out });
    }
    Answer { parts }
}

fn part(run: &RunRecord, summary: &[SummaryRow], experiment: &str) -> Option<Part> {
    if experiment == interference::KIND {
        let sentences = interference::sentences(run, summary);
        let part = Part { experiment: experiment.to_owned(), sentences, left_out: 0 };
        return (!part.sentences.is_empty()).then_some(part);
    }
    let rows: Vec<&SummaryRow> =
        summary.iter().filter(|row| row.experiment == experiment && row.p50.is_finite()).collect();
    let present = label::metrics(rows.iter().copied());
    let known: Vec<&str> = TOLD.iter().copied().filter(|metric| present.contains(metric)).collect();
    let told = if known.is_empty() { present } else { known };
    let mut part = Part { experiment: experiment.to_owned(), sentences: Vec::new(), left_out: 0 };
    for metric in told {
        let rows: Vec<&SummaryRow> = rows.iter().copied().filter(|row| row.metric == metric).collect();
        let teller = Teller { run, summary, metric, facets: facets(run, &rows) };
        if metric == "start_rate" {
            part.sentences.extend(teller.rates(&rows));
        } else {
            part.left_out += teller.compare(&rows, &mut part.sentences);
        }
    }
    (!part.sentences.is_empty()).then_some(part)
}

fn case_of<'a>(run: &'a RunRecord, id: &str) -> Option<&'a CaseRecord> {
    run.cases.iter().find(|case| case.id == id)
}

/// The facets of a metric's cases, by case id, without what they share.
fn facets(run: &RunRecord, rows: &[&SummaryRow]) -> Vec<(String, String)> {
    let cases: Vec<&CaseRecord> = rows.iter().filter_map(|row| case_of(run, &row.case)).collect();
    let names: Vec<String> = cases.iter().map(|case| place(case).facet).collect();
    let differ = names.iter().any(|name| *name != names[0]);
    let names = if differ { label::without_common(&names) } else { vec![String::new(); names.len()] };
    cases.iter().zip(names).map(|(case, name)| (case.id.clone(), name)).collect()
}

/// Tells one metric.
struct Teller<'a> {
    run: &'a RunRecord,
    summary: &'a [SummaryRow],
    metric: &'a str,
    facets: Vec<(String, String)>,
}

impl Teller<'_> {
    /// Adds a sentence for each comparison, or for each case when nothing is compared; returns how many it left out.
    fn compare(&self, rows: &[&SummaryRow], sentences: &mut Vec<String>) -> usize {
        let compared: Vec<(&SummaryRow, Ratio)> =
            rows.iter().filter_map(|row| Ratio::of(row).map(|ratio| (*row, ratio))).collect();
        if compared.is_empty() {
            sentences.extend(rows.iter().take(SENTENCES).map(|row| self.alone(row)));
            return rows.len().saturating_sub(SENTENCES);
        }
        let kept = self.first(&compared);
        let told = compared.iter().zip(&kept).filter(|(_, kept)| **kept);
        sentences.extend(told.map(|((row, ratio), _)| self.against(row, *ratio)));
        kept.iter().filter(|kept| !**kept).count()
    }

    /// Which comparisons are told when there are too many: every series once before any a second time, the floor last.
    fn first(&self, compared: &[(&SummaryRow, Ratio)]) -> Vec<bool> {
        let mut seen: Vec<(&str, &str)> = Vec::new();
        let mut order: Vec<(bool, usize, usize)> = Vec::new();
        for (index, (row, _)) in compared.iter().enumerate() {
            let series = (row.runtime.as_str(), row.network.as_str());
            let round = seen.iter().filter(|known| **known == series).count();
            seen.push(series);
            order.push((row.runtime == "floor", round, index));
        }
        order.sort_unstable();
        let mut kept = vec![false; compared.len()];
        for (_, _, index) in order.into_iter().take(SENTENCES) {
            kept[index] = true;
        }
        kept
    }

    /// One case without a comparison.
    fn alone(&self, row: &SummaryRow) -> String {
        let value = figure::value(row.p50, &row.unit);
        let interval = match figure::interval(row.ci95_low, row.ci95_high, &row.unit) {
            text if text == figure::ABSENT => String::new(),
            text => format!(" (95 % interval {text})"),
        };
        if self.metric == "exit" {
            return format!("{} takes {value} from request to exit{interval}", self.container(&row.case));
        }
        format!("{}: {} {value}{interval}", self.subject(&row.case), label::lowered(&label::metric_title(self.metric)))
    }

    /// One case against its baseline.
    fn against(&self, row: &SummaryRow, ratio: Ratio) -> String {
        let base_id = row.ratio_to.as_deref().unwrap_or("");
        let base = self.summary.iter().find(|other| other.case == base_id && other.metric == row.metric);
        if self.metric == "exit" {
            return self.start(row, ratio, base_id, base);
        }
        let subject = self.subject(&row.case);
        let whose = self.whose(&row.case, base_id);
        let values = base.map_or_else(String::new, |base| {
            format!(": {} against {}", figure::value(row.p50, &row.unit), figure::value(base.p50, &base.unit))
        });
        let evidence = evidence(ratio);
        let (verb, noun) = words(self.metric);
        match ratio.differs() {
            Some(false) => {
                format!("{subject} shows no difference from {whose} {noun} ({}, {evidence}){values}", ratio.text())
            }
            _ => format!("{subject} {verb} {} {whose} {noun} ({evidence}){values}", ratio.text()),
        }
    }

    /// A start-up, with what is known of its first instruction.
    fn start(&self, row: &SummaryRow, ratio: Ratio, base_id: &str, base: Option<&SummaryRow>) -> String {
        let container = self.container(&row.case);
        let value = figure::value(row.p50, &row.unit);
        let ready = self.summary.iter().find(|other| other.case == row.case && other.metric == "ready");
        let ready = ready.map_or_else(String::new, |ready| {
            format!("; its program is running after {}", figure::value(ready.p50, &ready.unit))
        });
        let phrase = case_of(self.run, base_id).map_or_else(|| base_id.to_owned(), container_phrase);
        let of = base.map_or_else(String::new, |base| format!("the {} of ", figure::value(base.p50, &base.unit)));
        let (ratio_text, evidence) = (ratio.text(), evidence(ratio));
        let compared = match ratio.differs() {
            Some(false) => format!(": no difference from {of}{phrase} seen ({ratio_text}, {evidence})"),
            _ => format!(", {ratio_text} {of}{phrase} ({evidence})"),
        };
        format!("{container} takes {value} from request to exit{compared}{ready}")
    }

    /// The highest rate of each series.
    fn rates(&self, rows: &[&SummaryRow]) -> Vec<String> {
        if self.facets.iter().all(|(_, facet)| facet.is_empty()) {
            return Vec::new();
        }
        let mut best: Vec<(&CaseRecord, &SummaryRow)> = Vec::new();
        for row in rows {
            let Some(case) = case_of(self.run, &row.case) else { continue };
            match best.iter_mut().find(|(other, _)| place(other).series == place(case).series) {
                Some(known) if known.1.p50 < row.p50 => *known = (case, row),
                Some(_) => {}
                None => best.push((case, row)),
            }
        }
        let sentence = |(case, row): &(&CaseRecord, &SummaryRow)| {
            let rate = figure::value(row.p50, "count");
            format!("{} reaches {rate} starts a second", self.container(&case.id))
        };
        best.iter().filter(|(case, _)| case.runtime != "floor").take(SENTENCES).map(sentence).collect()
    }

    fn facet(&self, id: &str) -> &str {
        self.facets.iter().find(|(case, _)| case == id).map_or("", |(_, facet)| facet)
    }

    /// `bridge egress`: what tells the case apart from the metric's others.
    fn subject(&self, id: &str) -> String {
        let Some(case) = case_of(self.run, id) else { return id.to_owned() };
        let several =
            self.run.cases.iter().any(|other| other.experiment == case.experiment && other.runtime != case.runtime);
        let runtime = if several { case.runtime.as_str() } else { "" };
        let words = [runtime, &case.network, self.facet(id)];
        let subject = words.iter().filter(|word| !word.is_empty()).copied().collect::<Vec<_>>().join(" ");
        if subject.is_empty() { id.to_owned() } else { subject }
    }

    /// `the host's`: the baseline by that in which it differs.
    fn whose(&self, id: &str, base_id: &str) -> String {
        let (Some(case), Some(base)) = (case_of(self.run, id), case_of(self.run, base_id)) else {
            return format!("{base_id}'s");
        };
        let mut words: Vec<&str> = Vec::new();
        if case.runtime != base.runtime {
            words.push(&base.runtime);
        }
        if case.network != base.network {
            words.push(&base.network);
        }
        if self.facet(id) != self.facet(base_id) {
            words.push(self.facet(base_id));
        }
        match words.as_slice() {
            [] => format!("{base_id}'s"),
            ["host"] => "the host's".to_owned(),
            words => format!("{}'s", words.join(" ")),
        }
    }

    fn container(&self, id: &str) -> String {
        let phrase = case_of(self.run, id).map_or_else(|| id.to_owned(), container_phrase);
        format!("{phrase} {}", self.parallel(id)).trim().to_owned()
    }

    /// `(4 starting at a time)` where the run has several.
    fn parallel(&self, id: &str) -> String {
        match self.facet(id) {
            "" => String::new(),
            facet => match facet.strip_prefix('c').and_then(|number| number.parse::<u32>().ok()) {
                Some(number) => format!("({number} starting at a time)"),
                None => format!("({facet})"),
            },
        }
    }
}

/// The verb and the noun of a comparison: `carries … throughput`.
fn words(metric: &str) -> (&'static str, String) {
    let (verb, noun) = match metric {
        "throughput" => ("carries", "throughput"),
        "rtt" => ("takes", "round-trip time"),
        "connects" => ("makes", "connections a second"),
        "messages" => ("moves", "messages a second"),
        "cpu_per_byte" => ("costs", "CPU time a byte"),
        other => return ("has", label::lowered(&label::metric_title(other))),
    };
    (verb, noun.to_owned())
}

fn container_phrase(case: &CaseRecord) -> String {
    if case.runtime == "floor" {
        return "a bare clone and exec".to_owned();
    }
    let container = match case.network.as_str() {
        "bridge" => "a bridged container".to_owned(),
        "host" => "a container on the host's network".to_owned(),
        "none" => "a container without a network".to_owned(),
        "container" => "a container in another's network".to_owned(),
        "" => "a container".to_owned(),
        other => format!("a container on {other}"),
    };
    if case.runtime == "builtin" || case.runtime.is_empty() {
        container
    } else {
        format!("{container} by {}", case.runtime)
    }
}

fn evidence(ratio: Ratio) -> String {
    ratio.ci_text().map_or_else(|| "too few blocks for an interval".to_owned(), |text| format!("95 % interval {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;
    use expect_test::{Expect, expect};

    fn check(run: &RunRecord, summary: &[SummaryRow], expected: &Expect) {
        let mut text = String::new();
        for part in answer(run, summary).parts {
            text += &format!("{}\n", part.experiment);
            for sentence in part.sentences {
                text += &format!("- {sentence}\n");
            }
            if part.left_out > 0 {
                text += &format!("+ {}\n", part.left_out);
            }
        }
        expected.assert_eq(&text);
    }

    #[test]
    fn the_main_job_is_answered() {
        let run = fixture::run();
        check(
            &run,
            &fixture::summary(&run),
            &expect![[r#"
                startup
                - a container on the host's network takes 1.56 ms from request to exit, 1.48× the 1.06 ms of a bare clone and exec (95 % interval 1.47–1.49); its program is running after 1.37 ms
                - a container without a network takes 1.98 ms from request to exit, 1.89× the 1.06 ms of a bare clone and exec (95 % interval 1.87–1.89); its program is running after 1.79 ms
                - a bridged container takes 2.58 ms from request to exit, 2.44× the 1.06 ms of a bare clone and exec (95 % interval 2.42–2.45); its program is running after 2.38 ms
                - a container in another's network takes 1.59 ms from request to exit, 1.52× the 1.06 ms of a bare clone and exec (95 % interval 1.49–1.52); its program is running after 1.39 ms
                network
                - bridge egress carries 0.94× the host's throughput (95 % interval 0.93–0.96): 40.9 Gbit/s against 43.3 Gbit/s
                - bridge ingress carries 0.880× the host's throughput (95 % interval 0.875–0.884): 38.6 Gbit/s against 43.8 Gbit/s
                - bridge egress takes 1.238× the host's round-trip time (95 % interval 1.236–1.239): 15.2 µs against 12.3 µs
                - bridge ingress takes 1.24× the host's round-trip time (95 % interval 1.24–1.25): 15.3 µs against 12.3 µs
                - bridge egress shows no difference from the host's connections a second (1.00×, 95 % interval 0.99–1.01): 14.2k/s against 14.3k/s
                - bridge ingress makes 0.91× the host's connections a second (95 % interval 0.89–0.91): 13.0k/s against 14.3k/s
                - bridge egress costs 1.14× the host's CPU time a byte (95 % interval 1.12–1.15): 0.330 ns/B against 0.291 ns/B
                - bridge ingress costs 1.18× the host's CPU time a byte (95 % interval 1.18–1.19): 0.346 ns/B against 0.294 ns/B
            "#]],
        );
    }

    #[test]
    fn without_baselines_the_values_are_told() {
        let mut run = fixture::run();
        run.cases.iter_mut().for_each(|case| case.baseline = None);
        run.cases.retain(|case| case.id.ends_with("/c1") || case.id.ends_with("egress/tcp_rr"));
        check(
            &run,
            &fixture::summary(&run),
            &expect![[r#"
                startup
                - a bare clone and exec takes 1.06 ms from request to exit (95 % interval 1.05–1.07 ms)
                - a container on the host's network takes 1.56 ms from request to exit (95 % interval 1.55–1.57 ms)
                - a container without a network takes 1.98 ms from request to exit (95 % interval 1.97–2.01 ms)
                - a bridged container takes 2.58 ms from request to exit (95 % interval 2.56–2.59 ms)
                - a container in another's network takes 1.59 ms from request to exit (95 % interval 1.585–1.592 ms)
                network
                - host: round-trip time 12.3 µs (95 % interval 12.26–12.32 µs)
                - bridge: round-trip time 15.2 µs (95 % interval 15.19–15.24 µs)
            "#]],
        );
    }

    #[test]
    fn one_block_gives_no_interval() {
        let cases = fixture::run().cases;
        let run =
            fixture::run_of(cases.into_iter().filter(|case| case.id.ends_with("egress/tcp_stream")).collect(), 1, 1);
        check(
            &run,
            &fixture::summary(&run),
            &expect![[r#"
            network
            - bridge carries 0.95× the host's throughput (too few blocks for an interval): 41.3 Gbit/s against 43.3 Gbit/s
            - bridge costs 1.14× the host's CPU time a byte (too few blocks for an interval): 0.328 ns/B against 0.287 ns/B
        "#]],
        );
    }

    #[test]
    fn concurrency_and_runtimes_are_named() {
        let mut cases =
            vec![fixture::case("startup/floor/none/c1", None), fixture::case("startup/floor/none/c4", None)];
        for concurrency in ["c1", "c4"] {
            let baseline = format!("startup/floor/none/{concurrency}");
            for runtime in ["builtin", "runc"] {
                cases.push(fixture::case(&format!("startup/{runtime}/bridge/{concurrency}"), Some(&baseline)));
            }
        }
        let run = fixture::run_of(cases, 4, 3);
        check(
            &run,
            &fixture::summary(&run),
            &expect![[r#"
                startup
                - a bridged container (1 starting at a time) takes 2.56 ms from request to exit, 2.46× the 1.05 ms of a bare clone and exec (95 % interval 2.43–2.46); its program is running after 2.37 ms
                - a bridged container by runc (1 starting at a time) takes 2.62 ms from request to exit, 2.48× the 1.05 ms of a bare clone and exec (95 % interval 2.38–2.48); its program is running after 2.42 ms
                - a bridged container (4 starting at a time) takes 2.60 ms from request to exit, 2.47× the 1.07 ms of a bare clone and exec (95 % interval 2.40–2.47); its program is running after 2.40 ms
                - a bridged container by runc (4 starting at a time) takes 2.60 ms from request to exit, 2.46× the 1.07 ms of a bare clone and exec (95 % interval 2.41–2.46); its program is running after 2.40 ms
                - a bridged container (1 starting at a time) reaches 325 starts a second
                - a bridged container by runc (1 starting at a time) reaches 321 starts a second
            "#]],
        );
    }

    #[test]
    fn many_cases_are_cut_to_the_first_of_each_series() {
        let mut cases = vec![fixture::case("network/builtin/host/egress/tcp_stream", None)];
        for index in 0..10 {
            let id = format!("network/builtin/bridge/p{index}/tcp_stream");
            cases.push(fixture::case(&id, Some("network/builtin/host/egress/tcp_stream")));
        }
        let run = fixture::run_of(cases, 4, 3);
        let answer = answer(&run, &fixture::summary(&run));
        assert_eq!(answer.parts[0].sentences.len(), 2 * SENTENCES);
        assert_eq!(answer.parts[0].left_out, 2 * (10 - SENTENCES));
    }

    #[test]
    fn nothing_measured_gives_no_answer() {
        assert_eq!(answer(&fixture::run_of(Vec::new(), 0, 0), &[]), Answer::default());
    }
}
