//! OpenID Connect: people log in to the console at an identity provider, and programs show its tokens.

mod jwt;
pub(crate) mod login;
mod provider;
pub(crate) mod sessions;

pub(crate) use provider::Provider;

use jwt::Expected;
use muniment_access::Role;
use muniment_engine::identity::Claims;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// How an identity provider is used.
#[derive(Clone)]
pub struct OidcConfig {
    /// Its issuer URL, to which `/.well-known/openid-configuration` is appended.
    pub issuer: String,
    /// What it knows this service as.
    pub client_id: String,
    /// What it knows this service by; `None` for a public client, which PKCE protects.
    pub client_secret: Option<String>,
    /// The audience that tokens of programs must be for; by default the client.
    pub audience: Option<String>,
    /// Where browsers reach this service; by default where it listens.
    pub public_url: Option<String>,
    /// Scopes to ask for, separated by blanks.
    pub scopes: String,
    /// The claim that holds roles or groups; a dot leads into an object.
    pub roles_claim: String,
    /// Which role a value of that claim stands for.
    pub roles: BTreeMap<String, Role>,
    /// PEM file with the authorities that vouch for the provider; by default those of the web.
    pub ca: Option<PathBuf>,
}

impl std::fmt::Debug for OidcConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OidcConfig").field("issuer", &self.issuer).field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// What can go wrong between the service and an identity provider.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// The authorities can't be read.
    #[error("{} can't be read", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The provider can't be reached.
    #[error("{url} can't be reached")]
    Unreachable {
        /// What was asked.
        url: String,
        /// Why.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The provider says something else than it should.
    #[error("the identity provider: {0}")]
    Provider(String),
    /// A token is not accepted.
    #[error("{0}")]
    Token(&'static str),
}

/// Percent-encodes all but letters and digits.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(byte).collect()
}

impl Provider {
    /// Whom a token means, and until when, µs UTC.
    pub(crate) async fn recognise(&self, token: &str, nonce: Option<&str>, now: i64) -> Result<(Claims, i64), OidcError> {
        let config = &self.config;
        let audience = match nonce {
            Some(_) => &config.client_id,
            None => config.audience.as_ref().unwrap_or(&config.client_id),
        };
        let expected = Expected { issuer: &config.issuer, audience, nonce, now: now / 1_000_000 };
        let claims = self.claims(token, expected).await?;
        let expires = claims["exp"].as_f64().unwrap_or_default() as i64;
        Ok((self.meaning(&claims), expires.saturating_mul(1_000_000)))
    }

    fn meaning(&self, claims: &Value) -> Claims {
        let text = |name: &str| claims[name].as_str().map(str::to_owned);
        let verified = claims["email_verified"].as_bool() != Some(false);
        Claims {
            issuer: self.config.issuer.clone(),
            subject: text("sub").unwrap_or_default(),
            username: text("preferred_username").or_else(|| text("nickname")),
            display_name: text("name"),
            email: text("email").filter(|_| verified),
            roles: roles(claims, &self.config.roles_claim, &self.config.roles),
        }
    }
}

/// The roles that a claim, a list or a text with blanks, stands for.
fn roles(claims: &Value, path: &str, known: &BTreeMap<String, Role>) -> BTreeSet<Role> {
    // A name with dots, such as a URL, is looked for as it is first.
    let value = claims.get(path).or_else(|| path.split('.').try_fold(claims, |value, part| value.get(part)));
    let names: Vec<&str> = match value {
        Some(Value::String(text)) => text.split_whitespace().collect(),
        Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    names.into_iter().filter_map(|name| known.get(name).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn roles_come_from_lists_texts_and_objects() {
        let known = BTreeMap::from([("audit-team".to_owned(), Role::Auditor), ("ops".to_owned(), Role::Administrator)]);
        let check = |claims: Value, path: &str, expected: &[Role]| {
            assert_eq!(roles(&claims, path, &known), expected.iter().copied().collect(), "{claims} {path}");
        };
        check(json!({ "groups": ["audit-team", "everybody"] }), "groups", &[Role::Auditor]);
        check(json!({ "groups": "ops audit-team" }), "groups", &[Role::Auditor, Role::Administrator]);
        check(json!({ "realm_access": { "roles": ["ops"] } }), "realm_access.roles", &[Role::Administrator]);
        check(json!({ "https://example.org/roles": ["ops"] }), "https://example.org/roles", &[Role::Administrator]);
        check(json!({ "groups": ["auditor"] }), "groups", &[]);
        check(json!({ "groups": 7 }), "groups", &[]);
        check(json!({}), "groups", &[]);
    }
}
