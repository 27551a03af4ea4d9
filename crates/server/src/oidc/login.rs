//! Logging in and out of the console: the authorization code flow with PKCE (RFC 7636), state and nonce.

use super::sessions::Sessions;
use super::{OidcError, encoded};
use crate::answer::{Code, Refusal};
use crate::authenticate::{Failure, Origin, event_of, failed, record};
use crate::console;
use crate::routes::{App, AppState, Parameters};
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, COOKIE, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use muniment_engine::now;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Holds the session of the console.
pub(crate) const SESSION_COOKIE: &str = "muniment_session";
/// Ties a log-in to the browser that began it.
const LOGIN_COOKIE: &str = "muniment_login";
/// Time in which a log-in must be finished.
const LOGIN_TIME: Duration = Duration::from_secs(600);
/// Log-ins under way. Beyond it the oldest are forgotten.
const MOST_LOGINS: usize = 10_000;
/// Where a log-in ends unless it began elsewhere.
const HOME: &str = "/console";

/// A log-in under way.
#[derive(Debug)]
struct Login {
    nonce: String,
    verifier: String,
    home: String,
    began: Instant,
}

/// The log-ins under way, by state.
#[derive(Debug, Default)]
pub(crate) struct Logins {
    under_way: Mutex<HashMap<String, Login>>,
}

impl Logins {
    fn begin(&self, state: String, login: Login) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if under_way.len() >= MOST_LOGINS {
            under_way.retain(|_, login| login.began.elapsed() < LOGIN_TIME);
            if under_way.len() >= MOST_LOGINS
                && let Some(oldest) = under_way.iter().min_by_key(|(_, login)| login.began).map(|(state, _)| state.clone())
            {
                under_way.remove(&oldest);
            }
        }
        under_way.insert(state, login);
    }

    /// A log-in is finished once.
    fn finish(&self, state: &str) -> Option<Login> {
        let login = self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(state)?;
        (login.began.elapsed() < LOGIN_TIME).then_some(login)
    }
}

/// 256 random bits.
fn random() -> Result<String, Refusal> {
    let mut bytes = [0; 32];
    let failed = |_| Refusal::new(Code::Internal, "the machine gives no random numbers");
    SystemRandom::new().fill(&mut bytes).map_err(failed)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// A cookie of a request.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
    all.filter_map(|pair| pair.trim().split_once('=')).find(|(known, _)| *known == name).map(|(_, value)| value)
}

impl App {
    fn set_cookie(&self, name: &str, value: &str, seconds: u64) -> String {
        let secure = if self.public_url.starts_with("https:") { "; Secure" } else { "" };
        format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}")
    }

    fn callback_url(&self) -> String {
        format!("{}/login/callback", self.public_url)
    }
}

fn redirect(to: &str, cookies: Vec<String>) -> Response {
    let mut response = (StatusCode::SEE_OTHER, [(LOCATION, to), (CACHE_CONTROL, "no-store")]).into_response();
    for cookie in cookies.iter().filter_map(|cookie| cookie.parse().ok()) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// A path of this service: nobody is sent elsewhere after logging in.
fn own_path(path: Option<String>) -> String {
    let own = |path: &String| {
        path.starts_with('/') && !path.starts_with("//") && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    };
    path.filter(own).unwrap_or_else(|| HOME.to_owned())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Begin {
    #[serde(rename = "return")]
    home: Option<String>,
}

/// Sends a browser to the identity provider.
pub(crate) async fn begin(State(app): AppState, Parameters(Begin { home }): Parameters<Begin>) -> Result<Response, Refusal> {
    let Some(provider) = &app.provider else {
        return Err(Refusal::new(Code::NotFound, "no identity provider is configured; programs show a key"));
    };
    let description = provider.description().await.map_err(unavailable)?;
    let (state, nonce, verifier) = (random()?, random()?, random()?);
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
    let parameters = [
        ("response_type", "code"),
        ("client_id", &provider.config.client_id),
        ("redirect_uri", &app.callback_url()),
        ("scope", &provider.config.scopes),
        ("state", &state),
        ("nonce", &nonce),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ];
    let parameters: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    let endpoint = &description.authorization_endpoint;
    let url = format!("{endpoint}{}{}", if endpoint.contains('?') { '&' } else { '?' }, parameters.join("&"));
    let cookie = app.set_cookie(LOGIN_COOKIE, &state, LOGIN_TIME.as_secs());
    app.logins.begin(state, Login { nonce, verifier, home: own_path(home), began: Instant::now() });
    Ok(redirect(&url, vec![cookie]))
}

fn unavailable(error: OidcError) -> Refusal {
    tracing::warn!(error = &error as &dyn std::error::Error, "the identity provider can't be used");
    Refusal::new(Code::Busy, "the identity provider can't be reached at present").retry_after(10)
}

/// What the provider sends a browser back with; whatever else it adds is left alone.
#[derive(Debug, Deserialize)]
pub(crate) struct Outcome {
    state: Option<String>,
    code: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// Receives a browser from the identity provider.
pub(crate) async fn finish(State(app): AppState, Parameters(outcome): Parameters<Outcome>, request: Request) -> Response {
    let origin = Origin::of(&request);
    let begun = cookie(request.headers(), LOGIN_COOKIE).map(str::to_owned);
    match logged_in(&app, outcome, begun.as_deref(), &origin).await {
        Ok((cookie, home)) => redirect(&home, vec![cookie, app.set_cookie(LOGIN_COOKIE, "", 0)]),
        Err(reason) => {
            let failure = Failure { event: "LOGIN", subject: None, reason };
            let refusal = failed(&app, &origin, &failure).await;
            console::refused(&refusal)
        }
    }
}

/// The cookie of a new session, and where to go with it; or why there is none.
async fn logged_in(app: &App, outcome: Outcome, begun: Option<&str>, origin: &Origin) -> Result<(String, String), String> {
    let provider = app.provider.as_ref().ok_or("no identity provider is configured")?;
    let state = outcome.state.filter(|state| begun == Some(state)).ok_or("this log-in was not begun in this browser")?;
    let login = app.logins.finish(&state).ok_or("this log-in took too long, or was finished before")?;
    if let Some(error) = outcome.error {
        let said: String = outcome.error_description.unwrap_or(error).chars().filter(|c| !c.is_control()).take(200).collect();
        return Err(format!("the identity provider refused: {said}"));
    }
    let code = outcome.code.ok_or("the identity provider sent no code")?;
    let told = |error: OidcError| {
        tracing::warn!(error = &error as &dyn std::error::Error, "a log-in failed");
        error.to_string()
    };
    let token = provider.exchange(&code, &login.verifier, &app.callback_url()).await.map_err(told)?;
    let now = now();
    let (claims, _) = provider.recognise(&token, Some(&login.nonce), now).await.map_err(told)?;
    let subject = claims.subject.clone();
    let secret = random().map_err(|_| "no random numbers".to_owned())?;
    let id = Sessions::id(&secret);
    let lasts = app.config.session;
    let expires_at = now.saturating_add(i64::try_from(lasts.as_micros()).unwrap_or(i64::MAX));
    let failed = |error: muniment_engine::EngineError| {
        tracing::error!(error = &error as &dyn std::error::Error, "a log-in failed");
        "the directory of users can't be used at present".to_owned()
    };
    let principal = app.remember(&secret, Some(id.clone()), claims, expires_at, now).await.map_err(failed)?;
    let principal = principal.ok_or("this user is deactivated")?;
    let details = json!({ "provider": provider.config.issuer, "subject": subject, "expires_in_seconds": lasts.as_secs() });
    let mut line = event_of("LOGIN", "SUCCESS", origin.address, origin.headers(), 0, details);
    line["user_id"] = json!(principal.user_id);
    line["session_id"] = json!(id);
    record(app, line).await;
    Ok((app.set_cookie(SESSION_COOKIE, &secret, lasts.as_secs()), login.home))
}

/// Ends a session.
pub(crate) async fn log_out(State(app): AppState, request: Request) -> Response {
    let origin = Origin::of(&request);
    let ended = cookie(request.headers(), SESSION_COOKIE).and_then(|secret| app.sessions.end(secret));
    if let Some(principal) = ended {
        let mut line = event_of("LOGOUT", "SUCCESS", origin.address, origin.headers(), 0, json!({ "reason": "asked for" }));
        line["user_id"] = json!(principal.user_id);
        line["session_id"] = json!(principal.session_id);
        record(&app, line).await;
    }
    let mut response = console::logged_out();
    if let Ok(cookie) = app.set_cookie(SESSION_COOKIE, "", 0).parse() {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn nobody_is_sent_elsewhere() {
        assert_eq!(own_path(Some("/console?tab=1".to_owned())), "/console?tab=1");
        for other in ["https://evil.example.org", "//evil.example.org", "/\\evil.example.org", "console", "", "/a b"] {
            assert_eq!(own_path(Some(other.to_owned())), HOME, "{other}");
        }
        assert_eq!(own_path(None), HOME);
    }

    #[test]
    fn cookies_are_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, "a=1; muniment_session=x=y".parse().unwrap());
        headers.append(COOKIE, "b=2".parse().unwrap());
        assert_eq!(cookie(&headers, SESSION_COOKIE), Some("x=y"));
        assert_eq!(cookie(&headers, "b"), Some("2"));
        assert_eq!(cookie(&headers, "session"), None);
    }

    #[test]
    fn a_log_in_is_finished_once() {
        let logins = Logins::default();
        let login = || Login { nonce: String::new(), verifier: String::new(), home: String::new(), began: Instant::now() };
        logins.begin("s".to_owned(), login());
        assert!(logins.finish("s").is_some() && logins.finish("s").is_none());
        for n in 0..MOST_LOGINS + 5 {
            logins.begin(n.to_string(), login());
        }
        assert_eq!(logins.under_way.lock().unwrap().len(), MOST_LOGINS);
    }
}
