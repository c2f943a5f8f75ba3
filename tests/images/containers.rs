//! Containers of images: what an image says is what runs.

use std::io::Read;

use isobench::container::launch::Stdio;
use isobench::container::spec::UserMapping;
use isobench::container::{Container, ContainerSpec, Network};
use isobench::image::archive;
use isobench::image::create::{self, Description, RootSource};
use isobench::image::{Image, RootFs};
use isobench::sys::clock;

use crate::archives::selection;
use crate::harness::Case;
use crate::tools::{Outcome, Place, case, run, skopeo};

pub fn cases() -> Vec<Case> {
    vec![
        case("containers::an_image_of_skopeo_runs", &["umoci", "skopeo", "busybox"], image_runs),
        case("containers::what_is_hidden_is_hidden_in_a_user_namespace_too", &["umoci", "skopeo", "busybox"], hidden),
        case("containers::a_hundred_and_twenty_seven_layers_fit", &["busybox"], many_layers),
        case("containers::a_workload_runs_in_any_image", &["busybox"], workload),
        case("containers::an_opaque_directory_that_was_changed_keeps_the_rest", &["umoci", "skopeo"], copied_up),
        case("containers::what_a_container_changed_becomes_an_image", &["busybox"], commit),
    ]
}

/// Runs a program in a root; what it wrote.
fn output(root: RootFs, arguments: &[&str]) -> Outcome<String> {
    run_spec(&ContainerSpec::new(root, arguments.iter().map(|argument| (*argument).to_owned()).collect()))
}

fn run_spec(spec: &ContainerSpec) -> Outcome<String> {
    let (mut reader, writer) = std::io::pipe()?;
    let stdio = Stdio { stdin: None, stdout: Some(writer.try_clone()?.into()), stderr: Some(writer.into()) };
    let mut container = Container::start(spec, &Network::None, stdio, clock::now_ns())?;
    let mut text = Vec::new();
    reader.read_to_end(&mut text)?;
    container.wait()?;
    container.remove()?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// A root with busybox as a shell, in `name`.
fn busybox(place: &Place, name: &str) -> Outcome {
    place.write(&format!("{name}/bin/busybox"), std::fs::read("/bin/busybox")?)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(place.path(&format!("{name}/bin/busybox")), mode)?;
    for applet in ["sh", "cat", "ls", "echo"] {
        std::os::unix::fs::symlink("busybox", place.path(&format!("{name}/bin/{applet}")))?;
    }
    Ok(())
}

fn description(name: &str) -> Outcome<Description> {
    Ok(Description::of(Some(name.parse()?)))
}

fn image_runs() -> Outcome {
    let place = Place::new()?;
    place.layout()?;
    busybox(&place, "tree")?;
    run("umoci", &["insert", "--image", &place.text("", "layout:latest"), &place.text("", "tree/bin"), "/bin"])?;
    skopeo(&["copy", &place.text("oci:", "layout:latest"), &place.text("docker-archive:", "docker.tar:a:1")])?;
    let image = Image::open(&place.store, &place.text("docker-archive:", "docker.tar"), "a test")?;
    let text = output(image.root.clone(), &["sh", "-c", "cat /etc/hostname /opt/c; ls /etc /opt"])?;
    assert_eq!(text, "lower\nc\n/etc:\nhostname\nlink\n\n/opt:\nc\n");
    Ok(())
}

fn hidden() -> Outcome {
    let place = Place::new()?;
    place.layout()?;
    busybox(&place, "tree")?;
    run("umoci", &["insert", "--image", &place.text("", "layout:latest"), &place.text("", "tree/bin"), "/bin"])?;
    let image = Image::open(&place.store, &place.text("oci:", "layout"), "a test")?;
    let script = "ls /etc /opt; rm -r /opt && mkdir /opt && ls /opt";
    let arguments = ["sh", "-c", script].map(str::to_owned).to_vec();
    let mut spec = ContainerSpec::new(image.root.clone(), arguments);
    for mapping in [None, Some(UserMapping { host_start: 100_000, count: 65536 })] {
        spec.user_namespace = mapping;
        if spec.user_namespace.is_some() {
            // What belongs to root here belongs to nobody there, and only root may take it away.
            spec.arguments[2] = "ls /etc /opt".to_owned();
        }
        assert_eq!(run_spec(&spec)?, "/etc:\nhostname\nlink\n\n/opt:\nc\n", "{mapping:?}");
    }
    Ok(())
}

fn many_layers() -> Outcome {
    let place = Place::new()?;
    busybox(&place, "tree")?;
    create::import(&place.store, RootSource::Directory(&place.path("tree")), &description("a:1")?)?;
    for layer in 1..127 {
        place.write(&format!("upper{layer}/layers/{layer}"), "")?;
        place.write(&format!("upper{layer}/top"), layer.to_string())?;
        let upper = place.path(&format!("upper{layer}"));
        create::commit(&place.store, Some("a:1"), &upper, Default::default(), &description("a:1")?)?;
    }
    let image = Image::open(&place.store, "a:1", "a test")?;
    assert_eq!(image.root.layers.len(), 127);
    let text = output(image.root.clone(), &["sh", "-c", "ls /layers | busybox wc -l; cat /top"])?;
    assert_eq!(text, "126\n126");
    let workload = output(image.with_workload()?, &["/isobench", "--version"])?;
    assert!(!workload.is_empty());
    Ok(())
}

fn workload() -> Outcome {
    let place = Place::new()?;
    busybox(&place, "tree")?;
    for image in [place.text("dir:", "tree"), "self".to_owned()] {
        let image = Image::open(&place.store, &image, "a test")?;
        let stamp = output(image.with_workload()?, &["/isobench", "__workload", "stamp"])?;
        assert!(!stamp.is_empty());
    }
    let (id, archive) = (
        create::import(&place.store, RootSource::Directory(&place.path("tree")), &description("a:1")?)?,
        place.path("a.tar"),
    );
    archive::save(&place.store, &[id.to_string()], archive::Format::Oci, &mut std::fs::File::create(&archive)?)?;
    assert_eq!(archive::load(&place.store, Some(&archive), &selection())?[0].id, id);
    Ok(())
}

fn commit() -> Outcome {
    let place = Place::new()?;
    busybox(&place, "tree")?;
    place.write("tree/etc/old", "old\n")?;
    place.write("tree/var/a", "")?;
    create::import(&place.store, RootSource::Directory(&place.path("tree")), &description("a:1")?)?;
    let image = Image::open(&place.store, "a:1", "a test")?;
    // The kernel's own overlay makes the changes.
    for name in ["upper", "work", "merged", "none"] {
        std::fs::create_dir(place.path(name))?;
    }
    let at = |name: &str| place.text("", name);
    let lower = format!("{}:{}", image.root.layers[0].display(), at("none"));
    let options = format!("lowerdir={lower},upperdir={},workdir={}", at("upper"), at("work"));
    let change = "rm etc/old; echo new > etc/new; rm -r var; mkdir var; echo b > var/b; chmod 700 bin";
    let script = format!("mount -t overlay overlay -o {options} {0} && cd {0} && {change}", at("merged"));
    run("unshare", &["-m", "--propagation", "private", "sh", "-c", &script])?;
    let changes = isobench::image::changes::changes(&place.path("upper"), &image.root.layers)?;
    let changes: Vec<String> =
        changes.iter().map(|(how, path)| format!("{} {}", how.letter(), path.display())).collect();
    assert_eq!(changes, ["C /bin", "C /etc", "A /etc/new", "D /etc/old", "C /var", "D /var/a", "A /var/b"]);
    create::commit(&place.store, Some("a:1"), &place.path("upper"), image.config.clone(), &description("a:2")?)?;
    let second = Image::open(&place.store, "a:2", "a test")?;
    let text = output(second.root.clone(), &["sh", "-c", "ls /etc /var; cat /etc/new"])?;
    assert_eq!(text, "/etc:\nnew\n\n/var:\nb\nnew\n");
    Ok(())
}

fn copied_up() -> Outcome {
    let place = Place::new()?;
    place.layout()?;
    archive::load(&place.store, Some(&place.path("layout")), &selection())?;
    let id = place.store.records()?.keys().next().ok_or("no image")?.to_string();
    let image = Image::open(&place.store, &id, "a test")?;
    for name in ["changed", "work", "merged"] {
        std::fs::create_dir(place.path(name))?;
    }
    // The kernel copies `/opt` up, with the mark of the layer that hides the one below.
    let at = |name: &str| place.text("", name);
    let lower: Vec<String> = image.root.layers.iter().map(|layer| layer.display().to_string()).collect();
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), at("changed"), at("work"));
    let script = format!("mount -t overlay overlay -o {options} {0} && echo new > {0}/opt/new", at("merged"));
    run("unshare", &["-m", "--propagation", "private", "sh", "-c", &script])?;
    let changes = isobench::image::changes::changes(&place.path("changed"), &image.root.layers)?;
    let changes: Vec<String> =
        changes.iter().map(|(how, path)| format!("{} {}", how.letter(), path.display())).collect();
    assert_eq!(changes, ["C /opt", "A /opt/new"]);
    create::commit(&place.store, Some(&id), &place.path("changed"), image.config.clone(), &description("a:2")?)?;
    let second = Image::open(&place.store, "a:2", "a test")?;
    let marks = std::fs::read_dir(second.root.layers[0].join("opt"))?.count();
    assert_eq!(marks, 1, "the new file");
    let mut value = [0; 1];
    let opaque = rustix::fs::lgetxattr(second.root.layers[0].join("opt"), "trusted.overlay.opaque", &mut value[..]);
    assert!(opaque.is_err(), "what lies below shows");
    Ok(())
}
