//! Golden errors of what refers to something else: checks, baselines, overrides, files.

use expect_test::expect;

use super::super::*;
use super::{HEAD, NETWORK, STARTUP, bad, bad_file, with_override};

#[test]
fn checks_that_cannot_be() {
    bad(
        &format!(
            "{STARTUP}[[check]]\nmetric = \"exit\"\ncase = \"startup/builtin/brigde/c1\"\nmax = 1\n[[check]]\nmetric = \"rtt\"\ncase = \"startup/builtin/host/c1\"\nmax = 1\n[[check]]\nmetric = \"exits\"\ncase = \"startup/builtin/host/c1\"\nmax = 1\n"
        ),
        expect![[r#"
            t.toml:9:8: no case is called `startup/builtin/brigde/c1`
              9 | case = "startup/builtin/brigde/c1"
                |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^
                = did you mean `startup/builtin/bridge/c1`? `*` stands for one whole part between slashes

            t.toml:12:10: `startup/builtin/host/c1` does not measure `rtt`
              12 | metric = "rtt"
                 |          ^^^^^
                 = it measures ready, exit, teardown, start_rate

            t.toml:16:10: `metric`: unknown metric `exits`
              16 | metric = "exits"
                 |          ^^^^^^^
                 = did you mean `exit`? known are ready, exit, teardown, start_rate, throughput, rtt, connects, messages, loss, cpu_per_byte, cpu_per_message, retransmits, harness_cpu, longest_stall, turn, throttled_periods, cpu_pressure, placement_looks, wakeup_latency, page_touch, page_read, charge_batch, kill_delay, oom_event_delay, soft_excess, memory_pressure, shrink_time, cache_kept, fork_time, refused_fork_time, freeze_time, thaw_time, thaw_all_time, io_throughput, io_operations, io_stall, io_cpu_wait, io_charged, settling_time, buffered_excess, weight_error, read_cost, victim_rate, victim_rtt, victim_latency, neighbour_killed, run, pause, pause_2, pause_3, pause_4, unpause, unpause_2, unpause_3, unpause_4, exec, exec_2, exec_3, exec_4, stop, stop_2, stop_3, stop_4, restart, restart_2, restart_3, restart_4, rm
        "#]],
    );
    bad(
        &format!(
            "{STARTUP}[[check]]\nmetric = \"exit\"\ncase = \"startup/*/host/*\"\nmax_ratio = 2\n[[check]]\nmetric = \"exit\"\ncase = \"startup/*/*/*\"\n[[check]]\nmetric = \"exit\"\ncase = \"startup/*/*/*\"\nmin = 2\nmax = \"1ns\"\n[[check]]\nmetric = \"start_rate\"\ncase = \"startup/*/*/*\"\nmin = \"5/s\"\nmax = -1\n"
        ),
        expect![[r#"
            t.toml:9:8: `startup/builtin/host/c1` has no baseline, so that there is no ratio to check
              9 | case = "startup/*/host/*"
                |        ^^^^^^^^^^^^^^^^^^
                = name a case that has one, give the experiment a baseline, or use min and max

            t.toml:11:1: the check has no bound
              11 | [[check]]
                 | ^^^^^^^^^
                 = add min_ratio, max_ratio, min or max

            t.toml:18:7: nothing is at least 2 and at most 1
              18 | max = "1ns"
                 |       ^^^^^
                 = exchange the two bounds

            t.toml:22:7: `min`: expected a number, found a string
              22 | min = "5/s"
                 |       ^^^^^
                 = write it in 1/s, without quotes

            t.toml:23:7: `max`: -1 is out of range
              23 | max = -1
                 |       ^^
                 = a finite number above 0
        "#]],
    );
}

#[test]
fn baselines_that_are_not_measured() {
    bad(
        &format!("{STARTUP}baseline = \"floor\"\n{NETWORK}baseline = \"container\"\n"),
        expect![[r#"
        t.toml:7:12: the baseline `floor` is not among the cases of this experiment
          7 | baseline = "floor"
            |            ^^^^^^^
            = add "floor" to the list, or name one that is in it

        t.toml:12:12: the baseline `container` is not among the cases of this experiment
          12 | baseline = "container"
             |            ^^^^^^^^^^^
             = add "container" to the list, or name one that is in it
    "#]],
    );
    bad(
        &format!("{STARTUP}baseline = \"hots\"\n"),
        expect![[r#"
        t.toml:7:12: `baseline`: `hots` is no network mode and no runtime
          7 | baseline = "hots"
            |            ^^^^^^
            = did you mean `host`? known are host, none, bridge, container, floor, builtin
    "#]],
    );
}

#[test]
fn a_case_twice() {
    bad(
        &format!("{STARTUP}[[experiment]]\nkind = \"startup\"\nnetwork = \"host\"\nper_block = 20\n"),
        expect![[r#"
        t.toml:7:1: the case `startup/builtin/host/c1` is there twice
          7 | [[experiment]]
            | ^^^^^^^^^^^^^^
            = give both values as a list in one [[experiment]], so that their ids differ
    "#]],
    );
}

#[test]
fn wrong_overrides() {
    let text = format!("{HEAD}{STARTUP}{NETWORK}");
    for (option, expected) in [
        (
            "run.blocks",
            expect![[r#"
            --set run.blocks: the override has no `=`
               | run.blocks
               | ^^^^^^^^^^
               = write --set KEY=VALUE, as in --set run.blocks=5
        "#]],
        ),
        (
            "run.blocks=",
            expect![[r#"
            --set run.blocks=: the override has no value
               | run.blocks=
               |            ^
               = write it after the `=`
        "#]],
        ),
        (
            "run..blocks=1",
            expect![[r#"
            --set run..blocks=1: the key has an empty part
               | run..blocks=1
               |     ^
               = write --set KEY=VALUE, as in --set run.blocks=5
        "#]],
        ),
        (
            "run.blokcs=5",
            expect![[r#"
            --set run.blokcs=5: unknown key `blokcs` in [run]
               | run.blokcs=5
               |     ^^^^^^
               = did you mean `blocks`? known are blocks, warmup_blocks, seed
        "#]],
        ),
        (
            "run.blocks=five",
            expect![[r#"
            --set run.blocks=five: `blocks`: expected a whole number, found a string
               | run.blocks=five
               |            ^^^^
               = write it as in 1
        "#]],
        ),
        (
            "experiment.7.duration=2s",
            expect![[r#"
            --set experiment.7.duration=2s: there is no item `7` in the list
               | experiment.7.duration=2s
               |            ^
               = the list has 2: 0 (startup), 1 (network)
        "#]],
        ),
        (
            "experiment.1.duration=2 weeks",
            expect![[r#"
            --set experiment.1.duration=2 weeks: `duration`: `2 weeks` is not a duration
               | experiment.1.duration=2 weeks
               |                       ^^^^^^^
               = write a number and a unit, as in "250ms", "1.5s" or "2m"
        "#]],
        ),
        (
            "experiment.0.network=[\"host\"",
            expect![[r#"
            --set experiment.0.network=["host": unclosed array, expected `]`
               | experiment.0.network=["host"
               |                             ^
               = write a TOML value, as in ["host", "bridge"], or a single word
        "#]],
        ),
        (
            "run.blocks.x.y=1",
            expect![[r#"
            --set run.blocks.x.y=1: `blocks`: expected a whole number, found a table
               | run.blocks.x.y=1
               |     ^^^^^^
               = write it as in 1
        "#]],
        ),
        (
            "scenario.name.x=1",
            expect![[r#"
            --set scenario.name.x=1: there is no `x` here: what stands before it is a string
               | scenario.name.x=1
               |               ^
               = end the key earlier
        "#]],
        ),
    ] {
        bad_file(&text, &with_override(option), expected);
    }
}

#[test]
fn a_file_that_is_not_there() {
    let error = Scenario::load("/nonexistent/s.toml", &Options::default()).unwrap_err();
    assert_eq!(error.to_string(), "cannot read /nonexistent/s.toml");
}
