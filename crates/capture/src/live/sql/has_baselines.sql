-- Whether no baseline of a source is due.
SELECT NOT EXISTS (SELECT FROM muniment.attached WHERE source = $1 AND baseline IS NOT NULL AND baseline IS DISTINCT FROM baseline_done)
