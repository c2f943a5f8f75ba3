//! Archives and layouts made by hand: what their lists say, and what stands where a file should.

use std::os::unix::fs::symlink;

use super::*;
use crate::image::create::{self, Description, RootSource};
use crate::image::spec::{Index, own_platform};

/// A place with a store, and the configuration and the layer of an image.
struct Place {
    directory: tempfile::TempDir,
    store: Store,
    config: Vec<u8>,
    layer: Vec<u8>,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let source = Store::open(path("source")).unwrap();
        std::fs::create_dir(path("tree")).unwrap();
        std::fs::write(path("tree/f"), "x").unwrap();
        let description = Description::of(Some("a".parse().unwrap()));
        let id = create::import(&source, RootSource::Directory(&path("tree")), &description).unwrap();
        let config = source.read_document(&id).unwrap();
        let layer = source.read_document(&source.image("a").unwrap().manifest.layers[0].digest).unwrap();
        let store = Store::open(path("store")).unwrap();
        Self { store, config, layer, directory }
    }

    fn load(&self, name: &str) -> Result<Vec<Loaded>, ImageError> {
        let selection = Selection { platform: own_platform(), name: None, named: true };
        let outcome = load(&self.store, Some(&self.directory.path().join(name)), &selection);
        if outcome.is_err() {
            assert!(self.store.records().unwrap().is_empty());
            let left = std::fs::read_dir(self.store.root().join("blobs/sha256")).unwrap().count();
            assert_eq!(left, 0, "nothing is left");
        }
        outcome
    }

    /// Writes a docker archive whose layer is called `b/layer.tar` and is a further name of another file.
    fn archive(&self, tags: &[&str], target: &str) {
        let file = File::create(self.directory.path().join("a.tar")).unwrap();
        let mut builder = tar::Builder::new(file);
        let list = serde_json::json!([{"Config": "config.json", "RepoTags": tags, "Layers": ["b/layer.tar"]}]);
        let list = list.to_string().into_bytes();
        for (name, content) in [("config.json", &self.config), ("a/layer.tar", &self.layer), ("manifest.json", &list)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, content.as_slice()).unwrap();
        }
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Link);
        link.set_size(0);
        link.set_path("b/layer.tar").unwrap();
        link.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        link.set_cksum();
        builder.append(&link, std::io::empty()).unwrap();
        builder.into_inner().unwrap();
    }

    fn layout_path(&self, digest: &Digest) -> PathBuf {
        self.directory.path().join("layout/blobs/sha256").join(digest.hex())
    }

    /// Puts a blob into the layout.
    fn blob(&self, media_type: &str, content: &[u8]) -> Descriptor {
        let descriptor = Descriptor::new(media_type, Digest::of(content), content.len() as u64);
        let path = self.layout_path(&descriptor.digest);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        descriptor
    }

    /// Puts a manifest into the layout, with the image's configuration of another type.
    fn manifest(&self, config_type: &str) -> Descriptor {
        let layers = vec![self.blob(media::OCI_LAYER, &self.layer)];
        let manifest = Manifest::oci(self.blob(config_type, &self.config), layers);
        self.blob(media::OCI_MANIFEST, &serde_json::to_vec(&manifest).unwrap())
    }

    fn index(&self, manifests: Vec<Descriptor>) {
        let index = Index { schema_version: 2, media_type: None, manifests };
        let path = self.directory.path().join("layout/index.json");
        std::fs::write(path, serde_json::to_vec(&index).unwrap()).unwrap();
    }
}

#[test]
fn a_name_that_stands_for_content_is_refused() {
    let place = Place::new();
    let id = Digest::of(&place.config);
    for tag in [id.to_string(), format!("b@{id}"), format!("b:1@{id}"), "sha256:1".to_owned()] {
        place.archive(&[&tag], "a/layer.tar");
        assert!(matches!(place.load("a.tar"), Err(ImageError::Reference(_))), "{tag}");
    }
    place.archive(&["b:1"], "a/layer.tar");
    assert_eq!(place.load("a.tar").unwrap()[0].id, id);
    let place = Place::new();
    let mut entry = place.manifest(media::OCI_CONFIG);
    entry.annotations.insert(IMAGE_NAME.to_owned(), format!("b@{id}"));
    place.index(vec![entry]);
    assert!(matches!(place.load("layout"), Err(ImageError::Reference(_))));
}

#[test]
fn a_further_name_may_begin_with_a_dot() {
    let place = Place::new();
    place.archive(&[], "./a/layer.tar");
    place.load("a.tar").unwrap();
}

#[test]
fn a_sparse_file_is_no_blob() {
    let place = Place::new();
    place.archive(&[], "a/layer.tar");
    let path = place.directory.path().join("a.tar");
    let whole = std::fs::read(&path).unwrap();
    let records = b"22 GNU.sparse.major=0\n22 GNU.sparse.minor=1\n24 GNU.sparse.size=4096\n22 GNU.sparse.map=0,1\n";
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_size(records.len() as u64);
    builder.append_data(&mut header, "pax", &records[..]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    builder.append_data(&mut header, "sparse", &b"x"[..]).unwrap();
    let mut content = builder.into_inner().unwrap();
    content.truncate(content.len() - 1024);
    std::fs::write(&path, [content, whole].concat()).unwrap();
    let error = place.load("a.tar").unwrap_err();
    let sparse =
        matches!(&error, ImageError::Archive { source: UnpackError::Name { why, .. }, .. } if why.contains("sparse"));
    assert!(sparse, "{error:?}");
}

#[test]
fn what_is_no_image_is_passed_over() {
    let place = Place::new();
    let chart = place.manifest("application/vnd.cncf.helm.config.v1+json");
    place.index(vec![chart, place.manifest(media::OCI_CONFIG)]);
    assert_eq!(place.load("layout").unwrap().len(), 1);
    let place = Place::new();
    place.index(vec![place.manifest("application/vnd.cncf.helm.config.v1+json")]);
    let error = place.load("layout").unwrap_err().to_string();
    assert!(error.contains("holds no image"), "{error}");
}

#[test]
fn what_stands_in_a_files_place_is_not_read_without_end() {
    let pipe = |path: &Path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let zero = |path: &Path| symlink("/dev/zero", path).unwrap();
    for stand in [&pipe as &dyn Fn(&Path), &zero] {
        let place = Place::new();
        let entry = place.manifest(media::OCI_CONFIG);
        place.index(vec![entry]);
        let index = place.directory.path().join("layout/index.json");
        for path in [place.layout_path(&Digest::of(&place.layer)), index] {
            std::fs::remove_file(&path).unwrap();
            stand(&path);
            assert!(matches!(place.load("layout"), Err(ImageError::File(_))), "{}", path.display());
        }
    }
    let place = Place::new();
    place.manifest(media::OCI_CONFIG);
    let index = File::create(place.directory.path().join("layout/index.json")).unwrap();
    index.set_len(1 << 40).unwrap();
    assert!(matches!(place.load("layout"), Err(ImageError::TooLarge { .. })));
}
