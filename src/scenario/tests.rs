//! What comes out of a good file; the errors of bad ones are in `errors`, those of checks, baselines
//! and overrides in `references`.

use std::time::Duration;

use expect_test::Expect;

use super::*;

mod errors;
mod references;

const HEAD: &str = "[scenario]\nname = \"t\"\nquestion = \"What?\"\n";
const STARTUP: &str = "[[experiment]]\nkind = \"startup\"\nnetwork = [\"host\", \"bridge\"]\n";
const CPU: &str = "[[experiment]]\nkind = \"cpu\"\nsetting = [\"shares\", \"quota\", \"cpuset\", \"wakeup\"]\n";
const NETWORK: &str =
    "[[experiment]]\nkind = \"network\"\nnetwork = [\"host\", \"bridge\"]\ntest = [\"tcp_stream\", \"tcp_rr\"]\n";
const BLKIO: &str = "[[experiment]]\nkind = \"blkio\"\nsetting = [\"write_bps\", \"weight\"]\n";
const LIFECYCLE: &str = "[[experiment]]\nkind = \"lifecycle\"\nnetwork = \"none\"\n";
const ACCOUNTING: &str = "[[experiment]]\nkind = \"accounting\"\nresource = [\"cpu\", \"network\"]\n";

fn parse(text: &str, options: &Options) -> Scenario {
    Scenario::parse(text, "t.toml", options).unwrap_or_else(|error| panic!("{error}"))
}

pub(super) fn good(body: &str) -> Scenario {
    parse(&format!("{HEAD}{body}"), &Options::default())
}

pub(super) fn ids(scenario: &Scenario) -> Vec<&str> {
    scenario.cases.iter().map(|case| case.id.as_str()).collect()
}

fn baselines(scenario: &Scenario) -> Vec<(&str, Option<&str>)> {
    scenario.cases.iter().map(|case| (case.id.as_str(), case.baseline.as_deref())).collect()
}

/// The errors of a body after a sound `[scenario]`, which takes the first three lines.
pub(super) fn bad(body: &str, expected: Expect) {
    bad_file(&format!("{HEAD}{body}"), &Options::default(), expected);
}

fn bad_file(text: &str, options: &Options, expected: Expect) {
    let error = Scenario::parse(text, "t.toml", options).expect_err("the scenario is wrong, but was taken");
    expected.assert_eq(&format!("{error}\n"));
}

fn with_override(text: &str) -> Options {
    Options { overrides: vec![text.to_owned()], ..Options::default() }
}

#[test]
fn layers_and_cold_mark_the_id_where_they_are_listed() {
    let scenario = good(
        "[[experiment]]\nkind = \"startup\"\nruntime = [\"floor\", \"builtin\"]\nnetwork = \"none\"\n\
         layers = [1, 8]\ncold = [false, true]\n",
    );
    assert_eq!(
        baselines(&scenario),
        [
            ("startup/floor/none/c1", None),
            ("startup/builtin/none/c1/l1/warm", Some("startup/floor/none/c1")),
            ("startup/builtin/none/c1/l1/cold", Some("startup/floor/none/c1")),
            ("startup/builtin/none/c1/l8/warm", Some("startup/floor/none/c1")),
            ("startup/builtin/none/c1/l8/cold", Some("startup/floor/none/c1")),
        ]
    );
    let CaseKind::Startup(last) = &scenario.cases[4].kind else { panic!() };
    assert!(last.cold && last.layers == 8);
    let scalar = good("[[experiment]]\nkind = \"startup\"\nnetwork = \"none\"\nlayers = 8\ncold = true\n");
    assert_eq!(ids(&scalar), ["startup/builtin/none/c1"]);
    assert_eq!(scalar.cases[0].record().parameters["layers"], "8");
}

#[test]
fn defaults_are_as_documented() {
    let scenario = good("[[experiment]]\nkind = \"startup\"\nnetwork = \"none\"\n");
    assert_eq!(scenario.run, RunSettings { blocks: 30, warmup_blocks: 3, seed: None });
    assert_eq!(ids(&scenario), ["startup/builtin/none/c1"]);
    let CaseKind::Startup(case) = &scenario.cases[0].kind else { panic!() };
    assert_eq!(case.per_block, 10);

    let scenario = good(
        "[[experiment]]\nkind = \"network\"\nnetwork = \"bridge\"\ntest = [\"tcp_stream\", \"tcp_rr\", \"udp_stream\"]\n",
    );
    let sizes: Vec<u32> = (scenario.cases.iter())
        .map(|case| match &case.kind {
            CaseKind::Network(case) => {
                assert_eq!((case.duration, case.warmup), (Duration::from_secs(1), Duration::from_millis(100)));
                assert_eq!((case.path, case.streams, case.pin), (TrafficPath::Egress, 1, true));
                case.message_size
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sizes, [128 << 10, 1, 1400]);
}

#[test]
fn lists_multiply_in_the_order_of_the_documentation() {
    let scenario = good(
        "[[experiment]]\nkind = \"network\"\nnetwork = [\"bridge\"]\npath = [\"egress\", \"ingress\"]\n\
         test = \"tcp_stream\"\nmessage_size = [1024, \"64K\"]\nstreams = [1, 4]\npin = [false]\nduration = [\"500ms\", \"2s\"]\n",
    );
    assert_eq!(scenario.cases.len(), 16);
    assert_eq!(scenario.cases[0].id, "network/builtin/bridge/egress/tcp_stream/d500ms/m1024/s1");
    assert_eq!(scenario.cases[15].id, "network/builtin/bridge/ingress/tcp_stream/d2s/m65536/s4");
}

#[test]
fn the_floor_of_bridge_and_container_is_none() {
    let scenario = good(
        "[[experiment]]\nkind = \"startup\"\nruntime = [\"floor\", \"builtin\"]\n\
         network = [\"host\", \"none\", \"bridge\", \"container\"]\n",
    );
    assert_eq!(
        baselines(&scenario),
        [
            ("startup/floor/host/c1", None),
            ("startup/floor/none/c1", None),
            ("startup/builtin/host/c1", Some("startup/floor/host/c1")),
            ("startup/builtin/none/c1", Some("startup/floor/none/c1")),
            ("startup/builtin/bridge/c1", Some("startup/floor/none/c1")),
            ("startup/builtin/container/c1", Some("startup/floor/none/c1")),
        ]
    );
    let scenario =
        good("[[experiment]]\nkind = \"startup\"\nruntime = [\"builtin\", \"floor\"]\nnetwork = \"bridge\"\n");
    assert_eq!(
        baselines(&scenario),
        [("startup/builtin/bridge/c1", Some("startup/floor/none/c1")), ("startup/floor/none/c1", None)]
    );
}

#[test]
fn a_baseline_can_be_named() {
    let scenario = good(&format!("{STARTUP}concurrency = [1, 2]\nbaseline = \"host\"\n"));
    assert_eq!(
        baselines(&scenario),
        [
            ("startup/builtin/host/c1", None),
            ("startup/builtin/host/c2", None),
            ("startup/builtin/bridge/c1", Some("startup/builtin/host/c1")),
            ("startup/builtin/bridge/c2", Some("startup/builtin/host/c2")),
        ]
    );
    let scenario = good(&format!("{STARTUP}runtime = [\"floor\", \"builtin\"]\nbaseline = \"builtin\"\n"));
    assert_eq!(scenario.cases[0].baseline.as_deref(), Some("startup/builtin/host/c1"));
}

#[test]
fn a_network_case_goes_to_host_where_host_is_measured() {
    let scenario = good(NETWORK);
    assert_eq!(scenario.cases[1].baseline, None);
    assert_eq!(scenario.cases[2].id, "network/builtin/bridge/egress/tcp_stream");
    assert_eq!(scenario.cases[2].baseline.as_deref(), Some("network/builtin/host/egress/tcp_stream"));
    let alone = good("[[experiment]]\nkind = \"network\"\nnetwork = \"bridge\"\ntest = \"udp_rr\"\n");
    assert_eq!(alone.cases[0].baseline, None);
}

#[test]
fn each_bound_is_a_check() {
    let scenario = good(&format!(
        "{STARTUP}[[check]]\nmetric = \"exit\"\ncase = \"startup/*/bridge/*\"\nmin = 1\nmax = \"50ms\"\n"
    ));
    let bounds: Vec<Bound> = scenario.checks.iter().map(|check| check.bound).collect();
    assert_eq!(bounds, [Bound::Min(1.0), Bound::Max(50e6)]);
}

#[test]
fn a_pattern_may_reach_further_than_its_check() {
    let scenario =
        good(&format!("{NETWORK}[[check]]\nmetric = \"throughput\"\ncase = \"network/*/*/*/*\"\nmin_ratio = 0.5\n"));
    assert_eq!(scenario.checks.len(), 1);
}

#[test]
fn overrides_reach_by_position_by_kind_and_by_name() {
    let text = format!("{HEAD}{STARTUP}{NETWORK}");
    let options = Options {
        overrides: [
            "run.blocks=5",
            "experiment.1.duration=2s",
            "experiment.startup.per_block = 3",
            "experiment.network.path=[\"ingress\"]",
        ]
        .map(str::to_owned)
        .to_vec(),
        seed: Some(9),
        quick: false,
    };
    let scenario = parse(&text, &options);
    assert_eq!(scenario.run, RunSettings { blocks: 5, warmup_blocks: 3, seed: Some(9) });
    assert_eq!(scenario.source, text);
    let CaseKind::Startup(startup) = &scenario.cases[0].kind else { panic!() };
    assert_eq!(startup.per_block, 3);
    let CaseKind::Network(network) = &scenario.cases[2].kind else { panic!() };
    assert_eq!((network.duration, network.path), (Duration::from_secs(2), TrafficPath::Ingress));
}

#[test]
fn quick_fits_its_budget_and_keeps_the_ids() {
    let text =
        format!("{HEAD}{STARTUP}concurrency = [1, 4]\nper_block = 50\n{NETWORK}path = [\"egress\", \"ingress\"]\n");
    let full = parse(&text, &Options::default());
    let quick = parse(&text, &Options { quick: true, ..Options::default() });
    assert!(full.estimate() > Duration::from_secs(60));
    assert!(quick.estimate() <= estimate::QUICK_BUDGET, "{:?}", quick.estimate());
    assert!(quick.run.blocks >= 3 && quick.run.warmup_blocks >= 1);
    assert_eq!(ids(&full), ids(&quick));
    for case in &quick.cases {
        match &case.kind {
            CaseKind::Startup(case) => assert!(case.per_block >= case.concurrency),
            CaseKind::Network(case) => assert!(case.duration >= Duration::from_millis(100)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn quick_leaves_alone_what_is_short_and_never_raises() {
    let text = format!("{HEAD}[run]\nblocks = 2\nwarmup_blocks = 0\n{STARTUP}per_block = 1\n");
    let full = parse(&text, &Options::default());
    assert_eq!(parse(&text, &Options { quick: true, ..Options::default() }), full);
}

#[test]
fn every_kind_has_metrics_that_exist_and_are_its_own() {
    let scenario = good(&format!(
        "{STARTUP}{CPU}{BLKIO}{ACCOUNTING}{LIFECYCLE}{}",
        NETWORK.replace("\"tcp_rr\"", "\"tcp_rr\", \"tcp_crr\", \"udp_stream\", \"udp_rr\"")
    ));
    for case in &scenario.cases {
        for name in case.kind.metrics() {
            let metric = crate::record::metric::find(name).unwrap();
            assert_eq!(metric.experiment, case.kind.experiment(), "{name}");
        }
    }
}

#[test]
fn the_documented_keys_are_the_known_ones() {
    // An unknown key is answered with the known ones in the order in which they are read.
    for (title, keys) in TABLES {
        let body = match *title {
            "[scenario]" => format!("[scenario]\nzzz = 1\n{STARTUP}"),
            "[run]" => format!("{HEAD}[run]\nzzz = 1\n{STARTUP}"),
            "[[check]]" => format!("{HEAD}{STARTUP}[[check]]\nzzz = 1\n"),
            "[[experiment]] of every kind" => continue,
            // Keys that are missing are further mistakes, which do not hide this one.
            title => format!("{HEAD}{title}\nzzz = 1\n").replace("]] kind", "]]\nkind"),
        };
        let error = Scenario::parse(&body, "t.toml", &Options::default()).unwrap_err();
        let ScenarioError::Invalid(diagnostics) = error else { panic!() };
        let help = &diagnostics.iter().find(|one| one.message.contains("`zzz`")).unwrap().help;
        let known: Vec<&str> = help
            .strip_prefix("known are ")
            .unwrap()
            .split(", ")
            .filter(|key| !["kind", "enforce"].contains(key))
            .collect();
        for (key, ..) in *keys {
            assert!(known.contains(key), "{title} {key}: {help}");
        }
        let distinct: std::collections::BTreeSet<&str> = known.into_iter().collect();
        assert_eq!(distinct.len(), keys.len(), "{title}: {help}");
    }
}
