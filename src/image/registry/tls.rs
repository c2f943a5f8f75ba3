//! Whom we trust: the certificates of this machine, and those that docker's directories have for one registry.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::RegistryError;

/// Where distributions keep the certificates that a machine trusts.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Where docker and podman keep further ones, a directory a registry.
const DIRECTORIES: [&str; 2] = ["/etc/docker/certs.d", "/etc/containers/certs.d"];

/// What to speak TLS with to a registry.
pub(super) fn configuration(host: &str) -> Result<TlsConfig, RegistryError> {
    let mut trusted = Vec::new();
    let given = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let bundle = given.or_else(|| BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()));
    if let Some(bundle) = &bundle {
        read(bundle, &mut trusted)?;
    }
    for directory in DIRECTORIES {
        let Ok(entries) = std::fs::read_dir(Path::new(directory).join(host)) else { continue };
        for entry in entries.flatten().filter(|entry| entry.path().extension().is_some_and(|name| name == "crt")) {
            read(&entry.path(), &mut trusted)?;
        }
    }
    Ok(TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(trusted))).build())
}

fn read(path: &Path, trusted: &mut Vec<Certificate<'static>>) -> Result<(), RegistryError> {
    let wrong = |error: Box<dyn std::error::Error + Send + Sync>| {
        RegistryError::Certificates(path.display().to_string(), error)
    };
    let text = std::fs::read(path).map_err(|error| wrong(error.into()))?;
    for item in parse_pem(&text) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| wrong(error.into()))? {
            trusted.push(certificate);
        }
    }
    Ok(())
}
