//! The freezer: stops every task of a group, and lets them go on. A controller on v1, part of every group on v2.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use cgroups_rs::freezer::FreezerController;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{CgroupError, Controller, Hierarchy, Place, keyed, read, setting};

/// The file of the state on v1.
pub const STATE: &str = "freezer.state";
/// The file that takes the wish on v2.
pub const FREEZE: &str = "cgroup.freeze";
/// The file that tells the state on v2.
const EVENTS: &str = "cgroup.events";

/// How long a freeze may take; a task in an uninterruptible wait delays it.
const PATIENCE: Duration = Duration::from_secs(10);

impl Place {
    fn freezer(&self) -> FreezerController {
        FreezerController::new(self.path.clone(), self.hierarchy == Hierarchy::V2)
    }

    fn freezer_file(&self) -> &'static str {
        if self.hierarchy == Hierarchy::V2 { FREEZE } else { STATE }
    }

    fn refused(&self, value: &str) -> impl FnOnce(cgroups_rs::error::Error) -> CgroupError {
        let (setting, value, path) = (self.freezer_file(), value.to_owned(), self.path.clone());
        move |error| CgroupError::Write {
            controller: Controller::Freezer,
            setting,
            value,
            path,
            source: setting::io_error(error),
        }
    }
}

/// Freezes the group and waits until the kernel says that every task is frozen.
///
/// # Errors
/// When it is not frozen after ten seconds; it is thawed again then.
pub fn freeze(place: &Place) -> Result<(), CgroupError> {
    place.freezer().freeze().map_err(place.refused("frozen"))?;
    let frozen = match place.hierarchy {
        Hierarchy::V1 => wait_v1(&place.path),
        Hierarchy::V2 => wait_v2(&place.path),
    };
    let kept = match frozen {
        Ok(None) => return Ok(()),
        Ok(Some(kept)) => Ok(kept),
        Err(error) => Err(error),
    };
    thaw(place)?;
    Err(CgroupError::ReadBack {
        controller: Controller::Freezer,
        setting: place.freezer_file(),
        requested: "frozen".to_owned(),
        kept: kept?,
        path: place.path.clone(),
    })
}

/// Lets the group go on.
///
/// # Errors
/// When the state cannot be written.
pub fn thaw(place: &Place) -> Result<(), CgroupError> {
    place.freezer().thaw().map_err(place.refused("thawed"))
}

/// `None` once the group is frozen, else the state in which it stayed.
fn wait_v1(path: &Path) -> Result<Option<String>, CgroupError> {
    let begin = Instant::now();
    loop {
        let state = read(path, STATE)?;
        if state == "FROZEN" {
            return Ok(None);
        }
        if begin.elapsed() > PATIENCE {
            return Ok(Some(state));
        }
        // Reading the state is what makes a v1 kernel look again, so this cannot be an event that one waits for.
        std::thread::yield_now();
    }
}

/// As [`wait_v1`]. `cgroup.freeze` holds only what was wished; that it has come true is an event of `cgroup.events`.
fn wait_v2(path: &Path) -> Result<Option<String>, CgroupError> {
    let events = path.join(EVENTS);
    let begin = Instant::now();
    let mut file = File::open(&events).map_err(CgroupError::file("open", &events))?;
    loop {
        // Reading takes the event back, so that one which comes after it wakes the poll.
        let mut text = String::new();
        file.rewind().and_then(|()| file.read_to_string(&mut text)).map_err(CgroupError::file("read", &events))?;
        if keyed(&text, "frozen") == Some(1) {
            return Ok(None);
        }
        let left = PATIENCE.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Ok(Some(text.trim().replace('\n', ", ")));
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLPRI)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(CgroupError::file("wait for", &events)(errno.into())),
        }
    }
}

/// Whether every task of the group is frozen now.
///
/// # Errors
/// When the state cannot be read.
pub fn is_frozen(place: &Place) -> Result<bool, CgroupError> {
    match place.hierarchy {
        Hierarchy::V1 => Ok(read(&place.path, STATE)? == "FROZEN"),
        Hierarchy::V2 => Ok(keyed(&read(&place.path, EVENTS)?, "frozen") == Some(1)),
    }
}
