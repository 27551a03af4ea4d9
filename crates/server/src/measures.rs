//! How the service is doing, measurements by buckets of time, and thresholds: `/api/v1/monitoring`, `/api/v1/metrics`.

use crate::answer::{Code, Refusal};
use crate::author::author;
use crate::identity::Identity;
use crate::limits::body;
use crate::peers::Peer;
use crate::reader::{Listed, Reader};
use crate::routes::{AppState, Parameters, Segments};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::{Extension, Json};
use muniment_access::Action;
use muniment_engine::history::parse_time;
use muniment_engine::measures::{AggregateRequest, Monitoring, aggregate};
use muniment_engine::thresholds::Threshold;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// The log of measurements.
const LOG: &str = "system_performance_log";
/// The register of thresholds.
const THRESHOLDS: &str = "metric_thresholds";
/// Period that is looked at if none is given, µs.
const HOUR: i64 = 3_600_000_000;

/// How the service is doing at the moment.
pub(crate) async fn monitoring(State(app): AppState, Identity(principal): Identity) -> Result<Json<Monitoring>, Refusal> {
    app.allow(&principal, Action::ReadMetrics, None)?;
    Ok(Json(app.engine.monitoring().await?))
}

/// Which measurements are wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    metric: String,
    bucket: Option<String>,
    from: Option<String>,
    to: Option<String>,
    category: Option<String>,
    component: Option<String>,
    operation: Option<String>,
}

/// Measurements of a metric by buckets of time.
pub(crate) async fn buckets(reader: Reader, Parameters(wanted): Parameters<Wanted>) -> Result<Response, Refusal> {
    reader.allow(Action::Read, Some(LOG))?;
    let wrong = |name: &str, reason: &str| Refusal::new(Code::InvalidParameter, format!("{name}: {reason}"));
    let time = |name: &str, value: &Option<String>| match value {
        Some(value) => parse_time(value).map(Some).map_err(|_| wrong(name, "it is a time such as 2026-01-31T09:00:00Z, or a date")),
        None => Ok(None),
    };
    let to = time("to", &wanted.to)?.unwrap_or_else(muniment_engine::now);
    let from = time("from", &wanted.from)?.unwrap_or(to - HOUR);
    let bucket =
        length(wanted.bucket.as_deref().unwrap_or("1m")).ok_or_else(|| wrong("bucket", "it is a time such as 30s, 1m, 1h or 1d"))?;
    let Wanted { metric, category, component, operation, .. } = wanted;
    let receipt = reader.receipt(Action::Read, format!("measurements of {metric}"), None);
    let request = AggregateRequest { metric, bucket, from, to, category, component, operation };
    let found = async {
        let buckets = aggregate(&reader.query()?, &request).await?;
        let rows = buckets.len() as u64;
        Ok((buckets, rows))
    };
    reader.answer(receipt, found.await).await
}

/// A length of time such as `30s`, in µs.
fn length(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let unit = match unit {
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => HOUR,
        "d" => 24 * HOUR,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(unit)
}

/// All thresholds.
pub(crate) async fn thresholds(State(app): AppState, Identity(principal): Identity) -> Result<Listed<Threshold>, Refusal> {
    app.allow(&principal, Action::Read, Some(THRESHOLDS))?;
    Ok(Listed(app.engine.thresholds().await?))
}

/// Makes or replaces thresholds.
pub(crate) async fn put_threshold(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    request: Request,
) -> Result<Json<Threshold>, Refusal> {
    app.allow(&principal, Action::Configure, Some(THRESHOLDS))?;
    let by = author(&principal, &peer, request.headers())?;
    let threshold: Threshold = body(&app, request).await?;
    if threshold.id.is_some() {
        return Err(Refusal::new(Code::InvalidParameter, "id: thresholds are known by metric, category and component"));
    }
    Ok(Json(app.engine.put_threshold(&threshold, &by).await?))
}

/// Removes thresholds.
pub(crate) async fn remove_threshold(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    Segments(id): Segments<i64>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    app.allow(&principal, Action::Configure, Some(THRESHOLDS))?;
    app.engine.remove_threshold(id, &author(&principal, &peer, &headers)?).await?;
    Ok(Json(json!({ "removed": id })))
}

#[cfg(test)]
mod tests {
    use super::length;

    #[test]
    fn lengths_of_time() {
        let cases =
            [("1m", Some(60_000_000)), ("250ms", Some(250_000)), ("2d", Some(172_800_000_000)), ("m", None), ("5", None), ("-1s", None)];
        for (text, expected) in cases {
            assert_eq!(length(text), expected, "{text}");
        }
        assert_eq!(length("99999999999999999d"), None);
    }
}
