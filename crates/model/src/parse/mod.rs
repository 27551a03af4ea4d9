//! From a request's bytes straight into columns: one JSON object, an array of objects, or NDJSON. There is no tree in between; a value goes from
//! the text into its column, checked on the way.

mod block;
mod columns;
mod record;
mod scan;
mod value;

use std::borrow::Cow;
use std::fmt;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, RecordBatch, UInt32Array};

use crate::Table;
use record::Rows;
use scan::Scanner;

/// How a request's body is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object, or an array of objects.
    Json,
    /// One JSON object a line. Blank lines don't count; the last line feed may be missing.
    Ndjson,
    /// An array if it begins like one; one object if it holds just that; else NDJSON.
    Auto,
}

/// Limits on a request. Memory used is proportional to the body, whatever is in it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most records.
    pub max_records: usize,
    /// Most levels of nesting, the record itself being the first; at most 129.
    pub max_depth: u32,
    /// Most bytes of a record's JSON text.
    pub max_record_bytes: usize,
    /// Most bytes of a JSON column, if that is less than the column's own limit.
    pub max_json_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { max_records: 1_000_000, max_depth: 64, max_record_bytes: 4 << 20, max_json_bytes: 1 << 20 }
    }
}

/// Finds the number of a user by a text.
pub type FindUser<'a> = dyn FnMut(&str) -> Option<i64> + 'a;

/// How to read a request, and what stands in for values not given.
pub struct ParseOptions<'a> {
    /// Time of receipt in microseconds: the default of times.
    pub now: i64,
    /// Form of the body.
    pub format: Format,
    /// Limits.
    pub limits: Limits,
    /// Source of random bytes, for UUIDs not given.
    pub uuid: &'a mut dyn FnMut() -> [u8; 16],
    /// Years of retention for records that don't say; `None` for the log's own.
    pub retention_years: Option<u16>,
    /// Finds the number of a user by the text that stands in its place, an id of another system; `None` if users are given by number only.
    pub users: Option<&'a mut FindUser<'a>>,
}

/// Records of a request, as columns.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// Number of records.
    pub records: usize,
    /// The records by retention class, shortest first; in the order of the request within a class.
    pub batches: Vec<ClassBatch>,
}

/// Records of one retention class.
#[derive(Debug, Clone)]
pub struct ClassBatch {
    /// Years that they are kept.
    pub retention_years: u16,
    /// Their data columns ([`Table::data_schema`]).
    pub data: RecordBatch,
    /// Position in the request, from 0, of each row; `None` if they are all of the request in order.
    pub positions: Option<Vec<u32>>,
}

/// Why a request is refused. Nothing of it is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Number of errors found.
    pub total: usize,
    /// The first 100 of them.
    pub errors: Vec<LineError>,
    /// Whether it is refused for its size: it has more than [`Limits::max_records`], or is longer than [`MAX_BODY_BYTES`].
    pub too_large: bool,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errors.first() {
            Some(first) if self.total > 1 => write!(f, "{first} (and {} more)", self.total - 1),
            Some(first) => write!(f, "{first}"),
            None => f.write_str("refused"),
        }
    }
}

impl std::error::Error for Rejection {}

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineError {
    /// Line of NDJSON, from 1; for an array, number of the element, from 1; for one object, 1.
    pub line: u64,
    /// The field, if it is about one.
    pub field: Option<String>,
    /// What is wrong, in plain words.
    pub reason: String,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "line {}, {field}: {}", self.line, self.reason),
            None => write!(f, "line {}: {}", self.line, self.reason),
        }
    }
}

/// Most bytes of a body. What a column takes stays below 2 GiB, even where defaults are longer than what was sent.
pub const MAX_BODY_BYTES: usize = 512 << 20;

const ERRORS_KEPT: usize = 100;

/// Bytes whose UTF-8 is checked at a time, so that they are still in the cache when they are read.
const WINDOW: usize = 32 << 10;

#[derive(Default)]
struct Errors {
    total: usize,
    kept: Vec<LineError>,
    too_large: bool,
}

impl Errors {
    fn is_empty(&self) -> bool {
        self.total == 0
    }

    fn is_full(&self) -> bool {
        self.kept.len() >= ERRORS_KEPT
    }

    #[cold]
    #[inline(never)]
    fn add(&mut self, line: u64, field: Option<&str>, reason: impl Into<Cow<'static, str>>) {
        self.total += 1;
        if !self.is_full() {
            self.kept.push(LineError { line, field: field.map(str::to_owned), reason: reason.into().into_owned() });
        }
    }
}

/// Parses a request's body for a log. All or nothing: if anything in it is wrong, everything wrong with it is reported, as far as it can
/// be made out. A body without any record gives no batches.
///
/// # Errors
///
/// [`Rejection`] names line, field and reason for what is wrong.
pub fn parse(table: &'static Table, body: &[u8], options: &mut ParseOptions<'_>) -> Result<Parsed, Rejection> {
    let mut errors = Errors::default();
    let mut rows = Rows::new(table, options);
    if !table.is_log() {
        errors.add(1, None, format!("{} is not a log", table.name));
    } else if body.len() > MAX_BODY_BYTES {
        errors.too_large = true;
        errors.add(1, None, format!("{} bytes, more than the {MAX_BODY_BYTES} allowed", body.len()));
    } else if is_ndjson(body, options) {
        Reader { rows: &mut rows, errors: &mut errors, options }.ndjson(body);
    } else {
        Reader { rows: &mut rows, errors: &mut errors, options }.json(body);
    }
    if !errors.is_empty() {
        return Err(Rejection { total: errors.total, errors: errors.kept, too_large: errors.too_large });
    }
    let records = rows.len();
    split(table, rows.finish(), records).map_err(|error| Rejection {
        total: 1,
        errors: vec![LineError { line: 1, field: None, reason: error.to_string() }],
        too_large: false,
    })
}

fn is_ndjson(body: &[u8], options: &ParseOptions<'_>) -> bool {
    match options.format {
        Format::Ndjson => true,
        Format::Json => false,
        Format::Auto => {
            let mut scan = Scanner::new(body, true);
            match scan.token() {
                b'[' => false,
                // One object and nothing after it may stretch over several lines.
                b'{' => scan.document(options.limits.max_depth).is_err() || scan.token() != 0 || scan.at < body.len(),
                _ => true,
            }
        }
    }
}

struct Reader<'r, 'o> {
    rows: &'r mut Rows,
    errors: &'r mut Errors,
    options: &'r mut ParseOptions<'o>,
}

impl Reader<'_, '_> {
    fn ndjson(&mut self, body: &[u8]) {
        let mut scan = Scanner::new(body, false);
        let mut line = 0;
        let mut checked = 0;
        while scan.at < body.len() {
            line += 1;
            if scan.at >= checked {
                checked = match valid_until(body, scan.at) {
                    Ok(end) => end,
                    Err(end) => {
                        self.errors.add(line, None, "not valid UTF-8");
                        scan.at = end;
                        continue;
                    }
                };
            }
            if scan.token() == b'\n' || scan.at == body.len() {
                scan.at += 1;
                continue;
            }
            if !self.admit(line) {
                return;
            }
            let start = scan.at;
            let whole = self.rows.record(&mut scan, line, self.errors, self.options);
            if whole && scan.token() != b'\n' && scan.at < body.len() {
                self.errors.add(line, None, "something follows the record on its line");
            }
            if self.rows.len() == 1 {
                self.reserve(body.len(), scan.at - start);
            }
            if scan.byte() != b'\n' {
                scan.at = block::find(body, scan.at, b'\n');
            }
            self.check_size(scan.at - start, line);
            scan.at += 1;
        }
    }

    fn json(&mut self, body: &[u8]) {
        if simdutf8::basic::from_utf8(body).is_err() {
            self.errors.add(1, None, "not valid UTF-8");
            return;
        }
        let mut scan = Scanner::new(body, true);
        if scan.token() == b'[' {
            scan.at += 1;
            if !self.elements(&mut scan) {
                return;
            }
        } else {
            let start = scan.at;
            if !self.admit(1) || !self.rows.record(&mut scan, 1, self.errors, self.options) {
                return;
            }
            self.check_size(scan.at - start, 1);
        }
        scan.token();
        if scan.at < body.len() {
            self.errors.add(self.rows.len().max(1) as u64, None, "something follows the end of the JSON document");
        }
    }

    fn elements(&mut self, scan: &mut Scanner<'_>) -> bool {
        if scan.token() == b']' {
            scan.at += 1;
            return true;
        }
        for element in 1.. {
            if !self.admit(element) {
                return false;
            }
            scan.token();
            let start = scan.at;
            if !self.rows.record(scan, element, self.errors, self.options) {
                return false;
            }
            self.check_size(scan.at - start, element);
            if element == 1 {
                self.reserve(scan.bytes.len(), scan.at - start);
            }
            match scan.token() {
                b',' => scan.at += 1,
                b']' => {
                    scan.at += 1;
                    return true;
                }
                _ => {
                    self.errors.add(element, None, scan::Fault::NoComma.to_string());
                    return false;
                }
            }
        }
        true
    }

    /// Whether another record may come.
    #[inline(always)]
    fn admit(&mut self, line: u64) -> bool {
        let admitted = self.rows.len() < self.options.limits.max_records;
        if !admitted {
            self.errors.too_large = true;
            self.errors.add(line, None, format!("more than the {} records allowed", self.options.limits.max_records));
        }
        admitted
    }

    #[inline(always)]
    fn check_size(&mut self, bytes: usize, line: u64) {
        let limit = self.options.limits.max_record_bytes;
        if bytes > limit {
            self.errors.add(line, None, format!("the record has {bytes} bytes, more than the {limit} allowed"));
        }
    }

    /// Makes room for the records to come, judging by the first; for no more than a body of 256-byte records has.
    fn reserve(&mut self, body: usize, first: usize) {
        self.rows.reserve((body / first.max(256)).min(self.options.limits.max_records) + 1);
    }
}

/// Checks the UTF-8 of the next lines. Returns where the checked lines end; if the very next line is wrong, `Err` with where it ends.
fn valid_until(body: &[u8], at: usize) -> Result<usize, usize> {
    let end = |from: usize| (block::find(body, from.min(body.len()), b'\n') + 1).min(body.len());
    let window = end(at + WINDOW);
    if simdutf8::basic::from_utf8(&body[at..window]).is_ok() {
        return Ok(window);
    }
    let line = end(at);
    if simdutf8::basic::from_utf8(&body[at..line]).is_ok() { Ok(line) } else { Err(line) }
}

/// Separates the records by retention class. Nearly always there is one class, and nothing is copied.
fn split(table: &'static Table, columns: Vec<ArrayRef>, records: usize) -> Result<Parsed, arrow_schema::ArrowError> {
    if records == 0 {
        return Ok(Parsed { records, batches: Vec::new() });
    }
    let data = RecordBatch::try_new(table.data_schema(), columns)?;
    let years = match data.column_by_name("retention_years") {
        Some(column) => column.as_primitive::<Int64Type>().values().clone(),
        None => vec![1; records].into(),
    };
    let first = years[0];
    if years.iter().all(|&year| year == first) {
        return Ok(Parsed { records, batches: vec![ClassBatch { retention_years: first as u16, data, positions: None }] });
    }
    let mut classes = years.to_vec();
    classes.sort_unstable();
    classes.dedup();
    let batches = classes.into_iter().map(|class| {
        let positions: Vec<u32> = (0..).zip(&years).filter(|&(_, &year)| year == class).map(|(i, _)| i).collect();
        let data = arrow_select::take::take_record_batch(&data, &UInt32Array::from(positions.clone()))?;
        Ok(ClassBatch { retention_years: class as u16, data, positions: Some(positions) })
    });
    Ok(Parsed { records, batches: batches.collect::<Result<_, arrow_schema::ArrowError>>()? })
}
