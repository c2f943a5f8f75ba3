//! `isobench run --dry-run`: the cases, the order of the first block, and how long it would take.

use serde_json::{Value, json};

use super::output::BOLD;
use super::pace::rough;
use crate::scenario::Scenario;
use crate::schedule::block_order;

/// The plan of a run, for people.
pub(super) fn text(scenario: &Scenario, seed: u64) -> String {
    let mut text = format!(
        "{BOLD}{}{BOLD:#}: {}\n{} cases, {} warm-up and {} measured blocks, about {}, seed {seed}\n\n\
         {BOLD}cases{BOLD:#} (and what their ratios are made to)\n",
        scenario.name,
        scenario.question,
        scenario.cases.len(),
        scenario.run.warmup_blocks,
        scenario.run.blocks,
        rough(scenario.estimate()),
    );
    for case in &scenario.cases {
        let baseline = case.baseline.as_ref().map(|baseline| format!(" ({baseline})")).unwrap_or_default();
        text.push_str(&format!("  {}{baseline}\n", case.id));
    }
    text.push_str(&format!("\n{BOLD}order of the first block{BOLD:#}\n"));
    for id in first_block(scenario, seed) {
        text.push_str(&format!("  {id}\n"));
    }
    text
}

/// The plan of a run, for machines.
pub(super) fn value(scenario: &Scenario, seed: u64) -> Value {
    let cases: Vec<Value> =
        scenario.cases.iter().map(|case| json!({ "id": case.id, "baseline": case.baseline })).collect();
    json!({
        "scenario": scenario.name,
        "question": scenario.question,
        "seed": seed,
        "warmup_blocks": scenario.run.warmup_blocks,
        "blocks": scenario.run.blocks,
        "estimate_ns": crate::units::ns(scenario.estimate()),
        "cases": cases,
        "first_block": first_block(scenario, seed),
    })
}

fn first_block(scenario: &Scenario, seed: u64) -> Vec<&str> {
    let order = block_order(seed, 0, scenario.cases.len());
    order.into_iter().map(|index| scenario.cases[index].id.as_str()).collect()
}
