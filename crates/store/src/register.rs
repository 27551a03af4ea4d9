//! Registers as rows: what is written to them and looked up in them one row at a time. Whole registers as columns are the business of [`crate::tables`].

use muniment_model::Table;

/// A value of a register's column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// No value.
    Null,
    /// A whole number, or a decimal number scaled to one, or a time in µs UTC.
    Int(i64),
    /// A truth value.
    Bool(bool),
    /// Text, JSON, an address, a UUID or a hash.
    Text(String),
    /// What is written only: the `id` of the row that this change of the same request, counted from 0, has made.
    Made(usize),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Columns with their values.
pub type Values = Vec<(&'static str, Value)>;

/// A row of a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterRow {
    /// Its columns, in the order of the model.
    pub values: Values,
}

impl RegisterRow {
    /// A column's value; null if there is no such column.
    pub fn get(&self, column: &str) -> &Value {
        self.values.iter().find(|(name, _)| *name == column).map_or(&Value::Null, |(_, value)| value)
    }

    /// A number or time; `None` if null or of another type.
    pub fn int(&self, column: &str) -> Option<i64> {
        if let Value::Int(value) = self.get(column) { Some(*value) } else { None }
    }

    /// A truth value; `false` if null or of another type.
    pub fn bool(&self, column: &str) -> bool {
        self.get(column) == &Value::Bool(true)
    }

    /// A text; `None` if null or of another type.
    pub fn text(&self, column: &str) -> Option<&str> {
        if let Value::Text(value) = self.get(column) { Some(value) } else { None }
    }

    /// `id`, which every register has.
    pub fn id(&self) -> i64 {
        self.int("id").unwrap_or_default()
    }
}

/// One change of one row. Columns that are not named get their defaults, or stay as they are.
#[derive(Clone, Debug)]
pub enum RegisterChange {
    /// A new row.
    Insert {
        /// The register.
        table: &'static Table,
        /// Its columns.
        values: Values,
    },
    /// Other values for a row.
    Update {
        /// The register.
        table: &'static Table,
        /// `id` of the row.
        id: i64,
        /// The new values.
        values: Values,
        /// Values that the row must have for the change to be made: how two writers notice each other.
        expected: Values,
    },
    /// A row less.
    Delete {
        /// The register.
        table: &'static Table,
        /// `id` of the row.
        id: i64,
    },
}

impl RegisterChange {
    /// The register.
    pub fn table(&self) -> &'static Table {
        match self {
            Self::Insert { table, .. } | Self::Update { table, .. } | Self::Delete { table, .. } => table,
        }
    }
}

/// Who changes registers and why: goes with the change into `sys_audit_log`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangedBy {
    /// `users.id`.
    pub user_id: Option<i64>,
    /// Name of the user, the key, or the part of Muniment that acts, such as `muniment:sessions`.
    pub username: String,
    /// Session.
    pub session_id: Option<String>,
    /// Address it came from.
    pub ip_address: Option<String>,
    /// Program it came from.
    pub user_agent: Option<String>,
    /// Business process.
    pub business_context: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Ties together what one request caused.
    pub correlation_id: Option<String>,
}

/// Rows looked for in a register.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// The register.
    pub table: &'static Table,
    /// Values that the rows have; all must match, null matches null.
    pub equal: Values,
    /// Numbers and times that columns must exceed.
    pub above: Values,
    /// Numbers and times that columns must not exceed.
    pub up_to: Values,
    /// Rows after this `id` only.
    pub after: i64,
    /// Whether the largest `id` comes first, not the smallest.
    pub newest_first: bool,
    /// Most rows to return.
    pub limit: u32,
}

impl Lookup {
    /// All rows with these values.
    pub fn new(table: &'static Table, equal: Values) -> Self {
        Self { table, equal, above: Vec::new(), up_to: Vec::new(), after: i64::MIN, newest_first: false, limit: u32::MAX }
    }
}
