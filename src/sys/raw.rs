//! System calls without the C library.
//!
//! A child that shares its parent's memory shares the calling thread's `errno` too: a wrapper of the C library that
//! fails in the child would change what the parent reads of its own call. Here the error is the returned value and
//! nothing in memory is written. Only numbers that every 64-bit architecture has are used with it.

use std::ffi::c_int;

/// One system call by its number; each argument is a pointer or a number, at most six.
///
/// `Ok` holds what the kernel returned, `Err` the errno. The caller answers for the arguments, as for
/// [`libc::syscall`].
macro_rules! raw {
    ($number:expr $(, $argument:expr)* $(,)?) => {
        $crate::sys::raw::call($number, &[$($argument as usize),*])
    };
}
pub(super) use raw;

/// Puts up to six arguments into their registers.
///
/// # Safety
/// As for the system call itself: pointers must be valid for what the kernel does with them.
#[inline]
pub(super) unsafe fn call(number: i64, arguments: &[usize]) -> Result<usize, c_int> {
    let mut words = [0; 6];
    for (word, argument) in words.iter_mut().zip(arguments) {
        *word = *argument;
    }
    // SAFETY: the caller's.
    let returned = unsafe { enter(number, words) };
    if (-4095..0).contains(&returned) { Err(-returned as c_int) } else { Ok(returned as usize) }
}

/// The x86-64 convention: number in rax; the call clobbers rcx and r11.
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn enter(number: i64, words: [usize; 6]) -> isize {
    let returned: isize;
    // SAFETY: the caller's; memory may be read and written by the kernel, which the block does not deny.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => returned,
            in("rdi") words[0],
            in("rsi") words[1],
            in("rdx") words[2],
            in("r10") words[3],
            in("r8") words[4],
            in("r9") words[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    returned
}

/// Elsewhere by the C library, and so only in children with memory of their own: see [`super::clone::CAN_SHARE`].
#[cfg(not(target_arch = "x86_64"))]
unsafe fn enter(number: i64, words: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = words;
    // SAFETY: the caller's; the errno's location is always valid.
    unsafe {
        let returned = libc::syscall(number, a, b, c, d, e, f);
        if returned == -1 { -(*libc::__errno_location() as isize) } else { returned as isize }
    }
}

#[cfg(test)]
mod tests {
    use super::call;

    #[test]
    fn success_and_errno_come_back_and_errno_is_left_alone() {
        // SAFETY: getpid takes nothing; close of a descriptor that cannot exist is refused.
        unsafe {
            *libc::__errno_location() = 77;
            assert_eq!(raw!(libc::SYS_getpid), Ok(std::process::id() as usize));
            assert_eq!(raw!(libc::SYS_close, i32::MAX), Err(libc::EBADF));
            if cfg!(target_arch = "x86_64") {
                assert_eq!(*libc::__errno_location(), 77);
            }
        }
        // SAFETY: six plain numbers to a call that does not exist.
        assert_eq!(unsafe { call(100_000, &[1, 2, 3, 4, 5, 6]) }, Err(libc::ENOSYS));
    }
}
