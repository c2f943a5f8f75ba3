//! What cgroups-rs does wrong or slowly, and is worked round. A test that fails here is good news: the fault is
//! mended, and the way round it can go.

use std::time::{Duration, Instant};

use cgroups_rs::blkio::BlkIoController;
use cgroups_rs::cpu::CpuController;
use cgroups_rs::freezer::{FreezerController, FreezerState};
use cgroups_rs::hierarchies::V2;
use cgroups_rs::memory::MemController;
use cgroups_rs::{Cgroup, Hierarchy as _};
use isobench::cgroup::{Controller, Layout, Limits, freezer};

use super::{Held, Outcome, file, make};

/// `cpu::apply_shares` converts.
pub fn v2_shares_are_written_unconverted() -> Outcome {
    let group = make(true)?;
    let path = group.directory(Controller::Cpu).ok_or("no cpu")?;
    CpuController::new(path.to_owned(), true).set_shares(1024)?;
    assert_eq!(file(&group, Controller::Cpu, "cpu.weight")?, "1024");
    Ok(())
}

/// `memory::apply` writes `memory.high` for a soft limit.
pub fn v2_soft_limit_becomes_a_protection() -> Outcome {
    let group = make(true)?;
    let path = group.directory(Controller::Memory).ok_or("no memory")?;
    let controller = MemController::new(path.to_owned(), true);
    controller.set_soft_limit(1 << 20)?;
    assert_eq!(file(&group, Controller::Memory, "memory.low")?, "1048576");
    assert_eq!(file(&group, Controller::Memory, "memory.high")?, "max");
    // And a swappiness, which v2 has not, becomes a limit of that many bytes of swap.
    controller.set_swappiness(60)?;
    assert_eq!(file(&group, Controller::Memory, "memory.swap.max")?, "0");
    Ok(())
}

/// `freezer::is_frozen` asks `cgroup.events`.
pub fn v2_freezer_state_is_only_the_wish() -> Outcome {
    let group = make(true)?;
    let place = group.place(Controller::Freezer).ok_or("no freezer")?;
    let mut held = Held::new("read line")?;
    let inner = place.path.join("inner");
    std::fs::create_dir(&inner)?;
    std::fs::write(inner.join("cgroup.procs"), held.child.id().to_string())?;
    group.freeze()?;
    let inside = isobench::cgroup::Place { path: inner.clone(), ..place.clone() };
    assert!(freezer::is_frozen(&inside)?, "what is under a frozen group is frozen");
    let state = FreezerController::new(inner.clone(), true).state()?;
    assert!(matches!(state, FreezerState::Thawed), "it asks for the state itself now");
    group.thaw()?;
    held.end()?;
    while std::fs::remove_dir(&inner).is_err() {
        std::thread::yield_now();
    }
    Ok(())
}

/// Controllers are made one by one from their directories, never selected by name.
pub fn v2_io_and_freezer_cannot_be_selected() -> Outcome {
    let name = format!("isobench-test-select-{}", std::process::id());
    let select = |controller: &str| {
        let selected = Some(vec![controller.to_owned()]);
        let group = Cgroup::new_with_specified_controllers(Box::new(V2::new()), &name, selected);
        let outcome = group.as_ref().map(|group| group.subsystems().len()).map_err(|error| error.to_string());
        if let Ok(group) = &group {
            let _ = group.delete();
        }
        outcome
    };
    assert_eq!(select("memory"), Ok(1));
    assert_eq!(select("io"), Ok(0), "io is made, but no controller for it is given");
    let unknown = Err("specified controller is not in the list of supported controllers".to_owned());
    assert_eq!((select("blkio"), select("freezer")), (unknown.clone(), unknown));
    Ok(())
}

/// `detect` reads the mount table.
pub fn v2_is_believed_to_be_at_the_usual_place() -> Outcome {
    let mounted = Layout::detect()?.v2.map(|(mount_point, _)| mount_point);
    assert_ne!(mounted, Some(V2::new().root()), "this machine has it at the usual place");
    assert_eq!(V2::new().root().to_str(), Some("/sys/fs/cgroup"));
    Ok(())
}

/// `Group::remove` tries at once and then soon.
pub fn v1_delete_sleeps_long() -> Outcome {
    let group = make(true)?;
    let path = group.directory(Controller::Memory).ok_or("no memory")?;
    let mut held = Held::new("read line")?;
    group.attach(held.child.id())?;
    let begin = Instant::now();
    let deleted = cgroups_rs::Controller::delete(&MemController::new(path.to_owned(), false));
    assert!(deleted.is_err() && begin.elapsed() >= Duration::from_millis(10 + 20 + 40 + 80));
    held.end()
}

/// `blkio::apply_weight` writes BFQ's file.
pub fn v1_weight_goes_to_a_file_that_is_gone() -> Outcome {
    let group = make(true)?;
    let path = group.directory(Controller::Blkio).ok_or("no blkio")?;
    assert!(BlkIoController::new(path.to_owned(), false).set_weight(200).is_err());
    let outcome = group.apply(&Limits { blkio_weight: Some(250), ..Limits::default() });
    if path.join("blkio.bfq.weight").exists() {
        outcome?;
        assert_eq!(file(&group, Controller::Blkio, "blkio.bfq.weight")?, "250");
    } else {
        let error = outcome.err().ok_or("written to nowhere")?.to_string();
        assert!(error.starts_with("cannot set blkio blkio.bfq.weight to 250 in "), "{error}");
    }
    Ok(())
}
