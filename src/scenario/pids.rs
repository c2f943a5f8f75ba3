//! `kind = "pids"`: every runtime × limit. A case is called `pids/<runtime>/<limit>`.

use super::matrix::product;
use super::read::{self, Table};
use super::{Case, CaseKind, PidsCase, RuntimeKind};

/// The keys that span the matrix and the rest, for `isobench list`: name, values or range, default.
pub(super) const KEYS: &[super::Key] = &[
    ("runtime", "builtin", "\"builtin\"", "what is put under test"),
    ("limit", "2 to 10000", "64", "tasks that may be there at once"),
];

/// What a case measures.
pub(super) const METRICS: &[&str] = &["fork_time", "refused_fork_time"];

/// Reads one `[[experiment]]` of this kind and expands it to its cases.
pub(super) fn expand(mut table: Table<'_, '_>) -> Vec<Case> {
    let runtimes = table.list("runtime", &[RuntimeKind::Builtin], read::grouped_runtime);
    let limits = table.list("limit", &[64], read::whole(2, 10_000));
    table.finish();
    product([runtimes.len(), limits.len()])
        .map(|[r, l]| {
            let case = PidsCase { runtime: *runtimes.at(r), limit: *limits.at(l) };
            let id = format!("pids/{}/{}", case.runtime, case.limit);
            Case { id, baseline: None, kind: CaseKind::Pids(case) }
        })
        .collect()
}

/// The dimensions of a case beside runtime and network, as text.
pub(super) fn parameters(case: &PidsCase) -> Vec<(&'static str, String)> {
    vec![("limit", case.limit.to_string())]
}
