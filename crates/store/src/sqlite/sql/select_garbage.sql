SELECT path FROM garbage WHERE since <= $1
