use expect_test::{Expect, expect};

use super::*;
use crate::scenario::{Options, Scenario};

const HEAD: &str = "[scenario]\nname = \"t\"\nquestion = \"?\"\n[[experiment]]\nkind = \"blkio\"\n";

fn parse(body: &str, options: &Options) -> Scenario {
    Scenario::parse(&format!("{HEAD}{body}"), "t.toml", options).unwrap_or_else(|error| panic!("{error}"))
}

fn only(case: &Case) -> (&str, &BlkioCase) {
    let Case { id, kind: CaseKind::Blkio(kind), .. } = case else { panic!("{}", case.id) };
    (id, kind)
}

fn cases(scenario: &Scenario) -> Vec<(&str, &BlkioCase)> {
    scenario.cases.iter().map(only).collect()
}

fn bad(body: &str, expected: Expect) {
    let error = Scenario::parse(&format!("{HEAD}{body}"), "t.toml", &Options::default()).expect_err("it was taken");
    expected.assert_eq(&format!("{error}\n"));
}

#[test]
fn ids_tell_what_is_limited() {
    let scenario = parse(
        "setting = [\"write_bps\", \"read_iops\", \"weight\"]\nbps = [\"4M\", 1000000]\nweights = [\"2:1\", \"400:100\"]\n\
         bfq = [\"strict\", \"default\"]\ncontainers = [1, 2]\n",
        &Options::default(),
    );
    let ids: Vec<&str> = cases(&scenario).into_iter().map(|(id, _)| id).collect();
    expect![[r#"
        blkio/builtin/write_bps/4M/direct
        blkio/builtin/write_bps/4M/direct/n2
        blkio/builtin/write_bps/1000000/direct
        blkio/builtin/write_bps/1000000/direct/n2
        blkio/builtin/read_iops/1000/direct
        blkio/builtin/read_iops/1000/direct/n2
        blkio/builtin/weight/2to1/direct
        blkio/builtin/weight/2to1/direct/default
        blkio/builtin/weight/400to100/direct
        blkio/builtin/weight/400to100/direct/default"#]]
    .assert_eq(&ids.join("\n"));
}

#[test]
fn blocks_are_small_enough_for_the_window() {
    let scenario = parse("setting = \"write_bps\"\nbps = [\"1M\", \"8M\", \"1G\"]\n", &Options::default());
    let sizes: Vec<u32> = cases(&scenario).into_iter().map(|(_, case)| case.block_size).collect();
    assert_eq!(sizes, [4096, 16384, 65536]);
}

#[test]
fn quick_keeps_whole_slices_and_requests_enough() {
    let body = "setting = [\"write_bps\", \"read_iops\", \"weight\"]\nduration = \"10s\"\niops = 100\nchange = 0.5\n";
    let quick = parse(body, &Options { quick: true, ..Options::default() });
    for (id, case) in cases(&quick) {
        assert_eq!(case.duration.as_nanos() % SLICE.as_nanos(), 0, "{id}");
        assert!(case.duration < Duration::from_secs(10), "{id}");
        let requests = operations_per_second(case) * case.duration.as_secs_f64();
        assert!(requests >= LEAST_OPERATIONS, "{id}: {requests} in {:?}", case.duration);
    }
}

#[test]
fn devices_are_of_three_kinds() {
    let body = "setting = \"read_bps\"\ndevice = [\"loop\", \"backing:/var/tmp\", \"/dev/sda\"]\n";
    let scenario = parse(body, &Options::default());
    let seen: Vec<_> = cases(&scenario).into_iter().map(|(id, case)| (id, case.device.clone())).collect();
    assert_eq!(
        seen,
        [
            ("blkio/builtin/read_bps/8M/direct/loop", BlockDevice::Loop),
            ("blkio/builtin/read_bps/8M/direct/backing--var-tmp", BlockDevice::Backing("/var/tmp".into())),
            ("blkio/builtin/read_bps/8M/direct/-dev-sda", BlockDevice::Named("/dev/sda".into())),
        ]
    );
}

#[test]
fn what_cannot_be_is_told_with_its_place() {
    bad(
        "setting = [\"read_bps\", \"weight\"]\nweights = [\"2:1\", \"0:1\"]\nio = [\"direct\", \"synced\"]\nruntime = \"floor\"\n\
         device = \"sda\"\nblock_size = 1000\nchange = 1\nduration = \"250ms\"\n",
        expect![[r#"
            t.toml:7:19: `weights`: `0:1` is not a pair of weights
              7 | weights = ["2:1", "0:1"]
                |                   ^^^^^
                = write two numbers from 1 to 1000, as in "200:100"

            t.toml:8:17: `io`: synced is a way to write, and a setting here reads
              8 | io = ["direct", "synced"]
                |                 ^^^^^^^^
                = put the two into [[experiment]]s of their own

            t.toml:9:11: `runtime`: the floor has no cgroup to put a limit on
              9 | runtime = "floor"
                |           ^^^^^^^
                = use "builtin"

            t.toml:10:10: `device`: `sda` is no device
              10 | device = "sda"
                 |          ^^^^^
                 = write "loop", "backing:/a/directory" or "/dev/NAME"

            t.toml:11:14: `block_size`: 1000 is not whole sectors
              11 | block_size = 1000
                 |              ^^^^
                 = a multiple of 512

            t.toml:12:10: `change`: 1 is out of range
              12 | change = 1
                 |          ^
                 = from 0.01 to 100, and not 1

            t.toml:13:12: `duration`: 250ms is not whole slices
              13 | duration = "250ms"
                 |            ^^^^^^^
                 = a multiple of 100ms
        "#]],
    );
    bad(
        "setting = \"write_iops\"\niops = 50\nduration = \"1s\"\n",
        expect![[r#"
        t.toml:4:1: 50 requests in 1s are too few to see an error of 1 %
          4 | [[experiment]]
            | ^^^^^^^^^^^^^^
            = at least 400: a longer duration, smaller blocks or a higher rate
    "#]],
    );
}
