"""Backend CPU of an audited transaction by trigger queue, against the same one unaudited.

    python3 bench/queue.py SOCKET_FOLDER PORT DATA_FOLDER

needs psql and pgbench, and a PostgreSQL of its own that may be written to, with autovacuum off, on the same machine: CPU is read from /proc, as
the time of the server's processes that have ended. Each run is paired with an unaudited one just before it; the median of the pairs' ratios is shown.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

SQL = pathlib.Path(__file__).resolve().parent.parent / "crates/capture/src/queue/postgres/sql"
TRANSACTIONS = int(os.environ.get("TRANSACTIONS", "8000"))
ROUNDS = int(os.environ.get("ROUNDS", "5"))

TABLE = """
DROP SCHEMA IF EXISTS muniment CASCADE;
DROP TABLE IF EXISTS hoso;
CREATE TABLE hoso (id bigint PRIMARY KEY, code text NOT NULL, title text, status smallint NOT NULL, amount numeric(18,2), ratio float8,
    owner_id bigint, created_at timestamptz NOT NULL, updated_at timestamptz, due date, tags jsonb, note text);
INSERT INTO hoso SELECT i, 'HS-' || i, 'title ' || i, i % 7, i * 1.25, i / 3.0, i % 1000, now(), now(), '2024-01-01'::date + i % 1000,
    '{"a":1,"b":[1,2]}', repeat('x', 100) FROM generate_series(1, 200000) i;
VACUUM ANALYZE hoso;
"""

TRANSACTION = """
\\set k random(1, 200000)
\\set n random(1000000, 2000000000)
BEGIN;
UPDATE hoso SET status = (status + 1) % 7, amount = amount + 1, updated_at = now() WHERE id = :k;
INSERT INTO hoso VALUES (:n, 'HS-new', 'title', 1, 12.5, 0.3, 7, now(), now(), '2024-05-05', '{"a":1}', 'a note of moderate length for this row');
DELETE FROM hoso WHERE id = :n;
COMMIT;
"""

# The design taken literally: JSON images, a key and three indexes.
PLAIN = """
CREATE SCHEMA muniment;
CREATE TABLE muniment.q (id bigserial PRIMARY KEY, xid xid8 NOT NULL DEFAULT pg_current_xact_id(), queued_at timestamptz NOT NULL DEFAULT now(),
    table_name text NOT NULL, primary_key text, operation text NOT NULL, processed_at timestamptz, is_processed bool NOT NULL DEFAULT false,
    processing_attempts int NOT NULL DEFAULT 0, last_error text, old_row jsonb, new_row jsonb, context jsonb);
CREATE INDEX ON muniment.q (is_processed, queued_at);
CREATE INDEX ON muniment.q (table_name, queued_at DESC);
CREATE INDEX ON muniment.q (processing_attempts, queued_at);
CREATE FUNCTION muniment.t() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $f$
BEGIN
    INSERT INTO muniment.q (table_name, primary_key, operation, old_row, new_row, context)
    VALUES ('public.hoso', coalesce(NEW.id, OLD.id)::text, TG_OP, CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END,
        CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END, nullif(current_setting('muniment.context', true), '')::jsonb);
    RETURN NULL;
END $f$;
CREATE TRIGGER muniment AFTER INSERT OR UPDATE OR DELETE ON hoso FOR EACH ROW EXECUTE FUNCTION muniment.t();
"""


def queue() -> str:
    """What attaching does, but for the event triggers."""
    parts = [(SQL / f"install_{name}.sql").read_text() for name in ("tables", "context", "triggers", "refresh")]
    source = "INSERT INTO muniment.queue_source VALUES ('q','{public}','{hoso}','{}','{}','{}','{}','{}','{}')"
    return ";\n".join(["CREATE SCHEMA muniment", *parts, source, "SELECT muniment.queue_refresh();"])


def main() -> None:
    folder, port, data = sys.argv[1:4]
    connection = ["-h", folder, "-p", port, "-U", "postgres"]
    postmaster = (pathlib.Path(data) / "postmaster.pid").read_text().split()[0]
    script = tempfile.NamedTemporaryFile("w", suffix=".sql")
    script.write(TRANSACTION)
    script.flush()

    def sql(text: str) -> None:
        command = ["psql", *connection, "-qX", "-v", "ON_ERROR_STOP=1", "-d", "postgres"]
        subprocess.run(command, input=text, text=True, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def cpu() -> float:
        """Microseconds of the server's processes that have ended."""
        fields = pathlib.Path(f"/proc/{postmaster}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[13]) + int(fields[14])) * 1e6 / os.sysconf("SC_CLK_TCK")

    def run(mode: str) -> float:
        sql("CHECKPOINT")
        before = cpu()
        command = ["pgbench", *connection, "-n", "-c", "1", "-t", str(TRANSACTIONS), "-M", mode, "-f", script.name, "postgres"]
        subprocess.run(command, check=True, capture_output=True)
        time.sleep(0.5)
        return (cpu() - before) / TRANSACTIONS

    sql(TABLE)
    for setting, mode in (("off", "prepared"), ("on", "simple")):
        os.environ["PGOPTIONS"] = f"-c synchronous_commit={setting}"
        for name, text in (("this queue", queue()), ("the plain design", PLAIN)):
            pairs = []
            for _ in range(ROUNDS):
                sql("DROP SCHEMA IF EXISTS muniment CASCADE")
                unaudited = run(mode)
                sql(text)
                pairs.append((run(mode) / unaudited, unaudited))
            ratio, base = (statistics.median(pair[at] for pair in pairs) for at in (0, 1))
            spread = ", ".join(f"{pair[0]:.2f}" for pair in pairs)
            print(f"synchronous_commit={setting} {mode:9} {name:17} ×{ratio:.2f} of {base:.0f} µs ({spread})", flush=True)


if __name__ == "__main__":
    main()
