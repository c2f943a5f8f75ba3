//! `kind = "lifecycle"`: every runtime × network × image × lives a block; each case walks through the same steps.
//!
//! A case is called `lifecycle/<runtime>/<network>`, and `/<image>` and `/n<per_block>` are added where the file lists
//! several values of them.

use std::time::Duration;

use super::matrix::product;
use super::raw::Value;
use super::read::{self, Table};
use super::{Case, CaseKind, NetworkMode, RuntimeKind};

named! {
    /// What is done to a container.
    Step {
        /// Started; its program has said that it is there.
        Run = "run",
        /// Frozen, every task.
        Pause = "pause",
        /// Let go on.
        Unpause = "unpause",
        /// A further program run in it, to its end.
        Exec = "exec",
        /// Its program ended by SIGTERM.
        Stop = "stop",
        /// Stopped if it runs, and run again.
        Restart = "restart",
        /// Ended if it runs, and all given back that it used.
        Rm = "rm",
    }
}

/// A case of the `lifecycle` experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifecycleCase {
    /// The runtime under test.
    pub runtime: RuntimeKind,
    /// The network mode of the container.
    pub network: NetworkMode,
    /// What the container is made of: what [`crate::image::Image::open`] takes.
    pub image: String,
    /// What is done to it, in order.
    pub steps: Vec<Step>,
    /// Lives in one block, one after the other.
    pub per_block: u32,
}

/// The keys that span the matrix and the rest, for `isobench list`: name, values or range, default.
pub(super) const KEYS: &[super::Key] = &[
    ("runtime", "builtin", "\"builtin\"", "what is put under test"),
    ("network", "host, none, bridge, container", "required", "how the container is connected"),
    ("image", "self, a name, docker-archive:PATH, oci:PATH, …", "\"self\"", "what the container is made of"),
    (
        "steps",
        "run, pause, unpause, exec, stop, restart, rm",
        "each once, in this order",
        "what is done to the container, in order; each is timed",
    ),
    ("per_block", "1 to 10000", "5", "lives of a container in one block, one after the other"),
];

/// The steps of a file that names none.
const USUAL: &[Step] = Step::ALL;

/// How often one step may come in a life: each time has a metric of its own.
const REPEATS: usize = 4;

/// The metrics of a step: of the first time, the second, ….
fn names(step: Step) -> &'static [&'static str] {
    match step {
        Step::Run => &["run"],
        Step::Pause => &["pause", "pause_2", "pause_3", "pause_4"],
        Step::Unpause => &["unpause", "unpause_2", "unpause_3", "unpause_4"],
        Step::Exec => &["exec", "exec_2", "exec_3", "exec_4"],
        Step::Stop => &["stop", "stop_2", "stop_3", "stop_4"],
        Step::Restart => &["restart", "restart_2", "restart_3", "restart_4"],
        Step::Rm => &["rm"],
    }
}

impl LifecycleCase {
    /// The metric of each step, in the order of the steps; no name comes twice.
    #[must_use]
    pub fn metrics(&self) -> Vec<&'static str> {
        let time = |at: usize| self.steps[..at].iter().filter(|step| **step == self.steps[at]).count();
        let name = |at: usize| names(self.steps[at]).get(time(at)).copied();
        (0..self.steps.len()).filter_map(name).collect()
    }

    /// Roughly how long one life takes. The figures are on the high side.
    fn life(&self) -> Duration {
        let start = if self.network == NetworkMode::Bridge { 12 } else { 8 };
        let of = |step: &Step| match step {
            Step::Run => start,
            Step::Restart => start + 6,
            Step::Pause | Step::Unpause | Step::Stop => 2,
            Step::Exec | Step::Rm => 6,
        };
        Duration::from_millis(self.steps.iter().map(of).sum())
    }

    /// Roughly how long it takes in one block.
    pub(super) fn estimate(&self) -> Duration {
        self.life() * self.per_block
    }
}

/// How a container is before and after a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Absent,
    Running,
    Paused,
    Stopped,
    Removed,
}

/// The condition after a step, or why it makes no sense and what would.
fn after(condition: Condition, step: Step) -> Result<Condition, (&'static str, &'static str)> {
    use Condition::{Absent, Paused, Removed, Running, Stopped};
    match (condition, step) {
        (Absent, Step::Run) | (Running | Stopped, Step::Restart) | (Paused, Step::Unpause) => Ok(Running),
        (Running, Step::Exec) => Ok(Running),
        (Running, Step::Pause) => Ok(Paused),
        (Running, Step::Stop) => Ok(Stopped),
        (Running | Paused | Stopped, Step::Rm) => Ok(Removed),
        (Absent, _) => Err(("there is no container yet", "begin with \"run\"")),
        (Removed, _) => Err(("the container has been removed", "make \"rm\" the last step")),
        (Stopped, Step::Run) => Err(("the container is there already", "use \"restart\"")),
        (_, Step::Run) => Err(("the container is there already", "name \"run\" once, as the first step")),
        (Running, Step::Unpause) => Err(("the container is not paused", "put \"pause\" before it")),
        (Paused, _) => Err(("the container is paused", "put \"unpause\" before it")),
        (Stopped, _) => Err(("the container does not run", "put \"restart\" before it")),
    }
}

/// Reads one `[[experiment]]` of this kind and expands it to its cases.
pub(super) fn expand(mut table: Table<'_, '_>) -> Vec<Case> {
    let runtimes = table.list("runtime", &[RuntimeKind::Builtin], read::grouped_runtime);
    let read_network = read::name("network mode", NetworkMode::ALL);
    let networks = table.required_list("network", NetworkMode::ALL, read_network);
    let images = table.list("image", &["self".to_owned()], read::text);
    let steps = read_steps(&mut table);
    let per_block = table.list("per_block", &[5], read::whole(1, 10_000));
    let case = |[r, w, i, n]: [usize; 4]| {
        let case = LifecycleCase {
            runtime: *runtimes.at(r),
            network: *networks.at(w),
            image: images.at(i).clone(),
            steps: steps.clone(),
            per_block: *per_block.at(n),
        };
        // A slash in the image's name would make further parts of the id.
        let suffix = images.suffix(i, |image| image.replace('/', "_")) + &per_block.suffix(n, |n| format!("n{n}"));
        let id = format!("lifecycle/{}/{}{suffix}", case.runtime, case.network);
        Case { id, baseline: None, kind: CaseKind::Lifecycle(case) }
    };
    let cases = product([runtimes.len(), networks.len(), images.len(), per_block.len()]).map(case).collect();
    table.finish();
    cases
}

/// The steps, each of which must make sense after the one before; the usual ones stand in for wrong ones.
fn read_steps(table: &mut Table<'_, '_>) -> Vec<Step> {
    let Some(entry) = table.entry("steps") else { return USUAL.to_vec() };
    let items = match &entry.node.value {
        Value::Array(items) if !items.is_empty() => items.as_slice(),
        Value::Array(_) => {
            table.problem(entry.node.span.clone(), "`steps` is an empty list", "begin with \"run\"");
            &[]
        }
        _ => std::slice::from_ref(&entry.node),
    };
    let mut condition = Condition::Absent;
    let mut steps: Vec<Step> = Vec::new();
    for item in items {
        let Some(step) = table.item(item, "steps", read::name("step", Step::ALL)) else { return USUAL.to_vec() };
        // Further mistakes could come of this one.
        condition = match after(condition, step) {
            Ok(next) => next,
            Err((why, help)) => {
                table.problem(item.span.clone(), format!("`{step}` makes no sense here: {why}"), help);
                return USUAL.to_vec();
            }
        };
        steps.push(step);
        if steps.iter().filter(|known| **known == step).count() > REPEATS {
            let message = format!("`{step}` comes more than {REPEATS} times");
            table.problem(item.span.clone(), message, "shorten the life and raise per_block");
            return USUAL.to_vec();
        }
    }
    if steps.is_empty() { USUAL.to_vec() } else { steps }
}

/// The dimensions of a case beside runtime and network, as text.
pub(super) fn parameters(case: &LifecycleCase) -> Vec<(&'static str, String)> {
    let steps: Vec<&str> = case.steps.iter().map(|step| step.as_str()).collect();
    vec![("image", case.image.clone()), ("steps", steps.join(" ")), ("per_block", case.per_block.to_string())]
}

#[cfg(test)]
mod tests;
