-- A new wave, if anything became visible since the one before: rows of transactions that had not begun then, or were still running.
INSERT INTO muniment.queue_wave (number, upto)
SELECT previous.number + 1, pg_current_snapshot()
FROM muniment.queue_wave previous
WHERE previous.number = $1 AND (
    EXISTS (SELECT FROM muniment.queue_rows q WHERE q.transaction_id >= pg_snapshot_xmax(previous.upto))
    OR EXISTS (SELECT FROM muniment.queue_rows q WHERE q.transaction_id = ANY (ARRAY(SELECT pg_snapshot_xip(previous.upto)))))
ON CONFLICT (number) DO NOTHING
