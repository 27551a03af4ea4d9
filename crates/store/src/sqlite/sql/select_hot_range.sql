SELECT first, hashes, body FROM hot_batch WHERE stream = $1 AND first >= $2 AND first < $3 ORDER BY first
