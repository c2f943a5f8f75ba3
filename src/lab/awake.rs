//! Keeps the host's CPUs out of idle states while a value lives. Used by `experiment::interference`.
//!
//! A program that waits for replies lets its CPU fall idle between them, and in a virtual machine waking up costs more
//! than the reply: a neighbour that keeps the CPU busy would then make it faster. The kernel's PM QoS file holds the
//! request as long as it is open, so it goes with this process.

use std::fs::File;
use std::io::{self, Write};

const LATENCY: &str = "/dev/cpu_dma_latency";

/// A request that no CPU sleeps.
#[derive(Debug)]
pub struct Awake {
    _file: File,
}

impl Awake {
    /// Makes the request; `None` where the kernel has no such file.
    ///
    /// # Errors
    /// When the file is there and cannot be used.
    pub fn request() -> io::Result<Option<Self>> {
        let mut file = match File::options().write(true).open(LATENCY) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // The longest wake-up that is allowed, in µs.
        file.write_all(&0_i32.to_ne_bytes())?;
        Ok(Some(Self { _file: file }))
    }
}
