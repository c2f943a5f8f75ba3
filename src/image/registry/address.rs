//! Where a request may go: over TLS anywhere; in the clear only within this machine, or where the caller allowed it.
//! A registry names addresses too (a token server, an upload's place, a redirection), and each is judged before use.

use ureq::http::Uri;

/// Whether no one on the way can read or change what goes there, or the caller does not mind.
pub(super) fn is_safe(url: &str, plain_http: bool) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => true,
        (Some("http"), Some(host)) => plain_http || is_loopback(host),
        _ => false,
    }
}

/// What a `Location` stands for in an answer from an address.
pub(super) fn resolve(from: &str, location: &str) -> Option<String> {
    let from: Uri = from.parse().ok()?;
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    if location.starts_with("//") {
        return Some(format!("{scheme}:{location}"));
    }
    if location.starts_with('/') {
        return Some(format!("{scheme}://{authority}{location}"));
    }
    location.parse::<Uri>().ok().filter(|uri| uri.scheme().is_some()).map(|_| location.to_owned())
}

/// An address for a message: without its query, which may hold a secret.
pub(super) fn shown(url: &str) -> String {
    let path = url.split('?').next().unwrap_or_default();
    path.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Whether this is a name or address of this machine that no other machine has. A port may follow.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_this_machine() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "128.0.0.1", "127.0.0.1.example:5000", "[::2]", "10.0.0.1", "docker.io"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn in_the_clear_only_within_this_machine_or_as_allowed() {
        for url in ["https://r.example/v2/", "http://127.0.0.1:5000/", "http://localhost/x", "http://[::1]:1/"] {
            assert!(is_safe(url, false), "{url}");
        }
        for url in ["http://r.example/", "http://127.0.0.1@r.example/", "http://127.0.0.1.example/"] {
            assert!(!is_safe(url, false) && is_safe(url, true), "{url}");
        }
        for url in ["ftp://127.0.0.1/", "file:///etc/passwd", "r.example/x", "", "http://a b/"] {
            assert!(!is_safe(url, true), "{url}");
        }
    }

    #[test]
    fn locations_stand_for_whole_addresses() {
        let from = "https://r.example:5000/v2/a/blobs/x";
        for (location, whole) in [
            ("/v2/b?c=http://d", "https://r.example:5000/v2/b?c=http://d"),
            ("//s.example/b", "https://s.example/b"),
            ("http://s.example/b", "http://s.example/b"),
        ] {
            assert_eq!(resolve(from, location).as_deref(), Some(whole));
        }
        assert_eq!(resolve(from, "relative"), None);
        assert_eq!(shown("https://r.example/a?token=secret"), "https://r.example/a");
    }
}
