//! How the run was made: its warnings, the command that repeats it, and the method in a few sentences.

use crate::record::RunRecord;
use crate::units::human;

use super::escape;

/// What a reader must know before the figures.
pub(super) fn warnings(run: &RunRecord) -> Vec<String> {
    let mut warnings = Vec::new();
    if run.meta.interrupted {
        warnings.push("This run ended before its last block: it holds only what was measured by then".to_owned());
    }
    if run.meta.quick {
        warnings
            .push("This was a quick run: few blocks and short samples, good for a look, not for a decision".to_owned());
    }
    warnings
}

/// The command that repeats the run, for a file that holds the scenario's text.
pub(super) fn command(run: &RunRecord) -> String {
    let mut words = vec!["isobench".to_owned(), "run".to_owned(), escape::shell(&format!("{}.toml", run.meta.name))];
    if run.meta.quick {
        words.push("--quick".to_owned());
    }
    words.push(format!("--seed {}", run.meta.seed));
    words.extend(run.meta.overrides.iter().map(|set| format!("--set {}", escape::shell(set))));
    words.join(" ")
}

/// The method, a heading and a sentence or two each.
pub(super) fn steps(run: &RunRecord) -> Vec<(&'static str, String)> {
    let warmup = run.blocks.iter().filter(|block| block.warmup).count();
    let measured = run.blocks.len() - warmup;
    let cases = run.cases.len();
    vec![
        (
            "Blocks",
            format!(
                "{measured} measured {} in {}. Each block runs all {cases} {} once, so that what drifts on the machine hits all alike.",
                plural(measured, "block", "blocks"),
                human(run.meta.duration_ns as f64, "ns"),
                plural(cases, "case", "cases"),
            ),
        ),
        (
            "Order",
            format!("Inside a block the cases run in an order shuffled by the seed {}; run.json holds every order.", run.meta.seed),
        ),
        (
            "Warm-up",
            match warmup {
                0 => "No block was set aside for warming up.".to_owned(),
                1 => "One block before the measured ones is kept and marked, and enters no figure.".to_owned(),
                count => format!("{count} blocks before the measured ones are kept and marked, and enter no figure."),
            },
        ),
        (
            "Ratios",
            "A case is divided by its baseline inside each block, median by median; the ratio is the median of these quotients.".to_owned(),
        ),
        (
            "Intervals",
            "95 % intervals come from a bootstrap that draws whole blocks, because samples of one block are not independent. \
             A ratio whose interval holds 1 is reported as no difference seen."
                .to_owned(),
        ),
        (
            "Percentiles",
            "p99 is given from 100 values on and p99.9 from 1000 on. Request latencies come from histograms with three \
             significant digits; their samples are the medians of each block."
                .to_owned(),
        ),
        (
            "Marks",
            "A sample is marked as disturbed when the hypervisor took CPU time, other programs put pressure on the CPUs, or the \
             harness was switched out while it was taken. Marked samples stay in the figures."
                .to_owned(),
        ),
    ]
}

fn plural<'a>(count: usize, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn the_command_can_be_pasted() {
        let mut run = fixture::run_of(Vec::new(), 0, 0);
        run.meta.name = "my run".to_owned();
        run.meta.quick = true;
        run.meta.overrides.push("scenario.question=what's up".to_owned());
        assert_eq!(
            command(&run),
            r"isobench run 'my run.toml' --quick --seed 1 --set run.blocks=12 --set 'scenario.question=what'\''s up'"
        );
    }

    #[test]
    fn warnings_stand_for_what_happened() {
        let mut run = fixture::run_of(Vec::new(), 0, 0);
        assert!(warnings(&run).is_empty());
        run.meta.interrupted = true;
        run.meta.quick = true;
        assert_eq!(warnings(&run).len(), 2);
    }
}
