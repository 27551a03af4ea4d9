//! Consecutive records, as columns, against their stored hashes.

use super::run::{Opening, Run};
use super::schema::SALT;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, FixedSizeBinaryArray, RecordBatch};
use muniment_ledger::verify::{Block, BlockSummary, Finding, Reason, StreamHistory, Verdict, check_block};
use muniment_ledger::{Hash, PartitionKey, Salt, StreamId};
use muniment_model::{PayloadEncoder, Table};
use muniment_store::db::Extent;
use muniment_store::parquet_file::{event_time_column, extent_of};
use std::ops::Range;

/// What all records of a stream are checked with.
pub(super) struct StreamCheck<'a> {
    pub(super) name: &'a str,
    pub(super) id: StreamId,
    pub(super) table: &'static Table,
    pub(super) history: &'a StreamHistory,
    /// Sizes of the stream's commits, where its tree is cut.
    pub(super) sizes: Vec<u64>,
    event_time: &'static str,
}

impl<'a> StreamCheck<'a> {
    pub(super) fn new(origin: &str, name: &'a str, table: &'static Table, history: &'a StreamHistory) -> Self {
        let (id, sizes) = (StreamId::new(origin, name), history.sizes());
        Self { name, id, table, history, sizes, event_time: event_time_column(table) }
    }

    pub(super) fn finding(&self, verdict: Verdict, reason: Reason) -> Finding {
        Finding::new(verdict, reason).stream(self.name)
    }

    /// Checks a record that stands alone against the hash of the one before it.
    pub(super) fn check_opening(&self, index: u64, opening: &Opening, previous_hash: Hash) -> Result<(), Reason> {
        let block = Block {
            stream: self.id,
            first_index: index,
            ids: &[opening.id],
            recorded_at: &[opening.recorded_at],
            payload_bytes: &opening.payload,
            payload_offsets: &[0, opening.payload.len()],
            salts: &[opening.salt],
            erased_payload_hashes: &[opening.erased],
            erasures: &self.history.erased,
            blockchain_hashes: &[opening.hash],
            previous_hash,
        };
        check_block(&block).map(|_| ()).map_err(|bad| bad.reason)
    }
}

/// Where the salts of a run of records come from.
#[derive(Clone, Copy)]
pub(super) enum Salts<'a> {
    /// From their column.
    Column,
    /// From the partition key, for records of this span of `recorded_at`; none if it was destroyed.
    Key(Option<&'a PartitionKey>, &'a Range<i64>),
}

/// Checks batches that follow on each other.
pub(super) struct RunChecker<'a> {
    check: &'a StreamCheck<'a>,
    salts: Salts<'a>,
    /// Where the whole file ends, and whether it has fewer rows than its range.
    end: u64,
    short: bool,
    next: u64,
    previous: Option<Hash>,
    bytes: Vec<u8>,
    offsets: Vec<usize>,
    salt_buffer: Vec<Salt>,
    run: Run,
}

impl<'a> RunChecker<'a> {
    /// Starts at the record `first` of a file whose range ends at `end`; `short` if the file has fewer rows than its range.
    pub(super) fn new(check: &'a StreamCheck<'a>, salts: Salts<'a>, file: &str, first: u64, end: u64, short: bool) -> Self {
        let (bytes, offsets, salt_buffer) = (Vec::new(), Vec::new(), Vec::new());
        Self { check, salts, end, short, next: first, previous: None, bytes, offsets, salt_buffer, run: Run::new(file, first) }
    }

    /// Checks the next batch, which has all columns.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<(), Finding> {
        let indexes = integers(batch, "stream_index").map_err(|reason| self.unreadable(reason))?;
        let in_place = |(offset, index): (usize, &i64)| {
            let expected = self.next + offset as u64;
            *index as u64 == expected && expected < self.end
        };
        let good = indexes.iter().enumerate().position(|row| !in_place(row)).unwrap_or(indexes.len());
        let misplaced = indexes.get(good).copied();
        if good > 0 {
            self.check_rows(&batch.slice(0, good))?;
        }
        misplaced.map_or(Ok(()), |found| Err(self.misplaced(found)))
    }

    /// Another record than the next stands here.
    fn misplaced(&self, found: i64) -> Finding {
        let next = self.next;
        if next >= self.end {
            return self.finding(Verdict::Altered, Reason::Surplus).record(next);
        }
        let gap = u64::try_from(found).ok().filter(|found| self.short && *found > next);
        match gap {
            Some(found) => self.finding(Verdict::Missing, Reason::Absent).records(next..found.min(self.end)),
            None => self.finding(Verdict::Altered, Reason::Misplaced { found }).record(next),
        }
    }

    fn check_rows(&mut self, batch: &RecordBatch) -> Result<(), Finding> {
        let rows = batch.num_rows();
        let (ids, times) = (integers(batch, "id"), times(batch));
        let ids = ids.map_err(|reason| self.unreadable(reason))?;
        let times = times.map_err(|reason| self.unreadable(reason))?;
        let hashes = fixed::<32>(batch, "blockchain_hash").map_err(|reason| self.unreadable(reason))?;
        let erased = erased_hashes(batch).map_err(|reason| self.unreadable(reason))?;
        if hashes.len() != rows {
            return Err(self.unreadable("a record has no blockchain_hash".to_owned()));
        }
        let encoder = PayloadEncoder::new(self.check.table, batch).map_err(|error| self.unreadable(error.to_string()))?;
        let (mut bytes, mut offsets, mut salts) =
            (std::mem::take(&mut self.bytes), std::mem::take(&mut self.offsets), std::mem::take(&mut self.salt_buffer));
        encoder.encode_all(&mut bytes, &mut offsets);
        self.fill_salts(batch, ids, times, &erased, &mut salts)?;
        let skip = usize::from(self.previous.is_none());
        if skip == 1 {
            self.run.opening = Some(Opening {
                id: ids[0],
                recorded_at: times[0],
                payload: bytes[..offsets[1]].to_vec(),
                salt: salts[0],
                erased: erased.first().copied().flatten(),
                hash: hashes[0],
            });
        }
        let block = Block {
            stream: self.check.id,
            first_index: self.next + skip as u64,
            ids: &ids[skip..],
            recorded_at: &times[skip..],
            payload_bytes: &bytes,
            payload_offsets: &offsets[skip..],
            salts: &salts[skip..],
            erased_payload_hashes: erased.get(skip..).unwrap_or_default(),
            erasures: &self.check.history.erased,
            blockchain_hashes: &hashes[skip..],
            previous_hash: self.previous.unwrap_or(hashes[0]),
        };
        let checked = check_block(&block).map_err(|bad| {
            let index = block.first_index + bad.offset as u64;
            self.finding(Verdict::Altered, bad.reason).record(index)
        });
        checked?;
        self.account(batch, times, hashes, &erased)?;
        (self.bytes, self.offsets, self.salt_buffer) = (bytes, offsets, salts);
        Ok(())
    }

    fn fill_salts(
        &mut self,
        batch: &RecordBatch,
        ids: &[i64],
        times: &[i64],
        erased: &[Option<Hash>],
        out: &mut Vec<Salt>,
    ) -> Result<(), Finding> {
        out.clear();
        let is_erased = |row: usize| erased.get(row).is_some_and(Option::is_some);
        match self.salts {
            Salts::Column => {
                let column = fixed_column(batch, SALT).map_err(|reason| self.unreadable(reason))?;
                let bare = (0..column.len()).find(|row| column.is_null(*row) && !is_erased(*row));
                if let Some(row) = bare {
                    let reason = Reason::Unreadable("the record has no salt".to_owned());
                    return Err(self.finding(Verdict::Malformed, reason).record(self.next + row as u64));
                }
                out.extend_from_slice(column.value_data().as_chunks::<16>().0);
            }
            Salts::Key(key, span) => {
                if let Some(row) = times.iter().position(|time| !span.contains(time)) {
                    let reason = Reason::Catalog("its recorded_at is outside of the span of its file or batch");
                    return Err(self.finding(Verdict::Altered, reason).record(self.next + row as u64));
                }
                match key {
                    Some(key) => key.salts(ids, out),
                    None => match (0..ids.len()).find(|row| !is_erased(*row)) {
                        Some(row) => {
                            let reason = Reason::Catalog("the partition key of its month is gone");
                            return Err(self.finding(Verdict::Missing, reason).record(self.next + row as u64));
                        }
                        None => out.resize(ids.len(), [0; 16]),
                    },
                }
            }
        }
        if out.len() == ids.len() { Ok(()) } else { Err(self.unreadable("the salts do not fit the records".to_owned())) }
    }

    fn account(&mut self, batch: &RecordBatch, times: &[i64], hashes: &[Hash], erased: &[Option<Hash>]) -> Result<(), Finding> {
        let rows = hashes.len() as u64;
        let run = &mut self.run;
        let mut latest = run.times.map_or(i64::MIN, |(_, last)| last);
        for (row, time) in times.iter().enumerate() {
            if *time < latest {
                run.time_back.get_or_insert(self.next + row as u64);
            }
            latest = latest.max(*time);
        }
        run.times = Some((run.times.map_or(times[0], |(first, _)| first), latest));
        run.records += rows;
        run.erased += erased.iter().flatten().count() as u64;
        run.blocks.push(BlockSummary::new(self.next, self.previous.unwrap_or_default(), hashes, &self.check.sizes));
        self.previous = hashes.last().copied();
        if let Salts::Key(..) = self.salts {
            let extent = extent_of(self.check.name, self.check.event_time, batch).map_err(|error| self.unreadable(error.to_string()))?;
            merge(&mut self.run.extent, extent);
        }
        self.next += rows;
        Ok(())
    }

    /// What was found, up to a failure if there is one.
    pub(super) fn finish(mut self, outcome: Result<(), Finding>) -> Run {
        self.run.failure = outcome.err();
        self.run
    }

    /// Index of the record that should come next.
    pub(super) fn next_index(&self) -> u64 {
        self.next
    }

    pub(super) fn finding(&self, verdict: Verdict, reason: Reason) -> Finding {
        self.check.finding(verdict, reason).file(&self.run.file)
    }

    pub(super) fn unreadable(&self, reason: String) -> Finding {
        self.finding(Verdict::Malformed, Reason::Unreadable(reason)).record(self.next)
    }
}

/// Extends a range of records by the one after it.
pub(super) fn merge(whole: &mut Option<Extent>, part: Extent) {
    match whole {
        None => *whole = Some(part),
        Some(whole) => {
            whole.end = part.end;
            whole.first_id = whole.first_id.min(part.first_id);
            whole.last_id = whole.last_id.max(part.last_id);
            whole.recorded_to = part.recorded_to;
            whole.min_time = whole.min_time.min(part.min_time);
            whole.max_time = whole.max_time.max(part.max_time);
        }
    }
}

fn integers<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b [i64], String> {
    let column = batch.column_by_name(name).ok_or_else(|| format!("there is no column {name}"))?;
    let column = column.as_primitive_opt::<Int64Type>().ok_or_else(|| format!("column {name} is not of its type"))?;
    if column.null_count() > 0 { Err(format!("a record has no {name}")) } else { Ok(column.values()) }
}

fn times(batch: &RecordBatch) -> Result<&[i64], String> {
    let column = batch.column_by_name("recorded_at").ok_or("there is no column recorded_at")?;
    let column = column.as_primitive_opt::<TimestampMicrosecondType>().ok_or("column recorded_at is not of its type")?;
    if column.null_count() > 0 { Err("a record has no recorded_at".to_owned()) } else { Ok(column.values()) }
}

fn fixed_column<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b FixedSizeBinaryArray, String> {
    let column = batch.column_by_name(name).ok_or_else(|| format!("there is no column {name}"))?;
    column.as_fixed_size_binary_opt().ok_or_else(|| format!("column {name} is not of its type"))
}

fn fixed<'b, const N: usize>(batch: &'b RecordBatch, name: &str) -> Result<&'b [[u8; N]], String> {
    let column = fixed_column(batch, name)?;
    if column.null_count() > 0 {
        return Err(format!("a record has no {name}"));
    }
    Ok(column.value_data().as_chunks::<N>().0)
}

/// Payload hashes of erased records; empty if none is.
fn erased_hashes(batch: &RecordBatch) -> Result<Vec<Option<Hash>>, String> {
    let column = fixed_column(batch, "erased_payload_hash")?;
    if column.null_count() == column.len() {
        return Ok(Vec::new());
    }
    Ok(column.iter().map(|value| value.and_then(|bytes| Hash::try_from(bytes).ok())).collect())
}
