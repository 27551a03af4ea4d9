//! One record: from the opening brace to the closing one, straight into the columns.

use std::borrow::Cow;

use arrow_array::ArrayRef;
use uuid::Uuid;

use super::block::{self, BLOCK};
use super::columns::Builder;
use super::scan::{Fault, Scanner};
use super::value;
use super::{Errors, ParseOptions};
use crate::tables::SENSITIVE_RETENTION_YEARS;
use crate::{Column, DefaultValue, Table};

/// Why a field could not be taken.
enum Problem {
    /// The JSON text is broken; the rest of the record is lost.
    Text(Fault),
    /// The value does not fit the column; the fields after it can still be checked.
    Value(Cow<'static, str>),
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Problem::Text(fault)
    }
}

#[cold]
fn refuse(reason: impl Into<Cow<'static, str>>) -> Problem {
    Problem::Value(reason.into())
}

/// A column with what it takes to recognise its name in the input.
struct Field {
    column: &'static Column,
    /// The name and its closing quote.
    key: [u8; BLOCK],
    key_mask: u32,
    builder: Builder,
}

impl Field {
    fn new(column: &'static Column, max_json_bytes: usize) -> Self {
        let mut key = [0; BLOCK];
        let length = column.name.len().min(BLOCK - 2);
        key[..length].copy_from_slice(&column.name.as_bytes()[..length]);
        key[length] = b'"';
        Field { column, key, key_mask: (1 << (length + 1)) - 1, builder: Builder::new(column.ty, max_json_bytes) }
    }
}

/// The rows read so far.
pub(super) struct Rows {
    table: &'static Table,
    fields: Vec<Field>,
    /// `next[i + 1]` is the field that followed field i the last time, `next[0]` the first one. Senders rarely change the order.
    next: Vec<usize>,
    /// Bit i: field i must be given.
    required: u64,
    /// Bit i: field i has a default.
    defaults: u64,
    /// Levels of nesting allowed within a field.
    levels: u32,
    rows: usize,
    scratch: Vec<u8>,
    scratch2: Vec<u8>,
}

impl Rows {
    pub fn new(table: &'static Table, options: &ParseOptions<'_>) -> Self {
        let bits = |wanted: fn(&Column) -> bool| {
            table.columns.iter().enumerate().filter(|(_, column)| wanted(column)).fold(0, |bits, (i, _)| bits | 1 << i)
        };
        Rows {
            table,
            fields: table.columns.iter().map(|column| Field::new(column, options.limits.max_json_bytes)).collect(),
            next: (0..=table.columns.len()).map(|i| i % table.columns.len()).collect(),
            required: bits(Column::is_required),
            defaults: bits(|column| column.default != DefaultValue::None),
            levels: options.limits.max_depth.saturating_sub(1),
            rows: 0,
            scratch: Vec::new(),
            scratch2: Vec::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn reserve(&mut self, rows: usize) {
        for field in &mut self.fields {
            field.builder.reserve(rows);
        }
    }

    /// The columns as arrays, in the table's order.
    pub fn finish(self) -> Vec<ArrayRef> {
        let rows = self.rows;
        self.fields.into_iter().map(|field| field.builder.finish(rows)).collect()
    }

    /// Reads one record. Reports what is wrong with it to `errors`; returns whether its end was found.
    pub fn record(&mut self, scan: &mut Scanner<'_>, line: u64, errors: &mut Errors, options: &mut ParseOptions<'_>) -> bool {
        if scan.token() != b'{' {
            errors.add(line, None, "a record must be a JSON object");
            return false;
        }
        scan.at += 1;
        let mut named = 0_u64;
        let mut given = 0_u64;
        let mut previous = 0;
        if scan.token() == b'}' {
            scan.at += 1;
        } else {
            loop {
                match self.field(scan, line, (&mut previous, &mut named), errors, options) {
                    Ok(bit) => given |= bit,
                    Err(()) => return false,
                }
                match scan.token() {
                    b',' => scan.at += 1,
                    b'}' => {
                        scan.at += 1;
                        break;
                    }
                    _ => {
                        errors.add(line, None, Fault::NoComma.to_string());
                        return false;
                    }
                }
            }
        }
        if given & self.required != self.required {
            self.report_missing(given, line, errors);
        }
        let missing = self.defaults & !given;
        if missing != 0 && errors.is_empty() {
            self.fill(missing, options);
        }
        self.rows += 1;
        true
    }

    /// Reads one name and its value. Returns the field's bit, or none if it was null, unknown or refused; `Err` if the text is broken.
    #[inline(always)]
    fn field(
        &mut self,
        scan: &mut Scanner<'_>,
        line: u64,
        (previous, named): (&mut usize, &mut u64),
        errors: &mut Errors,
        options: &mut ParseOptions<'_>,
    ) -> Result<u64, ()> {
        if scan.token() != b'"' {
            errors.add(line, None, Fault::NoKey.to_string());
            return Err(());
        }
        let guess = self.next[*previous];
        let field = &self.fields[guess];
        let index = if block::load(scan.bytes, scan.at + 1).equal(&field.key) & field.key_mask == field.key_mask {
            scan.at += 1 + field.column.name.len() + 1;
            if scan.colon().is_err() {
                errors.add(line, Some(field.column.name), Fault::NoColon.to_string());
                return Err(());
            }
            guess
        } else {
            match self.look_up(scan, line, *previous, errors)? {
                Some(index) => index,
                None => return Ok(0),
            }
        };
        *previous = index + 1;
        let bit = 1_u64 << index;
        if *named & bit != 0 {
            errors.add(line, Some(self.table.columns[index].name), "given twice");
        }
        *named |= bit;
        let start = scan.at;
        match self.value(index, scan, options) {
            Ok(true) => Ok(bit),
            Ok(false) => Ok(0),
            // The bit is set although the value is refused, so that the field isn't reported as missing as well.
            Err(problem) => self.report(index, problem, scan, start, line, errors).map(|()| bit),
        }
    }

    /// Finds a field that isn't the expected one. An unknown one is reported and skipped.
    #[inline(never)]
    fn look_up(&mut self, scan: &mut Scanner<'_>, line: u64, previous: usize, errors: &mut Errors) -> Result<Option<usize>, ()> {
        let key = match scan.key() {
            Ok(key) => key.value(&mut self.scratch),
            Err(fault) => {
                errors.add(line, None, fault.to_string());
                return Err(());
            }
        };
        if let Some(index) = self.fields.iter().position(|field| field.column.name.as_bytes() == key) {
            self.next[previous] = index;
            return Ok(Some(index));
        }
        let name = String::from_utf8_lossy(key).chars().take(128).collect::<String>();
        // Finding the nearest name takes a while; nobody would see it after the errors kept.
        let reason = if errors.is_full() { "".into() } else { self.unknown(&name) };
        errors.add(line, Some(&name), reason);
        match scan.document(self.levels) {
            Ok(_) => Ok(None),
            Err(fault) => {
                errors.add(line, Some(&name), fault.to_string());
                Err(())
            }
        }
    }

    fn unknown(&self, name: &str) -> Cow<'static, str> {
        if self.table.ledger_columns.iter().any(|column| column.name == name) {
            return "assigned by Muniment; a sender may not set it".into();
        }
        let nearest = self.fields.iter().map(|field| (distance(field.column.name, name), field.column.name)).min();
        match nearest {
            Some((distance, nearest)) if distance <= 1 + name.len() / 4 => {
                format!("{} has no such field; did you mean `{nearest}`?", self.table.name).into()
            }
            _ => format!("{} has no such field", self.table.name).into(),
        }
    }

    #[cold]
    fn report(
        &self,
        index: usize,
        problem: Problem,
        scan: &mut Scanner<'_>,
        start: usize,
        line: u64,
        errors: &mut Errors,
    ) -> Result<(), ()> {
        let name = Some(self.table.columns[index].name);
        match problem {
            Problem::Text(fault) => {
                errors.add(line, name, fault.to_string());
                Err(())
            }
            Problem::Value(reason) => {
                errors.add(line, name, reason);
                scan.at = start;
                scan.document(self.levels).map(|_| ()).map_err(|fault| errors.add(line, name, fault.to_string()))
            }
        }
    }

    #[cold]
    fn report_missing(&self, given: u64, line: u64, errors: &mut Errors) {
        for (i, column) in self.table.columns.iter().enumerate() {
            if self.required & !given & (1 << i) != 0 {
                errors.add(line, Some(column.name), "required, but missing or null");
            }
        }
    }

    /// Reads a value into its column. `false` if it is null.
    #[inline(always)]
    fn value(&mut self, index: usize, scan: &mut Scanner<'_>, options: &mut ParseOptions<'_>) -> Result<bool, Problem> {
        let Rows { fields, rows, scratch, scratch2, levels, .. } = self;
        let (row, field) = (*rows, &mut fields[index]);
        let first = scan.token();
        if first == b'n' {
            scan.literal(b"null")?;
            return Ok(false);
        }
        match &mut field.builder {
            Builder::Text { max_chars, texts } => {
                let text = string(scan, first, "must be a string")?.value(scratch);
                check_text(text, *max_chars, field.column)?;
                texts.push(row, text);
            }
            Builder::Json { max_bytes, texts } => {
                let document = json(scan, first, *levels, scratch)?;
                check_json(document, *max_bytes, field.column)?;
                texts.push(row, document);
            }
            Builder::Inet(texts) => {
                let text = string(scan, first, "must be an IP address in a string")?.value(scratch);
                texts.push(
                    row,
                    value::inet(text, scratch2).ok_or_else(|| refuse("must be an IPv4 or IPv6 address, optionally with /prefix"))?,
                );
            }
            Builder::Uuid(texts) => {
                let text = string(scan, first, "must be a UUID in a string")?.value(scratch);
                let uuid = Uuid::try_parse_ascii(text).map_err(|_| refuse("must be a UUID"))?;
                texts.push(row, uuid.hyphenated().encode_lower(&mut [0; 36]).as_bytes());
            }
            Builder::Int { values, .. } if first == b'"' && field.column.is_user() && options.users.is_some() => {
                values.push(row, user(string(scan, first, "")?.value(scratch), options)?);
            }
            Builder::Int { min, max, values } => values.push(row, int(scan, first, *min, *max)?),
            Builder::Time(values) => values.push(row, time(scan, first, scratch)?),
            Builder::Bool(bools) => {
                let value = first == b't';
                match first {
                    b't' => scan.literal(b"true")?,
                    b'f' => scan.literal(b"false")?,
                    _ => return Err(refuse("must be true or false")),
                }
                bools.push(row, value);
            }
            Builder::Decimal { precision, scale, values } => {
                let text = match first {
                    b'"' => string(scan, first, "")?.value(scratch),
                    b'-' | b'0'..=b'9' => scan.number()?,
                    _ => return Err(refuse("must be a number, or a number in a string")),
                };
                values.push(row, decimal(text, *precision, *scale, field.column)?);
            }
        }
        Ok(true)
    }

    /// Writes the defaults of the fields whose bits are set.
    fn fill(&mut self, mut missing: u64, options: &mut ParseOptions<'_>) {
        while missing != 0 {
            let index = missing.trailing_zeros() as usize;
            missing &= missing - 1;
            let row = self.rows;
            let default = self.fields[index].column.default;
            let number = match default {
                DefaultValue::Int(number) | DefaultValue::Decimal(number) => number,
                DefaultValue::Now => options.now,
                DefaultValue::RetentionYears => self.retention_years(options),
                DefaultValue::ChangeSize => self.change_size(),
                DefaultValue::Bool(value) => i64::from(value),
                DefaultValue::ThresholdReached => i64::from(self.threshold_reached()),
                _ => 0,
            };
            match &mut self.fields[index].builder {
                Builder::Int { values, .. } | Builder::Time(values) => values.push(row, number),
                Builder::Decimal { values, .. } => values.push(row, i128::from(number)),
                Builder::Bool(bools) => bools.push(row, number != 0),
                Builder::Uuid(texts) => {
                    let uuid = uuid::Builder::from_random_bytes((options.uuid)()).into_uuid();
                    texts.push(row, uuid.hyphenated().encode_lower(&mut [0; 36]).as_bytes());
                }
                Builder::Text { texts, .. } | Builder::Json { texts, .. } | Builder::Inet(texts) => {
                    if let DefaultValue::Text(text) = default {
                        texts.push(row, text.as_bytes());
                    }
                }
            }
        }
    }

    fn builder(&self, name: &str) -> Option<&Builder> {
        self.fields.iter().find(|field| field.column.name == name).map(|field| &field.builder)
    }

    fn retention_years(&self, options: &ParseOptions<'_>) -> i64 {
        let years = options.retention_years.or(self.table.default_retention_years()).unwrap_or(1);
        let level = self.builder("compliance_level").and_then(|builder| builder.int_at(self.rows));
        i64::from(if level >= Some(2) { years.max(SENSITIVE_RETENTION_YEARS) } else { years })
    }

    fn change_size(&self) -> i64 {
        let bytes = |name| self.builder(name).map_or(0, |builder| builder.text_bytes_at(self.rows));
        (bytes("old_values") + bytes("new_values")) as i64
    }

    fn threshold_reached(&self) -> bool {
        let decimal = |name| self.builder(name).and_then(|builder| builder.decimal_at(self.rows));
        let (warning, critical) = (decimal("threshold_warning"), decimal("threshold_critical"));
        let Some(value) = decimal("metric_value") else { return false };
        // If being critical takes less than being worth a warning, small values are the bad ones.
        let downwards = matches!((warning, critical), (Some(warning), Some(critical)) if critical < warning);
        let reached = |threshold: i128| if downwards { value <= threshold } else { value >= threshold };
        warning.is_some_and(reached) || critical.is_some_and(reached)
    }
}

#[inline(always)]
fn string<'a>(scan: &mut Scanner<'a>, first: u8, otherwise: &'static str) -> Result<super::scan::Text<'a>, Problem> {
    if first != b'"' {
        return Err(refuse(otherwise));
    }
    scan.at += 1;
    Ok(scan.string()?)
}

#[inline(always)]
fn check_text(text: &[u8], max_chars: u32, column: &Column) -> Result<(), Problem> {
    if text.len() > max_chars as usize {
        let chars = text.iter().filter(|&&byte| (byte as i8) >= -0x40).count();
        if chars > max_chars as usize {
            return Err(refuse(format!("{chars} characters, more than the {max_chars} allowed")));
        }
    }
    if !column.values.is_empty() && !column.values.iter().any(|value| value.as_bytes() == text) {
        return Err(refuse(format!("must be one of {}", column.values.join(", "))));
    }
    Ok(())
}

/// The text of a document: the value itself, or the content of a string that holds one.
#[inline(always)]
fn json<'s, 'a: 's>(scan: &mut Scanner<'a>, first: u8, levels: u32, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], Problem> {
    if first != b'"' {
        return Ok(scan.document(levels)?);
    }
    scan.at += 1;
    let text = scan.string()?.value(scratch);
    let mut inner = Scanner::new(text, true);
    match inner.document(levels) {
        Ok(_) if inner.token() == 0 && inner.at == text.len() => Ok(text),
        Ok(_) => Err(refuse("the string holds more than one JSON document")),
        Err(fault) => Err(refuse(format!("must be JSON, or a string that holds a JSON document: {fault}"))),
    }
}

#[inline(always)]
fn check_json(document: &[u8], max_bytes: usize, column: &Column) -> Result<(), Problem> {
    if document.len() > max_bytes {
        return Err(refuse(format!("{} bytes of JSON, more than the {max_bytes} allowed", document.len())));
    }
    if column.array && document.trim_ascii_start().first() != Some(&b'[') {
        return Err(refuse("must be a JSON array"));
    }
    Ok(())
}

/// The number of the user for whom a text stands.
#[cold]
fn user(text: &[u8], options: &mut ParseOptions<'_>) -> Result<i64, Problem> {
    let number = options.users.as_mut().zip(std::str::from_utf8(text).ok()).and_then(|(users, text)| users(text));
    number.ok_or_else(|| refuse("must be the number of a user, or the external id of one in the directory"))
}

#[inline(always)]
fn int(scan: &mut Scanner<'_>, first: u8, min: i64, max: i64) -> Result<i64, Problem> {
    if !matches!(first, b'-' | b'0'..=b'9') {
        return Err(refuse("must be a whole number"));
    }
    let text = scan.number()?;
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let mut value = 0_i64;
    for byte in digits {
        if !byte.is_ascii_digit() {
            return Err(refuse("must be a whole number"));
        }
        let digit = i64::from(byte - b'0');
        let next = value.checked_mul(10).and_then(|value| if negative { value.checked_sub(digit) } else { value.checked_add(digit) });
        value = next.ok_or_else(|| refuse(format!("must be from {min} to {max}")))?;
    }
    if value < min || value > max {
        return Err(refuse(format!("must be from {min} to {max}")));
    }
    Ok(value)
}

#[inline(always)]
fn time(scan: &mut Scanner<'_>, first: u8, scratch: &mut Vec<u8>) -> Result<i64, Problem> {
    if first == b'"' {
        let text = string(scan, first, "")?.value(scratch);
        return value::time(text)
            .ok_or_else(|| refuse("must be a time such as 2025-03-14T08:12:33.123456Z, or microseconds since 1970 as a number"));
    }
    int(scan, first, *value::TIME_RANGE.start(), *value::TIME_RANGE.end()).map_err(|problem| match problem {
        Problem::Value(_) => refuse("must be a time in RFC 3339, or microseconds since 1970, within the years 1 to 9999"),
        broken => broken,
    })
}

#[inline(never)]
fn decimal(text: &[u8], precision: u8, scale: u8, column: &Column) -> Result<i128, Problem> {
    let value = value::decimal(text, precision, scale)
        .ok_or_else(|| refuse(format!("must be a decimal number that fits DECIMAL({precision},{scale}) exactly")))?;
    match column.range {
        Some((min, max)) if value < i128::from(min) || value > i128::from(max) => {
            let unit = 10_i64.pow(u32::from(scale));
            Err(refuse(format!("must be from {} to {}", min / unit, max / unit)))
        }
        _ => Ok(value),
    }
}

/// Edits needed to turn one name into another (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
