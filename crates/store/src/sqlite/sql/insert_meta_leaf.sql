INSERT INTO meta_leaf (number, leaf) VALUES (?, ?)
