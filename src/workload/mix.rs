//! `mix`: runs into several limits at once: burns CPU time for a window, makes tasks until it may not, touches memory
//! until it is killed for it. Everything is counted here, by the program's own clocks and counts.
//!
//! One round: memory and tasks to hold; CPU burning from then on; tasks until the kernel refuses one; the window, in
//! which CPU time and work are counted; the tasks are let go; memory is touched by a child, which the OOM killer may
//! end; CPU burning stops; one JSON line. Each SIGUSR1 after that is another round, whose window begins
//! `--lead` ns after the signal. The program ends when it is killed. Read by the experiments
//! `combined` and `interference`.

mod burner;
mod task;
mod toucher;

use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};

use super::WorkloadError;
use super::device::block_signal;
use crate::sys::clock;
use burner::{Burnt, EDGE_PERIODS, burn, edges};
use task::{Task, make_tasks, release};
pub(super) use toucher::{CHILD, run_child};
use toucher::{Toucher, resident_bytes};

/// How long before the window opens tasks are made.
const TASKS_BEFORE_NS: u64 = 50_000_000;

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
    /// How long after the signal the window of a further round opens, in ns.
    pub lead_ns: u64,
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
            ("--lead", self.lead_ns),
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
                "--lead" => arguments.lead_ns = value,
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
    let length_ns = arguments.end_ns - arguments.start_ns;
    super::socket::pin(arguments.cpu)?;
    // Before any thread is made, so that every thread has it blocked.
    let rounds = block_signal()?;
    let held = Held::new(&arguments)?;
    let mut window = Window { start_ns: arguments.start_ns, end_ns: arguments.end_ns };
    loop {
        super::print_json(&round(&arguments, &held, window)?)?;
        rounds.wait().map_err(WorkloadError::system("wait for SIGUSR1"))?;
        let start_ns = clock::now_ns() + arguments.lead_ns;
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
        let (stop, walk, checked) = (&flag, arguments.walk, arguments.period_ns > 0);
        let burner = move || burn(window, stop, walk, checked);
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
    clock::sleep_until(window.start_ns.saturating_sub(TASKS_BEFORE_NS));
    let (tasks, task_errno) = make_tasks(arguments.tasks);
    let count = held.count() + arguments.burn + tasks.len() as u32;
    clock::sleep_until(window.start_ns);
    let (start_ns, before_ns) = (clock::now_ns(), clock::process_cpu_ns());
    clock::sleep_until(window.end_ns);
    let (end_ns, after_ns) = (clock::now_ns(), clock::process_cpu_ns());
    // The beginning of the period in which the window closes is still looked for.
    clock::sleep_until(window.end_ns + EDGE_PERIODS * arguments.period_ns);
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

/// CPU time of the children that have ended and been waited for, in ns.
fn children_cpu_ns() -> u64 {
    // RUSAGE_CHILDREN with a valid buffer cannot fail.
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return 0 };
    let ns = |time: nix::sys::time::TimeVal| u64::try_from(time.num_microseconds()).unwrap_or(0) * 1000;
    ns(usage.user_time()) + ns(usage.system_time())
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
            lead_ns: 60,
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
