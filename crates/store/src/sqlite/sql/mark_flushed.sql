UPDATE hot_batch SET flushed_at = $4 WHERE stream = $1 AND first >= $2 AND end_index <= $3
