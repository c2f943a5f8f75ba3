//! Debian's docker-registry on a port of its own, a server of tokens for it, and a wire that breaks.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;

use crate::tools::{Outcome, Place, run};

/// The program.
pub const REGISTRY: &str = "docker-registry";

/// How the registry is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Open to all.
    Open,
    /// With the user `user` and the password `secret`.
    Password,
    /// With tokens of this server.
    Token(SocketAddr),
    /// With TLS, by the certificate of [`signed_certificate`].
    Tls,
}

/// A running registry; ended when it is dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nothing listens on. Another process may take it before it is used, which shows as an error.
pub fn free_port() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl Server {
    /// Starts a registry and waits until it takes connections.
    pub fn start(place: &Place, kind: Kind) -> Outcome<Self> {
        let address = free_port()?;
        let extra = match kind {
            Kind::Open => String::new(),
            Kind::Password => {
                // The password is `secret`, hashed by bcrypt.
                let hash = "user:$2b$12$w8Du5Kd/8d7UTRPPCzF0N.0vcjlORn3z2DFES8XAfByxGqEL7Zume\n";
                place.write("htpasswd", hash)?;
                format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", place.text("", "htpasswd"))
            }
            Kind::Token(server) => format!(
                "auth:\n  token:\n    realm: http://{server}/token\n    service: test-registry\n    issuer: test-issuer\n    \
                 rootcertbundle: {}\n",
                place.text("", "certificate.pem")
            ),
            Kind::Tls => String::new(),
        };
        let tls = match kind {
            Kind::Tls => {
                let (certificate, key) = (place.text("", "server.pem"), place.text("", "server-key.pem"));
                format!("  tls:\n    certificate: {certificate}\n    key: {key}\n")
            }
            _ => String::new(),
        };
        let storage = place.text("", "registry");
        let configuration = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {storage}\nhttp:\n  addr: \
             {address}\n{tls}{extra}"
        );
        place.write("registry.yml", configuration)?;
        let child = Command::new(REGISTRY)
            .args(["serve", &place.text("", "registry.yml")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut server = Self { child, address };
        let begin = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                return Err(format!("{REGISTRY} ended with {status}").into());
            }
            if begin.elapsed() > Duration::from_secs(20) {
                return Err(format!("{REGISTRY} takes no connections").into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// The name of a repository there.
    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }
}

/// Makes a certificate for 127.0.0.1 and its key.
pub fn certificate(place: &Place) -> Outcome {
    let (key, certificate) = (place.text("", "key.pem"), place.text("", "certificate.pem"));
    let made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=isobench test"];
    let names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", &key, "-out", &certificate];
    run("openssl", &[&made[..], &names].concat())?;
    Ok(())
}

/// Makes a certificate for 127.0.0.1 that is signed by that of [`certificate`], and its key.
pub fn signed_certificate(place: &Place) -> Outcome {
    let (authority, signer) = (place.text("", "certificate.pem"), place.text("", "key.pem"));
    let (key, certificate) = (place.text("", "server-key.pem"), place.text("", "server.pem"));
    let made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"];
    let signed = ["-CA", &authority, "-CAkey", &signer, "-addext", "basicConstraints=CA:FALSE"];
    let names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", &key, "-out", &certificate];
    run("openssl", &[&made[..], &signed, &names].concat())?;
    Ok(())
}

/// A server of tokens: it gives one, signed with the key of [`certificate`], to whom says `user` and `secret`. How many
/// it gave.
pub fn token_server(place: &Place) -> Outcome<(SocketAddr, Arc<AtomicU32>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let given = Arc::new(AtomicU32::new(0));
    let (counter, key) = (given.clone(), place.text("", "key.pem"));
    let certificate = std::fs::read_to_string(place.path("certificate.pem"))?;
    let certificate: String = certificate.lines().filter(|line| !line.starts_with('-')).collect();
    // Ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Who hangs up gets nothing.
            let _ = answer(stream, &key, &certificate, &counter);
        }
    });
    Ok((address, given))
}

fn answer(mut stream: TcpStream, key: &str, certificate: &str, given: &AtomicU32) -> Outcome {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
        request.push(byte[0]);
    }
    let request = String::from_utf8(request)?;
    let authorized = request.to_lowercase().contains("authorization: basic dxnlcjpzzwnyzxq=");
    if !authorized {
        let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}"#;
        let head = format!("HTTP/1.1 401 Unauthorized\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        return Ok(stream.write_all((head + body).as_bytes())?);
    }
    let query = request.split_whitespace().nth(1).unwrap_or_default();
    let mut access = Vec::new();
    for scope in query.split(['?', '&']).filter_map(|pair| pair.strip_prefix("scope=")) {
        let scope = scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
        let parts: Vec<&str> = scope.split(':').collect();
        let actions: Vec<&str> = parts[2].split(',').collect();
        access.push(serde_json::json!({"type": parts[0], "name": parts[1], "actions": actions}));
    }
    let token = sign(key, certificate, &serde_json::Value::Array(access))?;
    given.fetch_add(1, Ordering::Relaxed);
    let body = serde_json::json!({"token": token, "expires_in": 300}).to_string();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    Ok(stream.write_all((head + &body).as_bytes())?)
}

/// A JSON web token, signed by openssl.
fn sign(key: &str, certificate: &str, access: &serde_json::Value) -> Outcome<String> {
    let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let header = serde_json::json!({"typ": "JWT", "alg": "RS256", "x5c": [certificate]}).to_string();
    let claims = serde_json::json!({
        "iss": "test-issuer", "sub": "user", "aud": "test-registry", "exp": now + 300, "nbf": now - 10, "iat": now,
        "jti": format!("{now}"), "access": access,
    });
    let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.to_string().as_bytes()));
    let mut child = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign", key])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().ok_or("no input")?.write_all(signed.as_bytes())?;
    let output = child.wait_with_output()?;
    Ok(format!("{signed}.{}", encode(&output.stdout)))
}

/// Which way a wire breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// What the registry sends.
    Down,
    /// What it is sent.
    Up,
}

/// A wire to a registry that breaks `times` times, each after so many bytes in one way. How often it will break yet.
pub fn breaking_wire(to: SocketAddr, way: Way, after: usize, times: i64) -> Outcome<(SocketAddr, Arc<AtomicI64>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let left = Arc::new(AtomicI64::new(times));
    let counter = left.clone();
    // Ends with the test's process.
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(to) else { continue };
            for (direction, from, into) in [(Way::Up, &client, &server), (Way::Down, &server, &client)] {
                let (Ok(from), Ok(into)) = (from.try_clone(), into.try_clone()) else { continue };
                let counter = counter.clone();
                let limit = (direction == way).then_some(after);
                std::thread::spawn(move || carry(from, into, limit, &counter));
            }
        }
    });
    Ok((address, left))
}

fn carry(mut from: TcpStream, mut into: TcpStream, limit: Option<usize>, left: &AtomicI64) {
    let mut carried = 0;
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        carried += count;
        let beyond = limit.map_or(0, |limit| carried.saturating_sub(limit)).min(count);
        let breaks = beyond > 0 && left.fetch_sub(1, Ordering::Relaxed) > 0;
        let passed = if breaks { count - beyond } else { count };
        if into.write_all(&buffer[..passed]).is_err() || breaks {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = into.shutdown(Shutdown::Both);
}

/// A directory with docker's configuration that has `user` and `secret` for some registries.
pub fn docker_configuration(place: &Place, registries: &[SocketAddr]) -> Outcome<std::path::PathBuf> {
    let auth = base64::engine::general_purpose::STANDARD.encode("user:secret");
    let entries = registries.iter().map(|registry| (registry.to_string(), serde_json::json!({"auth": auth})));
    let auths: serde_json::Map<String, serde_json::Value> = entries.collect();
    place.write("docker-config/config.json", serde_json::json!({"auths": auths}).to_string())?;
    Ok(Path::new(&place.path("docker-config")).to_owned())
}
