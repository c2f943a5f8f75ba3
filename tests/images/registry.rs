//! Pulling and pushing, against Debian's docker-registry and with skopeo at the other end.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use isobench::image::archive;
use isobench::image::create::{self, Description, RootSource};
use isobench::image::digest::Digest;
use isobench::image::reference::Reference;
use isobench::image::registry::{self, Connection, Credentials, CredentialsError, Event, RegistryError};
use isobench::image::spec::own_platform;
use isobench::image::{Image, ImageError};

use crate::archives::selection;
use crate::harness::Case;
use crate::server::{
    Kind, REGISTRY, Server, Way, breaking_wire, certificate, docker_configuration, free_port, signed_certificate,
    token_server,
};
use crate::tools::{Outcome, Place, case, run, skopeo};

pub fn cases() -> Vec<Case> {
    let tools = &[REGISTRY, "skopeo", "umoci"];
    let with_keys = &[REGISTRY, "skopeo", "umoci", "openssl"];
    vec![
        case("registry::skopeo_reads_what_is_pushed", tools, pushed),
        case("registry::what_skopeo_pushed_is_pulled", tools, pulled),
        case("registry::layers_that_are_there_are_not_sent_again", tools, sent_once),
        case("registry::a_broken_download_goes_on_where_it_broke", tools, broken_download),
        case("registry::a_broken_upload_goes_on", tools, broken_upload),
        case("registry::a_user_and_a_password_are_asked_for", tools, password),
        case("registry::a_token_is_asked_for", with_keys, token),
        case("registry::tls_is_spoken_and_checked", with_keys, tls),
        case("registry::a_platform_is_chosen_from_an_index", tools, platforms),
        case("registry::what_is_not_there_is_told", tools, absent),
        case("registry::content_that_was_changed_is_found", tools, changed),
    ]
}

fn connection() -> Connection {
    // Who we are to others on this machine is not for tests to read.
    let credentials = Some(Credentials::Nobody);
    Connection { credentials, pause: Duration::from_millis(5), ..Connection::default() }
}

/// What happened to blobs.
#[derive(Default)]
struct Seen(Mutex<Vec<(Digest, Event)>>);

impl Seen {
    fn note(&self, blob: &Digest, event: Event) {
        if !matches!(event, Event::At(_)) {
            self.0.lock().expect("a test panicked").push((*blob, event));
        }
    }

    fn count(&self, event: Event) -> usize {
        self.0.lock().expect("a test panicked").iter().filter(|(_, seen)| *seen == event).count()
    }
}

fn push(place: &Place, name: &str, connection: &Connection) -> Result<(registry::Pushed, Seen), ImageError> {
    let seen = Seen::default();
    let name: Reference = name.parse()?;
    let pushed = registry::push(&place.store, &name, connection, &|blob, event| seen.note(blob, event))?;
    Ok((pushed, seen))
}

fn pull(place: &Place, name: &str, connection: &Connection) -> Result<(registry::Pulled, Seen), ImageError> {
    let seen = Seen::default();
    let name: Reference = name.parse()?;
    let note = |blob: &Digest, event| seen.note(blob, event);
    let pulled = registry::pull(&place.store, &name, &own_platform(), connection, &note)?;
    Ok((pulled, seen))
}

/// An image of umoci in the store, named for a registry.
fn loaded(place: &Place, name: &str) -> Outcome<Digest> {
    place.layout()?;
    let id = archive::load(&place.store, Some(&place.path("layout")), &selection())?[0].id;
    place.store.tag(&id.to_string(), &name.parse()?)?;
    Ok(id)
}

/// An image of one file of random bytes, which does not compress.
fn large(place: &Place, name: &str, bytes: usize) -> Outcome<Digest> {
    place.write("large/file", "")?;
    let count = format!("count={}", bytes >> 10);
    let file = place.text("of=", "large/file");
    run("dd", &["if=/dev/urandom", &file, "bs=1k", &count, "status=none"])?;
    let description = Description::of(Some(name.parse()?));
    Ok(create::import(&place.store, RootSource::Directory(&place.path("large")), &description)?)
}

fn docker(name: &str) -> String {
    format!("docker://{name}")
}

/// The digest by which skopeo knows a name.
fn digest_of(name: &str) -> Outcome<Digest> {
    let digest = skopeo(&["inspect", "--tls-verify=false", "--no-creds", "--format", "{{.Digest}}", &docker(name)])?;
    Ok(digest.trim().parse()?)
}

fn pushed() -> Outcome {
    let place = Place::new()?;
    let server = Server::start(&place, Kind::Open)?;
    let name = server.name("team/app:1");
    let id = loaded(&place, &name)?;
    let (pushed, _) = push(&place, &name, &connection())?;
    assert_eq!(digest_of(&name)?, pushed.digest);
    let config = skopeo(&["inspect", "--tls-verify=false", "--raw", "--config", &docker(&name)])?;
    assert_eq!(Digest::of(config.as_bytes()), id);
    skopeo(&["copy", "--src-tls-verify=false", &docker(&name), &place.text("oci:", "copy:latest")])?;
    // One whose layers are not compressed goes as gzip, and gives the same bytes each time.
    let (plain, again) = (server.name("team/plain:1"), server.name("team/plain:2"));
    let id = large(&place, &plain, 300 << 10)?;
    place.store.tag(&id.to_string(), &again.parse()?)?;
    let (first, _) = push(&place, &plain, &connection())?;
    let (second, seen) = push(&place, &again, &connection())?;
    assert_eq!((first.digest, seen.count(Event::Done)), (second.digest, 0));
    let raw = skopeo(&["inspect", "--tls-verify=false", "--raw", &docker(&plain)])?;
    assert!(raw.contains("tar+gzip"), "{raw}");
    skopeo(&["copy", "--src-tls-verify=false", &docker(&plain), &place.text("oci:", "plain:latest")])?;
    Ok(())
}

fn pulled() -> Outcome {
    let place = Place::new()?;
    let server = Server::start(&place, Kind::Open)?;
    place.layout()?;
    let from = place.text("oci:", "layout:latest");
    for (form, name) in [("oci", "a/oci:1"), ("v2s2", "a/docker:1")] {
        let name = server.name(name);
        skopeo(&["copy", "--dest-tls-verify=false", "--format", form, &from, &docker(&name)])?;
        let (pulled, _) = pull(&place, &name, &connection())?;
        assert_eq!(digest_of(&name)?, pulled.digest, "{form}");
        assert_eq!(place.store.find(&name)?, pulled.id);
        let image = Image::open(&place.store, &name, "a test")?;
        assert_eq!(image.root.layers.len(), 4);
        assert_eq!(std::fs::read_to_string(image.root.layers[0].join("opt/c"))?, "c\n");
        // By digest too, which gives it no name.
        let (repository, _) = name.rsplit_once(':').ok_or("no tag")?;
        let by_digest = format!("{repository}@{}", pulled.digest);
        let (again, seen) = pull(&place, &by_digest, &connection())?;
        assert_eq!((again.id, again.new, seen.count(Event::Done)), (pulled.id, false, 0));
        assert_eq!(place.store.find(&by_digest)?, pulled.id);
        // What was pulled goes back under the same digest.
        let back = server.name("a/back:1");
        place.store.tag(&name, &back.parse()?)?;
        assert_eq!(push(&place, &back, &connection())?.0.digest, pulled.digest);
    }
    Ok(())
}

fn sent_once() -> Outcome {
    let place = Place::new()?;
    let server = Server::start(&place, Kind::Open)?;
    let name = server.name("a:1");
    loaded(&place, &name)?;
    let (_, seen) = push(&place, &name, &connection())?;
    assert_eq!((seen.count(Event::Done), seen.count(Event::Known)), (5, 0), "four layers and the configuration");
    let (_, seen) = push(&place, &name, &connection())?;
    assert_eq!((seen.count(Event::Done), seen.count(Event::Known)), (0, 5));
    let other = server.name("b:1");
    place.store.tag(&name, &other.parse()?)?;
    let (_, seen) = push(&place, &other, &connection())?;
    assert_eq!((seen.count(Event::Done), seen.count(Event::Mounted)), (0, 5), "they are in another repository");
    let second = Place::new()?;
    let (_, seen) = pull(&second, &name, &connection())?;
    assert_eq!((seen.count(Event::Done), seen.count(Event::Known)), (5, 0));
    let (pulled, seen) = pull(&second, &other, &connection())?;
    assert_eq!((seen.count(Event::Done), seen.count(Event::Known), pulled.new), (0, 5, false));
    Ok(())
}

fn broken_download() -> Outcome {
    let place = Place::new()?;
    let server = Server::start(&place, Kind::Open)?;
    let name = server.name("a:1");
    let id = large(&place, &name, 4 << 20)?;
    push(&place, &name, &connection())?;
    let (wire, left) = breaking_wire(server.address, Way::Down, 1 << 20, 3)?;
    let second = Place::new()?;
    let (pulled, seen) = pull(&second, &format!("{wire}/a:1"), &connection())?;
    assert_eq!(pulled.id, id);
    assert!(left.load(Ordering::Relaxed) <= 0 && seen.count(Event::Retry) == 3, "{}", seen.count(Event::Retry));
    // One on which no answer comes whole is given up, and leaves nothing.
    let (wire, _) = breaking_wire(server.address, Way::Down, 10, i64::MAX)?;
    let third = Place::new()?;
    let outcome = pull(&third, &format!("{wire}/a:1"), &Connection { attempts: 2, ..connection() });
    let broke = matches!(&outcome, Err(ImageError::Registry(RegistryError::Unreachable { .. })));
    assert!(broke, "{outcome:?}", outcome = outcome.map(|(pulled, _)| pulled));
    assert!(third.leftovers()?.is_empty(), "{:?}", third.leftovers()?);
    Ok(())
}

fn broken_upload() -> Outcome {
    let place = Place::new()?;
    let server = Server::start(&place, Kind::Open)?;
    let (wire, left) = breaking_wire(server.address, Way::Up, 1 << 20, 2)?;
    let name = format!("{wire}/a:1");
    large(&place, &name, 4 << 20)?;
    let (pushed, seen) = push(&place, &name, &connection())?;
    assert!(left.load(Ordering::Relaxed) <= 0 && seen.count(Event::Retry) >= 2, "{}", seen.count(Event::Retry));
    assert_eq!(digest_of(&server.name("a:1"))?, pushed.digest);
    skopeo(&["copy", "--src-tls-verify=false", &docker(&server.name("a:1")), &place.text("oci:", "copy:latest")])?;
    Ok(())
}

fn credentials(configuration: &std::path::Path, server: &Server) -> Result<Connection, CredentialsError> {
    let credentials = Credentials::of_file(&configuration.join("config.json"), &server.address.to_string())?;
    Ok(Connection { credentials, ..connection() })
}

fn is_denied<T>(outcome: Result<T, ImageError>) -> bool {
    matches!(outcome, Err(ImageError::Registry(RegistryError::Denied { .. })))
}

fn password() -> Outcome {
    let place = Place::new()?;
    let server = Server::start(&place, Kind::Password)?;
    let name = server.name("a:1");
    loaded(&place, &name)?;
    let configuration = docker_configuration(&place, &[server.address])?;
    let known = credentials(&configuration, &server)?;
    let wrong = Credentials::Password { user: "user".to_owned(), password: "guess".to_owned() };
    let wrong = Connection { credentials: Some(wrong), ..connection() };
    assert!(is_denied(push(&place, &name, &wrong)) && is_denied(pull(&place, &name, &wrong)));
    let (pushed, _) = push(&place, &name, &known)?;
    let inspect = ["inspect", "--tls-verify=false", "--creds", "user:secret", "--format", "{{.Digest}}"];
    assert_eq!(skopeo(&[&inspect[..], &[&docker(&name)]].concat())?.trim(), pushed.digest.to_string());
    let second = Place::new()?;
    pull(&second, &name, &known)?;
    // The command finds the credentials by itself.
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_isobench"))
        .args(["image", "pull", "-q", &name])
        .env("DOCKER_CONFIG", &configuration)
        .env("ISOBENCH_IMAGES", second.path("other"))
        .output()?;
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    Ok(())
}

fn token() -> Outcome {
    let place = Place::new()?;
    certificate(&place)?;
    let (tokens, given) = token_server(&place)?;
    let server = Server::start(&place, Kind::Token(tokens))?;
    let name = server.name("team/a:1");
    loaded(&place, &name)?;
    let stranger = Connection {
        credentials: Some(Credentials::Password { user: "x".into(), password: "y".into() }),
        ..connection()
    };
    assert!(is_denied(push(&place, &name, &stranger)));
    let known = credentials(&docker_configuration(&place, &[server.address])?, &server)?;
    let (pushed, _) = push(&place, &name, &known)?;
    assert!(given.load(Ordering::Relaxed) > 0);
    let second = Place::new()?;
    assert_eq!(pull(&second, &name, &known)?.0.digest, pushed.digest);
    // Another repository of the registry, whose layers are mounted: the token is for both.
    let other = server.name("team/b:1");
    place.store.tag(&name, &other.parse()?)?;
    assert_eq!(push(&place, &other, &known)?.1.count(Event::Mounted), 5);
    Ok(())
}

fn tls() -> Outcome {
    let place = Place::new()?;
    certificate(&place)?;
    signed_certificate(&place)?;
    let server = Server::start(&place, Kind::Tls)?;
    let name = server.name("a:1");
    place.layout()?;
    let copy = ["copy", "--dest-tls-verify=false"];
    skopeo(&[&copy[..], &[&place.text("oci:", "layout:latest"), &docker(&name)]].concat())?;
    let pull = |trusted: Option<&str>, directory: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_isobench"));
        command.args(["image", "pull", &name]).env("ISOBENCH_IMAGES", place.path(directory));
        command.env("DOCKER_CONFIG", place.path("no-docker-config"));
        if let Some(trusted) = trusted {
            command.env("SSL_CERT_FILE", trusted);
        }
        command.output()
    };
    let trusted = pull(Some(&place.text("", "certificate.pem")), "trusting")?;
    assert!(trusted.status.success(), "{}", String::from_utf8_lossy(&trusted.stderr));
    let untrusted = pull(None, "not-trusting")?;
    assert_eq!(untrusted.status.code(), Some(1), "{}", String::from_utf8_lossy(&untrusted.stdout));
    Ok(())
}

fn platforms() -> Outcome {
    let place = Place::new()?;
    let server = Server::start(&place, Kind::Open)?;
    place.layout()?;
    let image = place.text("", "layout:latest");
    run("umoci", &["config", "--image", &image, "--tag", "other", "--architecture", "s390x"])?;
    let mut manifests = Vec::new();
    for (tag, architecture) in [("latest", own_platform().architecture), ("other", "s390x".to_owned())] {
        let from = place.text("oci:", &format!("layout:{tag}"));
        let raw = skopeo(&["inspect", "--raw", &from])?;
        manifests.push(serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": raw.len(),
            "digest": Digest::of(raw.as_bytes()).to_string(), "platform": {"os": "linux", "architecture": architecture},
        }));
    }
    let media_type = "application/vnd.oci.image.index.v1+json";
    let both = serde_json::json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}).to_string();
    let digest = Digest::of(both.as_bytes());
    place.write(&format!("layout/blobs/sha256/{}", digest.hex()), &both)?;
    let entry = serde_json::json!({
        "mediaType": media_type, "digest": digest.to_string(), "size": both.len(),
        "annotations": {"org.opencontainers.image.ref.name": "both"},
    });
    place.write("layout/index.json", serde_json::json!({"schemaVersion": 2, "manifests": [entry]}).to_string())?;
    let name = server.name("a:1");
    skopeo(&["copy", "--all", "--dest-tls-verify=false", &place.text("oci:", "layout:both"), &docker(&name)])?;
    let pull = |architecture: &str| {
        let platform = isobench::image::spec::Platform { architecture: architecture.to_owned(), ..own_platform() };
        registry::pull(&place.store, &name.parse::<Reference>()?, &platform, &connection(), &|_, _| {})
    };
    let other = pull("s390x")?;
    assert_eq!((place.store.config(&other.id)?.architecture.as_str(), other.digest), ("s390x", digest));
    let own = pull(&own_platform().architecture)?;
    assert_eq!((place.store.config(&own.id)?.architecture, own.digest), (own_platform().architecture, digest));
    assert!(matches!(pull("riscv64"), Err(ImageError::Platform { .. })));
    Ok(())
}

fn absent() -> Outcome {
    let place = Place::new()?;
    let server = Server::start(&place, Kind::Open)?;
    let outcome = pull(&place, &server.name("nothing:1"), &connection());
    assert!(matches!(&outcome, Err(ImageError::Registry(RegistryError::NotFound { .. }))), "{:?}", outcome.err());
    assert!(matches!(push(&place, &server.name("nothing:1"), &connection()), Err(ImageError::NoSuchImage(_))));
    let nowhere = format!("{}/a:1", free_port()?);
    let outcome = pull(&place, &nowhere, &Connection { attempts: 2, ..connection() });
    assert!(matches!(&outcome, Err(ImageError::Registry(RegistryError::Unreachable { .. }))), "{:?}", outcome.err());
    assert!(place.leftovers()?.is_empty());
    Ok(())
}

fn changed() -> Outcome {
    let place = Place::new()?;
    let server = Server::start(&place, Kind::Open)?;
    let name = server.name("a:1");
    large(&place, &name, 64 << 10)?;
    push(&place, &name, &connection())?;
    let gzip = place.store.compressed(&place.store.image(&name)?.config.rootfs.diff_ids[0]).ok_or("no gzip form")?;
    let hex = gzip.digest.hex();
    let blob = place.path(&format!("registry/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]));
    let mut content = std::fs::read(&blob)?;
    content[1000] ^= 1;
    std::fs::write(&blob, &content)?;
    let second = Place::new()?;
    let outcome = pull(&second, &name, &connection());
    assert!(matches!(&outcome, Err(ImageError::Digest { .. })), "{:?}", outcome.err());
    assert!(second.leftovers()?.is_empty());
    content.truncate(500);
    std::fs::write(&blob, &content)?;
    let outcome = pull(&second, &name, &Connection { attempts: 2, ..connection() });
    assert!(outcome.is_err() && second.leftovers()?.is_empty());
    Ok(())
}
