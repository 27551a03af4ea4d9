//! Which statements are let through to the planner: one that reads, of a bounded length, depth and number of parts.

use crate::error::{EngineError, Result};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{Expr, Query, Statement as SqlStatement, TableFactor, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use std::ops::ControlFlow;

/// Longest statement in bytes.
const MAX_BYTES: usize = 256 << 10;
/// Operators, keywords and brackets: whatever can make a statement deep. Names, values and commas don't count, so that long lists stay possible.
const MAX_OPERATORS: usize = 4096;
/// Depth of expressions and subqueries.
const MAX_DEPTH: usize = 128;
/// Tables, subqueries and set operations together.
const MAX_RELATIONS: usize = 128;
/// Steps of a plan, a common table expression counted as often as it is used.
const MAX_PLAN_STEPS: usize = 4096;

/// Parses a statement and refuses whatever does not only read.
pub(super) fn parse(text: &str) -> Result<Statement> {
    if text.len() > MAX_BYTES {
        return Err(refused(format!("the statement is longer than {MAX_BYTES} bytes")));
    }
    let dialect = GenericDialect {};
    count_operators(text, &dialect)?;
    let mut statements = DFParserBuilder::new(text)
        .with_dialect(&dialect)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|error| EngineError::Query(Box::new(error)))?;
    let statement = statements.pop_front().ok_or_else(|| refused("there is no statement".to_owned()))?;
    if !statements.is_empty() {
        return Err(refused("there is more than one statement".to_owned()));
    }
    let inner = reading(&statement).ok_or_else(|| {
        refused(
            "only a single SELECT, WITH, VALUES, EXPLAIN, SHOW or DESCRIBE statement is allowed: nothing can be changed here".to_owned(),
        )
    })?;
    match inner.visit(&mut Depth::default()) {
        ControlFlow::Continue(()) => Ok(statement),
        ControlFlow::Break(reason) => Err(refused(reason.to_owned())),
    }
}

/// Refuses a plan that is out of proportion, as repeated use of common table expressions makes it.
pub(super) fn check_size(plan: &LogicalPlan) -> Result<()> {
    use datafusion::common::tree_node::TreeNodeRecursion;
    let mut steps = 0;
    plan.apply_with_subqueries(|_| {
        steps += 1;
        Ok(if steps > MAX_PLAN_STEPS { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })
    .map_err(|error| EngineError::Query(Box::new(error)))?;
    if steps > MAX_PLAN_STEPS {
        return Err(refused(format!("the statement has more than {MAX_PLAN_STEPS} steps once its common table expressions are filled in")));
    }
    Ok(())
}

fn count_operators(text: &str, dialect: &dyn Dialect) -> Result<()> {
    let tokens = Tokenizer::new(dialect, text).tokenize().map_err(|error| refused(error.to_string()))?;
    let (mut operators, mut sets) = (0, 0);
    for token in &tokens {
        match token {
            Token::Whitespace(_) | Token::Comma | Token::Period | Token::Number(..) | Token::SingleQuotedString(_) => {}
            Token::Word(word) if word.keyword == Keyword::NoKeyword => {}
            Token::Word(word) if matches!(word.keyword, Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS) => {
                sets += 1
            }
            _ => operators += 1,
        }
    }
    if operators > MAX_OPERATORS {
        return Err(refused(format!("the statement has more than {MAX_OPERATORS} operators and keywords")));
    }
    if sets > MAX_RELATIONS {
        return Err(refused(format!("the statement has more than {MAX_RELATIONS} set operations")));
    }
    Ok(())
}

/// The statement within, if it only reads.
fn reading(statement: &Statement) -> Option<&SqlStatement> {
    match statement {
        Statement::Statement(statement) => match &**statement {
            SqlStatement::Explain { statement: inner, .. } => matches!(**inner, SqlStatement::Query(_)).then_some(statement),
            SqlStatement::Query(_)
            | SqlStatement::ExplainTable { .. }
            | SqlStatement::ShowTables { .. }
            | SqlStatement::ShowColumns { .. }
            | SqlStatement::ShowFunctions { .. }
            | SqlStatement::ShowVariable { .. } => Some(statement),
            _ => None,
        },
        Statement::Explain(explain) => match &*explain.statement {
            Statement::Statement(inner) if matches!(**inner, SqlStatement::Query(_)) => Some(inner),
            _ => None,
        },
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => None,
    }
}

/// Measures a statement while walking over it.
#[derive(Default)]
struct Depth {
    depth: usize,
    relations: usize,
}

impl Depth {
    fn enter(&mut self) -> ControlFlow<&'static str> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return ControlFlow::Break("the statement is nested too deeply; instead of a long chain of OR, use IN (…)");
        }
        ControlFlow::Continue(())
    }

    fn leave(&mut self) -> ControlFlow<&'static str> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}

impl Visitor for Depth {
    type Break = &'static str;

    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<Self::Break> {
        self.enter()
    }

    fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<Self::Break> {
        self.leave()
    }

    fn pre_visit_expr(&mut self, _expr: &Expr) -> ControlFlow<Self::Break> {
        self.enter()
    }

    fn post_visit_expr(&mut self, _expr: &Expr) -> ControlFlow<Self::Break> {
        self.leave()
    }

    fn pre_visit_table_factor(&mut self, _factor: &TableFactor) -> ControlFlow<Self::Break> {
        self.relations += 1;
        if self.relations > MAX_RELATIONS {
            return ControlFlow::Break("the statement has too many tables and subqueries");
        }
        self.enter()
    }

    fn post_visit_table_factor(&mut self, _factor: &TableFactor) -> ControlFlow<Self::Break> {
        self.leave()
    }
}

fn refused(reason: String) -> EngineError {
    EngineError::Parameter { name: "query", reason }
}
