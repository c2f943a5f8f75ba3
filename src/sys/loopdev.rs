//! Loop devices: a block device over a file, owned by a descriptor.
//!
//! `lab::loops` makes them for the block experiments. A device is set up with autoclear, so that the file is let go when
//! its last descriptor is closed: also after `kill -9`. The device itself stays, unused, until [`remove`] takes it away.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// From `linux/loop.h`.
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CTL_ADD: libc::Ioctl = 0x4C80;
const LOOP_CTL_REMOVE: libc::Ioctl = 0x4C81;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// Where devices are added and removed.
const CONTROL: &str = "/dev/loop-control";

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

/// A loop device that stands over a file, as long as this value or anybody else has it open.
#[derive(Debug)]
pub struct LoopDevice {
    device: File,
    number: u32,
}

impl LoopDevice {
    /// Sets a device that is not in use over a file, the size of the file in whole sectors of 512 bytes.
    ///
    /// `direct` passes requests by the page cache of the file's file system: right for a file on a disk, without
    /// effect for one in memory.
    ///
    /// # Errors
    /// EBUSY when it is in use; ENOENT or ENXIO when there is no such device or no node for it in /dev; EPERM without
    /// CAP_SYS_ADMIN; EINVAL when the file is none that a block device can stand on.
    pub fn over(number: u32, file: BorrowedFd<'_>, direct: bool) -> io::Result<Self> {
        let path = node(number);
        let device = File::options().read(true).write(true).open(&path)?;
        if !device.metadata()?.file_type().is_block_device() {
            return Err(io::Error::other(format!("{} is no block device", path.display())));
        }
        configure(&device, file, direct)?;
        Ok(Self { device, number })
    }

    /// Its name in /sys/block, as in `loop3`.
    #[must_use]
    pub fn name(&self) -> String {
        name(self.number)
    }

    /// Its major and minor number.
    ///
    /// # Errors
    /// When the node cannot be looked at.
    pub fn numbers(&self) -> io::Result<(u32, u32)> {
        let number = self.device.metadata()?.rdev();
        Ok((libc::major(number), libc::minor(number)))
    }
}

/// The name of a device in /sys/block, as in `loop3`.
#[must_use]
pub fn name(number: u32) -> String {
    format!("loop{number}")
}

fn node(number: u32) -> PathBuf {
    Path::new("/dev").join(name(number))
}

/// Adds a device with this number, over no file.
///
/// # Errors
/// EEXIST when there is one; ENOENT without loop devices in this kernel; EPERM without CAP_SYS_ADMIN.
pub fn add(number: u32) -> io::Result<()> {
    control(LOOP_CTL_ADD, number)
}

/// Removes a device that stands over no file.
///
/// # Errors
/// EBUSY when somebody has it open or it stands over a file; ENODEV when there is none.
pub fn remove(number: u32) -> io::Result<()> {
    control(LOOP_CTL_REMOVE, number)
}

fn control(request: libc::Ioctl, number: u32) -> io::Result<()> {
    let control = File::options().read(true).write(true).open(CONTROL)?;
    // SAFETY: the argument of both requests is a plain number.
    check(unsafe { libc::ioctl(control.as_raw_fd(), request, libc::c_ulong::from(number)) }).map(drop)
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

/// The loop devices that the kernel has, and of each whether it stands over a file.
///
/// # Errors
/// When /sys cannot be read.
pub fn present() -> io::Result<Vec<(u32, bool)>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/sys/block")? {
        let entry = entry?;
        if let Some(number) = entry.file_name().to_str().and_then(number) {
            all.push((number, entry.path().join("loop/backing_file").exists()));
        }
    }
    all.sort_unstable();
    Ok(all)
}

/// The number in a name such as `loop3`.
#[must_use]
pub fn number(name: &str) -> Option<u32> {
    name.strip_prefix("loop")?.parse().ok()
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
