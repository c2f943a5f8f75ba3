//! Loop devices: a block device over a file, owned by a descriptor.
//!
//! `lab::disk` makes them for the block experiments. A device is set up with autoclear, so that it goes when its last
//! descriptor does: also after `kill -9`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// From `linux/loop.h`.
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_CTL_REMOVE: libc::Ioctl = 0x4C81;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// Where free numbers are asked for.
const CONTROL: &str = "/dev/loop-control";

/// Another process may take the number that was found free before it is configured; then the next one is asked for.
const TRIES: u32 = 32;

/// `struct loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// A loop device. It is there as long as this value, or anybody who has it open.
#[derive(Debug)]
pub struct LoopDevice {
    /// Taken only by `drop`.
    device: Option<File>,
    number: u32,
    path: PathBuf,
    /// Whether the kernel made the device for us, so that it was not there before.
    added: bool,
}

impl LoopDevice {
    /// Makes a device of a file, the size of the file in whole sectors of 512 bytes.
    ///
    /// `direct` passes requests by the page cache of the file's file system: right for a file on a disk, without
    /// effect for one in memory.
    ///
    /// # Errors
    /// ENOENT without loop devices in this kernel or their nodes in /dev; EPERM without CAP_SYS_ADMIN; EINVAL when the
    /// file system cannot do `direct`.
    pub fn over(file: BorrowedFd<'_>, direct: bool) -> io::Result<Self> {
        let control = File::options().read(true).write(true).open(CONTROL).map_err(at(CONTROL))?;
        let mut last = io::Error::from_raw_os_error(libc::EBUSY);
        for _ in 0..TRIES {
            let before = present();
            // SAFETY: this request takes no argument.
            let number = check(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })? as u32;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = File::options().read(true).write(true).open(&path).map_err(at(&path))?;
            if !device.metadata()?.file_type().is_block_device() {
                return Err(io::Error::other(format!("{} is no block device", path.display())));
            }
            match configure(&device, file, direct) {
                Ok(()) => {
                    let added = !before.contains(&number);
                    return Ok(Self { device: Some(device), number, path, added });
                }
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Its node, as in `/dev/loop3`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name in /sys/block, as in `loop3`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("loop{}", self.number)
    }

    /// Its major and minor number.
    ///
    /// # Errors
    /// When the node cannot be looked at.
    pub fn numbers(&self) -> io::Result<(u32, u32)> {
        let Some(device) = &self.device else { return Err(io::Error::from_raw_os_error(libc::EBADF)) };
        let number = device.metadata()?.rdev();
        Ok((libc::major(number), libc::minor(number)))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        drop(self.device.take());
        // A device beyond those that the kernel made at boot would stay behind, unused. EBUSY: somebody else has taken
        // it meanwhile, and then it is theirs.
        if self.added
            && let Ok(control) = File::options().read(true).write(true).open(CONTROL)
        {
            // SAFETY: the argument is a plain number.
            unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_REMOVE, libc::c_ulong::from(self.number)) };
        }
    }
}

fn configure(device: &File, file: BorrowedFd<'_>, direct: bool) -> io::Result<()> {
    let flags = LO_FLAGS_AUTOCLEAR | if direct { LO_FLAGS_DIRECT_IO } else { 0 };
    let info = Info {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    let config = Config { fd: file.as_raw_fd() as u32, block_size: 0, info, reserved: [0; 8] };
    // SAFETY: `config` lives through the call and has the layout of `struct loop_config`; the kernel only reads it.
    check(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), LOOP_CONFIGURE, &raw const config) }).map(drop)
}

fn check(returned: libc::c_int) -> io::Result<libc::c_int> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

/// The numbers of the loop devices that the kernel has.
fn present() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/sys/block") else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter_map(|name| name.strip_prefix("loop")?.parse().ok()).collect()
}

/// Puts the path before what the kernel said.
fn at(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("cannot open {}: {error}", path.as_ref().display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_structures_have_the_kernels_size() {
        // sizeof(struct loop_info64) and sizeof(struct loop_config) on every 64-bit machine.
        assert_eq!(size_of::<Info>(), 232);
        assert_eq!(size_of::<Config>(), 304);
    }
}
