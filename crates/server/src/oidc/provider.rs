//! The identity provider: what it says of itself, its keys, and the exchange of a code for a token.

use super::jwt::{Expected, PublicKey, Token};
use super::{OidcConfig, OidcError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio_rustls::rustls::crypto::ring::default_provider;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Time for an answer of the provider.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of an answer.
const ANSWER_BYTES: u64 = 1 << 20;
/// Age at which keys are read again, and the shortest time between two readings.
const KEYS_AGE: Duration = Duration::from_secs(3600);
const KEYS_PAUSE: Duration = Duration::from_secs(10);
/// Where a provider describes itself, below its issuer's URL.
const DESCRIPTION: &str = "/.well-known/openid-configuration";

/// What the provider says of itself.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Description {
    issuer: String,
    pub(super) authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
}

#[derive(Debug)]
struct Known {
    description: Arc<Description>,
    keys: Arc<Vec<PublicKey>>,
    read: Instant,
}

/// A provider.
pub(crate) struct Provider {
    pub(crate) config: OidcConfig,
    agent: ureq::Agent,
    known: RwLock<Option<Known>>,
    reading: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider").field("issuer", &self.config.issuer).finish_non_exhaustive()
    }
}

impl Provider {
    /// Nothing is asked of the provider before somebody logs in, so that it need not be there when the service starts.
    pub(crate) fn new(config: OidcConfig) -> Result<Self, OidcError> {
        let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(Arc::new(default_provider()));
        if let Some(path) = &config.ca {
            let pem = std::fs::read(path).map_err(|source| OidcError::Authority { path: path.clone(), source })?;
            let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
                .filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                })
                .collect();
            tls = tls.root_certs(RootCerts::new_with_certs(&certificates));
        }
        let agent = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).timeout_global(Some(PATIENCE));
        let agent = agent.tls_config(tls.build()).user_agent(concat!("muniment/", env!("CARGO_PKG_VERSION"))).build().into();
        Ok(Self { config, agent, known: RwLock::default(), reading: tokio::sync::Mutex::default() })
    }

    fn known(&self, age: Duration) -> Option<(Arc<Description>, Arc<Vec<PublicKey>>)> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().filter(|known| known.read.elapsed() < age).map(|known| (known.description.clone(), known.keys.clone()))
    }

    /// What the provider says of itself, and its keys.
    async fn look(&self, age: Duration) -> Result<(Arc<Description>, Arc<Vec<PublicKey>>), OidcError> {
        if let Some(known) = self.known(age) {
            return Ok(known);
        }
        let _turn = self.reading.lock().await;
        // Whoever waited finds what the one before has read; and nobody makes the provider be asked again and again.
        if let Some(known) = self.known(age.max(KEYS_PAUSE)) {
            return Ok(known);
        }
        let description: Description = read(self.get(format!("{}{DESCRIPTION}", self.config.issuer.trim_end_matches('/'))).await?)?;
        if description.issuer != self.config.issuer {
            return Err(OidcError::Provider(format!("it says that it is {:?}", description.issuer)));
        }
        #[derive(Deserialize)]
        struct Keys {
            keys: Vec<Value>,
        }
        let keys: Keys = read(self.get(description.jwks_uri.clone()).await?)?;
        // Keys of kinds that are not known here are no fault.
        let keys = keys.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect();
        let known = Known { description: Arc::new(description), keys: Arc::new(keys), read: Instant::now() };
        let found = (known.description.clone(), known.keys.clone());
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(known);
        Ok(found)
    }

    /// What the provider says of itself.
    pub(super) async fn description(&self) -> Result<Arc<Description>, OidcError> {
        Ok(self.look(KEYS_AGE).await?.0)
    }

    /// The claims of a token that the provider has signed. A key that is not known yet is asked for.
    pub(super) async fn claims(&self, token: &str, expected: Expected<'_>) -> Result<Value, OidcError> {
        let read = Token::read(token).map_err(OidcError::Token)?;
        let (_, mut keys) = self.look(KEYS_AGE).await?;
        if read.key_name().is_some_and(|name| !keys.iter().any(|key| key.kid.as_deref() == Some(name))) {
            keys = self.look(KEYS_PAUSE).await?.1;
        }
        read.checked(&keys, expected).map_err(OidcError::Token)
    }

    /// The identity token for a code.
    pub(super) async fn exchange(&self, code: &str, verifier: &str, redirect: &str) -> Result<String, OidcError> {
        #[derive(Deserialize)]
        struct Tokens {
            id_token: String,
        }
        let description = self.description().await?;
        let mut form = vec![
            ("grant_type", "authorization_code".to_owned()),
            ("code", code.to_owned()),
            ("redirect_uri", redirect.to_owned()),
            ("code_verifier", verifier.to_owned()),
        ];
        let mut authorization = None;
        let methods = &description.token_endpoint_auth_methods_supported;
        let in_form =
            methods.iter().any(|method| method == "client_secret_post") && !methods.iter().any(|method| method == "client_secret_basic");
        match &self.config.client_secret {
            Some(secret) if in_form => form.extend([("client_id", self.config.client_id.clone()), ("client_secret", secret.clone())]),
            Some(secret) => {
                let pair = format!("{}:{}", super::encoded(&self.config.client_id), super::encoded(secret));
                authorization = Some(format!("Basic {}", STANDARD.encode(pair)));
            }
            None => form.push(("client_id", self.config.client_id.clone())),
        }
        let body: Vec<String> = form.iter().map(|(name, value)| format!("{name}={}", super::encoded(value))).collect();
        let (agent, url) = (self.agent.clone(), description.token_endpoint.clone());
        let answer = blocking(move || {
            let request = agent.post(&url).header("content-type", "application/x-www-form-urlencoded").header("accept", "application/json");
            let request = authorization.iter().fold(request, |request, value| request.header("authorization", value));
            text(request.send(body.join("&")), &url)
        });
        Ok(read::<Tokens>(answer.await?)?.id_token)
    }

    async fn get(&self, url: String) -> Result<String, OidcError> {
        let agent = self.agent.clone();
        blocking(move || text(agent.get(&url).header("accept", "application/json").call(), &url)).await
    }
}

async fn blocking(work: impl FnOnce() -> Result<String, OidcError> + Send + 'static) -> Result<String, OidcError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| OidcError::Provider("asking it failed".to_owned()))?
}

fn text(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>, url: &str) -> Result<String, OidcError> {
    let failed = |source| OidcError::Unreachable { url: url.to_owned(), source: Box::new(source) };
    let mut answer = answer.map_err(failed)?;
    let text = answer.body_mut().with_config().limit(ANSWER_BYTES).read_to_string().map_err(failed)?;
    if !answer.status().is_success() {
        let said: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
        return Err(OidcError::Provider(format!("{url} answered {}: {said}", answer.status())));
    }
    Ok(text)
}

fn read<T: serde::de::DeserializeOwned>(text: String) -> Result<T, OidcError> {
    serde_json::from_str(&text).map_err(|error| OidcError::Provider(format!("its answer lacks something: {error}")))
}
