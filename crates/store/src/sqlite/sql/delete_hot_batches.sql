DELETE FROM hot_batch WHERE batch IN (
    SELECT batch FROM hot_batch WHERE stream = $1 AND first >= $2 AND end_index <= $3 ORDER BY first LIMIT $4
)
