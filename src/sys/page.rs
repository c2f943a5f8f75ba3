//! The clock page: one anonymous page shared by the launching process and the child it clones.
//!
//! The child stamps CLOCK_MONOTONIC into it after each operation of its plan and leaves the index and errno of the
//! one that failed; the parent opens gates on it that the child waits at. Nothing of it costs a system call but a
//! wait at a closed gate. The mapping ends with the exec on the child's side and with the drop on the parent's.

use std::io;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use super::clock;
use super::raw::raw;

/// The most operations that a plan may have: the stamps fill the page but for the words before them.
pub const MAX_STAMPS: usize = 500;

/// What the child waits for while the parent works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Gate {
    /// The uid and gid maps of a new user namespace are written.
    UserMap = 0,
    /// The container is a member of its cgroups, and the limits are written.
    Cgroup = 1,
    /// Its network is connected.
    Network = 2,
}

const CLOSED: u32 = 0;
const OPEN: u32 = 1;
const ABORTED: u32 = 2;

/// Bit set by the parent's word when a child sleeps at the gate; saves the wake call when nobody does.
const SLEEPING: u32 = 4;

#[repr(C, align(4096))]
struct Layout {
    gates: [AtomicU32; 3],
    /// The failed operation's index plus one; 0 while none failed.
    failed: AtomicU32,
    errno: AtomicI32,
    done: AtomicU32,
    stamps: [AtomicU64; MAX_STAMPS],
}

const _: () = assert!(size_of::<Layout>() == 4096);

/// The mapping itself. Sharing it between processes is what it is for; all access is atomic.
#[derive(Debug)]
pub struct ClockPage {
    layout: *mut Layout,
}

// SAFETY: the pointer is to a shared mapping that lives as long as the value, and every field is atomic.
unsafe impl Send for ClockPage {}
// SAFETY: as above.
unsafe impl Sync for ClockPage {}

/// A failure that a child left on the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Which operation of the plan.
    pub operation: usize,
    /// What the kernel said.
    pub errno: i32,
}

impl ClockPage {
    /// Maps a zeroed page, already faulted in, so that the first stamp costs no page fault.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new() -> io::Result<Self> {
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches no existing memory.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<Layout>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { layout: address.cast() })
    }

    fn layout(&self) -> &Layout {
        // SAFETY: the mapping is as large and as aligned as `Layout`, zero is valid for every field, and it lives
        // until `drop`.
        unsafe { &*self.layout }
    }

    /// Child: the operation with this index is done.
    pub fn stamp(&self, index: usize) {
        let layout = self.layout();
        layout.stamps[index].store(clock::now_ns(), Ordering::Relaxed);
        layout.done.store(index as u32 + 1, Ordering::Release);
    }

    /// Child: the operation with this index failed.
    pub fn fail(&self, operation: usize, errno: i32) {
        let layout = self.layout();
        layout.errno.store(errno, Ordering::Relaxed);
        layout.failed.store(operation as u32 + 1, Ordering::Release);
    }

    /// Parent: the stamps of the operations done so far, in ns of CLOCK_MONOTONIC.
    pub fn stamps(&self) -> impl Iterator<Item = u64> {
        let layout = self.layout();
        let done = layout.done.load(Ordering::Acquire) as usize;
        layout.stamps[..done.min(MAX_STAMPS)].iter().map(|stamp| stamp.load(Ordering::Relaxed))
    }

    /// Parent: the failure that the child left, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        let layout = self.layout();
        match layout.failed.load(Ordering::Acquire) {
            0 => None,
            index => Some(Failure { operation: index as usize - 1, errno: layout.errno.load(Ordering::Relaxed) }),
        }
    }

    /// Parent: lets the child through.
    pub fn open(&self, gate: Gate) {
        self.release(gate, OPEN);
    }

    /// Parent: tells the child to end without a word, whatever gate it is at.
    pub fn abort(&self) {
        for gate in [Gate::UserMap, Gate::Cgroup, Gate::Network] {
            self.release(gate, ABORTED);
        }
    }

    fn release(&self, gate: Gate, value: u32) {
        let word = &self.layout().gates[gate as usize];
        if word.swap(value, Ordering::Release) & SLEEPING != 0 {
            futex(word, libc::FUTEX_WAKE, i32::MAX as u32);
        }
    }

    /// Child: waits until the gate is open; false when the parent aborted.
    #[must_use]
    pub fn pass(&self, gate: Gate) -> bool {
        let word = &self.layout().gates[gate as usize];
        loop {
            match word.load(Ordering::Acquire) {
                OPEN => return true,
                ABORTED => return false,
                CLOSED => {
                    // A change between the load and here makes the exchange fail, and the loop looks again.
                    let _ = word.compare_exchange(CLOSED, SLEEPING, Ordering::AcqRel, Ordering::Relaxed);
                }
                sleeping => futex(word, libc::FUTEX_WAIT, sleeping),
            }
        }
    }
}

/// Not FUTEX_PRIVATE: the waiter is another process.
fn futex(word: &AtomicU32, operation: i32, value: u32) {
    // SAFETY: the word is mapped; a null timeout means to wait without end. Every outcome is handled by the caller's
    // loop, which looks at the word again.
    let _ = unsafe { raw!(libc::SYS_futex, word.as_ptr(), operation, value, 0) };
}

impl Drop for ClockPage {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this size, and no reference to it outlives the value.
        unsafe { libc::munmap(self.layout.cast(), size_of::<Layout>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_and_failures_are_read_back() {
        let page = ClockPage::new().unwrap();
        assert_eq!(page.failure(), None);
        let before = clock::now_ns();
        page.stamp(0);
        page.stamp(1);
        page.fail(2, libc::EPERM);
        let stamps: Vec<u64> = page.stamps().collect();
        assert_eq!(stamps.len(), 2);
        assert!(before <= stamps[0] && stamps[0] <= stamps[1]);
        assert_eq!(page.failure(), Some(Failure { operation: 2, errno: libc::EPERM }));
    }

    #[test]
    fn a_gate_holds_until_it_is_opened() {
        let page = std::sync::Arc::new(ClockPage::new().unwrap());
        let waiter = std::thread::spawn({
            let page = page.clone();
            move || page.pass(Gate::Cgroup)
        });
        page.open(Gate::Network);
        assert!(page.pass(Gate::Network));
        assert!(!waiter.is_finished());
        page.open(Gate::Cgroup);
        assert!(waiter.join().unwrap());
        page.abort();
        assert!(!page.pass(Gate::UserMap));
    }
}
