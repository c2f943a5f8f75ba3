//! `isobench image …` from outside: output, exit codes, two at the same time, and what a killed one leaves.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::harness::Case;
use crate::tools::{Outcome, Place, case, run, skopeo};

pub fn cases() -> Vec<Case> {
    vec![
        case("commands::lists_look_like_dockers", &["umoci", "skopeo"], lists),
        case("commands::history_and_inspect_tell_what_is_known", &["umoci", "skopeo"], tells),
        case("commands::an_archive_goes_through_pipes", &["tar"], pipes),
        case("commands::what_cannot_be_done_ends_with_1", &["tar"], refusals),
        case("commands::prune_takes_what_has_no_name", &["tar"], prune),
        case("commands::a_prune_spares_what_its_filter_does_not_take", &["tar"], prune_filters),
        case("commands::a_damaged_image_is_listed_and_removed", &["tar"], damaged),
        case("commands::gc_collects_the_store_too", &["tar"], gc),
        case("commands::two_processes_and_a_pruning_one_do_not_meet", &["tar"], side_by_side),
        case("commands::a_killed_load_leaves_nothing_that_prune_does_not_take", &["tar"], killed),
    ]
}

fn command(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isobench"));
    command.arg("image").args(arguments).env("ISOBENCH_IMAGES", place.store.root()).stdin(Stdio::null());
    command
}

/// Runs a command that must succeed; its output.
fn image(place: &Place, arguments: &[&str]) -> Outcome<String> {
    let output = command(place, arguments).output()?;
    if !output.status.success() {
        return Err(format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs one that must end with 1; what it said.
fn refused(place: &Place, arguments: &[&str]) -> Outcome<String> {
    let output: Output = command(place, arguments).output()?;
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    Ok(String::from_utf8(output.stderr)?)
}

/// Imports an image of one small file.
fn import(place: &Place, name: &str) -> Outcome<String> {
    place.write("tree/f", name)?;
    Ok(image(place, &["import", &place.text("", "tree"), name])?.trim().to_owned())
}

fn lists() -> Outcome {
    let place = Place::new()?;
    assert_eq!(image(&place, &["ls"])?, "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n");
    place.layout()?;
    skopeo(&["copy", &place.text("oci:", "layout:latest"), &place.text("docker-archive:", "a.tar:example.org/app:1")])?;
    assert_eq!(image(&place, &["load", "-i", &place.text("", "a.tar")])?, "Loaded image: example.org/app:1\n");
    let id = image(&place, &["ls", "-q"])?.trim().to_owned();
    assert_eq!(id.len(), 12);
    assert!(image(&place, &["ls", "-q", "--no-trunc"])?.starts_with(&format!("sha256:{id}")));
    image(&place, &["tag", "example.org/app:1", "short"])?;
    let listed = image(&place, &["ls"])?;
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines[0].starts_with("REPOSITORY        TAG       IMAGE ID       CREATED "), "{listed}");
    assert!(lines[1].starts_with(&format!("short             latest    {id}   ")), "{listed}");
    assert!(
        lines[2].starts_with(&format!("example.org/app   1         {id}   ")) && lines[2].ends_with("B"),
        "{listed}"
    );
    let names = image(&place, &["ls", "--format", "{{.Repository}}:{{.Tag}}"])?;
    assert_eq!(names, "short:latest\nexample.org/app:1\n");
    assert_eq!(image(&place, &["ls", "--format", "{{.Tag}}", "--filter", "reference=example.org/*"])?, "1\n");
    assert_eq!(image(&place, &["ls", "--format", "{{.Tag}}", "short"])?, "latest\n");
    assert_eq!(image(&place, &["ls", "-q", "--filter", "dangling=true"])?, "");
    let json: serde_json::Value = serde_json::from_str(image(&place, &["ls", "--format", "json", "short"])?.trim())?;
    assert_eq!(json["ID"], id.as_str());
    Ok(())
}

fn tells() -> Outcome {
    let place = Place::new()?;
    place.layout()?;
    image(&place, &["load", "-q", "-i", &place.text("", "layout")])?;
    let id = image(&place, &["ls", "-q", "--no-trunc"])?.trim().to_owned();
    let history = image(&place, &["history", &id, "--no-trunc", "--format", "{{.ID}} {{.CreatedBy}}|{{.Size}}"])?;
    let lines: Vec<&str> = history.lines().collect();
    assert_eq!(lines.len(), 5, "{history}");
    assert!(lines[0].starts_with(&format!("{id} ")) && lines[0].ends_with("|0B"), "{history}");
    assert_eq!(lines[4], "<missing> insert etc|11B", "the first layer's two files");
    let table = image(&place, &["history", &id])?;
    assert!(table.starts_with("IMAGE          CREATED "), "{table}");
    let config = skopeo(&["inspect", "--config", &place.text("oci:", "layout:latest")])?;
    let config: serde_json::Value = serde_json::from_str(&config)?;
    let inspected: serde_json::Value = serde_json::from_str(&image(&place, &["inspect", &id])?)?;
    assert_eq!(inspected[0]["Id"], id.as_str());
    assert_eq!(inspected[0]["Config"]["Env"], config["config"]["Env"]);
    assert_eq!(inspected[0]["RootFS"]["Layers"], config["rootfs"]["diff_ids"]);
    assert_eq!(image(&place, &["inspect", "-f", "{{index .Config.Cmd 0}} {{len .RootFS.Layers}}", &id])?, "sh 4\n");
    Ok(())
}

fn pipes() -> Outcome {
    let place = Place::new()?;
    let id = import(&place, "a:1")?;
    let saved = command(&place, &["save", "a:1"]).output()?.stdout;
    place.write("a.tar", &saved)?;
    run("tar", &["-t", "-f", &place.text("", "a.tar")])?;
    let second = Place::new()?;
    let mut load = command(&second, &["load"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    load.stdin.take().ok_or("no input")?.write_all(&saved)?;
    assert_eq!(String::from_utf8(load.wait_with_output()?.stdout)?, "Loaded image: a:1\n");
    assert_eq!(image(&second, &["inspect", "-f", "{{.Id}}", "a:1"])?.trim(), id);
    let tar = Command::new("tar").args(["-c", "-C", &place.text("", "tree"), "."]).stdout(Stdio::piped()).spawn()?;
    let imported = command(&second, &["import", "-c", "CMD [\"/f\"]", "-m", "by pipe", "-", "b:2"])
        .stdin(tar.stdout.ok_or("no output")?)
        .output()?;
    assert!(imported.status.success(), "{imported:?}");
    assert_eq!(image(&second, &["inspect", "-f", "{{.Config.Cmd}} {{.Comment}}", "b:2"])?, "[/f] by pipe\n");
    Ok(())
}

fn refusals() -> Outcome {
    let place = Place::new()?;
    assert!(refused(&place, &["inspect", "nothing"])?.contains("no such image: nothing"));
    assert!(refused(&place, &["rm", "nothing"])?.contains("no such image"));
    assert!(refused(&place, &["load", "-i", &place.text("", "nothing")])?.contains("cannot open"));
    assert!(refused(&place, &["ls", "--filter", "color=red"])?.contains("is no filter"));
    assert!(refused(&place, &["ls", "--format", "{{.Nope}"])?.contains("not complete"));
    let id = import(&place, "a:1")?;
    image(&place, &["tag", "a:1", "a:2"])?;
    assert!(refused(&place, &["rm", &id])?.contains("several names"));
    assert_eq!(image(&place, &["rm", "a:1"])?, "Untagged: a:1\n");
    assert_eq!(image(&place, &["rm", "a:2"])?, format!("Untagged: a:2\nDeleted: {id}\n"));
    place.write("tree/f", "another layer")?;
    let limited = refused(&place, &["import", "--max-layer-bytes", "1", &place.text("", "tree"), "b:1"])?;
    assert!(limited.contains("more than the 1 that are taken"), "{limited}");
    // A usage error is clap's.
    assert_eq!(command(&place, &["tag", "a", "B AD"]).output()?.status.code(), Some(2));
    Ok(())
}

fn prune() -> Outcome {
    let place = Place::new()?;
    let first = import(&place, "a:1")?;
    place.write("tree/more", "x")?;
    import(&place, "a:1")?;
    let pruned = image(&place, &["prune", "-f"])?;
    assert!(pruned.starts_with(&format!("Deleted Images:\ndeleted: {first}\n\nTotal reclaimed space: ")), "{pruned}");
    assert_eq!(image(&place, &["prune", "-f"])?, "Total reclaimed space: 0B\n");
    place.store.pin("a:1", "c1")?;
    image(&place, &["prune", "-f", "-a"])?;
    assert_eq!(image(&place, &["ls", "-q"])?.lines().count(), 1, "a container uses it");
    place.store.unpin("c1")?;
    image(&place, &["prune", "-f", "-a"])?;
    assert!(place.leftovers()?.is_empty(), "{:?}", place.leftovers()?);
    Ok(())
}

fn prune_filters() -> Outcome {
    let place = Place::new()?;
    import(&place, "keep:1")?;
    import(&place, "old:1")?;
    let names = || image(&place, &["ls", "--format", "{{.Repository}}"]);
    for filter in ["reference=old*", "before=keep:1", "since=keep:1", "colour=red"] {
        assert!(refused(&place, &["prune", "-f", "-a", "--filter", filter])?.contains("is no filter"), "{filter}");
        assert_eq!(names()?.lines().count(), 2, "{filter}");
    }
    image(&place, &["prune", "-f", "-a", "--filter", "dangling=true"])?;
    image(&place, &["prune", "-f", "-a", "--filter", "label=a"])?;
    assert_eq!(names()?.lines().count(), 2);
    image(&place, &["prune", "-f", "--filter", "dangling=false"])?;
    assert_eq!(names()?, "");
    Ok(())
}

fn damaged() -> Outcome {
    let place = Place::new()?;
    let id = import(&place, "bad:1")?;
    place.write("tree/other", "")?;
    import(&place, "good:1")?;
    let blob = place.store.root().join("blobs/sha256").join(id.trim_start_matches("sha256:"));
    std::fs::remove_file(&blob)?;
    std::fs::write(&blob, "{}")?;
    let listed = image(&place, &["ls", "--format", "{{.Repository}} {{.CreatedSince}}"])?;
    assert!(listed.contains("bad <damaged>\n") && listed.contains("good "), "{listed}");
    // It was moved away when it was found out.
    assert!(refused(&place, &["inspect", "bad:1"])?.contains("is missing in the store"));
    image(&place, &["rm", "bad:1"])?;
    let id = image(&place, &["inspect", "-f", "{{.Id}}", "good:1"])?;
    std::fs::remove_file(place.store.root().join("blobs/sha256").join(id.trim().trim_start_matches("sha256:")))?;
    image(&place, &["prune", "-f", "-a"])?;
    assert!(place.leftovers()?.is_empty(), "{:?}", place.leftovers()?);
    Ok(())
}

fn gc() -> Outcome {
    let place = Place::new()?;
    import(&place, "a:1")?;
    place.store.put("a blob", &mut &b"of no image"[..], None)?;
    std::fs::create_dir(place.store.root().join("tmp/layer-x"))?;
    let before = std::fs::read_dir(place.store.root().join("blobs/sha256"))?.count();
    let output = Command::new(env!("CARGO_BIN_EXE_isobench"))
        .arg("gc")
        .env("ISOBENCH_IMAGES", place.store.root())
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8(output.stdout)?;
    assert!(said.contains("removed 0 layers and 1 blobs that no image needs\n"), "{said}");
    assert_eq!(std::fs::read_dir(place.store.root().join("blobs/sha256"))?.count(), before - 1);
    assert_eq!(std::fs::read_dir(place.store.root().join("tmp"))?.count(), 0);
    place.store.image("a:1")?;
    Ok(())
}

fn side_by_side() -> Outcome {
    let place = Place::new()?;
    for name in ["a", "b"] {
        import(&place, &format!("{name}:1"))?;
        image(&place, &["save", "-o", &place.text("", &format!("{name}.tar")), &format!("{name}:1")])?;
        image(&place, &["rm", &format!("{name}:1")])?;
    }
    for _ in 0..5 {
        let mut running = Vec::new();
        for name in ["a", "b", "a"] {
            running.push(command(&place, &["load", "-q", "-i", &place.text("", &format!("{name}.tar"))]).spawn()?);
        }
        for _ in 0..3 {
            running.push(command(&place, &["prune", "-f"]).stdout(Stdio::null()).spawn()?);
        }
        for mut process in running {
            assert!(process.wait()?.success());
        }
        for name in ["a:1", "b:1"] {
            let share = place.store.share()?;
            let image = place.store.image(name)?;
            for layer in place.store.unpack(&image)? {
                assert_eq!(std::fs::read_to_string(layer.join("f"))?, name);
            }
            drop(share);
            place.store.remove(name, false)?;
        }
    }
    Ok(())
}

fn killed() -> Outcome {
    let place = Place::new()?;
    for file in 0..200 {
        place.write(&format!("tree/{file}"), vec![b'x'; 50_000])?;
    }
    run("tar", &["-c", "-f", &place.text("", "a.tar"), "-C", &place.text("", "tree"), "."])?;
    let (tar, saved) = (place.text("", "a.tar"), place.text("", "saved.tar"));
    image(&place, &["import", &tar, "a:1"])?;
    image(&place, &["save", "-o", &saved, "a:1"])?;
    image(&place, &["rm", "a:1"])?;
    for act in [&["import", &tar, "a:1"][..], &["load", "-i", &saved]] {
        for delay_ms in [1, 3, 6, 10, 15, 20, 30, 45] {
            let mut process = command(&place, act).stdout(Stdio::null()).spawn()?;
            std::thread::sleep(std::time::Duration::from_millis(delay_ms));
            process.kill()?;
            process.wait()?;
            // Whatever was there by then: it is whole or can be taken away.
            image(&place, &["ls"])?;
            if let Ok(image) = place.store.image("a:1") {
                let _share = place.store.share()?;
                place.store.unpack(&image)?;
            }
            image(&place, &["prune", "-f", "-a"])?;
            assert!(place.leftovers()?.is_empty(), "{act:?} {delay_ms} ms: {:?}", place.leftovers()?);
        }
    }
    image(&place, &["load", "-i", &saved])?;
    Ok(())
}
