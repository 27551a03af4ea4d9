DELETE FROM hot_batch WHERE stream = $1 AND first >= $2 AND end_index <= $3 AND flushed_at IS NOT NULL
