//! Puts the group under which all of ours stand before the rest of the host, while something is measured in it.
//!
//! Shares and quotas say what a group gets of the CPU time that reaches it. Whatever else runs on the host competes with
//! our groups' parent, so a busy host takes from a group that its quota would have let run, and the quota would be
//! blamed. With the most weight there is, the parent gets all but a few thousandths. The `cpu` experiment calls it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{CgroupError, Controller, Group, Place, cpu};

/// The most shares there are, on v1; the most weight on v2.
pub const MOST_SHARES: u64 = 262_144;
/// What a group has that nobody gave any.
const DEFAULT_SHARES: u64 = 1024;

/// How many favours of this process each parent has: those of all cases of a run are there at once, and the first that
/// goes must not take the weight from the others.
static USERS: Mutex<BTreeMap<PathBuf, usize>> = Mutex::new(BTreeMap::new());

/// A parent that has the most weight, until the last of its favours is dropped.
///
/// The parent is shared by every isobench on the host, and the process that ends first gives it the default weight
/// back. The other's measurement goes on, with as much protection as without this.
#[derive(Debug)]
pub struct Favour {
    parent: Place,
}

impl Favour {
    /// Gives the parent of a group of [`Group::create`] the most weight.
    ///
    /// # Errors
    /// When there is no cpu controller, or the kernel keeps another value.
    pub fn of_parent(group: &Group) -> Result<Self, CgroupError> {
        let place = group.place(Controller::Cpu);
        let place = place.ok_or(CgroupError::NoController { controller: Controller::Cpu, setting: "cpu_shares" })?;
        let path = place.path.parent().unwrap_or(&place.path).to_owned();
        let parent = Place { hierarchy: place.hierarchy, path };
        // Held over the write, so that a drop on another thread comes before or after both.
        let mut users = USERS.lock().unwrap_or_else(PoisonError::into_inner);
        cpu::apply_shares(&parent, MOST_SHARES)?;
        join(&mut users, &parent.path);
        Ok(Self { parent })
    }
}

impl Drop for Favour {
    fn drop(&mut self) {
        let mut users = USERS.lock().unwrap_or_else(PoisonError::into_inner);
        if leave(&mut users, &self.parent.path) {
            // It may be gone already, collected with its last group; then there is nothing to give back.
            let _ = cpu::apply_shares(&self.parent, DEFAULT_SHARES);
        }
    }
}

fn join(users: &mut BTreeMap<PathBuf, usize>, parent: &Path) {
    *users.entry(parent.to_owned()).or_default() += 1;
}

/// Whether it was the last one.
fn leave(users: &mut BTreeMap<PathBuf, usize>, parent: &Path) -> bool {
    let left = users.get(parent).map_or(0, |count| count.saturating_sub(1));
    if left > 0 {
        users.insert(parent.to_owned(), left);
    } else {
        users.remove(parent);
    }
    left == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_of_a_parents_users_takes_the_weight_back() {
        let mut users = BTreeMap::new();
        let (one, two) = (Path::new("/one"), Path::new("/two"));
        for parent in [one, one, two, one] {
            join(&mut users, parent);
        }
        assert_eq!([leave(&mut users, one), leave(&mut users, two), leave(&mut users, one)], [false, true, false]);
        assert!(leave(&mut users, one) && users.is_empty());
    }
}
