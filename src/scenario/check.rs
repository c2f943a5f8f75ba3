//! `[[check]]`: bounds on what the cases yield, and the patterns that name cases.

use super::raw::{Node, Value};
use super::read::{self, Table, Wrong};
use super::source::{Span, nearest};
use super::{Bound, Case, Check};
use crate::record::metric::{self, METRICS, Metric};
use crate::units;

/// The keys of a check, for `isobench list`.
pub(super) const KEYS: &[super::Key] = &[
    ("metric", "see the list of metrics", "required", "what is judged: its median"),
    ("case", "a pattern of case ids", "required", "`*` stands for one whole part between slashes"),
    ("min_ratio", "above 0", "", "the ratio to the baseline is at least this"),
    ("max_ratio", "above 0", "", "the ratio to the baseline is at most this"),
    ("min", "above 0, or \"5ms\"", "", "the value is at least this, in the metric's base unit"),
    ("max", "above 0, or \"5ms\"", "", "the value is at most this, in the metric's base unit"),
];

/// Whether two patterns can name the same case; `*` stands for one whole part between slashes, and a pattern without it
/// is a case's id.
#[must_use]
pub fn overlap(left: &str, right: &str) -> bool {
    let (mut left, mut right) = (left.split('/'), right.split('/'));
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            _ => return false,
        }
    }
}

/// Reads one `[[check]]`; each of its bounds is a check of its own.
///
/// `cases` is `None` when the experiments have errors of their own: then nothing is said of what they would yield.
pub(super) fn read(mut table: Table<'_, '_>, cases: Option<&[Case]>) -> Vec<Check> {
    let metric = table.required("metric", "\"exit\"", |node| {
        let name = read::text(node)?;
        metric::find(&name).ok_or_else(|| {
            let known: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
            Wrong::new(format!("unknown metric `{name}`"), super::source::suggest(&name, &known))
        })
    });
    let pattern = table.required("case", "\"startup/builtin/bridge/c1\"", read::text);
    let unit = metric.as_ref().map_or("", |metric| metric.value.unit);
    let bounds = [
        table.one("min_ratio", read::positive).map(|found| Bound::MinRatio(found.value)),
        table.one("max_ratio", read::positive).map(|found| Bound::MaxRatio(found.value)),
        table.one("min", |node| base_unit_value(node, unit)).map(|found| Bound::Min(found.value)),
        table.one("max", |node| base_unit_value(node, unit)).map(|found| Bound::Max(found.value)),
    ];
    reject_bad_bounds(&mut table, &bounds);
    if let (Some(metric), Some(pattern), Some(cases)) = (&metric, &pattern, cases) {
        let wants_ratio = bounds[..2].iter().any(Option::is_some);
        reject_bad_pattern(
            &mut table,
            metric.value,
            metric.span.clone(),
            &pattern.value,
            pattern.span.clone(),
            cases,
            wants_ratio,
        );
    }
    table.finish();
    let (Some(metric), Some(pattern)) = (metric, pattern) else { return Vec::new() };
    let check = |bound| Check { metric: metric.value.name.to_owned(), case: pattern.value.clone(), bound };
    bounds.into_iter().flatten().map(check).collect()
}

/// A number in the metric's base unit; for times also text such as `"5ms"`.
fn base_unit_value(node: &Node, unit: &str) -> Result<f64, Wrong> {
    let Value::String(text) = &node.value else { return read::positive(node) };
    let value = match unit {
        "ns" => units::parse_duration(text).map(|duration| duration.as_nanos() as f64),
        "bytes" => units::parse_bytes(text).map(|bytes| bytes as f64),
        _ => {
            return Err(Wrong::new("expected a number, found a string", format!("write it in {unit}, without quotes")));
        }
    };
    value.map_err(|error| Wrong::new(error.to_string(), "or write a number in the metric's base unit"))
}

fn reject_bad_bounds(table: &mut Table<'_, '_>, bounds: &[Option<Bound>; 4]) {
    let given = ["min_ratio", "max_ratio", "min", "max"].iter().any(|key| table.entry(key).is_some());
    if !given {
        table.problem(table.span(), "the check has no bound", "add min_ratio, max_ratio, min or max");
    }
    for (low, high, key) in [(bounds[0], bounds[1], "max_ratio"), (bounds[2], bounds[3], "max")] {
        let (Some(Bound::MinRatio(low) | Bound::Min(low)), Some(Bound::MaxRatio(high) | Bound::Max(high))) =
            (low, high)
        else {
            continue;
        };
        if low > high {
            let span = table.entry(key).map_or(table.span(), |entry| entry.node.span.clone());
            table.problem(span, format!("nothing is at least {low} and at most {high}"), "exchange the two bounds");
        }
    }
}

fn reject_bad_pattern(
    table: &mut Table<'_, '_>,
    metric: &Metric,
    metric_span: Span,
    pattern: &str,
    pattern_span: Span,
    cases: &[Case],
    wants_ratio: bool,
) {
    let named: Vec<&Case> = cases.iter().filter(|case| overlap(pattern, &case.id)).collect();
    if named.is_empty() {
        let help = match nearest(pattern, cases.iter().map(|case| case.id.as_str())) {
            Some(near) => format!("did you mean `{near}`? `*` stands for one whole part between slashes"),
            None => "`isobench run --dry-run` prints the case ids; `*` stands for one whole part".to_owned(),
        };
        table.problem(pattern_span, format!("no case is called `{pattern}`"), help);
        return;
    }
    // A pattern may reach further than the check: of its cases those count that yield the metric and have a baseline.
    let measuring: Vec<&&Case> = named.iter().filter(|case| case.kind.metrics().contains(&metric.name)).collect();
    if measuring.is_empty() {
        let message = format!("`{}` does not measure `{}`", named[0].id, metric.name);
        table.problem(metric_span, message, format!("it measures {}", named[0].kind.metrics().join(", ")));
    } else if wants_ratio && measuring.iter().all(|case| case.baseline.is_none()) {
        let message = format!("`{}` has no baseline, so that there is no ratio to check", measuring[0].id);
        let help = "name a case that has one, give the experiment a baseline, or use min and max";
        table.problem(pattern_span, message, help);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_whole_part() {
        for (pattern, id, expected) in [
            ("startup/builtin/bridge/c1", "startup/builtin/bridge/c1", true),
            ("startup/*/bridge/*", "startup/builtin/bridge/c1", true),
            ("startup/*", "startup/builtin/bridge/c1", false),
            ("startup/builtin/bridge/c*", "startup/builtin/bridge/c1", false),
            ("*/*/*/*/*", "startup/builtin/bridge/c1", false),
        ] {
            assert_eq!(overlap(pattern, id), expected, "{pattern} {id}");
        }
    }
}
