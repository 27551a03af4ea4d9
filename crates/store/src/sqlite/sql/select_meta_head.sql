SELECT size, frontier, time FROM meta_head WHERE id = 1
