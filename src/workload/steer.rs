//! What the steered workloads ([`super::touch`], [`super::cache`], [`super::fork`], [`super::spin`]) have in common:
//! they are told what to do over a [`Board`] on standard input, say there how far they have come, and stay until they
//! are killed.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use super::{WorkloadError, chain};
use crate::sys::board::Board;

/// Words at the end of each board for the text of a complaint.
pub const COMPLAINT: usize = 32;

/// The longest complaint in bytes; a longer one is cut.
const COMPLAINT_BYTES: usize = (COMPLAINT - 1) * 8;

/// How long a steered program waits for the next command. Whoever steers is gone after so long a silence, and so is
/// the container, which ends with it.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Maps the board on standard input and runs the program. What goes wrong is left on the board; an exit code of 2
/// says that there was none.
pub(super) fn run(
    words: usize,
    arguments: impl Iterator<Item = OsString>,
    program: impl FnOnce(&Board, &[String]) -> Result<(), WorkloadError>,
) -> ExitCode {
    let Ok(board) = Board::open(io::stdin().as_fd(), words + COMPLAINT) else { return ExitCode::from(2) };
    let arguments: Vec<String> = arguments.map(|word| word.to_string_lossy().into_owned()).collect();
    match program(&board, &arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&board, &chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Leaves a text on the board.
pub(super) fn complain(board: &Board, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(COMPLAINT_BYTES)];
    let first = board.len() - COMPLAINT;
    for (word, chunk) in (first + 1..).zip(bytes.chunks(8)) {
        let mut packed = [0; 8];
        packed[..chunk.len()].copy_from_slice(chunk);
        board.set(word, u64::from_ne_bytes(packed));
    }
    board.post(first, bytes.len() as u64);
}

/// The text that a program left.
#[must_use]
pub fn complaint(board: &Board) -> Option<String> {
    let first = board.len() - COMPLAINT;
    let length = usize::try_from(board.get(first)).ok().filter(|length| (1..=COMPLAINT_BYTES).contains(length))?;
    let mut bytes: Vec<u8> =
        (first + 1..).take(length.div_ceil(8)).flat_map(|word| board.get(word).to_ne_bytes()).collect();
    bytes.truncate(length);
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Waits for a command on the board.
pub(super) fn await_command(board: &Board, ready: impl Fn(&Board) -> bool) -> Result<(), WorkloadError> {
    if board.wait(PATIENCE, ready) {
        return Ok(());
    }
    Err(WorkloadError::TimedOut { doing: "wait for a command".to_owned(), after: PATIENCE })
}

/// Reads the one value that each of these programs takes.
pub(super) fn only_number(arguments: &[String], what: &str) -> Result<u64, WorkloadError> {
    match arguments {
        [value] => value.parse().ok().filter(|number| *number > 0),
        _ => None,
    }
    .ok_or_else(|| WorkloadError::Arguments(format!("the only argument is {what}, at least 1")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_survive_the_journey() {
        let (board, fd) = Board::create(3 + COMPLAINT).unwrap();
        let theirs = Board::open(fd.as_fd(), 3 + COMPLAINT).unwrap();
        assert_eq!(complaint(&board), None);
        complain(&theirs, "cannot fork: Cannot allocate memory");
        assert_eq!(complaint(&board).as_deref(), Some("cannot fork: Cannot allocate memory"));
        complain(&theirs, &"é".repeat(500));
        assert_eq!(complaint(&board).unwrap().chars().filter(|c| *c == 'é').count(), COMPLAINT_BYTES / 2);
        assert_eq!((board.get(0), board.get(1), board.get(2)), (0, 0, 0));
    }

    #[test]
    fn the_argument_is_a_count() {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(only_number(&words("12"), "a count").unwrap(), 12);
        for wrong in ["", "0", "x", "1 2"] {
            let told = only_number(&words(wrong), "a count").unwrap_err().to_string();
            assert_eq!(told, "the only argument is a count, at least 1");
        }
    }
}
