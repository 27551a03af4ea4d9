//! The audited tables' columns and their types, as the catalog has them now.

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

/// Reads the shapes of all audited tables, by name.
pub(super) async fn load(connection: &mut PgConnection) -> Result<HashMap<String, Shape>> {
    let doing = || CaptureError::database("reading the audited tables' columns");
    let rows = sqlx::query(include_str!("sql/select_shapes.sql")).fetch_all(&mut *connection).await.map_err(doing())?;
    let mut wanted = HashSet::new();
    for row in &rows {
        wanted.extend(row.try_get::<Option<Oid>, _>("type").map_err(doing())?.map(|oid| oid.0));
    }
    let types = types(connection, wanted).await?;
    let mut shapes: HashMap<String, (u32, Shape)> = HashMap::new();
    for row in rows {
        let relation = row.try_get::<Oid, _>("relation").map_err(doing())?.0;
        let name: String = row.try_get("table_name").map_err(doing())?;
        let entry = shapes.entry(name).or_default();
        if entry.0 != relation {
            *entry = (relation, Shape { key: row.try_get("key_columns").map_err(doing())?, ..Shape::default() });
        }
        let masked: Vec<String> = row.try_get("masked").map_err(doing())?;
        let (name, oid): (Option<String>, Option<Oid>) = (row.try_get("name").map_err(doing())?, row.try_get("type").map_err(doing())?);
        if let (Some(name), Some(oid)) = (name, oid) {
            let is_masked = masked.contains(&name);
            let is_generated = row.try_get("is_generated").map_err(doing())?;
            entry.1.push(Column { is_generated, ..Column::new(name, form(&types, oid.0, 0), is_masked) });
        }
    }
    Ok(shapes.into_iter().map(|(name, (_, shape))| (name, shape)).collect())
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
