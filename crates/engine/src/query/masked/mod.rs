//! Tables as somebody sees them who doesn't see everything. A table's rows fall into parts, each with its own masked columns; each part is a scan that does not read
//! them, and [`exec::MaskExec`] above it, through which nothing gets down. What a query says about masked columns it says about their masks.

mod exec;
mod filters;

use arrow_schema::{DataType, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ColumnarValue, ExecutionPlan};
use datafusion::prelude::{col, lit};
use exec::{MaskExec, Source};
use filters::{Condition, condition};
use muniment_access::{Cleared, FieldMasks, MASK, Mask};
use muniment_capture::open::REGISTERS_SCHEMA;
use muniment_model::{Table, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The level from which on a record is confidential.
const CONFIDENTIAL: i64 = 3;

/// A table behind a mask.
#[derive(Debug)]
pub(super) struct MaskedTable {
    inner: Arc<dyn TableProvider>,
    table: &'static Table,
    mask: Mask,
}

/// Rows of the table that have the same columns masked.
struct Part<'a> {
    masked: BTreeSet<&'a str>,
    /// Documents of which some fields are masked.
    partly: BTreeMap<&'a str, &'a Arc<FieldMasks>>,
    /// Which rows; `None`: all.
    rows: Option<Expr>,
}

impl Part<'_> {
    fn masks_nothing(&self) -> bool {
        self.masked.is_empty() && self.partly.is_empty()
    }
}

impl MaskedTable {
    pub(super) fn new(inner: Arc<dyn TableProvider>, table: &'static Table, mask: Mask) -> Self {
        Self { inner, table, mask }
    }

    /// The parts that a query over these columns tells apart.
    fn parts(&self, used: &BTreeSet<&str>) -> Vec<Part<'_>> {
        let of = |columns: &BTreeSet<&'static str>| columns.iter().copied().filter(|name| used.contains(name)).collect::<BTreeSet<&str>>();
        let (always, confidential) = (of(&self.mask.columns), of(&self.mask.confidential));
        let partly: BTreeMap<&str, _> =
            self.mask.fields.iter().map(|(name, fields)| (*name, fields)).filter(|(name, _)| used.contains(name)).collect();
        let (level, nothing) = (|| col("compliance_level"), BTreeMap::new);
        let ordinary = (!confidential.is_empty()).then(|| level().lt(lit(CONFIDENTIAL)));
        let mut parts = Vec::with_capacity(4);
        if self.table.name == "sys_audit_log" && !partly.is_empty() {
            let of_register = col("table_name").like(lit(format!("{REGISTERS_SCHEMA}.%")));
            let whole = always.iter().chain(partly.keys()).copied().collect();
            parts.push(Part { masked: always.clone(), partly, rows: and(ordinary.clone(), of_register.clone().is_false()) });
            parts.push(Part { masked: whole, partly: nothing(), rows: and(ordinary, of_register.is_not_false()) });
        } else {
            parts.push(Part { masked: always.clone(), partly, rows: ordinary });
        }
        if !confidential.is_empty() {
            let both = always.union(&confidential).copied().collect();
            let rows = level().gt_eq(lit(CONFIDENTIAL)).or(level().is_null());
            parts.push(Part { masked: both, partly: nothing(), rows: Some(rows) });
        }
        if let Some(cleared) = self.mask.cleared.as_ref().map(chosen)
            && !parts.iter().all(Part::masks_nothing)
        {
            for part in &mut parts {
                part.rows = and(part.rows.take(), cleared.clone().is_not_true());
            }
            parts.push(Part { masked: BTreeSet::new(), partly: nothing(), rows: Some(cleared) });
        }
        parts
    }

    /// What stands in the masked columns.
    fn masks<'a>(&self, names: &BTreeSet<&'a str>) -> Result<BTreeMap<&'a str, ScalarValue>> {
        let schema = self.inner.schema();
        names.iter().map(|name| Ok((*name, self.mask_of(name, schema.field_with_name(name)?.data_type())?))).collect()
    }

    fn mask_of(&self, name: &str, ty: &DataType) -> Result<ScalarValue> {
        let is_json = self.table.column(name).is_some_and(|column| matches!(column.ty, Type::Json { .. }));
        let text = if is_json { format!("\"{MASK}\"") } else { MASK.to_owned() };
        match ty {
            DataType::Utf8 => Ok(ScalarValue::Utf8(Some(text))),
            DataType::Utf8View => Ok(ScalarValue::Utf8View(Some(text))),
            other => ScalarValue::try_from(other),
        }
    }

    /// Scans one part; `None` if the filters leave nothing of it.
    async fn scan_part(
        &self,
        state: &dyn Session,
        part: &Part<'_>,
        (wanted, filters): (&SchemaRef, &[Expr]),
        elsewhere: &BTreeSet<&str>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let masks = self.masks(&part.masked)?;
        let mut conditions: Vec<Expr> = part.rows.iter().cloned().collect();
        for filter in filters {
            if filter.column_refs().iter().any(|column| part.partly.contains_key(column.name())) {
                continue;
            }
            match condition(filter, &masks, elsewhere)? {
                Condition::Above => {}
                Condition::Below(form) => conditions.push(form),
                Condition::OfMasks(form) => {
                    if never(state, form) {
                        return Ok(None);
                    }
                }
            }
        }
        let schema = self.inner.schema();
        let read = wanted.fields().iter().map(|field| field.name().as_str()).filter(|name| !part.masked.contains(name));
        let mut read: BTreeSet<usize> = read.map(|name| schema.index_of(name)).collect::<Result<_, _>>()?;
        for column in conditions.iter().flat_map(Expr::column_refs) {
            read.insert(schema.index_of(column.name())?);
        }
        let read: Vec<usize> = read.into_iter().collect();
        let mut plan = self.inner.scan(state, Some(&read), &conditions, None).await?;
        let below: Schema = schema.project(&read)?;
        if let Some(all) = conjunction(conditions) {
            let all = state.create_physical_expr(all, &DFSchema::try_from(below.clone())?)?;
            plan = Arc::new(FilterExec::try_new(all, plan)?);
        }
        let source = |name: &str| match (masks.get(name), part.partly.get(name)) {
            (Some(mask), _) => Ok(Source::Mask(mask.clone())),
            (None, Some(fields)) => Ok(Source::Partly(below.index_of(name)?, Arc::clone(fields))),
            (None, None) => Ok(Source::Input(below.index_of(name)?)),
        };
        let sources: Vec<Source> = wanted.fields().iter().map(|field| source(field.name())).collect::<Result<_>>()?;
        Ok(Some(Arc::new(MaskExec::new(plan, sources.into(), wanted.clone()))))
    }
}

/// Both conditions.
fn and(rows: Option<Expr>, condition: Expr) -> Option<Expr> {
    Some(rows.map_or(condition.clone(), |rows| rows.and(condition)))
}

/// The records that a grant shows.
fn chosen(cleared: &Cleared) -> Expr {
    match cleared {
        Cleared::Ids(ids) => col("id").in_list(ids.iter().map(|id| lit(*id)).collect(), false),
        Cleared::Entity { table, key } => col("table_name").eq(lit(table.as_str())).and(col("primary_key").eq(lit(key.as_str()))),
    }
}

/// Whether a condition without columns is met by no row. If it can't be evaluated, the query finds out above the masks.
fn never(state: &dyn Session, condition: Expr) -> bool {
    let holds = || -> Result<bool> {
        let evaluated = state.create_physical_expr(condition, &DFSchema::empty())?;
        let row = arrow_array::RecordBatch::try_new_with_options(
            Arc::new(Schema::empty()),
            Vec::new(),
            &arrow_array::RecordBatchOptions::new().with_row_count(Some(1)),
        )?;
        Ok(match evaluated.evaluate(&row)? {
            ColumnarValue::Scalar(value) => value == ScalarValue::Boolean(Some(true)),
            ColumnarValue::Array(values) => ScalarValue::try_from_array(&values, 0)? == ScalarValue::Boolean(Some(true)),
        })
    };
    holds().is_ok_and(|holds| !holds)
}

#[async_trait]
impl TableProvider for MaskedTable {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        self.inner.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.inner.schema();
        let wanted: SchemaRef = match projection {
            Some(projection) => Arc::new(schema.project(projection)?),
            None => schema.clone(),
        };
        let of_filters: Vec<String> = filters.iter().flat_map(Expr::column_refs).map(|column| column.name().to_owned()).collect();
        let used = wanted.fields().iter().map(|field| field.name().as_str()).chain(of_filters.iter().map(String::as_str)).collect();
        let parts = self.parts(&used);
        let masked_somewhere: BTreeSet<&str> =
            parts.iter().flat_map(|part| part.masked.iter().chain(part.partly.keys()).copied()).collect();
        let mut plans = Vec::with_capacity(parts.len());
        for part in &parts {
            let elsewhere = masked_somewhere.difference(&part.masked).copied().collect();
            plans.extend(self.scan_part(state, part, (&wanted, filters), &elsewhere).await?);
        }
        match plans.len() {
            0 => Ok(Arc::new(EmptyExec::new(wanted))),
            1 => Ok(plans.remove(0)),
            _ => UnionExec::try_new(plans),
        }
    }
}
