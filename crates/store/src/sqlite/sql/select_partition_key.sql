SELECT key FROM partition_key WHERE stream = $1 AND month = $2
