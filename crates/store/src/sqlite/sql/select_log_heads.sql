SELECT log, next_id FROM log_head
