DELETE FROM hot_batch WHERE flushed_at IS NOT NULL
