//! The keys of the `cpu` experiment: what they expand to, and what is refused.

use expect_test::{Expect, expect};

use super::*;
use crate::scenario::{Options, Scenario};

const HEAD: &str = "[scenario]\nname = \"t\"\nquestion = \"What?\"\n[[experiment]]\nkind = \"cpu\"\n";

fn parse(body: &str, quick: bool) -> Scenario {
    let options = Options { quick, ..Options::default() };
    Scenario::parse(&format!("{HEAD}{body}"), "t.toml", &options).unwrap_or_else(|error| panic!("{error}"))
}

fn ids(body: &str) -> Vec<String> {
    parse(body, false).cases.into_iter().map(|case| case.id).collect()
}

/// The errors of a body, whose first line is the file's sixth.
fn bad(body: &str, expected: Expect) {
    let error = Scenario::parse(&format!("{HEAD}{body}"), "t.toml", &Options::default()).unwrap_err();
    expected.assert_eq(&format!("{error}\n"));
}

#[test]
fn each_setting_multiplies_its_own_lists() {
    assert_eq!(
        ids("setting = [\"shares\", \"quota\"]\nshares = [\"1024:512\", \"8:4:2\"]\nnested = [false, true]\n\
             percent = [10, 190]\nperiod = [\"10ms\", \"100ms\"]\nspin = \"free\"\n"),
        [
            "cpu/builtin/shares/1024:512",
            "cpu/builtin/shares/1024:512/nested",
            "cpu/builtin/shares/8:4:2",
            "cpu/builtin/shares/8:4:2/nested",
            "cpu/builtin/quota/10/10ms/free",
            "cpu/builtin/quota/10/100ms/free",
            "cpu/builtin/quota/190/10ms/free",
            "cpu/builtin/quota/190/100ms/free",
        ]
    );
    assert_eq!(
        ids("setting = \"cpuset\"\ncpus = [0, \"0-1,3\"]\nthreads = [2, 8]\nduration = [\"1s\", \"2s\"]\n")[7],
        "cpu/builtin/cpuset/0-1,3/t8/d2s"
    );
}

#[test]
fn defaults_are_as_documented() {
    let scenario = parse("setting = [\"shares\", \"quota\", \"cpuset\", \"wakeup\"]\n", false);
    let settings: Vec<CpuSetting> = (scenario.cases.iter())
        .map(|case| match &case.kind {
            CaseKind::Cpu(case) => {
                assert_eq!((case.runtime, case.duration), (RuntimeKind::Builtin, Duration::from_secs(2)));
                case.setting.clone()
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let (shares, period) = (vec![1024, 512], Duration::from_millis(100));
    assert_eq!(
        settings,
        [
            CpuSetting::Shares { shares: shares.clone(), nested: false, conservation: false },
            CpuSetting::Quota { percent: Limit::Value(50), period, spin: CpuSpin::Checked },
            CpuSetting::Cpuset { cpus: "0".to_owned(), threads: 4 },
            CpuSetting::Wakeup { shares },
        ]
    );
}

#[test]
fn a_contended_wake_up_goes_to_the_lonely_one() {
    let scenario = parse("setting = \"wakeup\"\nshares = [\"1024\", \"1024:512\", \"512:512\"]\n", false);
    let baselines: Vec<Option<&str>> = scenario.cases.iter().map(|case| case.baseline.as_deref()).collect();
    assert_eq!(baselines, [None, Some("cpu/builtin/wakeup/1024"), None]);
}

#[test]
fn a_quick_run_keeps_what_the_tolerance_needs() {
    let least = |body: &str| -> Vec<u128> {
        (parse(body, false).cases.iter())
            .map(|case| match &case.kind {
                CaseKind::Cpu(case) => shortest(case).as_millis(),
                other => panic!("{other:?}"),
            })
            .collect()
    };
    let shares = "setting = \"shares\"\nshares = [\"1024:512\", \"1024:256\", \"1024:1024:1024\", \"1024:2\"]\n";
    assert_eq!(least(&format!("{shares}duration = \"10s\"\n")), [750, 1250, 750, 2200]);
    let nested = "setting = \"shares\"\nnested = true\nduration = \"10s\"\n";
    assert_eq!(least(nested), [1125]);
    let quota = |rest: &str| least(&format!("setting = \"quota\"\nduration = \"10s\"\n{rest}"));
    assert_eq!(quota("percent = [50, 100, 190]\n"), [500, 1000, 526]);
    assert_eq!(quota("percent = 1\nspin = [\"checked\", \"free\"]\n"), [500, 2000]);
    assert_eq!(quota("percent = 50\nperiod = \"10ms\"\n"), [300]);
    // Never longer than the file says.
    assert_eq!(least("setting = \"shares\"\nduration = \"100ms\"\n"), [100]);
    // A quick run has at least that.
    let quick = parse(&format!("{shares}duration = \"10s\"\n"), true);
    let kept =
        (quick.cases.iter()).all(|case| matches!(&case.kind, CaseKind::Cpu(case) if case.duration >= shortest(case)));
    assert!(kept, "{:?}", quick.cases);
}

#[test]
fn no_quota_is_one_case_whatever_is_listed_beside_it() {
    let body = "setting = \"quota\"\npercent = [50, \"max\"]\nperiod = [\"10ms\", \"50ms\"]\n";
    let expected = ["cpu/builtin/quota/50/10ms", "cpu/builtin/quota/50/50ms", "cpu/builtin/quota/max"];
    assert_eq!(ids(body), expected);
}

#[test]
fn errors_say_where_and_what_would_be_right() {
    bad(
        "setting = \"quota\"\npercent = [50, 1]\nperiod = [\"100ms\", \"10ms\"]\n",
        expect![[r#"
        t.toml:7:16: 1 % of 10ms is less than 1ms, the smallest quota there is
          7 | percent = [50, 1]
            |                ^
            = give this percentage an [[experiment]] of its own, with a longer period
    "#]],
    );
    bad(
        "setting = \"quota\"\nnested = true\n",
        expect![[r#"
        t.toml:7:1: `nested` has no effect here
          7 | nested = true
            | ^^^^^^
            = it belongs to setting shares
    "#]],
    );
    bad(
        "setting = \"shares\"\nshares = [\"1024\", \"1:1024\"]\n",
        expect![[r#"
        t.toml:7:11: a share is a part of what several use
          7 | shares = ["1024", "1:1024"]
            |           ^^^^^^
            = name two numbers or more; a single one is for setting = "wakeup"

        t.toml:7:19: `shares`: `1:1024` are no shares
          7 | shares = ["1024", "1:1024"]
            |                   ^^^^^^^^
            = write 1 to 8 numbers from 2 to 262144, as in "1024:512"
    "#]],
    );
    bad(
        "setting = \"shares\"\nnested = true\nconservation = true\n",
        expect![[r#"
        t.toml:8:16: `nested` and `conservation` cannot be measured together
          8 | conservation = true
            |                ^^^^
            = give each an [[experiment]] of its own
    "#]],
    );
    bad(
        "setting = \"cpuset\"\ncpus = \"3-1\"\nruntime = \"floor\"\n",
        expect![[r#"
        t.toml:7:8: `cpus`: `3-1` is no list of CPUs
          7 | cpus = "3-1"
            |        ^^^^^
            = write numbers and ranges, as in "0-2,5"

        t.toml:8:11: `runtime`: the floor has no control groups, so no limits
          8 | runtime = "floor"
            |           ^^^^^^^
            = use "builtin"
    "#]],
    );
}
