-- The wave that ends with what this transaction sees. No row if one was begun before, which has to be read first.
INSERT INTO muniment.queue_wave (number, upto) VALUES ($1 + 1, pg_current_snapshot()) ON CONFLICT (number) DO NOTHING
RETURNING (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS taken_at
