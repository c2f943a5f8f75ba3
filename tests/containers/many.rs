//! Several commands at once.

use crate::case;
use crate::harness::Case;
use crate::place::{IMAGE, Outcome, Place, end};

pub fn cases() -> Vec<Case> {
    vec![case("many::one_name_has_one_winner", one_name), case("many::thirty_containers_at_once_leave_nothing", thirty)]
}

fn one_name() -> Outcome {
    let place = Place::new()?;
    let create = || place.command(&["create", "--network", "none", "--name", "same", IMAGE, "true"]).spawn();
    let children = (0..6).map(|_| create()).collect::<Result<Vec<_>, _>>()?;
    let said = children.into_iter().map(end).collect::<Outcome<Vec<_>>>()?;
    let (won, lost): (Vec<_>, Vec<_>) = said.into_iter().partition(|said| said.code == Some(0));
    assert_eq!(won.len(), 1, "{won:?} {lost:?}");
    assert!(lost.iter().all(|said| said.code == Some(125) && said.stderr.contains("`same` is in use")), "{lost:?}");
    assert_eq!(place.ok(&["ls", "-aq", "--no-trunc"])?, won[0].text());
    Ok(())
}

fn thirty() -> Outcome {
    let place = Place::new()?;
    let run = |i: usize| {
        let script = format!("echo {i}; sleep 1000");
        let name = format!("n{i}");
        place
            .command(&["run", "-d", "--network", "none", "-m", "64m", "--name", &name, IMAGE, "sh", "-c", &script])
            .spawn()
    };
    let children = (0..30).map(run).collect::<Result<Vec<_>, _>>()?;
    let mut ids = Vec::new();
    for child in children {
        let said = end(child)?;
        assert_eq!(said.code, Some(0), "{said:?}");
        ids.push(said.text());
    }
    assert_eq!(place.ok(&["ls", "-q"])?.lines().count(), 30);
    for i in 0..30 {
        place.until(&["logs", &format!("n{i}")], &i.to_string())?;
    }
    let removals: Vec<_> = ids.iter().map(|id| place.command(&["rm", "-f", id]).spawn()).collect::<Result<_, _>>()?;
    for child in removals {
        let said = end(child)?;
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    assert_eq!(place.left(&ids)?, [""; 0]);
    Ok(())
}
