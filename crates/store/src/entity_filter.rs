//! Which row groups of a file may hold changes of an entity. Beside the standard bloom filters, which know single columns, a file of a log with the columns
//! `table_name` and `primary_key` has a filter over the pair: the same keys occur in many tables, so that the key alone says little.
//!
//! The filters lie between the last row group and the footer, where other readers don't look; the footer's metadata says where (`muniment.entity_filter`). A
//! filter is a split block bloom filter as in the Parquet format; its values are `table_name ‖ 0 ‖ primary_key`. A look-up reads one block of 32 bytes.

use crate::error::{Result, StoreError};
use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::{FileMetaData, KeyValue};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use xxhash_rust::xxh64::xxh64;

/// Name of the footer's entry.
const METADATA_KEY: &str = "muniment.entity_filter";
/// Columns that name an entity.
pub const ENTITY: [&str; 2] = ["table_name", "primary_key"];
/// Keys that stand for all rows of a table; the row groups that have one are listed instead.
const WHOLE_TABLE: [&str; 2] = ["", "*"];
/// Bytes of a block: what one value touches.
const BLOCK_BYTES: u64 = 32;
/// Share of false positives at most.
const FALSE_POSITIVES: f64 = 0.02;
/// Distinct tables that are listed; with more, look-ups by key alone read every row group.
const MAX_TABLES: usize = 256;

/// Where a file's filters are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct EntityFilters {
    /// Offset of the first.
    offset: u64,
    /// Bytes of each, by row group.
    bytes: Vec<u64>,
    /// Row groups with a change of a whole table.
    whole_table: Vec<usize>,
    /// Names of all tables, unless they are too many.
    tables: Option<BTreeSet<String>>,
}

/// Builds the filters of a file while its rows are written.
pub struct FilterBuilder {
    row_group_rows: usize,
    rows: usize,
    current: Sbbf,
    done: Vec<Sbbf>,
    whole_table: BTreeSet<usize>,
    tables: BTreeSet<String>,
    scratch: Vec<u8>,
}

fn empty(rows: usize) -> Result<Sbbf> {
    Sbbf::new_with_ndv_fpp(rows as u64, FALSE_POSITIVES).map_err(StoreError::parquet("an entity filter"))
}

fn entity<'a>(table: &str, key: &str, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    scratch.clear();
    scratch.extend_from_slice(table.as_bytes());
    scratch.push(0);
    scratch.extend_from_slice(key.as_bytes());
    scratch
}

impl FilterBuilder {
    /// Filters for row groups of as many rows.
    pub fn new(row_group_rows: usize) -> Result<Self> {
        Ok(Self {
            row_group_rows,
            rows: 0,
            current: empty(row_group_rows)?,
            done: Vec::new(),
            whole_table: BTreeSet::new(),
            tables: BTreeSet::new(),
            scratch: Vec::new(),
        })
    }

    /// Takes note of rows in the order in which they are written. A batch without the columns, or a row that an erasure has emptied, names no entity.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let [Some(tables), Some(keys)] = ENTITY.map(|name| batch.column_by_name(name)) else { return Ok(()) };
        let (tables, keys) = (tables.as_string::<i32>(), keys.as_string::<i32>());
        for row in 0..batch.num_rows() {
            if self.rows == self.row_group_rows {
                self.close_row_group()?;
            }
            self.rows += 1;
            if tables.is_null(row) || keys.is_null(row) {
                continue;
            }
            let (table, key) = (tables.value(row), keys.value(row));
            if self.tables.len() <= MAX_TABLES && !self.tables.contains(table) {
                self.tables.insert(table.to_owned());
            }
            if WHOLE_TABLE.contains(&key) {
                self.whole_table.insert(self.done.len());
            } else {
                self.current.insert(entity(table, key, &mut self.scratch));
            }
        }
        Ok(())
    }

    fn close_row_group(&mut self) -> Result<()> {
        let mut full = std::mem::replace(&mut self.current, empty(self.row_group_rows)?);
        full.fold_to_target_fpp(FALSE_POSITIVES);
        self.done.push(full);
        self.rows = 0;
        Ok(())
    }

    /// The bytes of all filters, which are to be written at this offset, and the footer's entry that tells of them. `None` if there was no row.
    pub fn finish(mut self, offset: u64) -> Result<Option<(Vec<u8>, KeyValue)>> {
        if self.rows > 0 {
            self.close_row_group()?;
        }
        if self.done.is_empty() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let mut sizes = Vec::with_capacity(self.done.len());
        for filter in &self.done {
            let before = bytes.len();
            filter.write_bitset(&mut bytes).map_err(StoreError::parquet("an entity filter"))?;
            sizes.push((bytes.len() - before) as u64);
        }
        let filters = EntityFilters {
            offset,
            bytes: sizes,
            whole_table: self.whole_table.into_iter().collect(),
            tables: (self.tables.len() <= MAX_TABLES).then_some(self.tables),
        };
        let text = serde_json::to_string(&filters).map_err(|error| StoreError::Damaged(format!("an entity filter: {error}")))?;
        Ok(Some((bytes, KeyValue::new(METADATA_KEY.to_owned(), text))))
    }
}

impl EntityFilters {
    /// What a file's footer says; `None` if it has no filters.
    pub fn of(footer: &FileMetaData) -> Option<Self> {
        let entry = footer.key_value_metadata()?.iter().find(|entry| entry.key == METADATA_KEY)?;
        let filters: Self = serde_json::from_str(entry.value.as_deref()?).ok()?;
        filters.bytes.iter().all(|bytes| *bytes >= BLOCK_BYTES && bytes % BLOCK_BYTES == 0).then_some(filters)
    }

    /// Names of all tables that the file has changes of, unless they are too many.
    pub fn tables(&self) -> Option<&BTreeSet<String>> {
        self.tables.as_ref()
    }

    /// Row groups that may hold changes of one of these entities, in order.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn row_groups(&self, file: &File, entities: &[(&str, &str)]) -> std::io::Result<Vec<usize>> {
        let (mut scratch, mut hashes) = (Vec::new(), Vec::new());
        let mut whole_table = false;
        let mut blocks = Vec::new();
        for (table, key) in entities {
            if WHOLE_TABLE.contains(key) {
                whole_table = true;
            } else {
                let value = entity(table, key, &mut scratch).to_vec();
                hashes.push(xxh64(&value, 0) >> 32);
                blocks.push(value);
            }
        }
        let (mut found, mut start) = (Vec::new(), self.offset);
        for (at, bytes) in self.bytes.iter().enumerate() {
            let mut may = whole_table && self.whole_table.contains(&at);
            for (hash, value) in hashes.iter().zip(&blocks) {
                if may {
                    break;
                }
                let mut block = [0; BLOCK_BYTES as usize];
                let number = (hash * (bytes / BLOCK_BYTES)) >> 32;
                file.read_exact_at(&mut block, start + number * BLOCK_BYTES)?;
                may = Sbbf::new(&block).check(&value[..]);
            }
            if may {
                found.push(at);
            }
            start += bytes;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow_array::{ArrayRef, StringArray};
    use std::io::Write;
    use std::sync::Arc;

    fn rows(of: std::ops::Range<usize>) -> RecordBatch {
        let tables: ArrayRef =
            Arc::new(StringArray::from_iter_values(of.clone().map(|n| if n % 2 == 0 { "case.hoso" } else { "case.letter" })));
        let keys: ArrayRef = Arc::new(StringArray::from_iter_values(of.map(|n| if n == 250 { "*".to_owned() } else { n.to_string() })));
        RecordBatch::try_from_iter([("table_name", tables), ("primary_key", keys)]).unwrap()
    }

    #[test]
    fn an_entity_is_found_where_it_is_and_hardly_elsewhere() {
        let mut builder = FilterBuilder::new(100).unwrap();
        for start in (0..950).step_by(37) {
            builder.add(&rows(start..(start + 37).min(950))).unwrap();
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 11]).unwrap();
        let (bytes, entry) = builder.finish(11).unwrap().unwrap();
        file.write_all(&bytes).unwrap();
        let filters: EntityFilters = serde_json::from_str(entry.value.as_ref().unwrap()).unwrap();
        assert_eq!(filters.bytes.len(), 10);
        assert_eq!(filters.tables().unwrap().len(), 2);
        let mut others = 0;
        for n in (0..950).filter(|n| *n != 250) {
            let key = n.to_string();
            let (own, other) = if n % 2 == 0 { ("case.hoso", "case.letter") } else { ("case.letter", "case.hoso") };
            assert!(filters.row_groups(&file, &[(own, &key)]).unwrap().contains(&(n / 100)), "{n}");
            others += filters.row_groups(&file, &[(other, &key)]).unwrap().len();
        }
        assert!(others < 950 * 10 / 20, "{others} false positives");
        assert_eq!(filters.row_groups(&file, &[("case.hoso", "*")]).unwrap(), [2]);
    }
}
