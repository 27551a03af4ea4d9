//! What a table is made of: the vocabulary in which the schema is written down once, and the Arrow schemas derived from it.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// How a table behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Append only, kept in the ledger. The default retention applies where a record does not say otherwise.
    Log {
        /// Years a record is kept unless it says otherwise.
        default_retention_years: u16,
    },
    /// An ordinary table of the commit database.
    Register,
}

/// Type of a column, with its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Text of at most `max_chars` Unicode characters, without NUL.
    Text {
        /// Most characters (Unicode scalar values).
        max_chars: u32,
    },
    /// A JSON document, kept as the exact text received.
    Json {
        /// Most bytes of text.
        max_bytes: u32,
    },
    /// An IPv4 or IPv6 address with an optional `/prefix`, in canonical text.
    Inet,
    /// A UUID, lower case and hyphenated.
    Uuid,
    /// A whole number.
    Int {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// `true` or `false`.
    Bool,
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp,
    /// An exact decimal number.
    Decimal {
        /// Digits in total, at most 18.
        precision: u8,
        /// Digits after the point.
        scale: u8,
    },
    /// A SHA-256 hash, 32 bytes. Ledger columns only.
    Hash,
}

impl Type {
    /// The Arrow type that holds it.
    pub fn arrow(self) -> DataType {
        match self {
            Type::Text { .. } | Type::Json { .. } | Type::Inet | Type::Uuid => DataType::Utf8,
            Type::Int { .. } => DataType::Int64,
            Type::Bool => DataType::Boolean,
            Type::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Type::Decimal { precision, scale } => DataType::Decimal128(precision, scale as i8),
            Type::Hash => DataType::FixedSizeBinary(32),
        }
    }

    /// The kind as named in the format document and in a bundle's manifest: `text`, `json`, `inet`, `uuid`, `int`, `bool`,
    /// `timestamp`, `decimal` or `hash`.
    pub fn kind(self) -> &'static str {
        match self {
            Type::Text { .. } => "text",
            Type::Json { .. } => "json",
            Type::Inet => "inet",
            Type::Uuid => "uuid",
            Type::Int { .. } => "int",
            Type::Bool => "bool",
            Type::Timestamp => "timestamp",
            Type::Decimal { .. } => "decimal",
            Type::Hash => "hash",
        }
    }
}

/// What a column holds when a sender gives nothing (or `null`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultValue {
    /// Nothing: null, or an error if the column is required.
    None,
    /// The next free number.
    Identity,
    /// The time of receipt.
    Now,
    /// A random UUID (version 4).
    RandomUuid,
    /// This text, or for a JSON column this document.
    Text(&'static str),
    /// This number.
    Int(i64),
    /// This truth value.
    Bool(bool),
    /// This decimal, times 10^scale.
    Decimal(i64),
    /// Years of retention: the log's, or [`crate::SENSITIVE_RETENTION_YEARS`] if that is longer and the record's `compliance_level` is 2 or more.
    RetentionYears,
    /// Bytes of `old_values` and `new_values` together.
    ChangeSize,
    /// Whether `metric_value` has reached `threshold_warning` or `threshold_critical`; `false` without a threshold. If the second is smaller than the first,
    /// small values are the bad ones.
    ThresholdReached,
}

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Name, in snake_case.
    pub name: &'static str,
    /// Type and limits.
    pub ty: Type,
    /// Whether it may be null. A column with a default is never null.
    pub nullable: bool,
    /// Value when none is given.
    pub default: DefaultValue,
    /// Unit of a number, such as `ms` or `bytes`.
    pub unit: Option<&'static str>,
    /// The seed column it comes from, such as `SYS_AUDIT_LOG.TableName`; empty if Muniment's own.
    pub seed: &'static str,
    /// Whether single values are looked up in it, so that files carry a bloom filter.
    pub lookup: bool,
    /// The only texts allowed; empty for no restriction.
    pub values: &'static [&'static str],
    /// Names of a number's values, such as `(1, "Info")`; for the reader, the limits are those of the type.
    pub names: &'static [(i64, &'static str)],
    /// Smallest and largest value of a decimal, times 10^scale.
    pub range: Option<(i64, i64)>,
    /// Whether a JSON document must be an array.
    pub array: bool,
    /// Whether no two rows may have the same value (registers).
    pub unique: bool,
    /// Whether its values are kept out of the record of changes: `***` instead, made by the trigger (registers).
    pub secret: bool,
    /// What it means.
    pub doc: &'static str,
}

impl Column {
    /// A nullable column without default.
    pub(crate) const fn new(name: &'static str, ty: Type, seed: &'static str, doc: &'static str) -> Self {
        Column {
            name,
            ty,
            nullable: true,
            default: DefaultValue::None,
            unit: None,
            seed,
            lookup: false,
            values: &[],
            names: &[],
            range: None,
            array: false,
            unique: false,
            secret: false,
            doc,
        }
    }

    pub(crate) const fn text(name: &'static str, max_chars: u32, seed: &'static str, doc: &'static str) -> Self {
        Self::new(name, Type::Text { max_chars }, seed, doc)
    }

    pub(crate) const fn json(name: &'static str, seed: &'static str, doc: &'static str) -> Self {
        Self::new(name, Type::Json { max_bytes: MAX_JSON_BYTES }, seed, doc)
    }

    pub(crate) const fn int(name: &'static str, min: i64, max: i64, seed: &'static str, doc: &'static str) -> Self {
        Self::new(name, Type::Int { min, max }, seed, doc)
    }

    pub(crate) const fn decimal(name: &'static str, precision: u8, scale: u8, seed: &'static str, doc: &'static str) -> Self {
        Self::new(name, Type::Decimal { precision, scale }, seed, doc)
    }

    pub(crate) const fn bool(name: &'static str, seed: &'static str, doc: &'static str) -> Self {
        Self::new(name, Type::Bool, seed, doc)
    }

    pub(crate) const fn time(name: &'static str, seed: &'static str, doc: &'static str) -> Self {
        Self::new(name, Type::Timestamp, seed, doc)
    }

    pub(crate) const fn inet(name: &'static str, seed: &'static str, doc: &'static str) -> Self {
        Self::new(name, Type::Inet, seed, doc)
    }

    pub(crate) const fn required(mut self) -> Self {
        self.nullable = false;
        self
    }

    pub(crate) const fn or(mut self, default: DefaultValue) -> Self {
        self.nullable = false;
        self.default = default;
        self
    }

    pub(crate) const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = Some(unit);
        self
    }

    pub(crate) const fn lookup(mut self) -> Self {
        self.lookup = true;
        self
    }

    pub(crate) const fn unique(mut self) -> Self {
        self.unique = true;
        self
    }

    pub(crate) const fn values(mut self, values: &'static [&'static str]) -> Self {
        self.values = values;
        self
    }

    pub(crate) const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    pub(crate) const fn names(mut self, names: &'static [(i64, &'static str)]) -> Self {
        self.names = names;
        self
    }

    pub(crate) const fn range(mut self, min: i64, max: i64) -> Self {
        self.range = Some((min, max));
        self
    }

    pub(crate) const fn array(mut self) -> Self {
        self.array = true;
        self
    }

    /// Whether it holds the number of a user, for which a sender may give an id of another system.
    pub fn is_user(&self) -> bool {
        matches!(self.name, "user_id" | "changed_by" | "investigated_by")
    }

    /// Whether a sender has to give it.
    pub const fn is_required(&self) -> bool {
        !self.nullable && matches!(self.default, DefaultValue::None)
    }
}

/// Most bytes of a JSON column's text.
pub const MAX_JSON_BYTES: u32 = 1 << 20;

/// An index of the seeds or of ours, and what does its job here.
#[derive(Debug, Clone, Copy)]
pub struct Index {
    /// Name, in snake_case.
    pub name: &'static str,
    /// Columns in order; a trailing ` DESC` is part of the text.
    pub columns: &'static [&'static str],
    /// Name in the seeds; empty if Muniment's own.
    pub seed: &'static str,
    /// What does this job here.
    pub stands_for: &'static str,
}

/// A reference to another table.
#[derive(Debug, Clone, Copy)]
pub struct ForeignKey {
    /// The referring column.
    pub column: &'static str,
    /// The table referred to.
    pub table: &'static str,
    /// Its column.
    pub target: &'static str,
    /// Constraint name or relationship in the seeds; empty if Muniment's own.
    pub seed: &'static str,
}

/// A condition over several columns of a row. Conditions on one column follow from the column itself.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Name, in snake_case.
    pub name: &'static str,
    /// The condition, in SQL that both dialects understand.
    pub sql: &'static str,
    /// What it means.
    pub doc: &'static str,
}

/// A log or a register.
#[derive(Debug)]
pub struct Table {
    /// Name, in snake_case.
    pub name: &'static str,
    /// Log or register.
    pub kind: Kind,
    /// What it holds, in a few words.
    pub title: &'static str,
    /// The seed table it comes from, such as `[audit].SYS_AUDIT_LOG`; empty if Muniment's own.
    pub seed: &'static str,
    /// The data columns of a log, all columns of a register.
    pub columns: &'static [Column],
    /// What the ledger adds to each record of a log; a sender may not set these. Empty for a register.
    pub ledger_columns: &'static [Column],
    /// Indexes.
    pub indexes: &'static [Index],
    /// References to other tables. Enforced in registers. In logs they say what a join means: a record about a user nobody knows is kept.
    pub foreign_keys: &'static [ForeignKey],
    /// Conditions over several columns.
    pub checks: &'static [Check],
    /// What it is for.
    pub doc: &'static str,
}

impl Table {
    /// Whether it is a log.
    pub fn is_log(&self) -> bool {
        matches!(self.kind, Kind::Log { .. })
    }

    /// Years a record of this log is kept unless it says otherwise; `None` for a register.
    pub fn default_retention_years(&self) -> Option<u16> {
        match self.kind {
            Kind::Log { default_retention_years } => Some(default_retention_years),
            Kind::Register => None,
        }
    }

    /// The column of this name: a data column or, in a log, a ledger column.
    pub fn column(&self, name: &str) -> Option<&'static Column> {
        self.columns.iter().chain(self.ledger_columns).find(|column| column.name == name)
    }

    /// Names of the columns whose single values are looked up: they get bloom filters.
    pub fn lookup_columns(&self) -> impl Iterator<Item = &'static str> {
        self.columns.iter().filter(|column| column.lookup).map(|column| column.name)
    }

    /// Arrow schema of the data columns, in order. Every field is nullable in Arrow, since an erased record has lost them all;
    /// what a new record must have is checked when it is parsed.
    pub fn data_schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.data_fields().collect::<Vec<_>>()))
    }

    /// Arrow schema of a log as it is stored: `id`, `stream_index`, `recorded_at`, the data columns, `blockchain_hash` and the nullable
    /// `erased_payload_hash`. For a register, the same as [`Table::data_schema`].
    pub fn stored_schema(&self) -> SchemaRef {
        if !self.is_log() {
            return self.data_schema();
        }
        let mut fields = vec![
            Field::new("id", DataType::Int64, false),
            Field::new("stream_index", DataType::Int64, false),
            Field::new("recorded_at", Type::Timestamp.arrow(), false),
        ];
        fields.extend(self.data_fields());
        fields.push(Field::new("blockchain_hash", Type::Hash.arrow(), false));
        fields.push(Field::new("erased_payload_hash", Type::Hash.arrow(), true));
        Arc::new(Schema::new(fields))
    }

    fn data_fields(&self) -> impl Iterator<Item = Field> {
        self.columns.iter().map(|column| Field::new(column.name, column.ty.arrow(), true))
    }
}
