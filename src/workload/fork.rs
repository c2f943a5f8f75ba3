//! `fork COUNT`: forks children that stay, until the kernel refuses or there are so many tasks, itself included.
//!
//! How many there were at once it counts in its own /proc, which shows the container's processes and no others.

use nix::errno::Errno;

use super::WorkloadError;
use super::steer::only_number;
use crate::sys::board::Board;
use crate::sys::clock;

/// The program's name after `__workload`.
pub const NAME: &str = "fork";

/// The words of its board.
pub mod word {
    /// Out: tasks that were there at once, by /proc.
    pub const TASKS: usize = 0;
    /// Out: the errno of the refused fork; 0 when none was refused.
    pub const ERRNO: usize = 1;
    /// Out: how often the kernel refused.
    pub const REFUSALS: usize = 2;
    /// Out: how long the forks that succeeded took, all together, in ns.
    pub const FORKS_NS: usize = 3;
    /// Out: how many they were.
    pub const FORKS: usize = 4;
    /// Out: how long the refused one took, in ns.
    pub const REFUSED_NS: usize = 5;
    /// Out: 1 once all of the above stands.
    pub const DONE: usize = 6;
    /// How many there are.
    pub const COUNT: usize = 7;
}

pub(super) fn run(board: &Board, arguments: &[String]) -> Result<(), WorkloadError> {
    let most = only_number(arguments, "how many tasks to be at most")?;
    let mut forks = 0;
    while forks + 1 < most {
        let begin = clock::now_ns();
        match crate::sys::fork::fork(|| super::hold()) {
            Ok(_) => {
                forks += 1;
                board.set(word::FORKS_NS, board.get(word::FORKS_NS) + (clock::now_ns() - begin));
            }
            // Whatever it says is the result: the harness judges whether it is the right word.
            Err(error) => {
                board.set(word::REFUSED_NS, clock::now_ns() - begin);
                board.set(word::ERRNO, error.raw_os_error().unwrap_or(Errno::UnknownErrno as i32) as u64);
                board.set(word::REFUSALS, 1);
                break;
            }
        }
    }
    board.set(word::FORKS, forks);
    board.set(word::TASKS, tasks()?);
    board.post(word::DONE, 1);
    super::hold()
}

fn tasks() -> Result<u64, WorkloadError> {
    let entries = std::fs::read_dir("/proc").map_err(WorkloadError::system("list /proc"))?;
    let is_task = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    Ok(entries.flatten().filter(|entry| is_task(&entry.file_name())).count() as u64)
}

/// The words that start it, after `__workload`.
#[must_use]
pub fn words(most: u64) -> Vec<String> {
    vec![NAME.to_owned(), most.to_string()]
}
