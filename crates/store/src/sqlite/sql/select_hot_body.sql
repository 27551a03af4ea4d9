SELECT hashes, body FROM hot_batch WHERE stream = $1 AND first = $2
