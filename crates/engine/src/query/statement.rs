//! Which statements are let through to the planner: one that reads, of a bounded length, depth and number of parts.

use crate::error::{EngineError, Result};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{Expr, ObjectName, Query, Statement as SqlStatement, TableFactor, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use std::collections::HashMap;
use std::ops::ControlFlow;

/// Longest statement in bytes.
const MAX_BYTES: usize = 256 << 10;
/// Operators, keywords and brackets: whatever can make a statement deep. Names, values and commas don't count, so that long lists stay possible.
const MAX_OPERATORS: usize = 4096;
/// Depth of expressions and subqueries.
const MAX_DEPTH: usize = 128;
/// Nesting of what the parser tries in more than one way: with each level an invalid statement takes it up to twice as long to refuse.
const MAX_AMBIGUITY: usize = 16;
/// Tables, subqueries and set operations together.
const MAX_RELATIONS: usize = 128;
/// The same, each common table expression counted as often as it is used: that is how often it is planned.
const MAX_EXPANDED_RELATIONS: usize = 1024;

/// Parses a statement and refuses whatever does not only read.
pub(super) fn parse(text: &str) -> Result<Statement> {
    if text.len() > MAX_BYTES {
        return Err(refused(format!("the statement is longer than {MAX_BYTES} bytes")));
    }
    let dialect = GenericDialect {};
    check_tokens(text, &dialect)?;
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
    match inner.visit(&mut Measure::default()) {
        ControlFlow::Continue(()) => Ok(statement),
        ControlFlow::Break(reason) => Err(refused(reason.to_owned())),
    }
}

/// Refuses to explain a plan to somebody from whom something is masked: which files and rows it would read depends on what they hold.
pub(super) fn refuse_explaining(statement: &Statement) -> Result<()> {
    let explains = match statement {
        Statement::Explain(_) => true,
        Statement::Statement(statement) => matches!(**statement, SqlStatement::Explain { .. }),
        _ => false,
    };
    if explains { Err(refused("EXPLAIN is for those from whom nothing is masked".to_owned())) } else { Ok(()) }
}

/// Refuses what would take the parser or the planner too much time or stack, before they see it.
fn check_tokens(text: &str, dialect: &dyn Dialect) -> Result<()> {
    let tokens = Tokenizer::new(dialect, text).tokenize().map_err(|error| refused(error.to_string()))?;
    let (mut operators, mut sets, mut nesting) = (0, 0, Nesting::default());
    for token in &tokens {
        match token {
            Token::Whitespace(_) => continue,
            Token::Comma | Token::Period | Token::Number(..) | Token::SingleQuotedString(_) => {}
            Token::Word(word) if word.keyword == Keyword::NoKeyword => {}
            Token::Word(word) if matches!(word.keyword, Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS) => {
                sets += 1
            }
            _ => operators += 1,
        }
        if nesting.see(token) > MAX_AMBIGUITY {
            return Err(refused("the statement is nested too deeply".to_owned()));
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

/// Follows how deep a statement is in constructs that the parser tries as one thing and then as another: `CASE`, `INTERVAL`, and keywords with a
/// bracket of their own, such as `CAST (` or `ARRAY [`. Each level can double the time that an invalid statement takes: 50 levels of `CAST (` would
/// never end.
#[derive(Default)]
struct Nesting {
    /// Open brackets and `CASE`s: whether it is a `CASE`, and its weight.
    open: Vec<(bool, usize)>,
    depth: usize,
    /// `INTERVAL`s whose value has not come yet.
    intervals: usize,
    last: Option<Keyword>,
}

impl Nesting {
    /// Takes the next token; returns the depth.
    fn see(&mut self, token: &Token) -> usize {
        let keyword = match token {
            Token::Word(word) if word.quote_style.is_none() => word.keyword,
            _ => Keyword::NoKeyword,
        };
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => self.push(false, self.last.map_or(0, weight)),
            Token::RParen | Token::RBracket | Token::RBrace => while self.pop().is_some_and(|is_case| is_case) {},
            Token::Number(..) | Token::SingleQuotedString(_) => self.intervals = 0,
            _ => {}
        }
        match keyword {
            Keyword::CASE => self.push(true, 1),
            Keyword::INTERVAL => self.intervals += 1,
            Keyword::END if self.open.last().is_some_and(|(is_case, _)| *is_case) => {
                self.pop();
            }
            _ => {}
        }
        self.last = Some(keyword);
        self.depth + self.intervals
    }

    fn push(&mut self, is_case: bool, weight: usize) {
        self.open.push((is_case, weight));
        self.depth += weight;
    }

    /// Closes the innermost; returns whether it was a `CASE`.
    fn pop(&mut self) -> Option<bool> {
        let (is_case, weight) = self.open.pop()?;
        self.depth -= weight;
        Some(is_case)
    }
}

/// How much a bracket after this keyword counts: nothing where the keyword leaves no doubt.
fn weight(keyword: Keyword) -> usize {
    match keyword {
        Keyword::NoKeyword
        | Keyword::ALL
        | Keyword::AND
        | Keyword::AS
        | Keyword::BY
        | Keyword::ELSE
        | Keyword::EXCEPT
        | Keyword::EXISTS
        | Keyword::FILTER
        | Keyword::FROM
        | Keyword::HAVING
        | Keyword::IN
        | Keyword::INTERSECT
        | Keyword::JOIN
        | Keyword::NOT
        | Keyword::ON
        | Keyword::OR
        | Keyword::OVER
        | Keyword::SELECT
        | Keyword::THEN
        | Keyword::UNION
        | Keyword::USING
        | Keyword::VALUES
        | Keyword::WHEN
        | Keyword::WHERE => 0,
        Keyword::POSITION => 2,
        _ => 1,
    }
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
struct Measure {
    depth: usize,
    relations: usize,
    /// Relations of each open query, with those that its common table expressions stand for.
    open: Vec<usize>,
    /// Names of common table expressions by the address of their query.
    definitions: HashMap<*const Query, String>,
    /// Relations that a common table expression stands for. Scopes are not told apart: of equal names the larger counts.
    expressions: HashMap<String, usize>,
}

impl Measure {
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

    fn add(&mut self, relations: usize) -> ControlFlow<&'static str> {
        if let Some(query) = self.open.last_mut() {
            *query = query.saturating_add(relations);
            if *query > MAX_EXPANDED_RELATIONS {
                return ControlFlow::Break("the statement has too many tables once its common table expressions are filled in");
            }
        }
        ControlFlow::Continue(())
    }
}

impl Visitor for Measure {
    type Break = &'static str;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        self.open.push(1);
        for expression in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.definitions.insert(&raw const *expression.query, expression.alias.name.value.to_lowercase());
        }
        self.enter()
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        let relations = self.open.pop().unwrap_or_default();
        match self.definitions.get(&(&raw const *query)) {
            Some(name) => {
                let known = self.expressions.entry(name.clone()).or_default();
                *known = relations.max(*known);
            }
            None => self.add(relations)?,
        }
        self.leave()
    }

    fn pre_visit_expr(&mut self, _expr: &Expr) -> ControlFlow<Self::Break> {
        self.enter()
    }

    fn post_visit_expr(&mut self, _expr: &Expr) -> ControlFlow<Self::Break> {
        self.leave()
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<Self::Break> {
        let name = relation.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.to_lowercase());
        let relations = name.and_then(|name| self.expressions.get(&name)).copied().unwrap_or(1);
        self.add(relations)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn depth(text: &str) -> usize {
        let (tokens, mut nesting) = (Tokenizer::new(&GenericDialect {}, text).tokenize().unwrap(), Nesting::default());
        tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))).map(|token| nesting.see(token)).max().unwrap()
    }

    #[test]
    fn only_what_is_open_counts_as_nested() {
        assert_eq!(depth("SELECT (1), f(g((2)))"), 0);
        assert_eq!(depth("SELECT CAST(1 AS int), CAST(CAST(2 AS int) AS int)"), 2);
        assert_eq!(depth("SELECT CASE WHEN a THEN 1 END, CASE WHEN a THEN CASE WHEN b THEN 1 END END"), 2);
        assert_eq!(depth("SELECT now() - INTERVAL '1' day - INTERVAL '2' day"), 1);
        assert_eq!(depth("SELECT (CASE WHEN CAST(a AS int"), 2);
        assert_eq!(depth("SELECT (CASE WHEN a) CAST(1 AS int)"), 1);
        assert_eq!(depth("SELECT * FROM (SELECT * FROM t WHERE a IN (1, 2) AND (b OR (c)))"), 0);
        assert_eq!(depth("SELECT ) END ] POSITION(1 IN 2)"), 2);
    }

    #[test]
    fn common_table_expressions_count_as_often_as_they_are_used() {
        let doubling = |levels: usize, exists: &str| {
            let steps = (1..levels).map(|n| format!("C{n} AS (SELECT a.n FROM c{} a {exists}, c{} b)", n - 1, n - 1));
            format!("WITH c0 AS (SELECT 1 AS n), {} SELECT * FROM c{}", steps.collect::<Vec<_>>().join(", "), levels - 1)
        };
        assert!(parse(&doubling(7, "")).is_ok());
        assert!(parse(&doubling(12, "")).is_err());
        assert!(parse(&doubling(40, "")).is_err());
        assert!(parse("WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t WHERE n < 9) SELECT * FROM t a, t b").is_ok());
        let nested = (0..60).fold("SELECT 1".to_owned(), |inner, n| format!("WITH d{n} AS ({inner}) SELECT 1 FROM d{n} a, d{n} b"));
        assert!(parse(&nested).is_err());
    }

    #[test]
    fn invalid_statements_are_refused_soon_however_they_nest() {
        let began = std::time::Instant::now();
        for part in
            ["CASE WHEN true THEN ", "CAST(", "ARRAY[", "INTERVAL ", "POSITION(", "CEIL(", "SUBSTRING(", "OVERLAY(", "CASE CAST(POSITION("]
        {
            for levels in [5, 8, 15, 20, 40, 400] {
                assert!(parse(&format!("SELECT {}1 (", part.repeat(levels))).is_err(), "{part} {levels}");
            }
        }
        assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
    }
}
