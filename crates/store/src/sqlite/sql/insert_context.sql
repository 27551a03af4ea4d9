-- Says who changes registers, for the rest of the transaction.
INSERT INTO muniment_context (document) VALUES ($1)
