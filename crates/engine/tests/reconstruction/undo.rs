//! Random work on real databases, logged as it happens: a transaction is taken back exactly if no later one depends on it, and then the rows are what they were.

use crate::Log;
use crate::databases::{CASES, Database, PARTS};
use muniment_engine::history::{Dialect, Selection};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};

type Rows = BTreeMap<(&'static str, String), String>;

/// Numbers that look random and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A transaction as it was made.
struct Made {
    before: Rows,
    changed: BTreeSet<(&'static str, String)>,
}

/// The key as the log has it.
fn key(text: &str) -> String {
    match serde_json::from_str::<Vec<String>>(text) {
        Ok(parts) => muniment_key(&parts),
        Err(_) => text.to_owned(),
    }
}

fn muniment_key(parts: &[String]) -> String {
    serde_json::to_string(parts).unwrap()
}

fn line(transaction: usize, (table, of): &(&'static str, String), old: Option<&String>, new: Option<&String>) -> String {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        table_name: &'a str,
        operation: &'a str,
        primary_key: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        old_values: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        new_values: Option<&'a RawValue>,
        transaction_id: String,
        changed_by: usize,
        changed_at: usize,
    }
    let operation = match (old, new) {
        (None, _) => "INSERT",
        (_, None) => "DELETE",
        _ => "UPDATE",
    };
    let raw = |text: &String| serde_json::from_str::<&RawValue>(Box::leak(text.replace('\n', " ").into_boxed_str())).unwrap();
    let line = Line {
        table_name: table,
        operation,
        primary_key: key(of),
        old_values: old.map(raw),
        new_values: new.map(raw),
        transaction_id: format!("t:{transaction}"),
        changed_by: transaction,
        changed_at: 1_700_000_000_000_000 + transaction,
    };
    serde_json::to_string(&line).unwrap()
}

fn quoted(table: &str) -> String {
    let (schema, name) = table.split_once('.').unwrap();
    format!("\"{schema}\".\"{}\"", name.replace('"', "\"\""))
}

/// A statement on a random row.
fn statement(database: &Database, numbers: &mut Numbers) -> String {
    let (choice, what, id) = (numbers.next(), numbers.next() % 5, numbers.next() % 6);
    if numbers.next().is_multiple_of(3) {
        let note = ["'a'", "NULL", "'b''c'"][(choice % 3) as usize];
        return match what {
            0 => format!("DELETE FROM {} WHERE hoso = 'h {id}'", quoted(PARTS)),
            1 => format!("UPDATE {} SET number = number + 10, note = {note} WHERE hoso = 'h {id}'", quoted(PARTS)),
            _ => format!("INSERT INTO {} VALUES ('h {id}', {}, {note}) ON CONFLICT DO NOTHING", quoted(PARTS), choice % 3),
        };
    }
    let values = database.values(choice);
    let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
    let list: Vec<&str> = values.iter().map(|(_, value)| *value).collect();
    let some = |(name, value): &(&str, &str)| format!("{name} = {value}");
    match what {
        0 => format!("DELETE FROM {} WHERE id = {id}", quoted(CASES)),
        1 | 2 => {
            let first = (choice % values.len() as u64) as usize;
            let set: Vec<String> = values[first..].iter().map(some).collect();
            format!("UPDATE {} SET {} WHERE id = {id}", quoted(CASES), set.join(", "))
        }
        _ => {
            let overriding = if database.dialect() == Dialect::Postgresql { "OVERRIDING SYSTEM VALUE" } else { "" };
            let (names, list) = (names.join(", "), list.join(", "));
            format!("INSERT INTO {} (id, {names}) {overriding} VALUES ({id}, {list}) ON CONFLICT DO NOTHING", quoted(CASES))
        }
    }
}

/// Makes a transaction and logs it: what each of its statements did, in order.
async fn make(database: &mut Database, log: &Log, numbers: &mut Numbers, number: usize) -> Made {
    let before = database.dump().await;
    let (mut now, mut lines, mut changed) = (before.clone(), Vec::new(), BTreeSet::new());
    for _ in 0..=numbers.next() % 4 {
        let sql = statement(database, numbers);
        database.run(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let after = database.dump().await;
        let keys: BTreeSet<_> = now.keys().chain(after.keys()).filter(|key| now.get(*key) != after.get(*key)).cloned().collect();
        let (gone, kept): (Vec<_>, Vec<_>) = keys.iter().partition(|key| !after.contains_key(*key));
        lines.extend(gone.iter().chain(&kept).map(|key| line(number, key, now.get(*key), after.get(*key))));
        changed.extend(keys);
        now = after;
    }
    if !lines.is_empty() {
        log.send(&lines).await;
    }
    Made { before, changed }
}

async fn random_work(mut database: Database, seed: u64) {
    let (log, mut numbers) = (Log::new().await, Numbers(seed));
    let mut made = Vec::new();
    for number in 0..30 {
        made.push(make(&mut database, &log, &mut numbers, number).await);
        if number == 20 {
            log.flush().await;
        }
    }
    let now = database.dump().await;
    let (mut taken_back, mut refused) = (0, 0);
    for (number, transaction) in made.iter().enumerate().filter(|(_, transaction)| !transaction.changed.is_empty()) {
        let undo = log.undo(&Selection::Transaction(format!("t:{number}")), database.dialect()).await.unwrap();
        let depends = made[number + 1..].iter().any(|later| !later.changed.is_disjoint(&transaction.changed));
        assert_eq!(undo.script.is_none(), depends, "transaction {number}: {undo:?}");
        let Some(script) = undo.script else {
            refused += 1;
            assert!(undo.refusals.iter().all(|refusal| refusal.later.is_some_and(|later| later > refusal.record)), "{undo:?}");
            continue;
        };
        taken_back += 1;
        let (work, _) = script.rsplit_once("COMMIT;").unwrap();
        database.run(work).await.unwrap_or_else(|error| panic!("{script}\n{error:?}"));
        let restored = database.dump().await;
        for key in now.keys().chain(transaction.before.keys()) {
            let expected = if transaction.changed.contains(key) { transaction.before.get(key) } else { now.get(key) };
            assert_eq!(restored.get(key), expected, "{key:?}\n{script}");
        }
        database.run("ROLLBACK").await.unwrap();
        assert_eq!(database.dump().await, now);
    }
    assert!(taken_back > 2 && refused > 2, "{taken_back} {refused}");
    everything(database, &log, made).await;
}

/// All transactions of a user since an instant, taken back for good, end in the state before; and a second time nothing is found as expected.
async fn everything(mut database: Database, log: &Log, made: Vec<Made>) {
    let from = 1_700_000_000_000_000;
    let all = Selection::Transaction("t:none".to_owned());
    assert!(log.undo(&all, database.dialect()).await.is_none());
    let number = made.len() - 1 - made.iter().rev().position(|made| !made.changed.is_empty()).unwrap();
    let last = Selection::User { name: None, id: Some(number as i64), from, to: from + 1_000_000 };
    let script = log.undo(&last, database.dialect()).await.unwrap().script.unwrap();
    database.run(&script).await.unwrap_or_else(|error| panic!("{script}\n{error:?}"));
    assert_eq!(database.dump().await, made[number].before);
    assert!(database.run(&script).await.is_err(), "the rows are no longer as the log says:\n{script}");
    let _ = database.run("ROLLBACK").await;
    assert_eq!(database.dump().await, made[number].before, "a script that fails changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite() {
    for seed in [7, 77, 777, 7777] {
        random_work(Database::sqlite().await, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgresql() {
    let mut database = Database::postgres().await;
    for seed in [3, 33] {
        random_work(database, seed).await;
        database = Database::postgres().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_on_after_an_error_changes_nothing_on_sqlite() {
    let (mut database, log) = (Database::sqlite().await, Log::new().await);
    let mut lines = Vec::new();
    for id in 1..=3 {
        database.run(&format!("INSERT INTO {} (id, amount) VALUES ({id}, 5)", quoted(CASES))).await.unwrap();
        let row = database.dump().await[&(CASES, id.to_string())].clone();
        lines.push(line(1, &(CASES, id.to_string()), None, Some(&row)));
    }
    log.send(&lines).await;
    let script = log.undo(&Selection::Transaction("t:1".to_owned()), Dialect::Sqlite).await.unwrap().script.unwrap();
    database.run(&format!("UPDATE {} SET amount = 6 WHERE id = 2", quoted(CASES))).await.unwrap();
    let before = database.dump().await;
    for statement in script.split_inclusive(";\n") {
        let _ = database.run(statement).await;
    }
    assert_eq!(database.dump().await, before, "{script}");
}
