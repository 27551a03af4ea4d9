SELECT leaf FROM meta_leaf WHERE number >= $1 AND number < $2 ORDER BY number
