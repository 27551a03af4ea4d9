"""The peers that `cargo xtask bench` measures Muniment against: ClickHouse (chDB), SQLite and DuckDB.

Each command measures one peer on the events file that Muniment reads, too, and prints one JSON object:

    python bench/peers.py clickhouse --events FILE --rows N [--threads 2]
    python bench/peers.py sqlite     --events FILE --rows N
    python bench/peers.py duckdb     --parquet 'GLOB' [--threads 2]

Needs the packages in bench/requirements.txt.
"""

import argparse
import json
import os
import pathlib
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time

COLUMNS = [
    # name, ClickHouse type, SQLite type
    ("table_name", "LowCardinality(String)", "TEXT NOT NULL"),
    ("operation", "LowCardinality(String)", "TEXT NOT NULL"),
    ("primary_key", "String", "TEXT NOT NULL"),
    ("old_values", "String", "TEXT"),
    ("new_values", "String", "TEXT"),
    ("change_details", "String", "TEXT"),
    ("changed_by", "Int64", "INTEGER"),
    ("changed_by_username", "LowCardinality(String)", "TEXT"),
    ("changed_at", "DateTime64(6, 'UTC')", "TEXT NOT NULL"),
    ("ip_address", "String", "TEXT"),
    ("user_agent", "String", "TEXT"),
    ("session_id", "String", "TEXT"),
    ("change_reason", "String", "TEXT"),
    ("business_context", "LowCardinality(String)", "TEXT"),
    ("workflow_instance_id", "String", "TEXT"),
    ("compliance_level", "UInt8 DEFAULT 1", "INTEGER NOT NULL DEFAULT 1"),
    ("retention_years", "Int32 DEFAULT 7", "INTEGER NOT NULL DEFAULT 7"),
    ("change_size", "Int32", "INTEGER"),
    ("processing_time", "Int32", "INTEGER"),
]

# The five indexes that the seeds give SYS_AUDIT_LOG.
INDEXES = [
    "CREATE INDEX ix_audit_table_date ON sys_audit_log(table_name, changed_at DESC)",
    "CREATE INDEX ix_audit_user ON sys_audit_log(changed_by, changed_at DESC)",
    "CREATE INDEX ix_audit_context ON sys_audit_log(business_context, changed_at DESC)",
    "CREATE INDEX ix_audit_primary_key ON sys_audit_log(table_name, primary_key, changed_at DESC)",
    "CREATE INDEX ix_audit_workflow ON sys_audit_log(workflow_instance_id, changed_at DESC)",
]


def clickhouse(events: pathlib.Path, rows: int, threads: int, folder: pathlib.Path) -> dict:
    """Rows a second into a MergeTree, as fast as ClickHouse goes.

    Absent values become defaults (Nullable columns cost it a tenth), its block sizes stay at their defaults (larger ones gained
    nothing), parsing is parallel; nothing is hashed and nothing is synced to disk.
    """
    import chdb
    from chdb.session import Session

    session = Session(str(folder / "clickhouse"))
    columns = ", ".join(f"{name} {kind}" for name, kind, _ in COLUMNS)
    session.query("CREATE DATABASE bench ENGINE = Atomic")
    session.query(
        f"CREATE TABLE bench.sys_audit_log ({columns}) ENGINE = MergeTree "
        "PARTITION BY toYYYYMM(changed_at) ORDER BY (table_name, changed_at)"
    )
    present = [column for column in COLUMNS if column[0] not in ABSENT]
    names = ", ".join(name for name, _, _ in present)
    structure = ", ".join(f"{name} {kind}" for name, kind, _ in present).replace("'", "\\'")
    settings = ", ".join(
        f"{name} = {value}"
        for name, value in {
            "max_threads": threads,
            "max_insert_threads": threads,
            "input_format_parallel_parsing": 1,
            "input_format_json_read_objects_as_strings": 1,
            "date_time_input_format": "'best_effort'",
        }.items()
    )
    start = time.perf_counter()
    session.query(
        f"INSERT INTO bench.sys_audit_log ({names}) "
        f"SELECT {names} FROM file('{events}', 'JSONEachRow', '{structure}') SETTINGS {settings}"
    )
    seconds = time.perf_counter() - start
    count = int(str(session.query("SELECT count() FROM bench.sys_audit_log", "TSV")))
    if count != rows:
        raise SystemExit(f"ClickHouse holds {count} rows, expected {rows}")
    on_disk = "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = 'bench'"
    inserted = int(str(session.query(on_disk, "TSV")))
    session.query("OPTIMIZE TABLE bench.sys_audit_log FINAL")
    merged = int(str(session.query(on_disk, "TSV")))
    version = str(session.query("SELECT version()", "TSV")).strip()
    session.close()
    return {
        "peer": f"ClickHouse {version} (chDB {chdb.__version__})",
        "rows": count,
        "seconds": seconds,
        "rows_per_second": count / seconds,
        "bytes_per_row": inserted / count,
        "bytes_per_row_merged": merged / count,
    }


# Columns that no event of the benchmark has.
ABSENT = {"user_agent", "compliance_level", "retention_years", "change_size", "processing_time"}


def sqlite(events: pathlib.Path, rows: int, folder: pathlib.Path) -> dict:
    """Rows a second, durable, in transactions of 10,000 rows, from lines parsed in advance."""
    path = folder / "peer.sqlite"
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    columns = ", ".join(f"{name} {kind}" for name, _, kind in COLUMNS)
    database.execute(f"CREATE TABLE sys_audit_log (id INTEGER PRIMARY KEY, {columns})")
    for index in INDEXES:
        database.execute(index)
    names = [name for name, _, _ in COLUMNS if name not in ABSENT]
    insert = f"INSERT INTO sys_audit_log ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    seconds = 0.0
    count = 0
    with open(events, encoding="utf-8") as lines:
        while count < rows:
            batch = [sqlite_row(line, names) for line, _ in zip(lines, range(min(10_000, rows - count)))]
            if not batch:
                break
            start = time.perf_counter()
            database.execute("BEGIN IMMEDIATE")
            database.executemany(insert, batch)
            database.execute("COMMIT")
            seconds += time.perf_counter() - start
            count += len(batch)
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return {
        "peer": f"SQLite {sqlite3.sqlite_version}",
        "rows": count,
        "seconds": seconds,
        "rows_per_second": count / seconds,
        "bytes_per_row": path.stat().st_size / count,
    }


def sqlite_row(line: str, names: list[str]) -> list:
    """The values of one event, its JSON documents as text."""
    event = json.loads(line)
    values = (event.get(name) for name in names)
    return [json.dumps(v, ensure_ascii=False, separators=(",", ":")) if isinstance(v, dict) else v for v in values]


MONTH_QUERY = """
SELECT table_name, operation, count(*) AS changes, count(DISTINCT changed_by) AS people
FROM {source}
WHERE changed_at >= TIMESTAMPTZ '2025-06-01 00:00:00+00' AND changed_at < TIMESTAMPTZ '2025-07-01 00:00:00+00'
GROUP BY table_name, operation ORDER BY table_name, operation
"""
YEAR_QUERY = """
SELECT CAST(month AS VARCHAR), table_name, changes FROM (
    SELECT date_trunc('month', changed_at) AS month, table_name, count(*) AS changes
    FROM {source} WHERE table_name NOT LIKE 'muniment.%' GROUP BY 1, 2 ORDER BY 1, 2
)
"""


def duckdb(parquet: str, threads: int, runs: int = 5) -> dict:
    """Median seconds of the two aggregations over Parquet files, after one run to warm the file cache."""
    import duckdb as engine

    connection = engine.connect()
    connection.execute(f"SET threads = {threads}")
    connection.execute("SET TimeZone = 'UTC'")
    result = {"peer": f"DuckDB {engine.__version__}"}
    source = f"read_parquet('{parquet}')"
    result["rows"] = connection.execute(f"SELECT count(*) FROM {source}").fetchone()[0]
    for name, query in (("month", MONTH_QUERY), ("year", YEAR_QUERY)):
        text = query.format(source=source)
        times = []
        for _ in range(runs + 1):
            start = time.perf_counter()
            answer = connection.execute(text).fetchall()
            times.append(time.perf_counter() - start)
        result[f"{name}_seconds"] = statistics.median(times[1:])
        result[f"{name}_groups"] = len(answer)
        result[f"{name}_changes"] = sum(row[2] for row in answer)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=["clickhouse", "sqlite", "duckdb"])
    parser.add_argument("--events", type=pathlib.Path)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--parquet")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=pathlib.Path, help="where peers keep their data; a new folder inside it is used and removed")
    options = parser.parse_args()
    if options.peer == "duckdb":
        if not options.parquet:
            parser.error("duckdb needs --parquet")
        json.dump(duckdb(options.parquet, options.threads), sys.stdout)
        return
    if not options.events or not options.rows:
        parser.error(f"{options.peer} needs --events and --rows")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="peer-", dir=options.folder))
    try:
        if options.peer == "clickhouse":
            result = clickhouse(options.events.resolve(), options.rows, options.threads, folder)
        else:
            result = sqlite(options.events, options.rows, folder)
        json.dump(result, sys.stdout)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
