//! The run directory: every file format that a run leaves behind, written and read here and nowhere else.
//!
//! `cli` writes a directory after a run and reads it back to render it again. The raw files (`run.json`, `samples.csv`,
//! `phases.csv`, `histograms.csv`, `enforcement_samples.csv`) are what [`RunRecord::read`] reads; the derived ones
//! (`enforcement.csv`, `summary.csv`, `checks.csv`, and the summary in `run.json`) are for people and other programs and
//! are never read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::enforcement::judge_run;
use super::summary::SummaryRow;
use super::table::{ReadRow, from_csv, to_csv};
use super::{BlockRecord, CaseRecord, CheckRow, Fingerprint, RunMeta, RunRecord, SCHEMA_VERSION, Skip};
use crate::fs::{FileError, create_dirs, read_text, remove_if_there, write_atomic};
use crate::stats::histogram::HistogramError;

pub use super::table::FieldError;

/// How the run was asked for, where it ran, its cases, blocks and skips, and every summary row.
pub const RUN: &str = "run.json";
/// Every raw value.
pub const SAMPLES: &str = "samples.csv";
/// Every step of every waterfall.
pub const PHASES: &str = "phases.csv";
/// Every recorded distribution.
pub const HISTOGRAMS: &str = "histograms.csv";
/// Requested, achieved and accounted, a line a setting.
pub const ENFORCEMENT: &str = "enforcement.csv";
/// The raw measurements that `enforcement.csv` is made of.
pub const ENFORCEMENT_SAMPLES: &str = "enforcement_samples.csv";
/// One line a case and metric.
pub const SUMMARY: &str = "summary.csv";
/// One line a check and case.
pub const CHECKS: &str = "checks.csv";

/// Why a run directory cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file or the directory cannot be reached.
    #[error(transparent)]
    File(#[from] FileError),
    /// `run.json` is not JSON, or lacks something.
    #[error("{}:{line}:{column}: not what a run.json should hold", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The column, counted from 1.
        column: usize,
        /// What is wrong there.
        #[source]
        source: serde_json::Error,
    },
    /// A later isobench wrote it, in a form that this one would misread.
    #[error(
        "{} has schema version {found}, and this isobench reads up to {SCHEMA_VERSION}; read it with the isobench that \
         wrote it, or a later one",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A table is not CSV.
    #[error("{}:{line}: not a line of comma-separated fields like the header", path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong there.
        #[source]
        source: csv::Error,
    },
    /// A table lacks a column.
    #[error("{}:1: no column `{column}`; the header should be `{header}`", path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The header of a complete table.
        header: String,
    },
    /// A field is not what it should be.
    #[error(transparent)]
    Field(Box<FieldError>),
    /// A histogram has no text.
    #[error("cannot write the histogram of {metric} in case {case}")]
    Histogram {
        /// The case's id.
        case: String,
        /// The metric's name.
        metric: String,
        /// Why.
        #[source]
        source: HistogramError,
    },
    /// A table has no text.
    #[error("cannot encode a table")]
    Encode(#[source] csv::Error),
    /// `run.json` has no text.
    #[error("cannot encode run.json")]
    EncodeJson(#[source] serde_json::Error),
}

/// `run.json` as it is written.
#[derive(Serialize)]
struct RunFile<'a> {
    #[serde(flatten)]
    meta: &'a RunMeta,
    fingerprint: &'a Fingerprint,
    skips: &'a [Skip],
    blocks: &'a [BlockRecord],
    cases: &'a [CaseRecord],
    summary: &'a [SummaryRow],
}

/// What is read back of `run.json` beside its [`RunMeta`]: flattening would cost the errors their positions.
#[derive(Deserialize)]
struct Facts {
    fingerprint: Fingerprint,
    skips: Vec<Skip>,
    blocks: Vec<BlockRecord>,
    cases: Vec<CaseRecord>,
}

/// The first thing that is read of `run.json`.
#[derive(Deserialize)]
struct Version {
    schema_version: u32,
}

/// Writes every table and `run.json` into `dir`, which is made if it is missing.
///
/// Each file is replaced in one step. `run.json` comes last, so that a directory which holds one is complete.
///
/// # Errors
/// When a file cannot be written; the ones before it have been.
pub fn write_all(run: &RunRecord, summary: &[SummaryRow], checks: &[CheckRow], dir: &Path) -> Result<(), RecordError> {
    create_dirs(dir)?;
    // That of an earlier run must not stand beside the tables of this one.
    remove_if_there(dir.join(RUN))?;
    write_atomic(dir.join(SAMPLES), &to_csv(&run.samples)?)?;
    write_atomic(dir.join(PHASES), &to_csv(&run.phases)?)?;
    write_atomic(dir.join(HISTOGRAMS), &to_csv(&run.histograms)?)?;
    write_atomic(dir.join(ENFORCEMENT_SAMPLES), &to_csv(&run.enforcement_samples)?)?;
    write_derived(run, summary, checks, dir)
}

/// Writes what is made of the raw files alone, as when a run is rendered again: the tables and the summary in
/// `run.json`.
///
/// # Errors
/// When a file cannot be written.
pub fn write_derived(
    run: &RunRecord,
    summary: &[SummaryRow],
    checks: &[CheckRow],
    dir: &Path,
) -> Result<(), RecordError> {
    write_atomic(dir.join(ENFORCEMENT), &to_csv(&run.enforcement)?)?;
    write_atomic(dir.join(SUMMARY), &to_csv(summary)?)?;
    write_atomic(dir.join(CHECKS), &to_csv(checks)?)?;
    write_atomic(dir.join(RUN), &run_json(run, summary)?)?;
    Ok(())
}

fn run_json(run: &RunRecord, summary: &[SummaryRow]) -> Result<Vec<u8>, RecordError> {
    let file = RunFile {
        meta: &run.meta,
        fingerprint: &run.fingerprint,
        skips: &run.skips,
        blocks: &run.blocks,
        cases: &run.cases,
        summary,
    };
    let mut text = serde_json::to_vec_pretty(&file).map_err(RecordError::EncodeJson)?;
    text.push(b'\n');
    Ok(text)
}

impl RunRecord {
    /// Reads the raw files of a run directory.
    ///
    /// # Errors
    /// When a file is missing, was written by a later version, or is damaged; the error says where, and what would
    /// be right.
    pub fn read(dir: &Path) -> Result<Self, RecordError> {
        let path = dir.join(RUN);
        let text = read_text(&path)?;
        let Version { schema_version } = from_json(&text, &path)?;
        if schema_version > SCHEMA_VERSION {
            return Err(RecordError::Version { path, found: schema_version });
        }
        let meta: RunMeta = from_json(&text, &path)?;
        let Facts { fingerprint, skips, blocks, cases } = from_json(&text, &path)?;
        let ids: BTreeSet<&str> = cases.iter().map(|case| case.id.as_str()).collect();
        let enforcement_samples = table(dir, ENFORCEMENT_SAMPLES, &ids)?;
        Ok(Self {
            samples: table(dir, SAMPLES, &ids)?,
            phases: table(dir, PHASES, &ids)?,
            histograms: table(dir, HISTOGRAMS, &ids)?,
            enforcement: judge_run(&enforcement_samples, &cases, meta.seed),
            enforcement_samples,
            meta,
            fingerprint,
            skips,
            blocks,
            cases,
        })
    }
}

fn table<R: ReadRow>(dir: &Path, file: &str, cases: &BTreeSet<&str>) -> Result<Vec<R>, RecordError> {
    let path = dir.join(file);
    from_csv(&read_text(&path)?, &path, cases)
}

fn from_json<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, RecordError> {
    serde_json::from_str(text).map_err(|source| RecordError::Json {
        path: path.to_owned(),
        line: source.line(),
        column: source.column(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use tempfile::TempDir;

    use super::*;
    use crate::record::fixture::{empty_run, full_run};
    use crate::record::summary::summarise;
    use crate::record::table::Row;
    use crate::record::{EnforcementRow, HistogramRow, PhaseRow, Sample, Verdict};

    fn header<R: Row>() -> String {
        R::COLUMNS.join(",")
    }

    /// A directory with [`full_run`] in it.
    fn written() -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        let run = full_run();
        let check = CheckRow {
            check: "throughput min_ratio".to_owned(),
            case: "network/bridge".to_owned(),
            metric: "throughput".to_owned(),
            value: None,
            bound: ">= 0.5".to_owned(),
            verdict: Verdict::Skipped,
        };
        write_all(&run, &summarise(&run), &[check], &dir.path().join("new/run")).unwrap();
        dir
    }

    fn in_run(dir: &TempDir, file: &str) -> PathBuf {
        dir.path().join("new/run").join(file)
    }

    fn line(dir: &TempDir, file: &str, number: usize) -> String {
        read_text(in_run(dir, file)).unwrap().lines().nth(number - 1).unwrap_or_default().to_owned()
    }

    /// The message, without the directory's own path, of reading [`full_run`] with one text replaced in a file.
    fn damaged(file: &str, from: &str, to: &str) -> String {
        let dir = written();
        let text = read_text(in_run(&dir, file)).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        std::fs::write(in_run(&dir, file), text.replacen(from, to, 1)).unwrap();
        let error = RunRecord::read(&dir.path().join("new/run")).unwrap_err();
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        let prefix = format!("{}/", in_run(&dir, "").display().to_string().trim_end_matches('/'));
        format!("{error}{cause}").replace(&prefix, "")
    }

    #[test]
    fn a_run_survives_the_round_trip() {
        let dir = written();
        assert_eq!(RunRecord::read(&dir.path().join("new/run")).unwrap(), full_run());
    }

    #[test]
    fn headers_are_the_contract() {
        assert_eq!(header::<Sample>(), "case,metric,unit,block,iteration,value,start_ns,flags");
        assert_eq!(header::<PhaseRow>(), "case,block,iteration,phase,start_ns,duration_ns");
        assert_eq!(header::<HistogramRow>(), "case,metric,unit,block,iteration,count,histogram,flags");
        assert_eq!(
            header::<EnforcementRow>(),
            "case,controller,setting,requested,achieved,accounted,unit,error_pct,error_ci95_low,error_ci95_high,\
             accounting_error_pct,tolerance_pct,verdict,flags,judged"
        );
        assert_eq!(
            header::<SummaryRow>(),
            "case,experiment,runtime,network,metric,unit,better,n,min,p50,p90,p99,p999,max,mean,stddev,ci95_low,\
             ci95_high,ratio_to,ratio,ratio_ci95_low,ratio_ci95_high,flags"
        );
        assert_eq!(header::<CheckRow>(), "check,case,metric,value,bound,verdict");
    }

    #[test]
    fn empty_tables_have_their_headers() {
        let dir = tempfile::tempdir().unwrap();
        let run = empty_run(0);
        write_all(&run, &[], &[], dir.path()).unwrap();
        for file in [SAMPLES, PHASES, HISTOGRAMS, ENFORCEMENT, SUMMARY, CHECKS] {
            assert_eq!(read_text(dir.path().join(file)).unwrap().lines().count(), 1, "{file}");
        }
        assert_eq!(RunRecord::read(dir.path()).unwrap(), run);
    }

    #[test]
    fn values_are_written_so_that_others_can_read_them() {
        let dir = written();
        assert_eq!(line(&dir, SAMPLES, 2), "network/host,throughput,bit/s,0,0,0.30000000000000004,0,warmup");
        assert_eq!(line(&dir, SAMPLES, 5), "network/bridge,throughput,bit/s,1,0,1,1000000,steal|outlier");
        assert_eq!(line(&dir, PHASES, 2), "network/host,0,0,\"mount, overlay\",18446744073709551615,0");
        assert!(
            line(&dir, HISTOGRAMS, 2).starts_with("network/host,rtt,ns,0,0,3,HISTE"),
            "{}",
            line(&dir, HISTOGRAMS, 2)
        );
        assert_eq!(
            line(&dir, ENFORCEMENT, 2),
            "network/host,memory,limit,100,99.5,,bytes,-0.5,-0.5,-0.5,,1,pass,,achieved"
        );
        assert_eq!(line(&dir, CHECKS, 2), "throughput min_ratio,network/bridge,throughput,,>= 0.5,skipped");
        assert!(
            line(&dir, SUMMARY, 2).starts_with("network/host,network,builtin,bridge,throughput,bit/s,higher,2,1.3,")
        );
    }

    #[test]
    fn run_json_has_its_facts_at_the_top() {
        let dir = written();
        let value: serde_json::Value = serde_json::from_str(&read_text(in_run(&dir, RUN)).unwrap()).unwrap();
        assert_eq!(value["schema_version"], SCHEMA_VERSION);
        assert_eq!(value["seed"], u64::MAX);
        assert_eq!(value["scenario_toml"], "[scenario]\nname = \"bridge-vs-host\"\n");
        assert_eq!(value["fingerprint"]["facts"]["kernel"], "6.1, \"custom\"");
        assert_eq!(value["summary"][0]["metric"], "throughput");
        assert_eq!(value["summary"].as_array().unwrap().len(), 4);
    }

    #[test]
    fn a_later_schema_is_refused_before_anything_else() {
        let message = damaged(RUN, "\"schema_version\": 1", "\"schema_version\": 2");
        assert_eq!(
            message,
            "run.json has schema version 2, and this isobench reads up to 1; read it with the isobench that wrote it, or \
             a later one"
        );
    }

    #[test]
    fn damaged_files_are_refused_with_the_place_and_what_would_be_right() {
        for (file, from, to, expected) in [
            (SAMPLES, ",1,1000000,", ",fast,1000000,", "samples.csv:5: column 6 (value): `fast` is not a number"),
            (
                SAMPLES,
                "host,throughput",
                "lost,throughput",
                "samples.csv:2: column 1 (case): `network/lost` is not a case id of run.json",
            ),
            (SAMPLES, "bit/s", "MB/s", "samples.csv:2: column 3 (unit): `MB/s` is not the unit of throughput, bit/s"),
            (
                SAMPLES,
                "start_ns",
                "begin",
                "samples.csv:1: no column `start_ns`; the header should be `case,metric,unit,block,iteration,value,start_ns,flags`",
            ),
            (PHASES, ",0,0,\"", ",0,-1,\"", "phases.csv:2: column 3 (iteration): `-1` is not a whole number"),
            (
                HISTOGRAMS,
                "ns,0,0,3,",
                "ns,0,0,4,",
                "histograms.csv:2: column 6 (count): `4` is not the histogram's own count, 3",
            ),
            (
                ENFORCEMENT_SAMPLES,
                ",99.5,",
                ",most,",
                "enforcement_samples.csv:2: column 8 (achieved): `most` is not a number",
            ),
        ] {
            assert_eq!(damaged(file, from, to), expected);
        }
        let message = damaged(SAMPLES, "warmup", "warm");
        assert!(message.starts_with("samples.csv:2: column 8 (flags): `warm` is not a list of flags"), "{message}");
        let message = damaged(HISTOGRAMS, "HISTE", "-----");
        assert!(message.contains("column 7 (histogram)") && message.contains("…` is not the base64 text"), "{message}");
        let message = damaged(SAMPLES, ",0,warmup", ",0,warmup,more");
        assert!(message.starts_with("samples.csv:2: not a line of comma-separated fields"), "{message}");
        let message = damaged(RUN, "\"quick\": true", "\"quick\": 1");
        assert!(
            message.starts_with("run.json:10:12: not what a run.json should hold: invalid type: integer"),
            "{message}"
        );
        let message = damaged(RUN, "\"fingerprint\"", "\"machine\"");
        assert!(message.contains("missing field `fingerprint`"), "{message}");
    }

    #[test]
    fn further_columns_of_a_later_version_do_no_harm() {
        let dir = written();
        let text = read_text(in_run(&dir, PHASES)).unwrap();
        let wider: Vec<String> =
            text.lines().enumerate().map(|(i, l)| format!("{l},{}", if i == 0 { "cpu" } else { "3" })).collect();
        std::fs::write(in_run(&dir, PHASES), wider.join("\n")).unwrap();
        assert_eq!(RunRecord::read(&dir.path().join("new/run")).unwrap(), full_run());
    }

    #[test]
    fn a_missing_file_is_named() {
        let dir = written();
        std::fs::remove_file(in_run(&dir, HISTOGRAMS)).unwrap();
        let error = RunRecord::read(&dir.path().join("new/run")).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot read {}", in_run(&dir, HISTOGRAMS).display()));
    }
}
