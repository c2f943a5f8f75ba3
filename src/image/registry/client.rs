//! Requests to one registry.

use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ureq::Body;
use ureq::http::{HeaderMap, Method, Request, Response, StatusCode};

use super::auth::{Authorization, Challenge};
use super::credentials::Credentials;
use super::{Connection, RegistryError, address, tls};
use crate::image::reference::DEFAULT_REGISTRY;

/// The longest pause between two tries that we choose.
const MOST_PAUSE: Duration = Duration::from_secs(30);

/// The longest that a registry can make us wait.
const MOST_TOLD_PAUSE: Duration = Duration::from_secs(300);

/// How often an answer may lead elsewhere.
const MOST_REDIRECTIONS: u32 = 5;

/// The most characters of a registry's own words.
const MOST_SAID: usize = 400;

/// A connection to one registry for one repository.
#[derive(Debug)]
pub struct Client {
    agent: ureq::Agent,
    registry: String,
    /// `https://HOST`.
    base: String,
    repository: String,
    /// What we ask leave for.
    scopes: Vec<String>,
    credentials: Option<Credentials>,
    authorization: Mutex<Option<Authorization>>,
    connection: Connection,
}

/// What is sent.
pub(super) enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    /// A stream cannot be sent again.
    Stream(&'a mut dyn Read, u64),
}

/// A request's method, address and headers.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) headers: Vec<(&'a str, String)>,
    /// For messages: what is asked for.
    pub(super) what: String,
    /// Whether it goes to the registry, which may want to know who we are; a token server is told by its own headers.
    pub(super) proven: bool,
}

impl<'a> Ask<'a> {
    pub(super) fn new(method: Method, url: impl Into<String>, what: impl Into<String>) -> Self {
        Self { method, url: url.into(), headers: Vec::new(), what: what.into(), proven: true }
    }

    /// To a token server.
    pub(super) fn elsewhere(self) -> Self {
        Self { proven: false, ..self }
    }

    pub(super) fn header(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl Client {
    /// Finds out how to speak to a registry. `actions` are what we ask leave for, as in `pull,push`.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub fn connect(
        registry: &str,
        repository: &str,
        actions: &str,
        connection: &Connection,
    ) -> Result<Self, RegistryError> {
        let host = if registry == DEFAULT_REGISTRY { "registry-1.docker.io" } else { registry };
        let credentials = match &connection.credentials {
            Some(Credentials::Nobody) => None,
            Some(credentials) => Some(credentials.clone()),
            None => Credentials::of_docker(registry)?,
        };
        let local = address::is_loopback(host);
        let tls = tls::configuration(host)?;
        let build = |plain: bool| {
            let mut config = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .https_only(!plain)
                .tls_config(tls.clone())
                .user_agent(concat!("isobench/", env!("CARGO_PKG_VERSION")))
                // Each is judged, and followed here.
                .max_redirects(0)
                .timeout_connect(Some(Duration::from_secs(15)))
                .timeout_recv_response(Some(Duration::from_secs(60)))
                .timeout_per_read(Some(Duration::from_secs(60)))
                .timeout_per_write(Some(Duration::from_secs(60)));
            if local {
                config = config.proxy(None);
            }
            Self {
                agent: config.build().into(),
                registry: registry.to_owned(),
                base: format!("{}://{host}", if plain { "http" } else { "https" }),
                repository: repository.to_owned(),
                scopes: vec![format!("repository:{repository}:{actions}")],
                credentials: credentials.clone(),
                authorization: Mutex::new(None),
                connection: connection.clone(),
            }
        };
        // On this machine no one listens in: a registry without TLS will do.
        let mut ways = match (connection.plain_http, local) {
            (true, _) => vec![build(true)],
            (false, true) => vec![build(false), build(true)],
            (false, false) => vec![build(false)],
        };
        let mut attempt = 1;
        loop {
            match Self::reach(&ways) {
                Ok(way) => return Ok(ways.swap_remove(way)),
                Err(Failed { error, passing, pause }) => {
                    if !passing || attempt >= connection.attempts {
                        return Err(error);
                    }
                    ways[0].rest(attempt, pause);
                    attempt += 1;
                }
            }
        }
    }

    /// Which of some ways to a registry is one: the next is tried where no one answers on the one before.
    fn reach(ways: &[Self]) -> Result<usize, Failed> {
        let mut failed = match ways[0].greet() {
            Ok(()) => return Ok(0),
            Err(failed) => failed,
        };
        for (at, way) in ways.iter().enumerate().skip(1) {
            if !matches!(failed.error, RegistryError::Unreachable { .. }) {
                break;
            }
            match way.greet() {
                Ok(()) => return Ok(at),
                Err(next) => match next.error {
                    // The second: it speaks TLS after all.
                    RegistryError::Unreachable { .. } | RegistryError::Refused { status: 400, .. } => {
                        failed.passing |= next.passing;
                    }
                    _ => failed = next,
                },
            }
        }
        Err(failed)
    }

    /// The registry as it was named.
    pub(super) fn registry(&self) -> &str {
        &self.registry
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Asks for leave to read another repository too.
    pub(super) fn also_pull(&mut self, repository: &str) {
        self.scopes.push(format!("repository:{repository}:pull"));
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The address of something in the repository.
    pub(super) fn url(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.base, self.repository)
    }

    /// Whether there is a registry, and how it wants us to prove who we are.
    fn greet(&self) -> Result<(), Failed> {
        let ask = Ask::new(Method::GET, format!("{}/v2/", self.base), "the greeting");
        let mut response = self.once(&ask, Payload::None)?;
        match response.status() {
            StatusCode::OK => Ok(()),
            StatusCode::UNAUTHORIZED => {
                let challenge = Challenge::of(response.headers());
                Ok(self.prove(challenge, &ask.what, &mut response)?)
            }
            status => {
                let pause = told_pause(response.headers());
                let error = self.refused(&ask.what, &mut response);
                Err(Failed { error, passing: is_passing(status), pause })
            }
        }
    }

    /// Makes a request; proves who we are where that is wanted, and tries again what failed on the way. Any answer but
    /// `accepted` is an error.
    pub(super) fn ask(&self, ask: &Ask<'_>, accepted: &[StatusCode]) -> Result<Response<Body>, RegistryError> {
        self.ask_with(ask, &[], accepted)
    }

    /// The same with a body.
    pub(super) fn ask_with(
        &self,
        ask: &Ask<'_>,
        body: &[u8],
        accepted: &[StatusCode],
    ) -> Result<Response<Body>, RegistryError> {
        let mut attempt = 1;
        let mut proven = !ask.proven;
        loop {
            let payload = if body.is_empty() { Payload::None } else { Payload::Bytes(body) };
            let pause = match self.once(ask, payload) {
                Ok(mut response) => {
                    let status = response.status();
                    if accepted.contains(&status) {
                        return Ok(response);
                    }
                    if status == StatusCode::UNAUTHORIZED && !proven {
                        proven = true;
                        let challenge = Challenge::of(response.headers());
                        self.prove(challenge, &ask.what, &mut response)?;
                        continue;
                    }
                    if !is_passing(status) || attempt >= self.connection.attempts {
                        return Err(self.refused(&ask.what, &mut response));
                    }
                    told_pause(response.headers())
                }
                Err(error) if attempt >= self.connection.attempts || !is_broken(&error) => return Err(error),
                Err(_) => None,
            };
            self.rest(attempt, pause);
            attempt += 1;
        }
    }

    /// Makes a request once; any status is an answer. One that asks for something is asked where the answer says that it
    /// is, as long as that is safe.
    pub(super) fn once(&self, ask: &Ask<'_>, payload: Payload<'_>) -> Result<Response<Body>, RegistryError> {
        if ask.method != Method::GET && ask.method != Method::HEAD {
            return self.send(ask, &ask.url, payload);
        }
        let mut url = ask.url.clone();
        for _ in 0..=MOST_REDIRECTIONS {
            let response = self.send(ask, &url, Payload::None)?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            url = self.address(&url, response.headers())?;
        }
        Err(self.malformed(format!("us round and round for {}", ask.what)))
    }

    /// Makes a request to an address: the one that is asked for, or where that led to.
    fn send(&self, ask: &Ask<'_>, url: &str, payload: Payload<'_>) -> Result<Response<Body>, RegistryError> {
        if !address::is_safe(url, self.connection.plain_http) {
            return Err(self.malformed(format!("us to an address without TLS: {}", address::shown(url))));
        }
        let mut request = Request::builder().method(ask.method.clone()).uri(url);
        // What proves who we are is not for where we are sent on to.
        let kept = ask.headers.iter().filter(|(name, _)| url == ask.url || *name != "authorization");
        for (name, value) in kept {
            request = request.header(*name, value);
        }
        // Who we are is told to the registry alone, and not to where it sends us for an upload or a download.
        if ask.proven && url.starts_with(&format!("{}/", self.base)) {
            let authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(authorization) = &*authorization {
                request = request.header("authorization", authorization.header());
            }
        }
        let unreachable =
            |source| RegistryError::Unreachable { registry: self.registry.clone(), source: Box::new(source) };
        let sent = match payload {
            Payload::None if ask.method == Method::POST || ask.method == Method::PUT => {
                request.body(&b""[..]).map_err(ureq::Error::from).and_then(|request| self.agent.run(request))
            }
            Payload::None => request.body(()).map_err(ureq::Error::from).and_then(|request| self.agent.run(request)),
            Payload::Bytes(bytes) => {
                request.body(bytes).map_err(ureq::Error::from).and_then(|request| self.agent.run(request))
            }
            Payload::Stream(mut reader, length) => {
                let request = request.header("content-length", length);
                let body = ureq::SendBody::from_reader(&mut reader);
                request.body(body).map_err(ureq::Error::from).and_then(|request| self.agent.run(request))
            }
        };
        sent.map_err(unreachable)
    }

    /// Answers a challenge: what proves who we are goes with all requests from here on.
    pub(super) fn prove(
        &self,
        challenge: Option<Challenge>,
        what: &str,
        response: &mut Response<Body>,
    ) -> Result<(), RegistryError> {
        let Some(challenge) = challenge else { return Err(self.refused(what, response)) };
        let authorization = challenge.answer(self, &self.scopes, self.credentials.as_ref())?;
        match authorization {
            Some(authorization) => {
                *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorization);
                Ok(())
            }
            None => Err(self.refused(what, response)),
        }
    }

    /// What an answer that was not hoped for means.
    pub(super) fn refused(&self, what: &str, response: &mut Response<Body>) -> RegistryError {
        let (registry, what) = (self.registry.clone(), what.to_owned());
        let message = told(response);
        match response.status() {
            StatusCode::NOT_FOUND => RegistryError::NotFound { registry, what },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let hint = match self.credentials {
                    Some(_) => "",
                    None => "; docker's configuration has no credentials for it",
                };
                RegistryError::Denied { registry, what, message, hint }
            }
            status => RegistryError::Refused { registry, what, status: status.as_u16(), message },
        }
    }

    pub(super) fn malformed(&self, what: impl Into<String>) -> RegistryError {
        RegistryError::Malformed { registry: self.registry.clone(), what: what.into() }
    }

    /// Waits before the next try.
    pub(super) fn rest(&self, attempt: u32, told: Option<Duration>) {
        let pause = self.connection.pause.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(MOST_PAUSE);
        std::thread::sleep(told.map_or(pause, |told| told.min(MOST_TOLD_PAUSE)));
    }

    /// The address of an upload, whole.
    pub(super) fn location(&self, headers: &HeaderMap) -> Result<String, RegistryError> {
        self.address(&self.base, headers)
    }

    /// The address that an answer from another gives.
    fn address(&self, from: &str, headers: &HeaderMap) -> Result<String, RegistryError> {
        let location = headers.get("location").and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| self.malformed("us on without an address"))?;
        let resolved = address::resolve(from, location);
        resolved.ok_or_else(|| self.malformed(format!("us to what is no address: {}", address::shown(location))))
    }
}

/// A first contact that failed.
struct Failed {
    error: RegistryError,
    /// Whether the next may not.
    passing: bool,
    /// How long the registry wants us to wait before it.
    pause: Option<Duration>,
}

impl From<RegistryError> for Failed {
    fn from(error: RegistryError) -> Self {
        // What is no TLS, or not trusted, stays so.
        let lasting = match &error {
            RegistryError::Unreachable { source, .. } => match &**source {
                ureq::Error::Io(source) => source.kind() == std::io::ErrorKind::InvalidData,
                _ => false,
            },
            _ => true,
        };
        Self { passing: !lasting && is_broken(&error), error, pause: None }
    }
}

/// What a registry says in the body of an error: its own messages, or the first line of anything else.
fn told(response: &mut Response<Body>) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<Told>,
    }
    #[derive(serde::Deserialize)]
    struct Told {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let text = response.body_mut().with_config().limit(64 << 10).lossy_utf8(true).read_to_string().unwrap_or_default();
    let said = match serde_json::from_str::<Errors>(&text) {
        Ok(errors) => {
            let each = errors.errors.iter().map(|error| match error.message.as_str() {
                "" => error.code.clone(),
                message => message.to_owned(),
            });
            each.collect::<Vec<_>>().join("; ")
        }
        Err(_) => text.lines().next().unwrap_or_default().to_owned(),
    };
    said.chars().filter(|c| !c.is_control()).take(MOST_SAID).collect()
}

/// Whether the same request may succeed later.
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// Whether the connection was at fault.
pub(super) fn is_broken(error: &RegistryError) -> bool {
    let RegistryError::Unreachable { source, .. } = error else { return false };
    matches!(
        **source,
        ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed | ureq::Error::Protocol(_)
    )
}

/// How long an answer says to wait: in seconds, or until a time.
pub(super) fn told_pause(headers: &HeaderMap) -> Option<Duration> {
    let told = headers.get("retry-after")?.to_str().ok()?;
    if let Ok(seconds) = told.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(told).ok()?;
    Some(Duration::try_from(until.duration_since(jiff::Timestamp::now())).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests;
