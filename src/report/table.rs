//! Tables as data: what they hold is decided here, how they are written by `html` and `markdown`.

use crate::record::summary::SummaryRow;
use crate::record::{CheckRow, EnforcementRow, RunRecord};

use super::chart::palette::Looks;
use super::figure::{self, Ratio};
use super::waterfall::Waterfall;
use super::{label, verdict};

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// What it shows.
    pub caption: String,
    /// The columns.
    pub columns: Vec<Column>,
    /// Groups of rows.
    pub groups: Vec<Group>,
}

/// A column's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    /// Its name.
    pub name: String,
    /// Whether it holds figures, which stand to the right.
    pub figures: bool,
}

/// Rows that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// A heading over the rows; empty for none.
    pub heading: String,
    /// What the heading means; empty for none.
    pub meaning: String,
    /// Each row's cells, as many as there are columns.
    pub rows: Vec<Vec<String>>,
}

fn columns(text: &[&str], figures: &[&str]) -> Vec<Column> {
    let column = |figures: bool| move |name: &&str| Column { name: (*name).to_owned(), figures };
    text.iter().map(column(false)).chain(figures.iter().map(column(true))).collect()
}

/// An experiment's summary: a group a metric, a row a case.
pub(super) fn summary(run: &RunRecord, rows: &[SummaryRow], experiment: &str) -> Option<Table> {
    let rows: Vec<&SummaryRow> = rows.iter().filter(|row| row.experiment == experiment).collect();
    let groups: Vec<Group> = label::metrics(rows.iter().copied())
        .into_iter()
        .map(|metric| {
            let rows: Vec<&SummaryRow> = rows.iter().copied().filter(|row| row.metric == metric).collect();
            metric_group(run, metric, &rows)
        })
        .collect();
    if groups.is_empty() {
        return None;
    }
    let mut columns = columns(&["case"], &["median", "95 % interval", "p90", "p99", "p99.9", "ratio", "95 % interval"]);
    columns.push(Column { name: "ratio to".to_owned(), figures: false });
    columns.push(Column { name: "values".to_owned(), figures: true });
    columns.push(Column { name: "notes".to_owned(), figures: false });
    Some(Table { caption: format!("{}: every case and metric", label::experiment(experiment)), columns, groups })
}

fn metric_group(run: &RunRecord, metric: &str, rows: &[&SummaryRow]) -> Group {
    let ids: Vec<&str> = rows.iter().map(|row| row.case.as_str()).collect();
    let names = label::short_ids(&ids);
    let cells = |(row, name): (&&SummaryRow, String)| {
        let value = |value: Option<f64>| figure::value(value, &row.unit);
        let ratio = Ratio::of(row);
        vec![
            name,
            value(Some(row.p50)),
            figure::interval(row.ci95_low, row.ci95_high, &row.unit),
            value(Some(row.p90)),
            value(row.p99),
            value(row.p999),
            ratio.map_or_else(|| figure::ABSENT.to_owned(), Ratio::text),
            ratio.and_then(Ratio::ci_text).unwrap_or_else(|| figure::ABSENT.to_owned()),
            ratio
                .and(row.ratio_to.as_deref())
                .map_or_else(|| figure::ABSENT.to_owned(), |to| baseline(run, &row.case, to)),
            row.n.to_string(),
            notes(&row.flags),
        ]
    };
    Group {
        heading: label::metric_title(metric),
        meaning: label::meaning(metric).unwrap_or("").to_owned(),
        rows: rows.iter().zip(names).map(cells).collect(),
    }
}

/// The baseline by what tells it apart from the case: `host`, `floor none`.
fn baseline(run: &RunRecord, case: &str, to: &str) -> String {
    let known = run.cases.iter().any(|other| other.id == to);
    if !known {
        return to.to_owned();
    }
    label::short_ids(&[to, case]).swap_remove(0)
}

/// `disturbed=7%|outliers=3` as `disturbed 7 %, outliers 3`.
fn notes(flags: &str) -> String {
    flags.split('|').map(|flag| flag.replace('=', " ").replace('%', " %")).collect::<Vec<_>>().join(", ")
}

/// The checks: a row each, with every cell as people read it.
pub(super) fn checks(checks: &[CheckRow]) -> Option<Table> {
    let row = |check: &CheckRow| {
        vec![
            check.verdict.to_string(),
            check.check.clone(),
            check.case.clone(),
            verdict::value(check),
            verdict::bound(check),
        ]
    };
    (!checks.is_empty()).then(|| Table {
        caption: "Checks".to_owned(),
        columns: columns(&["verdict", "check", "case"], &["measured", "bound"]),
        groups: vec![Group { heading: String::new(), meaning: String::new(), rows: checks.iter().map(row).collect() }],
    })
}

/// The median of each phase and its share of the whole, a column a case.
pub(super) fn waterfall(run: &RunRecord, looks: &Looks, experiment: &str, falls: &[Waterfall]) -> Option<Table> {
    let falls: Vec<(String, &Waterfall)> = run
        .cases
        .iter()
        .filter(|case| case.experiment == experiment)
        .filter_map(|case| {
            let fall = falls.iter().find(|fall| fall.case == case.id)?;
            let facet = label::place(case).facet;
            Some((format!("{} {facet}", looks.get(case).name).trim().to_owned(), fall))
        })
        .collect();
    if falls.is_empty() {
        return None;
    }
    let mut phases: Vec<&str> = Vec::new();
    for (name, _) in falls.iter().flat_map(|(_, fall)| &fall.medians) {
        if !phases.contains(&name.as_str()) {
            phases.push(name);
        }
    }
    let names: Vec<String> = falls.iter().map(|(name, _)| name.clone()).collect();
    let names = label::without_common(&names);
    let cell = |phase: &str, fall: &Waterfall| {
        let median = fall.medians.iter().find(|(name, _)| name == phase).map(|(_, ns)| *ns);
        match median {
            Some(ns) if fall.whole > 0.0 => format!("{} · {:.0} %", figure::value(ns, "ns"), ns / fall.whole * 100.0),
            Some(ns) => figure::value(ns, "ns"),
            None => figure::ABSENT.to_owned(),
        }
    };
    let row = |phase: &&str| {
        std::iter::once((*phase).to_owned()).chain(falls.iter().map(|(_, fall)| cell(phase, fall))).collect()
    };
    let whole =
        std::iter::once("whole".to_owned()).chain(falls.iter().map(|(_, fall)| figure::value(fall.whole, "ns")));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Some(Table {
        caption: "The median of each phase, and its share of the median start. Medians need not add up.".to_owned(),
        columns: columns(&["phase"], &names),
        groups: vec![
            Group { heading: String::new(), meaning: String::new(), rows: phases.iter().map(row).collect() },
            Group { heading: String::new(), meaning: String::new(), rows: vec![whole.collect()] },
        ],
    })
}

/// What was asked of each controller, and what came.
pub(super) fn enforcement(rows: &[EnforcementRow]) -> Option<Table> {
    let percent = |value: f64| if value.is_finite() { format!("{value:+.1} %") } else { figure::ABSENT.to_owned() };
    let row = |row: &EnforcementRow| {
        vec![
            row.verdict.to_string(),
            format!("{} {}", row.controller, row.setting),
            row.case.clone(),
            figure::value(row.requested, &row.unit),
            figure::value(row.achieved, &row.unit),
            figure::value(row.accounted, &row.unit),
            percent(row.error_pct),
            format!("{} to {}", percent(row.error_ci95_low), percent(row.error_ci95_high)),
            row.accounting_error_pct.map_or_else(|| figure::ABSENT.to_owned(), percent),
            format!("±{} %", row.tolerance_pct),
        ]
    };
    (!rows.is_empty()).then(|| Table {
        caption: "Enforcement: what was requested, achieved and accounted".to_owned(),
        columns: columns(
            &["verdict", "setting", "case"],
            &["requested", "achieved", "accounted", "error", "95 % interval", "accounting error", "tolerance"],
        ),
        groups: vec![Group { heading: String::new(), meaning: String::new(), rows: rows.iter().map(row).collect() }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;
    use crate::report::waterfall::of_run;

    #[test]
    fn every_row_has_a_cell_for_every_column() {
        let run = fixture::run();
        let rows = fixture::summary(&run);
        let looks = Looks::of(&run.cases);
        let tables = [
            summary(&run, &rows, "startup"),
            summary(&run, &rows, "network"),
            checks(&fixture::checks()),
            waterfall(&run, &looks, "startup", &of_run(&run)),
        ];
        for table in tables.into_iter().map(Option::unwrap) {
            for row in table.groups.iter().flat_map(|group| &group.rows) {
                assert_eq!(row.len(), table.columns.len(), "{}: {row:?}", table.caption);
            }
        }
        assert_eq!(summary(&run, &rows, "none such"), None);
    }

    #[test]
    fn a_row_reads_well() {
        let run = fixture::run();
        let table = summary(&run, &fixture::summary(&run), "network").unwrap();
        expect_test::expect![[r#"
            host egress | 43.3 Gbit/s | 43.1–43.5 Gbit/s | 44.4 Gbit/s | – | – | – | – | – | 12 | disturbed 16 %
            host ingress | 43.8 Gbit/s | 43.4–44.2 Gbit/s | 44.5 Gbit/s | – | – | – | – | – | 12 | disturbed 16 %
            bridge egress | 40.9 Gbit/s | 40.7–41.1 Gbit/s | 41.5 Gbit/s | – | – | 0.94× | 0.93–0.96 | host | 12 | disturbed 16 %
            bridge ingress | 38.6 Gbit/s | 38.2–38.7 Gbit/s | 38.8 Gbit/s | – | – | 0.88× | 0.88–0.88 | host | 12 | disturbed 16 %
        "#]].assert_eq(&table.groups[0].rows.iter().map(|row| row.join(" | ") + "\n").collect::<String>());
    }

    #[test]
    fn flags_become_words() {
        assert_eq!(notes("disturbed=7%|outliers=3|interrupted"), "disturbed 7 %, outliers 3, interrupted");
        assert_eq!(notes(""), "");
    }
}
