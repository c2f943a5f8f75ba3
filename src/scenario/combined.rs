//! `kind = "combined"`: several limits on one container at once, several containers under one limit, and limits that
//! are changed while a container runs.
//!
//! A case is called `combined/<runtime>/<arrangement>`. Where the file lists several values of a further key, a part
//! is added for it, in this order: `/q<quota>`, `/p<period>`, `/m<memory>`, `/t<pids>`.

use std::time::Duration;

use super::matrix::product;
use super::read::{self, Table};
use super::{Case, CaseKind, RuntimeKind};

/// The keys, for `isobench list`: name, values or range, default.
pub(super) const KEYS: &[super::Key] = &[
    ("runtime", "builtin", "\"builtin\"", "what is put under test"),
    (
        "arrangement",
        "together, parent, changed",
        "all three",
        "one container under all limits; two under a parent's; limits changed while it runs",
    ),
    ("quota", "2 to 90", "30", "percent of one CPU; `changed` goes up by a half and down by a third"),
    ("period", "\"10ms\" to \"200ms\"", "\"100ms\"", "the period of the quota"),
    ("memory", "\"16M\" to \"256M\"", "\"64M\"", "bytes; `changed` goes up and down as the quota does"),
    ("pids", "8 to 1000", "24", "tasks; `changed` goes up and down as the quota does"),
    ("duration", "\"200ms\" to \"1m\"", "\"2s\"", "the time in which CPU use is measured"),
];

/// A combined case yields enforcement rows and no metric.
pub(super) const METRICS: &[&str] = &[];

named! {
    /// Who is under which limits.
    Arrangement {
        /// One container under all limits at once.
        Together = "together",
        /// Two containers inside a group that has the limits; they hold for the sum.
        Parent = "parent",
        /// One container whose limits are raised and lowered while it runs.
        Changed = "changed",
    }
}

/// A case of the `combined` experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CombinedCase {
    /// The runtime under test.
    pub runtime: RuntimeKind,
    /// Who is under which limits.
    pub arrangement: Arrangement,
    /// CPU time, in percent of one CPU.
    pub quota_pct: u32,
    /// The quota's period.
    pub period: Duration,
    /// Memory, in bytes.
    pub memory: u32,
    /// Tasks.
    pub pids: u32,
    /// How long CPU use is measured.
    pub duration: Duration,
}

impl CombinedCase {
    /// How often the limits are exercised in one block.
    #[must_use]
    pub fn rounds(&self) -> u32 {
        if self.arrangement == Arrangement::Changed { 3 } else { 1 }
    }

    /// Roughly how long one block takes.
    pub(super) fn estimate(&self) -> Duration {
        // Beside the window: the burner's run-up, and touching memory at a part of one CPU.
        (self.duration + Duration::from_millis(600)) * self.rounds()
    }
}

/// Reads one `[[experiment]]` of this kind and expands it to its cases.
pub(super) fn expand(mut table: Table<'_, '_>) -> Vec<Case> {
    let second = Duration::from_secs(1);
    let runtimes = table.list("runtime", &[RuntimeKind::Builtin], read::grouped_runtime);
    let arrangements = table.list("arrangement", Arrangement::ALL, read::name("arrangement", Arrangement::ALL));
    let quotas = table.list("quota", &[30], read::whole(2, 90));
    let periods = table.list("period", &[second / 10], read::duration(second / 100, second / 5));
    let memories = table.list("memory", &[64 << 20], read::bytes(16 << 20, 256 << 20));
    let pids = table.list("pids", &[24], read::whole(8, 1000));
    let duration = table.one("duration", read::duration(second / 5, second * 60));
    let duration = duration.map_or(second * 2, |found| found.value);
    let lengths = [runtimes.len(), arrangements.len(), quotas.len(), periods.len(), memories.len(), pids.len()];
    let cases = product(lengths)
        .map(|[r, a, q, p, m, t]| {
            let case = CombinedCase {
                runtime: *runtimes.at(r),
                arrangement: *arrangements.at(a),
                quota_pct: *quotas.at(q),
                period: *periods.at(p),
                memory: *memories.at(m),
                pids: *pids.at(t),
                duration,
            };
            let suffix = [
                quotas.suffix(q, |quota| format!("q{quota}")),
                periods.suffix(p, |period| format!("p{}", super::matrix::plain(*period))),
                memories.suffix(m, |bytes| format!("m{bytes}")),
                pids.suffix(t, |tasks| format!("t{tasks}")),
            ]
            .concat();
            let id = format!("combined/{}/{}{suffix}", case.runtime, case.arrangement);
            Case { id, baseline: None, kind: CaseKind::Combined(case) }
        })
        .collect();
    table.finish();
    cases
}

/// The dimensions of a case beside runtime and network, as text.
pub(super) fn parameters(case: &CombinedCase) -> Vec<(&'static str, String)> {
    vec![
        ("arrangement", case.arrangement.to_string()),
        ("quota_pct", case.quota_pct.to_string()),
        ("period", super::matrix::plain(case.period)),
        ("memory", case.memory.to_string()),
        ("pids", case.pids.to_string()),
        ("duration", super::matrix::plain(case.duration)),
    ]
}
