//! Ctrl-C, SIGTERM and a closed terminal: a wish to stop, never a kill.
//!
//! The handler only sets a flag, again at each signal. So a second and a third Ctrl-C change nothing: what the run
//! holds is given back in its own time, which takes a moment and not minutes, and nothing is left behind.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Turns the three signals into a flag, from now until the process ends.
pub(super) fn stop_flag() -> io::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
    }
    Ok(flag)
}
