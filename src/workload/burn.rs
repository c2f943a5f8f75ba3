//! `burn`: threads that spin on the CPU, and note when they stood still. The `cpu` experiment judges shares and quotas
//! by it, so nothing here comes from the control group's own files: time is the thread's CPU clock, work is counted.
//!
//! `__workload burn --burn START:END [--rest START:END]... [--threads N] [--cpus N,N...] [--spin checked|free]`
//!
//! Each phase is a window of CLOCK_MONOTONIC in ns, the same for every container, so that all act in the same time. A
//! `burn` phase begins to spin [`LEAD_NS`] before its window opens and goes on for [`TAIL_NS`] after it has closed: so
//! contenders have settled by the time they are measured, and a reader that comes a little late still sees them at
//! work. In a `rest` phase the threads sleep.
//!
//! # Two ways to spin
//!
//! The kernel charges a running thread, and finds that a group's quota is used up, when something makes it look: a
//! timer tick, a switch, or a reading of the thread's CPU clock. `free` threads never make it look: a group
//! that may use 1 ms in each 100 ms then runs until the next tick (up to 4 ms at 250 Hz), goes into debt, and stands
//! still until later periods have paid for it. `checked` threads read their CPU clock every few µs, as a program does
//! that makes system calls, and are stopped where the quota ends.

use serde::{Deserialize, Serialize};

use super::WorkloadError;
use super::result::Window;
use super::socket::pin;
use crate::sys::clock;

/// How long a phase spins before its window opens, in ns.
pub const LEAD_NS: u64 = 60_000_000;
/// How long it goes on after its window has closed, in ns.
pub const TAIL_NS: u64 = 40_000_000;
/// What counts as standing still: so long between two looks at the clock that are a µs or two apart. In ns.
pub const GAP_NS: u64 = 200_000;
/// The most threads.
pub const MAX_THREADS: u32 = 1024;

/// The most gaps that are kept of one phase; later ones only count for the longest.
const MAX_GAPS: usize = 20_000;
/// Steps of the generator in one unit of work: about a µs.
const STEPS: u32 = 500;
/// Units of work between two readings of the CPU clock by a `checked` thread.
const UNITS_A_CHECK: u64 = 16;

/// How a thread spins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spin {
    /// Reads its CPU clock every few µs, so that the kernel charges it so often.
    Checked,
    /// Stays in user mode and leaves it to the timer tick.
    Free,
}

/// What a burner does in one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// When.
    pub window: Window,
    /// Whether it spins, and does not sleep.
    pub burn: bool,
}

/// What a burner has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Burn {
    /// How many threads.
    pub threads: u32,
    /// The CPU of each thread, over and over; empty: wherever the scheduler puts them.
    pub cpus: Vec<u32>,
    /// How they spin.
    pub spin: Spin,
    /// What they do, in order. Two phases are at least [`LEAD_NS`] and [`TAIL_NS`] apart.
    pub phases: Vec<Phase>,
}

/// What a burner saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BurnResult {
    /// Of each thread.
    pub threads: Vec<Trace>,
}

/// What one thread saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// When it was there: ns of CLOCK_MONOTONIC. After a window has opened is too late for it.
    pub ready_ns: u64,
    /// Of each phase.
    pub phases: Vec<PhaseTrace>,
}

/// What one thread saw in one window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTrace {
    /// The first look at the clocks inside the window, two for each gap (its beginning and its end), and the first
    /// look after it. CPU time stands still in a gap and runs evenly between two of them.
    pub points: Vec<Point>,
    /// The longest gap, as far as it lies inside the window, in ns.
    pub longest_gap_ns: u64,
}

/// The state of a thread at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u64; 3]", into = "[u64; 3]")]
pub struct Point {
    /// The instant: ns of CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// Its CPU time so far, in ns.
    pub cpu_ns: u64,
    /// Units of work done so far.
    pub work: u64,
}

impl From<[u64; 3]> for Point {
    fn from([at_ns, cpu_ns, work]: [u64; 3]) -> Self {
        Self { at_ns, cpu_ns, work }
    }
}

impl From<Point> for [u64; 3] {
    fn from(point: Point) -> Self {
        [point.at_ns, point.cpu_ns, point.work]
    }
}

impl Burn {
    /// The words that make this program do so.
    #[must_use]
    pub fn to_words(&self) -> Vec<String> {
        let mut words = vec!["burn".to_owned(), "--threads".to_owned(), self.threads.to_string()];
        if !self.cpus.is_empty() {
            let cpus: Vec<String> = self.cpus.iter().map(u32::to_string).collect();
            words.extend(["--cpus".to_owned(), cpus.join(",")]);
        }
        let spin = if self.spin == Spin::Free { "free" } else { "checked" };
        words.extend(["--spin".to_owned(), spin.to_owned()]);
        for Phase { window, burn } in &self.phases {
            words.push(if *burn { "--burn" } else { "--rest" }.to_owned());
            words.push(window_word(*window));
        }
        words
    }

    /// Reads the words after the program's name.
    ///
    /// # Errors
    /// [`WorkloadError::Arguments`] with what would be right.
    pub fn parse(words: &[String]) -> Result<Self, WorkloadError> {
        let mut burn = Self { threads: 1, cpus: Vec::new(), spin: Spin::Checked, phases: Vec::new() };
        for pair in words.chunks(2) {
            let (name, value) = option(pair)?;
            match name {
                "--threads" => burn.threads = threads(value)?,
                "--cpus" => burn.cpus = cpu_list(name, value)?,
                "--spin" => {
                    burn.spin = match value {
                        "checked" => Spin::Checked,
                        "free" => Spin::Free,
                        other => return Err(usage(format!("--spin is checked or free, not `{other}`"))),
                    }
                }
                "--burn" | "--rest" => {
                    burn.phases.push(Phase { window: window(name, value)?, burn: name == "--burn" });
                }
                other => {
                    let known = "--threads, --cpus, --spin, --burn, --rest";
                    return Err(usage(format!("unknown option `{other}`; known here are {known}")));
                }
            }
        }
        let apart = |pair: &[Phase]| pair[0].window.end_ns + TAIL_NS + LEAD_NS <= pair[1].window.start_ns;
        if burn.phases.is_empty() {
            return Err(usage("burn needs at least one --burn START:END".to_owned()));
        }
        if !burn.phases.windows(2).all(apart) {
            return Err(usage(format!("two phases must be {} ns apart", LEAD_NS + TAIL_NS)));
        }
        Ok(burn)
    }

    /// Does it.
    pub(super) fn run(&self) -> Result<BurnResult, WorkloadError> {
        let run = |index: usize| {
            if !self.cpus.is_empty() {
                pin(Some(self.cpus[index % self.cpus.len()]))?;
            }
            Ok(self.one_thread())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads as usize).map(|index| scope.spawn(move || run(index))).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().map_err(|_| WorkloadError::Panicked).and_then(|trace| trace)
            };
            Ok(BurnResult { threads: threads.into_iter().map(join).collect::<Result<_, _>>()? })
        })
    }

    fn one_thread(&self) -> Trace {
        let mut spinner = Spinner { spin: self.spin, work: 0, state: 1 };
        let ready_ns = clock::now_ns();
        let phases = self.phases.iter().map(|phase| {
            if phase.burn {
                clock::sleep_until(phase.window.start_ns.saturating_sub(LEAD_NS));
                spinner.burn(phase.window)
            } else {
                spinner.rest(phase.window)
            }
        });
        Trace { ready_ns, phases: phases.collect() }
    }
}

/// A thread's work.
struct Spinner {
    spin: Spin,
    /// Units done.
    work: u64,
    /// The generator's state, kept so that the work cannot be left out.
    state: u64,
}

impl Spinner {
    fn point(&self, at_ns: u64) -> Point {
        Point { at_ns, cpu_ns: clock::thread_cpu_ns(), work: self.work }
    }

    /// One unit of work and a look at the clock.
    #[inline]
    fn step(&mut self) -> u64 {
        // Knuth's multiplier: each step needs the one before, so that a unit takes the same time on any compiler.
        for _ in 0..STEPS {
            self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        }
        self.state = std::hint::black_box(self.state);
        self.work += 1;
        if self.spin == Spin::Checked && self.work.is_multiple_of(UNITS_A_CHECK) {
            std::hint::black_box(clock::thread_cpu_ns());
        }
        clock::now_ns()
    }

    fn burn(&mut self, window: Window) -> PhaseTrace {
        let mut trace = PhaseTrace { points: Vec::with_capacity(256), longest_gap_ns: 0 };
        let mut last_ns = clock::now_ns();
        loop {
            let now_ns = self.step();
            if now_ns >= window.start_ns {
                let gap_ns = now_ns - last_ns;
                if gap_ns > GAP_NS {
                    let inside = now_ns.min(window.end_ns).saturating_sub(last_ns.max(window.start_ns));
                    trace.longest_gap_ns = trace.longest_gap_ns.max(inside);
                }
                let point = || self.point(now_ns);
                if trace.points.is_empty() {
                    trace.points.push(point());
                } else if gap_ns > GAP_NS && trace.points.len() < 2 * MAX_GAPS {
                    // The clock of CPU time stood still meanwhile.
                    let point = point();
                    trace.points.extend([Point { at_ns: last_ns, ..point }, point]);
                }
                if now_ns >= window.end_ns {
                    trace.points.push(point());
                    break;
                }
            }
            last_ns = now_ns;
        }
        while self.step() < window.end_ns.saturating_add(TAIL_NS) {}
        trace
    }

    fn rest(&self, window: Window) -> PhaseTrace {
        clock::sleep_until(window.start_ns);
        let first = self.point(window.start_ns);
        clock::sleep_until(window.end_ns);
        let last = self.point(window.end_ns);
        PhaseTrace { points: vec![first, last], longest_gap_ns: window.elapsed_ns() }
    }
}

pub(super) fn usage(message: String) -> WorkloadError {
    WorkloadError::Arguments(message)
}

/// The name and the value of an option.
pub(super) fn option(pair: &[String]) -> Result<(&str, &str), WorkloadError> {
    match pair {
        [name, value] => Ok((name, value)),
        _ => Err(usage(format!("`{}` has no value", pair.first().map_or("", String::as_str)))),
    }
}

pub(super) fn window_word(window: Window) -> String {
    format!("{}:{}", window.start_ns, window.end_ns)
}

/// Reads `START:END`.
pub(super) fn window(name: &str, value: &str) -> Result<Window, WorkloadError> {
    let parsed = value
        .split_once(':')
        .and_then(|(start, end)| Some(Window { start_ns: start.parse().ok()?, end_ns: end.parse().ok()? }));
    parsed
        .filter(|window| window.start_ns < window.end_ns)
        .ok_or_else(|| usage(format!("{name}: `{value}` is not START:END in ns of CLOCK_MONOTONIC")))
}

pub(super) fn threads(value: &str) -> Result<u32, WorkloadError> {
    let count = value.parse().ok().filter(|count| (1..=MAX_THREADS).contains(count));
    count.ok_or_else(|| usage(format!("--threads is 1 to {MAX_THREADS}, not {value}")))
}

/// Reads `0,3`.
pub(super) fn cpu_list(name: &str, value: &str) -> Result<Vec<u32>, WorkloadError> {
    let numbers: Result<Vec<u32>, _> = value.split(',').map(str::parse).collect();
    numbers.map_err(|_| usage(format!("{name}: `{value}` is not a list of CPU numbers, as in 0,3")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn words_survive_a_round_trip() {
        let phase = |start_ns, burn| Phase { window: Window { start_ns, end_ns: start_ns + 5 }, burn };
        let burn = Burn {
            threads: 3,
            cpus: vec![1, 0],
            spin: Spin::Free,
            phases: vec![phase(1_000, true), phase(1_000_000_000, false)],
        };
        assert_eq!(Burn::parse(&burn.to_words()[1..]).unwrap(), burn);
        let plain = Burn { cpus: Vec::new(), spin: Spin::Checked, ..burn };
        assert_eq!(Burn::parse(&plain.to_words()[1..]).unwrap(), plain);
    }

    #[test]
    fn errors_say_what_would_be_right() {
        for (line, message) in [
            ("", "burn needs at least one --burn START:END"),
            ("--burn", "`--burn` has no value"),
            ("--burn 5:5", "--burn: `5:5` is not START:END in ns of CLOCK_MONOTONIC"),
            ("--burn 5:9 --threads 0", "--threads is 1 to 1024, not 0"),
            ("--burn 5:9 --cpus 1,x", "--cpus: `1,x` is not a list of CPU numbers, as in 0,3"),
            ("--burn 5:9 --spin fast", "--spin is checked or free, not `fast`"),
            ("--burn 5:9 --rest 10:12", "two phases must be 100000000 ns apart"),
            ("--speed 1", "unknown option `--speed`; known here are --threads, --cpus, --spin, --burn, --rest"),
        ] {
            assert_eq!(Burn::parse(&words(line)).unwrap_err().to_string(), message, "{line}");
        }
    }

    #[test]
    fn a_burner_uses_the_window_and_counts_its_work() {
        let start_ns = clock::now_ns() + LEAD_NS;
        let window = Window { start_ns, end_ns: start_ns + 20_000_000 };
        for spin in [Spin::Checked, Spin::Free] {
            let trace = Spinner { spin, work: 0, state: 1 }.burn(window);
            let (first, last) = (trace.points[0], *trace.points.last().unwrap());
            assert!(first.at_ns >= window.start_ns && last.at_ns >= window.end_ns);
            assert!(last.cpu_ns > first.cpu_ns || last.at_ns == first.at_ns, "{trace:?}");
            assert!(trace.points.is_sorted_by_key(|point| (point.at_ns, point.cpu_ns, point.work)), "{trace:?}");
            assert!(trace.longest_gap_ns <= window.elapsed_ns());
        }
    }

    #[test]
    fn a_resting_thread_uses_nothing_worth_naming() {
        let start_ns = clock::now_ns();
        let window = Window { start_ns, end_ns: start_ns + 5_000_000 };
        let trace = Spinner { spin: Spin::Free, work: 7, state: 1 }.rest(window);
        assert_eq!(trace.points.len(), 2);
        assert_eq!((trace.points[0].work, trace.points[1].work), (7, 7));
        assert!(clock::now_ns() >= window.end_ns);
    }

    #[test]
    fn points_travel_as_three_numbers() {
        let point = Point { at_ns: 1, cpu_ns: 2, work: 3 };
        let text = serde_json::to_string(&point).unwrap();
        assert_eq!(text, "[1,2,3]");
        assert_eq!(serde_json::from_str::<Point>(&text).unwrap(), point);
    }
}
