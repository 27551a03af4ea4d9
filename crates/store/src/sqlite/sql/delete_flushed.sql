DELETE FROM flushed WHERE stream = $1 AND first = $2
