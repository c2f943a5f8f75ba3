//! `kind = "memory"`: every runtime × setting × limit.
//!
//! A case is called `memory/<runtime>/<setting>/<limit>`, as in `memory/builtin/limit/64M`.

use super::matrix::product;
use super::read::{self, Table};
use super::{Case, CaseKind, MemoryCase, MemorySetting};

/// The keys that span the matrix and the rest, for `isobench list`: name, values or range, default.
pub(super) const KEYS: &[super::Key] = &[
    ("runtime", "builtin", "\"builtin\"", "what is put under test"),
    (
        "setting",
        "limit, cache, soft, no-swap, swap, shrink, shrink-cache",
        "required",
        "what is asked of the controller: see the experiment",
    ),
    ("limit", "\"4M\" to \"2G\"", "\"64M\"", "the limit, in bytes; kept by the kernel in whole pages"),
];

/// What a case measures, by its setting.
pub(super) fn metrics(setting: MemorySetting) -> &'static [&'static str] {
    match setting {
        MemorySetting::Limit | MemorySetting::NoSwap | MemorySetting::Swap => {
            &["page_touch", "charge_batch", "kill_delay", "oom_event_delay"]
        }
        MemorySetting::Cache => &["page_read"],
        MemorySetting::Soft => &["page_touch", "soft_excess", "memory_pressure"],
        MemorySetting::Shrink => &["shrink_time"],
        MemorySetting::ShrinkCache => &["shrink_time", "cache_kept"],
    }
}

/// Reads one `[[experiment]]` of this kind and expands it to its cases.
pub(super) fn expand(mut table: Table<'_, '_>) -> Vec<Case> {
    let runtimes = table.list("runtime", &[super::RuntimeKind::Builtin], read::grouped_runtime);
    let read_setting = read::name("memory setting", MemorySetting::ALL);
    let settings = table.required_list("setting", MemorySetting::ALL, read_setting);
    let limits = table.list("limit", &[64 << 20], read::bytes(4 << 20, 2 << 30));
    table.finish();
    product([runtimes.len(), settings.len(), limits.len()])
        .map(|[r, s, l]| {
            let case =
                MemoryCase { runtime: *runtimes.at(r), setting: *settings.at(s), limit: u64::from(*limits.at(l)) };
            let id = format!("memory/{}/{}/{}", case.runtime, case.setting, short(case.limit));
            Case { id, baseline: None, kind: CaseKind::Memory(case) }
        })
        .collect()
}

/// The dimensions of a case beside runtime and network, as text.
pub(super) fn parameters(case: &MemoryCase) -> Vec<(&'static str, String)> {
    vec![("setting", case.setting.to_string()), ("limit", case.limit.to_string())]
}

/// A byte count in the largest unit that it is a whole number of.
fn short(bytes: u64) -> String {
    let units = [(30, "G"), (20, "M"), (10, "K")];
    match units.into_iter().find(|(shift, _)| bytes.is_multiple_of(1 << shift)) {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Options, Scenario};

    fn parse(body: &str) -> Result<Scenario, String> {
        let text = format!("[scenario]\nname = \"t\"\nquestion = \"?\"\n[[experiment]]\nkind = \"memory\"\n{body}");
        Scenario::parse(&text, "t.toml", &Options::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_and_limits_multiply() {
        let scenario = parse("setting = [\"limit\", \"no-swap\"]\nlimit = [\"16M\", \"2G\", 5000000]\n").unwrap();
        let ids: Vec<&str> = scenario.cases.iter().map(|case| case.id.as_str()).collect();
        let expected = ["limit/16M", "limit/2G", "limit/5000000", "no-swap/16M", "no-swap/2G", "no-swap/5000000"];
        assert_eq!(ids, expected.map(|id| format!("memory/builtin/{id}")));
        let CaseKind::Memory(case) = &scenario.cases[1].kind else { panic!() };
        assert_eq!((case.setting, case.limit), (MemorySetting::Limit, 2 << 30));
        assert_eq!(scenario.cases[5].record().parameters.len(), 2);
    }

    #[test]
    fn what_cannot_be_measured_is_told() {
        for (body, told) in [
            ("", "lacks `setting`"),
            ("setting = \"hard\"", "unknown memory setting `hard`"),
            ("setting = \"limit\"\nlimit = \"1M\"", "from 4194304 to 2147483648"),
            ("setting = \"limit\"\nruntime = \"floor\"", "the floor has no control groups"),
        ] {
            let error = parse(body).unwrap_err();
            assert!(error.contains(told), "{body}: {error}");
        }
    }

    #[test]
    fn every_setting_has_metrics_of_its_own() {
        for name in MemorySetting::ALL.iter().flat_map(|setting| metrics(*setting)) {
            assert_eq!(crate::record::metric::find(name).map(|metric| metric.experiment), Some("memory"), "{name}");
        }
    }
}
