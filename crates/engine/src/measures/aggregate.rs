//! Measurements by buckets of time: how many, the mean, the extremes, percentiles.

use crate::error::{EngineError, Result};
use crate::query::QueryEngine;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use datafusion::common::ScalarValue;
use muniment_store::StoreError;
use serde::Serialize;

/// Buckets of an answer at most.
pub const MOST_BUCKETS: i64 = 10_000;

/// Which measurements are asked for. Times are µs UTC.
#[derive(Clone, Debug, Default)]
pub struct AggregateRequest {
    /// The metric.
    pub metric: String,
    /// Length of a bucket, µs.
    pub bucket: i64,
    /// Measured at or after this time.
    pub from: i64,
    /// Measured before this time.
    pub to: i64,
    /// Only of this category.
    pub category: Option<String>,
    /// Only of this component.
    pub component: Option<String>,
    /// Only of this operation.
    pub operation: Option<String>,
}

/// The measurements of one unit in one bucket.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bucket {
    /// When it begins.
    #[serde(serialize_with = "crate::history::rfc3339")]
    pub start: i64,
    /// Unit of the values.
    pub unit: Option<String>,
    /// Measurements.
    pub measurements: i64,
    /// Happenings that they stand for, by their sampling rates.
    pub count: f64,
    /// Mean of the happenings' values.
    pub avg: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Value that half of the happenings don't exceed; approximate as the other percentiles.
    pub p50: f64,
    /// Value that 95 of 100 happenings don't exceed.
    pub p95: f64,
    /// Value that 99 of 100 happenings don't exceed.
    pub p99: f64,
    /// Measurements that have reached a threshold.
    pub exceeded: i64,
}

/// Measurements of a metric, by unit and time. Buckets without a measurement are left out.
///
/// # Errors
/// [`EngineError::Parameter`] for a period or bucket that makes no sense, and those of queries.
pub async fn aggregate(query: &QueryEngine, request: &AggregateRequest) -> Result<Vec<Bucket>> {
    let wrong = |name, reason: String| Err(EngineError::Parameter { name, reason });
    if request.metric.is_empty() {
        return wrong("metric", "it must not be empty".to_owned());
    }
    if request.bucket < 1000 {
        return wrong("bucket", "it is at least a millisecond".to_owned());
    }
    if request.to <= request.from || request.from < 0 {
        return wrong("to", "it lies after `from`, and both after 1970".to_owned());
    }
    if (request.to - request.from) / request.bucket > MOST_BUCKETS {
        return wrong("bucket", format!("the period has more than {MOST_BUCKETS} buckets of this length"));
    }
    let text = |value: &Option<String>| ScalarValue::Utf8(value.clone());
    let time = |micros| ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into()));
    let parameters = vec![
        ScalarValue::from(request.metric.as_str()),
        ScalarValue::from(request.bucket),
        time(request.from),
        time(request.to),
        text(&request.category),
        text(&request.component),
        text(&request.operation),
    ];
    let batches = query.collect(include_str!("aggregate.sql"), parameters).await?;
    let mut buckets = Vec::new();
    for batch in &batches {
        read(batch, &mut buckets)?;
    }
    Ok(buckets)
}

fn read(batch: &RecordBatch, into: &mut Vec<Bucket>) -> Result<()> {
    let damaged = |name: &str| StoreError::Damaged(format!("{name} of an aggregate is not as it should be"));
    let column = |name: &str| batch.column_by_name(name).ok_or_else(|| damaged(name));
    let whole = |name: &str| column(name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| damaged(name));
    let number = |name: &str| column(name)?.as_primitive_opt::<Float64Type>().ok_or_else(|| damaged(name));
    let units = arrow_cast::cast(column("unit")?, &arrow_schema::DataType::Utf8)?;
    let units = units.as_string::<i32>();
    let (starts, measurements, exceeded) = (whole("bucket")?, whole("measurements")?, whole("exceeded")?);
    let values = ["happenings", "average", "smallest", "largest", "p50", "p95", "p99"].map(number);
    let [count, avg, min, max, p50, p95, p99] = values;
    let (count, avg, min, max, p50, p95, p99) = (count?, avg?, min?, max?, p50?, p95?, p99?);
    for row in 0..batch.num_rows() {
        into.push(Bucket {
            start: starts.value(row),
            unit: units.is_valid(row).then(|| units.value(row).to_owned()),
            measurements: measurements.value(row),
            count: count.value(row),
            avg: avg.value(row),
            min: min.value(row),
            max: max.value(row),
            p50: p50.value(row),
            p95: p95.value(row),
            p99: p99.value(row),
            exceeded: exceeded.value(row),
        });
    }
    Ok(())
}
