SELECT stream, first, end_index FROM flushed ORDER BY stream, first
