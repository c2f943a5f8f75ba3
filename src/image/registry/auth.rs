//! Proving who we are: basic, and bearer tokens from the server that the registry names.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use ureq::http::{HeaderMap, Method, StatusCode};

use super::RegistryError;
use super::client::{Ask, Client};
use super::credentials::Credentials;

/// What goes with a request to prove who we are.
pub(super) struct Authorization(String);

impl Authorization {
    pub(super) fn header(&self) -> &str {
        &self.0
    }

    fn basic(user: &str, password: &str) -> Self {
        Self(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization(…)")
    }
}

/// How a registry wants us to prove who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

/// The token server's answer.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Challenge {
    /// The first challenge among an answer's headers that we can meet; a token before a password.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let texts = headers.get_all("www-authenticate").iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<Self> = texts.filter_map(Self::parse).collect();
        let bearer = challenges.iter().find(|challenge| matches!(challenge, Self::Bearer { .. }));
        bearer.or(challenges.first()).cloned()
    }

    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let parameters = parameters(rest);
        let get = |name: &str| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        Some(Self::Bearer { realm: get("realm")?, service: get("service") })
    }

    /// What meets the challenge; `None` where it takes credentials that we do not have.
    pub(super) fn answer(
        &self,
        client: &Client,
        scopes: &[String],
        credentials: Option<&Credentials>,
    ) -> Result<Option<Authorization>, RegistryError> {
        let (realm, service) = match (self, credentials) {
            (Self::Basic, Some(Credentials::Password { user, password })) => {
                return Ok(Some(Authorization::basic(user, password)));
            }
            (Self::Basic, _) => return Ok(None),
            (Self::Bearer { realm, service }, _) => (realm, service),
        };
        let what = format!("a token of {realm}");
        let mut parameters: Vec<(&str, &str)> = Vec::new();
        parameters.extend(service.as_deref().map(|service| ("service", service)));
        let mut response = match credentials {
            Some(Credentials::Token(token)) => {
                let scope = scopes.join(" ");
                parameters.extend([("client_id", "isobench"), ("grant_type", "refresh_token")]);
                parameters.extend([("refresh_token", token.as_str()), ("scope", scope.as_str())]);
                let ask = Ask::new(Method::POST, realm, what.as_str())
                    .elsewhere()
                    .header("content-type", "application/x-www-form-urlencoded");
                client.ask_with(&ask, encode(&parameters).as_bytes(), &[StatusCode::OK])?
            }
            credentials => {
                parameters.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
                let between = if realm.contains('?') { '&' } else { '?' };
                let url = format!("{realm}{between}{}", encode(&parameters));
                let mut ask = Ask::new(Method::GET, url, what.as_str()).elsewhere();
                if let Some(Credentials::Password { user, password }) = credentials {
                    ask = ask.header("authorization", Authorization::basic(user, password).header());
                }
                client.ask(&ask, &[StatusCode::OK])?
            }
        };
        let token: Result<Token, _> = response
            .body_mut()
            .with_config()
            .limit(1 << 20)
            .read_to_vec()
            .map_err(|_| ())
            .and_then(|bytes| serde_json::from_slice(&bytes).map_err(|_| ()));
        match token.ok().and_then(|token| token.token.or(token.access_token)) {
            Some(token) => Ok(Some(Authorization(format!("Bearer {token}")))),
            None => Err(client.malformed(format!("us for a token to {realm}, which gave none"))),
        }
    }
}

/// `name="value",name=value`
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while let Some((name, after)) = rest.split_once('=') {
        let (value, behind) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        found.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        rest = behind.trim_start_matches([',', ' ']);
    }
    found
}

/// A query or a form.
fn encode(parameters: &[(&str, &str)]) -> String {
    let pairs = parameters.iter().map(|(name, value)| format!("{name}={}", percent(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Everything but letters, digits and `-._~` as `%XX`.
pub(super) fn percent(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_taken_apart() {
        let text = r#"Bearer realm="https://auth.example/token?x=1",service="registry.example",scope="a:b:c,d""#;
        let bearer = Challenge::Bearer {
            realm: "https://auth.example/token?x=1".to_owned(),
            service: Some("registry.example".to_owned()),
        };
        assert_eq!(Challenge::parse(text), Some(bearer.clone()));
        assert_eq!(Challenge::parse("basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Negotiate"), None);
        assert_eq!(Challenge::parse("Bearer service=\"x\""), None);
        let mut headers = HeaderMap::new();
        headers.append("www-authenticate", "Basic realm=x".parse().unwrap());
        headers.append("www-authenticate", text.parse().unwrap());
        assert_eq!(Challenge::of(&headers), Some(bearer));
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(
            encode(&[("scope", "repository:a/b:pull,push"), ("x", "é")]),
            "scope=repository%3Aa%2Fb%3Apull%2Cpush&x=%C3%A9"
        );
    }

    #[test]
    fn who_we_are_is_not_printed() {
        assert!(!format!("{:?}", Authorization::basic("user", "secret")).contains("c2Vj"));
    }
}
