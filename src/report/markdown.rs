//! `summary.md`: the run as a comment on a pull request: question, answer, checks, one compact table, skips.

use std::fmt::Write as _;

use crate::record::summary::SummaryRow;
use crate::record::{CheckRow, RunRecord, Verdict};

use super::answer::{self, Answer};
use super::escape::markdown as escape;
use super::figure::{self, Ratio};
use super::{label, limits, method, verdict};

/// Table rows at most; a comment is read at a glance.
const ROWS: usize = 40;
/// Metrics that the compact table holds where a run has them.
const METRICS: &[&str] = &["exit", "ready", "throughput", "rtt", "connects", "messages", "cpu_per_byte", "victim_rate"];

/// Writes the comment.
pub(super) fn render(run: &RunRecord, summary: &[SummaryRow], checks: &[CheckRow]) -> String {
    let mut out = String::new();
    let question = if run.meta.question.is_empty() { &run.meta.name } else { &run.meta.question };
    let _ = writeln!(out, "### {}\n", escape(question));
    for warning in method::warnings(run) {
        let _ = writeln!(out, "> **{}**\n", escape(&warning));
    }
    write_answer(&mut out, &answer::answer(run, summary));
    let _ = writeln!(out, "**{}.**\n", verdict::sentences(run, checks).join(". "));
    write_checks(&mut out, &verdict::written(checks));
    write_enforcement(&mut out, run);
    write_skips(&mut out, run);
    write_table(&mut out, summary);
    let _ = writeln!(out, "{}.\n", escape(&verdict::disturbance(run)));
    let _ = writeln!(out, "<sub>{}</sub>", escape(&footer(run)));
    out
}

fn write_answer(out: &mut String, answer: &Answer) {
    if answer.parts.is_empty() {
        let _ = writeln!(out, "Nothing was measured.\n");
    }
    for part in &answer.parts {
        for sentence in &part.sentences {
            let _ = writeln!(out, "- {}.", escape(&label::capitalised(sentence)));
        }
        if part.left_out > 0 {
            let _ = writeln!(out, "- {} more comparisons stand in `report.html`.", part.left_out);
        }
    }
    if !answer.parts.is_empty() {
        out.push('\n');
    }
}

fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "✅ pass",
        Verdict::Fail => "❌ fail",
        Verdict::Inconclusive => "❔ inconclusive",
        Verdict::Skipped => "⏭ skipped",
    }
}

fn write_checks(out: &mut String, checks: &[CheckRow]) {
    if checks.is_empty() {
        return;
    }
    let _ = writeln!(out, "| | check | case | measured | bound |\n|---|---|---|--:|--:|");
    for check in checks {
        let cells =
            [&check.check, &check.case, &verdict::value(check), &verdict::bound(check)].map(|cell| escape(cell));
        let _ = writeln!(out, "| {} | {} |", mark(check.verdict), cells.join(" | "));
    }
    out.push('\n');
}

fn write_enforcement(out: &mut String, run: &RunRecord) {
    if run.enforcement.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "| | limit | case | requested | achieved or charged | error (95 %) | tolerance |\n|---|---|---|--:|--:|--:|--:|"
    );
    for row in run.enforcement.iter().take(ROWS) {
        let cells = [
            format!("{} {}", row.controller, row.setting),
            row.case.clone(),
            figure::value(row.requested, &row.unit),
            figure::value(row.judged_value(), &row.unit),
            limits::error(row),
            format!("±{} %", row.tolerance_pct),
        ]
        .map(|cell| escape(&cell));
        let _ = writeln!(out, "| {} | {} |", mark(row.verdict), cells.join(" | "));
    }
    if run.enforcement.len() > ROWS {
        let _ = writeln!(out, "\n{} more rows stand in `enforcement.csv`.", run.enforcement.len() - ROWS);
    }
    out.push('\n');
}

fn write_skips(out: &mut String, run: &RunRecord) {
    for skip in &run.skips {
        let _ = writeln!(out, "- not measured: {}: {}", escape(&skip.case), escape(&skip.reason));
    }
    if !run.skips.is_empty() {
        out.push('\n');
    }
}

fn write_table(out: &mut String, summary: &[SummaryRow]) {
    let known = summary.iter().any(|row| METRICS.contains(&row.metric.as_str()));
    let wanted = |row: &&SummaryRow| !known || METRICS.contains(&row.metric.as_str());
    let rows: Vec<&SummaryRow> = summary.iter().filter(wanted).collect();
    if rows.is_empty() {
        return;
    }
    let mut experiments: Vec<&str> = Vec::new();
    for row in &rows {
        if !experiments.contains(&row.experiment.as_str()) {
            experiments.push(&row.experiment);
        }
    }
    let _ = writeln!(out, "| metric | case | median (95 % interval) | ratio (95 % interval) |\n|---|---|--:|--:|");
    let mut written = 0;
    for experiment in experiments {
        let rows = rows.iter().copied().filter(|row| row.experiment == experiment);
        for metric in label::metrics(rows.clone()) {
            for row in rows.clone().filter(|row| row.metric == metric).take(ROWS.saturating_sub(written)) {
                let _ = writeln!(out, "| {} |", cells(row).join(" | "));
                written += 1;
            }
        }
    }
    if rows.len() > written {
        let _ = writeln!(out, "\n{} more rows stand in `summary.csv`.", rows.len() - written);
    }
    out.push('\n');
}

fn cells(row: &SummaryRow) -> [String; 4] {
    let with = |value: String, interval: Option<String>| match interval {
        Some(interval) if interval != figure::ABSENT => format!("{value} ({interval})"),
        _ => value,
    };
    let ratio = Ratio::of(row);
    [
        row.metric.clone(),
        row.case.clone(),
        with(figure::value(row.p50, &row.unit), Some(figure::interval(row.ci95_low, row.ci95_high, &row.unit))),
        ratio.map_or_else(|| figure::ABSENT.to_owned(), |ratio| with(ratio.text(), ratio.ci_text())),
    ]
    .map(|cell| escape(&cell))
}

fn footer(run: &RunRecord) -> String {
    let fact = |name: &str| run.fingerprint.facts.get(name).map(String::as_str);
    let host = ["kernel", "architecture", "cpu_model"].into_iter().filter_map(fact).collect::<Vec<_>>().join(", ");
    let blocks = run.blocks.iter().filter(|block| !block.warmup).count();
    let parts = [
        format!("isobench {}", run.meta.isobench_version),
        run.meta.started_utc.clone(),
        host,
        format!("{blocks} measured blocks, seed {}", run.meta.seed),
    ];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;
    use expect_test::expect;

    #[test]
    fn a_comment_reads_well() {
        let mut run = fixture::run();
        run.cases.retain(|case| case.experiment == "startup" || case.id.ends_with("tcp_stream"));
        expect![[r#"
            ### What does a bridged, NATed container pay against the host's own network?

            - A container on the host's network takes 1.56 ms from request to exit, 1.48× the 1.06 ms of a bare clone and exec (95 % interval 1.47–1.49); its program is running after 1.37 ms.
            - A container without a network takes 1.98 ms from request to exit, 1.89× the 1.06 ms of a bare clone and exec (95 % interval 1.87–1.89); its program is running after 1.79 ms.
            - A bridged container takes 2.58 ms from request to exit, 2.44× the 1.06 ms of a bare clone and exec (95 % interval 2.42–2.45); its program is running after 2.38 ms.
            - A container in another's network takes 1.59 ms from request to exit, 1.52× the 1.06 ms of a bare clone and exec (95 % interval 1.49–1.52); its program is running after 1.39 ms.
            - Bridge egress carries 0.94× the host's throughput (95 % interval 0.93–0.96): 40.9 Gbit/s against 43.3 Gbit/s.
            - Bridge ingress carries 0.880× the host's throughput (95 % interval 0.875–0.884): 38.6 Gbit/s against 43.8 Gbit/s.
            - Bridge egress costs 1.14× the host's CPU time a byte (95 % interval 1.12–1.15): 0.330 ns/B against 0.291 ns/B.
            - Bridge ingress costs 1.18× the host's CPU time a byte (95 % interval 1.18–1.19): 0.346 ns/B against 0.294 ns/B.

            **2 of 5 checks pass, 1 fails, 1 cannot be told from this data, 1 was skipped.**

            | | check | case | measured | bound |
            |---|---|---|--:|--:|
            | ✅ pass | 1 throughput min\_ratio | network/builtin/bridge/egress/tcp\_stream | 0.94× | ≥ 0.5× |
            | ✅ pass | 1 throughput min\_ratio | network/builtin/bridge/ingress/tcp\_stream | 0.88× | ≥ 0.5× |
            | ❌ fail | 2 exit max | startup/builtin/bridge/c1 | 2.57 ms | ≤ 2 ms |
            | ❔ inconclusive | 3 connects min\_ratio | network/builtin/bridge/egress/tcp\_crr | 1.00× | ≥ 0.995× |
            | ⏭ skipped | 4 throughput min\_ratio | network/builtin/macvlan/\* | – | ≥ 0.5× |

            - not measured: network/builtin/macvlan/\*: the kernel has no macvlan driver (CONFIG\_MACVLAN is not set)

            | metric | case | median (95 % interval) | ratio (95 % interval) |
            |---|---|--:|--:|
            | ready | startup/floor/none/c1 | 876 µs (866–881 µs) | – |
            | ready | startup/builtin/host/c1 | 1.37 ms (1.36–1.37 ms) | 1.58× (1.56–1.58) |
            | ready | startup/builtin/none/c1 | 1.79 ms (1.78–1.82 ms) | 2.07× (2.05–2.07) |
            | ready | startup/builtin/bridge/c1 | 2.38 ms (2.37–2.40 ms) | 2.74× (2.70–2.74) |
            | ready | startup/builtin/container/c1 | 1.39 ms (1.39–1.40 ms) | 1.61× (1.58–1.62) |
            | exit | startup/floor/none/c1 | 1.06 ms (1.05–1.07 ms) | – |
            | exit | startup/builtin/host/c1 | 1.56 ms (1.55–1.57 ms) | 1.48× (1.47–1.49) |
            | exit | startup/builtin/none/c1 | 1.98 ms (1.97–2.01 ms) | 1.89× (1.87–1.89) |
            | exit | startup/builtin/bridge/c1 | 2.58 ms (2.56–2.59 ms) | 2.44× (2.42–2.45) |
            | exit | startup/builtin/container/c1 | 1.59 ms (1.585–1.592 ms) | 1.52× (1.49–1.52) |
            | throughput | network/builtin/host/egress/tcp\_stream | 43.3 Gbit/s (43.1–43.5 Gbit/s) | – |
            | throughput | network/builtin/host/ingress/tcp\_stream | 43.8 Gbit/s (43.4–44.2 Gbit/s) | – |
            | throughput | network/builtin/bridge/egress/tcp\_stream | 40.9 Gbit/s (40.7–41.1 Gbit/s) | 0.94× (0.93–0.96) |
            | throughput | network/builtin/bridge/ingress/tcp\_stream | 38.6 Gbit/s (38.2–38.7 Gbit/s) | 0.880× (0.875–0.884) |
            | cpu\_per\_byte | network/builtin/host/egress/tcp\_stream | 0.291 ns/B (0.286–0.292 ns/B) | – |
            | cpu\_per\_byte | network/builtin/host/ingress/tcp\_stream | 0.294 ns/B (0.291–0.296 ns/B) | – |
            | cpu\_per\_byte | network/builtin/bridge/egress/tcp\_stream | 0.330 ns/B (0.328–0.332 ns/B) | 1.14× (1.12–1.15) |
            | cpu\_per\_byte | network/builtin/bridge/ingress/tcp\_stream | 0.346 ns/B (0.343–0.348 ns/B) | 1.18× (1.18–1.19) |

            350 of the 2100 measured samples (16.7 %) were disturbed (time stolen by the hypervisor 175, CPU pressure from outside 350).

            <sub>isobench 0.1.0 · 2026-01-02T03:04:05Z · 6.18.0, x86\_64, Example CPU @ 2.80GHz · 12 measured blocks, seed 1</sub>
        "#]].assert_eq(&render(&run, &fixture::summary(&run), &fixture::checks()));
    }

    #[test]
    fn nothing_from_a_file_breaks_the_table() {
        let mut run = fixture::run_of(vec![fixture::case("startup/a|b/<i>/c1", None)], 2, 2);
        run.meta.question = "a | b\n# <script> @someone".to_owned();
        run.skips[0].reason = "line\nbreak | pipe".to_owned();
        let text = render(&run, &fixture::summary(&run), &[]);
        assert!(!text.contains("<script>") && !text.contains("<i>") && !text.contains("@someone"), "{text}");
        for line in text.lines().filter(|line| line.starts_with('|')) {
            assert_eq!(line.replace("\\|", "").matches('|').count(), 5, "{line}");
        }
    }

    #[test]
    fn a_long_run_is_cut() {
        let cases =
            (0..60).map(|index| fixture::case(&format!("network/builtin/bridge/p{index}/tcp_rr"), None)).collect();
        let run = fixture::run_of(cases, 2, 1);
        let text = render(&run, &fixture::summary(&run), &[]);
        assert!(text.contains("20 more rows stand in `summary.csv`."), "{text}");
        assert!(text.contains("54 more comparisons"), "{text}");
    }

    #[test]
    fn an_empty_run_says_so() {
        let text = render(&fixture::run_of(Vec::new(), 0, 0), &[], &[]);
        assert!(text.contains("Nothing was measured."), "{text}");
    }
}
