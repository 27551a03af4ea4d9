//! Point look-ups: which rows of which files are changes of the entities that a query names. The filters of the files say which row groups to look at; the
//! keys in those say which rows. Nothing else is decoded.

use super::pages::{Pages, RowGroupPages};
use super::project;
use super::reader::LocalFiles;
use crate::db::FileRow;
use crate::entity_filter::{Candidate, ENTITY, EntityFilters};
use crate::objects::Objects;
use arrow_array::{Array, BooleanArray, RecordBatch, StringArray};
use arrow_schema::{Schema, SchemaRef};
use arrow_select::concat::concat_batches;
use arrow_select::filter::filter_record_batch;
use datafusion::arrow::compute::kernels::boolean::or;
use datafusion::arrow::compute::kernels::cmp::eq;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::{Guarantee, LiteralGuarantee};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, RowGroups, RowSelection};
use parquet::arrow::{FieldLevels, ProjectionMask, parquet_to_arrow_field_levels};
use parquet::file::metadata::ParquetMetaData;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

/// Pairs of table and key that are looked up at most; a query that names more scans.
const MAX_ENTITIES: usize = 256;
/// Rows that are read at a time: of the largest documents they are a gigabyte, and offsets reach two.
const BATCH_ROWS: usize = 1024;

/// The entities that a query can be about.
#[derive(Clone, Debug)]
pub(super) struct Entities {
    /// `None`: any table.
    tables: Option<Vec<String>>,
    keys: Vec<String>,
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
        let equal = |key: &String| eq(column, &StringArray::new_scalar(key));
        let Some((first, others)) = self.keys.split_first() else { return Ok(BooleanArray::from(vec![false; batch.num_rows()])) };
        let others = others.iter().map(equal);
        Ok(others.fold(equal(first), |matching, equal| or(&matching?, &equal?))?)
    }
}

/// The row groups of one file and what may be in them.
#[derive(Clone, Debug)]
struct Candidates {
    file: Arc<FileRow>,
    metadata: Arc<ParquetMetaData>,
    stretch_rows: usize,
    places: Vec<Candidate>,
}

/// The partitions that find and read the rows, of about the same work, columns by position in the physical schema. `None` if a file has no filters.
pub(super) async fn partitions(
    entities: Entities,
    files: &[Arc<FileRow>],
    (objects, reader, physical): (&Objects, &LocalFiles, &SchemaRef),
    (projection, share_of): (&[usize], usize),
) -> Result<Option<Vec<Arc<dyn PartitionStream>>>> {
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
    let look = Arc::new(Look { entities, objects: objects.clone(), schema: Arc::new(physical.project(projection)?) });
    let groups = balanced(candidates, share_of).into_iter().filter(|group| !group.is_empty());
    let partition = |group| Arc::new(Partition { look: look.clone(), group }) as Arc<dyn PartitionStream>;
    Ok(Some(groups.map(partition).collect()))
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

/// What is looked for, and where.
#[derive(Debug)]
struct Look {
    entities: Entities,
    objects: Objects,
    /// The columns that are asked for.
    schema: SchemaRef,
}

#[derive(Debug)]
struct Partition {
    look: Arc<Look>,
    group: Vec<Candidates>,
}

impl PartitionStream for Partition {
    fn schema(&self) -> &SchemaRef {
        &self.look.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let look = self.look.clone();
        // A batch for each row group, even an empty one: between batches a query that has ended stops.
        let batches = self.group.clone().into_iter().flat_map(move |part| match part.open(&look) {
            Ok(file) => Box::new(part.places.into_iter().flat_map(move |place| file.rows(&place))) as Batches,
            Err(error) => failed(error),
        });
        Box::pin(RecordBatchStreamAdapter::new(self.look.schema.clone(), futures::stream::iter(batches)))
    }
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

fn failed(error: DataFusionError) -> Batches {
    Box::new(std::iter::once(Err(error)))
}

impl Candidates {
    fn open(&self, look: &Arc<Look>) -> Result<OpenFile> {
        let columns = self.metadata.file_metadata().schema_descr();
        let others = look.schema.fields().iter().map(|field| field.name().as_str()).filter(|name| *name != ENTITY[1]);
        let levels = |mask| parquet_to_arrow_field_levels(columns, mask, None);
        Ok(OpenFile {
            look: look.clone(),
            metadata: self.metadata.clone(),
            stretch_rows: self.stretch_rows,
            pages: Arc::new(Pages::new(File::open(look.objects.local_path(&self.file.path))?, self.file.bytes)),
            key: levels(ProjectionMask::columns(columns, [ENTITY[1]]))?,
            others: levels(ProjectionMask::columns(columns, others))?,
        })
    }
}

/// A file whose rows are looked up.
struct OpenFile {
    look: Arc<Look>,
    metadata: Arc<ParquetMetaData>,
    stretch_rows: usize,
    pages: Arc<Pages>,
    key: FieldLevels,
    others: FieldLevels,
}

impl OpenFile {
    fn read(&self, levels: &FieldLevels, row_group: usize, rows: impl Iterator<Item = Range<usize>>) -> Result<ParquetRecordBatchReader> {
        let pages = RowGroupPages { pages: &self.pages, metadata: &self.metadata, row_group };
        let selection = RowSelection::from_consecutive_ranges(rows, pages.num_rows());
        Ok(ParquetRecordBatchReader::try_new_with_row_groups(levels, &pages, BATCH_ROWS, Some(selection))?)
    }

    fn rows(&self, place: &Candidate) -> Batches {
        self.matching_rows(place).unwrap_or_else(failed)
    }

    /// The rows of a row group's stretches that have one of the entities' keys.
    fn matching_rows(&self, place: &Candidate) -> Result<Batches> {
        let all = self.metadata.row_group(place.row_group).num_rows() as usize;
        let everywhere: Vec<usize> = (0..all.div_ceil(self.stretch_rows)).collect();
        let stretches = place.stretches.as_ref().unwrap_or(&everywhere);
        let stretch = |n: &usize| (n * self.stretch_rows).min(all)..((n + 1) * self.stretch_rows).min(all);
        let looked_at: Vec<Range<usize>> = stretches.iter().map(stretch).collect();
        let (mut keys, mut rows) = (Vec::new(), Vec::new());
        let mut numbers = looked_at.iter().cloned().flatten();
        for batch in self.read(&self.key, place.row_group, looked_at.iter().cloned())? {
            let batch = batch?;
            let matching = self.look.entities.matches(&batch)?;
            let hits = numbers.by_ref().take(batch.num_rows()).enumerate();
            rows.extend(hits.filter(|(at, _)| matching.is_valid(*at) && matching.value(*at)).map(|(_, row)| row..row + 1));
            keys.push(filter_record_batch(&batch, &matching)?);
        }
        let keys = match keys.first() {
            Some(first) if !rows.is_empty() => concat_batches(first.schema_ref(), &keys)?,
            _ => return Ok(Box::new(std::iter::once(Ok(RecordBatch::new_empty(self.look.schema.clone()))))),
        };
        let (mut done, look) = (0, self.look.clone());
        let others = self.read(&self.others, place.row_group, rows.into_iter())?.map(move |batch| {
            let batch = batch?;
            let keys = keys.slice(done, batch.num_rows());
            done += batch.num_rows();
            let named =
                |batch: &RecordBatch| batch.schema().fields().iter().cloned().zip(batch.columns().iter().cloned()).collect::<Vec<_>>();
            let (fields, columns): (Vec<_>, Vec<_>) = named(&keys).into_iter().chain(named(&batch)).unzip();
            project(&RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?, &look.schema)
        });
        Ok(Box::new(others))
    }
}
