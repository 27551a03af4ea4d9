SELECT size, number FROM stream_commit WHERE stream = $1 AND size > $2 ORDER BY size LIMIT $3
