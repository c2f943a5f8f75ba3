//! `kind = "freezer"`: every runtime × threads × frozen time. A case is called `freezer/<runtime>/t<threads>`, and
//! `/f<frozen>` is added where the file lists several values of it.

use std::time::Duration;

use super::matrix::product;
use super::read::{self, Table};
use super::{Case, CaseKind, FreezerCase, RuntimeKind};

/// The keys that span the matrix and the rest, for `isobench list`: name, values or range, default.
pub(super) const KEYS: &[super::Key] = &[
    ("runtime", "builtin", "\"builtin\"", "what is put under test"),
    ("threads", "1 to 1000", "1", "threads that never rest, all in one container"),
    ("frozen", "\"1ms\" to \"1m\"", "\"50ms\"", "how long they are watched while they are frozen"),
];

/// What a case measures.
pub(super) const METRICS: &[&str] = &["freeze_time", "thaw_time", "thaw_all_time"];

/// Reads one `[[experiment]]` of this kind and expands it to its cases.
pub(super) fn expand(mut table: Table<'_, '_>) -> Vec<Case> {
    let ms = Duration::from_millis(1);
    let runtimes = table.list("runtime", &[RuntimeKind::Builtin], read::grouped_runtime);
    let threads = table.list("threads", &[1], read::whole(1, 1000));
    let frozen = table.list("frozen", &[50 * ms], read::duration(ms, 60_000 * ms));
    table.finish();
    product([runtimes.len(), threads.len(), frozen.len()])
        .map(|[r, t, f]| {
            let case = FreezerCase { runtime: *runtimes.at(r), threads: *threads.at(t), frozen: *frozen.at(f) };
            let suffix = frozen.suffix(f, |frozen| format!("f{frozen:?}"));
            let id = format!("freezer/{}/t{}{suffix}", case.runtime, case.threads);
            Case { id, baseline: None, kind: CaseKind::Freezer(case) }
        })
        .collect()
}

/// The dimensions of a case beside runtime and network, as text.
pub(super) fn parameters(case: &FreezerCase) -> Vec<(&'static str, String)> {
    vec![("threads", case.threads.to_string()), ("frozen", format!("{:?}", case.frozen))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Options, Scenario};

    fn parse(body: &str, quick: bool) -> Scenario {
        let text = format!("[scenario]\nname = \"t\"\nquestion = \"?\"\n[[experiment]]\nkind = {body}");
        Scenario::parse(&text, "t.toml", &Options { quick, ..Options::default() }).unwrap()
    }

    fn ids(scenario: &Scenario) -> Vec<&str> {
        scenario.cases.iter().map(|case| case.id.as_str()).collect()
    }

    #[test]
    fn cases_are_named_by_what_differs() {
        let scenario = parse("\"freezer\"\nthreads = [1, 10]\n", false);
        assert_eq!(ids(&scenario), ["freezer/builtin/t1", "freezer/builtin/t10"]);
        let scenario = parse("\"freezer\"\nfrozen = [\"1ms\", \"2s\"]\n", false);
        assert_eq!(ids(&scenario), ["freezer/builtin/t1/f1ms", "freezer/builtin/t1/f2s"]);
        let scenario = parse("\"pids\"\nlimit = [8, 64]\n", false);
        assert_eq!(ids(&scenario), ["pids/builtin/8", "pids/builtin/64"]);
    }

    #[test]
    fn quick_watches_for_a_shorter_time() {
        let scenario = parse("\"freezer\"\nfrozen = \"5s\"\n", true);
        let CaseKind::Freezer(case) = &scenario.cases[0].kind else { panic!() };
        assert!(case.frozen < Duration::from_secs(5) && case.frozen >= Duration::from_millis(10));
    }

    #[test]
    fn metrics_exist_and_are_their_own() {
        let of = |name: &str| crate::record::metric::find(name).map(|metric| metric.experiment);
        assert!(METRICS.iter().all(|name| of(name) == Some("freezer")));
        assert!(crate::scenario::pids::METRICS.iter().all(|name| of(name) == Some("pids")));
    }
}
