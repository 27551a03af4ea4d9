DELETE FROM garbage WHERE path = $1
