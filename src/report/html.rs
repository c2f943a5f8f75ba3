//! `report.html`: one file, charts inline, nothing loaded from elsewhere, no script.
//!
//! The reader meets the question, the answer and the verdict first, then the charts and tables of each experiment,
//! then the host and the method. Every text that comes from a file is escaped on its way in.

use std::fmt::Write as _;

use crate::record::summary::SummaryRow;
use crate::record::{CheckRow, RunRecord, Verdict};
use crate::units::human;

use super::answer::{self, Answer};
use super::chart::palette::Looks;
use super::chart::{Chart, Charts, theme};
use super::escape::html as escape;
use super::table::{self, Table};
use super::waterfall::{self, Waterfall};
use super::{label, limits, method, verdict};

const STYLE: &str = include_str!("style.css");
/// More skips than this get a section of their own.
const SKIPS: usize = 3;

/// Writes the page.
pub(super) fn render(run: &RunRecord, summary: &[SummaryRow], checks: &[CheckRow], charts: &Charts) -> String {
    let title = escape(&format!("{} · isobench", run.meta.name));
    let description = escape(&run.meta.question);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"description\" content=\"{description}\">\n<title>{title}</title>\n\
         <style>\n{STYLE}{}</style>\n</head>\n<body>\n",
        theme::dark_css()
    );
    head(&mut out, run, summary, checks);
    out.push_str("<main>\n");
    checks_section(&mut out, run, checks);
    let falls = waterfall::of_run(run);
    for experiment in shown(run, summary) {
        experiment_section(&mut out, run, summary, experiment, charts, &falls);
    }
    enforcement_section(&mut out, run, charts);
    host_section(&mut out, run);
    method_section(&mut out, run, summary);
    out.push_str("</main>\n");
    footer(&mut out, run);
    out.push_str("</body>\n</html>\n");
    out
}

fn head(out: &mut String, run: &RunRecord, summary: &[SummaryRow], checks: &[CheckRow]) {
    let meta = &run.meta;
    let question = if meta.question.is_empty() { &meta.name } else { &meta.question };
    let _ = write!(
        out,
        "<header>\n<p class=\"meta\">isobench · {} · {}</p>\n<h1>{}</h1>\n",
        escape(&meta.name),
        escape(&meta.started_utc.replace('T', " ").replace('Z', " UTC")),
        escape(question)
    );
    for warning in method::warnings(run) {
        let _ = writeln!(out, "<p class=\"warning\" role=\"note\">{}.</p>", escape(&warning));
    }
    out.push_str(&answer_section(&answer::answer(run, summary)));
    let class = verdict::overall(checks).map_or_else(|| "none".to_owned(), |verdict| verdict.to_string());
    let _ = writeln!(
        out,
        "<div class=\"verdict {class}\">\n<p><strong>{}.</strong></p>",
        escape(&verdict::sentences(run, checks).join(". "))
    );
    // Limits that do not hold are the first that the answer tells.
    for check in verdict::written(checks).iter().filter(|check| check.verdict == Verdict::Fail) {
        let _ = writeln!(
            out,
            "<p>Failed: {} of <code>{}</code> is {}, asked for {}.</p>",
            escape(&check.metric),
            escape(&check.case),
            escape(&verdict::value(check)),
            escape(&verdict::bound(check))
        );
    }
    if run.skips.len() > SKIPS {
        let _ = writeln!(out, "<p>Not measured: {} cases, <a href=\"#skipped\">with reasons</a>.</p>", run.skips.len());
    } else if !run.skips.is_empty() {
        let skips =
            run.skips.iter().map(|skip| format!("<code>{}</code>: {}", escape(&skip.case), escape(&skip.reason)));
        let _ = writeln!(out, "<p>Not measured: {}.</p>", skips.collect::<Vec<_>>().join("; "));
    }
    let _ = writeln!(out, "<p>{}.</p>\n</div>", escape(&verdict::disturbance(run)));
    navigation(out, run, summary, checks);
    out.push_str("</header>\n");
}

fn answer_section(answer: &Answer) -> String {
    let mut out = String::from("<section class=\"answer\" aria-label=\"Answer\">\n");
    if answer.parts.is_empty() {
        out.push_str("<p>Nothing was measured, so there is no answer.</p>\n");
    }
    for part in &answer.parts {
        if answer.parts.len() > 1 {
            let _ = writeln!(out, "<h3>{}</h3>", escape(&label::experiment(&part.experiment)));
        }
        out.push_str("<ul>\n");
        for sentence in &part.sentences {
            let _ = writeln!(out, "<li>{}.</li>", emphasised(&label::capitalised(sentence)));
        }
        if part.left_out > 0 {
            let _ = writeln!(out, "<li class=\"less\">{} more comparisons stand in the tables.</li>", part.left_out);
        }
        out.push_str("</ul>\n");
    }
    out.push_str("</section>\n");
    out
}

/// A sentence with its finding in bold, and with numbers that stay beside their units when lines break.
fn emphasised(sentence: &str) -> String {
    let words: Vec<&str> = sentence.split(' ').collect();
    let plain = sentence.find("no difference").map(|start| (start, "no difference"));
    let ratio = words.iter().find(|word| word.ends_with('×')).and_then(|word| Some((sentence.find(word)?, *word)));
    // A limit's sentence ends in its judgement.
    let judged = sentence
        .rfind(": ")
        .map(|at| (at + 2, &sentence[at + 2..]))
        .filter(|(_, end)| end.ends_with("hold") || end.ends_with("holds"));
    let text = match plain.or(judged).or(ratio) {
        Some((start, bold)) => format!(
            "{}<strong>{}</strong>{}",
            escape(&sentence[..start]),
            escape(bold),
            escape(&sentence[start + bold.len()..])
        ),
        None => escape(sentence),
    };
    UNITS.iter().fold(text, |text, unit| join_to_numbers(&text, unit))
}

/// What stands behind a number in sentences.
const UNITS: &[&str] = &["%", "ns", "µs", "ms", "s", "bit/s", "kbit/s", "Mbit/s", "Gbit/s", "ns/B"];

/// Puts a no-break space between every number and this unit.
fn join_to_numbers(text: &str, unit: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let separated = format!(" {unit}");
    while let Some(index) = rest.find(&separated) {
        let (before, after) = (&rest[..index], &rest[index + separated.len()..]);
        let number = before.ends_with(|c: char| c.is_ascii_digit());
        let whole = !after.starts_with(|c: char| c.is_alphanumeric() || c == '/');
        out.push_str(before);
        out.push_str(if number && whole { "\u{a0}" } else { " " });
        out.push_str(unit);
        rest = after;
    }
    out + rest
}

fn navigation(out: &mut String, run: &RunRecord, summary: &[SummaryRow], checks: &[CheckRow]) {
    let mut entries: Vec<(String, String)> = Vec::new();
    if !verdict::written(checks).is_empty() {
        entries.push(("checks".to_owned(), "Checks".to_owned()));
    }
    for experiment in shown(run, summary) {
        entries.push((anchor(experiment), label::experiment(experiment)));
    }
    if !run.enforcement.is_empty() {
        entries.push(("enforcement-table".to_owned(), "Enforcement".to_owned()));
    }
    entries.extend([("host".to_owned(), "Host".to_owned()), ("method".to_owned(), "Method".to_owned())]);
    out.push_str("<nav aria-label=\"Sections\"><ul>\n");
    for (id, name) in entries {
        let _ = writeln!(out, "<li><a href=\"#{id}\">{}</a></li>", escape(&name));
    }
    out.push_str("</ul></nav>\n");
}

/// The experiments that have a section of their own: not those that measured limits and nothing else.
fn shown<'a>(run: &'a RunRecord, summary: &[SummaryRow]) -> Vec<&'a str> {
    let enforced = |experiment: &str| {
        let case_of = |id: &str| run.cases.iter().any(|case| case.id == id && case.experiment == experiment);
        run.enforcement.iter().any(|row| case_of(&row.case))
    };
    let has_rows = |experiment: &str| summary.iter().any(|row| row.experiment == experiment);
    let experiments = label::experiments(&run.cases).into_iter();
    experiments.filter(|experiment| has_rows(experiment) || !enforced(experiment)).collect()
}

/// An id that no section of the page's own has, from any text.
fn anchor(experiment: &str) -> String {
    let safe: String = experiment.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("experiment-{safe}")
}

fn checks_section(out: &mut String, run: &RunRecord, checks: &[CheckRow]) {
    if let Some(table) = table::checks(&verdict::written(checks)) {
        out.push_str("<section aria-labelledby=\"checks\">\n<h2 id=\"checks\">Checks</h2>\n");
        out.push_str(&write_table(&table, Some(0)));
        out.push_str("</section>\n");
    }
    if run.skips.len() <= SKIPS {
        return;
    }
    out.push_str("<section aria-labelledby=\"skipped\">\n<h2 id=\"skipped\">Not measured</h2>\n<dl>\n");
    for skip in &run.skips {
        let _ = writeln!(out, "<dt><code>{}</code></dt><dd>{}</dd>", escape(&skip.case), escape(&skip.reason));
    }
    out.push_str("</dl>\n</section>\n");
}

fn experiment_section(
    out: &mut String,
    run: &RunRecord,
    summary: &[SummaryRow],
    experiment: &str,
    charts: &Charts,
    falls: &[Waterfall],
) {
    let id = anchor(experiment);
    let _ = writeln!(
        out,
        "<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{}</h2>",
        escape(&label::experiment(experiment))
    );
    figures(out, &charts.front, experiment);
    if let Some(table) = table::summary(summary, experiment) {
        out.push_str(&write_table(&table, None));
    }
    if let Some(table) = table::waterfall(run, &Looks::of(&run.cases), experiment, falls) {
        out.push_str(&write_table(&table, None));
    }
    over_time(out, charts, experiment, "Samples over time");
    out.push_str("</section>\n");
}

fn over_time(out: &mut String, charts: &Charts, experiment: &str, title: &str) {
    if charts.samples.iter().any(|chart| chart.experiment == experiment) {
        let _ = writeln!(out, "<details>\n<summary>{title}</summary>");
        figures(out, &charts.samples, experiment);
        out.push_str("</details>\n");
    }
}

fn figures(out: &mut String, charts: &[Chart], experiment: &str) {
    let charts: Vec<&Chart> = charts.iter().filter(|chart| chart.experiment == experiment).collect();
    if charts.is_empty() {
        return;
    }
    out.push_str("<div class=\"charts\">\n");
    for chart in charts {
        let _ = writeln!(out, "<figure>\n{}</figure>", chart.svg);
    }
    out.push_str("</div>\n");
}

fn enforcement_section(out: &mut String, run: &RunRecord, charts: &Charts) {
    if let Some(table) = table::enforcement(&run.enforcement) {
        out.push_str(
            "<section aria-labelledby=\"enforcement-table\">\n<h2 id=\"enforcement-table\">Enforcement</h2>\n",
        );
        figures(out, &charts.front, limits::SECTION);
        out.push_str(&write_table(&table, Some(0)));
        over_time(out, charts, limits::SECTION, "What was achieved over time");
        out.push_str("</section>\n");
    }
}

/// A table in a container of its own, which scrolls where the page is narrow; `verdicts` is the column of judgements.
fn write_table(table: &Table, verdicts: Option<usize>) -> String {
    let caption = escape(&table.caption);
    let mut out = format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"{caption}\" tabindex=\"0\">\n<table>\n<caption>{caption}</caption>\n<thead><tr>"
    );
    for column in &table.columns {
        let class = if column.figures { " class=\"n\"" } else { "" };
        let _ = write!(out, "<th scope=\"col\"{class}>{}</th>", escape(&column.name));
    }
    out.push_str("</tr></thead>\n");
    let last = table.groups.len().saturating_sub(1);
    for (index, group) in table.groups.iter().enumerate() {
        // A second group without a heading is the sum of the first.
        let sum = index == last && index > 0 && group.heading.is_empty();
        out.push_str(if sum { "<tbody class=\"sum\">\n" } else { "<tbody>\n" });
        if !group.heading.is_empty() {
            let _ = writeln!(
                out,
                "<tr><th scope=\"rowgroup\" colspan=\"{}\"><div>{} <span>{}</span></div></th></tr>",
                table.columns.len(),
                escape(&group.heading),
                escape(&group.meaning)
            );
        }
        for row in &group.rows {
            write_row(&mut out, table, row, verdicts);
        }
        out.push_str("</tbody>\n");
    }
    out.push_str("</table>\n</div>\n");
    out
}

fn write_row(out: &mut String, table: &Table, row: &[String], verdicts: Option<usize>) {
    out.push_str("<tr>");
    let head = verdicts.map_or(0, |column| column + 1);
    for (index, (cell, column)) in row.iter().zip(&table.columns).enumerate() {
        let text = escape(cell);
        let class = if column.figures { " class=\"n\"" } else { "" };
        let _ = match index {
            index if Some(index) == verdicts => write!(out, "<td><span class=\"badge {text}\">{text}</span></td>"),
            index if index == head => write!(out, "<th scope=\"row\"{class}>{text}</th>"),
            _ => write!(out, "<td{class}>{text}</td>"),
        };
    }
    out.push_str("</tr>\n");
}

fn host_section(out: &mut String, run: &RunRecord) {
    out.push_str("<section aria-labelledby=\"host\">\n<h2 id=\"host\">Host</h2>\n<dl>\n");
    for (name, fact) in &run.fingerprint.facts {
        let shown = match (name.strip_suffix("_bytes"), fact.parse::<f64>()) {
            (Some(_), Ok(bytes)) => human(bytes, "bytes"),
            _ => fact.clone(),
        };
        let name = fact_name(name);
        let _ = writeln!(out, "<dt>{}</dt><dd>{}</dd>", escape(&name), escape(&shown));
    }
    if run.fingerprint.facts.is_empty() {
        out.push_str("<dt>Unknown</dt><dd>The run holds no facts about its host.</dd>\n");
    }
    out.push_str("</dl>\n</section>\n");
}

/// A fact's name as words: `cpu_model` is "CPU model"; a sysctl keeps the name by which the kernel knows it.
fn fact_name(name: &str) -> String {
    if name.contains('.') {
        return name.to_owned();
    }
    let words: Vec<&str> = name.strip_suffix("_bytes").unwrap_or(name).split('_').map(abbreviation).collect();
    label::capitalised(&words.join(" "))
}

/// Abbreviations in capitals.
fn abbreviation(word: &str) -> &str {
    match word {
        "cpu" => "CPU",
        "cpus" => "CPUs",
        "lsm" => "LSM",
        "smt" => "SMT",
        word => word,
    }
}

fn method_section(out: &mut String, run: &RunRecord, summary: &[SummaryRow]) {
    out.push_str("<section aria-labelledby=\"method\">\n<h2 id=\"method\">Method</h2>\n<dl>\n");
    for (name, text) in method::steps(run) {
        let _ = writeln!(out, "<dt>{name}</dt><dd>{}</dd>", escape(&text));
    }
    out.push_str("</dl>\n");
    if !summary.is_empty() {
        out.push_str("<h3>Metrics</h3>\n<dl>\n");
        metrics(out, summary);
        out.push_str("</dl>\n");
    }
    let _ = write!(
        out,
        "<h3>To repeat it</h3>\n<pre><code>{}</code></pre>\n\
         <details>\n<summary>The scenario, {}</summary>\n<pre><code>{}</code></pre>\n</details>\n</section>\n",
        escape(&method::command(run)),
        escape(&format!("{}.toml", run.meta.name)),
        escape(&run.meta.scenario_toml)
    );
}

fn metrics(out: &mut String, summary: &[SummaryRow]) {
    for metric in label::metrics(summary) {
        let unit = summary.iter().find(|row| row.metric == metric).map_or("", |row| row.unit.as_str());
        let meaning = label::meaning(metric).map_or_else(String::new, |meaning| format!(": {meaning}"));
        let _ = writeln!(
            out,
            "<dt><code>{}</code></dt><dd>{}{} (in files: {})</dd>",
            escape(metric),
            escape(&label::metric_title(metric)),
            escape(&meaning),
            escape(unit)
        );
    }
}

fn footer(out: &mut String, run: &RunRecord) {
    let _ = writeln!(
        out,
        "<footer>Made by isobench {} from the raw data beside this file: <code>run.json</code>, <code>samples.csv</code>, \
         <code>summary.csv</code>, <code>phases.csv</code>.</footer>",
        escape(&run.meta.isobench_version)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_bold_and_units_stay_with_numbers() {
        assert_eq!(
            emphasised("bridge <x> carries 0.94× the host's (95 % interval 0.91–0.96): 2 ms more, 3 msgs"),
            "bridge &lt;x&gt; carries <strong>0.94×</strong> the host&#39;s (95\u{a0}% interval 0.91–0.96): 2\u{a0}ms more, 3 msgs"
        );
        assert_eq!(emphasised("no difference (1.00×)"), "<strong>no difference</strong> (1.00×)");
    }

    #[test]
    fn facts_have_names_for_people() {
        assert_eq!(fact_name("cpu_model"), "CPU model");
        assert_eq!(fact_name("memory_bytes"), "Memory");
        assert_eq!(fact_name("sysctl net.ipv4.tcp_rmem"), "sysctl net.ipv4.tcp_rmem");
    }

    #[test]
    fn a_table_is_written_with_its_heads() {
        let column = |name: &str, figures| table::Column { name: name.to_owned(), figures };
        let group = |heading: &str, cells: &[&str]| table::Group {
            heading: heading.to_owned(),
            meaning: "what it is".to_owned(),
            rows: vec![cells.iter().map(|cell| (*cell).to_owned()).collect()],
        };
        let table = Table {
            caption: "A & B".to_owned(),
            columns: vec![column("verdict", false), column("check", false), column("bound", true)],
            groups: vec![group("Time", &["pass", "x<y", "1 ms"]), group("", &["fail", "z", "2 ms"])],
        };
        expect_test::expect![[r#"
            <div class="scroll" role="region" aria-label="A &amp; B" tabindex="0">
            <table>
            <caption>A &amp; B</caption>
            <thead><tr><th scope="col">verdict</th><th scope="col">check</th><th scope="col" class="n">bound</th></tr></thead>
            <tbody>
            <tr><th scope="rowgroup" colspan="3"><div>Time <span>what it is</span></div></th></tr>
            <tr><td><span class="badge pass">pass</span></td><th scope="row">x&lt;y</th><td class="n">1 ms</td></tr>
            </tbody>
            <tbody class="sum">
            <tr><td><span class="badge fail">fail</span></td><th scope="row">z</th><td class="n">2 ms</td></tr>
            </tbody>
            </table>
            </div>
        "#]].assert_eq(&write_table(&table, Some(0)));
    }
}
