//! Tables as data: what they hold is decided here, how they are written by `html` and `markdown`.

use crate::record::summary::SummaryRow;
use crate::record::{CheckRow, EnforcementRow, RunRecord};

use super::chart::palette::Looks;
use super::figure::{self, Ratio};
use super::waterfall::Waterfall;
use super::{label, limits, verdict, waterfall as falls};

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

impl Table {
    /// Drops the columns that hold no value in any row.
    fn without_empty_columns(mut self) -> Self {
        let rows = || self.groups.iter().flat_map(|group| &group.rows);
        let holds = |index: usize| rows().any(|row| !row[index].is_empty() && row[index] != figure::ABSENT);
        let kept: Vec<bool> = (0..self.columns.len()).map(holds).collect();
        let mut keep = kept.iter();
        self.columns.retain(|_| keep.next().copied().unwrap_or(true));
        for row in self.groups.iter_mut().flat_map(|group| &mut group.rows) {
            let mut keep = kept.iter();
            row.retain(|_| keep.next().copied().unwrap_or(true));
        }
        self
    }
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
pub(super) fn summary(rows: &[SummaryRow], experiment: &str) -> Option<Table> {
    let rows: Vec<&SummaryRow> = rows.iter().filter(|row| row.experiment == experiment).collect();
    let groups: Vec<Group> = label::metrics(rows.iter().copied())
        .into_iter()
        .map(|metric| {
            let rows: Vec<&SummaryRow> = rows.iter().copied().filter(|row| row.metric == metric).collect();
            metric_group(metric, &rows)
        })
        .collect();
    if groups.is_empty() {
        return None;
    }
    let mut columns = columns(&["case"], &["median", "95 % interval", "p90", "p99", "p99.9", "ratio", "95 % interval"]);
    columns.push(Column { name: "ratio to".to_owned(), figures: false });
    columns.push(Column { name: "values".to_owned(), figures: true });
    columns.push(Column { name: "notes".to_owned(), figures: false });
    let caption = format!("{}: every case and metric", label::experiment(experiment));
    Some(Table { caption, columns, groups }.without_empty_columns())
}

fn metric_group(metric: &str, rows: &[&SummaryRow]) -> Group {
    let ids: Vec<&str> = rows.iter().map(|row| row.case.as_str()).collect();
    let names = label::short_ids(&ids);
    // A baseline has the name that its own row has.
    let baseline =
        |to: &str| ids.iter().position(|id| *id == to).map_or_else(|| to.to_owned(), |index| names[index].clone());
    let cells = |(row, name): (&&SummaryRow, &String)| {
        let value = |value: Option<f64>| figure::value(value, &row.unit);
        let ratio = Ratio::of(row);
        vec![
            name.clone(),
            value(Some(row.p50)),
            figure::interval(row.ci95_low, row.ci95_high, &row.unit),
            value(Some(row.p90)),
            value(row.p99),
            value(row.p999),
            ratio.map_or_else(|| figure::ABSENT.to_owned(), Ratio::text),
            ratio.and_then(Ratio::ci_text).unwrap_or_else(|| figure::ABSENT.to_owned()),
            ratio.and(row.ratio_to.as_deref()).map_or_else(|| figure::ABSENT.to_owned(), baseline),
            row.n.to_string(),
            notes(&row.flags),
        ]
    };
    Group {
        heading: label::metric_title(metric),
        meaning: label::meaning(metric).unwrap_or("").to_owned(),
        rows: rows.iter().zip(&names).map(cells).collect(),
    }
}

/// `disturbed=7%|outliers=3` as `disturbed 7 %, outliers 3`.
fn notes(flags: &str) -> String {
    flags.split('|').map(|flag| flag.replace(['=', '_'], " ").replace('%', " %")).collect::<Vec<_>>().join(", ")
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
        caption: "What was asked for, and what was measured".to_owned(),
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
    let phases = falls::in_order(falls.iter().map(|(_, fall)| &fall.median));
    let names: Vec<String> = falls.iter().map(|(name, _)| name.clone()).collect();
    let names = label::without_common(&names);
    let cell = |phase: &str, fall: &Waterfall| {
        let median = fall.medians.iter().find(|(name, _)| name == phase).map(|(_, ns)| *ns);
        match median {
            Some(ns) if fall.whole > 0.0 => format!("{} · {}", figure::value(ns, "ns"), whole_percent(ns / fall.whole)),
            Some(ns) => figure::value(ns, "ns"),
            None => figure::ABSENT.to_owned(),
        }
    };
    let row = |phase: &String| {
        std::iter::once(phase.clone()).chain(falls.iter().map(|(_, fall)| cell(phase, fall))).collect()
    };
    let whole =
        std::iter::once("whole".to_owned()).chain(falls.iter().map(|(_, fall)| figure::value(fall.whole, "ns")));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Some(Table {
        caption: format!(
            "The median of each phase, and its share of the median {}. Medians need not add up.",
            falls::subject(experiment)
        ),
        columns: columns(&["phase"], &names),
        groups: vec![
            Group { heading: String::new(), meaning: String::new(), rows: phases.iter().map(row).collect() },
            Group { heading: String::new(), meaning: String::new(), rows: vec![whole.collect()] },
        ],
    })
}

/// A share in whole percent; what is there but rounds to nothing says so.
fn whole_percent(share: f64) -> String {
    if share > 0.0 && share < 0.005 { "<1 %".to_owned() } else { format!("{:.0} %", share * 100.0) }
}

/// What was asked of each controller, and what came.
pub(super) fn enforcement(rows: &[EnforcementRow]) -> Option<Table> {
    let percent = |value: f64| format!("{} %", limits::percent(value));
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
            summary(&rows, "startup"),
            summary(&rows, "network"),
            checks(&fixture::checks()),
            waterfall(&run, &looks, "startup", &of_run(&run)),
        ];
        for table in tables.into_iter().map(Option::unwrap) {
            for row in table.groups.iter().flat_map(|group| &group.rows) {
                assert_eq!(row.len(), table.columns.len(), "{}: {row:?}", table.caption);
            }
        }
        assert_eq!(summary(&rows, "none such"), None);
    }

    #[test]
    fn a_row_reads_well() {
        let run = fixture::run();
        let table = summary(&fixture::summary(&run), "network").unwrap();
        expect_test::expect![[r#"
            host egress | 43.3 Gbit/s | 43.1–43.5 Gbit/s | 44.4 Gbit/s | – | – | – | 12 | disturbed 16 %
            host ingress | 43.8 Gbit/s | 43.4–44.2 Gbit/s | 44.5 Gbit/s | – | – | – | 12 | disturbed 16 %
            bridge egress | 40.9 Gbit/s | 40.7–41.1 Gbit/s | 41.5 Gbit/s | 0.94× | 0.93–0.96 | host egress | 12 | disturbed 16 %
            bridge ingress | 38.6 Gbit/s | 38.2–38.7 Gbit/s | 38.8 Gbit/s | 0.880× | 0.875–0.884 | host ingress | 12 | disturbed 16 %
        "#]].assert_eq(&table.groups[0].rows.iter().map(|row| row.join(" | ") + "\n").collect::<String>());
    }

    #[test]
    fn flags_become_words() {
        assert_eq!(notes("disturbed=7%|outliers=3|few_blocks"), "disturbed 7 %, outliers 3, few blocks");
        assert_eq!(notes(""), "");
    }
}
