//! Which files and hot batches a query can do without, from the ranges in the catalog.

use crate::Snapshot;
use crate::db::{BatchRow, Extent, FileRow};
use crate::parquet_file::event_time_column;
use arrow_array::{ArrayRef, BooleanArray, Int64Array, TimestampMicrosecondArray};
use arrow_schema::SchemaRef;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use muniment_model::Table;
use std::collections::HashSet;
use std::sync::Arc;

type Predicate<'a> = Option<&'a Arc<dyn PhysicalExpr>>;

/// The files that may hold matching records, in index order.
pub(super) fn files(table: &'static Table, snapshot: &Snapshot, schema: &SchemaRef, predicate: Predicate<'_>) -> Result<Vec<Arc<FileRow>>> {
    let all = snapshot.values().flat_map(|stream| stream.files.iter().map(|file| (stream.retention_years, file)));
    keep(table, schema, predicate, all, |file| &file.extent)
}

/// The hot batches that may hold matching records, in index order.
pub(super) fn batches(
    table: &'static Table,
    snapshot: &Snapshot,
    schema: &SchemaRef,
    predicate: Predicate<'_>,
) -> Result<Vec<Arc<BatchRow>>> {
    let all = snapshot.values().flat_map(|stream| stream.hot.iter().map(|batch| (stream.retention_years, batch)));
    keep(table, schema, predicate, all, |batch| &batch.extent)
}

fn keep<'a, T: 'a>(
    table: &'static Table,
    schema: &SchemaRef,
    predicate: Predicate<'_>,
    all: impl Iterator<Item = (u16, &'a Arc<T>)>,
    extent: impl Fn(&T) -> &Extent,
) -> Result<Vec<Arc<T>>> {
    let all: Vec<_> = all.collect();
    let Some(predicate) = predicate else { return Ok(all.into_iter().map(|(_, item)| item.clone()).collect()) };
    let ranges = Ranges { event_time: event_time_column(table), extents: all.iter().map(|(years, item)| (*years, extent(item))).collect() };
    let kept = PruningPredicateBuilder::new().with_file_schema(schema.clone()).try_build(predicate.clone())?.prune(&ranges)?;
    Ok(all.into_iter().zip(kept).filter(|(_, keep)| *keep).map(|((_, item), _)| item.clone()).collect())
}

struct Ranges<'a> {
    event_time: &'static str,
    extents: Vec<(u16, &'a Extent)>,
}

impl Ranges<'_> {
    fn bound(&self, column: &Column, of: impl Fn(&str, u16, &Extent) -> Option<i64>) -> Option<ArrayRef> {
        let name = column.name.as_str();
        let values: Option<Vec<i64>> = self.extents.iter().map(|(years, extent)| of(name, *years, extent)).collect();
        let values = values?;
        if name == "recorded_at" || name == self.event_time {
            return Some(Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")));
        }
        Some(Arc::new(Int64Array::from(values)))
    }
}

impl PruningStatistics for Ranges<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bound(column, |name, years, extent| match name {
            "id" => Some(extent.first_id),
            "stream_index" => Some(extent.first as i64),
            "recorded_at" => Some(extent.recorded_from),
            "retention_years" => Some(i64::from(years)),
            _ if name == self.event_time => Some(extent.min_time),
            _ => None,
        })
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bound(column, |name, years, extent| match name {
            "id" => Some(extent.last_id),
            "stream_index" => Some(extent.end as i64 - 1),
            "recorded_at" => Some(extent.recorded_to),
            "retention_years" => Some(i64::from(years)),
            _ if name == self.event_time => Some(extent.max_time),
            _ => None,
        })
    }

    fn num_containers(&self) -> usize {
        self.extents.len()
    }

    fn null_counts(&self, _column: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
