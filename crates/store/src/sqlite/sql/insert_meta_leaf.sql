INSERT INTO meta_leaf (number, leaf) VALUES ($1, $2)
