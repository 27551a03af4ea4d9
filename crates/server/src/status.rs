//! Whether the service lives and takes records, what it counts, and what it offers.

use crate::answer::{Code, Refusal};
use crate::identity::Identity;
use crate::routes::AppState;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{Html, IntoResponse};
use muniment_access::Action;
use std::fmt::Write;
use std::time::Duration;

/// Time in which the commit queue must answer for the service to count as ready.
const READY_TIME: Duration = Duration::from_secs(2);
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(crate) async fn alive() -> &'static str {
    "alive\n"
}

/// Ready if records would be taken now: the committer answers, and hot records are not waiting for the flush.
pub(crate) async fn ready(State(app): AppState) -> Result<&'static str, Refusal> {
    let unready = |reason: &str| Err(Refusal::new(Code::Busy, reason).retry_after(1));
    if app.is_stopping() {
        return Err(Refusal::new(Code::Stopping, "the service is stopping").retry_after(5));
    }
    if app.engine.store().hot_size().0 > app.engine.limits().hot_bytes {
        return unready("records wait to be written to files");
    }
    // Nothing is older than the beginning of time, so this asks the committer without making it sign anything.
    match tokio::time::timeout(READY_TIME, app.engine.heartbeat(i64::MIN)).await {
        Ok(Ok(())) => Ok("ready\n"),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => unready("the commit queue does not answer"),
    }
}

pub(crate) async fn metrics(State(app): AppState, Identity(principal): Identity) -> Result<impl IntoResponse, Refusal> {
    app.allow(&principal, Action::ReadMetrics, None)?;
    Ok(([(CONTENT_TYPE, METRICS_TYPE), (CACHE_CONTROL, "no-store")], app.engine.render_metrics()))
}

pub(crate) async fn index() -> Html<String> {
    let mut page = String::from("<!doctype html><title>Muniment</title><h1>Muniment</h1><p>An audit log that can prove itself.</p><ul>\n");
    for (path, methods, summary) in crate::openapi::summaries() {
        let _ = match path.contains('{') {
            true => writeln!(page, "<li><code>{methods} {path}</code>: {summary}"),
            false => writeln!(page, "<li><code>{methods} <a href=\"{path}\">{path}</a></code>: {summary}"),
        };
    }
    page.push_str("</ul>\n");
    Html(page)
}
