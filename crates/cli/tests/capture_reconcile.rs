//! `muniment reconcile`: nothing where the log is complete, whatever the rows are like; each difference where it isn't.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

mod captured;
mod support;

use captured::{Audited, SOURCE};
use muniment_testkit::PostgresOptions;
use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};
use support::ServerProcess;

const TABLES: &str = r#"
    CREATE TABLE t (id int PRIMARY KEY, n numeric, secret text, name text, flag bool, doc jsonb, double int GENERATED ALWAYS AS (id * 2) STORED);
    CREATE TABLE keyed (a text, b char(3), c int, PRIMARY KEY (b, a));
    CREATE TABLE keyless (a int, b text);
    CREATE TABLE "Sổ, ""A""" ("Mã" text PRIMARY KEY);
"#;
const ROWS: &str = r#"
    INSERT INTO t (id, n, secret, name, flag, doc) SELECT i, i / 3.0, 'hidden', 'n' || i, i % 2 = 0, json_build_object('i', i) FROM generate_series(1, 500) i;
    INSERT INTO keyed VALUES ('a', 'x', 1), ('"', 'y', 2), (E'\t\u0001', 'é', 3), ('B', '', 4), ('~', 'z', 5), ('', 'z', 6);
    INSERT INTO keyless VALUES (1, 'x'), (1, 'x'), (1, NULL), (2, repeat('long', 100));
    INSERT INTO "Sổ, ""A""" SELECT repeat('p', 64) || repeat(c, n) FROM unnest('{a,~,z,đ,"}"}'::text[]) c, generate_series(0, 90, 10) n ON CONFLICT DO NOTHING;
"#;

fn outcome(audited: &Audited, arguments: &[&str]) -> (i32, Value) {
    let output = audited.command(&[&["reconcile", SOURCE, "--json"], arguments].concat());
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), json)
}

async fn check(mode: &str) {
    let attach =
        ["--table", "public.*", "--snapshot", "initial", "--mode", mode, "--mask-column", "t.secret", "--exclude-column", "t.name"];
    let mut audited = Audited::start(&PostgresOptions::default()).await;
    audited.sql(TABLES).await;
    audited.sql(ROWS).await;
    audited.attach(&attach);
    audited.sql("UPDATE t SET n = n + 1, secret = 'other' WHERE id % 3 = 0; DELETE FROM t WHERE id % 50 = 0; INSERT INTO keyless VALUES (1, 'x')").await;
    audited
        .sql("DELETE FROM keyless WHERE ctid = (SELECT min(ctid) FROM keyless WHERE b = 'x'); UPDATE keyed SET a = a || '!' WHERE c < 3")
        .await;
    // Documents that could be taken for what a row says of a value.
    audited.sql(r#"UPDATE t SET doc = '{"$unchanged": true}' WHERE id % 7 = 1; UPDATE t SET doc = 'null' WHERE id % 7 = 2"#).await;
    let (code, found) = outcome(&audited, &[]);
    assert_eq!((code, &found["total"]), (0, &json!(0)), "{mode}: {found:#}");
    let rows: Vec<_> = found["tables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|table| (table["table"].as_str().unwrap(), table["live_rows"].as_u64().unwrap()))
        .collect();
    assert_eq!(rows, [("public.Sổ, \"A\"", 46), ("public.keyed", 6), ("public.keyless", 4), ("public.marker", 0), ("public.t", 490)]);
    audited.caught_up().await;

    // Changes that capture doesn't get to see.
    let bypass = match mode {
        "queue" => [
            "ALTER TABLE t DISABLE TRIGGER ALL; ALTER TABLE keyless DISABLE TRIGGER ALL",
            "ALTER TABLE t ENABLE TRIGGER ALL; ALTER TABLE keyless ENABLE TRIGGER ALL",
        ],
        _ => [
            "ALTER EVENT TRIGGER muniment_ddl DISABLE; ALTER PUBLICATION muniment_pg_postgres DROP TABLE t, keyless",
            "ALTER PUBLICATION muniment_pg_postgres ADD TABLE t (id, n, secret, flag, doc), keyless; ALTER EVENT TRIGGER muniment_ddl ENABLE",
        ],
    };
    audited.sql(bypass[0]).await;
    audited.sql("UPDATE t SET flag = NULL WHERE id = 7; DELETE FROM t WHERE id = 8; INSERT INTO t (id, n) VALUES (1000, 'NaN'); DELETE FROM keyless WHERE b = 'x'").await;
    audited.sql(bypass[1]).await;
    let (code, found) = outcome(&audited, &[]);
    assert_eq!((code, &found["total"]), (1, &json!(5)), "{mode}: {found:#}");
    let expected = json!([
        { "table": "public.keyless", "key": r#"["1","x"]"#, "kind": "extra", "count": 2 },
        { "table": "public.t", "key": "1000", "kind": "missing" },
        { "table": "public.t", "key": "7", "kind": "different", "columns": [{ "column": "flag", "live": null, "logged": false }] },
        { "table": "public.t", "key": "8", "kind": "extra" },
    ]);
    assert_eq!(found["differences"], expected, "{mode}");
    let (code, found) = outcome(&audited, &["--table", "public.keyed"]);
    assert_eq!((code, found["tables"].as_array().unwrap().len()), (0, 1));
    assert_eq!(audited.command(&["reconcile", SOURCE, "--table", "public.nothing"]).status.code(), Some(2));
    assert_eq!(audited.command(&["reconcile", "pg:nothing"]).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn replication_is_complete_or_the_differences_are_listed() {
    check("replication").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_complete_or_the_differences_are_listed() {
    check("queue").await;
}

/// The changes of a table come in no order of its keys, and are more than a query may keep in memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_larger_than_memory_is_sorted_on_disk() {
    let mut audited = Audited::start(&PostgresOptions::default()).await;
    let data = audited.muniment.data.clone();
    audited.muniment.kill();
    audited.muniment = ServerProcess::start(&data, &[("MUNIMENT_QUERY__MEMORY", "24MiB")]);
    audited.sql("CREATE TABLE t (id int PRIMARY KEY, n int, filler text)").await;
    audited.attach(&["--table", "public.t"]);
    for first in 0..4 {
        audited.sql(&format!("INSERT INTO t SELECT i * 4 + {first}, 0, repeat('x', 200) || i FROM generate_series(1, 15000) i")).await;
    }
    audited.sql("UPDATE t SET n = n + 1").await;
    audited.caught_up().await;
    let (code, found) = outcome(&audited, &["--table", "public.t"]);
    assert_eq!((code, &found["total"], &found["tables"][0]["live_rows"]), (0, &json!(0), &json!(60_000)), "{found:#}");
}

const ALTERED: &str = r#"
    CREATE TABLE widened (id int PRIMARY KEY, v text); INSERT INTO widened VALUES (1, 'a'), (2, 'b');
    CREATE TABLE renamed_column (id int PRIMARY KEY, v text); INSERT INTO renamed_column VALUES (1, 'a'), (2, 'b');
    CREATE TABLE former (id int PRIMARY KEY, v text); INSERT INTO former VALUES (1, 'a'), (2, 'b');
    CREATE TABLE dropped (id int PRIMARY KEY, v text); INSERT INTO dropped VALUES (1, 'a'), (2, 'b');
    CREATE TABLE rewritten (id int PRIMARY KEY, v text); INSERT INTO rewritten VALUES (1, 'a');
    CREATE TABLE rekeyed (id int PRIMARY KEY, code text NOT NULL); INSERT INTO rekeyed VALUES (1, 'a'), (2, 'b');
    CREATE TABLE keyless (v text, w int); INSERT INTO keyless VALUES ('a', 1), ('a', 1), ('b', 2);
    CREATE TABLE parted (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
    CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20); INSERT INTO parted VALUES (1, 'a'), (11, 'b');
    CREATE TABLE narrowed (id int PRIMARY KEY, a text, b text); INSERT INTO narrowed VALUES (1, 'a', 'b'), (2, 'a', 'b');
    CREATE TYPE pair AS (x int, y text); CREATE TABLE aliased (id int PRIMARY KEY, t pair, i text); INSERT INTO aliased VALUES (1, (5, 'q'), 'a'), (2, NULL, 'b');
    CREATE TABLE passed_on (k int PRIMARY KEY DEFERRABLE, v text); INSERT INTO passed_on VALUES (1, 'a'), (2, 'b'), (3, 'c');
    CREATE TABLE flagged (yes bool PRIMARY KEY, j json); INSERT INTO flagged VALUES (true, '{"$json":"null"}');
    CREATE TABLE moved (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE moved_1 PARTITION OF moved FOR VALUES FROM (0) TO (10); INSERT INTO moved VALUES (1);
"#;

/// DDL that leaves rows other than the log has them, though no row was changed.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_altered_renamed_or_dropped() {
    altered("replication").await;
}

/// The same by queue.
#[tokio::test(flavor = "multi_thread")]
async fn queued_tables_that_are_altered_renamed_or_dropped() {
    altered("queue").await;
}

async fn altered(mode: &str) {
    let mut audited = Audited::with(ALTERED, &["--table", "public.*", "--snapshot", "initial", "--mode", mode]).await;
    assert_eq!(outcome(&audited, &[]).0, 0);
    audited.sql("ALTER TABLE widened ADD COLUMN active bool NOT NULL DEFAULT true, ADD COLUMN plain int").await;
    audited.sql(r#"ALTER TABLE renamed_column RENAME COLUMN v TO "Văn"; UPDATE renamed_column SET "Văn" = 'C' WHERE id = 1"#).await;
    audited.sql("ALTER TABLE former RENAME TO latter; UPDATE latter SET v = 'c' WHERE id = 2").await;
    audited.sql("DROP TABLE dropped; CREATE TABLE dropped (id int PRIMARY KEY, z int); INSERT INTO dropped VALUES (9, 9)").await;
    audited.sql("ALTER TABLE parted ADD COLUMN w int NOT NULL DEFAULT 5; UPDATE parted SET v = 'c' WHERE id = 11").await;
    audited.sql("ALTER TABLE moved RENAME TO gone_on; INSERT INTO gone_on VALUES (2)").await;
    audited.sql("ALTER TABLE keyless ADD COLUMN x int DEFAULT 7; INSERT INTO keyless VALUES ('c', 3, 0)").await;
    audited.sql("ALTER TABLE narrowed DROP COLUMN a").await;
    audited
        .sql("BEGIN; SET CONSTRAINTS ALL DEFERRED; UPDATE passed_on SET k = CASE k WHEN 1 THEN 3 WHEN 3 THEN 1 ELSE k END; COMMIT")
        .await;
    audited.sql(r#"UPDATE flagged SET j = '1'"#).await;
    // What is still unread has the key that it had.
    audited.muniment.kill();
    audited.sql("UPDATE rekeyed SET code = 'c' WHERE id = 1; INSERT INTO rekeyed VALUES (3, 'd')").await;
    audited.sql("BEGIN; DELETE FROM rekeyed WHERE id = 2; ALTER TABLE rekeyed DROP CONSTRAINT rekeyed_pkey, ADD PRIMARY KEY (code); INSERT INTO rekeyed VALUES (4, 'e'); COMMIT").await;
    audited.sql("ALTER TABLE rekeyed RENAME COLUMN code TO name; UPDATE rekeyed SET id = 5 WHERE name = 'e'").await;
    audited.start_again();
    // A setting that anybody can make hides nothing.
    audited.sql("CREATE ROLE app; GRANT ALL ON SCHEMA public TO app; ALTER TABLE rewritten OWNER TO app").await;
    audited.sql("SET ROLE app; SET muniment.at_work = 'x'; SET muniment.rewritten = 'x'; ALTER TABLE rewritten ALTER v TYPE text USING v || '!'; CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1)").await;
    audited.caught_up().await;
    let (code, found) = outcome(&audited, &[]);
    assert_eq!((code, &found["total"]), (0, &json!(0)), "{mode}: {found:#}");
    let rows = |table: &str| {
        audited.succeed(&["at", table]).lines().map(|line| line.split("  (last").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(rows("public.former"), Vec::<String>::new());
    assert_eq!(rows("public.latter"), [r#"1  {"id":1,"v":"a"}"#, r#"2  {"id":2,"v":"c"}"#]);
    assert_eq!(rows("public.dropped"), [r#"9  {"id":9,"z":9}"#]);
    assert_eq!(rows("public.renamed_column"), [r#"1  {"id":1,"Văn":"C"}"#, r#"2  {"id":2,"Văn":"b"}"#]);
    assert_eq!(
        rows("public.widened"),
        [r#"1  {"id":1,"v":"a","active":true,"plain":null}"#, r#"2  {"id":2,"v":"b","active":true,"plain":null}"#]
    );
    assert_eq!(rows("public.rekeyed"), [r#"c  {"id":1,"name":"c"}"#, r#"d  {"id":3,"name":"d"}"#, r#"e  {"id":5,"name":"e"}"#]);
    let changes: Vec<String> = audited
        .log("table_name = 'public.rekeyed' AND operation IN ('INSERT', 'UPDATE', 'DELETE')")
        .iter()
        .map(|change| format!("{} {}", change.operation, change.key))
        .collect();
    assert_eq!(changes, ["UPDATE 1", "INSERT 3", "DELETE 2", "INSERT e", "UPDATE e"]);
    assert_eq!(rows("public.moved"), Vec::<String>::new());
    assert_eq!(rows("public.parted")[0], r#"1  {"id":1,"v":"a","w":5}"#);
    assert_eq!(rows("public.rewritten"), [r#"1  {"id":1,"v":"a!"}"#]);
    assert_eq!(rows("public.narrowed"), [r#"1  {"id":1,"b":"b"}"#, r#"2  {"id":2,"b":"b"}"#]);
    assert_eq!(rows("public.aliased")[0], r#"1  {"id":1,"t":"(5,q)","i":"a"}"#);
    assert_eq!(rows("public.passed_on"), [r#"1  {"k":1,"v":"c"}"#, r#"2  {"k":2,"v":"b"}"#, r#"3  {"k":3,"v":"a"}"#]);
    assert!(audited.findings().iter().any(|finding| finding.starts_with("CAPTURE_BYPASSED public.rewritten")), "{:?}", audited.findings());
}

/// What is taken back is what was there, also where it looks like a note of ours, where the key is no text, and where a column is gone since.
#[tokio::test(flavor = "multi_thread")]
async fn values_that_undo_writes_back() {
    for mode in ["replication", "queue"] {
        let mut audited = Audited::with(ALTERED, &["--table", "public.*", "--snapshot", "initial", "--mode", mode]).await;
        audited.sql("ALTER TABLE narrowed DROP COLUMN a").await;
        audited.caught_up().await;
        assert_eq!(outcome(&audited, &[]).0, 0, "{mode}");
        let made = "SELECT muniment.context('{\"user_name\":\"lan\"}')";
        audited.sql(&format!("BEGIN; {made}; UPDATE flagged SET j = '1'; UPDATE narrowed SET b = 'c' WHERE id = 1; DELETE FROM narrowed WHERE id = 2; COMMIT")).await;
        audited.caught_up().await;
        let query = "SELECT DISTINCT transaction_id FROM sys_audit_log WHERE changed_by_username = 'lan'";
        let transaction = audited.ask(query)[0]["transaction_id"].as_str().unwrap().to_owned();
        let script = audited.succeed(&["undo", "--transaction", &transaction]);
        audited.sql(&script).await;
        audited.caught_up().await;
        let rows = |table: &str| {
            audited.succeed(&["at", table]).lines().map(|line| line.split("  (last").next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(rows("public.flagged"), [r#"t  {"yes":true,"j":{"$json":"{\"$json\":\"null\"}"}}"#], "{mode}");
        assert_eq!(rows("public.narrowed"), [r#"1  {"id":1,"b":"b"}"#, r#"2  {"id":2,"b":"b"}"#], "{mode}");
        assert_eq!(outcome(&audited, &[]).0, 0, "{mode}");
    }
}

const RENAMED: &str = r#"
    CREATE TABLE people (id int PRIMARY KEY, secret text, pin text); INSERT INTO people VALUES (1, 'CLEAR', 'CLEAR');
    CREATE SCHEMA first; CREATE TABLE first.t (id int PRIMARY KEY, v text); INSERT INTO first.t VALUES (1, 'a');
    CREATE TYPE kind AS ENUM ('a'); CREATE TABLE typed (k kind PRIMARY KEY, w int); INSERT INTO typed VALUES ('a', 1);
    CREATE TABLE whole (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE part (id int PRIMARY KEY); INSERT INTO part VALUES (1);
    CREATE TABLE swapped (id int PRIMARY KEY, v text); INSERT INTO swapped VALUES (1, 'a'), (2, 'b');
"#;

/// What comes under other names, and is the same.
#[tokio::test(flavor = "multi_thread")]
async fn hidden_columns_schemas_and_partitions_under_other_names() {
    let attach = ["--table", "*.*", "--snapshot", "initial", "--exclude-column", "people.secret", "--mask-column", "people.pin"];
    let mut audited = Audited::with(RENAMED, &attach).await;
    audited.sql("UPDATE people SET secret = 'CLEAR1', pin = 'CLEAR1'").await;
    audited.sql("ALTER TABLE people RENAME secret TO other; ALTER TABLE people RENAME pin TO number").await;
    audited.sql("UPDATE people SET other = 'CLEAR2', number = 'CLEAR2'").await;
    audited.sql("ALTER TABLE people RENAME TO persons; UPDATE persons SET other = 'CLEAR3', number = 'CLEAR3'").await;
    audited.sql("ALTER SCHEMA first RENAME TO second; INSERT INTO second.t VALUES (2, 'b')").await;
    audited.sql("DROP TYPE kind CASCADE; UPDATE typed SET w = 2").await;
    audited.sql("ALTER TABLE whole ATTACH PARTITION part FOR VALUES FROM (0) TO (10); INSERT INTO whole VALUES (2)").await;
    audited.sql("ALTER TABLE whole DETACH PARTITION part; INSERT INTO part VALUES (3); DELETE FROM part WHERE id < 3").await;
    audited.sql("CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1)").await;
    audited.sql("BEGIN; UPDATE swapped SET id = 100 WHERE id = 1; UPDATE swapped SET id = 1 WHERE id = 2; UPDATE swapped SET id = 2 WHERE id = 100; COMMIT").await;
    audited.caught_up().await;
    let values: Vec<String> = audited
        .log("true")
        .iter()
        .map(|record| format!("{:?} {:?}", record.old, record.new))
        .filter(|text| text.contains("CLEAR"))
        .collect();
    assert_eq!(values, Vec::<String>::new());
    let (code, found) = outcome(
        &audited,
        &[
            "--table",
            "public.persons",
            "--table",
            "second.t",
            "--table",
            "public.typed",
            "--table",
            "public.part",
            "--table",
            "public.later",
            "--table",
            "public.swapped",
        ],
    );
    assert_eq!((code, &found["total"]), (0, &json!(0)), "{found:#}");
    let rows = |audited: &Audited, table: &str| {
        audited.succeed(&["at", table]).lines().map(|line| line.split("  (last").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(rows(&audited, "public.people"), Vec::<String>::new());
    assert_eq!(rows(&audited, "first.t"), Vec::<String>::new());
    assert_eq!(rows(&audited, "public.part"), [r#"3  {"id":3}"#]);
    assert_eq!(rows(&audited, "public.swapped"), [r#"1  {"id":1,"v":"b"}"#, r#"2  {"id":2,"v":"a"}"#]);
    // Detached, changed, and attached again: what happened meanwhile is not known, and not believed.
    audited.succeed(&["detach", SOURCE]);
    audited.sql("DELETE FROM swapped WHERE id = 1; UPDATE persons SET id = 7").await;
    audited.attach(&["--table", "public.swapped", "--table", "public.persons", "--snapshot", "initial"]);
    audited.caught_up().await;
    let (code, found) = outcome(&audited, &[]);
    assert_eq!((code, &found["total"]), (0, &json!(0)), "{found:#}");
    assert_eq!(rows(&audited, "public.swapped"), [r#"2  {"id":2,"v":"a"}"#]);
}

const PARTED: &str = r#"
    CREATE TABLE log (id int, at date NOT NULL, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    CREATE TABLE log_2 PARTITION OF log FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
    CREATE TABLE log_3 PARTITION OF log FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    INSERT INTO log SELECT i, date '2024-01-01' + i * 3, 'v' || i FROM generate_series(0, 360) i;
    CREATE SCHEMA other; CREATE TABLE other.log_0 (LIKE log INCLUDING ALL); INSERT INTO other.log_0 VALUES (1000, '2023-05-05', 'old');
    CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a int, m mood[]);
    CREATE TABLE moody (id int PRIMARY KEY, m mood, p pair); INSERT INTO moody VALUES (1, 'sad', (1, '{sad,ok}')), (2, 'ok', NULL);
"#;

/// Partitions that go with their rows, and types whose labels have other names: no row changes.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_and_labels_that_change_rows_by_the_way() {
    for mode in ["replication", "queue"] {
        let mut audited = Audited::with(PARTED, &["--table", "public.*", "--snapshot", "initial", "--mode", mode]).await;
        assert_eq!(outcome(&audited, &[]).0, 0, "{mode}");
        let steps = [
            "ALTER TABLE log DETACH PARTITION log_1; INSERT INTO log VALUES (2000, '2025-03-03', 'new')",
            "INSERT INTO log_1 VALUES (5000, '2024-03-03', 'elsewhere'); TRUNCATE log_1",
            "DROP TABLE log_2",
            "ALTER TABLE log ATTACH PARTITION other.log_0 FOR VALUES FROM ('2023-01-01') TO ('2024-01-01')",
            "UPDATE log SET v = 'x' WHERE id = 1000; TRUNCATE log_3",
            "INSERT INTO log VALUES (3000, '2026-03-03', 'after'); TRUNCATE log; INSERT INTO log VALUES (3001, '2026-03-03', 'last')",
            "CREATE TABLE loose (LIKE log INCLUDING ALL); INSERT INTO loose VALUES (4000, '2030-03-03', 'loose'); UPDATE loose SET v = 'tight'",
            "ALTER TABLE log ATTACH PARTITION loose FOR VALUES FROM ('2030-01-01') TO ('2031-01-01'); UPDATE log SET v = 'part' WHERE id = 4000",
            "ALTER TABLE log DETACH PARTITION loose; INSERT INTO loose VALUES (4001, '2030-03-04', 'more')",
            "ALTER TABLE log ATTACH PARTITION loose FOR VALUES FROM ('2030-01-01') TO ('2031-01-01'); DELETE FROM log WHERE id = 4000",
            "ALTER TABLE moody ADD COLUMN note text; UPDATE moody SET note = 'a'",
            "ALTER TABLE moody DROP COLUMN note; ALTER TABLE moody ADD COLUMN note text",
            "CREATE TABLE made AS SELECT id, v FROM log",
            "ALTER TYPE mood ADD VALUE 'glad'",
            "INSERT INTO moody VALUES (3, 'glad', (2, '{glad}'))",
            "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
            "UPDATE moody SET m = 'blue' WHERE id = 2",
            "ALTER TYPE pair ADD ATTRIBUTE b text CASCADE",
        ];
        for step in steps {
            // What a type needs comes in a transaction of its own.
            audited.sql(step).await;
            audited.caught_up().await;
            let (code, found) = outcome(&audited, &[]);
            assert_eq!((code, &found["total"]), (0, &json!(0)), "{mode}, {step}: {found:#}");
        }
        let ddl: Vec<String> = audited.log("operation = 'DDL'").iter().map(|record| record.table.clone()).collect();
        assert!(ddl.iter().filter(|table| *table == "public.moody").count() >= 3, "{mode}: {ddl:?}");
    }
}

/// What is left out stays left out, and the application's statements succeed, whatever becomes of the tables.
#[tokio::test(flavor = "multi_thread")]
async fn tables_with_hidden_columns_stay_writable() {
    for mode in ["replication", "queue"] {
        let tables = "CREATE TABLE a (id int PRIMARY KEY, pw text, pin text); CREATE TABLE d (id int PRIMARY KEY, v text); CREATE TABLE parent (id int PRIMARY KEY, pw text)";
        let hide =
            ["--table", "public.*", "--mode", mode, "--exclude-column", "*.*.pw", "--mask-column", "*.*.pin", "--mask-column", "*.*.y"];
        let mut audited = Audited::with(tables, &hide).await;
        let steps = [
            "INSERT INTO a VALUES (50, 'SECRET', 'SECRET'); ALTER TABLE a ADD COLUMN y text DEFAULT 'SECRET'; UPDATE a SET pw = 'SECRET'",
            "DO $$ BEGIN UPDATE a SET pin = 'SECRET'; ALTER TABLE a ADD COLUMN z int; END $$",
            "CREATE TABLE b (x int, pw text); INSERT INTO b VALUES (1, 'SECRET'); UPDATE b SET x = 2; DELETE FROM b",
            "INSERT INTO d VALUES (1, 'a'); ALTER TABLE d ADD COLUMN pw text; UPDATE d SET v = 'b', pw = 'SECRET'",
            "CREATE TABLE child (x int) INHERITS (parent); INSERT INTO child VALUES (1, 'SECRET', 2); UPDATE parent SET id = 2; UPDATE child SET x = 3",
            "ALTER TABLE a DROP CONSTRAINT a_pkey; UPDATE a SET id = 51; DELETE FROM a",
            "INSERT INTO d VALUES (2, 'last', 'SECRET')",
        ];
        for step in steps {
            audited.sql(step).await;
        }
        audited.caught_up().await;
        let secrets = audited.ask("SELECT count(*) AS n FROM sys_audit_log WHERE CAST(old_values AS VARCHAR) LIKE '%SECRET%' OR CAST(new_values AS VARCHAR) LIKE '%SECRET%' OR change_details LIKE '%SECRET%'");
        assert_eq!(secrets[0]["n"], 0, "{mode}");
        let changes: Vec<_> =
            audited.log("table_name = 'public.d' AND operation = 'INSERT'").iter().map(|record| record.key.clone()).collect();
        assert_eq!(changes, ["1", "2"], "{mode}");
        if mode == "replication" {
            let (code, found) = outcome(&audited, &[]);
            assert_eq!((code, &found["uncaptured"]), (1, &json!(["public.a", "public.b", "public.child"])), "{found:#}");
        }
    }
}

/// A publication that somebody alters is put right at once, and that is told.
#[tokio::test(flavor = "multi_thread")]
async fn an_altered_publication_is_put_right() {
    let mut audited =
        Audited::with("CREATE TABLE t (id int PRIMARY KEY, n int); CREATE TABLE u (id int PRIMARY KEY)", &["--table", "public.*"]).await;
    let name = "muniment_pg_postgres";
    for tampering in ["DROP TABLE t", "SET (publish = 'insert')", "SET TABLE u", "SET TABLE t WHERE (id > 10), u"] {
        audited.sql(&format!("ALTER PUBLICATION {name} {tampering}; INSERT INTO t VALUES (1, 0); UPDATE t SET n = 1; DELETE FROM t; INSERT INTO u VALUES (1); TRUNCATE u")).await;
    }
    audited.caught_up().await;
    let count = |operation: &str| audited.log(&format!("table_name = 'public.t' AND operation = '{operation}'")).len();
    assert_eq!(["INSERT", "UPDATE", "DELETE"].map(count), [4, 4, 4]);
    assert_eq!(outcome(&audited, &[]).0, 0);
    let findings = audited.findings();
    assert!(findings.iter().filter(|finding| finding.starts_with("CAPTURE_BYPASSED public.t")).count() >= 4, "{findings:?}");
}

/// A name belongs to one database.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_not_taken_over_by_another_database() {
    let mut audited = Audited::with("CREATE TABLE t (id int PRIMARY KEY)", &["--table", "public.t"]).await;
    audited.sql("CREATE DATABASE other").await;
    let mut other = PgConnection::connect_with(&audited.server.connect_options("other")).await.unwrap();
    other.execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let output = audited.command(&["attach", &audited.server.url("other"), "--name", SOURCE, "--table", "public.t"]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("this database knows nothing of it"), "{said}");
    audited.sql("INSERT INTO t VALUES (1)").await;
    audited.caught_up().await;
    assert_eq!(outcome(&audited, &[]).0, 0);
}
