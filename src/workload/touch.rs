//! `touch PAGES`: touches anonymous memory page by page as far as it is told, at most so many pages.
//!
//! Two processes: the first one of the container only looks on, and its child does the touching. So the kernel has a
//! choice whom to kill at a memory limit, and somebody is left who saw the end and when it was. The number of the last
//! page that was touched stands on the board whatever happens to the child, exact to a page.

use nix::sys::wait::{WaitStatus, waitpid};

use super::WorkloadError;
use super::steer::{await_command, complain, only_number};
use crate::sys::board::Board;
use crate::sys::clock;
use crate::sys::fork::fork;
use crate::sys::region::Region;

/// The program's name after `__workload`.
pub const NAME: &str = "touch";

/// The words of its board.
pub mod word {
    /// In: touch up to so many pages.
    pub const TARGET: usize = 0;
    /// Out: so many pages are touched. One from the start, so that code and page tables for it are in place.
    pub const TOUCHED: usize = 1;
    /// Out: when the last of them was, in ns of CLOCK_MONOTONIC.
    pub const TOUCHED_NS: usize = 2;
    /// Out: how the child ended: [`super::killed`] reads it. 0 while it lives.
    pub const ENDED: usize = 3;
    /// Out: when that was seen, in ns of CLOCK_MONOTONIC.
    pub const ENDED_NS: usize = 4;
    /// In: anything but 0: look whether every touched page still holds what was written.
    pub const VERIFY: usize = 5;
    /// Out: how many did, and 1.
    pub const INTACT: usize = 6;
    /// How many there are.
    pub const COUNT: usize = 7;
}

const EXITED: u64 = 1 << 32;
const SIGNALLED: u64 = 1 << 33;

/// Whether [`word::ENDED`] says that the child was ended by SIGKILL.
#[must_use]
pub fn killed(ended: u64) -> bool {
    ended == SIGNALLED | libc::SIGKILL as u64
}

pub(super) fn run(board: &Board, arguments: &[String]) -> Result<(), WorkloadError> {
    let pages = only_number(arguments, "how many pages to touch at most")?;
    // Each CPU has a stock of pages that are charged in advance. On one CPU there is one stock, and it is used up.
    let cpu = nix::sched::sched_getcpu().map_err(WorkloadError::system("ask for the CPU"))?;
    super::socket::pin(u32::try_from(cpu).ok())?;
    let child = fork(|| match touch(board, pages) {
        Ok(()) => 0,
        Err(error) => {
            complain(board, &super::chain(&error));
            1
        }
    })
    .map_err(WorkloadError::system("fork"))?;
    let status = loop {
        match waitpid(child, None) {
            Err(nix::errno::Errno::EINTR) => {}
            outcome => break outcome.map_err(WorkloadError::system("wait for the child"))?,
        }
    };
    let ended = match status {
        WaitStatus::Signaled(_, signal, _) => SIGNALLED | signal as u64,
        WaitStatus::Exited(_, code) => EXITED | u64::from(code as u8),
        _ => EXITED,
    };
    board.set(word::ENDED_NS, clock::now_ns());
    board.post(word::ENDED, ended);
    super::hold()
}

/// What is written to a page, so that it can be told from a fresh one and from its neighbours.
fn mark(page: usize) -> u8 {
    (page % 251) as u8 + 1
}

fn touch(board: &Board, pages: u64) -> Result<(), WorkloadError> {
    let pages = usize::try_from(pages).map_err(|_| WorkloadError::Arguments("too many pages".to_owned()))?;
    let mut region = Region::anonymous(pages).map_err(WorkloadError::system("reserve addresses"))?;
    let mut touched = 0;
    let mut target = 1;
    loop {
        while touched < target {
            region.touch(touched, mark(touched));
            touched += 1;
            board.set(word::TOUCHED_NS, clock::now_ns());
            board.set(word::TOUCHED, touched as u64);
        }
        board.post(word::TOUCHED, touched as u64);
        let wanted = |board: &Board| usize::try_from(board.get(word::TARGET)).unwrap_or(usize::MAX).min(pages);
        let asked = |board: &Board| board.get(word::VERIFY) != 0 && board.get(word::INTACT) == 0;
        await_command(board, |board| wanted(board) > touched || asked(board))?;
        if asked(board) {
            let intact = (0..touched).filter(|&page| region.value(page) == mark(page)).count();
            board.post(word::INTACT, intact as u64 + 1);
        }
        target = wanted(board);
    }
}

/// The words that start it, after `__workload`.
#[must_use]
pub fn words(pages: u64) -> Vec<String> {
    vec![NAME.to_owned(), pages.to_string()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sigkill_is_a_kill() {
        assert!(killed(SIGNALLED | 9));
        assert!(!killed(SIGNALLED | 15) && !killed(EXITED | 9) && !killed(0));
    }

    #[test]
    fn neighbours_differ_and_none_is_fresh() {
        assert!((0..2000).all(|page| mark(page) != 0 && mark(page) != mark(page + 1)));
    }
}
