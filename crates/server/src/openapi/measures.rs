//! The description of monitoring, measurements and thresholds.

use super::{Operation, json_content, needed, nullable, object, parameter, reference, time};
use crate::answer::Code;
use serde_json::{Value, json};

const CHANGE_CODES: &[Code] =
    &[Code::InvalidParameter, Code::InvalidHeader, Code::CrossOrigin, Code::NotFound, Code::Refused, Code::Internal, Code::Busy];

pub(super) fn operations() -> Vec<Operation> {
    let answer = |description: &str, schema: Value| vec![("200", json!({ "description": description, "content": json_content(schema) }))];
    let list = |schema| json!({ "type": "array", "items": reference(schema) });
    let operation = |method, path, id, summary| Operation {
        method,
        path,
        id,
        summary,
        parameters: Vec::new(),
        body: None,
        answers: Vec::new(),
        codes: CHANGE_CODES,
    };
    let text = |name, description: &str| parameter("query", name, description, json!({ "type": "string" }));
    let bucket = json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$", "default": "1m" });
    vec![
        Operation {
            answers: answer("How it is doing.", reference("Monitoring")),
            codes: &[Code::Internal],
            ..operation("get", "/api/v1/monitoring", "monitoring", "How the service is doing: queue, lag, errors, latency")
        },
        Operation {
            parameters: vec![
                needed(text("metric", "The metric: `metric_name`.")),
                parameter("query", "bucket", "Length of a bucket.", bucket),
                parameter("query", "from", "Measured at or after this time; an hour before `to` if not given.", reference("Time")),
                parameter("query", "to", "Measured before this time; now if not given.", reference("Time")),
                text("category", "Only of this category."),
                text("component", "Only of this component."),
                text("operation", "Only of this operation."),
            ],
            answers: answer("By unit and time; buckets without a measurement are left out.", list("MetricBucket")),
            codes: &[Code::InvalidParameter, Code::QueryLimit, Code::Internal, Code::Busy],
            ..operation(
                "get",
                "/api/v1/metrics/aggregate",
                "aggregateMetric",
                "Measurements of a metric by buckets of time, with percentiles",
            )
        },
        Operation {
            answers: answer("The thresholds.", list("Threshold")),
            codes: &[Code::Internal],
            ..operation("get", "/api/v1/metrics/thresholds", "thresholds", "All thresholds of measurements")
        },
        Operation {
            body: Some(json!({ "required": true, "content": json_content(reference("Threshold")) })),
            answers: answer("It holds for what arrives from now on.", reference("Threshold")),
            ..operation(
                "put",
                "/api/v1/metrics/thresholds",
                "putThreshold",
                "Makes or replaces the thresholds of a metric, category and component",
            )
        },
        Operation {
            parameters: vec![parameter("path", "id", "Number of the threshold.", json!({ "type": "integer" }))],
            answers: answer("It is removed.", object(json!({ "removed": { "type": "integer" } }))),
            ..operation(
                "delete",
                "/api/v1/metrics/thresholds/{id}",
                "removeThreshold",
                "Removes thresholds; what was decided by them stays",
            )
        },
    ]
}

/// Schemas of what is sent and answered.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let (integer, string, number) = (json!({ "type": "integer" }), json!({ "type": "string" }), json!({ "type": "number" }));
    let decimal = json!({ "type": ["number", "string", "null"], "description": "At most 12 digits before the point and 6 after it." });
    let threshold = json!({
        "type": "object", "additionalProperties": false,
        "properties": {
            "id": nullable("integer"), "metric_name": nullable("string"),
            "metric_category": { "enum": ["DATABASE", "API", "WORKFLOW", "EXTERNAL", null] }, "component_name": nullable("string"),
            "metric_unit": nullable("string"), "threshold_warning": decimal, "threshold_critical": decimal,
            "is_active": { "type": "boolean", "default": true },
        },
    });
    let bucket = object(json!({
        "start": time(), "unit": nullable("string"), "measurements": integer, "count": number, "avg": number, "min": number, "max": number,
        "p50": number, "p95": number, "p99": number, "exceeded": integer,
    }));
    let follower = object(json!({ "name": string, "lag_ms": number, "records": integer }));
    let source = object(json!({ "name": string, "state": string, "lag_ms": nullable("number"), "lag_bytes": nullable("integer") }));
    let monitoring = object(json!({
        "time": time(), "queue_depth": integer, "processing_lag_ms": number, "error_rate_percent": number, "requests": integer, "commits": integer,
        "commit_latency_p50_ms": number, "commit_latency_p99_ms": number, "flush_lag_ms": number, "hot_bytes": integer,
        "ingest_memory_bytes": integer, "followers": { "type": "array", "items": follower }, "sources": { "type": "array", "items": source },
        "limited_subjects": integer, "blocked_subjects": integer,
    }));
    vec![("Threshold", threshold), ("MetricBucket", bucket), ("Monitoring", monitoring)]
}
