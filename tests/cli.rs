//! The program itself, from outside: what it prints, where, and with which exit code. Nothing here needs root.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs the program in the package's directory, without a terminal.
fn isobench(arguments: &[&str]) -> Output {
    isobench_in(Path::new(env!("CARGO_MANIFEST_DIR")), arguments)
}

fn isobench_in(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_isobench"))
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("the program was not killed")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("the output is UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("the output is UTF-8")
}

/// The output of a command that must succeed without complaint.
fn succeeds(arguments: &[&str]) -> String {
    let output = isobench(arguments);
    assert_eq!((code(&output), stderr(&output)), (0, String::new()), "{arguments:?}");
    stdout(&output)
}

/// The complaint of a command that must end with a usage or environment error, and must print no result.
fn is_refused(arguments: &[&str]) -> String {
    let output = isobench(arguments);
    assert_eq!((code(&output), stdout(&output)), (2, String::new()), "{arguments:?}");
    stderr(&output)
}

/// A scenario file in a directory of its own.
fn scenario(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wrong.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

fn shipped() -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut paths: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path().to_str().unwrap().to_owned())
        .filter(|path| path.ends_with(".toml"))
        .collect();
    paths.sort();
    assert!(paths.len() >= 3, "{paths:?}");
    paths
}

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let help = succeeds(&["--help"]);
    for word in ["run", "validate", "report", "doctor", "gc", "list", "completions", "130 interrupted"] {
        assert!(help.contains(word), "{word}:\n{help}");
    }
    let help = succeeds(&["run", "--help"]);
    for option in ["--out", "--quick", "--seed", "--set", "--dry-run", "--quiet", "--format"] {
        assert!(help.contains(option), "{option}:\n{help}");
    }
}

#[test]
fn the_version_is_the_packages() {
    assert_eq!(succeeds(&["--version"]), format!("isobench {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_ends_with_2() {
    assert!(is_refused(&["run", "--qiuck", "scenarios/smoke.toml"]).contains("--quick"));
    assert!(is_refused(&["run"]).contains("SCENARIO"));
    assert!(is_refused(&["validat"]).contains("'validate'"));
    assert!(is_refused(&["run", "scenarios/smoke.toml", "--seed", "-1"]).contains("-1"));
    assert!(is_refused(&[]).contains("Usage"));
}

#[test]
fn a_wrong_scenario_is_shown_with_its_line_and_column() {
    let (_directory, path) = scenario(
        "[scenario]\nname = \"x\"\nquestion = \"?\"\n[run]\nblokcs = 3\n[[experiment]]\nkind = \"startup\"\nnetwork = \"brigde\"\n",
    );
    for command in ["run", "validate"] {
        let complaint = is_refused(&[command, &path]);
        assert!(complaint.contains(&format!("{path}:5:1: unknown key `blokcs` in [run]")), "{complaint}");
        assert!(complaint.contains(&format!("{path}:8:11: `network`: unknown network mode `brigde`")), "{complaint}");
        assert!(complaint.contains("did you mean `blocks`?") && complaint.contains("  5 | blokcs = 3"), "{complaint}");
        assert!(!complaint.contains('\u{1b}'), "colour without a terminal: {complaint:?}");
    }
}

#[test]
fn one_wrong_scenario_of_several_stops_them_all_and_each_is_complained_of() {
    let (_one, first) = scenario("[scenario]\n");
    let (_two, second) = scenario("x = \n");
    let complaint = is_refused(&["run", &first, "scenarios/smoke.toml", &second]);
    assert!(complaint.contains(&first) && complaint.contains(&format!("{second}:1:")), "{complaint}");
    assert!(complaint.contains("2 of the scenarios cannot be run, so nothing is run"), "{complaint}");
}

#[test]
fn a_scenario_that_is_not_there_is_named_with_the_reason() {
    let complaint = is_refused(&["run", "/nonexistent/x.toml"]);
    assert_eq!(
        complaint,
        "error: cannot read /nonexistent/x.toml\n  because: No such file or directory (os error 2)\n"
    );
}

#[test]
fn every_shipped_scenario_is_valid_and_begins_with_its_question() {
    let paths = shipped();
    let mut arguments = vec!["validate"];
    arguments.extend(paths.iter().map(String::as_str));
    let output = succeeds(&arguments);
    assert_eq!(output.lines().count(), paths.len());
    assert!(output.lines().all(|line| line.contains(": ok, ")), "{output}");
    for path in &paths {
        let text = std::fs::read_to_string(path).unwrap();
        let question = text.lines().next().unwrap_or_default();
        assert!(question.starts_with("# ") && question.ends_with('?'), "{path}: {question}");
    }
}

#[test]
fn every_shipped_scenario_fits_its_time() {
    for path in shipped() {
        // Enforcement is measured over whole periods of the kernel's, which cannot be cut as short.
        let short = ["bridge-vs-host", "startup", "smoke"].iter().any(|name| path.contains(name));
        let quick = if short {
            20.0
        } else if path.contains("cpu-") {
            40.0
        } else {
            30.0
        };
        let full = if path.contains("enforcement") { 120.0 } else { 180.0 };
        for (arguments, most_s) in [(vec!["--quick"], quick), (vec![], full)] {
            let mut all = vec!["run", &path, "--dry-run", "--format", "json"];
            all.extend(arguments);
            let plan: serde_json::Value = serde_json::from_str(&succeeds(&all)).unwrap();
            let estimate_s = plan["plans"][0]["estimate_ns"].as_f64().unwrap() / 1e9;
            assert!(estimate_s > 0.0 && estimate_s < most_s, "{all:?}: {estimate_s} s");
        }
    }
}

#[test]
fn overrides_count_and_their_errors_name_them() {
    let plan = succeeds(&["run", "scenarios/smoke.toml", "--dry-run", "--seed", "1", "--set", "run.blocks=7"]);
    assert!(plan.contains("1 warm-up and 7 measured blocks"), "{plan}");
    let complaint = is_refused(&["run", "scenarios/smoke.toml", "--set", "run.blokcs=7"]);
    assert!(complaint.contains("--set run.blokcs=7: unknown key `blokcs` in [run]"), "{complaint}");
}

#[test]
fn a_dry_run_shows_the_same_plan_for_the_same_seed_and_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/smoke.toml");
    let arguments = ["run", path.to_str().unwrap(), "--dry-run", "--seed", "5"];
    let (one, two) = (isobench_in(directory.path(), &arguments), isobench_in(directory.path(), &arguments));
    assert_eq!((code(&one), &one.stdout), (0, &two.stdout));
    let plan = stdout(&one);
    assert!(plan.contains("seed 5") && plan.contains("order of the first block"), "{plan}");
    assert_eq!(plan.matches("network/builtin/bridge/internal/tcp_stream\n").count(), 1, "once in the order: {plan}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn list_shows_experiments_metrics_and_scenarios() {
    let list = succeeds(&["list"]);
    for word in
        ["kind = \"startup\"", "kind = \"network\"", "concurrency", "throughput", "bit/s", "bridge-vs-host.toml"]
    {
        assert!(list.contains(word), "{word}:\n{list}");
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let output = isobench_in(elsewhere.path(), &["list"]);
    assert!(code(&output) == 0 && stdout(&output).contains("there is no such directory here"));
}

#[test]
fn doctor_says_of_each_ability_whether_it_works_or_why_not() {
    let report: serde_json::Value = serde_json::from_str(&succeeds(&["doctor", "--format", "json"])).unwrap();
    assert!(report["facts"]["kernel"].is_string(), "{report}");
    let findings = report["findings"].as_array().unwrap();
    for name in
        ["memory", "pid", "net", "user", "overlay", "CAP_SYS_RESOURCE", "bfq", "swap", "two CPUs", "veth", "nf_tables"]
    {
        let finding =
            findings.iter().find(|finding| finding["name"] == name).unwrap_or_else(|| panic!("{name}: {report}"));
        let works = finding["works"].as_bool().unwrap();
        assert!(works || !finding["detail"].as_str().unwrap().is_empty(), "no reason: {finding}");
    }
    let text = succeeds(&["doctor"]);
    for later in ["macvlan", "ipvlan", "network = \"overlay\""] {
        assert!(!text.contains(later), "no scenario can have a case of it: {text}");
    }
    let missing = findings.iter().filter(|finding| finding["works"] == false).count();
    assert_eq!(text.matches("\n    because ").count(), missing, "{text}");
}

#[test]
fn doctor_leaves_the_mounts_as_they_were() {
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    succeeds(&["doctor"]);
    assert_eq!(mounts(), before);
}

#[test]
fn a_directory_that_is_no_run_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let complaint = is_refused(&["report", directory.path().to_str().unwrap()]);
    assert!(complaint.contains(&format!("cannot read {}/run.json", directory.path().display())), "{complaint}");
}

#[test]
fn completions_know_the_options() {
    for shell in ["bash", "zsh", "fish"] {
        let script = succeeds(&["completions", shell]);
        assert!(script.contains("dry-run"), "{shell}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_isobench"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), stderr(&output)), (0, String::new()));
}

#[test]
fn without_root_run_says_what_is_needed() {
    let directory = tempfile::tempdir().unwrap();
    let smoke = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/smoke.toml");
    let program = env!("CARGO_BIN_EXE_isobench");
    let mut command = Command::new(program);
    if nix::unistd::geteuid().is_root() {
        // An ordinary user may not enter this package's directory, so the file and the program are handed over open.
        command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]);
        let copy = directory.path().join("isobench");
        std::fs::copy(program, &copy).unwrap();
        command.arg(copy);
    }
    let copy = directory.path().join("smoke.toml");
    std::fs::copy(smoke, &copy).unwrap();
    let world = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), world).unwrap();
    let output =
        command.arg("run").arg(copy).current_dir(directory.path()).output().expect("setpriv is part of util-linux");
    let complaint = stderr(&output);
    assert_eq!(code(&output), 2, "{complaint}");
    assert!(complaint.contains("not root") && complaint.contains("sudo isobench run"), "{complaint}");
}

/// The entry point answers this before the C library runs (`sys::entry`); everything else must go on to `main`.
#[test]
fn stamp_tells_when_the_program_began() {
    let now = || nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    let nanoseconds = |time: nix::sys::time::TimeSpec| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64;
    let before = nanoseconds(now());
    let output = isobench(&["__workload", "stamp"]);
    let after = nanoseconds(now());
    assert_eq!((code(&output), stderr(&output)), (0, String::new()));
    let stamped = u64::from_le_bytes(output.stdout.try_into().expect("eight bytes"));
    assert!((before..=after).contains(&stamped), "{stamped} is not between {before} and {after}");
    for near in [&["__workload", "stam"][..], &["__workload", "stamps"], &["__workload"]] {
        let output = isobench(near);
        assert_eq!(code(&output), 2, "{near:?}");
        assert!(stdout(&output).contains("error") || !stderr(&output).is_empty(), "{near:?}");
    }
}

#[test]
fn init_ends_as_its_program_does() {
    let ends = |words: &[&str]| code(&isobench(&[&["__init", "--"], words].concat()));
    assert_eq!(ends(&["sh", "-c", "exit 7"]), 7);
    assert_eq!(ends(&["sh", "-c", "kill -TERM $$"]), 128 + 15);
    assert_eq!(ends(&["sh", "-c", "kill -40 $$"]), 128 + 40);
    assert_eq!(ends(&["/nowhere/to/be/found"]), 127);
    assert_eq!(ends(&["/"]), 126);
    assert!(is_refused(&["__init", "true"]).contains("-- PROGRAM"));
}

#[test]
fn init_gives_its_program_the_signals_as_it_got_them() {
    // 32 and 33 are the C library's own, which no program is passed.
    const RESERVED: u64 = 3 << 31;
    let sets = |status: &str| -> Vec<u64> {
        let sets = status.lines().filter_map(|line| line.split_whitespace().nth(1));
        sets.map(|bits| u64::from_str_radix(bits, 16).expect("bits") & !RESERVED).collect()
    };
    let words = ["grep", "-E", "SigBlk|SigIgn", "/proc/self/status"];
    let without = Command::new(words[0]).args(&words[1..]).output().expect("grep");
    let with = sets(&succeeds(&[&["__init", "--"], &words[..]].concat()));
    assert_eq!((with.len(), with), (2, sets(&stdout(&without))));
}

#[test]
fn init_passes_signals_on() {
    use std::io::{BufRead, BufReader};
    let script = "trap 'echo usr1; exit 3' USR1; echo ready; while :; do sleep 0.05; done";
    let mut init = Command::new(env!("CARGO_BIN_EXE_isobench"))
        .args(["__init", "--", "sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(init.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "ready");
    let pid = nix::unistd::Pid::from_raw(init.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGUSR1).unwrap();
    assert_eq!(lines.next().unwrap(), "usr1");
    assert_eq!(init.wait().unwrap().code(), Some(3));
}
