//! `kind = "startup"`: every runtime × network × concurrency × starts a block, with the floor as the baseline.
//!
//! A case is called `startup/<runtime>/<network>/c<concurrency>`, and `/n<per_block>`, `/<image>`, `/l<layers>` and
//! `/cold` or `/warm` are added where the file lists several values of them.
//!
//! The floor is a bare clone3: it knows the network modes `host` (no new network namespace) and `none` (a new one).
//! Its counterpart of `bridge` and `container` is therefore `none`: that case is made, once, whichever of the three
//! the file lists, and the ratios of `bridge` and `container` go to it. It has no root of its own, so `image`, `layers`
//! and `cold` are nothing to it.

use super::matrix::{Dimension, product};
use super::read::{self, Found, Table};
use super::source::suggest;
use super::{Case, CaseKind, NetworkMode, RuntimeKind, StartupCase};

/// The keys that span the matrix and the rest, for `isobench list`: name, values or range, default.
pub(super) const KEYS: &[super::Key] = &[
    ("runtime", "floor, builtin", "\"builtin\"", "what is put under test"),
    ("network", "host, none, bridge, container", "required", "how each container is connected"),
    ("concurrency", "1 to 256", "1", "starters that work in parallel"),
    ("per_block", "1 to 100000", "10", "starts in one block, over all starters"),
    ("image", "self, a name, docker-archive:PATH, oci:PATH, …", "\"self\"", "what the containers are made of"),
    ("layers", "1 to 100", "1", "layers of the root: the image, and small ones on top of it"),
    ("cold", "true, false", "false", "whether the image's pages are dropped from the page cache before each start"),
    ("baseline", "a network mode or a runtime", "the floor", "what ratios are made to"),
];

/// The image of a file that names none.
const OWN_IMAGE: &str = "self";

/// What a start-up case measures.
pub(super) const METRICS: &[&str] = &["ready", "exit", "teardown", "start_rate"];

/// What ratios are made to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Baseline {
    Network(NetworkMode),
    Runtime(RuntimeKind),
}

/// Reads one `[[experiment]]` of this kind and expands it to its cases.
pub(super) fn expand(mut table: Table<'_, '_>) -> Vec<Case> {
    let runtimes = table.list("runtime", &[RuntimeKind::Builtin], read::name("runtime", RuntimeKind::ALL));
    let read_network = read::name("network mode", NetworkMode::ALL);
    let networks = table.required_list("network", NetworkMode::ALL, read_network);
    let concurrency = table.list("concurrency", &[1], read::whole(1, 256));
    let per_block = table.list("per_block", &[10], read::whole(1, 100_000));
    let images = table.list("image", &[OWN_IMAGE.to_owned()], read::text);
    let layers = table.list("layers", &[1], read::whole(1, 100));
    let cold = table.list("cold", &[false], read::boolean);
    let baseline = read_baseline(&mut table);

    reject_idle_starters(&mut table, &concurrency, &per_block);
    reject_shared_pages(&mut table, &cold, &concurrency, &networks);

    let floor_listed = runtimes.contains(&RuntimeKind::Floor);
    let mut cases: Vec<Case> = Vec::new();
    let mut clashing = Vec::new();
    let lengths =
        [runtimes.len(), networks.len(), concurrency.len(), per_block.len(), images.len(), layers.len(), cold.len()];
    for [r, w, c, n, i, l, p] in product(lengths) {
        let asked = StartupCase {
            runtime: *runtimes.at(r),
            network: *networks.at(w),
            concurrency: *concurrency.at(c),
            per_block: *per_block.at(n),
            image: images.at(i).clone(),
            layers: *layers.at(l),
            cold: *cold.at(p),
        };
        let case = known(asked.clone());
        let suffix = per_block.suffix(n, |starts| format!("n{starts}"));
        // A slash in the image's name would make further parts of the id.
        let root = images.suffix(i, |image| image.replace('/', "_"))
            + &layers.suffix(l, |layers| format!("l{layers}"))
            + &cold.suffix(p, |cold| if *cold { "cold" } else { "warm" }.to_owned());
        let id = |case: &StartupCase| {
            let root = if case.runtime == RuntimeKind::Floor { "" } else { &root };
            format!("startup/{}/{}/c{}{suffix}{root}", case.runtime, case.network, case.concurrency)
        };
        let own = id(&case);
        if let Some(known) = cases.iter().find(|known| known.id == own) {
            // floor/none stands for several modes; what stands for several images would be measured as one.
            if let CaseKind::Startup(known) = &known.kind
                && known.image != case.image
                && !clashing.contains(&i)
            {
                clashing.push(i);
                let message = format!("`{}` and `{}` give cases of one name", known.image, case.image);
                let help = "give one of them a name that differs in more than `/` and `_`";
                table.problem(images.span_at(i), message, help);
            }
            continue;
        }
        let target = match baseline {
            Some(Found { value: Baseline::Network(network), .. }) => known(StartupCase { network, ..case.clone() }),
            Some(Found { value: Baseline::Runtime(runtime), .. }) => {
                known(StartupCase { runtime, network: case.network, ..asked })
            }
            None if floor_listed => known(StartupCase { runtime: RuntimeKind::Floor, ..case.clone() }),
            None => case.clone(),
        };
        let target = id(&target);
        cases.push(Case { baseline: (target != own).then_some(target), id: own, kind: CaseKind::Startup(case) });
    }

    if let Some(Found { value, span }) = baseline {
        let (name, listed) = match value {
            Baseline::Network(network) => (network.as_str(), networks.contains(&network)),
            Baseline::Runtime(runtime) => (runtime.as_str(), runtimes.contains(&runtime)),
        };
        if !listed {
            table.absent_baseline(span, name);
        }
    }
    table.finish();
    cases
}

/// The dimensions of a case beside runtime and network, as text.
pub(super) fn parameters(case: &StartupCase) -> Vec<(&'static str, String)> {
    let mut parameters = vec![("concurrency", case.concurrency.to_string()), ("per_block", case.per_block.to_string())];
    if case.image != OWN_IMAGE {
        parameters.push(("image", case.image.clone()));
    }
    if case.layers != 1 {
        parameters.push(("layers", case.layers.to_string()));
    }
    if case.cold {
        parameters.push(("cold", "true".to_owned()));
    }
    parameters
}

/// Starters without a start of their own would make `concurrency` a lie.
fn reject_idle_starters(table: &mut Table<'_, '_>, concurrency: &Dimension<u32>, per_block: &Dimension<u32>) {
    let idle = product([concurrency.len(), per_block.len()]).find(|&[c, n]| per_block.at(n) < concurrency.at(c));
    if let Some([c, n]) = idle {
        let (starters, starts) = (concurrency.at(c), per_block.at(n));
        let written = table.entry("per_block").is_some();
        let place = if written { per_block.span_at(n) } else { concurrency.span_at(c) };
        let message = format!("{starts} starts a block cannot keep {starters} starters busy");
        table.problem(place, message, format!("set per_block to at least {starters}"));
    }
}

/// A page that another process has mapped stays cached, so that a start beside others would not be cold.
fn reject_shared_pages(
    table: &mut Table<'_, '_>,
    cold: &Dimension<bool>,
    concurrency: &Dimension<u32>,
    networks: &Dimension<NetworkMode>,
) {
    let Some(span) = cold.iter().find_map(|(cold, span)| cold.then(|| span.clone())) else { return };
    if concurrency.iter().any(|(starters, _)| *starters > 1) {
        let message = "a start cannot be cold beside others, which keep the image's pages in use";
        table.problem(span.clone(), message, "set concurrency to 1, or give cold starts an experiment of their own");
    }
    if networks.contains(&NetworkMode::Container) {
        let message = "a start cannot be cold beside the container whose network it shares";
        table.problem(span, message, "leave out \"container\", or give cold starts an experiment of their own");
    }
}

/// The case that a runtime makes of what the file asks for: the floor knows two network modes and has no root.
fn known(asked: StartupCase) -> StartupCase {
    if asked.runtime != RuntimeKind::Floor {
        return asked;
    }
    let network = match asked.network {
        NetworkMode::Bridge | NetworkMode::Container => NetworkMode::None,
        network => network,
    };
    StartupCase { network, image: OWN_IMAGE.to_owned(), layers: 1, cold: false, ..asked }
}

fn read_baseline(table: &mut Table<'_, '_>) -> Option<Found<Baseline>> {
    let text = table.one("baseline", read::text)?;
    let network = NetworkMode::ALL.iter().find(|mode| mode.as_str() == text.value);
    let runtime = RuntimeKind::ALL.iter().find(|runtime| runtime.as_str() == text.value);
    let value = match (network, runtime) {
        (Some(network), _) => Baseline::Network(*network),
        (None, Some(runtime)) => Baseline::Runtime(*runtime),
        (None, None) => {
            let known: Vec<&str> = (NetworkMode::ALL.iter().map(|mode| mode.as_str()))
                .chain(RuntimeKind::ALL.iter().map(|runtime| runtime.as_str()))
                .collect();
            let help = suggest(&text.value, &known);
            table.problem(text.span, format!("`baseline`: `{}` is no network mode and no runtime", text.value), help);
            return None;
        }
    };
    Some(Found { value, span: text.span })
}
