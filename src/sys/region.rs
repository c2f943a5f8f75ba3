//! Anonymous memory that is touched page by page, and the page cache of a file seen from outside. Used by the memory
//! workloads inside a container and by the experiment that judges them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The size of a page in bytes.
#[must_use]
pub fn page_size() -> u64 {
    // SAFETY: plain numbers; this name always exists on Linux.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// How many pages one lowest page table maps: it fills a page with 8 bytes for each.
#[must_use]
pub fn pages_a_table() -> u64 {
    page_size() / 8
}

/// Private anonymous memory that takes a page only when it is touched, and then exactly one.
#[derive(Debug)]
pub struct Region {
    mapping: *mut u8,
    length: usize,
    /// The first page: it begins a page table, so that their number is known from the number of pages.
    first: *mut u8,
    pages: usize,
    page: usize,
}

impl Region {
    /// Reserves addresses for so many pages. Huge pages are forbidden: one of them would be charged at once.
    ///
    /// # Errors
    /// ENOMEM when the addresses or the promise of memory cannot be had.
    pub fn anonymous(pages: usize) -> io::Result<Self> {
        let page = page_size() as usize;
        let span = page * pages_a_table() as usize;
        let too_large = || io::Error::from_raw_os_error(libc::ENOMEM);
        let bytes = pages.checked_mul(page).ok_or_else(too_large)?;
        let length = bytes.checked_add(span).ok_or_else(too_large)?;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches no existing memory.
        let mapping = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping: *mut u8 = mapping.cast();
        let first = mapping.wrapping_add(mapping.align_offset(span));
        let region = Self { mapping, length, first, pages, page };
        // SAFETY: the range is the mapping just made.
        let advised = unsafe { libc::madvise(mapping.cast(), length, libc::MADV_NOHUGEPAGE) };
        let error = io::Error::last_os_error();
        // A kernel without huge pages does not know the advice, and does not need it.
        if advised != 0 && error.raw_os_error() != Some(libc::EINVAL) {
            return Err(error);
        }
        Ok(region)
    }

    /// How many pages it has.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Writes one byte of a page, which makes the kernel give the page.
    ///
    /// # Panics
    /// When there is no such page.
    pub fn touch(&mut self, page: usize, value: u8) {
        assert!(page < self.pages, "page {page} of {}", self.pages);
        // SAFETY: the page lies inside the mapping, which is writable and ours alone.
        unsafe { self.first.add(page * self.page).write_volatile(value) };
    }

    /// Reads the byte that [`Region::touch`] wrote; 0 from a page that was never touched.
    ///
    /// # Panics
    /// When there is no such page.
    #[must_use]
    pub fn value(&self, page: usize) -> u8 {
        assert!(page < self.pages, "page {page} of {}", self.pages);
        // SAFETY: the page lies inside the mapping, which is readable.
        unsafe { self.first.add(page * self.page).read_volatile() }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `anonymous` with this length, and no reference to it outlives the value.
        unsafe { libc::munmap(self.mapping.cast(), self.length) };
    }
}

/// How many of the first `length` bytes of a file are in the page cache, in whole pages, whoever brought them there.
///
/// # Errors
/// EPERM without write access to the file; what mmap says.
pub fn cached_pages(file: BorrowedFd<'_>, length: u64) -> io::Result<u64> {
    if length == 0 {
        return Ok(0);
    }
    let page = page_size();
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let mut present = vec![0_u8; length.div_ceil(page as usize)];
    // SAFETY: a new mapping at an address of the kernel's choice, never dereferenced.
    let mapping =
        unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    if mapping == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the range is the mapping just made, and the vector has a byte for each of its pages.
    let looked = unsafe { libc::mincore(mapping, length, present.as_mut_ptr().cast()) };
    let error = io::Error::last_os_error();
    // SAFETY: the mapping just made, which nothing else knows of.
    unsafe { libc::munmap(mapping, length) };
    if looked != 0 {
        return Err(error);
    }
    Ok(present.into_iter().map(|byte| u64::from(byte & 1)).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    fn resident() -> u64 {
        let statm = std::fs::read_to_string("/proc/thread-self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn a_page_is_taken_when_it_is_touched() {
        let pages = 4096;
        let mut region = Region::anonymous(pages).unwrap();
        assert_eq!((region.pages(), region.value(pages - 1)), (pages, 0));
        let before = resident();
        for page in 0..pages {
            region.touch(page, page as u8);
        }
        assert!(resident() >= before + pages as u64 / 2, "the other tests may free meanwhile, but not so much");
        assert!((0..pages).all(|page| region.value(page) == page as u8));
    }

    #[test]
    fn the_first_page_begins_a_page_table() {
        let region = Region::anonymous(1).unwrap();
        assert_eq!(region.first as u64 % (page_size() * pages_a_table()), 0);
    }

    #[test]
    fn what_was_just_written_is_cached() {
        let mut file = tempfile::tempfile().unwrap();
        let page = page_size();
        file.write_all(&vec![1; page as usize * 3]).unwrap();
        assert_eq!(cached_pages(file.as_fd(), page * 3).unwrap(), 3);
        file.set_len(page * 8).unwrap();
        assert_eq!(cached_pages(file.as_fd(), page * 8).unwrap(), 3);
        assert_eq!(cached_pages(file.as_fd(), 0).unwrap(), 0);
    }
}
