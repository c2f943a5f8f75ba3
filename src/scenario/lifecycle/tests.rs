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
    wrong(
        "[]",
        expect![[r#"
        t.toml:7:9: `steps` is an empty list
          7 | steps = []
            |         ^^
            = begin with "run"
    "#]],
    );
    wrong(
        "[\"run\", \"pasue\"]",
        expect![[r#"
        t.toml:7:17: `steps`: unknown step `pasue`
          7 | steps = ["run", "pasue"]
            |                 ^^^^^^^
            = did you mean `pause`? known are run, pause, unpause, exec, stop, restart, rm
    "#]],
    );
    wrong(
        "[\"exec\", \"run\"]",
        expect![[r#"
        t.toml:7:10: `exec` makes no sense here: there is no container yet
          7 | steps = ["exec", "run"]
            |          ^^^^^^
            = begin with "run"
    "#]],
    );
    wrong(
        "[\"run\", \"pause\", \"exec\"]",
        expect![[r#"
        t.toml:7:26: `exec` makes no sense here: the container is paused
          7 | steps = ["run", "pause", "exec"]
            |                          ^^^^^^
            = put "unpause" before it
    "#]],
    );
    wrong(
        "[\"run\", \"unpause\"]",
        expect![[r#"
        t.toml:7:17: `unpause` makes no sense here: the container is not paused
          7 | steps = ["run", "unpause"]
            |                 ^^^^^^^^^
            = put "pause" before it
    "#]],
    );
    wrong(
        "[\"run\", \"stop\", \"pause\"]",
        expect![[r#"
        t.toml:7:25: `pause` makes no sense here: the container does not run
          7 | steps = ["run", "stop", "pause"]
            |                         ^^^^^^^
            = put "restart" before it
    "#]],
    );
    wrong(
        "[\"run\", \"stop\", \"run\"]",
        expect![[r#"
        t.toml:7:25: `run` makes no sense here: the container is there already
          7 | steps = ["run", "stop", "run"]
            |                         ^^^^^
            = use "restart"
    "#]],
    );
    wrong(
        "[\"run\", \"rm\", \"restart\"]",
        expect![[r#"
        t.toml:7:23: `restart` makes no sense here: the container has been removed
          7 | steps = ["run", "rm", "restart"]
            |                       ^^^^^^^^^
            = make "rm" the last step
    "#]],
    );
    wrong(
        "[\"run\", \"exec\", \"exec\", \"exec\", \"exec\", \"exec\"]",
        expect![[r#"
        t.toml:7:49: `exec` comes more than 4 times
          7 | steps = ["run", "exec", "exec", "exec", "exec", "exec"]
            |                                                 ^^^^^^
            = shorten the life and raise per_block
    "#]],
    );
    wrong(
        "7",
        expect![[r#"
        t.toml:7:9: `steps`: expected the name of a step, found a whole number
          7 | steps = 7
            |         ^
            = write it as in "run"
    "#]],
    );
}

#[test]
fn the_floor_takes_no_part() {
    bad(
        &format!("{LIFE}runtime = \"floor\"\n"),
        expect![[r#"
        t.toml:7:11: `runtime`: the floor has no control groups: it is a bare clone3 and exec
          7 | runtime = "floor"
            |           ^^^^^^^
            = use "builtin"
    "#]],
    );
}
