use expect_test::expect;

use super::super::tests::{bad, good, ids};
use super::*;

const LIFE: &str = "[[experiment]]\nkind = \"lifecycle\"\nnetwork = \"none\"\n";

#[test]
fn cases_are_named_by_what_differs() {
    let scenario = good(&format!("{}per_block = 3\n", LIFE.replace("\"none\"", "[\"none\", \"host\"]")));
    assert_eq!(ids(&scenario), ["lifecycle/builtin/none", "lifecycle/builtin/host"]);
    let scenario = good(&format!("{LIFE}image = [\"self\", \"a/b\"]\nper_block = [1, 2]\n"));
    assert_eq!(
        ids(&scenario),
        [
            "lifecycle/builtin/none/self/n1",
            "lifecycle/builtin/none/self/n2",
            "lifecycle/builtin/none/a_b/n1",
            "lifecycle/builtin/none/a_b/n2"
        ]
    );
}

#[test]
fn a_step_that_comes_again_has_a_number() {
    let metrics = |steps: &str| good(&format!("{LIFE}{steps}\n")).cases[0].kind.metrics();
    assert_eq!(metrics(""), ["run", "pause", "unpause", "exec", "stop", "restart", "rm"]);
    assert_eq!(
        metrics("steps = [\"run\", \"exec\", \"exec\", \"restart\", \"exec\", \"stop\", \"restart\", \"rm\"]"),
        ["run", "exec", "exec_2", "restart", "exec_3", "stop", "restart_2", "rm"]
    );
    assert_eq!(metrics("steps = \"run\""), ["run"]);
}

#[test]
fn every_metric_is_in_the_list() {
    let all: Vec<&str> = Step::ALL.iter().flat_map(|step| names(*step)).copied().collect();
    crate::record::metric::tests::listed("lifecycle", &all);
}

#[test]
fn quick_takes_fewer_lives() {
    let text = format!("[scenario]\nname = \"t\"\nquestion = \"?\"\n{LIFE}per_block = 10000\n");
    let quick = crate::scenario::Options { quick: true, ..Default::default() };
    let scenario = crate::scenario::Scenario::parse(&text, "t.toml", &quick).unwrap();
    let CaseKind::Lifecycle(case) = &scenario.cases[0].kind else { panic!() };
    assert!((2..10_000).contains(&case.per_block), "{}", case.per_block);
}

#[test]
fn steps_that_make_no_sense() {
    let wrong = |steps: &str, expected| bad(&format!("{LIFE}steps = {steps}\n"), expected);
    wrong("[]", expect![[r#""#]]);
    wrong("[\"run\", \"pasue\"]", expect![[r#""#]]);
    wrong("[\"exec\", \"run\"]", expect![[r#""#]]);
    wrong("[\"run\", \"pause\", \"exec\"]", expect![[r#""#]]);
    wrong("[\"run\", \"unpause\"]", expect![[r#""#]]);
    wrong("[\"run\", \"stop\", \"pause\"]", expect![[r#""#]]);
    wrong("[\"run\", \"stop\", \"run\"]", expect![[r#""#]]);
    wrong("[\"run\", \"rm\", \"restart\"]", expect![[r#""#]]);
    wrong("[\"run\", \"exec\", \"exec\", \"exec\", \"exec\", \"exec\"]", expect![[r#""#]]);
    wrong("7", expect![[r#""#]]);
}

#[test]
fn the_floor_takes_no_part() {
    bad(&format!("{LIFE}runtime = \"floor\"\n"), expect![[r#""#]]);
}
