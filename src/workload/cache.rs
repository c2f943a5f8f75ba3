//! `cache`: writes and reads a file through the page cache, as far as it is told. The file is standard output.
//!
//! Every page that it writes carries its own number, and what it reads is compared, so that a page which was reclaimed
//! and came back from disk counts only if it came back whole.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use super::WorkloadError;
use super::steer::await_command;
use crate::sys::board::Board;
use crate::sys::clock;
use crate::sys::region::page_size;

/// The program's name after `__workload`.
pub const NAME: &str = "cache";

/// The words of its board.
pub mod word {
    /// Out: 1 once it waits for its first command.
    pub const READY: usize = 0;
    /// In: write so many pages from the file's begin.
    pub const WRITE: usize = 1;
    /// Out: so many were written.
    pub const WRITTEN: usize = 2;
    /// In: read so many pages from the file's begin.
    pub const READ: usize = 3;
    /// Out: so many were read.
    pub const DONE: usize = 4;
    /// Out: so many of them held what they should: their number where they were written, and nothing else.
    pub const INTACT: usize = 5;
    /// Out: how long the reading took, in ns.
    pub const READ_NS: usize = 6;
    /// How many there are.
    pub const COUNT: usize = 7;
}

/// Pages a system call.
const CHUNK: u64 = 16;

pub(super) fn run(board: &Board, arguments: &[String]) -> Result<(), WorkloadError> {
    if !arguments.is_empty() {
        return Err(WorkloadError::Arguments("cache takes no arguments".to_owned()));
    }
    let file = io::stdout().as_fd().try_clone_to_owned().map_err(WorkloadError::system("duplicate the file"))?;
    let file = File::from(file);
    // In memory before the limits count it, and large enough that nothing is allocated later.
    let mut buffer = vec![1; (CHUNK * page_size()) as usize];
    board.post(word::READY, 1);
    loop {
        let (wrote, read) = (board.get(word::WRITTEN), board.get(word::DONE));
        await_command(board, |board| board.get(word::WRITE) > wrote || board.get(word::READ) > read)?;
        if board.get(word::WRITE) > wrote {
            write(board, &file, wrote, &mut buffer)?;
        } else {
            self::read(board, &file, read, &mut buffer)?;
        }
    }
}

fn write(board: &Board, file: &File, from: u64, buffer: &mut [u8]) -> Result<(), WorkloadError> {
    let page = page_size() as usize;
    let until = board.get(word::WRITE);
    let mut next = from;
    while next < until {
        let count = CHUNK.min(until - next);
        let chunk = &mut buffer[..count as usize * page];
        for (number, bytes) in (next..).zip(chunk.chunks_mut(page)) {
            bytes[..8].copy_from_slice(&mark(number));
        }
        file.write_all_at(chunk, next * page as u64).map_err(WorkloadError::system("write the file"))?;
        next += count;
        board.set(word::WRITTEN, next);
    }
    board.post(word::WRITTEN, next);
    Ok(())
}

/// What a written page begins with: its number from 1, so that it differs from a hole.
fn mark(number: u64) -> [u8; 8] {
    (number + 1).to_le_bytes()
}

fn read(board: &Board, file: &File, from: u64, buffer: &mut [u8]) -> Result<(), WorkloadError> {
    let page = page_size() as usize;
    let (until, written) = (board.get(word::READ), board.get(word::WRITTEN));
    let begin = clock::now_ns();
    let (mut next, mut intact) = (from, board.get(word::INTACT));
    while next < until {
        let count = CHUNK.min(until - next);
        let chunk = &mut buffer[..count as usize * page];
        file.read_exact_at(chunk, next * page as u64).map_err(WorkloadError::system("read the file"))?;
        for (number, bytes) in (next..).zip(chunk.chunks(page)) {
            let expected = if number < written { mark(number) } else { [0; 8] };
            intact += u64::from(bytes[..8] == expected);
        }
        next += count;
        board.set(word::DONE, next);
    }
    board.set(word::READ_NS, clock::now_ns() - begin);
    board.set(word::INTACT, intact);
    board.post(word::DONE, next);
    Ok(())
}

/// The words that start it, after `__workload`.
#[must_use]
pub fn words() -> Vec<String> {
    vec![NAME.to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::steer::COMPLAINT;

    #[test]
    fn pages_come_back_whole_and_holes_are_empty() {
        let (board, _fd) = Board::create(word::COUNT + COMPLAINT).unwrap();
        let file = tempfile::tempfile().unwrap();
        let page = page_size();
        file.set_len(50 * page).unwrap();
        let mut buffer = vec![1; (CHUNK * page) as usize];
        board.set(word::WRITE, 33);
        write(&board, &file, 0, &mut buffer).unwrap();
        board.set(word::READ, 50);
        file.write_all_at(b"x", 7 * page).unwrap();
        read(&board, &file, 0, &mut buffer).unwrap();
        assert_eq!((board.get(word::WRITTEN), board.get(word::DONE), board.get(word::INTACT)), (33, 50, 49));
    }
}
