//! `isobench run SCENARIO...`: measures each scenario, writes its run directory, says what came out.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::error::{CliError, complain};
use super::output::{self, Format};
use super::progress::Progress;
use super::scenarios::{Loaded, load_all};
use super::{Ended, judge, plan, privileges, signals, turn};
use crate::cgroup::delegate::Homecoming;
use crate::container::gc;
use crate::experiment;
use crate::fs::{self, FileError};
use crate::record::{Fingerprint, RunMeta, SCHEMA_VERSION};
use crate::scenario::{Options, Scenario};
use crate::schedule;

/// The arguments of `isobench run`.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Scenario files
    #[arg(required = true, value_name = "SCENARIO")]
    scenarios: Vec<PathBuf>,
    /// Where to write [default: reports/<scenario>-<UTC time>; of several scenarios, each gets a directory inside]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Divide blocks and durations so that the whole ends within about 20 s
    #[arg(long)]
    quick: bool,
    /// Seed of the order inside the blocks [default: the scenario's, or a random one; recorded]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seed: Option<u64>,
    /// Replace a value of the file, as in run.blocks=5 or experiment.startup.per_block=3
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Show the cases, the order of the first block and the time it would take; run nothing
    #[arg(long)]
    dry_run: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// For whom the result is
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: RunArgs) -> Result<Ended, CliError> {
    let options = Options { quick: args.quick, overrides: args.overrides.clone(), seed: args.seed };
    let loaded = load_all(&args.scenarios, &options)?;
    let drawn = draw_seed();
    if args.dry_run {
        return dry_run(&loaded, drawn, args.format);
    }
    privileges::require()?;
    let directories = directories(args.out.as_deref(), &loaded, Timestamp::now())?;
    let stop = signals::stop_flag().map_err(CliError::Signals)?;
    let Some(_turn) = turn::take(&stop)? else { return Ok(Ended::Interrupted) };
    // On v2 this process may have to step out of its own group's way; it comes back however the run ends.
    let _home = Homecoming::new();

    let mut ended = Ended::Pass;
    let mut values = Vec::new();
    for (Loaded { scenario, .. }, directory) in loaded.iter().zip(&directories) {
        let seed = scenario.run.seed.unwrap_or(drawn);
        let (one, value) = run_one(scenario, seed, directory, &args, &stop)?;
        values.push(value);
        ended = ended.worst(one);
        if one == Ended::Interrupted {
            break;
        }
    }
    // The groups' common parent goes with the last run, and with it what killed runs left there.
    if let Err(error) = gc::collect() {
        complain(&CliError::Collect(Box::new(error)));
        ended = ended.worst(Ended::Error);
    }
    if args.format == Format::Json {
        output::print(&format!("{:#}\n", json!({ "exit_code": ended.code(), "runs": values })))?;
    }
    Ok(ended)
}

/// Measures one scenario. What breaks inside is said and is in the ending, so that the next scenario still runs.
fn run_one(
    scenario: &Scenario,
    seed: u64,
    directory: &Path,
    args: &RunArgs,
    stop: &AtomicBool,
) -> Result<(Ended, Value), CliError> {
    // Made first: a directory that cannot be written should be known before minutes of measuring.
    fs::create_dirs(directory)?;
    let meta = meta(scenario, seed, args);
    let fingerprint = Fingerprint::collect();
    let mut progress = Progress::new(scenario, args.quiet);
    let outcome = schedule::run(
        &scenario.cases,
        &scenario.run,
        seed,
        &mut experiment::for_case,
        &mut |event| progress.observe(event),
        stop,
    );
    progress.end();

    let mut ended = if outcome.interrupted { Ended::Interrupted } else { Ended::Pass };
    for error in outcome.failure.iter().chain(&outcome.cleanup) {
        complain(error);
        ended = ended.worst(Ended::Error);
    }
    if ended == Ended::Pass && outcome.cases.is_empty() {
        complain(&CliError::NothingMeasured(scenario.name.clone()));
    }
    let record = outcome.into_record(meta, fingerprint);
    let judged = judge::judge(record, scenario, directory)?;
    ended = ended.worst(judged.ended());
    if args.format == Format::Text {
        output::print(&judged.text())?;
    }
    Ok((ended, judged.value(ended)))
}

fn meta(scenario: &Scenario, seed: u64, args: &RunArgs) -> RunMeta {
    RunMeta {
        schema_version: SCHEMA_VERSION,
        isobench_version: env!("CARGO_PKG_VERSION").to_owned(),
        name: scenario.name.clone(),
        question: scenario.question.clone(),
        scenario_toml: scenario.source.clone(),
        overrides: args.overrides.clone(),
        quick: args.quick,
        seed,
        started_utc: Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        duration_ns: 0,
        interrupted: false,
    }
}

fn dry_run(loaded: &[Loaded], drawn: u64, format: Format) -> Result<Ended, CliError> {
    let seed = |scenario: &Scenario| scenario.run.seed.unwrap_or(drawn);
    let text = match format {
        Format::Text => {
            let plans: Vec<String> = loaded.iter().map(|one| plan::text(&one.scenario, seed(&one.scenario))).collect();
            plans.join("\n")
        }
        Format::Json => {
            let plans: Vec<Value> = loaded.iter().map(|one| plan::value(&one.scenario, seed(&one.scenario))).collect();
            format!("{:#}\n", json!({ "plans": plans }))
        }
    };
    output::print(&text)?;
    Ok(Ended::Pass)
}

/// A seed for runs that name none: small, so that it is easily typed again.
fn draw_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library's hash maps are keyed by the kernel's random numbers.
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    random & 0xffff_ffff
}

/// Where each scenario is written. Nothing is made yet.
fn directories(out: Option<&Path>, loaded: &[Loaded], now: Timestamp) -> Result<Vec<PathBuf>, CliError> {
    let mut taken: Vec<PathBuf> = Vec::new();
    for Loaded { scenario, .. } in loaded {
        let wanted = match out {
            Some(out) if loaded.len() == 1 => out.to_owned(),
            Some(out) => out.join(&scenario.name),
            None => Path::new("reports").join(format!("{}-{}", scenario.name, now.strftime("%Y%m%dT%H%M%SZ"))),
        };
        let is_free = |path: &Path| !taken.iter().any(|one| one == path) && (out.is_some() || !path.exists());
        // Two runs of one scenario within a second, or one file given twice.
        let directory = (2..).map(|number| with_number(&wanted, number));
        let directory = std::iter::once(wanted.clone()).chain(directory).find(|path| is_free(path)).unwrap_or(wanted);
        if is_occupied(&directory)? {
            return Err(CliError::Occupied(directory));
        }
        taken.push(directory);
    }
    Ok(taken)
}

fn with_number(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!("-{number}"));
    PathBuf::from(name)
}

/// Whether a directory holds something that is not a run of ours, which would be mixed up with it.
fn is_occupied(directory: &Path) -> Result<bool, CliError> {
    if directory.join("run.json").exists() {
        return Ok(false);
    }
    match std::fs::read_dir(directory) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(FileError::new("use the output directory", directory)(error).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(names: &[&str]) -> Vec<Loaded> {
        let one = |name: &&str| {
            let text = format!(
                "[scenario]\nname = \"{name}\"\nquestion = \"?\"\n[[experiment]]\nkind = \"startup\"\nnetwork = \"none\"\n"
            );
            let scenario = Scenario::parse(&text, "t.toml", &Options::default()).unwrap();
            Loaded { path: PathBuf::from("t.toml"), scenario }
        };
        names.iter().map(one).collect()
    }

    #[test]
    fn directories_are_called_after_scenario_and_time() {
        let now: Timestamp = "2026-11-24T06:45:00Z".parse().unwrap();
        let found = directories(None, &loaded(&["a", "b", "a"]), now).unwrap();
        let expected = ["reports/a-20261124T064500Z", "reports/b-20261124T064500Z", "reports/a-20261124T064500Z-2"];
        assert_eq!(found, expected.map(PathBuf::from));
    }

    #[test]
    fn out_is_the_directory_of_one_scenario_and_the_parent_of_several() {
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("out");
        let now = Timestamp::now();
        assert_eq!(directories(Some(&out), &loaded(&["a"]), now).unwrap(), std::slice::from_ref(&out));
        let several = directories(Some(&out), &loaded(&["a", "b", "a"]), now).unwrap();
        assert_eq!(several, ["a", "b", "a-2"].map(|name| out.join(name)));
    }

    #[test]
    fn a_directory_that_holds_something_else_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("thesis.tex"), "").unwrap();
        let refused = directories(Some(scratch.path()), &loaded(&["a"]), Timestamp::now());
        assert!(matches!(refused, Err(CliError::Occupied(path)) if path == scratch.path()));
        std::fs::write(scratch.path().join("run.json"), "").unwrap();
        assert!(directories(Some(scratch.path()), &loaded(&["a"]), Timestamp::now()).is_ok());
    }
}
