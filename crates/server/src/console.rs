//! The console's pages, as far as there are any: who you are, and what you may do. No script, and nothing from elsewhere.

use crate::answer::Refusal;
use crate::routes::AppState;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{Extensions, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use muniment_access::{Action, Principal};
use std::fmt::Write;
use std::sync::Arc;

const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem;color:#1b1b1b;background:#fff}\
    h1{font-size:1.4rem}dt{font-weight:600;margin-top:.8rem}dd{margin:0}button{font:inherit;padding:.3rem 1rem}\
    @media (prefers-color-scheme:dark){body{color:#e8e8e8;background:#161616}a{color:#8ab4f8}}";

/// Text as it stands between tags and in attributes.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

fn page(status: StatusCode, title: &str, body: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style><body><h1>{title}</h1>{body}</body></html>\n"
    );
    let headers = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (CACHE_CONTROL, "no-store"),
        // Without any referrer browsers would also leave out which page a form was sent from, and such forms are refused.
        (REFERRER_POLICY, "same-origin"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, Html(html)).into_response()
}

/// Who you are. Whoever isn't anybody yet is sent to the log-in.
pub(crate) async fn home(State(app): AppState, extensions: Extensions) -> Response {
    let Some(principal) = extensions.get::<Arc<Principal>>() else {
        if app.provider.is_none() {
            let body = "<p>No identity provider is configured, so nobody can log in here. Programs show a key.</p>";
            return page(StatusCode::OK, "Muniment", body);
        }
        return (StatusCode::SEE_OTHER, [(LOCATION, "/login"), (CACHE_CONTROL, "no-store")]).into_response();
    };
    let list = |names: Vec<&str>| if names.is_empty() { "nothing".to_owned() } else { escaped(&names.join(", ")) };
    let roles = list(principal.roles.iter().map(|role| role.name()).collect());
    let decide = |action, table| app.policy.decide(principal, action, table, None).allowed;
    let may = list(Action::ALL.into_iter().filter(|action| decide(*action, None)).map(Action::name).collect());
    let reads = muniment_model::tables().iter().map(|table| table.name).filter(|table| decide(Action::Read, Some(table)));
    let mut body = format!(
        "<dl><dt>You are</dt><dd id=\"name\">{}</dd><dt>Roles</dt><dd id=\"roles\">{roles}</dd><dt>You may</dt><dd id=\"may\">{may}</dd>\
         <dt>You may read</dt><dd id=\"reads\">{}</dd></dl>",
        escaped(&principal.name),
        list(reads.collect()),
    );
    if principal.session_id.is_some() {
        let _ = write!(body, "<form method=\"post\" action=\"/logout\"><button id=\"logout\">Log out</button></form>");
    }
    page(StatusCode::OK, "Muniment", &body)
}

/// Says why somebody could not log in.
pub(crate) fn refused(refusal: &Refusal) -> Response {
    let body = format!("<p id=\"reason\">{}</p><p><a href=\"/login\">Try again</a></p>", escaped(refusal.message()));
    page(refusal.code().status(), "Not logged in", &body)
}

/// Says good-bye.
pub(crate) fn logged_out() -> Response {
    page(StatusCode::OK, "Logged out", "<p><a id=\"login\" href=\"/login\">Log in again</a></p>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_and_not_markup() {
        assert_eq!(escaped("<b a='1' b=\"2\">&"), "&lt;b a=&#39;1&#39; b=&quot;2&quot;&gt;&amp;");
    }
}
