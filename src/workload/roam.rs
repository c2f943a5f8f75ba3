//! `roam`: threads that look where they run all the time, and try to get off the set of CPUs that they were given.
//!
//! `__workload roam --window START:END --set 0,1 [--beyond 2,3] [--threads N]`
//!
//! Each thread asks for its CPU (getcpu(2), answered by the vDSO) as fast as it can, and attributes the CPU time since
//! the look before to the CPU that it sees. Every so often it asks for a CPU of `--beyond` alone by
//! `sched_setaffinity`, which the kernel must refuse, and for all CPUs together, which it must cut down to the set.

use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity, sched_yield};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::WorkloadError;
use super::burn::{cpu_list, option, threads, usage, window, window_word};
use super::result::Window;
use crate::sys::clock;

/// Looks between two attempts to get off the set.
const LOOKS_AN_ATTEMPT: u64 = 1000;

/// What a roamer has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roam {
    /// When.
    pub window: Window,
    /// The CPUs on which it may run.
    pub set: Vec<u32>,
    /// CPUs of the host that are not in the set.
    pub beyond: Vec<u32>,
    /// How many threads.
    pub threads: u32,
}

/// What the threads saw together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoamResult {
    /// When the last of them was there: ns of CLOCK_MONOTONIC. After the window has opened is too late for it.
    pub ready_ns: u64,
    /// How often they looked.
    pub looks: u64,
    /// How often they were on a CPU that is not in the set.
    pub looks_beyond: u64,
    /// CPU time, in ns.
    pub cpu_ns: u64,
    /// That of it which ended on a CPU that is not in the set, in ns.
    pub cpu_beyond_ns: u64,
    /// How often they asked for CPUs beyond the set alone.
    pub attempts: u64,
    /// How often the kernel gave in.
    pub granted: u64,
}

impl Roam {
    /// The words that make this program do so.
    #[must_use]
    pub fn to_words(&self) -> Vec<String> {
        let list = |cpus: &[u32]| cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let (when, set, count) = (window_word(self.window), list(&self.set), self.threads.to_string());
        let mut words: Vec<String> =
            ["roam", "--window", &when, "--set", &set, "--threads", &count].map(str::to_owned).into();
        if !self.beyond.is_empty() {
            words.extend(["--beyond".to_owned(), list(&self.beyond)]);
        }
        words
    }

    /// Reads the words after the program's name.
    ///
    /// # Errors
    /// [`WorkloadError::Arguments`] with what would be right.
    pub fn parse(words: &[String]) -> Result<Self, WorkloadError> {
        let (mut when, mut set, mut beyond, mut count) = (None, Vec::new(), Vec::new(), 1);
        for pair in words.chunks(2) {
            let (name, value) = option(pair)?;
            match name {
                "--window" => when = Some(window(name, value)?),
                "--set" => set = cpu_list(name, value)?,
                "--beyond" => beyond = cpu_list(name, value)?,
                "--threads" => count = threads(value)?,
                other => {
                    let known = "--window, --set, --beyond, --threads";
                    return Err(usage(format!("unknown option `{other}`; known here are {known}")));
                }
            }
        }
        let window = when.ok_or_else(|| usage("roam needs --window START:END".to_owned()))?;
        if set.is_empty() {
            return Err(usage("roam needs --set CPU,CPU...".to_owned()));
        }
        Ok(Self { window, set, beyond, threads: count })
    }

    /// Does it.
    pub(super) fn run(&self) -> Result<RoamResult, WorkloadError> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads).map(|_| scope.spawn(|| self.one_thread())).collect();
            let mut all = RoamResult::default();
            for thread in threads {
                let seen = thread.join().map_err(|_| WorkloadError::Panicked)??;
                all.add(&seen);
            }
            Ok(all)
        })
    }

    fn one_thread(&self) -> Result<RoamResult, WorkloadError> {
        let everything = mask(self.set.iter().chain(&self.beyond))?;
        let targets: Vec<CpuSet> = self.beyond.iter().map(|cpu| mask([cpu])).collect::<Result<_, _>>()?;
        let mut seen = RoamResult { ready_ns: clock::now_ns(), ..RoamResult::default() };
        clock::sleep_until(self.window.start_ns);
        let mut cpu_ns = clock::thread_cpu_ns();
        while clock::now_ns() < self.window.end_ns {
            let cpu = sched_getcpu().map_err(WorkloadError::system("ask for the current CPU"))?;
            let used_ns = clock::thread_cpu_ns() - cpu_ns;
            cpu_ns += used_ns;
            seen.looks += 1;
            seen.cpu_ns += used_ns;
            if !self.set.iter().any(|allowed| *allowed as usize == cpu) {
                seen.looks_beyond += 1;
                seen.cpu_beyond_ns += used_ns;
            }
            if seen.looks.is_multiple_of(LOOKS_AN_ATTEMPT) {
                let target = targets.get((seen.looks / LOOKS_AN_ATTEMPT) as usize % targets.len().max(1));
                seen.attempt(target, &everything);
            }
        }
        Ok(seen)
    }
}

impl RoamResult {
    /// Asks for a CPU beyond the set, and then for all there are, so that the next looks may be anywhere.
    fn attempt(&mut self, target: Option<&CpuSet>, everything: &CpuSet) {
        let this_thread = Pid::from_raw(0);
        if let Some(target) = target {
            self.attempts += 1;
            self.granted += u64::from(sched_setaffinity(this_thread, target).is_ok());
            // Where it was granted, the thread is there by now: look before it is called back.
            if let Ok(cpu) = sched_getcpu() {
                self.looks_beyond += u64::from(target.is_set(cpu).unwrap_or(false));
                self.looks += 1;
            }
        }
        // Fails only where none of them is in the set; then the thread stays where it is.
        let _ = sched_setaffinity(this_thread, everything);
        let _ = sched_yield();
    }

    fn add(&mut self, other: &Self) {
        self.ready_ns = self.ready_ns.max(other.ready_ns);
        self.looks += other.looks;
        self.looks_beyond += other.looks_beyond;
        self.cpu_ns += other.cpu_ns;
        self.cpu_beyond_ns += other.cpu_beyond_ns;
        self.attempts += other.attempts;
        self.granted += other.granted;
    }
}

fn mask<'a>(cpus: impl IntoIterator<Item = &'a u32>) -> Result<CpuSet, WorkloadError> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu as usize).map_err(|_| usage(format!("this kernel has no CPU {cpu}")))?;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_round_trip_and_errors_say_what_is_right() {
        let window = Window { start_ns: 5, end_ns: 9 };
        let roam = Roam { window, set: vec![0, 2], beyond: vec![1], threads: 4 };
        assert_eq!(Roam::parse(&roam.to_words()[1..]).unwrap(), roam);
        let alone = Roam { beyond: Vec::new(), ..roam };
        assert_eq!(Roam::parse(&alone.to_words()[1..]).unwrap(), alone);
        let refuse = |line: &str| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            Roam::parse(&words).unwrap_err().to_string()
        };
        assert_eq!(refuse("--set 0"), "roam needs --window START:END");
        assert_eq!(refuse("--window 1:2"), "roam needs --set CPU,CPU...");
        assert_eq!(refuse("--in 1"), "unknown option `--in`; known here are --window, --set, --beyond, --threads");
    }

    #[test]
    fn a_thread_off_the_set_is_seen() {
        let here = sched_getcpu().unwrap() as u32;
        let start_ns = clock::now_ns();
        let window = Window { start_ns, end_ns: start_ns + 3_000_000 };
        // No CPU has this number, so wherever the threads run they are beyond the set.
        let roam = Roam { window, set: vec![1000], beyond: vec![here], threads: 2 };
        let seen = roam.run().unwrap();
        assert_eq!((seen.looks_beyond, seen.cpu_beyond_ns), (seen.looks, seen.cpu_ns), "{seen:?}");
        assert!(seen.looks > 0);
        assert_eq!(seen.granted, seen.attempts, "{seen:?}");
    }
}
