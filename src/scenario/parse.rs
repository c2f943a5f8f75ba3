//! From the raw tree to a [`Scenario`]: the tables of the file, in the order in which they depend on each other.

use super::raw::{Node, Value};
use super::read::{self, Found, Table, Wrong};
use super::source::{Problem, suggest};
use super::{
    Case, RunSettings, Scenario, accounting, blkio, check, combined, cpu, devices, freezer, interference, lifecycle,
    memory, network, pids, startup,
};

/// The keys of `[scenario]`.
pub(super) const SCENARIO_KEYS: &[super::Key] = &[
    ("name", "letters, digits, `-`, `_`, `.`", "required", "the run directory is called after it"),
    ("question", "text", "required", "what the scenario answers, in plain words"),
];

/// The keys of `[run]`.
pub(super) const RUN_KEYS: &[super::Key] = &[
    ("blocks", "1 to 100000", "30", "measured blocks; every case runs once a block"),
    ("warmup_blocks", "0 to 100000", "3", "blocks before them, kept and marked"),
    ("seed", "a whole number", "random", "of the order inside the blocks; recorded"),
];

/// The keys that every `[[experiment]]` has.
pub(super) const EXPERIMENT_KEYS: &[super::Key] = &[
    ("kind", "see below", "required", "what is measured"),
    ("enforce", "true, false", "true", "whether a limit that does not hold fails the run; false: it is only shown"),
];

/// The kinds of experiments.
const KINDS: &[&str] = &[
    "startup",
    "network",
    "cpu",
    "memory",
    "pids",
    "freezer",
    "blkio",
    "accounting",
    "devices",
    "combined",
    "interference",
    "lifecycle",
];

/// Reads the whole tree; `None` only when a required value is missing, which is then among the problems.
pub(super) fn validate(root: &Node, problems: &mut Vec<Problem>) -> Option<Scenario> {
    let mut top = Table::new("the file", root, problems);
    let header = top.entry("scenario").map(|entry| &entry.node);
    let run = top.entry("run").map(|entry| &entry.node);
    let experiments = items(&mut top, "experiment");
    let checks = items(&mut top, "check");
    if header.is_none() {
        top.problem(0..0, "the file has no [scenario]", "add [scenario] with a name and a question");
    }
    // Where `experiment` is no list, that has been said already.
    let listed = top.entry("experiment").is_none_or(|entry| matches!(entry.node.value, Value::Array(_)));
    if experiments.is_empty() && listed {
        top.problem(
            root.span.end..root.span.end,
            "the file has no experiment",
            "add one that begins with [[experiment]]",
        );
    }
    top.finish();

    let header = header.and_then(|node| read_header(node, problems));
    let run = read_run(run, problems);
    let before = problems.len();
    let mut cases: Vec<Case> = Vec::new();
    let mut unenforced: Vec<String> = Vec::new();
    for node in experiments {
        let (expanded, enforce) = read_experiment(node, problems);
        for case in expanded {
            if cases.iter().any(|known| known.id == case.id) {
                let help = "give both values as a list in one [[experiment]], so that their ids differ";
                problems.push(Problem::new(node.span.clone(), format!("the case `{}` is there twice", case.id), help));
                break;
            }
            if !enforce {
                unenforced.push(case.id.clone());
            }
            cases.push(case);
        }
    }
    let sound = problems.len() == before && !cases.is_empty();
    let mut all_checks = Vec::new();
    for node in checks {
        all_checks.extend(check::read(Table::new("[[check]]", node, problems), sound.then_some(cases.as_slice())));
    }
    let (name, question) = header?;
    Some(Scenario { name, question, run, cases, checks: all_checks, unenforced, source: String::new() })
}

/// The tables of a `[[key]]`.
fn items<'a>(top: &mut Table<'a, '_>, key: &'static str) -> &'a [Node] {
    let Some(entry) = top.entry(key) else { return &[] };
    match &entry.node.value {
        Value::Array(items) => items,
        other => {
            let message = format!("expected [[{key}]], found {}", other.type_name());
            top.problem(entry.key_span.clone(), message, format!("write [[{key}]], with two brackets"));
            &[]
        }
    }
}

fn read_header(node: &Node, problems: &mut Vec<Problem>) -> Option<(String, String)> {
    let mut table = Table::new("[scenario]", node, problems);
    let name = table.required("name", "\"my-question\"", |node| {
        let name = read::text(node)?;
        let fits =
            name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) && !name.starts_with(['.', '-']);
        if fits { Ok(name) } else { Err(Wrong::new(format!("`{name}` cannot name a directory"), SCENARIO_KEYS[0].1)) }
    });
    let question = table.required("question", "\"What does … cost?\"", read::text);
    table.finish();
    Some((name?.value, question?.value))
}

fn read_run(node: Option<&Node>, problems: &mut Vec<Problem>) -> RunSettings {
    let mut run = RunSettings { blocks: 30, warmup_blocks: 3, seed: None };
    let Some(node) = node else { return run };
    let mut table = Table::new("[run]", node, problems);
    if let Some(Found { value, .. }) = table.one("blocks", read::whole(1, 100_000)) {
        run.blocks = value;
    }
    if let Some(Found { value, .. }) = table.one("warmup_blocks", read::whole(0, 100_000)) {
        run.warmup_blocks = value;
    }
    run.seed = table.one("seed", read::seed).map(|found| found.value);
    table.finish();
    run
}

/// Reads one `[[experiment]]`; the second value says whether what its cases enforce counts.
fn read_experiment(node: &Node, problems: &mut Vec<Problem>) -> (Vec<Case>, bool) {
    let mut table = Table::new("[[experiment]]", node, problems);
    let enforce = table.one("enforce", read::boolean).is_none_or(|found| found.value);
    (read_kind(table), enforce)
}

fn read_kind(mut table: Table<'_, '_>) -> Vec<Case> {
    let Some(kind) = table.required("kind", "\"startup\"", read::text) else { return Vec::new() };
    match kind.value.as_str() {
        "startup" => startup::expand(table),
        "network" => network::expand(table),
        "cpu" => cpu::expand(table),
        "memory" => memory::expand(table),
        "pids" => pids::expand(table),
        "freezer" => freezer::expand(table),
        "blkio" => blkio::expand(table),
        "accounting" => accounting::expand(table),
        "devices" => devices::expand(table),
        "combined" => combined::expand(table),
        "interference" => interference::expand(table),
        "lifecycle" => lifecycle::expand(table),
        other => {
            table.problem(kind.span, format!("unknown kind of experiment `{other}`"), suggest(other, KINDS));
            Vec::new()
        }
    }
}
