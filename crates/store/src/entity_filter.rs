//! Where in a file changes of an entity may be. Beside the standard bloom filters, which know single columns, a file of a log with the columns `table_name` and
//! `primary_key` has a filter over the pair: the same keys occur in many tables, so that the key alone says little. And it knows not row groups, but stretches
//! of 4,096 rows, which are the pages of most columns, so that a look-up decodes little more than what it returns.
//!
//! The filters lie between the last row group and the footer, where other readers don't look; the footer's metadata says where (`muniment.entity_filter_2`). A
//! row group's filter is a blocked bloom filter (Putze, Sanders and Singler, "Cache-, hash- and space-efficient bloom filters"): the entity `table_name ‖ 0 ‖
//! primary_key` chooses a block of 128 bytes, the entity and the stretch choose bits in it. A look-up reads one block for all stretches of a row group.

use crate::error::{Result, StoreError};
use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use parquet::file::metadata::{FileMetaData, KeyValue};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use xxhash_rust::xxh64::xxh64;

/// Name of the footer's entry.
const METADATA_KEY: &str = "muniment.entity_filter_2";
/// Columns that name an entity.
pub const ENTITY: [&str; 2] = ["table_name", "primary_key"];
/// Keys that stand for all rows of a table; the row groups that have one are listed instead.
const WHOLE_TABLE: [&str; 2] = ["", "*"];
/// Rows of a stretch.
pub const STRETCH_ROWS: usize = 4096;
/// Bytes of a block. In smaller ones, those that happen to get many pairs say yes too often.
const BLOCK_BYTES: u64 = 128;
/// Bits of a filter for each pair of entity and stretch.
const BITS: u64 = 10;
/// Bits that a pair sets: with ten bits for each pair, about one in a hundred look-ups finds what isn't there.
const PROBES: u32 = 6;
/// Distinct tables that are listed; with more, look-ups by key alone read every row group.
const MAX_TABLES: usize = 256;

type Block = [u8; BLOCK_BYTES as usize];
const EMPTY: Block = [0; BLOCK_BYTES as usize];
/// Byte and mask of each bit that a pair sets.
type Bits = Vec<(usize, u8)>;

/// An entity's hash: its upper half chooses the block.
fn entity(table: &str, key: &str, scratch: &mut Vec<u8>) -> u64 {
    scratch.clear();
    scratch.extend_from_slice(table.as_bytes());
    scratch.push(0);
    scratch.extend_from_slice(key.as_bytes());
    xxh64(scratch, 0)
}

fn block_of(entity: u64, blocks: u64) -> u64 {
    ((entity >> 32) * blocks) >> 32
}

/// Byte and mask of each bit of an entity in a stretch.
fn bits(entity: u64, stretch: usize) -> impl Iterator<Item = (usize, u8)> {
    let hash = xxh64(&entity.to_le_bytes(), stretch as u64 + 1);
    (0..PROBES).map(move |probe| {
        let bit = (hash >> (10 * probe)) & 0x3ff;
        ((bit / 8) as usize, 1 << (bit % 8))
    })
}

/// Where a file's filters are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct EntityFilters {
    /// Offset of the first.
    offset: u64,
    /// Bytes of each, by row group.
    bytes: Vec<u64>,
    /// Rows of a stretch.
    stretch: usize,
    /// Row groups with a change of a whole table.
    whole_table: Vec<usize>,
    /// Names of all tables, unless they are too many.
    tables: Option<BTreeSet<String>>,
}

/// Where in a row group an entity may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Number of the row group.
    pub row_group: usize,
    /// Stretches of the row group, in order; `None`: anywhere.
    pub stretches: Option<Vec<usize>>,
}

/// Builds the filters of a file while its rows are written.
pub struct FilterBuilder {
    row_group_rows: usize,
    rows: usize,
    current: Vec<(u64, usize)>,
    done: Vec<Vec<Block>>,
    whole_table: BTreeSet<usize>,
    tables: BTreeSet<String>,
    scratch: Vec<u8>,
}

impl FilterBuilder {
    /// Filters for row groups of as many rows.
    pub fn new(row_group_rows: usize) -> Self {
        Self {
            row_group_rows,
            rows: 0,
            current: Vec::new(),
            done: Vec::new(),
            whole_table: BTreeSet::new(),
            tables: BTreeSet::new(),
            scratch: Vec::new(),
        }
    }

    /// Takes note of rows in the order in which they are written. A batch without the columns, or a row that an erasure has emptied, names no entity.
    pub fn add(&mut self, batch: &RecordBatch) {
        let [Some(tables), Some(keys)] = ENTITY.map(|name| batch.column_by_name(name)) else { return };
        let (tables, keys) = (tables.as_string::<i32>(), keys.as_string::<i32>());
        for row in 0..batch.num_rows() {
            if self.rows == self.row_group_rows {
                self.close_row_group();
            }
            let stretch = self.rows / STRETCH_ROWS;
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
                self.current.push((entity(table, key, &mut self.scratch), stretch));
            }
        }
    }

    fn close_row_group(&mut self) {
        self.current.sort_unstable();
        self.current.dedup();
        let blocks = (self.current.len() as u64 * BITS).div_ceil(8 * BLOCK_BYTES).max(1);
        let mut filter = vec![EMPTY; blocks as usize];
        for (entity, stretch) in self.current.drain(..) {
            let block = &mut filter[block_of(entity, blocks) as usize];
            bits(entity, stretch).for_each(|(byte, mask)| block[byte] |= mask);
        }
        self.done.push(filter);
        self.rows = 0;
    }

    /// The bytes of all filters, which are to be written at this offset, and the footer's entry that tells of them. `None` if there was no row.
    pub fn finish(mut self, offset: u64) -> Result<Option<(Vec<u8>, KeyValue)>> {
        if self.rows > 0 {
            self.close_row_group();
        }
        if self.done.is_empty() {
            return Ok(None);
        }
        let filters = EntityFilters {
            offset,
            bytes: self.done.iter().map(|filter| filter.len() as u64 * BLOCK_BYTES).collect(),
            stretch: STRETCH_ROWS,
            whole_table: self.whole_table.into_iter().collect(),
            tables: (self.tables.len() <= MAX_TABLES).then_some(self.tables),
        };
        let bytes = self.done.concat().concat();
        let text = serde_json::to_string(&filters).map_err(|error| StoreError::Damaged(format!("an entity filter: {error}")))?;
        Ok(Some((bytes, KeyValue::new(METADATA_KEY.to_owned(), text))))
    }
}

impl EntityFilters {
    /// What a file's footer says; `None` if it has no filters.
    pub fn of(footer: &FileMetaData) -> Option<Self> {
        let entry = footer.key_value_metadata()?.iter().find(|entry| entry.key == METADATA_KEY)?;
        let filters: Self = serde_json::from_str(entry.value.as_deref()?).ok()?;
        let sound = filters.stretch > 0 && filters.bytes.iter().all(|bytes| *bytes >= BLOCK_BYTES && bytes % BLOCK_BYTES == 0);
        sound.then_some(filters)
    }

    /// Names of all tables that the file has changes of, unless they are too many.
    pub fn tables(&self) -> Option<&BTreeSet<String>> {
        self.tables.as_ref()
    }

    /// Rows of a stretch.
    pub fn stretch_rows(&self) -> usize {
        self.stretch
    }

    /// Where changes of one of these entities may be, in row groups of at most so many rows; in order.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn candidates(&self, file: &File, entities: &[(&str, &str)], row_group_rows: usize) -> std::io::Result<Vec<Candidate>> {
        let mut scratch = Vec::new();
        let whole_table = entities.iter().any(|(_, key)| WHOLE_TABLE.contains(key));
        let named = entities.iter().filter(|(_, key)| !WHOLE_TABLE.contains(key));
        let stretches = row_group_rows.div_ceil(self.stretch);
        let probes: Vec<(u64, Vec<Bits>)> = named
            .map(|(table, key)| {
                let hash = entity(table, key, &mut scratch);
                (hash, (0..stretches).map(|stretch| bits(hash, stretch).collect()).collect())
            })
            .collect();
        let (mut found, mut start) = (Vec::new(), self.offset);
        for (row_group, bytes) in self.bytes.iter().enumerate() {
            if whole_table && self.whole_table.contains(&row_group) {
                found.push(Candidate { row_group, stretches: None });
            } else {
                let mut may = BTreeSet::new();
                for (hash, probes) in &probes {
                    let mut block = EMPTY;
                    file.read_exact_at(&mut block, start + block_of(*hash, bytes / BLOCK_BYTES) * BLOCK_BYTES)?;
                    let is_set = |bits: &Bits| bits.iter().all(|(byte, mask)| block[*byte] & mask != 0);
                    may.extend(probes.iter().enumerate().filter(|(_, bits)| is_set(bits)).map(|(stretch, _)| stretch));
                }
                if !may.is_empty() {
                    found.push(Candidate { row_group, stretches: Some(may.into_iter().collect()) });
                }
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
        const GROUP: usize = 3 * STRETCH_ROWS;
        const ROWS: usize = 2 * GROUP + 5000;
        let mut builder = FilterBuilder::new(GROUP);
        for start in (0..ROWS).step_by(997) {
            builder.add(&rows(start..(start + 997).min(ROWS)));
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 11]).unwrap();
        let (bytes, entry) = builder.finish(11).unwrap().unwrap();
        file.write_all(&bytes).unwrap();
        let filters: EntityFilters = serde_json::from_str(entry.value.as_ref().unwrap()).unwrap();
        assert_eq!(filters.bytes.len(), 3);
        assert_eq!(filters.tables().unwrap().len(), 2);
        let (mut found, mut looked_at) = (0, 0);
        for n in (0..ROWS).filter(|n| *n != 250).step_by(7) {
            let key = n.to_string();
            let (own, other) = if n % 2 == 0 { ("case.hoso", "case.letter") } else { ("case.letter", "case.hoso") };
            let candidates = filters.candidates(&file, &[(own, &key)], GROUP).unwrap();
            let own = candidates.iter().find(|candidate| candidate.row_group == n / GROUP).unwrap();
            assert!(own.stretches.as_ref().unwrap().contains(&(n % GROUP / STRETCH_ROWS)), "{n}");
            let others = filters.candidates(&file, &[(other, &key)], GROUP).unwrap();
            found += others.iter().flat_map(|candidate| &candidate.stretches).map(Vec::len).sum::<usize>();
            looked_at += 8;
        }
        assert!(found * 50 < looked_at, "{found} false positives of {looked_at}");
        let all = filters.candidates(&file, &[("case.hoso", "*")], GROUP).unwrap();
        assert_eq!(all, [Candidate { row_group: 0, stretches: None }]);
    }
}
