//! Point look-ups: which rows of which files are changes of the entities that a query names. The filters of the files say which row groups to look at; the
//! key columns of those say which rows. The scan that follows decodes nothing else.

use super::df_error;
use super::reader::LocalFiles;
use crate::db::FileRow;
use crate::entity_filter::{Candidate, ENTITY, EntityFilters};
use crate::objects::Objects;
use arrow_array::{Array, BooleanArray, RecordBatch, StringViewArray};
use arrow_schema::SchemaRef;
use datafusion::arrow::compute::kernels::boolean::or;
use datafusion::arrow::compute::kernels::cmp::eq;
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::{Guarantee, LiteralGuarantee};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection};
use parquet::file::metadata::ParquetMetaData;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

/// Pairs of table and key that are looked up at most; a query that names more scans.
const MAX_ENTITIES: usize = 256;
const BATCH_ROWS: usize = 8192;

/// The entities that a query can be about.
#[derive(Clone, Debug)]
pub(super) struct Entities {
    /// `None`: any table.
    tables: Option<Vec<String>>,
    keys: Vec<String>,
}

/// Rows of one row group.
struct Hit {
    row_group: usize,
    rows: RowSelection,
}

fn literals(guarantees: &[LiteralGuarantee], column: &str) -> Option<Vec<String>> {
    let of_column = |found: &&LiteralGuarantee| found.guarantee == Guarantee::In && found.column.name == column;
    let text = |value: &ScalarValue| value.try_as_str().flatten().map(str::to_owned);
    let smallest = guarantees.iter().filter(of_column).min_by_key(|found| found.literals.len())?;
    smallest.literals.iter().map(text).collect()
}

impl Entities {
    /// What the predicate limits the query to, if it names keys.
    pub(super) fn of(predicate: &Arc<dyn PhysicalExpr>) -> Option<Self> {
        let guarantees = LiteralGuarantee::analyze(predicate);
        let keys = literals(&guarantees, ENTITY[1])?;
        let tables = literals(&guarantees, ENTITY[0]);
        let pairs = keys.len() * tables.as_ref().map_or(1, Vec::len);
        (pairs <= MAX_ENTITIES).then_some(Self { tables, keys })
    }

    fn places(&self, filters: &EntityFilters, file: &File, row_group_rows: usize) -> std::io::Result<Option<Vec<Candidate>>> {
        let tables: Vec<&str> = match (&self.tables, filters.tables()) {
            (Some(named), Some(known)) => named.iter().map(String::as_str).filter(|name| known.contains(*name)).collect(),
            (Some(named), None) => named.iter().map(String::as_str).collect(),
            (None, Some(known)) => known.iter().map(String::as_str).collect(),
            (None, None) => return Ok(None),
        };
        let pairs: Vec<_> = tables.iter().flat_map(|table| self.keys.iter().map(|key| (*table, key.as_str()))).collect();
        filters.candidates(file, &pairs, row_group_rows).map(Some)
    }

    /// The rows with one of the keys. Few of them are of another table, and the query drops those: to look at the tables, too, would cost more.
    fn matches(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let column = super::derived::column(batch, ENTITY[1])?;
        let equal = |key: &String| eq(column, &StringViewArray::new_scalar(key));
        let Some((first, others)) = self.keys.split_first() else { return Ok(BooleanArray::from(vec![false; batch.num_rows()])) };
        let others = others.iter().map(equal);
        Ok(others.fold(equal(first), |matching, equal| or(&matching?, &equal?))?)
    }
}

/// The row groups of one file and what is in them.
struct Candidates {
    file: Arc<FileRow>,
    metadata: Arc<ParquetMetaData>,
    stretch_rows: usize,
    places: Vec<Candidate>,
}

/// Finds the rows and returns the files to scan, in `partitions` groups of about the same work. `None` if a file has no filters.
pub(super) async fn select(
    entities: &Entities,
    files: &[Arc<FileRow>],
    (objects, reader, physical): (&Objects, &LocalFiles, &SchemaRef),
    partitions: usize,
) -> Result<Option<Vec<Vec<PartitionedFile>>>> {
    let mut candidates = Vec::with_capacity(files.len());
    for file in files {
        let metadata = reader.metadata(PartitionedFile::new(file.path.clone(), file.bytes)).await?;
        let Some(filters) = EntityFilters::of(metadata.file_metadata()) else { return Ok(None) };
        let opened = File::open(objects.local_path(&file.path))?;
        let largest = metadata.row_groups().iter().map(|group| group.num_rows() as usize).max().unwrap_or(0);
        let Some(places) = entities.places(&filters, &opened, largest)? else { return Ok(None) };
        if places.iter().any(|place| place.row_group >= metadata.num_row_groups()) {
            return Ok(None);
        }
        candidates.push(Candidates { file: file.clone(), metadata, stretch_rows: filters.stretch_rows(), places });
    }
    let groups = balanced(candidates, partitions);
    let tasks: Vec<_> = groups
        .into_iter()
        .map(|group| {
            let (entities, objects, physical) = (entities.clone(), objects.clone(), physical.clone());
            tokio::task::spawn_blocking(move || {
                group.iter().map(|part| part.find(&entities, &objects, &physical)).collect::<Result<Vec<_>>>()
            })
        })
        .collect();
    let mut found = Vec::with_capacity(partitions);
    for task in tasks {
        found.push(task.await.map_err(df_error)??.into_iter().flatten().collect::<Vec<_>>());
    }
    found.retain(|group| !group.is_empty());
    Ok(Some(found))
}

/// Deals the row groups out to groups of about the same number, in order.
fn balanced(candidates: Vec<Candidates>, groups: usize) -> Vec<Vec<Candidates>> {
    let all: usize = candidates.iter().map(|part| part.places.len()).sum();
    let share = all.div_ceil(groups.max(1)).max(1);
    let (mut dealt, mut room) = (vec![Vec::new()], share);
    for part in candidates {
        let mut places = &part.places[..];
        while !places.is_empty() {
            if room == 0 {
                dealt.push(Vec::new());
                room = share;
            }
            let (now, later) = places.split_at(places.len().min(room));
            room -= now.len();
            places = later;
            let taken = Candidates {
                file: part.file.clone(),
                metadata: part.metadata.clone(),
                stretch_rows: part.stretch_rows,
                places: now.to_vec(),
            };
            if let Some(group) = dealt.last_mut() {
                group.push(taken);
            }
        }
    }
    dealt
}

impl Candidates {
    /// The file with the rows to scan, unless there is none.
    fn find(&self, entities: &Entities, objects: &Objects, physical: &SchemaRef) -> Result<Option<PartitionedFile>> {
        let options = ArrowReaderOptions::new().with_schema(physical.clone());
        let metadata = ArrowReaderMetadata::try_new(self.metadata.clone(), options)?;
        let mut plan = ParquetAccessPlan::new_none(self.metadata.num_row_groups());
        let file = File::open(objects.local_path(&self.file.path))?;
        let mut any = false;
        for place in &self.places {
            if let Some(hit) = rows(&file, &metadata, (place, self.stretch_rows), entities)? {
                plan.set(hit.row_group, RowGroupAccess::Selection(hit.rows));
                any = true;
            }
        }
        let scanned = PartitionedFile::new(self.file.path.clone(), self.file.bytes);
        Ok(any.then(|| scanned.with_extension(plan)))
    }
}

/// The rows of a row group's stretches that have one of the entities' keys.
fn rows(
    file: &File,
    metadata: &ArrowReaderMetadata,
    (place, stretch_rows): (&Candidate, usize),
    entities: &Entities,
) -> Result<Option<Hit>> {
    let row_group = place.row_group;
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file.try_clone()?, metadata.clone());
    let mask = ProjectionMask::columns(builder.parquet_schema(), [ENTITY[1]]);
    let all = metadata.metadata().row_group(row_group).num_rows() as usize;
    let everywhere: Vec<usize> = (0..all.div_ceil(stretch_rows)).collect();
    let stretches = place.stretches.as_ref().unwrap_or(&everywhere);
    let stretch = |n: &usize| (n * stretch_rows).min(all)..((n + 1) * stretch_rows).min(all);
    let looked_at: Vec<Range<usize>> = stretches.iter().map(stretch).collect();
    let selection = RowSelection::from_consecutive_ranges(looked_at.iter().cloned(), all);
    let builder = builder.with_projection(mask).with_row_groups(vec![row_group]).with_row_selection(selection);
    let mut numbers = looked_at.into_iter().flatten();
    let mut found = Vec::new();
    for batch in builder.with_batch_size(BATCH_ROWS).build()? {
        let batch = batch?;
        let matching = entities.matches(&batch)?;
        let hits = numbers.by_ref().take(batch.num_rows()).enumerate();
        found.extend(hits.filter(|(at, _)| matching.is_valid(*at) && matching.value(*at)).map(|(_, row)| row..row + 1));
    }
    if found.is_empty() {
        return Ok(None);
    }
    Ok(Some(Hit { row_group, rows: RowSelection::from_consecutive_ranges(found.into_iter(), all) }))
}
