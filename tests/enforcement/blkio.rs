//! Block I/O: the experiment against the kernel, against fio, and against runtimes that are wrong by design.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isobench::cgroup::{Controller, Group, Hierarchy, Layout, Limits, blkio};
use isobench::experiment::Experiment;
use isobench::experiment::blkio::BlkioExperiment;
use isobench::lab::disk::Disk;
use isobench::record::{EnforcementRow, Verdict};
use isobench::runtime::Runtime;
use isobench::scenario::blkio::{BlkioCase, BlkioLimit, BlockDevice};
use isobench::scenario::{BfqMode, BlkioSetting, BlockIo, RuntimeKind};

use crate::faulty::{Fault, faultless, faulty};
use crate::harness::Case;
use crate::judge;

const FIO: &str = "/usr/bin/fio";

/// A directory that is on a disk on most machines.
const ON_DISK: &str = "/var/tmp";

/// One test at a time: they measure times, and look at the schedulers of all loop devices.
static ALONE: Mutex<()> = Mutex::new(());

type Outcome = Result<(), Box<dyn Error>>;

pub fn cases() -> Vec<Case> {
    let loops = Path::new("/dev/loop-control").exists();
    let ours: [(&'static str, crate::harness::Body); 9] = [
        ("blkio::throttles_are_measured_and_charged", throttles_are_measured_and_charged),
        ("blkio::two_containers_are_told_apart", two_containers_are_told_apart),
        ("blkio::a_changed_throttle_is_seen", a_changed_throttle_is_seen),
        ("blkio::buffered_writes_are_told_and_not_judged", buffered_writes_are_told_and_not_judged),
        ("blkio::a_runtime_that_forgets_the_limits_fails", forgetting_fails),
        ("blkio::a_runtime_that_writes_half_fails", half_fails),
        ("blkio::a_runtime_without_the_controller_fails", leaving_out_fails),
        ("blkio::the_disk_goes_with_its_owner", the_disk_goes_with_its_owner),
        ("blkio::v1_counts_a_device_from_its_first_throttle_on", v1_counts_from_the_first_throttle),
    ];
    let mut all: Vec<Case> = ours.map(|(name, body)| Case::new(name, body).needs(loops, "needs loop devices")).into();
    let all_have = |case: Case| case.needs(loops, "needs loop devices");
    let bfq = schedulers().values().any(|known| known.contains("bfq"));
    let with_bfq = |case: Case| all_have(case).needs(bfq, "needs BFQ in the kernel");
    all.push(with_bfq(Case::new("blkio::bfq_gives_the_parts", bfq_gives_the_parts)));
    all.push(with_bfq(Case::new("blkio::killed_runs_leave_no_loop_device", killed_runs_leave_no_loop_device)));
    let below = Case::new("blkio::a_disk_below_a_path_is_throttled", a_disk_below_a_path_is_throttled);
    let disk = Disk::backed_by(Path::new(ON_DISK), 1 << 20).is_ok();
    all.push(all_have(below).needs(disk, "needs /var/tmp on a disk of its own, with direct I/O"));
    let fio = Case::new("blkio::fio_sees_the_same_throttle", fio_sees_the_same_throttle);
    all.push(all_have(fio).needs(Path::new(FIO).exists(), "needs fio"));
    all
}

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn throttle(setting: BlkioSetting, rate: u64) -> BlkioCase {
    BlkioCase {
        runtime: RuntimeKind::Builtin,
        limit: BlkioLimit::Throttle { setting, rate, change: None },
        io: BlockIo::Direct,
        block_size: 4096,
        queue_depth: 1,
        device: BlockDevice::Loop,
        containers: 1,
        duration: Duration::from_millis(500),
    }
}

/// Runs a case for some blocks and judges it.
struct Judged {
    rows: Vec<EnforcementRow>,
    metrics: BTreeMap<&'static str, Vec<f64>>,
}

impl Judged {
    fn row(&self, setting: &str) -> &EnforcementRow {
        self.rows.iter().find(|row| row.setting == setting).unwrap_or_else(|| panic!("no {setting} in {:?}", self.rows))
    }

    /// The middle of a metric's values.
    fn metric(&self, name: &str) -> f64 {
        let mut values = self.metrics.get(name).cloned().unwrap_or_default();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_else(|| panic!("no {name}"))
    }
}

fn run(case: BlkioCase, runtime: Arc<dyn Runtime>, blocks: u32) -> Result<Judged, Box<dyn Error>> {
    let (rows, seen) = judge::judged(&mut BlkioExperiment::new(case, runtime), blocks)?;
    let mut metrics = BTreeMap::<_, Vec<f64>>::new();
    for value in seen.values {
        metrics.entry(value.metric.name).or_default().push(value.value);
    }
    Ok(Judged { rows, metrics })
}

/// Other programs may take the CPU from the container, so a rate is only held against gross errors here; that it is
/// within 1 % on a quiet machine is what the scenario says. The account is exact whatever happens.
fn throttles_are_measured_and_charged() -> Outcome {
    let _alone = alone();
    for (setting, rate) in [
        (BlkioSetting::ReadBps, 4 << 20),
        (BlkioSetting::WriteBps, 4 << 20),
        (BlkioSetting::ReadIops, 1000),
        (BlkioSetting::WriteIops, 1000),
    ] {
        let judged = run(throttle(setting, rate), faultless()?, 3)?;
        let row = judged.row(setting.as_str());
        assert_eq!(row.requested, rate as f64);
        assert!(row.error_pct.abs() < 25.0, "{row:?}");
        for exact in ["bytes", "operations"] {
            let row = judged.row(exact);
            assert!(row.requested > 0.0 && row.verdict == Verdict::Pass && row.error_pct == 0.0, "{row:?}");
        }
    }
    Ok(())
}

fn two_containers_are_told_apart() -> Outcome {
    let _alone = alone();
    let case = BlkioCase { containers: 2, block_size: 8192, ..throttle(BlkioSetting::WriteBps, 8 << 20) };
    let judged = run(case, faultless()?, 2)?;
    let (a, b) = (judged.row("bytes/a"), judged.row("bytes/b"));
    assert_eq!((a.verdict, b.verdict), (Verdict::Pass, Verdict::Pass), "{:?}", judged.rows);
    assert!(a.requested > b.requested, "the two must differ, or nothing is attributed: {a:?} {b:?}");
    assert_eq!((judged.row("operations/a").error_pct, judged.row("operations/b").error_pct), (0.0, 0.0));
    Ok(())
}

fn a_changed_throttle_is_seen() -> Outcome {
    let _alone = alone();
    let limit = BlkioLimit::Throttle { setting: BlkioSetting::WriteBps, rate: 4 << 20, change: Some(4.0) };
    let judged = run(BlkioCase { limit, ..throttle(BlkioSetting::WriteBps, 0) }, faultless()?, 3)?;
    let (before, after) = (judged.row("write_bps"), judged.row("write_bps/changed"));
    assert_eq!((before.requested, after.requested), (f64::from(4 << 20), f64::from(16 << 20)));
    assert!(after.achieved > 2.0 * before.achieved, "{before:?} {after:?}");
    assert!(judged.metric("settling_time") >= 0.0);
    assert_eq!(judged.row("bytes").error_pct, 0.0, "the account goes over the change");
    Ok(())
}

fn buffered_writes_are_told_and_not_judged() -> Outcome {
    let _alone = alone();
    let case = BlkioCase { io: BlockIo::Buffered, ..throttle(BlkioSetting::WriteBps, 4 << 20) };
    let judged = run(case.clone(), faultless()?, 1)?;
    assert!(judged.rows.is_empty(), "{:?}", judged.rows);
    // The cache takes far more than the throttle would let through.
    assert!(judged.metric("buffered_excess") > 5.0);
    let synced = run(BlkioCase { io: BlockIo::Synced, ..case }, faultless()?, 2)?;
    let row = synced.row("write_bps");
    assert!(row.achieved < 1.3 * row.requested, "what the program writes out is held back: {row:?}");
    assert_eq!(synced.row("bytes").error_pct, 0.0);
    Ok(())
}

fn schedulers() -> BTreeMap<String, String> {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names
        .filter(|name| name.starts_with("loop"))
        .map(|name| {
            (name.clone(), fs::read_to_string(format!("/sys/block/{name}/queue/scheduler")).unwrap_or_default())
        })
        .collect()
}

fn bfq_gives_the_parts() -> Outcome {
    let _alone = alone();
    let limit = BlkioLimit::Weight { weights: (400, 100), bfq: BfqMode::Strict };
    let case = BlkioCase { limit, containers: 2, block_size: 64 << 10, ..throttle(BlkioSetting::Weight, 0) };
    let runtime = faultless()?;
    let mut experiment = BlkioExperiment::new(case.clone(), runtime.clone());
    experiment.prepare()?;
    assert!(schedulers().values().any(|known| known.contains("[bfq]")), "a disk has BFQ now");
    experiment.finish()?;
    let judged = run(case, runtime, 3)?;
    let row = judged.row("weight/a");
    assert_eq!(row.requested, 0.8);
    assert!((0.7..0.9).contains(&row.achieved), "{row:?}");
    assert_eq!((judged.row("bytes/a").error_pct, judged.row("bytes/b").error_pct), (0.0, 0.0));
    Ok(())
}

fn assert_rate_fails(judged: &Judged) {
    let row = judged.row("write_bps");
    assert_eq!(row.verdict, Verdict::Fail, "{row:?}");
}

fn forgetting_fails() -> Outcome {
    let _alone = alone();
    assert_rate_fails(&run(
        throttle(BlkioSetting::WriteBps, 4 << 20),
        faulty(Fault::LeavesOut(Controller::Blkio))?,
        2,
    )?);
    Ok(())
}

fn half_fails() -> Outcome {
    let _alone = alone();
    let judged = run(throttle(BlkioSetting::WriteBps, 8 << 20), faulty(Fault::HalvesLimits)?, 3)?;
    assert_rate_fails(&judged);
    assert!(judged.row("write_bps").error_pct < -40.0, "{:?}", judged.rows);
    Ok(())
}

fn leaving_out_fails() -> Outcome {
    let _alone = alone();
    let judged = run(throttle(BlkioSetting::WriteBps, 4 << 20), faulty(Fault::Strays(Controller::Blkio))?, 2)?;
    assert_rate_fails(&judged);
    let row = judged.row("bytes");
    assert_eq!((row.verdict, row.error_pct), (Verdict::Fail, -100.0), "nothing was charged: {row:?}");
    Ok(())
}

/// The loop devices that a process has open.
fn loops_of(pid: u32) -> BTreeSet<String> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets
        .filter_map(|path| Some(path.to_str()?.strip_prefix("/dev/")?.to_owned()))
        .filter(|name| is_numbered_loop(name))
        .collect()
}

fn is_numbered_loop(name: &str) -> bool {
    name.strip_prefix("loop").is_some_and(|number| number.parse::<u32>().is_ok())
}

fn has_backing(device: &str) -> bool {
    Path::new(&format!("/sys/block/{device}/loop/backing_file")).exists()
}

fn the_disk_goes_with_its_owner() -> Outcome {
    let _alone = alone();
    let disk = Disk::in_memory(1 << 20)?;
    let device = format!("/sys/block/{}", disk.name());
    assert_eq!(fs::read_to_string(format!("{device}/size"))?.trim(), "2048", "in sectors");
    assert!(fs::read_to_string(format!("{device}/loop/backing_file"))?.contains("isobench-disk"));
    assert_eq!(fs::read_to_string(format!("{device}/loop/autoclear"))?.trim(), "1");
    drop(disk);
    assert!(!Path::new(&format!("{device}/loop/backing_file")).exists());
    Ok(())
}

fn v1_counts_from_the_first_throttle() -> Outcome {
    let _alone = alone();
    let layout = Layout::detect()?;
    let disk = Disk::in_memory(1 << 20)?;
    let group = Group::create(&layout, false)?;
    let place = group.place(Controller::Blkio).ok_or("no blkio")?.clone();
    let node = format!("/dev/{}", disk.name());
    let procs = place.path.join("cgroup.procs");
    let write = || {
        let script = format!(
            "echo $$ > {}; exec dd if=/dev/zero of={node} bs=4k count=8 oflag=direct status=none",
            procs.display()
        );
        Command::new("sh").args(["-c", &script]).status()
    };
    blkio::begin_account(&group, disk.limited())?;
    assert!(write()?.success());
    let usage = blkio::usage_of(&place, disk.limited())?;
    assert_eq!((usage.write_bytes, usage.write_operations), (8 * 4096, 8), "{:?}", place.hierarchy);
    if place.hierarchy == Hierarchy::V1 {
        let text = fs::read_to_string(place.path.join(blkio::ThrottleKind::ReadBps.file()))?;
        assert_eq!(text, "", "the throttle that set the account up is gone");
    }
    group.remove()?;
    Ok(())
}

fn a_disk_below_a_path_is_throttled() -> Outcome {
    let _alone = alone();
    let directory = tempfile::tempdir_in(ON_DISK)?;
    let device = BlockDevice::Backing(directory.path().to_owned());
    // Few and slow: this writes to a real disk.
    let case = BlkioCase { device, ..throttle(BlkioSetting::WriteBps, 1 << 20) };
    let judged = run(case, faultless()?, 1)?;
    let row = judged.row("write_bps");
    assert!(row.achieved < 1.3 * row.requested && row.achieved > 0.0, "{row:?}");
    assert!(judged.row("bytes").achieved > 0.0, "the disk below is charged: {:?}", judged.rows);
    assert!(fs::read_dir(directory.path())?.next().is_none(), "the file has no name");
    Ok(())
}

/// The same throttle, judged by fio in a group that the shell made. They are measured in turn, so that what else runs
/// on the machine seldom strikes only one of them each time.
fn fio_sees_the_same_throttle() -> Outcome {
    let _alone = alone();
    const RATE: u64 = 8 << 20;
    const TRIES: usize = 4;
    // fio's window is not whole slices; two seconds see one of twenty more or less.
    const BOUND: f64 = 0.08;
    let mut seen = Vec::new();
    while seen.len() < TRIES {
        let fio = fio_under_a_throttle(RATE)?;
        let case = BlkioCase { duration: Duration::from_secs(2), ..throttle(BlkioSetting::WriteBps, RATE) };
        let ours = run(case, faultless()?, 1)?.row("write_bps").achieved;
        println!("write_bps {RATE}: fio {fio:.0} bytes/s, isobench {ours:.0} bytes/s");
        if (ours / fio - 1.0).abs() < BOUND {
            return Ok(());
        }
        seen.push((fio, ours));
    }
    Err(format!("fio and isobench never within {BOUND} of each other: {seen:?}").into())
}

/// The bytes a second that fio writes to a disk in memory under a throttle of `rate` bytes a second.
fn fio_under_a_throttle(rate: u64) -> Result<f64, Box<dyn Error>> {
    let layout = Layout::detect()?;
    let disk = Disk::in_memory(64 << 20)?;
    let group = Group::create(&layout, false)?;
    let place = group.place(Controller::Blkio).ok_or("no blkio")?.clone();
    let (major, minor) = disk.limited();
    let throttle =
        blkio::Throttle { kind: blkio::ThrottleKind::WriteBps, major: major.into(), minor: minor.into(), rate };
    group.apply(&Limits { blkio_throttles: vec![throttle], ..Limits::default() })?;
    let script = format!(
        "echo $$ > {}/cgroup.procs; exec fio --name=t --filename=/dev/{} --rw=write --bs=4k --direct=1 --ioengine=psync \
         --thread --ramp_time=300ms --runtime=2s --time_based --output-format=json",
        place.path.display(),
        disk.name()
    );
    let output = Command::new("sh").args(["-c", &script]).stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8(output.stdout)?;
    let json: serde_json::Value = serde_json::from_str(&text[text.find('{').ok_or(text.clone())?..])?;
    group.remove()?;
    json["jobs"][0]["write"]["bw_bytes"].as_f64().ok_or_else(|| "fio tells no rate".into())
}

fn killed_runs_leave_no_loop_device() -> Outcome {
    let _alone = alone();
    let before = schedulers();
    let scratch = tempfile::tempdir()?;
    let scenario = scratch.path().join("weight.toml");
    fs::write(
        &scenario,
        "[scenario]\nname = \"w\"\nquestion = \"?\"\n[run]\nblocks = 9\nwarmup_blocks = 0\n[[experiment]]\nkind = \"blkio\"\n\
         setting = [\"weight\", \"write_bps\"]\nduration = \"1s\"\n",
    )?;
    let binary = env!("CARGO_BIN_EXE_isobench");
    for _ in 0..3 {
        let mut run = Command::new(binary)
            .args(["run", "--quiet", "--out"])
            .arg(scratch.path().join("out"))
            .arg(&scenario)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        // Until its disk is there and has BFQ.
        let pid = run.id();
        let disks = loop {
            assert!(run.try_wait()?.is_none(), "the run ended before it was killed");
            let disks = loops_of(pid);
            if disks.len() == 2 && schedulers().iter().any(|(name, now)| disks.contains(name) && now.contains("[bfq]"))
            {
                break disks;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        run.kill()?;
        run.wait()?;
        // The killed containers' last requests may hold the device for a moment.
        for _ in 0..250 {
            if !disks.iter().any(|disk| has_backing(disk)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(!disks.iter().any(|disk| has_backing(disk)), "{disks:?} outlived their owner");
        assert!(Command::new(binary).arg("gc").stdout(Stdio::null()).status()?.success());
        for disk in &disks {
            assert_eq!(schedulers().get(disk), before.get(disk), "{disk}");
        }
    }
    Ok(())
}
