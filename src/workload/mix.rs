//! `mix`: runs into several limits at once: burns CPU time for a window, makes tasks until it may not, touches memory
//! until it is killed for it. Everything is counted here, by the program's own clocks and counts.
//!
//! One round: memory and tasks to hold; CPU burning from then on; tasks until the kernel refuses one; the window, in
//! which CPU time and work are counted; the tasks are let go; memory is touched by a child, which the OOM killer may
//! end; CPU burning stops; one JSON line. Each SIGUSR1 after that is another round, whose window begins as late after
//! the signal as the first one's began after the start. The program ends when it is killed. Read by the experiments
//! `combined` and `interference`.

use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};

use super::device::block_signal;
use super::{SUBCOMMAND, WorkloadError};
use crate::sys::clock;

/// Bytes between two signs of life of the child that touches memory: the step in which touched bytes are known.
pub const STEP: u64 = 64 << 10;

/// What the program has to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arguments {
    /// When the window opens: ns of CLOCK_MONOTONIC.
    pub start_ns: u64,
    /// When it closes.
    pub end_ns: u64,
    /// Threads that burn CPU time.
    pub burn: u32,
    /// The only CPU that it may run on; absent: as its group has it.
    pub cpu: Option<u32>,
    /// Bytes that each burner walks through beside computing; 0: it only computes.
    pub walk: u64,
    /// Tasks to make before anything else, and to hold until the end.
    pub hold_tasks: u32,
    /// Bytes to touch before anything else, and to hold until the end.
    pub hold_bytes: u64,
    /// Tasks to try to make.
    pub tasks: u32,
    /// Bytes to try to touch after the window.
    pub touch: u64,
    /// The period of the quota that the program is under, in ns: the edges of the window are then put where a period
    /// begins, see [`edges`]. 0: they are taken as they come.
    pub period_ns: u64,
}

/// What a round came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename = "mix")]
pub struct Mixed {
    /// When the window opened: ns of CLOCK_MONOTONIC.
    pub start_ns: u64,
    /// When it closed.
    pub end_ns: u64,
    /// CPU time of the whole program in the window, in ns.
    pub cpu_ns: u64,
    /// CPU time of the program and of its children that have ended, since its beginning, in ns.
    pub total_cpu_ns: u64,
    /// The longest time in which a burner did nothing, in ns.
    pub longest_stall_ns: u64,
    /// Pieces of work that the burners did in the window.
    pub work: u64,
    /// Tasks of this program at the window's opening: its own threads, its children, and what it made.
    pub tasks: u32,
    /// The error with which the kernel refused the next task; 0: it was not refused.
    pub task_errno: i32,
    /// Bytes held, with all other memory that the program had before it began to touch more.
    pub held_bytes: u64,
    /// Bytes that the child touched on top of that, its own memory included.
    pub touched_bytes: u64,
    /// Whether the child was killed while it touched them.
    pub killed: bool,
}

impl Arguments {
    /// The words after `__workload`.
    #[must_use]
    pub fn to_words(&self) -> Vec<String> {
        let mut words = vec!["mix".to_owned()];
        let numbers = [
            ("--start", self.start_ns),
            ("--end", self.end_ns),
            ("--burn", u64::from(self.burn)),
            ("--walk", self.walk),
            ("--hold-tasks", u64::from(self.hold_tasks)),
            ("--hold-bytes", self.hold_bytes),
            ("--tasks", u64::from(self.tasks)),
            ("--touch", self.touch),
            ("--period", self.period_ns),
        ];
        let cpu = self.cpu.map(|cpu| ("--cpu", u64::from(cpu)));
        words.extend(numbers.into_iter().chain(cpu).flat_map(|(name, value)| [name.to_owned(), value.to_string()]));
        words
    }

    fn parse(words: &[String]) -> Result<Self, WorkloadError> {
        let mut arguments = Self::default();
        for pair in words.chunks(2) {
            let wrong = || WorkloadError::Arguments(format!("mix: `{}` is no option with a number", pair.join(" ")));
            let value: u64 = pair.get(1).and_then(|value| value.parse().ok()).ok_or_else(wrong)?;
            let small = || u32::try_from(value).map_err(|_| wrong());
            match pair[0].as_str() {
                "--start" => arguments.start_ns = value,
                "--end" => arguments.end_ns = value,
                "--burn" => arguments.burn = small()?,
                "--cpu" => arguments.cpu = Some(small()?),
                "--walk" => arguments.walk = value,
                "--hold-tasks" => arguments.hold_tasks = small()?,
                "--hold-bytes" => arguments.hold_bytes = value,
                "--tasks" => arguments.tasks = small()?,
                "--touch" => arguments.touch = value,
                "--period" => arguments.period_ns = value,
                _ => return Err(wrong()),
            }
        }
        if arguments.end_ns <= arguments.start_ns {
            return Err(WorkloadError::Arguments("mix: --end must come after --start".to_owned()));
        }
        Ok(arguments)
    }
}

/// Does a round at once and another at each SIGUSR1; never returns unless something fails.
pub(super) fn run(words: &[String]) -> Result<(), WorkloadError> {
    let arguments = Arguments::parse(words)?;
    let lead_ns = arguments.start_ns.saturating_sub(clock::now_ns());
    let length_ns = arguments.end_ns - arguments.start_ns;
    super::socket::pin(arguments.cpu)?;
    // Before any thread is made, so that every thread has it blocked.
    let rounds = block_signal()?;
    let held = Held::new(&arguments)?;
    let mut window = Window { start_ns: arguments.start_ns, end_ns: arguments.end_ns };
    loop {
        super::print_json(&round(&arguments, &held, window)?)?;
        rounds.wait().map_err(WorkloadError::system("wait for SIGUSR1"))?;
        let start_ns = clock::now_ns() + lead_ns;
        window = Window { start_ns, end_ns: start_ns + length_ns };
    }
}

/// The measured time, in ns of CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    start_ns: u64,
    end_ns: u64,
}

/// What is held from the beginning to the end.
struct Held {
    tasks: Vec<Task>,
    child: Option<Toucher>,
}

impl Held {
    fn new(arguments: &Arguments) -> Result<Self, WorkloadError> {
        let mut child = None;
        if arguments.hold_bytes > 0 {
            let started = child.insert(Toucher::start(arguments.hold_bytes)?);
            started.follow()?;
        }
        Ok(Self { tasks: make_tasks(arguments.hold_tasks).0, child })
    }

    /// The first thread, the child, and the tasks.
    fn count(&self) -> u32 {
        1 + u32::from(self.child.is_some()) + self.tasks.len() as u32
    }
}

fn round(arguments: &Arguments, held: &Held, window: Window) -> Result<Mixed, WorkloadError> {
    let flag = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (stop, walk) = (&flag, arguments.walk);
        let burner = move || burn(window, stop, walk);
        let start = || std::thread::Builder::new().spawn_scoped(scope, burner);
        let mut burners = Vec::new();
        let started = (0..arguments.burn).try_for_each(|_| start().map(|burner| burners.push(burner)));
        let started = started.map_err(WorkloadError::system("start a thread that burns CPU time"));
        let seen = started.and_then(|()| within(arguments, held, window));
        // Also on the way of an error: the scope waits for them.
        stop.store(true, Ordering::Relaxed);
        let burnt: Vec<Burnt> = burners
            .into_iter()
            .map(|burner| burner.join().map_err(|_| WorkloadError::Panicked))
            .collect::<Result<_, _>>()?;
        let mut mixed = seen?;
        mixed.work = burnt.iter().map(|burnt| burnt.work).sum();
        let stalls = || burnt.iter().flat_map(|burnt| &burnt.stalls);
        mixed.longest_stall_ns = stalls().map(|stall| stall.length_ns).max().unwrap_or(0);
        if let Some((first, last)) = edges(stalls(), window, arguments.period_ns) {
            (mixed.start_ns, mixed.end_ns) = (first.resumed_ns, last.resumed_ns);
            mixed.cpu_ns = last.cpu_ns - first.cpu_ns;
        }
        mixed.total_cpu_ns = clock::process_cpu_ns() + children_cpu_ns();
        Ok(mixed)
    })
}

/// What the first thread does while the burners burn.
fn within(arguments: &Arguments, held: &Held, window: Window) -> Result<Mixed, WorkloadError> {
    // Late, so that another container under the same limit has had what it is to hold.
    sleep_until(window.start_ns.saturating_sub(TASKS_BEFORE_NS));
    let (tasks, task_errno) = make_tasks(arguments.tasks);
    let count = held.count() + arguments.burn + tasks.len() as u32;
    sleep_until(window.start_ns);
    let (start_ns, before_ns) = (clock::now_ns(), clock::process_cpu_ns());
    sleep_until(window.end_ns);
    let (end_ns, after_ns) = (clock::now_ns(), clock::process_cpu_ns());
    // The beginning of the period in which the window closes is still looked for.
    sleep_until(window.end_ns + EDGE_PERIODS * arguments.period_ns);
    release(tasks);
    let held_bytes = resident_bytes()? + held.child.as_ref().map_or(0, |child| child.bytes);
    let mut touched = (0, false);
    if arguments.touch > 0 {
        let mut child = Toucher::start(arguments.touch)?;
        child.follow()?;
        touched = (child.bytes, child.end()?);
    }
    Ok(Mixed {
        start_ns,
        end_ns,
        cpu_ns: after_ns - before_ns,
        total_cpu_ns: 0,
        longest_stall_ns: 0,
        work: 0,
        tasks: count,
        task_errno,
        held_bytes,
        touched_bytes: touched.0,
        killed: touched.1,
    })
}

fn sleep_until(at_ns: u64) {
    std::thread::sleep(Duration::from_nanos(at_ns.saturating_sub(clock::now_ns())));
}

/// CPU time of the children that have ended and been waited for, in ns.
fn children_cpu_ns() -> u64 {
    // RUSAGE_CHILDREN with a valid buffer cannot fail.
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return 0 };
    let ns = |time: nix::sys::time::TimeVal| u64::try_from(time.num_microseconds()).unwrap_or(0) * 1000;
    ns(usage.user_time()) + ns(usage.system_time())
}

/// A time in which a burner did nothing, and the program's CPU time at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stall {
    resumed_ns: u64,
    length_ns: u64,
    cpu_ns: u64,
}

/// What a burner did.
#[derive(Debug, Default)]
struct Burnt {
    work: u64,
    stalls: Vec<Stall>,
}

/// The shortest time without progress that counts as a stall, in ns.
const STALL_NS: u64 = 1_000_000;
/// How long before the window opens tasks are made.
const TASKS_BEFORE_NS: u64 = 50_000_000;
/// How many periods after an edge of the window the beginning of a period is looked for.
const EDGE_PERIODS: u64 = 2;

/// Computes (and walks through memory) until it is stopped.
fn burn(window: Window, stop: &AtomicBool, walk: u64) -> Burnt {
    let mut burnt = Burnt::default();
    let mut memory = vec![1_u64; usize::try_from(walk / 8).unwrap_or(0)];
    let mut state = 1_u64;
    let mut last_ns = clock::now_ns();
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..1000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        }
        // One word a cache line.
        for word in memory.iter_mut().step_by(8) {
            *word = word.wrapping_add(state);
        }
        let now_ns = clock::now_ns();
        burnt.work += u64::from(window.start_ns <= now_ns && now_ns < window.end_ns);
        if now_ns - last_ns >= STALL_NS && memory.is_empty() {
            let stall = Stall { resumed_ns: now_ns, length_ns: now_ns - last_ns, cpu_ns: clock::process_cpu_ns() };
            burnt.stalls.push(stall);
        }
        last_ns = now_ns;
    }
    std::hint::black_box((state, memory));
    burnt
}

/// Where the window's edges are put under a quota: at the end of the longest stall in the two periods that follow each
/// of its ends. A throttled program resumes when a period begins, so that the time between holds whole periods and
/// not, as it comes, a quota more or less. `None` without a quota, or when nothing stalled.
fn edges<'a>(
    stalls: impl Iterator<Item = &'a Stall> + Clone,
    window: Window,
    period_ns: u64,
) -> Option<(Stall, Stall)> {
    let after = |from_ns: u64| {
        let inside = |stall: &&Stall| (from_ns..=from_ns + EDGE_PERIODS * period_ns).contains(&stall.resumed_ns);
        stalls.clone().filter(inside).max_by_key(|stall| stall.length_ns).copied()
    };
    let (first, last) = (after(window.start_ns)?, after(window.end_ns)?);
    (period_ns > 0 && first.resumed_ns < last.resumed_ns).then_some((first, last))
}

/// A thread that does nothing until it is let go: what the pids controller counts is tasks, and a thread is one.
struct Task {
    thread: JoinHandle<()>,
    /// Dropped to let it go.
    hold: mpsc::Sender<()>,
}

/// Makes tasks until there are enough or the kernel refuses one, and says with which error.
fn make_tasks(wanted: u32) -> (Vec<Task>, i32) {
    let mut tasks = Vec::new();
    for _ in 0..wanted {
        let (hold, wait) = mpsc::channel::<()>();
        let body = move || {
            // An error is the sender's end, which is the sign to go.
            let _ = wait.recv();
        };
        match std::thread::Builder::new().stack_size(64 << 10).spawn(body) {
            Ok(thread) => tasks.push(Task { thread, hold }),
            Err(error) => return (tasks, error.raw_os_error().unwrap_or(libc::EIO)),
        }
    }
    (tasks, 0)
}

fn release(tasks: Vec<Task>) {
    for Task { thread, hold } in tasks {
        drop(hold);
        // It cannot panic: it only waits.
        let _ = thread.join();
    }
}

/// Memory of this process that only it has and that its group is charged for, in bytes: anonymous and shared pages, and
/// page tables.
fn resident_bytes() -> Result<u64, WorkloadError> {
    let status =
        std::fs::read_to_string("/proc/self/status").map_err(WorkloadError::system("read /proc/self/status"))?;
    let kib = |key: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    Ok((kib("RssAnon:") + kib("RssShmem:") + kib("VmPTE:")) * 1024)
}

/// A child that touches memory step by step and says after each how much it has; it is what the OOM killer ends.
struct Toucher {
    child: Child,
    output: ChildStdout,
    wanted: u64,
    /// The last that it said.
    bytes: u64,
    /// Whether it ended by itself (or was ended) before it had all.
    ended: bool,
}

/// The workload's name of that child.
pub(super) const CHILD: &str = "mix-child";

impl Toucher {
    /// Starts it. Tasks that were just let go may still count for a moment, so a refusal is not taken at once.
    fn start(wanted: u64) -> Result<Self, WorkloadError> {
        const TRIES: u32 = 1000;
        let start = || {
            let mut command = Command::new("/proc/self/exe");
            command.args([SUBCOMMAND, CHILD, &wanted.to_string()]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()
        };
        let mut started = start();
        for _ in 0..TRIES {
            match &started {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(1)),
                _ => break,
            }
            started = start();
        }
        let mut child = started.map_err(WorkloadError::system("start the child that touches memory"))?;
        let no_pipe = || io::Error::other("it has no standard output");
        let output = child.stdout.take().ok_or_else(no_pipe).map_err(WorkloadError::system("follow the child"))?;
        Ok(Self { child, output, wanted, bytes: 0, ended: false })
    }

    /// Follows it until it has touched all, or is gone.
    fn follow(&mut self) -> Result<(), WorkloadError> {
        let mut base = None;
        loop {
            let mut report = [0; 8];
            match self.output.read_exact(&mut report) {
                Ok(()) => self.bytes = u64::from_le_bytes(report),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.ended = true;
                    return Ok(());
                }
                Err(error) => return Err(WorkloadError::system("follow the child")(error)),
            }
            if self.bytes >= *base.get_or_insert(self.bytes) + self.wanted {
                return Ok(());
            }
        }
    }

    /// Ends it, and says whether somebody else had killed it before.
    fn end(mut self) -> Result<bool, WorkloadError> {
        if !self.ended {
            self.child.kill().map_err(WorkloadError::system("end the child"))?;
        }
        let status = self.child.wait().map_err(WorkloadError::system("wait for the child"))?;
        Ok(self.ended && status.signal() == Some(libc::SIGKILL))
    }
}

/// The child: touches so many bytes, then waits to be killed.
pub(super) fn run_child(words: &[String]) -> Result<(), WorkloadError> {
    let wrong = || WorkloadError::Arguments(format!("{CHILD} takes a number of bytes"));
    let wanted: u64 = words.first().and_then(|word| word.parse().ok()).ok_or_else(wrong)?;
    // A huge page would be charged as a whole at its first byte.
    nix::sys::prctl::set_thp_disable(true).map_err(WorkloadError::system("turn huge pages off"))?;
    let mut output = io::stdout().lock();
    let mut report = |bytes: u64| {
        output.write_all(&bytes.to_le_bytes()).and_then(|()| output.flush()).map_err(WorkloadError::system("report"))
    };
    let mut held: Vec<Vec<u8>> = Vec::with_capacity(usize::try_from(wanted / STEP).unwrap_or(0) + 1);
    let base = resident_bytes()?;
    report(base)?;
    let mut touched = 0;
    while touched < wanted {
        // Not zeroes: the allocator would ask the kernel for zeroed pages and touch nothing.
        held.push(vec![1; STEP as usize]);
        touched += STEP;
        report(base + touched)?;
    }
    std::hint::black_box(&held);
    super::hold()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_round_trip() {
        let arguments = Arguments {
            start_ns: 5,
            end_ns: 9,
            burn: 2,
            cpu: Some(1),
            walk: 4096,
            hold_tasks: 3,
            hold_bytes: 7,
            tasks: 4,
            touch: 8,
            period_ns: 50,
        };
        let words = arguments.to_words();
        assert_eq!(words[0], "mix");
        assert_eq!(Arguments::parse(&words[1..]).unwrap(), arguments);
        for bad in ["--start", "--start x", "--dance 1", "--start 2 --end 2"] {
            let words: Vec<String> = bad.split(' ').map(str::to_owned).collect();
            assert!(Arguments::parse(&words).is_err(), "{bad}");
        }
    }

    #[test]
    fn edges_are_where_a_period_begins() {
        let stall = |resumed_ns, length_ns| Stall { resumed_ns, length_ns, cpu_ns: resumed_ns / 2 };
        let stalls = [stall(90, 30), stall(108, 2), stall(140, 30), stall(615, 4), stall(640, 29), stall(790, 40)];
        let window = Window { start_ns: 100, end_ns: 600 };
        let (first, last) = edges(stalls.iter(), window, 50).unwrap();
        assert_eq!((first.resumed_ns, last.resumed_ns), (140, 640));
        assert_eq!(edges(stalls.iter(), window, 0), None);
        assert_eq!(edges([].iter(), window, 50), None);
    }

    #[test]
    fn a_round_counts_what_it_did() {
        let start_ns = clock::now_ns() + 20_000_000;
        let arguments =
            Arguments { start_ns, end_ns: start_ns + 30_000_000, burn: 1, tasks: 3, ..Arguments::default() };
        let held = Held::new(&arguments).unwrap();
        let window = Window { start_ns, end_ns: arguments.end_ns };
        let mixed = round(&arguments, &held, window).unwrap();
        assert_eq!((mixed.tasks, mixed.task_errno, mixed.touched_bytes), (5, 0, 0));
        assert!(mixed.work > 0 && mixed.cpu_ns > 0 && mixed.held_bytes > 0, "{mixed:?}");
        assert!(mixed.total_cpu_ns >= mixed.cpu_ns);
    }
}
