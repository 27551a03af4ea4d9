//! The audited tables' keys, columns and their types, as they were when a change was made.

use super::image::{Column, Form, MAX_LEVELS, Shape};
use crate::error::{CaptureError, Result};
use crate::row::ValueKind;
use sqlx::postgres::types::Oid;
use sqlx::{PgConnection, Row};
use std::collections::{HashMap, HashSet};

const TIMESTAMPTZ: u32 = 1184;

#[derive(Debug)]
struct Type {
    name: String,
    base: u32,
    element: u32,
    bound: u32,
    is_composite: bool,
    fields: Vec<u32>,
}

/// What tables are like, and were like for earlier changes.
#[derive(Debug, Default)]
pub(super) struct Shapes(HashMap<String, Vec<(Option<i64>, Shape)>>);

impl Shapes {
    /// Whether a table of this name is known.
    pub fn knows(&self, table: &str) -> bool {
        self.0.contains_key(table)
    }

    /// What a table was like for a change of this number: the shapes that come into question, the likeliest first.
    pub fn of(&self, table: &str, number: i64) -> impl Iterator<Item = &Shape> {
        let known = self.0.get(table).map(Vec::as_slice).unwrap_or_default();
        let since = known.partition_point(|(until, _)| until.is_some_and(|until| until <= number));
        known[since..].iter().chain(known[..since].iter().rev()).map(|(_, shape)| shape)
    }
}

/// Reads the shapes of all audited tables.
pub(super) async fn load(connection: &mut PgConnection) -> Result<Shapes> {
    let doing = || CaptureError::database("reading the audited tables' columns");
    let rows = sqlx::query(include_str!("sql/select_shapes.sql")).fetch_all(&mut *connection).await.map_err(doing())?;
    let mut described = Vec::with_capacity(rows.len());
    for row in rows {
        let columns: String = row.try_get("columns").map_err(doing())?;
        let columns: Vec<(String, u32, bool)> = serde_json::from_str(&columns)
            .map_err(|error| CaptureError::Malformed(format!("the columns of a table in the queue are not valid: {error}")))?;
        described.push((row, columns));
    }
    let wanted = described.iter().flat_map(|(_, columns)| columns.iter().map(|(_, oid, _)| *oid)).collect();
    let types = types(connection, wanted).await?;
    let mut shapes = Shapes::default();
    for (row, columns) in described {
        let masked: Vec<String> = row.try_get("masked").map_err(doing())?;
        let mut shape = Shape { key: row.try_get("key_columns").map_err(doing())?, ..Shape::default() };
        for (name, oid, is_generated) in columns {
            let is_masked = masked.contains(&name);
            shape.push(Column { is_generated, ..Column::new(name, form(&types, oid, 0), is_masked) });
        }
        let table: String = row.try_get("table_name").map_err(doing())?;
        let until: Option<i64> = row.try_get("until").map_err(doing())?;
        shapes.0.entry(table).or_default().push((until, shape));
    }
    Ok(shapes)
}

/// The types, and those that they are made of.
async fn types(connection: &mut PgConnection, mut wanted: HashSet<u32>) -> Result<HashMap<u32, Type>> {
    let doing = || CaptureError::database("reading types");
    let mut known = HashMap::new();
    for _ in 0..MAX_LEVELS {
        let list: Vec<Oid> = wanted.drain().filter(|oid| *oid != 0 && !known.contains_key(oid)).map(Oid).collect();
        if list.is_empty() {
            break;
        }
        for row in sqlx::query(include_str!("sql/select_types.sql")).bind(&list).fetch_all(&mut *connection).await.map_err(doing())? {
            let oid = |name: &str| row.try_get::<Oid, _>(name).map(|oid| oid.0).map_err(doing());
            let fields: Vec<Oid> = row.try_get("fields").map_err(doing())?;
            let described = Type {
                name: row.try_get("name").map_err(doing())?,
                base: oid("base")?,
                element: oid("element")?,
                bound: oid("bound")?,
                is_composite: row.try_get("is_composite").map_err(doing())?,
                fields: fields.into_iter().map(|field| field.0).collect(),
            };
            wanted.extend([described.base, described.element]);
            wanted.extend(&described.fields);
            known.insert(oid("type")?, described);
        }
    }
    Ok(known)
}

fn form(types: &HashMap<u32, Type>, oid: u32, level: usize) -> Form {
    let Some(described) = types.get(&oid).filter(|_| level < MAX_LEVELS) else { return Form::Plain(ValueKind::Text) };
    if described.base != 0 {
        return form(types, described.base, level + 1);
    }
    if described.element != 0 {
        return Form::Array(Box::new(form(types, described.element, level + 1)));
    }
    if described.is_composite {
        return Form::Composite(described.fields.iter().map(|field| form(types, *field, level + 1)).collect());
    }
    if described.bound == TIMESTAMPTZ {
        return Form::TimestamptzRange;
    }
    match described.name.as_str() {
        "timestamp" => Form::Timestamp,
        "timestamptz" => Form::Timestamptz,
        "bytea" => Form::Bytea,
        "float4" => Form::Float4,
        "float8" => Form::Float8,
        name => Form::Plain(ValueKind::of_postgres_type(name)),
    }
}
