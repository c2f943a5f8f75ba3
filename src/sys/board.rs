//! The board: a few words of memory that the harness shares with a program in a container, to steer it and to read
//! how far it has come, also after the program was killed.
//!
//! It is a memfd that the container gets as a standard stream. The harness makes and fills it, so that its pages are
//! charged to the harness's own group and reading it costs the container nothing. Both sides wait for changes by a
//! futex on the bell, the first word. Used by the steered workloads and the experiments that steer them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Bytes before the words: the bell on a cache line of its own.
const HEADER: usize = 64;

/// What nobody may do to a board once it is made: a mapping whose file has shrunk would raise SIGBUS.
const SEALS: SealFlag = SealFlag::F_SEAL_SHRINK;

/// A mapped board. All access is atomic.
#[derive(Debug)]
pub struct Board {
    base: *mut u8,
    length: usize,
    words: usize,
}

// SAFETY: the pointer is to a shared mapping that lives as long as the value, and every access is atomic.
unsafe impl Send for Board {}
// SAFETY: as above.
unsafe impl Sync for Board {}

impl Board {
    /// Makes a zeroed board of so many words, already faulted in, and a descriptor of it for the other side.
    ///
    /// # Errors
    /// EMFILE, ENOMEM.
    pub fn create(words: usize) -> io::Result<(Self, OwnedFd)> {
        let fd = memfd_create(c"isobench-board", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let file = File::from(fd);
        file.set_len((HEADER + words * size_of::<AtomicU64>()) as u64)?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS))?;
        let board = Self::open(file.as_fd(), words)?;
        Ok((board, file.into()))
    }

    /// Maps a board that the other side has made with at least so many words.
    ///
    /// # Errors
    /// EINVAL when the descriptor is no board of that size; what mmap says.
    pub fn open(fd: BorrowedFd<'_>, words: usize) -> io::Result<Self> {
        let length = HEADER + words * size_of::<AtomicU64>();
        let no_board = |_| io::Error::new(io::ErrorKind::InvalidInput, "the descriptor is no board");
        let seals = SealFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GET_SEALS).map_err(no_board)?);
        let size = nix::sys::stat::fstat(fd)?.st_size;
        if !seals.contains(SEALS) || u64::try_from(size).unwrap_or(0) < length as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the descriptor is no board of this size"));
        }
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory. The file is at least
        // as long and sealed against shrinking.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { base: base.cast(), length, words })
    }

    fn bell(&self) -> &AtomicU32 {
        // SAFETY: the mapping begins on a page, is longer than the header and lives until `drop`.
        unsafe { &*self.base.cast() }
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping holds so many words after the header, which keeps them aligned, and lives until `drop`.
        unsafe { std::slice::from_raw_parts(self.base.add(HEADER).cast(), self.words) }
    }

    /// How many words it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words == 0
    }

    /// A word. What was written before it by [`Board::set`] or [`Board::post`] is seen too.
    ///
    /// # Panics
    /// When there is no such word.
    #[must_use]
    pub fn get(&self, word: usize) -> u64 {
        self.words()[word].load(Ordering::Acquire)
    }

    /// Writes a word without a system call; who waits is not woken.
    ///
    /// # Panics
    /// When there is no such word.
    pub fn set(&self, word: usize, value: u64) {
        self.words()[word].store(value, Ordering::Release);
    }

    /// Writes a word and wakes who waits.
    ///
    /// # Panics
    /// When there is no such word.
    pub fn post(&self, word: usize, value: u64) {
        self.set(word, value);
        self.bell().fetch_add(1, Ordering::AcqRel);
        // SAFETY: the word is mapped. Not FUTEX_PRIVATE: the waiter is another process.
        unsafe { libc::syscall(libc::SYS_futex, self.bell().as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
    }

    /// Waits until `ready` says so, looking again after each [`Board::post`], at most `timeout`; whether it is.
    pub fn wait(&self, timeout: Duration, ready: impl Fn(&Self) -> bool) -> bool {
        let deadline_ns = super::clock::now_ns() + u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX / 2);
        loop {
            let rung = self.bell().load(Ordering::Acquire);
            if ready(self) {
                return true;
            }
            let left_ns = deadline_ns.saturating_sub(super::clock::now_ns());
            if left_ns == 0 {
                return false;
            }
            let left = libc::timespec {
                tv_sec: (left_ns / 1_000_000_000) as libc::time_t,
                tv_nsec: (left_ns % 1_000_000_000) as libc::c_long,
            };
            // SAFETY: the word and the timeout are valid during the call. Every outcome is handled by looking again.
            unsafe {
                libc::syscall(libc::SYS_futex, self.bell().as_ptr(), libc::FUTEX_WAIT, rung, &raw const left);
            }
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `open` with this length, and no reference to it outlives the value.
        unsafe { libc::munmap(self.base.cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_the_same_words() {
        let (ours, fd) = Board::create(700).unwrap();
        let theirs = Board::open(fd.as_fd(), 700).unwrap();
        ours.set(699, 7);
        theirs.post(0, u64::MAX);
        assert_eq!((theirs.get(699), ours.get(0), ours.get(1)), (7, u64::MAX, 0));
        assert_eq!(ours.len(), 700);
    }

    #[test]
    fn a_post_wakes_who_waits_and_a_timeout_ends_the_wait() {
        let (ours, fd) = Board::create(1).unwrap();
        let waiter = std::thread::spawn(move || {
            let theirs = Board::open(fd.as_fd(), 1).unwrap();
            theirs.wait(Duration::from_secs(60), |board| board.get(0) == 2)
        });
        ours.post(0, 1);
        ours.post(0, 2);
        assert!(waiter.join().unwrap());
        assert!(!ours.wait(Duration::from_millis(1), |board| board.get(0) == 3));
    }

    #[test]
    fn another_file_is_no_board() {
        let (_, fd) = Board::create(1).unwrap();
        assert!(Board::open(fd.as_fd(), 2).is_err(), "too small");
        let file = File::open("/proc/self/exe").unwrap();
        assert!(Board::open(file.as_fd(), 1).is_err(), "could shrink");
    }
}
