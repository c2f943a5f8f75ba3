//! Puts the group under which all of ours stand before the rest of the host, while something is measured in it.
//!
//! Shares and quotas say what a group gets of the CPU time that reaches it. Whatever else runs on the host competes with
//! our groups' parent, so a busy host takes from a group that its quota would have let run, and the quota would be
//! blamed. With the most weight there is, the parent gets all but a few thousandths. The `cpu` experiment calls it.

use super::{CgroupError, Controller, Group, Place, cpu};

/// The most shares there are, on v1; the most weight on v2.
pub const MOST_SHARES: u64 = 262_144;
/// What a group has that nobody gave any.
const DEFAULT_SHARES: u64 = 1024;

/// A parent that has the most weight, until this is dropped.
///
/// The parent is shared by every isobench on the host, and whoever ends first gives it the default weight back. The
/// other's measurement goes on, with as much protection as without this.
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
        cpu::apply_shares(&parent, MOST_SHARES)?;
        Ok(Self { parent })
    }
}

impl Drop for Favour {
    fn drop(&mut self) {
        // It may be gone already, collected with its last group; then there is nothing to give back.
        let _ = cpu::apply_shares(&self.parent, DEFAULT_SHARES);
    }
}
