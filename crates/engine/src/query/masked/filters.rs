//! What of a query's conditions may be looked at while the records are still as they are. A condition over a masked column is one over its mask, which is known
//! without reading anything. A condition over a column that is masked in other rows only may see those rows, too, before they are left out: it may go down only if it
//! is so plain that it cannot fail, since an error would tell what it saw.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::logical_expr::{Expr, Operator};
use std::collections::{BTreeMap, BTreeSet};

/// A condition for the rows of one part of a table.
#[derive(Debug)]
pub(super) enum Condition {
    /// It stays above the masks.
    Above,
    /// It can be met below them, in this form.
    Below(Expr),
    /// It speaks of nothing but masks, which decides it for all rows: to be evaluated without any.
    OfMasks(Expr),
}

/// The form a condition takes where `masks` stand in these columns, and `elsewhere` are masked in other rows of the table.
pub(super) fn condition(filter: &Expr, masks: &BTreeMap<&str, ScalarValue>, elsewhere: &BTreeSet<&str>) -> Result<Condition> {
    if filter.is_volatile() || has_subquery(filter)? {
        return Ok(Condition::Above);
    }
    let filled = filter.clone().transform(|part| {
        Ok(match &part {
            Expr::Column(column) => match masks.get(column.name()) {
                Some(mask) => Transformed::yes(Expr::Literal(mask.clone(), None)),
                None => Transformed::yes(Expr::Column(Column::from_name(column.name()))),
            },
            _ => Transformed::no(part),
        })
    })?;
    let filled = filled.data;
    let columns = filled.column_refs();
    if columns.is_empty() {
        return Ok(Condition::OfMasks(filled));
    }
    let delicate = columns.iter().any(|column| elsewhere.contains(column.name()));
    Ok(if delicate && !is_plain(&filled) { Condition::Above } else { Condition::Below(filled) })
}

fn has_subquery(filter: &Expr) -> Result<bool> {
    let mut found = false;
    filter.apply(|part| {
        found |= matches!(part, Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::OuterReferenceColumn(..));
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Whether a condition only compares columns with values: it cannot fail, whatever the columns hold.
fn is_plain(filter: &Expr) -> bool {
    let simple = |part: &Expr| matches!(part, Expr::Column(_) | Expr::Literal(..));
    match filter {
        Expr::BinaryExpr(binary) => match binary.op {
            Operator::And | Operator::Or => is_plain(&binary.left) && is_plain(&binary.right),
            Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => {
                simple(&binary.left) && simple(&binary.right)
            }
            _ => false,
        },
        Expr::Not(inner) => is_plain(inner),
        Expr::IsNull(inner) | Expr::IsNotNull(inner) => simple(inner),
        Expr::InList(list) => simple(&list.expr) && list.list.iter().all(simple),
        Expr::Between(between) => [&between.expr, &between.low, &between.high].into_iter().all(|part| simple(part)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use datafusion::prelude::{cast, col, lit, random};

    fn check(filter: Expr, expected: &str) {
        let masks = BTreeMap::from([("ip_address", ScalarValue::from("***"))]);
        let found = match condition(&filter, &masks, &BTreeSet::from(["primary_key"])).unwrap() {
            Condition::Above => "above".to_owned(),
            Condition::Below(form) => format!("below: {form}"),
            Condition::OfMasks(form) => format!("masks: {form}"),
        };
        assert_eq!(found, expected, "{filter}");
    }

    #[test]
    fn what_is_masked_is_never_asked_for_its_value() {
        check(col("id").gt(lit(1)), "below: id > Int32(1)");
        check(col("ip_address").eq(lit("x")), r#"masks: Utf8("***") = Utf8("x")"#);
        check(col("ip_address").eq(col("id")), r#"below: Utf8("***") = id"#);
        check(col("primary_key").eq(lit("17")), r#"below: primary_key = Utf8("17")"#);
        check(lit(1).eq(lit(1) / cast(col("primary_key"), arrow_schema::DataType::Int64)), "above");
        check((lit(1) / col("id")).eq(lit(1)), "below: Int32(1) / id = Int32(1)");
        check(random().gt(lit(0.5)).and(col("id").eq(lit(1))), "above");
        check(col("primary_key").like(lit("a%")), "above");
    }
}
