SELECT path, stream, month, first, end_index, first_id, last_id, recorded_from, recorded_to, min_time, max_time,
       bytes, sha256, previous_hash, nodes
FROM file ORDER BY stream, first
